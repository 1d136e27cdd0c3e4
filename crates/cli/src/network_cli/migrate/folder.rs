//! The steps of a folder: what `db migrate` applies, in which order.
//!
//! A step is a file, or a file in a folder of its own, so that the folders of the usual tools can
//! be applied as they are: [`super::step_names`] says how they are named. A number of up to seven
//! digits counts; a longer one is a timestamp.

use super::code_migrations::{RAILS_SCHEMA, refuse_code_migration};
use super::dialect::{read_json_if_there, refuse_dialect_of, refuse_other_dialect};
use super::file_list::FileList;
use super::migration_step::MigrationStep;
use super::step_names::{FileKind, StepTitle, file_kind, parse_numbered};
use super::step_reader::read_step;
use super::subfolders::files_below;
use crate::cli_error::CliError;
use crate::network_cli::output::printable;
use std::path::{Path, PathBuf};

/// The first number that is a timestamp, as 20261124 or 20261124193000.
const FIRST_TIMESTAMP: i64 = 10_000_000;

/// What was found in a folder before anything is read.
#[derive(Default)]
struct FolderScan {
    steps: Vec<(PathBuf, String, StepTitle)>,
    /// Files that take back what a step does: never run.
    downs: Vec<(String, StepTitle)>,
    undos: Vec<(String, StepTitle)>,
    /// A file with `.up`, and one without a half.
    up: Option<String>,
    whole: Option<String>,
}

/// The steps of a folder in order. What is none of them by its tool's rules is left alone; what may
/// be one is not.
///
/// # Errors
/// A file that is a migration and cannot be applied, or not safely.
pub(super) fn read_folder(dir: &Path) -> Result<Vec<MigrationStep>, CliError> {
    let unreadable = |error: std::io::Error| {
        CliError::usage(format!("{} cannot be read: {error}", dir.display()))
    };
    refuse_other_dialect(dir)?;
    let list = FileList::read(dir)?;
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        paths.push(entry.map_err(unreadable)?.path());
    }
    // The same refusal at every run.
    paths.sort();
    let mut found = FolderScan::default();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What editors and file systems leave behind: `._001_a.sql`, `.001_a.sql.swp`. And other
        // people's packages.
        if name.starts_with('.') || name == "node_modules" {
            continue;
        }
        if path.is_dir() {
            found.add_folder(dir, &name)?;
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql")) {
            found.add_file(path, name)?;
        } else if parse_numbered(&name).is_some() && !path.exists() {
            return Err(CliError::usage(format!("{} is a link to nothing", printable(&name))));
        } else {
            refuse_code_migration(&path, &name)?;
        }
    }
    found.check_halves()?;
    if let Some(list) = &list {
        list.check(dir, &mut found.steps)?;
    }
    let mut steps = Vec::new();
    for (path, file, title) in found.steps {
        steps.push(read_step(&path, file, title)?);
    }
    if steps.is_empty() {
        return Err(no_steps_error(dir));
    }
    steps.sort_by(|one, other| (one.version, &one.file).cmp(&(other.version, &other.file)));
    check_order(&steps, list.is_some())?;
    Ok(steps)
}

impl FolderScan {
    fn add_file(&mut self, path: PathBuf, file: String) -> Result<(), CliError> {
        match file_kind(&file)? {
            FileKind::Whole(title) => {
                self.whole.get_or_insert_with(|| file.clone());
                self.steps.push((path, file, title));
            }
            FileKind::Up(title) => {
                self.up.get_or_insert_with(|| file.clone());
                self.steps.push((path, file, title));
            }
            FileKind::Down(title) => self.downs.push((file, title)),
            FileKind::Undo(title) => self.undos.push((file, title)),
        }
        Ok(())
    }

