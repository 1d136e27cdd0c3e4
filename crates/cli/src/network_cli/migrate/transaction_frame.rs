//! The BEGIN and COMMIT of a file: they are left out, because each step is one transaction anyway.
//!
//! A file that was cut off has the first without the second. SQLite would take back what it did, so
//! it is no step.

use super::shell_output::writable_schema;
use debros_proto::sql::{ScriptStatement, TransactionFrame, tokens, transaction_frame};

/// Takes the frame out of the statements.
///
/// # Errors
/// The line of what begins and does not end, and what that means.
pub(super) fn take_frame_out(pieces: &mut Vec<ScriptStatement<'_>>) -> Result<(), String> {
    let (mut transaction, mut schema) = (None, None);
    for piece in pieces.iter() {
        match transaction_frame(piece.text) {
            Some(TransactionFrame::Begin) => transaction = Some(piece.line),
            Some(TransactionFrame::Commit) => transaction = None,
            None if is_rollback(piece.text) => {
                return Err(format!(
                    "line {}: ROLLBACK takes back what the file does; a sqlite3 shell ends a dump so when it could not read all",
                    piece.line
                ));
            }
            None => match writable_schema(piece.text) {
                Some(true) => schema = schema.or(Some(piece.line)),
                Some(false) => schema = None,
                None => {}
            },
        }
    }
    let cut_off = |line: usize, begin: &str, end: &str| {
        format!(
            "line {line}: {begin} without {end} after it: the file seems to be cut off, and SQLite would take back what it did"
        )
    };
    if let Some(line) = transaction {
        return Err(cut_off(line, "BEGIN", "COMMIT"));
    }
    if let Some(line) = schema {
        return Err(cut_off(line, "PRAGMA writable_schema=ON", "PRAGMA writable_schema=OFF"));
    }
    pieces.retain(|piece| transaction_frame(piece.text).is_none());
    Ok(())
}

fn is_rollback(statement: &str) -> bool {
    let words: Vec<String> =
        tokens(statement).take(3).map(|word| word.to_ascii_uppercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(words.as_slice(), ["ROLLBACK"] | ["ROLLBACK", "TRANSACTION"])
}

#[cfg(test)]
mod tests {
    use super::take_frame_out;
    use debros_proto::sql::split;

    #[test]
    fn a_file_that_is_cut_off_is_no_step() {
        for (script, words) in [
            (
                "BEGIN TRANSACTION;\nCREATE TABLE t(a);\nINSERT INTO t VALUES(1);\n",
                "line 1: BEGIN without COMMIT",
            ),
            ("SELECT 1;\nbegin immediate;\nSELECT 2;", "line 2: BEGIN"),
            ("BEGIN;\nCOMMIT;\nBEGIN;\nSELECT 1;", "line 3: BEGIN"),
            (
                "PRAGMA writable_schema=ON;\nINSERT INTO sqlite_schema VALUES(1);\n",
                "line 1: PRAGMA writable_schema=ON without",
            ),
            (
                "BEGIN;\nPRAGMA writable_schema=ON;\nCOMMIT;",
                "line 2: PRAGMA writable_schema=ON without",
            ),
            ("BEGIN TRANSACTION;\nSELECT 1;\nROLLBACK; -- due to errors\n", "line 3: ROLLBACK"),
        ] {
            let mut pieces = split(script).unwrap();
            let message = take_frame_out(&mut pieces).expect_err(script);
            assert!(message.starts_with(words), "{script}: {message}");
        }
    }

    #[test]
    fn a_whole_file_is_left_without_its_frame() {
        for (script, count) in [
            ("BEGIN TRANSACTION;\nSELECT 1;\nCOMMIT;", 1),
            ("BEGIN EXCLUSIVE TRANSACTION; SELECT 1; END TRANSACTION; SELECT 2;", 2),
            ("PRAGMA writable_schema=ON;\nSELECT 1;\nPRAGMA writable_schema=OFF;", 3),
            ("CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END;", 1),
            ("PRAGMA writable_schema; SELECT 1", 2),
        ] {
            let mut pieces = split(script).unwrap();
            take_frame_out(&mut pieces).unwrap_or_else(|message| panic!("{script}: {message}"));
            assert_eq!(pieces.len(), count, "{script}");
        }
    }
}
