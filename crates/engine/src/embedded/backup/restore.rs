//! Putting a backup back.
//!
//! Every file is replaced by its own writer thread in one transaction, so that each database is the
//! old one or the new one to every reader, and after a crash. Then the files go that the backup
//! does not have. A marker with the backup's name lies in the folder until all are replaced: the
//! next start finishes what was begun. Who may act stays as it is (see `system_copy.rs`).

use super::create::is_backup_name;
use super::manifest::{Manifest, ManifestEntry};
use super::system_copy::SystemCopy;
use super::{copy_pages, exclusive_maintenance};
use crate::embedded::authorizer::StatementRights;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::copy_error::{map_copy_error, map_io_error};
use crate::embedded::data_folder::sync_folder;
use crate::embedded::database_handle::{DatabaseHandle, WriteOptions};
use crate::embedded::database_manager::DatabaseManager;
use crate::embedded::deadline::NO_DEADLINE;
use crate::embedded::engine_open_error::EngineOpenError;
use crate::embedded::fair_queue::FlowId;
use crate::embedded::job::JobIsolation;
use crate::embedded::replication::{ChangeSet, FileImage};
use crate::embedded::tenant;
use crate::embedded::writer::{map_append_error, not_leader_error};
use crate::embedded::writer_conn::WriterConnection;
use crate::migrations::MIGRATIONS;
use crate::{EntryKind, MAX_CHANGES, ProgressFn, ReplicatedLog, TargetDatabase};
use debros_proto::{Code, Error, Namespace, Result};
use prost::Message as _;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Verifies a backup and puts it in place of what is there. Blocks.
pub(in crate::embedded) fn restore_backup(
    databases: &DatabaseManager,
    name: &str,
    progress: &ProgressFn,
) -> Result<()> {
    if !is_backup_name(name) {
        return Err(Error::new(
            Code::NotFound,
            format!("there is no backup named \"{}\"", debros_proto::ids::excerpt(name)),
        ));
    }
    let _alone = exclusive_maintenance(databases, "a restore")?;
    databases.check_open()?;
    // What is put back now would go when that deletion is finished.
    if let Some(namespace) = databases.namespace_locks.find_deleting() {
        return Err(Error::new(
            Code::Conflict,
            format!(
                "the namespace \"{namespace}\" is being deleted: restore when that is done; if it failed, delete it again or start \
                 the node again before"
            ),
        ));
    }
    let backup = VerifiedBackup::new(databases, name, progress)?;
    let folder = &databases.folder;
    folder.begin_restore(name).map_err(|error| map_io_error(folder.path(), &error))?;
    backup.restore(databases)?;
    folder.end_restore().map_err(|error| map_io_error(folder.path(), &error))
}

/// Finishes the restore that a crash or a stop interrupted, if there was one.
pub(in crate::embedded) fn finish_interrupted_restore(
    databases: &DatabaseManager,
) -> Result<(), EngineOpenError> {
    let folder = &databases.folder;
    let Some(name) =
        folder.interrupted_restore().map_err(|error| EngineOpenError::io(folder.path(), error))?
    else {
        return Ok(());
    };
    tracing::warn!(backup = name, "a restore was interrupted; it is finished now");
    let finish = || {
        let nobody: ProgressFn = Box::new(|_, _| {});
        restore_backup(databases, &name, &nobody).map_err(|error| EngineOpenError::Restore {
            backup: name.clone(),
            message: format!(
                "{error}; to go on with the databases as they are, remove {} (those that were here before may lie in {})",
                folder.path().join("RESTORE").display(),
                folder.aside_path().display()
            ),
        })
    };
    // A thread of its own: the caller's may belong to a runtime, which must not be blocked.
    std::thread::scope(|scope| scope.spawn(finish).join()).unwrap_or_else(|_| {
        Err(EngineOpenError::Restore {
            backup: name.clone(),
            message: "the node failed; its log has more".to_owned(),
        })
    })
}

/// Forgets the restore that a stop interrupted on a node of a cluster: all nodes have what was put
/// back before, and the cluster went on.
pub(in crate::embedded) fn forget_interrupted_restore(
    databases: &DatabaseManager,
) -> Result<(), EngineOpenError> {
    let folder = &databases.folder;
    let forget = || {
        if let Some(name) = folder.interrupted_restore()? {
            tracing::error!(
                backup = name,
                "a restore was interrupted: a part of the backup is put back; restore it again"
            );
            folder.end_restore()?;
        }
        Ok(())
    };
    forget().map_err(|error| EngineOpenError::io(folder.path(), error))
}

