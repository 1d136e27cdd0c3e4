//! The statements of a step, as they are sent.
//!
//! A step may be what a sqlite3 shell has written of a whole database: see [`super::shell_output`].
//! The rows of a `.dump`, one statement each, are merged where they are more than a transaction
//! takes, see [`super::merged_inserts`].

use super::merged_inserts::merge_inserts;
use super::migration_step::MigrationStep;
use super::parting_advice::parting_advice;
use super::shell_output::adapt_shell_output;
use super::transaction_frame::take_frame_out;
use crate::cli_error::CliError;
use crate::network_cli::output::printable;
use debros_proto::limits::{MAX_REQUEST_FRAME_BYTES, MAX_SQL_BYTES, MAX_TRANSACTION_STATEMENTS};
use debros_proto::sql::{ScriptStatement, split};
use std::borrow::Cow;

/// Bytes of a step: what is around its statements has to fit into the request too.
const MAX_STEP_BYTES: usize = MAX_REQUEST_FRAME_BYTES - (256 << 10);

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

impl<'a> StepStatement<'a> {
    /// A statement as it stands in the file.
    pub(super) fn single(piece: &ScriptStatement<'a>) -> Self {
        Self {
            text: Cow::Borrowed(piece.text),
            line: piece.line,
            column: piece.column,
            last_line: piece.line,
        }
    }
}

/// The statements of a step.
///
/// # Errors
/// The file and the line of what does not end, and of what is too much for one step.
pub(super) fn step_statements(step: &MigrationStep) -> Result<Vec<StepStatement<'_>>, CliError> {
    let shown = printable(&step.file);
    let mut pieces =
        split(&step.sql).map_err(|error| CliError::usage(format!("{shown}, {}", error.message)))?;
    take_frame_out(&mut pieces)
        .map_err(|message| CliError::usage(format!("{shown}, {message}")))?;
    adapt_shell_output(&mut pieces);
    let count = pieces.len();
    // The record of the step is a statement of the same transaction.
    let most = MAX_TRANSACTION_STATEMENTS - 1;
    let parts = if count > most {
        merge_inserts(&step.sql, &pieces)
    } else {
        pieces.iter().map(StepStatement::single).collect()
    };
    if parts.len() > most {
        return Err(CliError::usage(format!(
            "{shown} has {count} statements, at most {most} fit into one step"
        ))
        .with_hint(parting_advice(&pieces)));
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
        .with_hint(parting_advice(&pieces)));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::step_statements;
    use crate::cli_error::CliError;
    use crate::network_cli::migrate::folder::read_folder;
    use crate::network_cli::migrate::test_folder::folder;

    fn texts(text: &str) -> Result<Vec<String>, CliError> {
        let step = read_folder(folder(&[("001_a.sql", text)]).path())?.remove(0);
        Ok(step_statements(&step)?.into_iter().map(|part| part.text.into_owned()).collect())
    }

    #[test]
    fn only_what_does_not_fit_is_put_together() {
        let rows = "INSERT INTO t VALUES(1);\n";
        let sent = |count: usize| {
            texts(&format!("BEGIN TRANSACTION;\n{}COMMIT;\n", rows.repeat(count))).unwrap().len()
        };
        assert_eq!((sent(2), sent(999), sent(1000)), (2, 999, 2));
    }

    /// A row of the index for each text made a dump too long that has few texts.
    #[test]
    fn the_rows_behind_a_virtual_table_are_put_together() {
        let mut dump = "BEGIN TRANSACTION;\nPRAGMA writable_schema=ON;\nINSERT INTO sqlite_schema(type,name,tbl_name,rootpage,\
                        sql)VALUES('table','ft','ft',0,'CREATE VIRTUAL TABLE ft using fts5(s)');\n"
            .to_owned();
        for (table, row) in [("content", "'a'"), ("docsize", "x'02'")] {
            dump.push_str(&format!("CREATE TABLE IF NOT EXISTS 'ft_{table}'(id, x);\n"));
            for number in 0..800 {
                dump.push_str(&format!("INSERT INTO ft_{table} VALUES({number},{row});\n"));
            }
        }
        dump.push_str("PRAGMA writable_schema=OFF;\nCOMMIT;\n");
        let sent = texts(&dump).unwrap();
        assert_eq!(sent.len(), 9, "three, and a table with two of many rows, twice");
        assert_eq!(sent[3].lines().count(), 500);
    }

    #[test]
    fn what_is_cut_off_is_refused_with_its_line() {
        let cli_error = texts("-- a dump\nBEGIN TRANSACTION;\nCREATE TABLE t(a);\n").unwrap_err();
        assert!(
            cli_error.message.starts_with("001_a.sql, line 2: BEGIN without COMMIT"),
            "{cli_error}"
        );
    }
}
