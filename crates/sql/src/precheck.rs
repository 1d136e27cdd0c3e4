//! The checks before anything else: size, and characters on which two readers of SQL may disagree.

use crate::position::line_and_column;
use debros_proto::limits::MAX_SQL_BYTES;
use debros_proto::{Code, Error, Result};

/// The nesting of parentheses, brackets of JSON paths aside.
pub(crate) const MAX_NESTING: usize = 200;

/// Refuses a text that is not worth parsing.
///
/// # Errors
/// `sql_too_long`; `sql_error` with the position of a NUL character, of a blank on which SQLite's
/// own versions disagree, of an unclosed string, or of parentheses too deep; `invalid_argument` for
/// a text without a statement.
pub(crate) fn check_text(sql: &str) -> Result<()> {
    if sql.len() > MAX_SQL_BYTES {
        return Err(Error::new(
            Code::SqlTooLong,
            format!("the SQL text has {} bytes; at most {MAX_SQL_BYTES} are allowed", sql.len()),
        ));
    }
    if let Some(offset) = sql.find('\0') {
        return Err(position_error(sql, offset, "the SQL text holds a NUL character"));
    }
    let bytes = sql.as_bytes();
    let mut depth = 0;
    let mut empty = true;
    let mut offset = 0;
    while let Some(&byte) = bytes.get(offset) {
        let rest = &bytes[offset..];
        if byte.is_ascii_whitespace() {
            offset += 1;
            continue;
        }
        if rest.starts_with(b"--") {
            offset += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            continue;
        }
        if rest.starts_with(b"/*") {
            offset += 2 + rest[2..]
                .windows(2)
                .position(|pair| pair == b"*/")
                .map_or(rest.len() - 2, |end| end + 2);
            continue;
        }
        if byte == 0x0b || rest.starts_with("\u{feff}".as_bytes()) {
            return Err(position_error(
                sql,
                offset,
                "a vertical tab or byte-order mark stands between the words",
            ));
        }
        empty &= byte == b';';
        match byte {
            b'\'' | b'"' | b'`' => {
                offset += quoted_length(rest, byte)
                    .ok_or_else(|| position_error(sql, offset, "the quote does not end"))?;
                continue;
            }
            b'[' => {
                let end = rest.iter().position(|byte| *byte == b']');
                offset += 1 + end
                    .ok_or_else(|| position_error(sql, offset, "the bracket does not end"))?;
                continue;
            }
            b'(' => depth += 1,
            b')' => depth = usize::saturating_sub(depth, 1),
            _ => (),
        }
        if depth > MAX_NESTING {
            return Err(position_error(
                sql,
                offset,
                &format!("parentheses are nested deeper than {MAX_NESTING}"),
            ));
        }
        offset += 1;
    }
    if empty {
        return Err(Error::new(Code::InvalidArgument, "the SQL text holds no statement"));
    }
    Ok(())
}

fn position_error(sql: &str, offset: usize, what: &str) -> Error {
    Error::new(Code::Sql, format!("{what} ({})", line_and_column(sql, offset)))
}

/// The length of the quoted text at the start; a doubled quote stands for itself.
fn quoted_length(bytes: &[u8], mark: u8) -> Option<usize> {
    let mut offset = 1;
    loop {
        offset += bytes.get(offset..)?.iter().position(|byte| *byte == mark)? + 1;
        if bytes.get(offset) != Some(&mark) {
            return Some(offset);
        }
        offset += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_NESTING, check_text};
    use debros_proto::Code;

    #[test]
    fn what_two_readers_may_read_in_two_ways_is_refused_with_its_place() {
        for (sql, place) in [
            ("SELECT 1;\n\0SELECT 2", "line 2, column 1"),
            ("SELECT '\0'", "line 1, column 9"),
            ("SELECT\u{b}1", "line 1, column 7"),
            ("é\u{feff}SELECT 1", "line 1, column 2"),
            ("SELECT 'it''s", "line 1, column 8"),
            ("SELECT \"a", "line 1, column 8"),
            ("SELECT [a", "line 1, column 8"),
            ("SELECT `a``", "line 1, column 8"),
        ] {
            let error = check_text(sql).unwrap_err();
            assert!(error.code == Code::Sql && error.message.contains(place), "{sql:?}: {error}");
        }
        assert!(check_text("SELECT '\u{b}\u{feff}', \"\u{b}\" -- \u{b}\n /* \u{feff}").is_ok());
    }

    #[test]
    fn depth_and_size_are_bounded() {
        assert!(check_text(&format!("SELECT {}1", "(".repeat(MAX_NESTING + 1))).is_err());
        assert!(check_text(&format!("SELECT '{}'", "(".repeat(1000))).is_ok());
        assert_eq!(check_text(&" ".repeat((1 << 20) + 1)).unwrap_err().code, Code::SqlTooLong);
    }

    #[test]
    fn nothing_is_no_statement() {
        for sql in ["", "  ", ";;", "-- x", "/* x"] {
            assert!(check_text(sql).unwrap_err().message.contains("no statement"), "{sql:?}");
        }
    }
}
