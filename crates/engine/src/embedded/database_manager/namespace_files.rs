//! The files of namespaces' databases: opened, made, taken away.

use super::{DatabaseManager, check_after_unclean_stop, lock};
use crate::embedded::authorizer::StatementRights;
use crate::embedded::data_folder::{ignore_missing, write_synced};
use crate::embedded::database_handle::DatabaseHandle;
use crate::embedded::error_mapping;
use crate::embedded::file_names;
use crate::embedded::idempotency;
use crate::embedded::open_failure::OpenFailure;
use crate::embedded::replication::{ChangeSet, read_position};
use crate::embedded::tenant;
use crate::embedded::writer::map_append_error;
use crate::{EntryKind, TargetDatabase};
use debros_proto::{Code, Error, Namespace, Result, now_ms};
use prost::Message as _;
use std::path::Path;

/// KiB of a namespace's database in the writer's memory: many are open.
const NAMESPACE_CACHE: u32 = 2048;

impl DatabaseManager {
    pub(super) fn open_file(
        &self,
        namespace: &Namespace,
        is_limited: bool,
    ) -> Result<DatabaseHandle> {
        let path = self.folder.namespace_path(namespace);
        self.closing.wait_until_closed(namespace);
        self.check_not_lost(namespace)?;
        let is_new = !path.exists();
        self.make_file(namespace, &path, is_limited)?;
        let must_check = lock(&self.closing.unchecked).contains(namespace);
        let opened = DatabaseHandle::open(&path, NAMESPACE_CACHE, &self.shared, |conn| {
            if must_check {
                check_after_unclean_stop(conn)?;
            }
            tenant::init_namespace(conn, namespace, &self.shared.rewriter)?;
            // In a cluster the leader's sweep removes it for all.
            if self.shared.log.is_some() {
                return Ok(());
            }
            // Nothing sweeps a closed database, so what expired meanwhile goes now.
            idempotency::sweep_expired(conn, now_ms()).map(|_| ()).map_err(OpenFailure::Reported)
        });
        let database = opened.map_err(|failure| failure.into_caller_error(&path))?;
        match self.file_record.add_namespace(namespace) {
            // It was there and not recorded: it can be read, and what is in it be deleted, on a
            // full disk too.
            Err(error) if !is_new => {
                tracing::warn!(%namespace, %error, "that the database is there cannot be recorded");
            }
            recorded => {
                recorded.map_err(|error| OpenFailure::Io(error).into_caller_error(&path))?
            }
        }
        lock(&self.closing.unchecked).remove(namespace);
        Ok(database)
    }

