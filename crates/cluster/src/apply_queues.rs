//! Puts transactions into the files: those of one database in the order of the log, those of
//! different ones side by side, so that what one namespace has changed keeps no other waiting.

use crate::log_part::WholeTransaction;
use crate::progress::Progress;
use debros_engine::embedded::EmbeddedEngine;
use debros_engine::{LogEntry, TargetDatabase};
use debros_proto::{Error, Result, lock};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Bytes that are queued before no more is taken.
const MAX_QUEUED: usize = 64 << 20;
/// What a queued transaction takes besides its changes.
const TRANSACTION_BYTES: usize = 512;
/// Bytes that are put into a file at once.
const APPLY_BYTES: usize = 4 << 20;
/// Files that are written at the same time.
const MAX_AT_ONCE: usize = 64;
/// The pause after the first failure of a database, and the longest one.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// The transactions that are not in the files yet. Used by one task at a time.
pub(crate) struct ApplyQueues {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    engine: Arc<EmbeddedEngine>,
    progress: Arc<Progress>,
    /// One is there as long as it has anything, and so long one task works it off.
    queues: Mutex<HashMap<TargetDatabase, DatabaseQueue>>,
    at_once: Semaphore,
    /// Bytes in all queues; told too when an attempt fails.
    queued: watch::Sender<usize>,
}

/// What one database is to be given.
#[derive(Default)]
struct DatabaseQueue {
    waiting: VecDeque<WholeTransaction>,
    /// Why the last attempt failed, and how many have failed in a row.
    failure: Option<(Error, u32)>,
}

impl ApplyQueues {
    pub(crate) fn new(engine: Arc<EmbeddedEngine>, progress: Arc<Progress>) -> Self {
        let shared = Shared {
            engine,
            progress,
            queues: Mutex::default(),
            at_once: Semaphore::new(MAX_AT_ONCE),
            queued: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared), tasks: JoinSet::new() }
    }

    /// Adds a transaction, the next one of its database.
    pub(crate) fn push(&mut self, transaction: WholeTransaction) {
        // Those that have ended.
        while self.tasks.try_join_next().is_some() {}
        let database = transaction.entry.database.clone();
        self.shared.queued.send_modify(|queued| *queued += size_of(&transaction));
        let is_new = {
            let mut queues = lock(&self.shared.queues);
            let is_new = !queues.contains_key(&database);
            queues.entry(database.clone()).or_default().waiting.push_back(transaction);
            is_new
        };
        if is_new {
            self.tasks.spawn(Arc::clone(&self.shared).work_off(database));
        }
    }

    /// Why a database cannot be given what it has to have, and how often that was tried in a row, if
    /// that is so: of the one that was tried most. It is tried again and again.
    pub(crate) fn failure(&self) -> Option<(Error, u32)> {
        let queues = lock(&self.shared.queues);
        let failures = queues.values().filter_map(|queue| queue.failure.as_ref());
        failures.max_by_key(|(_, attempts)| *attempts).cloned()
    }

    /// Whether all is in the files.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.shared.queues).is_empty()
    }

    /// Waits until more may be added.
    ///
    /// # Errors
    /// As [`failure`](Self::failure), when there is no room as long as that is so.
    pub(crate) async fn wait_for_room(&self) -> Result<()> {
        self.wait_until(|queued| queued < MAX_QUEUED).await
    }

    /// Waits until all is in the files.
    ///
    /// # Errors
    /// As [`failure`](Self::failure).
    pub(crate) async fn wait_empty(&self) -> Result<()> {
        self.wait_until(|_| self.is_empty()).await
    }

    async fn wait_until(&self, is_reached: impl Fn(usize) -> bool) -> Result<()> {
        let mut queued = self.shared.queued.subscribe();
        loop {
            let bytes = *queued.borrow_and_update();
            if is_reached(bytes) {
                return Ok(());
            }
            if let Some((error, _)) = self.failure() {
                return Err(error);
            }
            // The sender lives as long as this.
            let _ = queued.changed().await;
        }
    }
}

impl Shared {
    /// Applies what a database's queue has, until it is empty.
    async fn work_off(self: Arc<Self>, database: TargetDatabase) {
        let mut pause = PAUSES[0];
        while let Some((entries, numbers)) = self.next(&database) {
            let applied = {
                // It is never closed.
                let _turn = self.at_once.acquire().await;
                self.engine.apply(entries).await
            };
            match applied {
                Ok(()) => {
                    self.finish(&database, &numbers);
                    pause = PAUSES[0];
                }
                Err(error) => {
                    self.note_failure(&database, error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES[1]);
                }
            }
        }
    }

    /// The transactions that come next, and the entries that their parts are. They stay in the queue
    /// until they are applied. `None`: there is none, and the queue is gone.
    fn next(&self, database: &TargetDatabase) -> Option<(Vec<LogEntry>, Vec<Vec<u64>>)> {
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(database)?;
        if queue.waiting.is_empty() {
            queues.remove(database);
            drop(queues);
            self.queued.send_modify(|_| {});
            return None;
        }
        let mut bytes = 0;
        let some = queue.waiting.iter().take_while(|transaction| {
            let is_first = bytes == 0;
            bytes += size_of(transaction);
            is_first || bytes <= APPLY_BYTES
        });
        Some(some.map(|some| (some.entry.clone(), some.entries.clone())).unzip())
    }

