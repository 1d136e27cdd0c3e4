//! Why a database does not open, as it is told: the system's to whoever starts the node, a namespace's to its caller, with
//! the rest in the log.

use crate::embedded::config::OpenError;
use crate::embedded::disk_fault;
use crate::embedded::failure;
use crate::embedded::store::Failure;
use crate::migrations::MigrationError;
use debros_proto::{Code, Error};
use std::path::Path;

impl Failure {
    pub(super) fn of_system(self, path: &Path, backup_dir: &Path) -> OpenError {
        match self {
            Failure::Sqlite(error) => OpenError::database(path, &error, backup_dir),
            Failure::Io(error) => OpenError::io(path, error),
            // The first to read the file after a clean stop, and so the first to meet damage.
            Failure::Migration(MigrationError::Failed { message, .. }) if failure::tells_of_damage(&message) => {
                OpenError::corrupt(path, message, backup_dir)
            }
            Failure::Migration(source) => OpenError::Migration { path: path.to_owned(), source },
            // Of namespaces' files only.
            failure @ (Failure::Old | Failure::Told(_)) => OpenError::Database {
                path: path.to_owned(),
                message: failure.of_namespace(path).message,
                advice: "this is no system's database",
            },
            Failure::Corrupt(findings) => OpenError::corrupt(path, findings, backup_dir),
        }
    }

    pub(super) fn of_namespace(self, path: &Path) -> Error {
        // SQLite says damaged of what can not be read as well.
        let says_damaged = match &self {
            Failure::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt),
            failure => matches!(failure, Failure::Corrupt(_)),
        };
        let fault = says_damaged.then(|| disk_fault::of_file(path)).flatten();
        let path = path.display();
        match self {
            Failure::Sqlite(error) => {
                tracing::error!(%path, %error, "the namespace's database can not be opened");
                match failure::of(error) {
                    told if told.code == Code::Corrupt && fault.is_some() => disk_fault::told(),
                    told => told,
                }
            }
            Failure::Corrupt(findings) if fault.is_some() => {
                tracing::error!(%path, findings, "the disk of the namespace's database can not be read");
                disk_fault::told()
            }
            Failure::Corrupt(findings) => {
                tracing::error!(%path, findings, "the namespace's database is damaged");
                failure::damaged()
            }
            Failure::Io(error) if failure::is_shortage(&error) => failure::too_many_files(),
            Failure::Io(error) if disk_fault::is(&error) => {
                tracing::error!(%path, %error, "the disk of the namespace's database can not be read or written");
                disk_fault::told()
            }
            Failure::Io(error) => {
                tracing::error!(%path, %error, "the namespace's database can not be opened");
                Error::internal("the database can not be opened; the node's log has more")
            }
            Failure::Told(error) => error,
            Failure::Old => {
                tracing::error!(%path, "the namespace's database is still in the form of an earlier version");
                Error::internal("the database can not be brought up to date; the node's log has more")
            }
            Failure::Migration(error) => {
                tracing::error!(%path, %error, "the namespace's database can not be brought up to date");
                Error::internal("the database can not be brought up to date; the node's log has more")
            }
        }
    }
}
