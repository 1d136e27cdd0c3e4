//! Reading a step: what of its file is applied.
//!
//! Of a file with two halves only the one that applies is read, see [`super::markers`].

use super::history_tables::TABLE;
use super::markers::applied_section;
use super::migration_step::MigrationStep;
use super::step_names::StepTitle;
use super::step_statements::step_statements;
use crate::cli_error::CliError;
use crate::network_cli::output::printable;
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// Reads a step.
///
/// # Errors
/// The file, and the line in it of what cannot be applied.
pub(super) fn read_step(
    path: &Path,
    file: String,
    title: StepTitle,
) -> Result<MigrationStep, CliError> {
    let shown = printable(&file);
    let read = debros_proto::regular_file::read_to_string(path)
        .map_err(|error| CliError::usage(format!("{shown} cannot be read: {error}")))?;
    // Editors on Windows put it there; it is no part of the text.
    let text = read.strip_prefix('\u{feff}').unwrap_or(&read);
    let part = applied_section(text).map_err(|mut cli_error| {
        cli_error.message = format!("{shown}, {}", cli_error.message);
        cli_error
    })?;
    let StepTitle { version, number, name, may_skip } = title;
    if may_skip && let Some(start) = text[part.clone()].find("${") {
        let line = text[..part.start + start].matches('\n').count() + 1;
        return Err(CliError::usage(format!(
            "{shown}, line {line}: Flyway puts a value into the place of ${{…}} there"
        ))
        .with_hint("write the value itself"));
    }
    let checksum = debros_proto::hex::encode(&Sha256::digest(&text.as_bytes()[part.clone()]));
    // Its lines keep their numbers.
    let before: String = text[..part.start].chars().filter(|sign| *sign == '\n').collect();
    let sql = before + &text[part];
    let step = MigrationStep { version, number, name, file, sql, checksum, may_skip };
    if let Some(part) = step_statements(&step)?.iter().find(|part| changes_record(&part.text)) {
        return Err(CliError::usage(format!(
            "{shown}, line {}: the statement makes or changes the table {TABLE}, in which db migrate keeps its own record",
            part.line
        ))
        .with_hint("Rails, Ecto and dbmate write such statements into a schema that they dump: take them out"));
    }
    Ok(step)
}

/// Whether a statement makes, changes or drops the table of the record, or an index on it.
fn changes_record(statement: &str) -> bool {
    const BEFORE: [&str; 22] = [
        "create",
        "temp",
        "temporary",
        "unique",
        "table",
        "index",
        "if",
        "not",
        "exists",
        "insert",
        "replace",
        "or",
        "abort",
        "fail",
        "ignore",
        "rollback",
        "into",
        "drop",
        "alter",
        "delete",
        "from",
        "update",
    ];
    let changes = ["create", "insert", "replace", "drop", "alter", "delete", "update"];
    // The names that matter stand at the beginning.
    let words: Vec<String> = statement
        .split(|sign: char| !(sign.is_alphanumeric() || sign == '_'))
        .filter(|word| !word.is_empty())
        .take(BEFORE.len())
        .map(str::to_ascii_lowercase)
        .collect();
    let is_change = words.first().is_some_and(|first| changes.contains(&first.as_str()));
    let mut names = words.iter().skip_while(|word| BEFORE.contains(&word.as_str()));
    let (name, next, table) = (names.next(), names.next(), names.next());
    let is_on = next.is_some_and(|next| next == "on") && words.iter().any(|word| word == "index");
    is_change
        && (name.is_some_and(|name| name == TABLE)
            || is_on && table.is_some_and(|table| table == TABLE))
}