    /// Makes a namespace's file when there is none. It is written whole, which takes two waits for
    /// the disk; SQLite would take many more. Where it `is_limited`, it has to fit beside the
    /// others.
    fn make_file(&self, namespace: &Namespace, path: &Path, is_limited: bool) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let bytes = match self.new_file.get() {
            Some(bytes) => bytes,
            None => {
                let made = tenant::new_file_content(&self.folder.temp_path())
                    .map_err(|failure| failure.into_caller_error(path))?;
                self.new_file.get_or_init(|| made)
            }
        };
        // The file that is put there is not empty, so SQLite would take the log of one that was
        // there before for its own.
        for ending in ["db-wal", "db-shm"] {
            ignore_missing(std::fs::remove_file(path.with_extension(ending)))
                .map_err(|error| OpenFailure::Io(error).into_caller_error(path))?;
        }
        let (sizes, size) = (&self.shared.sizes, bytes.len() as u64);
        if is_limited {
            sizes.grow_file(Some(namespace), size, false).map_err(|full| {
                error_mapping::space_exhausted_error("a new namespace's database", full)
            })?;
        } else {
            sizes.set_file_size(Some(namespace), size);
        }
        write_synced(path, bytes).map_err(|error| {
            sizes.set_file_size(Some(namespace), 0);
            OpenFailure::Io(error).into_caller_error(path)
        })
    }

    /// Deletes a namespace's database, open or damaged as it may be, so that the namespace has
    /// none; in a cluster the log says so to all nodes first. What it had accepted is finished
    /// before. A caller that comes meanwhile waits, or has to try again, and then makes a new one.
    /// Blocks.
    pub(in crate::embedded) fn remove_database(&self, namespace: &Namespace) -> Result<()> {
        self.log_and_remove(namespace, |path| std::fs::remove_file(path))
    }

    /// As [`remove_database`](DatabaseManager::remove_database), but for the operator the files
    /// stay, in `folder`, which is there.
    pub(in crate::embedded) fn quarantine(
        &self,
        namespace: &Namespace,
        folder: &Path,
    ) -> Result<()> {
        self.log_and_remove(namespace, |path| {
            std::fs::rename(path, folder.join(path.file_name().unwrap_or_default()))
        })
    }

    /// The entry of the cluster's log that removed a namespace's database last; 0: none that counts.
    pub(in crate::embedded) fn removed_at(&self, namespace: &Namespace) -> Result<u64> {
        self.folder.removed_at(namespace).map_err(|error| self.marker_error(namespace, &error))
    }

    /// Removes a namespace's database because this entry of the cluster's log does, unless the
    /// database is a later one.
    pub(in crate::embedded) fn remove_replayed(
        &self,
        namespace: &Namespace,
        entry: u64,
    ) -> Result<()> {
        if self.folder.namespace_path(namespace).exists() && self.held_entry(namespace)? > entry {
            return Ok(());
        }
        self.record_and_remove(namespace, entry)?;
        // Had this node begun the deletion, it is done now.
        ignore_missing(self.folder.end_deletion(namespace))
            .map_err(|error| self.marker_error(namespace, &error))?;
        self.namespace_locks.forget_unfinished(namespace);
        Ok(())
    }

    /// The last entry of the cluster's log that a namespace's file holds; 0 too when that cannot be
    /// read, because the file is damaged: what is wanted of it comes back through the log.
    fn held_entry(&self, namespace: &Namespace) -> Result<u64> {
        let held = self.open_for_restore(namespace).and_then(|database| {
            let held = database.read_on_this_thread(|conn| {
                conn.authorizer.set_rights(StatementRights::Internal);
                read_position(&conn.db)
            })?;
            held.map_err(error_mapping::map_sqlite_error)
        });
        match held {
            Err(error) if error.code == Code::Corrupt => Ok(0),
            held => held,
        }
    }

    /// Removes a namespace's database when this entry of the cluster's log, which does so, is
    /// known.
    pub(in crate::embedded) fn record_and_remove(
        &self,
        namespace: &Namespace,
        entry: u64,
    ) -> Result<()> {
        let record = || self.record_removal(namespace, entry);
        self.close_and_remove(namespace, record, |path| std::fs::remove_file(path))
    }

    fn record_removal(&self, namespace: &Namespace, entry: u64) -> Result<()> {
        self.folder
            .record_removal(namespace, entry)
            .map_err(|error| self.marker_error(namespace, &error))
    }

    fn marker_error(&self, namespace: &Namespace, error: &std::io::Error) -> Error {
        tracing::error!(%namespace, %error, "what removed a namespace's database cannot be read or noted");
        Error::internal("the removal of the database cannot be recorded; the node's log has more")
    }

    fn log_and_remove(
        &self,
        namespace: &Namespace,
        take: impl Fn(&Path) -> std::io::Result<()>,
    ) -> Result<()> {
        let Some(log) = &self.shared.log else {
            return self.close_and_remove(namespace, || Ok(()), take);
        };
        let mut appended = None;
        let append = || {
            let database = TargetDatabase::Namespace(namespace.clone());
            let number = log
                .append(
                    &database,
                    ChangeSet::removal().encode_to_vec().into(),
                    EntryKind::Replacement,
                )
                .map_err(|error| map_append_error(&error))?;
            appended = Some(number);
            self.record_removal(namespace, number)
        };
        let removed = self.close_and_remove(namespace, append, take);
        match (appended, &removed) {
            (Some(number), Ok(())) => log.committed(number),
            (Some(number), Err(_)) => log.fell_behind(number),
            (None, _) => {}
        }
        removed
    }

    /// Closes a namespace's database, does what has to be done `before` its files go, and has each
    /// of them taken away.
    fn close_and_remove(
        &self,
        namespace: &Namespace,
        before: impl FnOnce() -> Result<()>,
        take: impl Fn(&Path) -> std::io::Result<()>,
    ) -> Result<()> {
        let slot = self.acquire_slot(namespace)?;
        // No call opens the file while it goes: a write to a file without a name would be
        // acknowledged and lost.
        let _opening = lock(&slot.opening);
        self.closing.wait_until_closed(namespace);
        // A call that was let in before the namespace was shut may still write until here. The log
        // must have that before the removal, or the other nodes would keep it.
        if slot.database.get().is_some_and(|database| !database.close()) {
            lock(&self.closing.unchecked).insert(namespace.clone());
        }
        let removed = before().and_then(|()| self.remove_files(namespace, take));
        self.evict_slot(namespace, &slot);
        removed
    }

    fn remove_files(
        &self,
        namespace: &Namespace,
        take: impl Fn(&Path) -> std::io::Result<()>,
    ) -> Result<()> {
        let path = self.folder.namespace_path(namespace);
        // What a restore put aside goes too.
        for ending in file_names::ENDINGS {
            ignore_missing(take(&path.with_extension(ending))).map_err(|error| {
                tracing::error!(path = %path.display(), %error, "the namespace's database cannot be removed");
                Error::internal("the database cannot be removed; the node's log has more")
            })?;
        }
        self.file_record.remove_namespace(namespace).map_err(|error| {
            tracing::error!(path = %path.display(), %error, "that the database was removed cannot be recorded");
            Error::internal("the removal of the database cannot be recorded; the node's log has more")
        })?;
        lock(&self.lost).remove(namespace);
        lock(&self.closing.unchecked).remove(namespace);
        self.shared.sizes.set_file_size(Some(namespace), 0);
        Ok(())
    }

    /// Forgets that a namespace's database is to be checked, and puts its damaged file aside.
    pub(in crate::embedded) fn put_damaged_aside(
        &self,
        namespace: &Namespace,
    ) -> std::io::Result<()> {
        let path = self.folder.namespace_path(namespace);
        for suffix in ["", "-wal", "-shm"] {
            let file = path.with_extension(format!("db{suffix}"));
            ignore_missing(std::fs::rename(
                &file,
                path.with_extension(format!("damaged{suffix}")),
            ))?;
        }
        self.file_record.remove_namespace(namespace)?;
        lock(&self.lost).remove(namespace);
        lock(&self.closing.unchecked).remove(namespace);
        self.shared.sizes.set_file_size(Some(namespace), 0);
        Ok(())
    }
}