/// Refuses a backup of which a file is too large for the cluster's log, before anything is put back.
fn check_fits_log(largest: Option<u64>) -> Result<()> {
    // What is around a file in the log takes less.
    let max = MAX_CHANGES as u64 - (1 << 20);
    match largest {
        Some(bytes) if bytes > max => Err(Error::new(
            Code::TooLarge,
            format!(
                "a database of the backup has {bytes} bytes, and a cluster takes back at most {max}; nothing was changed: \
                 restore it on a node that is alone, and begin a cluster with that"
            ),
        )),
        _ => Ok(()),
    }
}

/// A backup whose checksums are right.
struct VerifiedBackup<'a> {
    name: String,
    /// It was begun before, and broken off.
    again: bool,
    folder: PathBuf,
    manifest: Manifest,
    progress: &'a ProgressFn,
    all: u64,
}

impl<'a> VerifiedBackup<'a> {
    fn new(databases: &DatabaseManager, name: &str, progress: &'a ProgressFn) -> Result<Self> {
        let backup_dir = &databases.shared.config.backup_dir;
        let (manifest, _) = Manifest::read(backup_dir, name)?;
        let folder = backup_dir.join(name);
        if databases.shared.log.is_some() {
            check_fits_log(manifest.files.iter().map(|file| file.size).max())?;
        }
        let bytes: u64 = manifest.files.iter().map(|file| file.size).sum();
        // Each byte is read to verify it, and then written.
        let all = 2 * bytes.max(1);
        let mut done = 0;
        for file in &manifest.files {
            file.verify_checksum(&folder, |bytes| {
                done += bytes;
                progress(done.min(all), all);
            })?;
        }
        // What is put back goes through the log first.
        let room = super::super::data_folder::available_space(databases.folder.path())
            .map_err(|error| map_io_error(databases.folder.path(), &error))?;
        // The system's database is changed in a copy before.
        let system = manifest.files.iter().filter(|file| file.namespace().is_none());
        let needed = bytes + system.map(|file| file.size).sum::<u64>();
        if room < needed {
            return Err(Error::new(
                Code::DiskFull,
                format!(
                    "the disk has {room} bytes left, putting the backup back takes {needed}; nothing was changed"
                ),
            ));
        }
        for file in manifest.files.iter().filter(|file| file.namespace().is_none()) {
            check_schema_version(&file.path_in(&folder))?;
        }
        let again = databases
            .folder
            .interrupted_restore()
            .is_ok_and(|begun| begun.as_deref() == Some(name));
        Ok(Self { name: name.to_owned(), again, folder, manifest, progress, all })
    }

    fn restore(&self, databases: &DatabaseManager) -> Result<()> {
        let mut done = self.all / 2;
        let mut restored: BTreeSet<Namespace> =
            self.manifest.files.iter().filter_map(ManifestEntry::namespace).collect();
        // The system's first: it shows which namespaces are no longer the backup's.
        for system in self.manifest.files.iter().filter(|file| file.namespace().is_none()) {
            databases.check_open()?;
            let copy = SystemCopy::create(&system.path_in(&self.folder), &databases.folder)?;
            if copy.is_of_this_network(&databases.folder.system_path())? {
                // What could not be copied stays as it is: its file is the only one.
                restored.extend(
                    self.manifest
                        .missing_namespaces()
                        .filter(|missing| databases.has_database(missing)),
                );
            } else {
                move_present_aside(databases, &self.name, self.again)?;
            }
            let others = replace_system(databases, copy, &restored)?;
            restored.retain(|namespace| !others.contains(namespace));
            done += system.size;
            (self.progress)(done.min(self.all), self.all);
        }
        for file in &self.manifest.files {
            let Some(namespace) = file.namespace() else { continue };
            databases.check_open()?;
            if restored.contains(&namespace) {
                replace_namespace(databases, file.path_in(&self.folder), &namespace)?;
            }
            done += file.size;
            (self.progress)(done.min(self.all), self.all);
        }
        let namespaces = databases
            .list_remnants()
            .map_err(|error| map_io_error(databases.folder.path(), &error))?;
        for namespace in namespaces.difference(&restored) {
            databases.remove_database(namespace)?;
        }
        databases
            .folder
            .sync_namespaces()
            .map_err(|error| map_io_error(databases.folder.path(), &error))?;
        databases.namespace_locks.set_ownership_change(false);
        (self.progress)(self.all, self.all);
        Ok(())
    }
}

