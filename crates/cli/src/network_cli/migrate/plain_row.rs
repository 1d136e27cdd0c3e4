//! Reading the rows of a dump: an INSERT of one row of literals, as sqlite3 shells write it.

use super::revert_check::unquote_name;
use debros_proto::sql::tokens;

/// `INSERT INTO t VALUES(…)` of one row of literals, and nothing else.
pub(super) struct PlainRow {
    pub(super) table: String,
    /// How many values it has.
    pub(super) values: usize,
    /// Where the parenthesis before the values is.
    pub(super) start: usize,
}

/// Reads a statement that is one; `None` for any other.
pub(super) fn parse_plain_row(statement: &str) -> Option<PlainRow> {
    let mut words = tokens(statement);
    let mut next_is = |word: &str| words.next().filter(|token| token.eq_ignore_ascii_case(word));
    next_is("INSERT")?;
    next_is("INTO")?;
    let table = words.next()?;
    let mut next_is = |word: &str| words.next().filter(|token| token.eq_ignore_ascii_case(word));
    let values = next_is("VALUES")?;
    let open = next_is("(")?;
    // Both are slices of the statement.
    let start = open.as_ptr().addr() - statement.as_ptr().addr();
    debug_assert!(values.len() <= start && statement[start..].starts_with('('));
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
    words.next().is_none().then(|| PlainRow { table: unquote_name(table), values: count, start })
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
    use super::parse_plain_row;

    #[test]
    fn literals_of_a_dump_are_known() {
        for values in [
            "1,-2,+3,NULL,'a','it''s',X'00',x'ff',1.5,-1.5e+300,1e5,2.0e-7,.5,1e999,-9.0e+999,9223372036854775807",
            "replace('a\\nb','\\n',char(10)),replace(replace('a','\\r',char(13)),'\\n',char(10)),unistr('\\u000a'),1,2,3,4,5,6,7,\
             8,9,10,11,12,13",
        ] {
            let row = parse_plain_row(&format!("INSERT INTO \"a (b\" VALUES({values})"))
                .unwrap_or_else(|| panic!("{values}"));
            assert_eq!((row.table.as_str(), row.values, row.start), ("a (b", 16, 25), "{values}");
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
