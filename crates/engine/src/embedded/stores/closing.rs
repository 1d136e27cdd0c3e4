//! Closing databases: those that nobody uses when there are many, one for a restore, and all at the end.

use super::{Entry, Slot, Stores, lock};
use crate::embedded::leaving::Leaver;
use debros_proto::{Namespace, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Databases that are closed at once when descriptors are short.
const SOME: usize = 4;
/// How much of the time to close is kept for the system's database.
const FOR_THE_SYSTEM: Duration = Duration::from_secs(1);
/// How long all that end at once may take for it, when the engine closes.
const SOON: Duration = Duration::from_millis(500);

impl Stores {
    /// Closes a namespace's database, if it is open: whoever comes next opens it anew. Blocks.
    pub(in crate::embedded) fn close_one(&self, namespace: &Namespace) -> Result<()> {
        let slot = self.slot(namespace)?;
        let _opening = lock(&slot.opening);
        if slot.store.get().is_some_and(|store| !store.close()) {
            lock(&self.leaving.unchecked).insert(namespace.clone());
        }
        self.forget(namespace, &slot);
        Ok(())
    }

    /// Closes databases that nobody uses until no more are open than there should be.
    pub(super) fn close_idle(&self) {
        let most = self.shared.config.open_databases.max(1);
        self.leaving.close(self.idle_over(most));
    }

    /// Closes some databases that nobody uses, on this thread. False: there is none.
    pub(super) fn close_some(&self) -> bool {
        let open = lock(&self.open).len();
        let leavers = self.idle_over(open.saturating_sub(SOME));
        let are_any = !leavers.is_empty();
        drop(leavers);
        are_any
    }

    /// Takes databases that nobody uses out of the table, the longest unused first, until it holds no more than `most`.
    fn idle_over(&self, most: usize) -> Vec<Leaver> {
        let mut leavers = Vec::new();
        let mut open = lock(&self.open);
        while open.len() > most {
            let oldest = open.iter().filter(|(_, entry)| is_idle(&entry.slot)).min_by_key(|(_, entry)| entry.used);
            let Some(namespace) = oldest.map(|(namespace, _)| namespace.clone()) else { break };
            let store = open.remove(&namespace).and_then(|entry| entry.slot.store.get().cloned());
            // Under the lock, so that whoever opens it again finds it named.
            leavers.push(self.leaving.begin(namespace, store));
        }
        leavers
    }

    /// Finishes what was accepted and closes everything. Blocks, until `deadline` for statements and then for the disk. The
    /// marker of a clean stop is put when the system's database is in order; it names those that may not be.
    pub(in crate::embedded) fn close(&self, deadline: Instant) {
        if self.closed.swap(true, Relaxed) {
            return;
        }
        let for_namespaces = deadline.checked_sub(FOR_THE_SYSTEM).unwrap_or(deadline);
        // A backup sees that the engine is closed and gives up; a restore is finished at the next start.
        let _copying = lock(&self.copying);
        let entries: Vec<(Namespace, Entry)> = lock(&self.open).drain().collect();
        let mut busy = Vec::new();
        for (namespace, entry) in entries {
            // Whoever is opening it is waited for.
            let _opened = lock(&entry.slot.opening);
            if let Some(store) = entry.slot.store.get() {
                store.refuse();
                busy.push((namespace, Arc::clone(store)));
            }
        }
        // Most end at once: they are closed before anything is waited for that may take all the time there is.
        let soon = for_namespaces.min(Instant::now() + SOON);
        for last in [soon, for_namespaces] {
            busy.retain(|(namespace, store)| {
                let ends = store.ends_by(last);
                if ends && !store.close() {
                    lock(&self.leaving.unchecked).insert(namespace.clone());
                }
                !ends
            });
        }
        let mut left = self.leaving.wait_for_all(for_namespaces);
        busy.iter().for_each(|(_, store)| store.give_up());
        left.extend(busy.into_iter().map(|(namespace, _)| namespace));
        lock(&self.leaving.unchecked).extend(left.iter().cloned());
        self.system.refuse();
        if !self.system.ends_by(deadline) {
            self.system.give_up();
            return;
        }
        if self.system.close()
            && let Err(error) = self.folder.put_clean(&lock(&self.leaving.unchecked))
        {
            tracing::warn!(%error, "the marker of a clean stop could not be written; the next start checks the databases");
        }
        // A statement that still runs has its file open: the folder is free when the process ends.
        if left.is_empty() {
            self.folder.unlock();
        }
    }
}

/// Only the table of open databases holds it, and none of its threads is at work: a caller can go away while his statement
/// runs, and closing would wait for that.
fn is_idle(slot: &Arc<Slot>) -> bool {
    Arc::strong_count(slot) == 1
        && slot.store.get().is_some_and(|store| Arc::strong_count(store) == 1 && store.is_quiet())
}
