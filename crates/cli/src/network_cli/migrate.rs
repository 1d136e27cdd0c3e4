//! `db migrate`: an application's own schema, in numbered steps.
//!
//! Each `NNN_name.sql` runs once, in one transaction together with its row in `schema_migrations`, so that it is applied
//! and recorded or neither; of two programs that apply it at once, one finds the number taken.

use super::output::{Output, Shown, note, printable};
use super::session::Session;
use crate::fail::Failure;
use debros_client::rpc::Statement;
use debros_client::{Client, Code, Error};
use debros_proto::limits::{MAX_SQL_BYTES, MAX_TRANSACTION_STATEMENTS};
use debros_proto::sql::{Piece, split_migration};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::path::Path;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL, \
    checksum TEXT NOT NULL, applied_at INTEGER NOT NULL)";
const EXISTS: &str = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'";
const READ: &str = "SELECT version, name, checksum FROM schema_migrations ORDER BY version";
const RECORD: &str = "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)";

/// A step, read from its file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    version: i64,
    name: String,
    file: String,
    sql: String,
    checksum: String,
}

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
    let applied = applied(&client).await?;
    let pending = pending(&steps, &applied)?;
    if !dry_run && !pending.is_empty() {
        client.database().query(CREATE, []).await?;
        for step in pending {
            apply(&client, step).await?;
            note(&format!("applied {}", printable(&step.file)));
        }
    }
    if out.is_json() {
        let files: Vec<&str> = pending.iter().map(|step| step.file.as_str()).collect();
        let key = if dry_run { "pending" } else { "applied" };
        return out.json(&json!({ "status": "ok", key: files, "version": steps.len() }));
    }
    if pending.is_empty() {
        return out.line(&format!("up to date at version {}", steps.len()));
    }
    if dry_run {
        let rows =
            pending.iter().map(|step| vec![Shown::Number(format!("{:03}", step.version)), step.name.as_str().into()]);
        return out.table(&["PENDING", "NAME"], rows);
    }
    out.line(&format!("now at version {}", steps.len()))
}

/// The steps of a folder in order, from 001 without a gap. Files of other kinds beside them are left alone.
fn read_folder(dir: &Path) -> Result<Vec<Step>, Failure> {
    let unreadable = |error: std::io::Error| Failure::usage(format!("{} can not be read: {error}", dir.display()));
    let mut steps = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql")) {
            steps.push(read_step(&path)?);
        }
    }
    if steps.is_empty() {
        return Err(Failure::usage(format!("{} holds no NNN_name.sql files", dir.display())));
    }
    steps.sort_by(|one, other| (one.version, &one.file).cmp(&(other.version, &other.file)));
    for (expected, (index, step)) in (1..).zip(steps.iter().enumerate()) {
        if step.version == expected {
            continue;
        }
        let problem = match steps.get(index.wrapping_sub(1)).filter(|before| before.version == step.version) {
            Some(before) => format!("has the same number as {}", before.file),
            None => format!("comes where {expected:03} is missing"),
        };
        return Err(Failure::usage(format!("{} {problem}: numbers run from 001 without a gap, each once", step.file)));
    }
    Ok(steps)
}

fn read_step(path: &Path) -> Result<Step, Failure> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parts = file.strip_suffix(".sql").and_then(|stem| stem.split_once('_'));
    let (number, name) = parts
        .filter(|(number, name)| {
            number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty()
        })
        .ok_or_else(|| Failure::usage(format!("{} is not named NNN_name.sql, with NNN from 001", printable(&file))))?;
    let read =
        std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("{file} can not be read: {error}")))?;
    // Editors on Windows put it there; it is no part of the text.
    let sql = read.strip_prefix('\u{feff}').unwrap_or(&read).to_owned();
    let checksum = debros_proto::hex::encode(&Sha256::digest(sql.as_bytes()));
    // Three digits.
    let version = number.parse().unwrap_or_default();
    let step = Step { version, name: name.to_owned(), file: file.clone(), sql, checksum };
    let pieces = pieces(&step)?;
    if pieces.len() >= MAX_TRANSACTION_STATEMENTS {
        let most = MAX_TRANSACTION_STATEMENTS - 1;
        return Err(Failure::usage(format!(
            "{file} has {} statements, at most {most} fit into one step",
            pieces.len()
        )));
    }
    if let Some(piece) = pieces.iter().find(|piece| piece.text.len() > MAX_SQL_BYTES) {
        return Err(Failure::usage(format!(
            "{file}, line {}: the statement is longer than {MAX_SQL_BYTES} bytes",
            piece.line
        )));
    }
    Ok(step)
}

