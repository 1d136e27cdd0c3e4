//! Why a database does not open, and the error for it: the system's for the start of the node, a
//! namespace's for its caller, with the rest in the log.

use super::engine_open_error::EngineOpenError;
use super::{disk_fault, error_mapping};
use crate::migrations::MigrationError;
use debros_proto::{Code, Error};
use std::path::Path;

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) enum OpenFailure {
    Sqlite(rusqlite::Error),
    Io(std::io::Error),
    /// What the integrity check found.
    Corrupt(String),
    Migration(MigrationError),
    /// What the file holds is not what it should be; reported and logged already.
    Reported(Error),
}

impl From<rusqlite::Error> for OpenFailure {
    fn from(error: rusqlite::Error) -> Self {
        OpenFailure::Sqlite(error)
    }
}

impl From<std::io::Error> for OpenFailure {
    fn from(error: std::io::Error) -> Self {
        OpenFailure::Io(error)
    }
}

impl OpenFailure {
    pub(super) fn into_engine_error(self, path: &Path, backup_dir: &Path) -> EngineOpenError {
        match self {
            OpenFailure::Sqlite(error) => EngineOpenError::database(path, &error, backup_dir),
            OpenFailure::Io(error) => EngineOpenError::io(path, error),
            // The first to read the file after a clean stop, and so the first to meet damage.
            OpenFailure::Migration(MigrationError::Failed { message, .. })
                if error_mapping::mentions_damage(&message) =>
            {
                EngineOpenError::corrupt(path, message, backup_dir)
            }
            OpenFailure::Migration(source) => {
                EngineOpenError::Migration { path: path.to_owned(), source }
            }
            // Of namespaces' files only.
            OpenFailure::Reported(error) => EngineOpenError::Database {
                path: path.to_owned(),
                message: error.message,
                advice: "this is no system's database",
            },
            OpenFailure::Corrupt(findings) => EngineOpenError::corrupt(path, findings, backup_dir),
        }
    }

    pub(super) fn into_caller_error(self, path: &Path) -> Error {
        // SQLite says damaged of what cannot be read as well.
        let says_damaged = match &self {
            OpenFailure::Sqlite(error) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt)
            }
            failure => matches!(failure, OpenFailure::Corrupt(_)),
        };
        let fault = says_damaged.then(|| disk_fault::find_read_fault(path)).flatten();
        let path = path.display();
        match self {
            OpenFailure::Sqlite(error) => {
                tracing::error!(%path, %error, "the namespace's database cannot be opened");
                match error_mapping::map_sqlite_error(error) {
                    reported if reported.code == Code::Corrupt && fault.is_some() => {
                        disk_fault::disk_fault_error()
                    }
                    reported => reported,
                }
            }
            OpenFailure::Corrupt(findings) if fault.is_some() => {
                tracing::error!(%path, findings, "the disk of the namespace's database cannot be read");
                disk_fault::disk_fault_error()
            }
            OpenFailure::Corrupt(findings) => {
                tracing::error!(%path, findings, "the namespace's database is damaged");
                error_mapping::database_damaged_error()
            }
            OpenFailure::Io(error) if error_mapping::is_descriptor_shortage(&error) => {
                error_mapping::too_many_files_error()
            }
            OpenFailure::Io(error) if disk_fault::is_disk_fault(&error) => {
                tracing::error!(%path, %error, "the disk of the namespace's database cannot be read or written");
                disk_fault::disk_fault_error()
            }
            OpenFailure::Io(error) => {
                tracing::error!(%path, %error, "the namespace's database cannot be opened");
                Error::internal("the database cannot be opened; the node's log has more")
            }
            OpenFailure::Reported(error) => error,
            OpenFailure::Migration(error) => {
                tracing::error!(%path, %error, "the namespace's database cannot be brought up to date");
                Error::internal(
                    "the database cannot be brought up to date; the node's log has more",
                )
            }
        }
    }
}