/// Takes the present namespaces' files out of the way of another network's owners, whose backup is
/// put back: a file under one of their names is somebody else's. It may also be the only one there
/// is, where `system.db` was lost and this is the same operator's; so nothing is deleted, and
/// `system.db` is copied. No call is served until the whole is done.
fn move_present_aside(databases: &DatabaseManager, backup: &str, again: bool) -> Result<()> {
    let of_folder = |error| map_io_error(databases.folder.path(), &error);
    let aside = databases.folder.create_aside_folder(backup, again).map_err(of_folder)?;
    databases.namespace_locks.set_ownership_change(true);
    tracing::warn!(
        folder = %aside.display(),
        "the backup is of another network than the databases here: they are kept in this folder, and nobody uses them"
    );
    let system = aside.join("system.db");
    // Whole or not there.
    let partial = aside.join("system.partial");
    if !system.exists() {
        let _ = std::fs::remove_file(&partial);
        copy_pages(
            &SqliteConnection::reader(&databases.folder.system_path()).map_err(map_copy_error)?,
            &partial,
            || databases.check_open(),
            |_| {},
        )?;
        File::open(&partial)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&partial, &system))
            .map_err(of_folder)?;
    }
    let present = databases.list_remnants().map_err(of_folder)?;
    for namespace in &present {
        databases.quarantine(namespace, &aside)?;
    }
    sync_folder(&aside).and_then(|()| databases.folder.sync_namespaces()).map_err(of_folder)
}

/// As [`replace`] for the file of a namespace. What cannot be used of it, because another version
/// made it, say, is that namespace's trouble alone: it comes back as it was copied, and the next
/// caller that uses it gets the reason.
fn replace_namespace(
    databases: &DatabaseManager,
    source: PathBuf,
    namespace: &Namespace,
) -> Result<()> {
    let database = open_or_renew(databases, namespace)?;
    let (is_usable, ()) = replace_database(&database, &databases.folder.temp_path(), move || {
        Ok((source.clone(), ()))
    })?;
    if is_usable {
        database.set_damaged(false);
        return Ok(());
    }
    drop(database);
    databases.close_namespace(namespace)
}

/// A namespace's database. A file that does not open, for whatever reason, is no reason against
/// replacing it: it is put aside.
fn open_or_renew(
    databases: &DatabaseManager,
    namespace: &Namespace,
) -> Result<std::sync::Arc<DatabaseHandle>> {
    match databases.open_in_place(namespace) {
        // What stops the node, and not the file alone.
        Err(error)
            if !matches!(error.code, Code::Overloaded | Code::DiskFull | Code::Unavailable) =>
        {
            tracing::warn!(%namespace, error = %error.message, "a database that cannot be opened is put aside");
            databases
                .put_damaged_aside(namespace)
                .map_err(|error| map_io_error(databases.folder.path(), &error))?;
            databases.open_for_restore(namespace)
        }
        opened => opened,
    }
}

/// As [`replace`] for the system's database, where those who may act stay who they are. Returns the
/// namespaces that are not the backup's of their names, whose databases are not put back.
fn replace_system(
    databases: &DatabaseManager,
    mut copy: SystemCopy,
    restored: &BTreeSet<Namespace>,
) -> Result<BTreeSet<Namespace>> {
    let (present, restored) = (databases.folder.system_path(), restored.clone());
    // On the writer's thread: between the look at what is revoked and the replacement nobody
    // revokes anything.
    replace_database(&databases.system, &databases.folder.temp_path(), move || {
        let others = copy.merge_auth_tables(&present, &restored)?;
        Ok((copy.path().to_owned(), others))
    })
    .map(|(_, others)| {
        databases.system.set_damaged(false);
        others
    })
}

