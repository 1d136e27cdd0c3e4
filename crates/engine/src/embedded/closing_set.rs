//! Closing idle databases, beside the callers that open others: closing waits for the disk.

use super::database_handle::DatabaseHandle;
use debros_proto::{Namespace, lock};
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Databases that may be under way; adding one more waits until there are fewer.
const MAX_PENDING: usize = 8;
/// How long it waits for that at most.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The databases that are being closed.
#[derive(Debug, Default)]
pub(super) struct ClosingSet {
    names: Mutex<BTreeSet<Namespace>>,
    closed: Condvar,
    /// Databases that may have been left in disorder and were not looked at since.
    pub(super) unchecked: Mutex<BTreeSet<Namespace>>,
}

/// A database that is closed when this is dropped.
pub(super) struct PendingClose {
    closing: Arc<ClosingSet>,
    namespace: Namespace,
    database: Option<Arc<DatabaseHandle>>,
}

impl ClosingSet {
    /// Says that a database is being closed, until what is returned is dropped.
    pub(super) fn begin_close(
        self: &Arc<Self>,
        namespace: Namespace,
        database: Option<Arc<DatabaseHandle>>,
    ) -> PendingClose {
        lock(&self.names).insert(namespace.clone());
        PendingClose { closing: Arc::clone(self), namespace, database }
    }

    /// Closes databases, on a thread of its own. When many are under way this waits a moment, so
    /// that they do not become more and more.
    pub(super) fn close_all(&self, pending: Vec<PendingClose>) {
        if pending.is_empty() {
            return;
        }
        // Without a thread they are closed here, as what is not run is dropped.
        let _ =
            std::thread::Builder::new().name("db-closer".to_owned()).spawn(move || drop(pending));
        drop(self.wait_while(Instant::now() + MAX_WAIT, |names| names.len() > MAX_PENDING));
    }

    fn wait_while(
        &self,
        deadline: Instant,
        goes_on: impl Fn(&BTreeSet<Namespace>) -> bool,
    ) -> MutexGuard<'_, BTreeSet<Namespace>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited =
            self.closed.wait_timeout_while(lock(&self.names), left, |names| goes_on(names));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Those that are being closed now.
    pub(super) fn names(&self) -> BTreeSet<Namespace> {
        lock(&self.names).clone()
    }

    /// Waits until a database is closed. One that is closed removes its log by name: no new file
    /// may have been made of that name before.
    pub(super) fn wait_until_closed(&self, namespace: &Namespace) {
        let mut names = lock(&self.names);
        while names.contains(namespace) {
            names = self.closed.wait(names).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all are closed, at the latest until `deadline`. Those that are not.
    pub(super) fn wait_for_all(&self, deadline: Instant) -> BTreeSet<Namespace> {
        self.wait_while(deadline, |names| !names.is_empty()).clone()
    }
}

impl Drop for PendingClose {
    fn drop(&mut self) {
        if self.database.take().is_some_and(|database| !database.close()) {
            lock(&self.closing.unchecked).insert(self.namespace.clone());
        }
        lock(&self.closing.names).remove(&self.namespace);
        self.closing.closed.notify_all();
    }
}
