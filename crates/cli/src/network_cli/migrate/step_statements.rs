//! The statements of a step, as they are sent.
//!
//! A step may be what a sqlite3 shell has written of a whole database. What `.schema` says of
//! SQLite's own tables is left out: they are made along with what they belong to. And the rows of a
//! `.dump`, one statement each, are merged where they are more than a transaction takes.

use super::migration_step::MigrationStep;
use super::plain_row::parse_plain_row;
use super::revert_check::unquote_name;
use crate::cli_error::CliError;
use crate::network_cli::output::printable;
use debros_proto::limits::{MAX_REQUEST_FRAME_BYTES, MAX_SQL_BYTES, MAX_TRANSACTION_STATEMENTS};
use debros_proto::sql::{ScriptStatement, split_migration, tokens};
use std::borrow::Cow;

/// Bytes of a step: what is around its statements has to fit into the request too.
const MAX_STEP_BYTES: usize = MAX_REQUEST_FRAME_BYTES - (256 << 10);
/// Bytes of a merged statement.
const MAX_MERGED_BYTES: usize = MAX_SQL_BYTES / 2;
/// Rows of a merged statement.
const MAX_MERGED_ROWS: usize = 500;

/// A statement of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StepStatement<'a> {
    pub(super) text: Cow<'a, str>,
    /// The line of the file that it starts on, from 1.
    pub(super) line: usize,
    /// The column of that line, from 1, in characters.
    pub(super) column: usize,
    /// Where the last of the statements that were merged into it starts; else as `line`.
    pub(super) last_line: usize,
}

/// The statements of a step.
///
/// # Errors
/// The file and the line of what does not end, and of what is too much for one step.
pub(super) fn step_statements(step: &MigrationStep) -> Result<Vec<StepStatement<'_>>, CliError> {
    let shown = printable(&step.file);
    let mut pieces = split_migration(&step.sql)
        .map_err(|error| CliError::usage(format!("{shown}, {}", error.message)))?;
    omit_internal_tables(&mut pieces);
    let count = pieces.len();
    // The record of the step is a statement of the same transaction.
    let most = MAX_TRANSACTION_STATEMENTS - 1;
    let parts = if count > most {
        merge_inserts(&step.sql, &pieces)
    } else {
        pieces.iter().map(single_statement).collect()
    };
    if parts.len() > most {
        return Err(CliError::usage(format!("{shown} has {count} statements, at most {most} fit into one step")).with_hint(
            "part it into several files; of a dump, only rows that are written out, INSERT INTO t VALUES(…), are merged",
        ));
    }
    if let Some(part) = parts.iter().find(|part| part.text.len() > MAX_SQL_BYTES) {
        return Err(CliError::usage(format!(
            "{shown}, line {}: the statement is longer than {MAX_SQL_BYTES} bytes",
            part.line
        ))
        .with_hint(
            "give a large value as an argument, from a program: POST /v1/db/query takes args",
        ));
    }
    let bytes: usize = parts.iter().map(|part| part.text.len()).sum();
    if bytes > MAX_STEP_BYTES {
        return Err(CliError::usage(format!(
            "{shown} has {bytes} bytes of statements, at most {MAX_STEP_BYTES} fit into one step"
        ))
        .with_hint("part it into several files"));
    }
    Ok(parts)
}

fn single_statement<'a>(piece: &ScriptStatement<'a>) -> StepStatement<'a> {
    StepStatement {
        text: Cow::Borrowed(piece.text),
        line: piece.line,
        column: piece.column,
        last_line: piece.line,
    }
}

/// What `.schema` writes of tables that SQLite makes itself. A `.dump`, which says that it writes
/// into the schema, is taken as a whole by the node.
fn omit_internal_tables(pieces: &mut Vec<ScriptStatement<'_>>) {
    const OWN: [&str; 3] = [
        "sqlite_sequence(name,seq)",
        "sqlite_stat1(tbl,idx,stat)",
        "sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
    ];
    if pieces.iter().any(|piece| is_writable_schema_pragma(piece.text)) {
        return;
    }
    let mut modules: Vec<(String, String)> = Vec::new();
    pieces.retain(|piece| {
        let start: Vec<&str> = tokens(piece.text).take(20).collect();
        let upper: Vec<String> = start.iter().map(|token| token.to_ascii_uppercase()).collect();
        let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
        match upper.as_slice() {
            ["CREATE", "VIRTUAL", "TABLE", "IF", "NOT", "EXISTS", _, "USING", module, ..] => {
                modules.push((unquote_name(start[6]), unquote_name(module)));
                true
            }
            ["CREATE", "VIRTUAL", "TABLE", _, "USING", module, ..] => {
                modules.push((unquote_name(start[3]), unquote_name(module)));
                true
            }
            ["CREATE", "TABLE", "IF", "NOT", "EXISTS", name, ..] if name.starts_with('\'') => {
                let name = unquote_name(name);
                !modules.iter().any(|(table, module)| {
                    name.strip_prefix(table.as_str())
                        .is_some_and(|ending| shadow_table_suffixes(module).contains(&ending))
                })
            }
            ["CREATE", "TABLE", "IF", "NOT", "EXISTS", rest @ ..]
            | ["CREATE", "TABLE", rest @ ..] => {
                let definition: String = rest.iter().map(|token| unquote_name(token)).collect();
                !OWN.contains(&definition.as_str())
            }
            _ => true,
        }
    });
}