    /// The first transactions of a queue are in the file.
    fn finish(&self, database: &TargetDatabase, numbers: &[Vec<u64>]) {
        let mut bytes = 0;
        if let Some(queue) = lock(&self.queues).get_mut(database) {
            queue.failure = None;
            bytes = queue.waiting.drain(..numbers.len()).map(|done| size_of(&done)).sum();
        }
        self.progress.note_applied(&numbers.concat());
        self.queued.send_modify(|queued| *queued -= bytes);
    }

    fn note_failure(&self, database: &TargetDatabase, error: Error) {
        if let Some(queue) = lock(&self.queues).get_mut(database) {
            let attempts = queue.failure.as_ref().map_or(0, |(_, attempts)| *attempts);
            queue.failure = Some((error, attempts.saturating_add(1)));
        }
        self.queued.send_modify(|_| {});
    }
}

fn size_of(transaction: &WholeTransaction) -> usize {
    transaction.entry.changes.len() + TRANSACTION_BYTES
}

#[cfg(test)]
mod tests {
    use super::ApplyQueues;
    use crate::log_part::WholeTransaction;
    use crate::pending_entries::EntryEffect;
    use crate::progress::Progress;
    use bytes::Bytes;
    use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
    use debros_engine::{
        AppendError, CallOptions, CallerKey, Engine as _, EntryKind, LogEntry, ReplicatedLog,
        TargetDatabase,
    };
    use debros_proto::rpc::{Consistency, Statement};
    use debros_proto::{Code, Namespace};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    #[derive(Default)]
    struct MemoryLog(Mutex<Vec<LogEntry>>);

    impl ReplicatedLog for MemoryLog {
        fn is_leader(&self) -> bool {
            true
        }

        fn append(
            &self,
            database: &TargetDatabase,
            changes: Bytes,
            _: EntryKind,
        ) -> Result<u64, AppendError> {
            let mut entries = self.0.lock().unwrap();
            let number = entries.len() as u64 + 1;
            entries.push(LogEntry { number, database: database.clone(), changes });
            Ok(number)
        }

        fn committed(&self, _: u64) {}

        fn fell_behind(&self, number: u64) {
            panic!("entry {number} could not be committed");
        }
    }

    fn database(name: &str) -> TargetDatabase {
        TargetDatabase::Namespace(Namespace::new(name).unwrap())
    }

    async fn run(engine: &EmbeddedEngine, database: &TargetDatabase, sql: &str) -> usize {
        let options = CallOptions {
            consistency: Consistency::None,
            deadline: Instant::now() + Duration::from_secs(60),
            idempotency_key: None,
            caller: CallerKey::default(),
            read_only: false,
        };
        let done = engine.query(database, Statement::from(sql), options).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}")).value.rows.len()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_that_cannot_be_written_keeps_no_other_from_its_entries() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, log: Arc<MemoryLog>| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            EmbeddedEngine::open_replicated(EmbeddedConfig::new(path), log).unwrap()
        };
        let log = Arc::<MemoryLog>::default();
        let leader = open("leader", Arc::clone(&log));
        let (bad, good) = (database("bad"), database("good"));
        for database in [&bad, &good] {
            run(&leader, database, "CREATE TABLE t(a)").await;
            run(&leader, database, "INSERT INTO t VALUES (1)").await;
            run(&leader, database, "INSERT INTO t VALUES (2)").await;
        }
        let entries = log.0.lock().unwrap().clone();
        let of = |database: &TargetDatabase| -> Vec<LogEntry> {
            entries.iter().filter(|entry| entry.database == *database).cloned().collect()
        };

        let follower = Arc::new(open("follower", Arc::default()));
        let last = entries.last().unwrap().number;
        let progress = Arc::new(Progress::new(0));
        let mut queues = ApplyQueues::new(Arc::clone(&follower), Arc::clone(&progress));
        let push = |queues: &mut ApplyQueues, entry: LogEntry| {
            progress.note_taken(entry.number, EntryEffect::Changes(&entry.database));
            let entries = vec![entry.number];
            queues.push(WholeTransaction { entry, entries });
        };
        // Its table is missing.
        of(&bad)[1..].iter().cloned().for_each(|entry| push(&mut queues, entry));
        let failed = queues.wait_empty().await.unwrap_err();
        assert_eq!(failed.code, Code::Internal);
        of(&good).into_iter().for_each(|entry| push(&mut queues, entry));
        progress.wait_applied(Some(&good), last).await;
        assert_eq!(run(&follower, &good, "SELECT a FROM t").await, 2);
        assert!(!progress.is_applied(Some(&bad), last) && progress.applied() < of(&bad)[1].number);
        // An attempt that fails leaves everything where it was, in order.
        assert_eq!(queues.failure().map(|(error, _)| error), Some(failed));
        run(&follower, &bad, "CREATE TABLE t(a)").await;
        progress.wait_applied(None, last).await;
        assert_eq!(queues.failure(), None);
        assert_eq!(run(&follower, &bad, "SELECT a FROM t").await, 2);
    }
}
