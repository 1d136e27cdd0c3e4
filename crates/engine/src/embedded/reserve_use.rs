//! What the job that runs on a writer may write: deletes may use the reserve of a full database.

use debros_proto::{Code, Error, Result};
use std::cell::Cell;

/// What the job that runs may write, and has written.
#[derive(Debug, Default)]
pub(super) struct ReserveUse {
    /// It uses the reserve of a full database.
    has_reserve: Cell<bool>,
    /// It may use it as long as it only removes.
    is_refused: Cell<bool>,
    /// Whether all its statements only remove, that which is failing now among them; `None`: there
    /// was none yet.
    only_removes: Cell<Option<bool>>,
}

impl ReserveUse {
    /// Another job begins. `has_reserve`: it may go over the limits by the reserve, and where it is
    /// not sure that it removes (`is_sure`) then only as long as it does.
    pub(super) fn begin_job(&self, has_reserve: bool, is_sure: bool) {
        self.has_reserve.set(has_reserve);
        self.is_refused.set(has_reserve && !is_sure);
        self.only_removes.set(None);
    }

    /// A statement of the job is about to write.
    ///
    /// # Errors
    /// `database_full` when the job may only remove, and this does not.
    pub(super) fn check_write(&self, removes: bool) -> Result<()> {
        if self.is_refused.get() && !removes {
            return Err(Error::new(
                Code::DatabaseFull,
                "what adds something may not use what is kept for deletes",
            ));
        }
        self.only_removes.set(Some(removes && self.only_removes.get().unwrap_or(true)));
        Ok(())
    }

    /// Whether the job has written nothing but what removes.
    pub(super) fn only_removes(&self) -> bool {
        self.only_removes.get() == Some(true)
    }

    pub(super) fn has_reserve(&self) -> bool {
        self.has_reserve.get()
    }
}
