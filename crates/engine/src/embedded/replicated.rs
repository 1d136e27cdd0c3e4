//! What a node of a cluster does with its files beside serving calls: it applies what the leader
//! has changed, and says what is on the disk.

use super::authorizer::StatementRights;
use super::backup;
use super::changed_owners;
use super::database_handle::{DatabaseHandle, WriteOptions};
use super::database_manager::DatabaseManager;
use super::job::JobIsolation;
use super::replication::{ChangeSet, EntryApplier, FileImage, FileSnapshot, read_position};
use super::tenant;
use super::thread_count::lower_priority;
use super::writer_conn::WriterConnection;
use super::{EmbeddedConfig, EmbeddedEngine, EngineOpenError, error_mapping};
use crate::{LogEntry, ReplicatedLog, TargetDatabase};
use debros_proto::{Code, Error, Namespace, Result};
use prost::Message as _;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

impl EmbeddedEngine {
    /// As [`open`](EmbeddedEngine::open), for a node of a cluster: writes go through its log, and
    /// nothing is changed that is not in the log. Blocks.
    ///
    /// # Errors
    /// [`EngineOpenError`].
    pub fn open_replicated(
        config: EmbeddedConfig,
        log: Arc<dyn ReplicatedLog>,
    ) -> Result<EmbeddedEngine, EngineOpenError> {
        let engine = Self::open_with(config, Some(log))?;
        tenant::forget_interrupted_deletions(&engine.databases)?;
        backup::forget_interrupted_restore(&engine.databases)?;
        Ok(engine)
    }

    /// Writes what the leader has changed into the files here, in the order of the log. Entries that
    /// a file holds already change nothing. Returns when reads see it.
    ///
    /// # Errors
    /// `internal` when an entry does not fit to what is here, which means that the file is not what
    /// it was on the leader; and what a write meets, as `disk_full`. The entries can be applied
    /// again after any of them.
    pub async fn apply(&self, entries: Vec<LogEntry>) -> Result<()> {
        // Those of one file in one transaction, files in the order in which they come first.
        let mut order = Vec::new();
        let mut by_database = HashMap::<TargetDatabase, Vec<(u64, ChangeSet)>>::new();
        for entry in entries {
            let changes = ChangeSet::decode(entry.changes).map_err(|error| {
                tracing::error!(entry = entry.number, %error, "an entry of the log is damaged");
                Error::internal("an entry of the cluster's log cannot be read")
            })?;
            let of_database = by_database.entry(entry.database.clone()).or_insert_with(|| {
                order.push(entry.database);
                Vec::new()
            });
            of_database.push((entry.number, changes));
        }
        for database in order {
            let entries = by_database.remove(&database).unwrap_or_default();
            match database {
                TargetDatabase::System => {
                    apply_to(&self.databases.system, entries, &self.databases.folder.temp_path())
                        .await?;
                }
                TargetDatabase::Namespace(namespace) => {
                    self.apply_to_namespace(namespace, entries).await?;
                }
            }
        }
        Ok(())
    }

    async fn apply_to_namespace(
        &self,
        namespace: Namespace,
        mut entries: Vec<(u64, ChangeSet)>,
    ) -> Result<()> {
        while !entries.is_empty() {
            // Each removal ends a database; what comes later is another one.
            let deleted = entries.iter().position(|(_, changes)| changes.deletes_file);
            let later = entries.split_off(deleted.map_or(entries.len(), |at| at + 1));
            let removal = deleted.and_then(|_| entries.pop());
            let removed = self.databases.removed_at(&namespace)?;
            entries.retain(|(number, _)| *number > removed);
            // What is removed afterwards need not be made before.
            if !entries.is_empty() && removal.is_none() {
                let (databases, name) = (Arc::clone(&self.databases), namespace.clone());
                let database = run_blocking(move || databases.open_for_restore(&name)).await?;
                apply_to(&database, entries, &self.databases.folder.temp_path()).await?;
            }
            // Again too, when it is the last one: its files may have come back with a loss of power.
            if let Some((number, _)) = removal.filter(|(number, _)| *number >= removed) {
                let (databases, name) = (Arc::clone(&self.databases), namespace.clone());
                run_blocking(move || databases.remove_replayed(&name, number)).await?;
            }
            entries = later;
        }
        Ok(())
    }

    /// Has the disk take what was applied and committed so far. Blocks.
    ///
    /// # Errors
    /// `internal`, `disk_full` when the disk refuses.
    pub fn sync_files(&self) -> Result<()> {
        let sync = |path: &Path| sync_database(path).map_err(|error| sync_error(path, &error));
        sync(self.databases.system.path())?;
        // One that is closed is on the disk whole.
        self.databases.wait_until_closed();
        for path in self.databases.open_paths() {
            sync(&path)?;
        }
        let folder = &self.databases.folder;
        folder.sync_namespaces().map_err(|error| sync_error(folder.path(), &error))
    }

