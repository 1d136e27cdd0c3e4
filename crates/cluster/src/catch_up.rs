//! Brings this node's files to the log.

use crate::apply_queues::ApplyQueues;
use crate::errors::log_error;
use crate::leader_link::CommittedEntries;
use crate::log_part::PartAssembler;
use crate::progress::Progress;
use debros_engine::embedded::EmbeddedEngine;
use debros_proto::{Code, Error, Result};
use debros_rqlite::{Entry, ReadError, ReadLevel, RqliteLog};
use std::sync::Arc;

/// Bytes of the log that are read at a time.
const READ_BYTES: usize = 4 << 20;

/// Why the log could not be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatchUpError {
    /// The log does not reach back to what is here: the files have to be copied from another node.
    #[error(
        "the log begins at entry {first}, and the files here are at {applied}: they have to be copied from another node"
    )]
    TooOld {
        /// The log's first entry.
        first: u64,
        /// The last one that the files here have.
        applied: u64,
    },
    /// The own rqlite lacks what the cluster has acknowledged: it met a full disk, applied entries of
    /// Raft's log without their content, and goes on without them.
    #[error(
        "this node's rqlite has lost entries, as on a full disk: its copy of the log ends at {last}, and more was there. If \
         that stays after rqlited has started again, and other nodes are there, remove the node and let it join \
         anew with an empty data folder"
    )]
    Damaged {
        /// The last entry of the copy.
        last: u64,
    },
    /// An entry does not fit to a file here, or a file is damaged.
    #[error("{}", .0.message)]
    Misfit(Error),
    /// It may succeed later.
    #[error("{}", .0.message)]
    Failed(Error),
}

/// Takes entries in order, and has them applied. Used by one task at a time.
pub(crate) struct CatchUp {
    log: RqliteLog,
    progress: Arc<Progress>,
    assembler: PartAssembler,
    queues: ApplyQueues,
    /// The last entry that was taken.
    taken: u64,
}

impl CatchUp {
    pub(crate) fn new(
        engine: Arc<EmbeddedEngine>,
        log: RqliteLog,
        progress: Arc<Progress>,
    ) -> Self {
        let taken = progress.taken();
        let queues = ApplyQueues::new(engine, Arc::clone(&progress));
        Self { log, progress, assembler: PartAssembler::default(), queues, taken }
    }

    /// Takes what the own rqlite's copy of the log has, to its end. Returns the last entry.
    ///
    /// # Errors
    /// [`CatchUpError`].
    pub(crate) async fn read_to_end(&mut self, level: ReadLevel) -> Result<u64, CatchUpError> {
        self.begin();
        // Before the log is read: what is there then is all that can ever be there of earlier terms.
        let ended = if self.assembler.is_open() { Some(self.read_end(level).await?) } else { None };
        loop {
            let entries = match self.log.read(self.taken, READ_BYTES, level).await {
                Ok(entries) => entries,
                Err(ReadError::Trimmed { first }) => {
                    return Err(CatchUpError::TooOld { first, applied: self.progress.applied() });
                }
                Err(ReadError::Client(error)) => {
                    return Err(CatchUpError::Failed(log_error(&error)));
                }
            };
            if entries.is_empty() {
                break;
            }
            self.take_all(&entries).await?;
        }
        if let Some((term, last)) = ended
            && self.taken >= last
        {
            self.end_terms_before(term);
        }
        Ok(self.taken)
    }

    /// As [`read_to_end`](Self::read_to_end), for the node that has claimed `term`, and knows that
    /// `last` is the last entry of earlier ones: returns when the files have it all. False: the own
    /// rqlite's copy is not so far yet.
    ///
    /// # Errors
    /// [`CatchUpError`].
    pub(crate) async fn apply_to_end(
        &mut self,
        term: u64,
        last: u64,
    ) -> Result<bool, CatchUpError> {
        if self.apply_copy().await? < last {
            return Ok(false);
        }
        self.end_terms_before(term);
        Ok(true)
    }

    /// As [`read_to_end`](Self::read_to_end), and returns when the files have it all.
    ///
    /// # Errors
    /// [`CatchUpError`].
    pub(crate) async fn apply_copy(&mut self) -> Result<u64, CatchUpError> {
        let last = self.read_to_end(ReadLevel::None).await?;
        self.queues.wait_empty().await.map_err(apply_error)?;
        Ok(last)
    }

    /// Why a database cannot be given what it has to have, and how often that was tried in a row, if
    /// that is so.
    pub(crate) fn failure(&self) -> Option<(CatchUpError, u32)> {
        self.queues.failure().map(|(error, attempts)| (apply_error(error), attempts))
    }

    /// Whether the files have all that was taken.
    pub(crate) fn is_applied(&self) -> bool {
        self.queues.is_empty()
    }

    /// Transactions of earlier terms that are not complete by now never will be.
    fn end_terms_before(&mut self, term: u64) {
        self.progress.note_applied(&self.assembler.end_terms_before(term));
    }

    /// Takes what the leader sent, if nothing is missing before it.
    ///
    /// # Errors
    /// [`CatchUpError`]. What is missing is no error: it has to be read then, which `false` says.
    pub(crate) async fn take(&mut self, entries: &CommittedEntries) -> Result<bool, CatchUpError> {
        self.begin();
        let new = entries.iter().position(|entry| entry.entry > self.taken);
        let Some(new) = new else { return Ok(true) };
        if entries[new].entry != self.taken + 1 {
            return Ok(false);
        }
        self.take_all(&entries[new..]).await?;
        Ok(true)
    }

    /// What this node appended itself while it led is in its files; and what it only began is not.
    fn begin(&mut self) {
        let taken = self.progress.taken();
        if self.taken != taken {
            self.assembler = PartAssembler::default();
            self.taken = taken;
        }
    }

    /// The term, and the last entry that the log has at the same moment.
    async fn read_end(&self, level: ReadLevel) -> Result<(u64, u64), CatchUpError> {
        let end = self.log.term_and_last_entry(level).await;
        end.map_err(|error| CatchUpError::Failed(log_error(&error)))
    }

    async fn take_all(&mut self, entries: &[Entry]) -> Result<(), CatchUpError> {
        for entry in entries {
            self.queues.wait_for_room().await.map_err(apply_error)?;
            let taken = match self.assembler.add(entry) {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::error!(%error, "the cluster's log cannot be applied");
                    // The next attempt begins where the files are.
                    self.assembler = PartAssembler::default();
                    self.taken = self.progress.rewind();
                    return Err(CatchUpError::Misfit(Error::internal(error.to_string())));
                }
            };
            self.progress.note_taken(entry.entry, taken.effect());
            self.taken = entry.entry;
            if !taken.broken_off.is_empty() {
                self.progress.note_applied(&taken.broken_off);
            }
            if let Some(whole) = taken.whole {
                self.queues.push(whole);
            }
        }
        Ok(())
    }
}

/// `internal` and `corrupt` are what a file is called that is not what it was on the leader.
fn apply_error(error: Error) -> CatchUpError {
    match error.code {
        Code::Internal | Code::Corrupt => CatchUpError::Misfit(error),
        _ => CatchUpError::Failed(error),
    }
}
