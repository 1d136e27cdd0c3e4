//! The rows of a long dump, one statement each, as statements of many rows.

use super::revert_check::unquote_name;
use super::step_statements::StepStatement;
use debros_proto::limits::MAX_SQL_BYTES;
use debros_proto::sql::{ScriptStatement, tokens};

/// Bytes of a merged statement.
const MAX_MERGED_BYTES: usize = MAX_SQL_BYTES / 2;
/// Rows of a merged statement.
const MAX_MERGED_ROWS: usize = 500;

/// The row that a merged statement ends with.
struct LastRow {
    head: RowHead,
    /// The rows of the statement.
    rows: usize,
    /// Where it ends in the script.
    end: usize,
}

/// What rows of one statement have in common.
#[derive(PartialEq, Eq)]
struct RowHead {
    table: String,
    /// The columns as they are written, none if they are not.
    columns: String,
    values: usize,
}

/// Rows of one table that follow each other, as statements of many rows. Their order stays; so it
/// does in the tables behind a virtual table, whose rows the node takes together too.
pub(super) fn merge_inserts<'a>(
    script: &str,
    pieces: &[ScriptStatement<'a>],
) -> Vec<StepStatement<'a>> {
    let rows: Vec<Option<PlainRow>> = pieces.iter().map(|piece| mergeable_row(piece)).collect();
    let mut others = pieces.iter().zip(&rows).filter(|(_, row)| row.is_none());
    // The number of rows that the statement before has written would be another.
    if others.any(|(piece, _)| counts_changes(piece.text)) {
        return pieces.iter().map(StepStatement::single).collect();
    }
    let mut parts: Vec<StepStatement<'a>> = Vec::new();
    let mut open: Option<LastRow> = None;
    for (piece, row) in pieces.iter().zip(rows) {
        let end = piece.start + piece.text.len();
        let Some(PlainRow { head, start }) = row else {
            open = None;
            parts.push(StepStatement::single(piece));
            continue;
        };
        if let (Some(before), Some(last)) = (&mut open, parts.last_mut()) {
            // Each row stays on the line that it has in the file.
            let lines = script[before.end..piece.start].matches('\n').count()
                + piece.text[..start].matches('\n').count();
            let added = 1 + lines + piece.text.len() - start;
            let fits = before.rows < MAX_MERGED_ROWS && last.text.len() + added <= MAX_MERGED_BYTES;
            if before.head == head && fits {
                let text = last.text.to_mut();
                text.push(',');
                text.extend(std::iter::repeat_n('\n', lines));
                text.push_str(&piece.text[start..]);
                last.last_line = piece.line;
                (before.rows, before.end) = (before.rows + 1, end);
                continue;
            }
        }
        open = Some(LastRow { head, rows: 1, end });
        parts.push(StepStatement::single(piece));
    }
    parts
}

/// A row that may stand in one statement with others of its table. Of SQLite's own tables these are
/// the statistics: the node reads the others row by row.
fn mergeable_row(piece: &ScriptStatement<'_>) -> Option<PlainRow> {
    parse_plain_row(piece.text).filter(|row| {
        let table = &row.head.table;
        !table.starts_with("sqlite_") || table.starts_with("sqlite_stat")
    })
}

fn counts_changes(statement: &str) -> bool {
    tokens(statement).any(|word| {
        word.eq_ignore_ascii_case("changes") || word.eq_ignore_ascii_case("total_changes")
    })
}

/// `INSERT INTO t VALUES(…)` of one row of literals, and nothing else; columns may be named.
struct PlainRow {
    head: RowHead,
    /// Where the parenthesis before the values is.
    start: usize,
}

fn parse_plain_row(statement: &str) -> Option<PlainRow> {
    let mut words = tokens(statement);
    let mut next_is = |word: &str| words.next().filter(|token| token.eq_ignore_ascii_case(word));
    next_is("INSERT")?;
    next_is("INTO")?;
    let table = words.next()?;
    let mut next = words.next()?;
    let mut columns = String::new();
    if next == "(" {
        loop {
            match words.next()? {
                ")" => break,
                "(" => return None,
                word => columns.push_str(word),
            }
        }
        next = words.next()?;
    }
    if !next.eq_ignore_ascii_case("VALUES") {
        return None;
    }
    let open = words.next().filter(|token| *token == "(")?;
    // Both are slices of the statement.
    let start = open.as_ptr().addr() - statement.as_ptr().addr();
    debug_assert!(statement[start..].starts_with('('));
    let mut count = 0;
    loop {
        let mut token = words.next()?;
        if token == "-" || token == "+" {
            token = words.next().filter(|number| {
                number.starts_with(|sign: char| sign.is_ascii_digit() || sign == '.')
            })?;
        }
        let mut after = words.next()?;
        match token.as_bytes() {
            [b'\'', ..] => {}
            [b'x' | b'X'] if after.starts_with('\'') => after = words.next()?,
            [b'0'..=b'9', rest @ ..] | [b'.', rest @ ..] => {
                // 1.5e+300 comes in pieces.
                let mut has_exponent = rest.ends_with(b"e") || rest.ends_with(b"E");
                while after == "."
                    || has_exponent && (after == "+" || after == "-")
                    || is_number(after)
                {
                    has_exponent = after.ends_with(['e', 'E']);
                    after = words.next()?;
                }
            }
            _ if token.eq_ignore_ascii_case("NULL") => {}
            _ if is_function(token) && after == "(" => {
                let mut depth = 1;
                while depth > 0 {
                    match words.next()? {
                        "(" => depth += 1,
                        ")" => depth -= 1,
                        "," => {}
                        inner
                            if inner.starts_with('\'')
                                || is_number(inner)
                                || is_function(inner) => {}
                        _ => return None,
                    }
                }
                after = words.next()?;
            }
            _ => return None,
        }
        count += 1;
        match after {
            "," => {}
            ")" => break,
            _ => return None,
        }
    }
    let head = RowHead { table: unquote_name(table), columns, values: count };
    words.next().is_none().then_some(PlainRow { head, start })
}