    /// Copies all files into a new folder, for a node that is to hold the data too: at least what
    /// was applied before this call. Returns the namespaces whose databases are damaged here, and
    /// are not among the copies. Blocks.
    ///
    /// # Errors
    /// `disk_full`; what a read of the files meets.
    pub fn copy_files(&self, target: &Path) -> Result<Vec<Namespace>> {
        backup::copy_files(&self.databases, target)
    }

    /// Entries up to this one are not applied again: they are on the disk, and the node knows it.
    ///
    /// # Errors
    /// `internal` when the disk refuses.
    pub fn forget_removals(&self, through: u64) -> Result<()> {
        let folder = &self.databases.folder;
        folder.forget_removals(through).map_err(|error| sync_error(folder.path(), &error))
    }

    /// The last entry of the log that a database's file here holds, and a hash of the data as of
    /// then, as [`snapshot`](EmbeddedEngine::snapshot) has them. Blocks.
    ///
    /// # Errors
    /// `not_found` when there is no such database; as [`DatabaseSnapshot::hash`].
    pub fn checksum(&self, database: &TargetDatabase) -> Result<(u64, [u8; 32])> {
        let snapshot = self
            .snapshot(database)?
            .ok_or_else(|| Error::new(Code::NotFound, "the database is not on this node"))?;
        Ok((snapshot.position(), snapshot.hash()?))
    }

    /// A database as it is now, to be compared with another node's; `None` when it is not here.
    /// Blocks for a moment.
    ///
    /// # Errors
    /// `unavailable` when the database is closing; what opening the file meets.
    pub fn snapshot(&self, database: &TargetDatabase) -> Result<Option<DatabaseSnapshot>> {
        let opened = match database {
            TargetDatabase::System => None,
            TargetDatabase::Namespace(namespace) if self.databases.has_database(namespace) => {
                Some(self.databases.open_for_restore(namespace)?)
            }
            TargetDatabase::Namespace(_) => return Ok(None),
        };
        let path = opened.as_ref().map_or(self.databases.system.path(), |opened| opened.path());
        let file = FileSnapshot::open(path).map_err(error_mapping::map_sqlite_error)?;
        Ok(Some(DatabaseSnapshot { file, databases: Arc::clone(&self.databases) }))
    }

    /// All databases here: the system's, and those of the namespaces in order.
    ///
    /// # Errors
    /// `internal` when the disk refuses.
    pub fn list_databases(&self) -> Result<Vec<TargetDatabase>> {
        let namespaces = self.databases.list_namespaces().map_err(|error| {
            tracing::error!(%error, "the databases of the namespaces cannot be listed");
            Error::internal("the databases cannot be listed; the node's log has more")
        })?;
        let namespaces = namespaces.into_iter().map(TargetDatabase::Namespace);
        Ok(std::iter::once(TargetDatabase::System).chain(namespaces).collect())
    }
}

/// A database as it was at one moment.
pub struct DatabaseSnapshot {
    file: FileSnapshot,
    databases: Arc<DatabaseManager>,
}

impl DatabaseSnapshot {
    /// The last entry of the log that it holds.
    pub fn position(&self) -> u64 {
        self.file.position()
    }

    /// A hash of the schema and all rows. Nodes whose files hold the same entry have the same one,
    /// or one of them is not what it should be. Reads the whole file, a row at a time, after
    /// whatever else the node has to do. Blocks.
    ///
    /// # Errors
    /// `unavailable` when the engine is closing; what a read of the file meets.
    pub fn hash(self) -> Result<[u8; 32]> {
        let Self { file, databases } = self;
        let read = std::thread::Builder::new().name("checksum".to_owned()).spawn(move || {
            lower_priority();
            let closing = Arc::clone(&databases);
            let hash = file.hash(move || closing.check_open().is_err());
            databases.check_open()?;
            hash.map_err(error_mapping::map_sqlite_error)
        });
        let read = read.map_err(|error| {
            tracing::warn!(%error, "no thread can be started that reads a database");
            Error::new(Code::Overloaded, "the node has no thread to read the database; try again")
        })?;
        read.join().unwrap_or_else(|_| {
            Err(Error::internal("reading the database broke off; the node's log has more"))
        })
    }
}

