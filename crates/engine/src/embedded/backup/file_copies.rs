//! Copies of all files for a node that is to hold the data too.

use super::copy_pages;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::copy_error::{map_copy_error, map_io_error};
use crate::embedded::data_folder::create_private_folder;
use crate::embedded::database_manager::DatabaseManager;
use crate::embedded::export_limiter::check_disk_space;
use debros_proto::{Code, Namespace, Result};
use std::path::Path;

/// Copies every database into a new folder, each as it is at one moment, with what is remembered of
/// removed ones. What changes meanwhile is in the log. Returns the namespaces whose databases are
/// damaged, and not copied. Blocks.
pub(in crate::embedded) fn copy_files(
    databases: &DatabaseManager,
    target: &Path,
) -> Result<Vec<Namespace>> {
    databases.check_open()?;
    check_disk_space(databases.folder.path(), databases.shared.sizes.total(), "the copy")?;
    let ns = target.join("ns");
    create_private_folder(&ns).map_err(|error| map_io_error(&ns, &error))?;
    let copy = |source: &Path, to: &Path| {
        let source = SqliteConnection::reader(source).map_err(map_copy_error)?;
        copy_pages(&source, to, || databases.check_open(), |_| {})
    };
    copy(databases.system.path(), &target.join("system.db"))?;
    let mut damaged = Vec::new();
    let io = |error| map_io_error(databases.folder.path(), &error);
    for namespace in databases.folder.list_namespaces().map_err(io)? {
        // Opened, so that its log is looked at.
        let copied = databases
            .open_for_restore(&namespace)
            .and_then(|database| copy(database.path(), &ns.join(format!("{namespace}.db"))));
        match copied {
            Err(_) if !databases.folder.namespace_path(&namespace).exists() => {
                // It was removed meanwhile, which the log says.
                let _ = std::fs::remove_file(ns.join(format!("{namespace}.db")));
            }
            Err(error) if error.code == Code::Corrupt => {
                tracing::error!(%namespace, "a damaged database is not copied");
                let _ = std::fs::remove_file(ns.join(format!("{namespace}.db")));
                damaged.push(namespace);
            }
            copied => copied?,
        }
    }
    // Those whose files are missing are not listed.
    damaged.extend(
        databases
            .lost_namespaces()
            .into_iter()
            .filter(|lost| !ns.join(format!("{lost}.db")).exists()),
    );
    databases.folder.copy_removals(target).map_err(io)?;
    Ok(damaged)
}