    /// `NUMBER_name` with `migration.sql` (Prisma, drizzle-kit) or `up.sql` (Diesel, Hasura,
    /// rusqlite_migration). As with these tools, nothing else in it is looked at.
    fn add_folder(&mut self, dir: &Path, name: &str) -> Result<(), CliError> {
        let shown = printable(name);
        let path = dir.join(name);
        let there: Vec<&str> = ["migration.sql", "up.sql"]
            .into_iter()
            .filter(|file| path.join(file).exists())
            .collect();
        let file = match there.as_slice() {
            [file] => *file,
            [] => return self.add_files_below(&path, name),
            _ => {
                return Err(CliError::usage(format!("{shown}/ has a migration.sql and an up.sql"))
                    .with_hint("leave the one that is to be applied"));
            }
        };
        let title = parse_numbered(name).ok_or_else(|| {
            CliError::usage(format!(
                "{shown}/{file}: the folder is not named NUMBER_name, as 20261124193000_users or 2026-11-24-193000_users is"
            ))
        })?;
        let snapshot = format!("{name}/snapshot.json");
        if let Some(described) = read_json_if_there(dir, &snapshot)? {
            refuse_dialect_of(&snapshot, &described)?;
        }
        self.steps.push((path.join(file), format!("{name}/{file}"), title));
        Ok(())
    }

    /// A folder that is no step itself: Flyway's files in it, or nothing. A step whose file is
    /// missing is named as the others are.
    fn add_files_below(&mut self, path: &Path, name: &str) -> Result<(), CliError> {
        let shown = printable(name);
        let is_numbered = parse_numbered(name).is_some();
        if is_numbered && path.join("down.sql").exists() {
            return Err(CliError::usage(format!(
                "{shown}/ has a down.sql, but no up.sql to apply"
            )));
        }
        let below = files_below(path, name)?;
        if is_numbered && below.steps.is_empty() {
            return Err(CliError::usage(format!(
                "{shown}/ is named as a step is, and has no migration.sql or up.sql to apply"
            ))
            .with_hint(
                "put the file back; if the folder is no step, take it out or name it otherwise",
            ));
        }
        self.steps.extend(below.steps);
        self.undos.extend(below.undos);
        Ok(())
    }

    /// Whether the files say together what is to be applied.
    fn check_halves(&self) -> Result<(), CliError> {
        if let (Some(up), Some(whole)) = (&self.up, &self.whole) {
            return Err(CliError::usage(format!(
                "{} has a half to apply, and {} has none",
                printable(up),
                printable(whole)
            ))
            .with_hint("name all of them NUMBER_name.sql, or all NUMBER_name.up.sql"));
        }
        let has =
            |title: &StepTitle| self.steps.iter().any(|(_, _, step)| step.version == title.version);
        if let Some((file, _)) = self.downs.iter().find(|(_, title)| !has(title)) {
            return Err(CliError::usage(format!(
                "{} has no .up.sql file that it takes back",
                printable(file)
            )));
        }
        if let Some((file, _)) = self.undos.iter().find(|(_, title)| !has(title)) {
            return Err(CliError::usage(format!("{} has no V file with its number", printable(file))).with_hint(
                "in Flyway a U file takes back what its V file does, and is not applied; in refinery it is applied: name it V if it is to be",
            ));
        }
        Ok(())
    }
}

fn no_steps_error(dir: &Path) -> CliError {
    let cli_error = CliError::usage(format!(
        "{} holds no NUMBER_name.sql files, and no NUMBER_name folders with a migration.sql or up.sql",
        dir.display()
    ));
    if dir.join("schema.rb").is_file() {
        let (what, advice) = RAILS_SCHEMA;
        return CliError::usage(format!("{}, and schema.rb there is {what}", cli_error.message))
            .with_hint(advice);
    }
    let below = ["migrations", "db/migrations", "db/migrate", "migrate", "drizzle", "versions"];
    match below.iter().map(|name| dir.join(name)).find(|below| below.is_dir()) {
        Some(below) => cli_error.with_hint(format!("they may stand in {}", below.display())),
        None => cli_error,
    }
}

