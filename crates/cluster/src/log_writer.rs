//! The cluster's log as the engine knows it: the threads that write files hand their changes to the
//! task that appends, and wait.

use crate::append_task::{AppendRequest, AppendTask};
use crate::leader_link::CommittedEntries;
use crate::log_part;
use crate::progress::Progress;
use bytes::Bytes;
use debros_engine::{AppendError, EntryKind, MAX_CHANGES, ReplicatedLog, TargetDatabase};
use debros_proto::lock;
use debros_rqlite::RqliteLog;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Batches that a follower may be behind before it has to read the log.
const FOLLOWED_BATCHES: usize = 256;

/// The log as the engine knows it.
pub(crate) struct LogWriter {
    progress: Arc<Progress>,
    requests: mpsc::UnboundedSender<AppendRequest>,
    /// The entries that the parts of large transactions are, until they are committed.
    parts: Mutex<HashMap<u64, Vec<u64>>>,
    committed: broadcast::Sender<CommittedEntries>,
    /// Until the task that appends is started.
    waiting: Mutex<Option<mpsc::UnboundedReceiver<AppendRequest>>>,
}

impl LogWriter {
    pub(crate) fn new(progress: Arc<Progress>) -> Self {
        let (requests, waiting) = mpsc::unbounded_channel();
        Self {
            progress,
            requests,
            parts: Mutex::default(),
            committed: broadcast::Sender::new(FOLLOWED_BATCHES),
            waiting: Mutex::new(Some(waiting)),
        }
    }

    /// What is appended from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<CommittedEntries> {
        self.committed.subscribe()
    }

    /// Starts the task that appends. Once.
    pub(crate) fn start(self: &Arc<Self>, log: RqliteLog) -> Option<tokio::task::JoinHandle<()>> {
        let waiting = lock(&self.waiting).take()?;
        let task = AppendTask::new(log, Arc::clone(&self.progress), self.committed.clone());
        Some(tokio::spawn(task.run(waiting)))
    }
}

impl ReplicatedLog for LogWriter {
    fn is_leader(&self) -> bool {
        self.progress.is_leader()
    }

    fn append(
        &self,
        database: &TargetDatabase,
        changes: Bytes,
        kind: EntryKind,
    ) -> Result<u64, AppendError> {
        if changes.len() > MAX_CHANGES {
            return Err(AppendError::TooLarge { bytes: changes.len(), max: MAX_CHANGES });
        }
        let (reply, outcome) = oneshot::channel();
        let parts = log_part::encode(database, &changes, kind).into();
        let (database, entries) = (database.clone(), Vec::new());
        let request = AppendRequest { database, kind, parts, entries, reply };
        if self.requests.send(request).is_err() {
            return Err(AppendError::NotLeader);
        }
        // The task answers each request; it goes away only with the program.
        let entries = outcome.blocking_recv().unwrap_or(Err(AppendError::Unknown))?;
        let last = entries.last().copied().ok_or(AppendError::Unknown)?;
        if entries.len() > 1 {
            lock(&self.parts).insert(last, entries);
        }
        Ok(last)
    }

    fn committed(&self, number: u64) {
        let entries = lock(&self.parts).remove(&number).unwrap_or_else(|| vec![number]);
        self.progress.note_applied(&entries);
    }

    fn fell_behind(&self, number: u64) {
        lock(&self.parts).remove(&number);
        tracing::error!(
            entry = number,
            "this node leads no more: its files lack what is in the log"
        );
        self.progress.step_down();
    }
}
