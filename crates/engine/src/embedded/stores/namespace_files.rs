//! The files of namespaces' databases: opened, made, taken away.

use super::{Stores, check, lock};
use crate::embedded::failure;
use crate::embedded::folder::{self, unless_missing, write_synced};
use crate::embedded::guard;
use crate::embedded::size::Full;
use crate::embedded::store::{Failure, Store};
use crate::embedded::tenant;
use debros_proto::{Error, Namespace, Result, now_ms};
use std::path::Path;

/// KiB of a namespace's database in the writer's memory: many are open.
const NAMESPACE_CACHE: u32 = 2048;

impl Stores {
    pub(super) fn open_file(&self, namespace: &Namespace, is_limited: bool) -> Result<Store> {
        let path = self.folder.namespace(namespace);
        self.leaving.wait(namespace);
        self.check_not_lost(namespace)?;
        let is_new = !path.exists();
        self.make_file(namespace, &path, is_limited)?;
        let must_check = lock(&self.leaving.unchecked).contains(namespace);
        let open = || {
            Store::open(&path, NAMESPACE_CACHE, &self.shared, |conn| {
                if must_check {
                    check(conn)?;
                }
                tenant::settle(conn, namespace, &self.shared.rewriter)?;
                // Nobody looks after a closed database, so what expired meanwhile goes now.
                guard::sweep(conn, now_ms()).map(|_| ()).map_err(Failure::Told)
            })
        };
        let store = match open() {
            Err(Failure::Old) => tenant::convert(&path, namespace, &self.folder.tmp())
                .and_then(|()| open().map_err(|failure| failure.of_namespace(&path)))?,
            opened => opened.map_err(|failure| failure.of_namespace(&path))?,
        };
        match self.record.add(namespace) {
            // It was there and not recorded: it can be read, and what is in it be deleted, on a full disk too.
            Err(error) if !is_new => {
                tracing::warn!(%namespace, %error, "that the database is there can not be recorded");
            }
            recorded => recorded.map_err(|error| Failure::Io(error).of_namespace(&path))?,
        }
        lock(&self.leaving.unchecked).remove(namespace);
        Ok(store)
    }

    /// Makes a namespace's file when there is none. It is written whole, which takes two waits for the disk; SQLite would
    /// take many more. Where it `is_limited`, it has to fit beside the others.
    fn make_file(&self, namespace: &Namespace, path: &Path, is_limited: bool) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let bytes = match self.new_file.get() {
            Some(bytes) => bytes,
            None => {
                let made = tenant::new_file(&self.folder.tmp()).map_err(|failure| failure.of_namespace(path))?;
                self.new_file.get_or_init(|| made)
            }
        };
        // The file that is put there is not empty, so SQLite would take the log of one that was there before for its own.
        for ending in ["db-wal", "db-shm"] {
            unless_missing(std::fs::remove_file(path.with_extension(ending)))
                .map_err(|error| Failure::Io(error).of_namespace(path))?;
        }
        let (sizes, size) = (&self.shared.sizes, bytes.len() as u64);
        if is_limited {
            sizes.add(namespace, size).map_err(|full| match full {
                Full::Node { total, max } => failure::node_full("a new namespace's database", total, max),
                Full::Quota(quota) => failure::quota_exceeded(quota),
            })?;
        } else {
            sizes.set(Some(namespace), size);
        }
        write_synced(path, bytes).map_err(|error| {
            sizes.set(Some(namespace), 0);
            Failure::Io(error).of_namespace(path)
        })
    }

    /// Deletes a namespace's database, open or damaged as it may be, so that the namespace has none. What it had accepted
    /// is finished first. Whoever comes meanwhile waits, or is told to try again, and then makes a new one. Blocks.
    pub(in crate::embedded) fn remove(&self, namespace: &Namespace) -> Result<()> {
        self.take_away(namespace, |path| std::fs::remove_file(path))
    }

    /// As [`remove`](Stores::remove), but for the operator the files stay, in `folder`, which is there.
    pub(in crate::embedded) fn set_aside(&self, namespace: &Namespace, folder: &Path) -> Result<()> {
        self.take_away(namespace, |path| std::fs::rename(path, folder.join(path.file_name().unwrap_or_default())))
    }

    fn take_away(&self, namespace: &Namespace, take: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
        let slot = self.slot(namespace)?;
        // Nobody opens the file while it goes: a write to a file without a name would be acknowledged and lost.
        let _opening = lock(&slot.opening);
        self.leaving.wait(namespace);
        if let Some(store) = slot.store.get() {
            store.close();
        }
        let path = self.folder.namespace(namespace);
        // What a restore put aside goes too.
        for ending in folder::ENDINGS {
            unless_missing(take(&path.with_extension(ending))).map_err(|error| {
                tracing::error!(path = %path.display(), %error, "the namespace's database can not be removed");
                Error::internal("the database can not be removed; the node's log has more")
            })?;
        }
        self.record.strike_out(namespace).map_err(|error| {
            tracing::error!(path = %path.display(), %error, "that the database was removed can not be recorded");
            Error::internal("the removal of the database can not be recorded; the node's log has more")
        })?;
        lock(&self.lost).remove(namespace);
        lock(&self.leaving.unchecked).remove(namespace);
        self.shared.sizes.set(Some(namespace), 0);
        self.forget(namespace, &slot);
        Ok(())
    }

    /// Forgets that a namespace's database is to be checked, and puts its damaged file aside.
    pub(in crate::embedded) fn put_aside(&self, namespace: &Namespace) -> std::io::Result<()> {
        let path = self.folder.namespace(namespace);
        for suffix in ["", "-wal", "-shm"] {
            let file = path.with_extension(format!("db{suffix}"));
            unless_missing(std::fs::rename(&file, path.with_extension(format!("damaged{suffix}"))))?;
        }
        self.record.strike_out(namespace)?;
        lock(&self.lost).remove(namespace);
        lock(&self.leaving.unchecked).remove(namespace);
        self.shared.sizes.set(Some(namespace), 0);
        Ok(())
    }
}