/// Has the database's writer replace everything in one transaction by the file that `source` gives.
/// Returns whether it can be used, for it is replaced also when it cannot, and what `source` gives
/// besides.
fn replace_database<T: Send + 'static>(
    database: &DatabaseHandle,
    temp: &Path,
    mut source: impl FnMut() -> Result<(PathBuf, T)> + Send + 'static,
) -> Result<(bool, T)> {
    let log = database.replicated_log().map(|log| {
        let of = database.tenant().map(|tenant| tenant.namespace.clone());
        let of = of.map_or(TargetDatabase::System, TargetDatabase::Namespace);
        (log, of, temp.to_owned())
    });
    let write = WriteOptions {
        isolation: JobIsolation::Exclusive,
        removes: false,
        bytes: 0,
        deadline: Instant::now() + NO_DEADLINE,
        flow: FlowId::default(),
    };
    database.write_blocking(write, move |conn| {
        conn.authorizer.set_rights(StatementRights::Internal);
        let (source, besides) = source()?;
        let image = match &log {
            Some((log, database, temp)) => {
                Some(append_image(log.as_ref(), database, &source, temp)?)
            }
            None => None,
        };
        let source = image.as_ref().map_or(source, |image| image.path().to_owned());
        let replaced = replace_by_file(conn, &source);
        if let (Err(_), Some(image), Some((log, ..))) = (&replaced, &image, &log) {
            log.fell_behind(image.number());
        }
        let is_usable = replaced?;
        if let (Some(image), Some((log, ..))) = (&image, &log) {
            log.committed(image.number());
        }
        // The log now holds the whole database; it is written back when readers let it.
        if let Err(error) = conn.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "the log cannot be written back now");
        }
        Ok((is_usable, besides))
    })
}

/// Puts everything of a file in the place of what the database has, in one transaction, and takes
/// what is known of the database from there. False: what is there now is unusable.
pub(in crate::embedded) fn replace_by_file(
    conn: &mut WriterConnection,
    source: &Path,
) -> Result<bool> {
    tenant::replace_content(conn, |conn| {
        overwrite_database(conn, source)?;
        conn.forget_statements();
        // It applied entries to what was there before.
        conn.applier = None;
        if let Some(ledger) = &conn.ledger {
            ledger.load_counts(conn, false).map_err(map_copy_error)?;
        }
        match &conn.recorder {
            Some(recorder) => recorder.reload(&conn.db).map_err(map_copy_error),
            None => Ok(()),
        }
    })
}

/// Puts a file that takes the place of a database into the cluster's log. Returns the file as it is
/// to be put there, which knows its place in the log.
fn append_image(
    log: &dyn ReplicatedLog,
    database: &TargetDatabase,
    source: &Path,
    temp: &Path,
) -> Result<FileImage> {
    if !log.is_leader() {
        return Err(not_leader_error());
    }
    let content = std::fs::read(source).map_err(|error| map_io_error(source, &error))?;
    let mut image = FileImage::create(temp, &content)?;
    let changes = ChangeSet::of_image(content).encode_to_vec().into();
    let number = log
        .append(database, changes, EntryKind::Replacement)
        .map_err(|error| map_append_error(&error))?;
    image.set_position(number).inspect_err(|_| log.fell_behind(number))?;
    Ok(image)
}

fn overwrite_database(conn: &mut SqliteConnection, source: &Path) -> Result<()> {
    let from = Connection::open_with_flags(source, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(map_copy_error)?;
    // A backup from before the limit was lowered still goes in.
    conn.db
        .query_row("PRAGMA max_page_count = 4294967294", [], |_| Ok(()))
        .map_err(map_copy_error)?;
    let backup = Backup::new(&from, &mut conn.db).map_err(map_copy_error)?;
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        match backup.step(-1).map_err(map_copy_error)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                return Err(Error::new(
                    Code::Unavailable,
                    "the database is locked by another program; nothing was changed",
                ));
            }
        }
    }
}

/// Refuses the tables of a newer program before anything is changed.
fn check_schema_version(system: &Path) -> Result<()> {
    let db = Connection::open_with_flags(system, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(map_copy_error)?;
    let newest: u32 = db
        .query_row("SELECT coalesce(max(version), 0) FROM schema_migrations", [], |row| row.get(0))
        .map_err(map_copy_error)?;
    if newest as usize > MIGRATIONS.len() {
        return Err(Error::new(
            Code::Conflict,
            "the backup was made by a newer version of the node: start that one to restore it; nothing was changed",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_fits_log;
    use debros_proto::Code;

    #[test]
    fn a_file_that_the_log_does_not_take_is_refused_before_anything_is_put_back() {
        assert!(check_fits_log(None).is_ok() && check_fits_log(Some(200 << 20)).is_ok());
        assert_eq!(check_fits_log(Some(256 << 20)).unwrap_err().code, Code::TooLarge);
    }
}