fn is_writable_schema_pragma(statement: &str) -> bool {
    let mut words = tokens(statement);
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("PRAGMA"))
        && words.next().is_some_and(|word| word.eq_ignore_ascii_case("writable_schema"))
}

/// What the names of the tables behind a virtual table end with.
fn shadow_table_suffixes(module: &str) -> &'static [&'static str] {
    match module {
        "fts5" => &["_data", "_idx", "_content", "_docsize", "_config"],
        "fts3" | "fts4" => &["_content", "_segments", "_segdir", "_docsize", "_stat"],
        "rtree" | "rtree_i32" => &["_node", "_rowid", "_parent"],
        _ => &[],
    }
}

/// Rows of one table that follow each other, as statements of many rows.
fn merge_inserts<'a>(script: &str, pieces: &[ScriptStatement<'a>]) -> Vec<StepStatement<'a>> {
    // The tables of a dump's virtual tables are taken row by row.
    let virtual_tables: Vec<String> =
        pieces.iter().filter_map(|piece| virtual_table_name(piece.text)).collect();
    let mut parts: Vec<StepStatement<'a>> = Vec::new();
    // Of the last part: the table, the values of a row, the rows, and where it ends in the script.
    let mut open: Option<(String, usize, usize, usize)> = None;
    for piece in pieces {
        let row = parse_plain_row(piece.text).filter(|row| {
            let is_behind = |table: &String| {
                row.table
                    .strip_prefix(table.as_str())
                    .is_some_and(|end| end.is_empty() || end.starts_with('_'))
            };
            !row.table.starts_with("sqlite_") && !virtual_tables.iter().any(is_behind)
        });
        let end = piece.start + piece.text.len();
        let Some(row) = row else {
            open = None;
            parts.push(single_statement(piece));
            continue;
        };
        if let (Some((table, values, rows, before)), Some(last)) = (&mut open, parts.last_mut()) {
            // Each row stays on the line that it has in the file.
            let lines = script[*before..piece.start].matches('\n').count()
                + piece.text[..row.start].matches('\n').count();
            let added = 1 + lines + piece.text.len() - row.start;
            let fits = *rows < MAX_MERGED_ROWS && last.text.len() + added <= MAX_MERGED_BYTES;
            if *table == row.table && *values == row.values && fits {
                let text = last.text.to_mut();
                text.push(',');
                text.extend(std::iter::repeat_n('\n', lines));
                text.push_str(&piece.text[row.start..]);
                last.last_line = piece.line;
                (*rows, *before) = (*rows + 1, end);
                continue;
            }
        }
        open = Some((row.table, row.values, 1, end));
        parts.push(single_statement(piece));
    }
    parts
}

/// The name of a virtual table that is made, or that a dump writes into the schema.
fn virtual_table_name(statement: &str) -> Option<String> {
    let start: Vec<&str> = tokens(statement).take(22).collect();
    let is =
        |at: usize, word: &str| start.get(at).is_some_and(|token| token.eq_ignore_ascii_case(word));
    if is(0, "CREATE") && is(1, "VIRTUAL") {
        let using = start.iter().position(|token| token.eq_ignore_ascii_case("USING"))?;
        return Some(unquote_name(start.get(using.checked_sub(1)?)?));
    }
    let is_schema = is(2, "sqlite_schema") || is(2, "sqlite_master");
    if !(is(0, "INSERT") && is_schema) {
        return None;
    }
    // VALUES ( 'table' , 'name'
    let values = start.iter().position(|token| token.eq_ignore_ascii_case("VALUES"))?;
    Some(unquote_name(start.get(values + 4)?))
}

#[cfg(test)]
mod tests {
    use super::{MAX_MERGED_BYTES, MAX_MERGED_ROWS, step_statements};
    use crate::network_cli::migrate::folder::read_folder;
    use crate::network_cli::migrate::migration_step::MigrationStep;
    use crate::network_cli::migrate::test_folder::folder;

    fn step(text: &str) -> MigrationStep {
        read_folder(folder(&[("001_a.sql", text)]).path())
            .unwrap_or_else(|cli_error| panic!("{cli_error}"))
            .remove(0)
    }

    fn texts(step: &MigrationStep) -> Vec<String> {
        step_statements(step).unwrap().into_iter().map(|part| part.text.into_owned()).collect()
    }

