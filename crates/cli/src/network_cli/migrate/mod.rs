//! `db migrate`: an application's own schema, in numbered steps.
//!
//! Each step runs once, in one transaction together with its row in `schema_migrations`, so that it is applied
//! and recorded or neither; of two programs that apply it at once, one finds the number taken.

mod folder;
mod halves;
mod names;
mod parts;
mod programs;
mod records;
mod steps;
mod taken_back;

use self::folder::read_folder;
use self::parts::{Part, parts};
use self::records::Known;
use self::steps::Step;
use super::args::Baseline;
use super::output::{Output, Shown, note, printable};
use super::session::Session;
use crate::fail::Failure;
use debros_client::rpc::Statement;
use debros_client::{Client, Code, Error};
use serde_json::json;
use std::path::Path;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL, \
    checksum TEXT NOT NULL, applied_at INTEGER NOT NULL)";
const RECORD: &str = "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)";

/// A step as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Applied {
    version: i64,
    name: String,
    checksum: String,
}

pub(super) async fn run(session: &Session, out: Output, dir: &Path, dry_run: bool) -> Result<(), Failure> {
    let steps = read_folder(dir)?;
    let client = session.user().await?;
    let applied = match records::read(&client, dir).await? {
        Known::Nothing => Vec::new(),
        Known::Own(applied) => applied,
        Known::Other { tool, table, newest } => return Err(records::migrated_by(tool, table, &newest, dir)),
    };
    let pending = pending(&steps, &applied)?;
    if !dry_run && !pending.is_empty() {
        client.database().query(CREATE, []).await?;
        for step in pending {
            apply(&client, step, dir).await?;
            note(&format!("applied {}", printable(&step.file)));
        }
    }
    let newest = steps.last().map_or(0, |step| step.version);
    if out.is_json() {
        let key = if dry_run { "pending" } else { "applied" };
        return out.json(&json!({ "status": "ok", key: files(pending), "version": newest }));
    }
    if pending.is_empty() {
        return out.line(&format!("up to date at version {newest}"));
    }
    if dry_run {
        let rows = pending.iter().map(|step| vec![Shown::Number(step.number.clone()), step.name.as_str().into()]);
        return out.table(&["PENDING", "NAME"], rows);
    }
    out.line(&format!("now at version {newest}"))
}

/// Records steps that another tool has applied, without running them.
pub(super) async fn record(session: &Session, out: Output, dir: &Path, baseline: Baseline) -> Result<(), Failure> {
    let steps = read_folder(dir)?;
    let recorded = match baseline {
        Baseline::Empty => 0,
        Baseline::Version(version) => {
            1 + steps.iter().position(|step| step.version == version).ok_or_else(|| {
                Failure::usage(format!("no step in {} has the number {version}", dir.display()))
                    .hint("--baseline takes the number of the newest step that is applied, or none")
            })?
        }
    };
    let recorded = &steps[..recorded];
    let client = session.user().await?;
    if let Known::Own(applied) = records::read(&client, dir).await?
        && let Some(newest) = applied.last()
    {
        return Err(Failure::new(format!(
            "the namespace has a record already: its newest step is {} ({})",
            newest.version,
            printable(&newest.name)
        ))
        .hint("--baseline is for a namespace that another tool has migrated"));
    }
    let statements = std::iter::once(Statement::from(CREATE)).chain(recorded.iter().map(record_of));
    // Together: of two programs at once one finds its numbers taken.
    client.database().transaction(statements).await?;
    let version = recorded.last().map(|step| step.version);
    out.result(
        || json!({ "status": "ok", "recorded": files(recorded), "version": version }),
        || match version {
            Some(version) => format!("recorded as applied up to version {version}, without running anything"),
            None => "recorded that nothing is applied".to_owned(),
        },
    )
}

fn files(steps: &[Step]) -> Vec<&str> {
    steps.iter().map(|step| step.file.as_str()).collect()
}

/// The steps that are not applied yet, when what was applied is the beginning of the folder.
fn pending<'a>(steps: &'a [Step], applied: &[Applied]) -> Result<&'a [Step], Failure> {
    for (position, applied) in applied.iter().enumerate() {
        let known = || format!("{} ({})", applied.version, printable(&applied.name));
        let step = match steps.get(position) {
            Some(step) if step.version == applied.version => step,
            Some(step) if step.version < applied.version => {
                return Err(Failure::new(format!(
                    "{} was not applied to the namespace, but {} was, which comes after it",
                    printable(&step.file),
                    known()
                ))
                .hint("give it a number after those that were applied"));
            }
            _ => {
                return Err(Failure::new(format!(
                    "{} was applied to the namespace, but is not in the folder",
                    known()
                )));
            }
        };
        if step.checksum != applied.checksum {
            return Err(Failure::new(format!(
                "{} was changed after it was applied as {}",
                printable(&step.file),
                known()
            ))
            .hint("put the applied text back, and write what is to change into a new file"));
        }
    }
    Ok(&steps[applied.len().min(steps.len())..])
}

