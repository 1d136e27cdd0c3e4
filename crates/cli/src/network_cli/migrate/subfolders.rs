//! The files in folders below: nothing there is left out without a word.
//!
//! Flyway and refinery look for their files in all folders below, and the numbers say the order of
//! all of them. The other tools take no such files, so whoever put one there meant something that
//! `db migrate` does not know.

use super::step_names::{FileKind, StepTitle, flyway_kind};
use crate::cli_error::CliError;
use crate::network_cli::output::printable;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What Flyway finds in a folder below.
#[derive(Debug, Default)]
pub(super) struct FilesBelow {
    pub(super) steps: Vec<(PathBuf, String, StepTitle)>,
    pub(super) undos: Vec<(String, StepTitle)>,
}

/// Reads a folder below, which has this name, and those in it.
///
/// # Errors
/// A file with SQL that is none of Flyway's.
pub(super) fn files_below(folder: &Path, name: &str) -> Result<FilesBelow, CliError> {
    let mut found = FilesBelow::default();
    add_files(folder, name, &mut HashSet::new(), &mut found)?;
    Ok(found)
}

fn add_files(
    folder: &Path,
    name: &str,
    seen: &mut HashSet<PathBuf>,
    found: &mut FilesBelow,
) -> Result<(), CliError> {
    let unreadable = |error: std::io::Error| {
        CliError::usage(format!("{}/ cannot be read: {error}", printable(name)))
    };
    // A link may lead to a folder above.
    if !seen.insert(folder.canonicalize().map_err(unreadable)?) {
        return Ok(());
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        paths.push(entry.map_err(unreadable)?.path());
    }
    paths.sort();
    for path in paths {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        // Other people's packages are nobody's migrations.
        if file.starts_with('.') || file == "node_modules" {
            continue;
        }
        let file = format!("{name}/{file}");
        if path.is_dir() {
            add_files(&path, &file, seen, found)?;
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql")) {
            match flyway_kind(&file)? {
                Some(FileKind::Undo(title)) => found.undos.push((file, title)),
                Some(FileKind::Whole(title)) => found.steps.push((path, file, title)),
                _ => return Err(not_looked_for_error(&file, folder)),
            }
        }
    }
    Ok(())
}

fn not_looked_for_error(file: &str, folder: &Path) -> CliError {
    let shown = printable(file);
    let cli_error = CliError::usage(format!(
        "{shown} stands in a folder below, where only files of Flyway are looked for (V1__name.sql)"
    ));
    // sqitch and others keep what takes changes back in a folder of its own.
    let takes_back = ["down", "downs", "undo", "revert", "rollback", "downgrade", "verify"];
    if file.split('/').any(|part| takes_back.contains(&part.to_ascii_lowercase().as_str())) {
        return cli_error.with_hint(
            "its folder is named as if it took changes back: name the folder of what is to be applied alone",
        );
    }
    cli_error.with_hint(format!(
        "if the migrations stand there, name that folder: network-cli db migrate {}; if it is one of the others, move it \
         beside them; if it is none, take it out of the folder",
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::files_below;
    use crate::network_cli::migrate::folder::read_folder;
    use crate::network_cli::migrate::test_folder::folder;

    fn files(names: &[&str]) -> Result<Vec<String>, String> {
        let files: Vec<_> = names.iter().map(|name| (*name, "SELECT 1")).collect();
        let steps = read_folder(folder(&files).path()).map_err(|cli_error| cli_error.message)?;
        Ok(steps.into_iter().map(|step| step.file).collect())
    }

    #[test]
    fn flyways_files_below_come_in_the_order_of_all() {
        let found = files(&[
            "V1__a.sql",
            "V4__d.sql",
            "later/V3__c.sql",
            "later/2025_q1/V2__b.sql",
            "later/U3__c.sql",
            "later/notes.md",
        ]);
        assert_eq!(
            found.unwrap(),
            ["V1__a.sql", "later/2025_q1/V2__b.sql", "later/V3__c.sql", "V4__d.sql"]
        );
    }

    #[test]
    fn what_is_not_taken_from_a_folder_below_is_refused_by_name() {
        for (names, words) in [
            (&["001_a.sql", "sub/002_b.sql"][..], "sub/002_b.sql stands in a folder below"),
            (&["001_a.sql", "sub/deep/seed.SQL"], "sub/deep/seed.SQL stands in a folder below"),
            (&["001_a.sql", "2024_archive/000_old.sql"], "2024_archive/000_old.sql stands"),
            (&["V1__a.sql", "sub/R__views.sql"], "sub/R__views.sql is a repeatable migration"),
            (&["V1__a.sql", "sub/V1__b.sql"], "same number"),
            (&["V1__a.sql", "sub/U2__b.sql"], "sub/U2__b.sql has no V file"),
            (&["db/migrations/001_a.sql"], "db/migrations/001_a.sql stands"),
        ] {
            let message = files(names).expect_err(words);
            assert!(message.contains(words), "{names:?}: {message}");
        }
        let dir = folder(&[("down/001_a.sql", "DROP TABLE a"), ("up/001_a.sql", "SELECT 1")]);
        let hint = read_folder(dir.path()).unwrap_err().hint.unwrap();
        assert!(hint.contains("took changes back") && !hint.contains("db migrate "), "{hint}");
        // What no tool applies, and what others keep beside their steps.
        let others = ["meta/readme.json", ".git/x.sql", "docs/.x.sql", "docs/node_modules/x.sql"];
        let found = files(&[&["001_a.sql"][..], &others].concat());
        assert_eq!(found.unwrap(), ["001_a.sql"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_folder_above_ends() {
        let dir = folder(&[("sub/V1__a.sql", "SELECT 1")]);
        std::os::unix::fs::symlink("..", dir.path().join("sub/up")).unwrap();
        assert_eq!(files_below(dir.path(), "x").unwrap().steps.len(), 1);
    }
}