/// What shells write texts of several lines with.
fn is_function(token: &str) -> bool {
    ["replace", "char", "unistr"].iter().any(|name| token.eq_ignore_ascii_case(name))
}

fn is_number(token: &str) -> bool {
    token.starts_with(|sign: char| sign.is_ascii_digit())
        || token.len() > 1
            && token.starts_with(['e', 'E'])
            && token[1..].bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{MAX_MERGED_BYTES, MAX_MERGED_ROWS, merge_inserts, parse_plain_row};
    use debros_proto::sql::split;

    #[test]
    fn rows_that_follow_each_other_are_put_together() {
        let mut dump = "CREATE TABLE t(a,b);\n".to_owned();
        for number in 0..1200 {
            dump.push_str(&format!("INSERT INTO t VALUES({number},'it''s; {number}');\n"));
        }
        dump.push_str(
            "INSERT INTO \"u\" VALUES(1);\nINSERT INTO \"u\" VALUES(1,2);\nINSERT INTO U VALUES(3,-4);\n",
        );
        let parts = merge_inserts(&dump, &split(&dump).unwrap());
        let rows: Vec<usize> = parts.iter().map(|part| part.text.matches("(").count()).collect();
        assert_eq!(rows, [1, MAX_MERGED_ROWS, MAX_MERGED_ROWS, 200, 1, 2]);
        assert_eq!((parts[2].line, parts[2].last_line), (502, 1001));
        // The row stays on its line.
        assert!(
            parts[2].text.lines().nth(3).unwrap().starts_with("(503,'it''s; 503')"),
            "{}",
            parts[2].text
        );
        assert_eq!(parts[5].text, "INSERT INTO \"u\" VALUES(1,2),\n(3,-4)");
    }

    #[test]
    fn only_rows_that_keep_their_meaning_are_put_together_and_not_beyond_a_size() {
        let large = format!("INSERT INTO t VALUES('{}');\n", "x".repeat(MAX_MERGED_BYTES / 2));
        for (alone, count) in [
            ("INSERT INTO sqlite_sequence VALUES('t',1);\n", 4),
            ("INSERT INTO sqlite_schema(type,name) VALUES('table','t');\n", 4),
            ("INSERT INTO u VALUES(random());\n", 4),
            ("INSERT OR IGNORE INTO u VALUES(1);\n", 4),
            ("INSERT INTO u VALUES(1) ON CONFLICT DO NOTHING;\n", 4),
            ("INSERT INTO u SELECT 1;\n", 4),
            ("INSERT INTO u(a) VALUES(1);\nINSERT INTO u(b) VALUES(1);\n", 8),
            ("INSERT INTO u VALUES(1);\nINSERT INTO v VALUES(1);\n", 8),
            ("INSERT INTO u VALUES(1);\nINSERT INTO log VALUES(changes());\n", 8),
            (&large, 4),
            ("INSERT INTO fine VALUES(1);\n", 1),
            ("INSERT INTO fine(a, \"b\") VALUES(1,2);\n", 1),
            ("INSERT INTO f_docsize VALUES(1,X'00');\n", 1),
            ("INSERT INTO \"f f_content\" VALUES(1,'a');\n", 1),
            ("INSERT INTO sqlite_stat4 VALUES('t','i','1','0','0',X'00');\n", 1),
        ] {
            let script = alone.repeat(4);
            let parts = merge_inserts(&script, &split(&script).unwrap());
            assert_eq!(parts.len(), count, "{}", &alone[..40.min(alone.len())]);
        }
    }

    #[test]
    fn literals_of_a_dump_are_known() {
        for values in [
            "1,-2,+3,NULL,'a','it''s',X'00',x'ff',1.5,-1.5e+300,1e5,2.0e-7,.5,1e999,-9.0e+999,9223372036854775807",
            "replace('a\\nb','\\n',char(10)),replace(replace('a','\\r',char(13)),'\\n',char(10)),unistr('\\u000a'),1,2,3,4,5,6,7,\
             8,9,10,11,12,13",
        ] {
            let row = parse_plain_row(&format!("INSERT INTO \"a (b\" VALUES({values})"))
                .unwrap_or_else(|| panic!("{values}"));
            let head = (row.head.table.as_str(), row.head.columns.as_str(), row.head.values);
            assert_eq!((head, row.start), (("a (b", "", 16), 25), "{values}");
        }
        for values in [
            "",
            "a",
            "\"a\"",
            "?1",
            "1+1",
            "1 AS x",
            "'a' 'b'",
            "(SELECT 1)",
            "random()",
            "replace(a,'b','c')",
            "1),(2",
        ] {
            assert!(
                parse_plain_row(&format!("INSERT INTO t VALUES({values})")).is_none(),
                "{values}"
            );
        }
    }
}