    #[test]
    fn what_a_shell_says_of_tables_that_sqlite_makes_is_left_out() {
        let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT);\nCREATE TABLE sqlite_sequence(name,seq);\nCREATE \
                      TABLE IF NOT EXISTS \"sqlite_sequence\"(name,seq);\nCREATE VIRTUAL TABLE ft USING fts5(a)\n/* ft(a) */;\n\
                      CREATE TABLE IF NOT EXISTS 'ft_data'(id INTEGER PRIMARY KEY, block BLOB);\nCREATE TABLE IF NOT EXISTS \
                      'ft_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID;\nCREATE VIRTUAL TABLE box USING \
                      rtree(id, a, b);\nCREATE TABLE IF NOT EXISTS \"box_node\"(nodeno INTEGER PRIMARY KEY,data);\nCREATE TABLE \
                      sqlite_stat1(tbl,idx,stat);\nCREATE TABLE IF NOT EXISTS 'ft_other'(x);";
        let kept = texts(&step(schema));
        let starts: Vec<&str> = kept.iter().map(|text| text.split('(').next().unwrap()).collect();
        assert_eq!(
            starts,
            [
                "CREATE TABLE t",
                "CREATE VIRTUAL TABLE ft USING fts5",
                "CREATE VIRTUAL TABLE box USING rtree",
                // Only as the shell writes it.
                "CREATE TABLE IF NOT EXISTS \"box_node\"",
                "CREATE TABLE IF NOT EXISTS 'ft_other'",
            ]
        );
        // Of a dump the node takes it.
        let dump = format!("PRAGMA writable_schema=ON;\n{schema}\nPRAGMA writable_schema=OFF;");
        assert_eq!(texts(&step(&dump)).len(), 12);
        assert_eq!(texts(&step("CREATE TABLE sqlite_sequence(name,seq,more);")).len(), 1);
    }

    #[test]
    fn the_rows_of_a_long_dump_are_put_together() {
        let mut dump = "BEGIN TRANSACTION;\nCREATE TABLE t(a,b);\n".to_owned();
        for number in 0..1200 {
            dump.push_str(&format!("INSERT INTO t VALUES({number},'it''s; {number}');\n"));
        }
        dump.push_str(
            "INSERT INTO \"u\" VALUES(1);\nINSERT INTO \"u\" VALUES(1,2);\nINSERT INTO U VALUES(3,-4);\nCOMMIT;\n",
        );
        let step = step(&dump);
        let parts = step_statements(&step).unwrap();
        let rows: Vec<usize> = parts.iter().map(|part| part.text.matches("(").count()).collect();
        assert_eq!(rows, [1, MAX_MERGED_ROWS, MAX_MERGED_ROWS, 200, 1, 2]);
        assert_eq!((parts[2].line, parts[2].last_line), (503, 1002));
        // The row stays on its line.
        assert!(
            parts[2].text.lines().nth(3).unwrap().starts_with("(503,'it''s; 503')"),
            "{}",
            parts[2].text
        );
        assert_eq!(parts[5].text, "INSERT INTO \"u\" VALUES(1,2),\n(3,-4)");
        // What fits is sent as it stands.
        let short = self::step("INSERT INTO t VALUES(1); INSERT INTO t VALUES(2);");
        assert_eq!(texts(&short).len(), 2);
    }

    #[test]
    fn only_plain_rows_are_put_together_and_not_beyond_a_size() {
        let virtual_tables = "CREATE VIRTUAL TABLE f USING fts5(a);\nINSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)\
                              VALUES('table','g','g',0,'CREATE VIRTUAL TABLE g USING fts5(a)');\n";
        let large = format!("INSERT INTO t VALUES('{}');\n", "x".repeat(MAX_MERGED_BYTES / 2));
        let small = "INSERT INTO t VALUES(1);\n".repeat(1000);
        for (alone, count) in [
            ("INSERT INTO f_content VALUES(1,'a');\n".repeat(4), 4),
            ("INSERT INTO g_data VALUES(1,X'00');\n".repeat(4), 4),
            ("INSERT INTO g VALUES('a');\n".repeat(4), 4),
            ("INSERT INTO sqlite_sequence VALUES('t',1);\n".repeat(4), 4),
            ("INSERT INTO sqlite_stat1 VALUES('t',NULL,'1');\n".repeat(4), 4),
            ("INSERT INTO u VALUES(random());\n".repeat(4), 4),
            ("INSERT OR IGNORE INTO u VALUES(1);\n".repeat(4), 4),
            ("INSERT INTO u(a) VALUES(1);\n".repeat(4), 4),
            ("INSERT INTO u VALUES(1) ON CONFLICT DO NOTHING;\n".repeat(4), 4),
            ("INSERT INTO u SELECT 1;\n".repeat(4), 4),
            (large.repeat(4), 4),
            ("INSERT INTO fine VALUES(1);\n".repeat(4), 1),
        ] {
            let text = format!("{virtual_tables}{alone}{virtual_tables}{small}");
            assert_eq!(
                texts(&step(&text)).len(),
                2 + count + 2 + 2,
                "{}",
                &alone[..40.min(alone.len())]
            );
        }
    }
}
