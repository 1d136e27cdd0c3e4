//! Why a database does not open, as it is told: the system's to whoever starts the node, a namespace's to its caller, with
//! the rest in the log.

use crate::embedded::config::OpenError;
use crate::embedded::failure;
use crate::embedded::store::Failure;
use crate::migrations::MigrationError;
use debros_proto::Error;
use std::path::Path;

impl Failure {
    pub(super) fn of_system(self, path: &Path, backup_dir: &Path) -> OpenError {
        match self {
            Failure::Sqlite(error) => OpenError::database(path, &error, backup_dir),
            Failure::Io(error) => OpenError::io(path, error),
            // The first to read the file after a clean stop, and so the first to meet damage.
            Failure::Migration(MigrationError::Failed { message, .. }) if failure::tells_of_damage(&message) => {
                OpenError::Corrupt { path: path.to_owned(), findings: message, backup_dir: backup_dir.to_owned() }
            }
            Failure::Migration(source) => OpenError::Migration { path: path.to_owned(), source },
            // Of namespaces' files only.
            failure @ (Failure::Old | Failure::Told(_)) => OpenError::Database {
                path: path.to_owned(),
                message: failure.of_namespace(path).message,
                advice: "this is no system's database",
            },
            Failure::Corrupt(findings) => {
                OpenError::Corrupt { path: path.to_owned(), findings, backup_dir: backup_dir.to_owned() }
            }
        }
    }

    pub(super) fn of_namespace(self, path: &Path) -> Error {
        let path = path.display();
        match self {
            Failure::Sqlite(error) => {
                tracing::error!(%path, %error, "the namespace's database can not be opened");
                failure::of(error)
            }
            Failure::Corrupt(findings) => {
                tracing::error!(%path, findings, "the namespace's database is damaged");
                failure::damaged()
            }
            Failure::Io(error) if failure::is_shortage(&error) => failure::too_many_files(),
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
