//! Which database the migrations of a folder are written for, where the tool says so beside them:
//! much of PostgreSQL's or MySQL's SQL runs in SQLite too, and means something else there.

use crate::cli_error::CliError;
use crate::network_cli::output::printable;
use serde_json::Value;
use std::path::Path;

/// Refuses a folder whose tool wrote it for another database.
///
/// # Errors
/// The file that says so, and the database.
pub(super) fn refuse_other_dialect(dir: &Path) -> Result<(), CliError> {
    if let Some(text) = read_if_there(dir, "migration_lock.toml")?
        && let Some(provider) = toml_value(&text, "provider")
    {
        refuse_other("migration_lock.toml", &provider)?;
    }
    Ok(())
}

/// Refuses what a description by drizzle-kit, as JSON, says to be for another database.
pub(super) fn refuse_dialect_of(file: &str, description: &Value) -> Result<(), CliError> {
    match description.get("dialect").and_then(Value::as_str) {
        Some(dialect) => refuse_other(file, dialect),
        None => Ok(()),
    }
}

/// A small file beside the migrations; `None`: there is none.
pub(super) fn read_if_there(dir: &Path, file: &str) -> Result<Option<String>, CliError> {
    let path = dir.join(file);
    if !path.exists() {
        return Ok(None);
    }
    debros_proto::regular_file::read_to_string(&path)
        .map(Some)
        .map_err(|error| CliError::usage(format!("{file} cannot be read: {error}")))
}

/// A JSON file beside the migrations; `None`: there is none.
pub(super) fn read_json_if_there(dir: &Path, file: &str) -> Result<Option<Value>, CliError> {
    let Some(text) = read_if_there(dir, file)? else { return Ok(None) };
    serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map(Some)
        .map_err(|error| CliError::usage(format!("{} is not understood: {error}", printable(file))))
}

fn refuse_other(file: &str, database: &str) -> Result<(), CliError> {
    // Turso's is SQLite's, with a server.
    if ["sqlite", "turso", "libsql"].contains(&database.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(CliError::usage(format!(
        "{} says that the migrations are written for {}, and db migrate applies those for SQLite",
        printable(file),
        printable(database)
    ))
    .with_hint("let the tool write them for SQLite, into another folder"))
}

/// The string that a TOML file gives a key, in the one form in which Prisma writes it.
fn toml_value(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix(key)?.trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
        Some(value[1..].split(quote).next()?.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use crate::network_cli::migrate::folder::read_folder;
    use crate::network_cli::migrate::test_folder::folder;

    #[test]
    fn a_folder_for_another_database_is_refused_by_name() {
        let (step, sql) = ("20260101120000_a/migration.sql", "SELECT 1");
        for (file, text, database) in [
            ("migration_lock.toml", "# by Prisma\nprovider = \"postgresql\"\n", Some("postgresql")),
            ("migration_lock.toml", "provider='mysql'", Some("mysql")),
            ("migration_lock.toml", "provider = \"sqlite\"\n", None),
            ("migration_lock.toml", "# provider = \"mysql\"\n", None),
            (
                "20260101120000_a/snapshot.json",
                "{\"version\":\"8\",\"dialect\":\"postgres\"}",
                Some("postgres"),
            ),
            ("20260101120000_a/snapshot.json", "{\"dialect\":\"sqlite\"}", None),
        ] {
            let read = read_folder(folder(&[(step, sql), (file, text)]).path());
            match (read, database) {
                (Ok(_), None) => {}
                (Err(cli_error), Some(database)) => {
                    let expected =
                        format!("{file} says that the migrations are written for {database}, ");
                    assert!(cli_error.message.starts_with(&expected), "{cli_error}");
                }
                (read, _) => panic!("{text}: {read:?}"),
            }
        }
        for (dialect, is_right) in [
            ("sqlite", true),
            ("turso", true),
            ("postgresql", false),
            ("mysql", false),
            ("pg", false),
        ] {
            let journal =
                format!("{{\"dialect\":\"{dialect}\",\"entries\":[{{\"tag\":\"0000_a\"}}]}}");
            let files = [("0000_a.sql", sql), ("meta/_journal.json", journal.as_str())];
            assert_eq!(read_folder(folder(&files).path()).is_ok(), is_right, "{dialect}");
        }
    }
}
