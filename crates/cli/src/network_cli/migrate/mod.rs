//! `db migrate`: an application's own schema, in numbered steps.
//!
//! Each step runs once, in one transaction together with its row in `schema_migrations`, so that it
//! is applied and recorded or neither; of two programs that apply it at once, one finds the number
//! taken.

mod code_migrations;
mod dialect;
mod file_list;
mod folder;
mod history_tables;
mod markers;
mod merged_inserts;
mod migration_step;
mod parting_advice;
mod revert_check;
mod shell_output;
mod step_names;
mod step_reader;
mod step_statements;
mod subfolders;
#[cfg(test)]
mod test_folder;
mod transaction_frame;
mod virtual_tables;

use self::folder::read_folder;
use self::history_tables::{AppliedStep, MigrationHistory};
use self::migration_step::MigrationStep;
use self::step_statements::{StepStatement, step_statements};
use super::args::Baseline;
use super::node_connection::NodeConnection;
use super::output::{Output, TableCell, print_note, printable};
use crate::cli_error::CliError;
use debros_client::rpc::Statement;
use debros_client::{Client, Code, Error};
use serde_json::json;
use std::path::Path;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL, \
    checksum TEXT NOT NULL, applied_at INTEGER NOT NULL)";
const RECORD: &str =
    "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)";

pub(super) async fn run(
    connection: &NodeConnection,
    out: Output,
    dir: &Path,
    dry_run: bool,
) -> Result<(), CliError> {
    let steps = read_folder(dir)?;
    let client = connection.user_client().await?;
    let applied = match history_tables::read_history(&client, dir).await? {
        MigrationHistory::Nothing => Vec::new(),
        MigrationHistory::Own(applied) => applied,
        MigrationHistory::Other { tool, table, newest } => {
            return Err(history_tables::migrated_by_error(tool, table, &newest, dir));
        }
    };
    let pending = pending_steps(&steps, &applied)?;
    let mut applied: Vec<&str> = Vec::new();
    if !dry_run && !pending.is_empty() {
        client.database().query(CREATE, []).await?;
        for step in pending {
            if apply_step(&client, step, dir).await? == Applied::Here {
                print_note(&format!("applied {}", printable(&step.file)));
                applied.push(&step.file);
            }
        }
    }
    let newest = steps.last().map_or(0, |step| step.version);
    if out.is_json() {
        let (key, files) =
            if dry_run { ("pending", file_names(pending)) } else { ("applied", applied) };
        return out.write_json(&json!({ "status": "ok", key: files, "version": newest }));
    }
    if pending.is_empty() {
        return out.write_line(&format!("up to date at version {newest}"));
    }
    if dry_run {
        let rows = pending
            .iter()
            .map(|step| vec![TableCell::Number(step.number.clone()), step.name.as_str().into()]);
        return out.write_table(&["PENDING", "NAME"], rows);
    }
    out.write_line(&format!("now at version {newest}"))
}

/// Records steps that another tool has applied, without running them.
pub(super) async fn record_baseline(
    connection: &NodeConnection,
    out: Output,
    dir: &Path,
    baseline: Baseline,
) -> Result<(), CliError> {
    let steps = read_folder(dir)?;
    let recorded = match baseline {
        Baseline::Empty => 0,
        Baseline::Version(version) => {
            1 + steps.iter().position(|step| step.version == version).ok_or_else(|| {
                CliError::usage(format!("no step in {} has the number {version}", dir.display()))
                    .with_hint(
                        "--baseline takes the number of the newest step that is applied, or none",
                    )
            })?
        }
    };
    let recorded = &steps[..recorded];
    let client = connection.user_client().await?;
    if let MigrationHistory::Own(applied) = history_tables::read_history(&client, dir).await?
        && let Some(newest) = applied.last()
    {
        return Err(CliError::new(format!(
            "the namespace has a record already: its newest step is {} ({})",
            newest.version,
            printable(&newest.name)
        ))
        .with_hint("--baseline is for a namespace that another tool has migrated"));
    }
    let statements =
        std::iter::once(Statement::from(CREATE)).chain(recorded.iter().map(record_statement));
    // Together: of two programs at once one finds its numbers taken.
    client.database().transaction(statements).await?;
    let version = recorded.last().map(|step| step.version);
    out.write_result(
        || json!({ "status": "ok", "recorded": file_names(recorded), "version": version }),
        || match version {
            Some(version) => {
                format!("recorded as applied up to version {version}, without running anything")
            }
            None => "recorded that nothing is applied".to_owned(),
        },
    )
}

fn file_names(steps: &[MigrationStep]) -> Vec<&str> {
    steps.iter().map(|step| step.file.as_str()).collect()
}

/// The steps that are not applied yet, when what was applied is the beginning of the folder.
fn pending_steps<'a>(
    steps: &'a [MigrationStep],
    applied: &[AppliedStep],
) -> Result<&'a [MigrationStep], CliError> {
    for (position, applied) in applied.iter().enumerate() {
        let known = || format!("{} ({})", applied.version, printable(&applied.name));
        let step = match steps.get(position) {
            Some(step) if step.version == applied.version => step,
            Some(step) if step.version < applied.version => {
                return Err(CliError::new(format!(
                    "{} was not applied to the namespace, but {} was, which comes after it",
                    printable(&step.file),
                    known()
                ))
                .with_hint("give it a number after those that were applied"));
            }
            _ => {
                return Err(CliError::new(format!(
                    "{} was applied to the namespace, but is not in the folder",
                    known()
                )));
            }
        };
        if step.checksum != applied.checksum {
            return Err(CliError::new(format!(
                "{} was changed after it was applied as {}",
                printable(&step.file),
                known()
            ))
            .with_hint("put the applied text back, and write what is to change into a new file"));
        }
    }
    Ok(&steps[applied.len().min(steps.len())..])
}

