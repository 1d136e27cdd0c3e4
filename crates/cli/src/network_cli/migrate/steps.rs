//! The steps of a folder: what `db migrate` applies, in which order.
//!
//! A step is a file `NUMBER_name.sql`, or `migration.sql` in a folder `NUMBER_name`, so that the folders of drizzle-kit and
//! Prisma can be applied as they are. A number of up to seven digits counts; a longer one is a moment.

use crate::fail::Failure;
use crate::network_cli::output::printable;
use debros_proto::limits::{MAX_SQL_BYTES, MAX_TRANSACTION_STATEMENTS};
use debros_proto::sql::{Piece, split_migration};
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// The first number that is a moment, as 20261124 or 20261124193000.
const FIRST_MOMENT: i64 = 10_000_000;
/// What SQLite has integers for, whatever the digits.
const MAX_DIGITS: usize = 18;

/// A step, read from its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) version: i64,
    /// The version as the file's name has it.
    pub(super) number: String,
    pub(super) name: String,
    /// The file's place in the folder.
    pub(super) file: String,
    pub(super) sql: String,
    pub(super) checksum: String,
}

/// The steps of a folder in order. What is none of them is left alone.
pub(super) fn read_folder(dir: &Path) -> Result<Vec<Step>, Failure> {
    let unreadable = |error: std::io::Error| Failure::usage(format!("{} can not be read: {error}", dir.display()));
    let mut steps = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            let sql = path.join("migration.sql");
            if let Some(parts) = numbered(&name).filter(|_| sql.exists()) {
                steps.push(read_step(&sql, format!("{name}/migration.sql"), parts)?);
            }
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql")) {
            let parts = name.strip_suffix(".sql").and_then(numbered).ok_or_else(|| {
                Failure::usage(format!("{} is not named NUMBER_name.sql, as 001_users.sql is", printable(&name)))
            })?;
            steps.push(read_step(&path, name.clone(), parts)?);
        }
    }
    if steps.is_empty() {
        return Err(Failure::usage(format!(
            "{} holds no NUMBER_name.sql files, and no NUMBER_name folders with a migration.sql",
            dir.display()
        )));
    }
    steps.sort_by(|one, other| (one.version, &one.file).cmp(&(other.version, &other.file)));
    check_order(&steps)?;
    Ok(steps)
}

/// Number and name.
fn numbered(stem: &str) -> Option<(&str, &str)> {
    stem.split_once('_').filter(|(number, name)| {
        (1..=MAX_DIGITS).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty()
    })
}

/// No number twice; and numbers that count leave none out, so that a file which is missing is seen. Who counts begins at 0
/// or 1.
fn check_order(steps: &[Step]) -> Result<(), Failure> {
    let mut before: Option<&Step> = None;
    for step in steps {
        if let Some(same) = before.filter(|before| before.version == step.version) {
            return Err(Failure::usage(format!("{} has the same number as {}", step.file, same.file)));
        }
        let expected = before.map_or(step.version.min(1), |before| before.version + 1);
        if step.version < FIRST_MOMENT && step.version != expected {
            let width = step.number.len();
            return Err(Failure::usage(format!(
                "{} comes where {expected:0width$} is missing: numbers run from 0 or 1 without a gap, or are moments like \
                 20261124193000",
                step.file
            )));
        }
        before = Some(step);
    }
    Ok(())
}