/// Applies entries on the thread that writes the file.
async fn apply_to(
    database: &DatabaseHandle,
    mut entries: Vec<(u64, ChangeSet)>,
    temp: &Path,
) -> Result<()> {
    while !entries.is_empty() {
        let image = entries.iter().position(|(_, changes)| changes.image.is_some());
        let later = match image {
            Some(0) => entries.split_off(1),
            Some(at) => entries.split_off(at),
            None => Vec::new(),
        };
        let (path, temp) = (database.path().to_owned(), temp.to_owned());
        let some = std::mem::replace(&mut entries, later);
        let write = WriteOptions::for_removal(JobIsolation::Exclusive);
        let apply = move |conn: &mut WriterConnection| {
            let applied = match some.first() {
                Some((number, ChangeSet { image: Some(image), .. })) => {
                    apply_image(conn, *number, image, &temp)
                }
                _ => apply_changes(conn, &path, &some),
            };
            applied.inspect_err(|error| {
                let (first, last) = (some.first(), some.last());
                tracing::error!(
                    path = %path.display(), error = error.message,
                    first = first.map(|(number, _)| number), last = last.map(|(number, _)| number),
                    "entries of the cluster's log cannot be applied"
                );
            })
        };
        database.write(write, apply).await?;
    }
    Ok(())
}

/// Puts a whole file in the place of the database.
fn apply_image(
    conn: &mut WriterConnection,
    number: u64,
    content: &[u8],
    temp: &Path,
) -> Result<()> {
    conn.authorizer.set_rights(StatementRights::Internal);
    if read_position(&conn.db).map_err(error_mapping::map_sqlite_error)? >= number {
        return Ok(());
    }
    let mut image = FileImage::create(temp, content)?;
    image.set_position(number)?;
    // That it is unusable is logged there; it is so on every node.
    backup::replace_by_file(conn, image.path()).map(|_| ())
}

fn apply_changes(
    conn: &mut WriterConnection,
    path: &Path,
    entries: &[(u64, ChangeSet)],
) -> Result<()> {
    let apply = |conn: &mut WriterConnection| {
        let applier = match &mut conn.applier {
            Some(applier) => applier,
            none => none.insert(EntryApplier::open(path).map_err(map_apply_error)?),
        };
        let applied = applier.apply(entries.iter().map(|(number, changes)| (*number, changes)));
        if applied.is_err() {
            // What it knows of the tables may be of a transaction that is gone.
            conn.applier = None;
        }
        applied.map_err(map_apply_error)
    };
    let held = if entries.iter().any(|(_, changes)| changes.changes_schema) {
        let mut held = 0;
        conn.note_schema_change();
        tenant::replace_content(conn, |conn| {
            held = apply(conn)?;
            Ok(())
        })?;
        held
    } else {
        apply(conn)?
    };
    reload_sequences(conn)?;
    if let Some(ledger) = &conn.ledger {
        let applied =
            || entries.iter().filter(|(number, _)| *number > held).map(|(_, changes)| changes);
        let newest = applied().map(|changes| changes.last_version).max().unwrap_or(0);
        conn.last_version.set(conn.last_version.get().max(newest));
        for changes in applied() {
            conn.note_changed_owners(changes.rowids_of(changed_owners::TABLE));
        }
        let usage = applied().flat_map(|changes| &changes.usage);
        ledger.note_applied(conn, usage.filter_map(|change| change.parts()));
    }
    Ok(())
}

fn reload_sequences(conn: &WriterConnection) -> Result<()> {
    conn.authorizer.set_rights(StatementRights::Internal);
    conn.recorder
        .as_ref()
        .map_or(Ok(()), |recorder| recorder.reload_sequences(&conn.db))
        .map_err(error_mapping::map_sqlite_error)
}

fn map_apply_error(error: rusqlite::Error) -> Error {
    match error_mapping::map_sqlite_error(error) {
        error
            if matches!(
                error.code,
                Code::DiskFull | Code::ReadOnly | Code::Overloaded | Code::Corrupt
            ) =>
        {
            error
        }
        error => Error::internal(format!(
            "an entry of the cluster's log does not fit to this node's file: {}",
            error.message
        )),
    }
}

async fn run_blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(act).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a database could not be brought up to date");
        Err(Error::internal("a database could not be opened; the node's log has more"))
    })
}

/// The log first: what is in it is not in the file yet.
fn sync_database(path: &Path) -> std::io::Result<()> {
    for file in [path.with_extension("db-wal"), path.to_owned()] {
        match std::fs::File::open(&file) {
            Ok(file) => file.sync_data()?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn sync_error(path: &Path, error: &std::io::Error) -> Error {
    tracing::error!(path = %path.display(), %error, "the disk does not take what was written");
    Error::internal("the disk does not take what was written; the node's log has more")
}