/// The row of a step.
fn record_statement(step: &MigrationStep) -> Statement {
    Statement::new(
        RECORD,
        [
            step.version.into(),
            step.name.as_str().into(),
            step.checksum.as_str().into(),
            debros_proto::now_ms().into(),
        ],
    )
}

/// Who has applied a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    Here,
    /// Another program, at the same moment.
    Elsewhere,
}

async fn apply_step(
    client: &Client,
    step: &MigrationStep,
    dir: &Path,
) -> Result<Applied, CliError> {
    let parts = step_statements(step)?;
    // The record first: when another program applies the step at this moment, the number is taken
    // and nothing else runs.
    let statements = std::iter::once(record_statement(step))
        .chain(parts.iter().map(|part| Statement::from(part.text.as_ref())));
    match client.database().transaction(statements).await {
        Ok(_) => Ok(Applied::Here),
        Err(error) if error.statement == Some(0) && error.code == Code::Constraint => {
            check_applied_by_other(client, step, dir).await.map(|()| Applied::Elsewhere)
        }
        Err(error) => Err(locate_error(step, &parts, error)),
    }
}

/// The number was taken meanwhile, which is right when it was by the same text.
async fn check_applied_by_other(
    client: &Client,
    step: &MigrationStep,
    dir: &Path,
) -> Result<(), CliError> {
    let known = history_tables::read_history(client, dir).await?;
    if let MigrationHistory::Own(applied) = known
        && applied
            .iter()
            .any(|known| known.version == step.version && known.checksum == step.checksum)
    {
        return Ok(());
    }
    Err(CliError::new(format!(
        "{}: another program applied a different step {} at this moment",
        printable(&step.file),
        step.version
    )))
}

/// The error with the file and the place in it: where the statement that failed begins, or where in
/// it the node points to.
fn locate_error(step: &MigrationStep, parts: &[StepStatement<'_>], mut error: Error) -> CliError {
    let part = error
        .statement
        .take()
        .and_then(|index| index.checked_sub(1))
        .and_then(|index| parts.get(index));
    let mut place = String::new();
    if let Some(part) = part {
        place = match part.last_line {
            last if last > part.line => format!(", in a row of lines {} to {last}", part.line),
            _ => format!(", line {}", part.line),
        };
        if let Some((message, (line, column))) = split_off_position(&error.message) {
            // The node counts from the statement's beginning.
            let column = if line == 1 { part.column + column.saturating_sub(1) } else { column };
            place = format!(", line {}, column {column}", part.line + line.saturating_sub(1));
            error.message = message;
        }
    }
    error.message = format!("{}{place}: {}", printable(&step.file), error.message);
    let unknown = error.code == Code::UnknownOutcome;
    let cli_error = CliError::from(error);
    if unknown { cli_error } else { cli_error.with_hint("nothing of this file was applied") }
}

/// Takes the place that a node's message names, `(line L, column C)`, out of it.
fn split_off_position(message: &str) -> Option<(String, (usize, usize))> {
    let (before, rest) = message.rsplit_once(" (line ")?;
    let (place, after) = rest.split_once(')')?;
    let (line, column) = place.split_once(", column ")?;
    Some((format!("{before}{after}"), (line.parse().ok()?, column.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::test_folder::folder;
    use super::{
        AppliedStep, MigrationStep, locate_error, pending_steps, read_folder, step_statements,
    };
    use debros_client::{Code, Error};

    #[test]
    fn what_was_applied_has_to_be_the_beginning_of_the_folder() {
        let dir = folder(&[("001_a.sql", "SELECT 1"), ("002_b.sql", "SELECT 2")]);
        let steps = read_folder(dir.path()).unwrap();
        let known = |step: &MigrationStep| AppliedStep {
            version: step.version,
            name: step.name.clone(),
            checksum: step.checksum.clone(),
        };
        let all: Vec<AppliedStep> = steps.iter().map(known).collect();
        assert_eq!(pending_steps(&steps, &[]).unwrap().len(), 2);
        assert_eq!(pending_steps(&steps, &all[..1]).unwrap()[0].file, "002_b.sql");
        assert!(pending_steps(&steps, &all).unwrap().is_empty());
        let message = |applied: &[AppliedStep]| pending_steps(&steps, applied).unwrap_err().message;
        assert!(message(&all[1..]).starts_with("001_a.sql was not applied"));
        let mut changed = all.clone();
        changed[0].checksum = "0".into();
        assert!(message(&changed).starts_with("001_a.sql was changed"));
        let mut newer = all;
        newer.push(AppliedStep { version: 3, name: "c".into(), checksum: String::new() });
        assert!(message(&newer).starts_with("3 (c) was applied"));
    }

    #[test]
    fn one_place_is_reported_and_in_the_files_own_lines() {
        let dir = folder(&[("001_a.sql", "SELECT 1;\n  SELECT 2; ATTACH\n  'x' AS y;\n")]);
        let step = read_folder(dir.path()).unwrap().remove(0);
        let parts = step_statements(&step).unwrap();
        let message_of = |index: usize, message: &str| {
            locate_error(&step, &parts, Error::new(Code::Sql, message).at_statement(index)).message
        };
        assert_eq!(
            message_of(3, "not allowed (line 1, column 1)"),
            "001_a.sql, line 2, column 13: not allowed"
        );
        assert_eq!(message_of(3, "no (line 2, column 3)"), "001_a.sql, line 3, column 3: no");
        assert_eq!(message_of(2, "no such table: t"), "001_a.sql, line 2: no such table: t");
        assert_eq!(message_of(1, "near \"(line 1\": x"), "001_a.sql, line 1: near \"(line 1\": x");
    }
}
