//! Closing databases: idle ones when there are many, one for a restore, and all at the end.

use super::{DatabaseManager, DatabaseSlot, OpenDatabase, lock};
use crate::embedded::closing_set::PendingClose;
use debros_proto::{Namespace, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Databases that are closed at once when descriptors are short.
const CLOSED_AT_ONCE: usize = 4;
/// How much of the time to close is kept for the system's database.
const SYSTEM_CLOSE_TIME: Duration = Duration::from_secs(1);
/// How long all that end at once may take for it, when the engine closes.
const COMMON_CLOSE_TIME: Duration = Duration::from_millis(500);

impl DatabaseManager {
    /// Closes a namespace's database, if it is open: the next caller opens it again. Blocks.
    pub(in crate::embedded) fn close_namespace(&self, namespace: &Namespace) -> Result<()> {
        let slot = self.acquire_slot(namespace)?;
        let _opening = lock(&slot.opening);
        if slot.database.get().is_some_and(|database| !database.close()) {
            lock(&self.closing.unchecked).insert(namespace.clone());
        }
        self.evict_slot(namespace, &slot);
        Ok(())
    }

    /// Closes idle databases until no more are open than there should be.
    pub(super) fn close_idle(&self) {
        let most = self.shared.config.open_databases.max(1);
        self.closing.close_all(self.take_idle_over(most));
    }

    /// Closes some idle databases, on this thread. False: there is none.
    pub(super) fn close_some_idle(&self) -> bool {
        let open = lock(&self.open_databases).len();
        let pending = self.take_idle_over(open.saturating_sub(CLOSED_AT_ONCE));
        let are_any = !pending.is_empty();
        drop(pending);
        are_any
    }

    /// Takes idle databases out of the table, the longest unused first, until it holds no more than
    /// `most`.
    fn take_idle_over(&self, most: usize) -> Vec<PendingClose> {
        let mut pending = Vec::new();
        let mut open = lock(&self.open_databases);
        while open.len() > most {
            let oldest = open
                .iter()
                .filter(|(_, entry)| is_slot_idle(&entry.slot))
                .min_by_key(|(_, entry)| entry.last_use);
            let Some(namespace) = oldest.map(|(namespace, _)| namespace.clone()) else { break };
            let database =
                open.remove(&namespace).and_then(|entry| entry.slot.database.get().cloned());
            // Under the lock, so that the next open finds it named.
            pending.push(self.closing.begin_close(namespace, database));
        }
        pending
    }

    /// Finishes what was accepted and closes everything. Blocks, until `deadline` for statements
    /// and then for the disk. The marker of a clean stop is put when the system's database is in
    /// order; it names those that may not be.
    pub(in crate::embedded) fn close_all(&self, deadline: Instant) {
        if self.closed.swap(true, Relaxed) {
            return;
        }
        let for_namespaces = deadline.checked_sub(SYSTEM_CLOSE_TIME).unwrap_or(deadline);
        // A backup sees that the engine is closed and gives up; a restore is finished at the next
        // start.
        let _copying = lock(&self.maintenance_lock);
        let entries: Vec<(Namespace, OpenDatabase)> = lock(&self.open_databases).drain().collect();
        let mut busy = Vec::new();
        for (namespace, entry) in entries {
            // An open that is under way is waited for.
            let _opened = lock(&entry.slot.opening);
            if let Some(database) = entry.slot.database.get() {
                database.refuse_new_work();
                busy.push((namespace, Arc::clone(database)));
            }
        }
        // Most end at once: they are closed before anything is waited for that may take all the
        // time there is.
        let soon = for_namespaces.min(Instant::now() + COMMON_CLOSE_TIME);
        for last in [soon, for_namespaces] {
            busy.retain(|(namespace, database)| {
                let ends = database.wait_until_finished(last);
                if ends && !database.close() {
                    lock(&self.closing.unchecked).insert(namespace.clone());
                }
                !ends
            });
        }
        let mut left = self.closing.wait_for_all(for_namespaces);
        busy.iter().for_each(|(_, database)| database.abandon());
        left.extend(busy.into_iter().map(|(namespace, _)| namespace));
        lock(&self.closing.unchecked).extend(left.iter().cloned());
        self.system.refuse_new_work();
        if !self.system.wait_until_finished(deadline) {
            self.system.abandon();
            return;
        }
        if self.system.close()
            && let Err(error) = self.folder.write_clean_marker(&lock(&self.closing.unchecked))
        {
            tracing::warn!(%error, "the marker of a clean stop could not be written; the next start checks the databases");
        }
        // A statement that still runs has its file open: the folder is free when the process ends.
        if left.is_empty() {
            self.folder.release_lock();
        }
    }
}

/// Only the table of open databases holds it, and none of its threads is at work: a caller can go
/// away while its statement runs, and closing would wait for that.
fn is_slot_idle(slot: &Arc<DatabaseSlot>) -> bool {
    Arc::strong_count(slot) == 1
        && slot
            .database
            .get()
            .is_some_and(|database| Arc::strong_count(database) == 1 && database.is_idle())
}
