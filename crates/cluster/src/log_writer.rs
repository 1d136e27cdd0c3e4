//! Puts what the leader's transactions have changed into the log.
//!
//! The threads that write files hand their changes to one task. What comes while a request is under
//! way goes in the next one, so that an idle cluster answers fast and a busy one sends few requests.

use crate::leader_link::CommittedEntries;
use crate::log_part::{self, MAX_CHANGES};
use crate::progress::Progress;
use bytes::Bytes;
use debros_engine::{AppendError, ReplicatedLog, TargetDatabase};
use debros_proto::lock;
use debros_rqlite::{AppendError as RqliteError, Entry, NewEntry, RqliteLog};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Bytes of one request, less the last transaction's.
const BATCH_BYTES: usize = 4 << 20;
/// How long the log is asked before the outcome is called unknown. An election takes a second or
/// two.
const APPEND_TIME: Duration = Duration::from_secs(4);
/// Batches that a follower may be behind before it has to read the log.
const FOLLOWED_BATCHES: usize = 256;

/// The log as the engine knows it.
pub(crate) struct LogWriter {
    progress: Arc<Progress>,
    requests: mpsc::UnboundedSender<AppendRequest>,
    /// The parts of entries that have several, until they are committed.
    parts: Mutex<HashMap<u64, u64>>,
    committed: broadcast::Sender<CommittedEntries>,
    /// Until the task that appends is started.
    waiting: Mutex<Option<mpsc::UnboundedReceiver<AppendRequest>>>,
}

struct AppendRequest {
    bodies: Vec<Bytes>,
    reply: oneshot::Sender<Result<RangeInclusive<u64>, AppendError>>,
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
        let task = AppendTask {
            log,
            progress: Arc::clone(&self.progress),
            committed: self.committed.clone(),
        };
        Some(tokio::spawn(task.run(waiting)))
    }
}

impl ReplicatedLog for LogWriter {
    fn is_leader(&self) -> bool {
        self.progress.is_leader()
    }

    fn append(&self, database: &TargetDatabase, changes: Bytes) -> Result<u64, AppendError> {
        if changes.len() > MAX_CHANGES {
            return Err(AppendError::TooLarge { bytes: changes.len(), max: MAX_CHANGES });
        }
        let (reply, outcome) = oneshot::channel();
        let bodies = log_part::encode(database, &changes);
        if self.requests.send(AppendRequest { bodies, reply }).is_err() {
            return Err(AppendError::NotLeader);
        }
        // The task answers each request; it goes away only with the program.
        let numbers = outcome.blocking_recv().unwrap_or(Err(AppendError::Unknown))?;
        if numbers.start() != numbers.end() {
            lock(&self.parts).insert(*numbers.end(), *numbers.start());
        }
        Ok(*numbers.end())
    }

    fn committed(&self, number: u64) {
        let first = lock(&self.parts).remove(&number).unwrap_or(number);
        self.progress.note_committed(first..=number);
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

struct AppendTask {
    log: RqliteLog,
    progress: Arc<Progress>,
    committed: broadcast::Sender<CommittedEntries>,
}

impl AppendTask {
    async fn run(self, mut waiting: mpsc::UnboundedReceiver<AppendRequest>) {
        while let Some(first) = waiting.recv().await {
            let mut bytes = size_of(&first);
            let mut batch = vec![first];
            while bytes < BATCH_BYTES
                && let Ok(next) = waiting.try_recv()
            {
                bytes += size_of(&next);
                batch.push(next);
            }
            // What is large goes in pieces that the log takes at once.
            while !batch.is_empty() {
                let rest = split_off_rest(&mut batch);
                self.append_batch(batch).await;
                batch = rest;
            }
        }
    }

    async fn append_batch(&self, batch: Vec<AppendRequest>) {
        let asked = Instant::now();
        if !self.progress.is_leader() {
            return answer_all(batch, &AppendError::NotLeader);
        }
        let (term, head) = (self.progress.term(), self.progress.head());
        let bodies = batch.iter().flat_map(|request| request.bodies.iter().cloned());
        let entries: Vec<NewEntry> =
            (head + 1..).zip(bodies).map(|(entry, body)| NewEntry { entry, body }).collect();
        // The parts of a large transaction need several requests, each of which has its time: what
        // goes on is not what hangs.
        for some in chunks(&entries) {
            let began = Instant::now();
            let deadline = tokio::time::Instant::now() + APPEND_TIME;
            if let Err(error) = self.log.append(term, some, deadline).await {
                return self.fail(batch, &error);
            }
            self.progress.note_confirmed(began);
        }
        metrics::histogram!("debros_cluster_append_seconds").record(asked.elapsed().as_secs_f64());
        metrics::histogram!("debros_cluster_append_transactions").record(batch.len() as f64);
        let last = head + entries.len() as u64;
        self.progress.note_appended(head + 1..=last);
        let mut number = head;
        for request in batch {
            let first = number + 1;
            number += request.bodies.len() as u64;
            // The writer may be gone with the engine.
            let _ = request.reply.send(Ok(first..=number));
        }
        let followed = entries.into_iter();
        let followed = followed.map(|NewEntry { entry, body }| Entry { entry, term, body });
        // Nobody may follow.
        let _ = self.committed.send(Arc::new(followed.collect()));
    }

    fn fail(&self, batch: Vec<AppendRequest>, error: &RqliteError) {
        tracing::warn!(%error, "this node leads no more");
        let outcome = match error {
            RqliteError::Deposed | RqliteError::Misnumbered(_) | RqliteError::Unavailable(_) => {
                AppendError::NotLeader
            }
            RqliteError::TooLarge => AppendError::TooLarge { bytes: 0, max: MAX_CHANGES },
            RqliteError::Unknown(_) => AppendError::Unknown,
        };
        // Before the answers: whoever is told must not find it leading.
        self.progress.step_down();
        answer_all(batch, &outcome);
    }
}

fn answer_all(batch: Vec<AppendRequest>, error: &AppendError) {
    for request in batch {
        // The writer may be gone with the engine.
        let _ = request.reply.send(Err(error.clone()));
    }
}

fn size_of(request: &AppendRequest) -> usize {
    request.bodies.iter().map(Bytes::len).sum()
}

/// Leaves in `batch` what goes into one request, or one transaction that needs several.
fn split_off_rest(batch: &mut Vec<AppendRequest>) -> Vec<AppendRequest> {
    let mut bytes = 0;
    let fits = batch.iter().take_while(|request| {
        let is_first = bytes == 0;
        bytes += size_of(request);
        is_first || bytes <= debros_rqlite::MAX_BATCH_BYTES
    });
    let count = fits.count();
    batch.split_off(count)
}

/// What goes in one request. The parts of a large transaction go one by one: while a follower
/// receives one, it hears nothing else of its leader.
fn chunks(entries: &[NewEntry]) -> Vec<&[NewEntry]> {
    let mut pieces = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, entry) in entries.iter().enumerate() {
        if index > start && bytes + entry.body.len() > BATCH_BYTES {
            pieces.push(&entries[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += entry.body.len();
    }
    pieces.push(&entries[start..]);
    pieces
}
