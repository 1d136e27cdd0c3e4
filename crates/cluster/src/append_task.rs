//! The task that appends what the leader's transactions have changed.
//!
//! What comes while a request is under way goes in the next one, so that an idle cluster answers
//! fast and a busy one sends few requests. The parts of a large transaction go one by one, and what
//! others have changed meanwhile goes between them.

use crate::leader_link::CommittedEntries;
use crate::pending_entries::EntryEffect;
use crate::progress::Progress;
use bytes::Bytes;
use debros_engine::{AppendError, EntryKind, MAX_CHANGES, TargetDatabase};
use debros_rqlite::{AppendError as RqliteError, Entry, NewEntry, RqliteLog};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Bytes of one request, less the last transaction's.
const BATCH_BYTES: usize = 4 << 20;
/// How long the log is asked before the outcome is called unknown. An election takes a second or
/// two.
const APPEND_TIME: Duration = Duration::from_secs(4);

/// A transaction that is to be appended.
pub(crate) struct AppendRequest {
    pub(crate) database: TargetDatabase,
    pub(crate) kind: EntryKind,
    /// The bodies that are not in the log yet.
    pub(crate) parts: VecDeque<Bytes>,
    /// The entries that those in the log are.
    pub(crate) entries: Vec<u64>,
    pub(crate) reply: oneshot::Sender<Result<Vec<u64>, AppendError>>,
}

impl AppendRequest {
    fn size(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// What the next part means, when it is the last one or not.
    fn effect(&self, is_last: bool) -> EntryEffect<'_> {
        match self.kind {
            _ if !is_last => EntryEffect::Nothing,
            EntryKind::Changes => EntryEffect::Changes(&self.database),
            EntryKind::Replacement => EntryEffect::Replaces(&self.database),
        }
    }

    fn answer(self, outcome: Result<(), &AppendError>) {
        // The writer may be gone with the engine.
        let _ = self.reply.send(outcome.map(|()| self.entries).map_err(Clone::clone));
    }
}

pub(crate) struct AppendTask {
    log: RqliteLog,
    progress: Arc<Progress>,
    committed: broadcast::Sender<CommittedEntries>,
    /// Transactions of several parts, of which some are in the log, each with the term of those.
    large: VecDeque<(u64, AppendRequest)>,
}

impl AppendTask {
    pub(crate) fn new(
        log: RqliteLog,
        progress: Arc<Progress>,
        committed: broadcast::Sender<CommittedEntries>,
    ) -> Self {
        Self { log, progress, committed, large: VecDeque::new() }
    }

    pub(crate) async fn run(mut self, mut waiting: mpsc::UnboundedReceiver<AppendRequest>) {
        loop {
            let mut batch = Vec::new();
            if self.large.is_empty() {
                let Some(first) = waiting.recv().await else { return };
                self.sort(first, &mut batch);
            }
            let mut bytes = batch.iter().map(AppendRequest::size).sum::<usize>();
            while bytes < BATCH_BYTES
                && let Ok(next) = waiting.try_recv()
            {
                bytes += next.size();
                self.sort(next, &mut batch);
            }
            // What is large goes in pieces that the log takes at once.
            while !batch.is_empty() {
                let rest = split_off_rest(&mut batch);
                self.append_batch(batch).await;
                batch = rest;
            }
            self.append_part().await;
        }
    }

    fn sort(&mut self, request: AppendRequest, batch: &mut Vec<AppendRequest>) {
        if request.parts.len() > 1 {
            self.large.push_back((self.progress.term(), request));
        } else {
            batch.push(request);
        }
    }

    /// Appends one part of the large transaction whose turn it is.
    async fn append_part(&mut self) {
        let Some((term, mut request)) = self.large.pop_front() else { return };
        let Some(part) = request.parts.pop_front() else { return };
        let effect = request.effect(request.parts.is_empty());
        let outcome = self.append(term, &[(effect, part)]).await;
        match outcome {
            Ok(first) => {
                request.entries.push(first);
                if request.parts.is_empty() {
                    request.answer(Ok(()));
                } else {
                    self.large.push_back((term, request));
                }
            }
            // Without its last part it is no transaction.
            Err(_) if !request.parts.is_empty() => request.answer(Err(&AppendError::NotLeader)),
            Err(error) => request.answer(Err(&error)),
        }
    }

    async fn append_batch(&self, batch: Vec<AppendRequest>) {
        let asked = Instant::now();
        let bodies = batch.iter().flat_map(|request| {
            request.parts.iter().map(|body| (request.effect(true), body.clone()))
        });
        let bodies: Vec<_> = bodies.collect();
        let outcome = self.append(self.progress.term(), &bodies).await;
        drop(bodies);
        metrics::histogram!("debros_cluster_append_seconds").record(asked.elapsed().as_secs_f64());
        metrics::histogram!("debros_cluster_append_transactions").record(batch.len() as f64);
        match outcome {
            Ok(first) => {
                for (number, mut request) in (first..).zip(batch) {
                    request.entries.push(number);
                    request.answer(Ok(()));
                }
            }
            Err(error) => batch.into_iter().for_each(|request| request.answer(Err(&error))),
        }
    }

    /// Appends entries under a term. Returns the first one's number.
    async fn append(
        &self,
        term: u64,
        bodies: &[(EntryEffect<'_>, Bytes)],
    ) -> Result<u64, AppendError> {
        let began = Instant::now();
        if !self.progress.is_leader() || self.progress.term() != term {
            return Err(AppendError::NotLeader);
        }
        let first = self.progress.head() + 1;
        let numbered = (first..).zip(bodies);
        let entries: Vec<NewEntry> =
            numbered.map(|(entry, (_, body))| NewEntry { entry, body: body.clone() }).collect();
        let deadline = tokio::time::Instant::now() + APPEND_TIME;
        if let Err(error) = self.log.append(term, &entries, deadline).await {
            tracing::warn!(%error, "this node leads no more");
            // Before the answers: whoever is told must not find it leading.
            self.progress.step_down_from(term);
            return Err(outcome_of(&error));
        }
        self.progress.note_confirmed(began);
        let numbered = (first..).zip(bodies);
        self.progress.note_appended(term, numbered.map(|(entry, (effect, _))| (entry, *effect)));
        let followed = entries.into_iter();
        let followed = followed.map(|NewEntry { entry, body }| Entry { entry, term, body });
        // Nobody may follow.
        let _ = self.committed.send(Arc::new(followed.collect()));
        Ok(first)
    }
}

fn outcome_of(error: &RqliteError) -> AppendError {
    match error {
        RqliteError::Deposed | RqliteError::Misnumbered(_) | RqliteError::Unavailable(_) => {
            AppendError::NotLeader
        }
        RqliteError::TooLarge => AppendError::TooLarge { bytes: 0, max: MAX_CHANGES },
        RqliteError::Unknown(_) => AppendError::Unknown,
    }
}

/// Leaves in `batch` what goes into one request.
fn split_off_rest(batch: &mut Vec<AppendRequest>) -> Vec<AppendRequest> {
    let mut bytes = 0;
    let fits = batch.iter().take_while(|request| {
        let is_first = bytes == 0;
        bytes += request.size();
        is_first || bytes <= debros_rqlite::MAX_BATCH_BYTES
    });
    let count = fits.count();
    batch.split_off(count)
}