/// No number twice; and numbers that count leave none out, so that a file which is missing is seen,
/// unless a list says what is there. Counting begins at 0 or 1.
fn check_order(steps: &[MigrationStep], is_listed: bool) -> Result<(), CliError> {
    let mut before: Option<&MigrationStep> = None;
    for step in steps {
        if let Some(same) = before.filter(|before| before.version == step.version) {
            return Err(CliError::usage(format!(
                "{} has the same number as {}",
                printable(&step.file),
                printable(&same.file)
            )));
        }
        if let Some(later) = before.filter(|before| is_later_date(&before.number, &step.number)) {
            return Err(CliError::usage(format!(
                "{} is later than {} by its date, and comes before it because its date has fewer digits",
                printable(&later.file),
                printable(&step.file)
            ))
            .with_hint("Diesel 2.3 writes four digits more: add -0000 to the date"));
        }
        let expected = before.map_or(step.version.min(1), |before| before.version + 1);
        let may_skip = step.may_skip || is_listed;
        if step.version < FIRST_TIMESTAMP && step.version != expected && !may_skip {
            let width = step.number.len();
            return Err(CliError::usage(format!(
                "{} comes where {expected:0width$} is missing: numbers run from 0 or 1 without a gap, or are timestamps like \
                 20261124193000",
                printable(&step.file)
            )));
        }
        before = Some(step);
    }
    Ok(())
}

/// Whether of two dates in parts, as Diesel writes them, the first is later. It compares them as
/// texts, whatever their lengths.
fn is_later_date(one: &str, other: &str) -> bool {
    one.contains('-') && other.contains('-') && one > other
}

#[cfg(test)]
mod tests {
    use super::read_folder;
    use crate::network_cli::migrate::migration_step::MigrationStep;
    use crate::network_cli::migrate::step_statements::step_statements;
    use crate::network_cli::migrate::test_folder::folder;
    use std::path::Path;

    fn refused(files: &[(&str, &str)]) -> String {
        read_folder(folder(files).path()).unwrap_err().message
    }

    #[test]
    fn files_are_read_in_order_and_others_left_alone() {
        let dir = folder(&[
            ("002_b.sql", "SELECT 2"),
            ("001_a.sql", "BEGIN; SELECT 1; COMMIT;"),
            ("README.md", "x"),
            ("._001_a.sql", "\0"),
            (".003_c.js", "knex"),
            (".004_d/up.sql", "SELECT 4"),
        ]);
        let steps = read_folder(dir.path()).unwrap();
        let names: Vec<_> = steps.iter().map(|step| (step.version, step.name.as_str())).collect();
        assert_eq!(names, [(1, "a"), (2, "b")]);
        read_folder(Path::new("/nonexistent-folder")).unwrap_err();
    }