fn read_step(path: &Path, file: String, (number, name): (&str, &str)) -> Result<Step, Failure> {
    let read = debros_proto::regular_file::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{file} can not be read: {error}")))?;
    // Editors on Windows put it there; it is no part of the text.
    let sql = read.strip_prefix('\u{feff}').unwrap_or(&read).to_owned();
    let checksum = debros_proto::hex::encode(&Sha256::digest(sql.as_bytes()));
    // At most MAX_DIGITS digits.
    let version = number.parse().unwrap_or_default();
    let step = Step { version, number: number.to_owned(), name: name.to_owned(), file: file.clone(), sql, checksum };
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

/// The statements of a step.
pub(super) fn pieces(step: &Step) -> Result<Vec<Piece<'_>>, Failure> {
    split_migration(&step.sql).map_err(|error| Failure::usage(format!("{}, {}", step.file, error.message)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::read_folder;
    use std::path::Path;

    pub(in crate::network_cli::migrate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
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

    /// drizzle-kit counts from 0 in files or names folders by the moment, as Prisma does; beside them is what is no step.
    #[test]
    fn the_folders_of_tools_are_read_as_they_are() {
        let files = |names: &[&str]| -> Vec<(i64, String)> {
            let files: Vec<_> = names.iter().map(|name| (*name, "SELECT 1")).collect();
            let steps = read_folder(folder(&files).path()).unwrap();
            steps.into_iter().map(|step| (step.version, step.file)).collect()
        };
        assert_eq!(
            files(&["meta/0000_snapshot.json", "0001_b.sql", "0000_a.sql"]),
            [(0, "0000_a.sql".to_owned()), (1, "0001_b.sql".to_owned())]
        );
        assert_eq!(
            files(&["migration_lock.toml", "20260201120000_b/migration.sql", "20260101120000_a/migration.sql"]),
            [
                (20_260_101_120_000, "20260101120000_a/migration.sql".to_owned()),
                (20_260_201_120_000, "20260201120000_b/migration.sql".to_owned())
            ]
        );
        assert_eq!(
            files(&[
                "9_i.sql",
                "001_a.sql",
                "02_b.sql",
                "3_c.sql",
                "4_d.sql",
                "5_e.sql",
                "6_f.sql",
                "7_g.sql",
                "8_h.sql",
                "10_j.sql"
            ])
            .last()
            .unwrap()
            .0,
            10
        );
        assert_eq!(files(&["001_a.sql", "2024_archive/000_old.sql"]), [(1, "001_a.sql".to_owned())]);
    }

    #[test]
    fn gaps_duplicates_and_wrong_names_are_told_with_the_file() {
        let a = ("001_a.sql", "SELECT 1");
        assert!(refused(&[a, ("003_c.sql", "")]).starts_with("003_c.sql comes where 002 is missing"));
        assert!(refused(&[a, ("001_b.sql", "")]).starts_with("001_b.sql has the same number as 001_a.sql"));
        assert!(refused(&[("002_b.sql", "")]).starts_with("002_b.sql comes where 001 is missing"));
        assert!(
            refused(&[("0000_z.sql", ""), ("0002_b.sql", "")]).starts_with("0002_b.sql comes where 0001 is missing")
        );
        assert!(refused(&[a, ("20260101_x.sql", ""), ("20260101_y/migration.sql", "")]).contains("same number"));
        for bad in ["1234567890123456789_a.sql", "-1_a.sql", "abc_a.sql", "001a.sql", "001_.sql", "001_a.SQL"] {
            assert!(refused(&[(bad, "")]).contains(bad), "{bad}");
        }
        assert!(refused(&[("001_a.sql", "SELECT 1;\nSELECT 'open")]).starts_with("001_a.sql, line 2"));
        assert!(refused(&[("001_a.sql", &"SELECT 1;".repeat(1000))]).contains("1000 statements"));
        assert!(refused(&[]).contains("no NUMBER_name.sql"));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_step() {
        let marked = read_folder(folder(&[("001_a.sql", "\u{feff}SELECT 1")]).path()).unwrap();
        let plain = read_folder(folder(&[("001_a.sql", "SELECT 1")]).path()).unwrap();
        assert_eq!(marked, plain);
        let within = read_folder(folder(&[("001_a.sql", "SELECT '\u{feff}'")]).path()).unwrap();
        assert!(within[0].sql.contains('\u{feff}'));
    }
}