fn pieces(step: &Step) -> Result<Vec<Piece<'_>>, Failure> {
    split_migration(&step.sql).map_err(|error| Failure::usage(format!("{}, {}", step.file, error.message)))
}

async fn applied(client: &Client) -> Result<Vec<Applied>, Failure> {
    let database = client.database();
    if database.query(EXISTS, []).await?.rows.is_empty() {
        return Ok(Vec::new());
    }
    let result = database.query(READ, []).await?;
    let rows = result.rows.iter().map(|row| {
        let text =
            |index: usize| row.values.get(index).and_then(|value| value.as_text()).unwrap_or_default().to_owned();
        let version = row.values.first().and_then(|value| value.as_integer()).unwrap_or_default();
        Applied { version, name: text(1), checksum: text(2) }
    });
    Ok(rows.collect())
}

/// The steps that are not applied yet, when what was applied is the beginning of the folder.
fn pending<'a>(steps: &'a [Step], applied: &[Applied]) -> Result<&'a [Step], Failure> {
    for (position, (applied, expected)) in applied.iter().zip(1..).enumerate() {
        let (version, name) = (applied.version, printable(&applied.name));
        if version != expected {
            return Err(Failure::new(format!(
                "schema_migrations of the namespace holds {version:03} ({name}), but not {expected:03}"
            )));
        }
        let Some(step) = steps.get(position) else {
            return Err(Failure::new(format!(
                "{version:03}_{name}.sql was applied to the namespace, but is not in the folder"
            )));
        };
        if step.checksum != applied.checksum {
            return Err(Failure::new(format!(
                "{} was changed after it was applied (then {version:03}_{name}.sql)",
                step.file
            ))
            .hint("put the applied text back, and write what is to change into a new file"));
        }
    }
    Ok(&steps[applied.len().min(steps.len())..])
}

async fn apply(client: &Client, step: &Step) -> Result<(), Failure> {
    let pieces = pieces(step)?;
    // The record first: when another program applies the step at this moment, the number is taken and nothing else runs.
    let record = Statement::new(
        RECORD,
        [step.version.into(), step.name.as_str().into(), step.checksum.as_str().into(), debros_proto::now_ms().into()],
    );
    let statements = std::iter::once(record).chain(pieces.iter().map(|piece| Statement::from(piece.text)));
    match client.database().transaction(statements).await {
        Ok(_) => Ok(()),
        Err(error) if error.statement == Some(0) && error.code == Code::Constraint => {
            applied_by_another(client, step).await
        }
        Err(error) => Err(located(step, &pieces, error)),
    }
}

/// The number was taken meanwhile: well, when by the same text.
async fn applied_by_another(client: &Client, step: &Step) -> Result<(), Failure> {
    let applied = applied(client).await?;
    if applied.iter().any(|known| known.version == step.version && known.checksum == step.checksum) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{}: another program applied a different step {:03} at this moment",
        step.file, step.version
    )))
}