/// The row of a step.
fn record_of(step: &Step) -> Statement {
    Statement::new(
        RECORD,
        [step.version.into(), step.name.as_str().into(), step.checksum.as_str().into(), debros_proto::now_ms().into()],
    )
}

async fn apply(client: &Client, step: &Step, dir: &Path) -> Result<(), Failure> {
    let parts = parts(step)?;
    // The record first: when another program applies the step at this moment, the number is taken and nothing else runs.
    let statements =
        std::iter::once(record_of(step)).chain(parts.iter().map(|part| Statement::from(part.text.as_ref())));
    match client.database().transaction(statements).await {
        Ok(_) => Ok(()),
        Err(error) if error.statement == Some(0) && error.code == Code::Constraint => {
            applied_by_another(client, step, dir).await
        }
        Err(error) => Err(located(step, &parts, error)),
    }
}

/// The number was taken meanwhile: well, when by the same text.
async fn applied_by_another(client: &Client, step: &Step, dir: &Path) -> Result<(), Failure> {
    let known = records::read(client, dir).await?;
    if let Known::Own(applied) = known
        && applied.iter().any(|known| known.version == step.version && known.checksum == step.checksum)
    {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{}: another program applied a different step {} at this moment",
        printable(&step.file),
        step.version
    )))
}

/// The error with the file and the place in it: where the statement that failed begins, or where in it the node points to.
fn located(step: &Step, parts: &[Part<'_>], mut error: Error) -> Failure {
    let part = error.statement.take().and_then(|index| index.checked_sub(1)).and_then(|index| parts.get(index));
    let mut place = String::new();
    if let Some(part) = part {
        place = match part.last_line {
            last if last > part.line => format!(", in a row of lines {} to {last}", part.line),
            _ => format!(", line {}", part.line),
        };
        if let Some((message, (line, column))) = without_place(&error.message) {
            // The node counts from the statement's beginning.
            let column = if line == 1 { part.column + column.saturating_sub(1) } else { column };
            place = format!(", line {}, column {column}", part.line + line.saturating_sub(1));
            error.message = message;
        }
    }
    error.message = format!("{}{place}: {}", printable(&step.file), error.message);
    let unknown = error.code == Code::UnknownOutcome;
    let failure = Failure::from(error);
    if unknown { failure } else { failure.hint("nothing of this file was applied") }
}

/// Takes the place that a node's message names, `(line L, column C)`, out of it.
fn without_place(message: &str) -> Option<(String, (usize, usize))> {
    let (before, rest) = message.rsplit_once(" (line ")?;
    let (place, after) = rest.split_once(')')?;
    let (line, column) = place.split_once(", column ")?;
    Some((format!("{before}{after}"), (line.parse().ok()?, column.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::folder::tests::folder;
    use super::{Applied, Step, located, parts, pending, read_folder};
    use debros_client::{Code, Error};

    #[test]
    fn what_was_applied_has_to_be_the_beginning_of_the_folder() {
        let dir = folder(&[("001_a.sql", "SELECT 1"), ("002_b.sql", "SELECT 2")]);
        let steps = read_folder(dir.path()).unwrap();
        let known =
            |step: &Step| Applied { version: step.version, name: step.name.clone(), checksum: step.checksum.clone() };
        let all: Vec<Applied> = steps.iter().map(known).collect();
        assert_eq!(pending(&steps, &[]).unwrap().len(), 2);
        assert_eq!(pending(&steps, &all[..1]).unwrap()[0].file, "002_b.sql");
        assert!(pending(&steps, &all).unwrap().is_empty());
        let message = |applied: &[Applied]| pending(&steps, applied).unwrap_err().message;
        assert!(message(&all[1..]).starts_with("001_a.sql was not applied"));
        let mut changed = all.clone();
        changed[0].checksum = "0".into();
        assert!(message(&changed).starts_with("001_a.sql was changed"));
        let mut newer = all;
        newer.push(Applied { version: 3, name: "c".into(), checksum: String::new() });
        assert!(message(&newer).starts_with("3 (c) was applied"));
    }

    #[test]
    fn one_place_is_told_and_in_the_files_own_lines() {
        let dir = folder(&[("001_a.sql", "SELECT 1;\n  SELECT 2; ATTACH\n  'x' AS y;\n")]);
        let step = read_folder(dir.path()).unwrap().remove(0);
        let parts = parts(&step).unwrap();
        let told = |index: usize, message: &str| {
            located(&step, &parts, Error::new(Code::Sql, message).at_statement(index)).message
        };
        assert_eq!(told(3, "not allowed (line 1, column 1)"), "001_a.sql, line 2, column 13: not allowed");
        assert_eq!(told(3, "no (line 2, column 3)"), "001_a.sql, line 3, column 3: no");
        assert_eq!(told(2, "no such table: t"), "001_a.sql, line 2: no such table: t");
        assert_eq!(told(1, "near \"(line 1\": x"), "001_a.sql, line 1: near \"(line 1\": x");
    }
}