    /// drizzle-kit counts from 0 in files or names folders by the moment, as Prisma does; beside
    /// them is what is no step.
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
            files(&[
                "migration_lock.toml",
                "20260201120000_b/migration.sql",
                "20260101120000_a/migration.sql"
            ]),
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
        assert_eq!(
            files(&[
                "2026-01-13-200441-0000_create_posts/up.sql",
                "2026-01-12-090000_create_users/up.sql",
                "2026-01-13-200441-0001_more/up.sql"
            ]),
            [
                (20_260_112_090_000, "2026-01-12-090000_create_users/up.sql".to_owned()),
                (202_601_132_004_410_000, "2026-01-13-200441-0000_create_posts/up.sql".to_owned()),
                (202_601_132_004_410_001, "2026-01-13-200441-0001_more/up.sql".to_owned())
            ]
        );
    }

    #[test]
    fn gaps_duplicates_and_wrong_names_are_told_with_the_file() {
        let a = ("001_a.sql", "SELECT 1");
        assert!(
            refused(&[a, ("003_c.sql", "")]).starts_with("003_c.sql comes where 002 is missing")
        );
        assert!(
            refused(&[a, ("001_b.sql", "")])
                .starts_with("001_b.sql has the same number as 001_a.sql")
        );
        assert!(refused(&[("002_b.sql", "")]).starts_with("002_b.sql comes where 001 is missing"));
        assert!(
            refused(&[("0000_z.sql", ""), ("0002_b.sql", "")])
                .starts_with("0002_b.sql comes where 0001 is missing")
        );
        assert!(
            refused(&[a, ("20260101_x.sql", ""), ("20260101_y/migration.sql", "")])
                .contains("same number")
        );
        for bad in [
            "1234567890123456789_a.sql",
            "-1_a.sql",
            "abc_a.sql",
            "001a.sql",
            "001_.sql",
            "001_a.SQL",
            "2024-1_a.sql",
            "2024-01-02-03_a.sql",
        ] {
            assert!(refused(&[(bad, "")]).contains(bad), "{bad}");
        }
        assert!(
            refused(&[("001_a.sql", "SELECT 1;\nSELECT 'open")]).starts_with("001_a.sql, line 2")
        );
        assert!(refused(&[("001_a.sql", &"SELECT 1;".repeat(1000))]).contains("1000 statements"));
        assert!(refused(&[]).contains("no NUMBER_name.sql"));
    }

    /// The files of each tool, and what of them is applied, in order.
    #[test]
    fn halves_that_take_back_are_left_alone() {
        let applied = |files: &[(&str, &str)]| -> Vec<(i64, String)> {
            let steps = read_folder(folder(files).path()).unwrap();
            let texts = |step: &MigrationStep| {
                let texts: Vec<String> = step_statements(step)
                    .unwrap()
                    .into_iter()
                    .map(|part| part.text.into_owned())
                    .collect();
                texts.join("; ")
            };
            steps.iter().map(|step| (step.version, texts(step))).collect()
        };
        let (up, down) = ("CREATE TABLE a (x);", "DROP TABLE a;");
        let create = "CREATE TABLE a (x)".to_owned();
        let golang =
            [("000001_a.up.sql", up), ("000001_a.down.sql", down), ("000002_b.up.sql", "SELECT 2")];
        assert_eq!(applied(&golang), [(1, create.clone()), (2, "SELECT 2".to_owned())]);
        let flyway = [
            ("V2__b.sql", "SELECT 2"),
            ("V10__c.sql", "SELECT 10"),
            ("V1__a.sql", up),
            ("U1__a.sql", down),
        ];
        let expected =
            [(1, create.clone()), (2, "SELECT 2".to_owned()), (10, "SELECT 10".to_owned())];
        assert_eq!(applied(&flyway), expected);
        let diesel = [
            ("00000000000000_diesel_initial_setup/up.sql", ""),
            ("00000000000000_diesel_initial_setup/down.sql", ""),
            ("2024-01-01-120000_a/up.sql", up),
            ("2024-01-01-120000_a/down.sql", down),
        ];
        assert_eq!(applied(&diesel), [(0, String::new()), (20_240_101_120_000, create.clone())]);
        let rusqlite =
            [("01-a_b/up.sql", up), ("01-a_b/down.sql", down), ("02-c/up.sql", "SELECT 2")];
        assert_eq!(applied(&rusqlite)[0], (1, create.clone()));
        let node = [("001-initial.sql", "-- Up\nCREATE TABLE a (x);\n-- Down\nDROP TABLE a;\n")];
        assert_eq!(applied(&node), [(1, create.clone())]);
        let goose = [
            ("00001_a.sql", "-- +goose Up\nCREATE TABLE a (x);\n-- +goose Down\nDROP TABLE a;\n"),
            (
                "00002_b.sql",
                "-- +goose Up\n-- +goose StatementBegin\nCREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END;\n\
                 -- +goose StatementEnd\n\n-- +goose Down\nDROP TRIGGER t;\n",
            ),
        ];
        let trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END".to_owned();
        assert_eq!(applied(&goose), [(1, create), (2, trigger)]);
        // Lines are those of the file; the checksum is that of what is applied.
        let steps = read_folder(folder(&goose).path()).unwrap();
        assert_eq!(step_statements(&steps[1]).unwrap()[0].line, 3);
        let other = [goose[0], ("00002_b.sql", &goose[1].1.replace("DROP TRIGGER t", "SELECT 1"))];
        assert_eq!(read_folder(folder(&other).path()).unwrap()[1].checksum, steps[1].checksum);
        let other = [goose[0], ("00002_b.sql", &goose[1].1.replace("SELECT 2", "SELECT 3"))];
        assert_ne!(read_folder(folder(&other).path()).unwrap()[1].checksum, steps[1].checksum);
    }

    #[test]
    fn what_can_not_be_applied_safely_is_refused_by_name() {
        let (up, down) = ("CREATE TABLE a (x);", "DROP TABLE a;");
        for (files, words) in [
            (&[("001_a.up.sql", up), ("002_b.sql", up)][..], "002_b.sql has none"),
            (&[("001_a.up.sql", up), ("002_b.down.sql", down)], "002_b.down.sql has no .up.sql"),
            (&[("001_a.down.sql", down)], "001_a.down.sql has no .up.sql"),
            (&[("V1__a.sql", up), ("U2__b.sql", up)], "U2__b.sql has no V file"),
            (
                &[("V1__a.sql", "-- x\nINSERT INTO a VALUES ('${env}');")],
                "V1__a.sql, line 2: Flyway puts a value",
            ),
            (&[("V1__a.sql", up), ("R__views.sql", up)], "repeatable migration of Flyway"),
            (&[("2024-01-01-120000_a/down.sql", down)], "no up.sql"),
            (
                &[("20260101120000_a/migration.sql", up), ("20260102120000_b/README.md", "x")],
                "20260102120000_b/ is named as a step is, and has no migration.sql or up.sql",
            ),
            (
                &[
                    ("2026-01-01-120000_a/up.sql", up),
                    ("2026-01-02-120000-0000_b/metadata.toml", ""),
                ],
                "2026-01-02-120000-0000_b/ is named as a step is",
            ),
            (
                &[("2026-01-03-120000_a/up.sql", up), ("2026-01-02-120000-0000_b/up.sql", up)],
                "2026-01-03-120000_a/up.sql is later than 2026-01-02-120000-0000_b/up.sql by its date",
            ),
            (&[("schema.rb", "ActiveRecord::Schema[7.1].define {}")], "schema.rb there is Rails'"),
            (
                &[("001_a/up.sql", up), ("001_a/migration.sql", up)],
                "001_a/ has a migration.sql and an up.sql",
            ),
            (&[("init/migration.sql", up)], "init/migration.sql: the folder is not named"),
            (
                &[("001_a.sql", "-- +goose Up\nSELECT 1;"), ("00002_b.go", "goose.AddMigration()")],
                "migration of goose",
            ),
            (
                &[("20240101120000_a.rb", "class A < ActiveRecord::Migration[7.1]")],
                "migration of Rails",
            ),
            (
                &[("001_a.sql", "SELECT 1;\n-- migrate:down\nDROP TABLE a;")],
                "001_a.sql, line 2: \"-- migrate:down\"",
            ),
            (
                &[(
                    "001_a.sql",
                    "CREATE TABLE a (x);\nCREATE TABLE IF NOT EXISTS \"schema_migrations\" (\"version\" varchar);",
                )],
                "001_a.sql, line 2: the statement makes or changes the table schema_migrations",
            ),
            (
                &[("001_a.sql", "INSERT INTO [schema_migrations] (version) VALUES ('1');")],
                "changes the table",
            ),
            (
                &[("001_a.sql", "create unique index `u` on `schema_migrations` (version);")],
                "changes the table",
            ),
            (
                &[("001_a.sql", "INSERT OR IGNORE INTO Schema_Migrations VALUES (1);")],
                "changes the table",
            ),
        ] {
            let message = refused(files);
            assert!(message.contains(words), "{files:?}: {message}");
        }
        let harmless = "CREATE TABLE log (schema_migrations TEXT); INSERT INTO log SELECT name FROM schema_migrations;";
        read_folder(folder(&[("001_a.sql", harmless)]).path()).unwrap();
        for files in [
            [("db/migrations/001_a.sql", up), ("README.md", "x")],
            [("db/migrations/001_a.js", "x"), ("README.md", "x")],
        ] {
            let cli_error = read_folder(folder(&files).path()).unwrap_err();
            assert!(cli_error.hint.unwrap().contains("db/migrations"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_step_whose_link_leads_nowhere_is_refused() {
        let dir = folder(&[("20260101120000_a/migration.sql", "SELECT 1")]);
        std::os::unix::fs::symlink("gone", dir.path().join("20260102120000_b")).unwrap();
        let message = read_folder(dir.path()).unwrap_err().message;
        assert_eq!(message, "20260102120000_b is a link to nothing");
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
