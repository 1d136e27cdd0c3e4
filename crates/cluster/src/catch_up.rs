//! Brings this node's files to the log.

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
    /// An entry does not fit to a file here, or a file is damaged.
    #[error("{}", .0.message)]
    Misfit(Error),
    /// It may succeed later.
    #[error("{}", .0.message)]
    Failed(Error),
}

/// Applies entries, in order. Used by one task at a time.
pub(crate) struct CatchUp {
    engine: Arc<EmbeddedEngine>,
    log: RqliteLog,
    progress: Arc<Progress>,
    assembler: PartAssembler,
    /// The last entry that was taken; it is beyond `applied` inside of a large transaction.
    taken: u64,
}

impl CatchUp {
    pub(crate) fn new(
        engine: Arc<EmbeddedEngine>,
        log: RqliteLog,
        progress: Arc<Progress>,
    ) -> Self {
        let taken = progress.applied();
        Self { engine, log, progress, assembler: PartAssembler::default(), taken }
    }

    /// Reads the own rqlite's copy of the log to its end, and applies it. Returns the last entry.
    ///
    /// # Errors
    /// [`CatchUpError`].
    pub(crate) async fn read_to_end(&mut self, level: ReadLevel) -> Result<u64, CatchUpError> {
        self.begin();
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
                return Ok(self.taken);
            }
            self.apply(&entries).await?;
        }
    }

    /// Applies what the leader sent, if nothing is missing before it.
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
        self.apply(&entries[new..]).await?;
        Ok(true)
    }

    /// What this node appended itself while it led is in its files; and what it only began is not.
    fn begin(&mut self) {
        let applied = self.progress.applied();
        if self.taken != applied && !self.assembler.is_open() || self.taken < applied {
            self.assembler = PartAssembler::default();
            self.taken = applied;
        }
    }

    async fn apply(&mut self, entries: &[Entry]) -> Result<(), CatchUpError> {
        let mut whole = Vec::new();
        for entry in entries {
            let added = self.assembler.add(entry.entry, entry.body.clone());
            let added = added.map_err(|error| {
                tracing::error!(%error, "the cluster's log cannot be applied");
                Error::internal(error.to_string())
            });
            match added {
                Ok(complete) => whole.extend(complete),
                Err(error) => {
                    self.restart();
                    return Err(CatchUpError::Misfit(error));
                }
            }
            self.taken = entry.entry;
        }
        if let Err(error) = self.engine.apply(whole).await {
            self.restart();
            return Err(apply_error(error));
        }
        if !self.assembler.is_open() {
            self.progress.note_applied(self.taken);
        }
        Ok(())
    }

    /// The next attempt begins where the files are.
    fn restart(&mut self) {
        self.assembler = PartAssembler::default();
        self.taken = self.progress.applied();
    }
}

/// `internal` and `corrupt` are what a file is called that is not what it was on the leader.
fn apply_error(error: Error) -> CatchUpError {
    match error.code {
        Code::Internal | Code::Corrupt => CatchUpError::Misfit(error),
        _ => CatchUpError::Failed(error),
    }
}