/// The error with the file and the place in it: where the statement that failed begins, or where in it the node points to.
fn located(step: &Step, pieces: &[Piece<'_>], mut error: Error) -> Failure {
    let piece = error.statement.take().and_then(|index| index.checked_sub(1)).and_then(|index| pieces.get(index));
    let mut place = String::new();
    if let Some(piece) = piece {
        place = format!(", line {}", piece.line);
        if let Some((message, (line, column))) = without_place(&error.message) {
            // The node counts from the statement's beginning.
            let column = if line == 1 { piece.column + column.saturating_sub(1) } else { column };
            place = format!(", line {}, column {column}", piece.line + line.saturating_sub(1));
            error.message = message;
        }
    }
    error.message = format!("{}{place}: {}", step.file, error.message);
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
    use super::{Applied, Step, located, pending, pieces, read_folder};
    use debros_client::{Code, Error};
    use std::path::Path;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn refused(files: &[(&str, &str)]) -> String {
        read_folder(folder(files).path()).unwrap_err().message
    }

    #[test]
    fn files_are_read_in_order_and_others_left_alone() {
        let dir = folder(&[("002_b.sql", "SELECT 2"), ("001_a.sql", "BEGIN; SELECT 1; COMMIT;"), ("README.md", "x")]);
        let steps = read_folder(dir.path()).unwrap();
        let names: Vec<_> = steps.iter().map(|step| (step.version, step.name.as_str())).collect();
        assert_eq!(names, [(1, "a"), (2, "b")]);
        read_folder(Path::new("/nonexistent-folder")).unwrap_err();
    }

    #[test]
    fn gaps_duplicates_and_wrong_names_are_told_with_the_file() {
        let a = ("001_a.sql", "SELECT 1");
        assert!(refused(&[a, ("003_c.sql", "")]).starts_with("003_c.sql comes where 002 is missing"));
        assert!(refused(&[a, ("001_b.sql", "")]).starts_with("001_b.sql has the same number as 001_a.sql"));
        assert!(refused(&[("000_z.sql", ""), a]).starts_with("000_z.sql comes where 001 is missing"));
        for bad in ["1_a.sql", "0001_a.sql", "abc_a.sql", "001a.sql", "001_.sql", "001_a.SQL"] {
            assert!(refused(&[(bad, "")]).contains(bad), "{bad}");
        }
        assert!(refused(&[("001_a.sql", "SELECT 1;\nSELECT 'open")]).starts_with("001_a.sql, line 2"));
        assert!(refused(&[("001_a.sql", &"SELECT 1;".repeat(1000))]).contains("1000 statements"));
        assert!(refused(&[]).contains("no NNN_name.sql"));
    }

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
        assert!(message(&all[1..]).contains("not 001"));
        let mut changed = all.clone();
        changed[0].checksum = "0".into();
        assert!(message(&changed).starts_with("001_a.sql was changed"));
        let mut newer = all;
        newer.push(Applied { version: 3, name: "c".into(), checksum: String::new() });
        assert!(message(&newer).starts_with("003_c.sql was applied"));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_step() {
        let marked = read_folder(folder(&[("001_a.sql", "\u{feff}SELECT 1")]).path()).unwrap();
        let plain = read_folder(folder(&[("001_a.sql", "SELECT 1")]).path()).unwrap();
        assert_eq!(marked, plain);
        let within = read_folder(folder(&[("001_a.sql", "SELECT '\u{feff}'")]).path()).unwrap();
        assert!(within[0].sql.contains('\u{feff}'));
    }

    #[test]
    fn one_place_is_told_and_in_the_files_own_lines() {
        let dir = folder(&[("001_a.sql", "SELECT 1;\n  SELECT 2; ATTACH\n  'x' AS y;\n")]);
        let step = read_folder(dir.path()).unwrap().remove(0);
        let pieces = pieces(&step).unwrap();
        let told = |index: usize, message: &str| {
            located(&step, &pieces, Error::new(Code::Sql, message).at_statement(index)).message
        };
        assert_eq!(told(3, "not allowed (line 1, column 1)"), "001_a.sql, line 2, column 13: not allowed");
        assert_eq!(told(3, "no (line 2, column 3)"), "001_a.sql, line 3, column 3: no");
        assert_eq!(told(2, "no such table: t"), "001_a.sql, line 2: no such table: t");
        assert_eq!(told(1, "near \"(line 1\": x"), "001_a.sql, line 1: near \"(line 1\": x");
    }
}
