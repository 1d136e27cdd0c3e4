//! The list of the files of a folder that its tool keeps beside them: the journal of drizzle-kit,
//! `atlas.sum`. It tells that a file is missing where no gap in the numbers does.

use super::dialect::{read_if_there, read_json_if_there, refuse_dialect_of};
use super::step_names::StepTitle;
use crate::cli_error::CliError;
use crate::network_cli::output::{print_note, printable};
use serde_json::Value;
use std::path::{Path, PathBuf};

const JOURNAL: &str = "meta/_journal.json";
const ATLAS_SUM: &str = "atlas.sum";

/// The files that a tool lists, in its order.
#[derive(Debug)]
pub(super) struct FileList {
    /// The list's own name.
    file: &'static str,
    files: Vec<String>,
}

impl FileList {
    /// The list of a folder; `None`: its tool keeps none.
    ///
    /// # Errors
    /// A list that is not understood, or is one for another database.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, CliError> {
        if let Some(journal) = read_json_if_there(dir, JOURNAL)? {
            refuse_dialect_of(JOURNAL, &journal)?;
            let entries = journal.get("entries").and_then(Value::as_array);
            let files = entries.and_then(|entries| entries.iter().map(journal_file).collect());
            let files = files.ok_or_else(|| {
                CliError::usage(format!("{JOURNAL} is not understood: its entries have no tag"))
            })?;
            return Ok(Some(Self { file: JOURNAL, files }));
        }
        let Some(text) = read_if_there(dir, ATLAS_SUM)? else { return Ok(None) };
        // The first line is the sum of all.
        let files = text.lines().filter_map(|line| line.split_once(" h1:"));
        let files = files.map(|(name, _)| name.to_owned()).collect();
        Ok(Some(Self { file: ATLAS_SUM, files }))
    }

    /// Keeps the steps that the tool would apply.
    ///
    /// # Errors
    /// A file that is listed and missing, and one that makes the tool stop: it is not listed, or
    /// its number is not in the order of the list.
    pub(super) fn check(
        &self,
        dir: &Path,
        steps: &mut Vec<(PathBuf, String, StepTitle)>,
    ) -> Result<(), CliError> {
        let list = self.file;
        if let Some(missing) = self.files.iter().find(|file| !dir.join(file).exists()) {
            return Err(CliError::usage(format!(
                "{} is missing: {list} lists it as a step",
                printable(missing)
            ))
            .with_hint("put the file back, or let the tool take it out of the list"));
        }
        let is_listed = |file: &String| self.files.contains(file);
        let unlisted: Vec<&String> =
            steps.iter().map(|(_, file, _)| file).filter(|file| !is_listed(file)).collect();
        for file in unlisted {
            let shown = printable(file);
            if list == ATLAS_SUM {
                return Err(CliError::usage(format!(
                    "{shown} is not in {list}, and Atlas applies nothing then"
                ))
                .with_hint("`atlas migrate hash` writes the list anew"));
            }
            // drizzle applies what the journal lists and nothing else.
            print_note(&format!("{shown} is left out: {list} does not list it"));
        }
        steps.retain(|(_, file, _)| is_listed(file));
        self.check_order(steps)
    }

    /// The tool applies the files in the order of its list, `db migrate` in that of their numbers.
    fn check_order(&self, steps: &[(PathBuf, String, StepTitle)]) -> Result<(), CliError> {
        let version = |file: &String| {
            steps.iter().find(|(_, step, _)| step == file).map(|(_, _, title)| title.version)
        };
        let mut before: Option<(&String, i64)> = None;
        for (file, version) in self.files.iter().filter_map(|file| Some((file, version(file)?))) {
            if let Some((earlier, _)) = before.filter(|(_, earlier)| *earlier > version) {
                return Err(CliError::usage(format!(
                    "{} comes before {} in {}, and after it by its number",
                    printable(earlier),
                    printable(file),
                    self.file
                ))
                .with_hint("give them numbers in the order in which they are applied"));
            }
            before = Some((file, version));
        }
        Ok(())
    }
}

/// The file of an entry of the journal.
fn journal_file(entry: &Value) -> Option<String> {
    entry.get("tag").and_then(Value::as_str).map(|tag| format!("{tag}.sql"))
}

#[cfg(test)]
mod tests {
    use crate::network_cli::migrate::folder::read_folder;
    use crate::network_cli::migrate::test_folder::folder;

    fn read(files: &[&str], list: &str, text: &str) -> Result<Vec<String>, String> {
        let mut files: Vec<_> = files.iter().map(|file| (*file, "SELECT 1")).collect();
        files.push((list, text));
        let steps = read_folder(folder(&files).path()).map_err(|cli_error| cli_error.message)?;
        Ok(steps.into_iter().map(|step| step.file).collect())
    }

    fn journal(files: &[&str], tags: &[&str]) -> Result<Vec<String>, String> {
        let entries: Vec<String> =
            tags.iter().map(|tag| format!("{{\"idx\":0,\"tag\":\"{tag}\"}}")).collect();
        let text = format!("{{\"version\":\"7\",\"entries\":[{}]}}", entries.join(","));
        read(files, "meta/_journal.json", &text)
    }

    #[test]
    fn a_file_that_the_journal_lists_has_to_be_there() {
        assert_eq!(
            journal(&["0000_a.sql"], &["0000_a", "0001_b"]).unwrap_err(),
            "0001_b.sql is missing: meta/_journal.json lists it as a step"
        );
        // As drizzle does, which may have dropped a step.
        assert_eq!(
            journal(&["0000_a.sql", "0002_c.sql", "0003_d.sql"], &["0000_a", "0002_c"]).unwrap(),
            ["0000_a.sql", "0002_c.sql"]
        );
        assert_eq!(
            journal(&["0000_a.sql", "0001_b.sql"], &["0001_b", "0000_a"]).unwrap_err(),
            "0001_b.sql comes before 0000_a.sql in meta/_journal.json, and after it by its number"
        );
        for text in ["{", "{}", "{\"entries\":[{}]}", "<<<<<<< HEAD"] {
            let message = read(&["0000_a.sql"], "meta/_journal.json", text).unwrap_err();
            assert!(message.starts_with("meta/_journal.json is not understood"), "{message}");
        }
    }

    #[test]
    fn the_list_of_atlas_says_what_is_there() {
        let (a, b) = ("20260101120000_a.sql", "20260102120000_b.sql");
        let sum = format!("h1:sum=\n{a} h1:one=\n{b} h1:two=\n");
        assert_eq!(read(&[a, b], "atlas.sum", &sum).unwrap(), [a, b]);
        let missing = read(&[a], "atlas.sum", &sum).unwrap_err();
        assert_eq!(missing, format!("{b} is missing: atlas.sum lists it as a step"));
        let more = read(&[a, b, "20260103120000_c.sql"], "atlas.sum", &sum).unwrap_err();
        assert!(more.starts_with("20260103120000_c.sql is not in atlas.sum"), "{more}");
    }
}
