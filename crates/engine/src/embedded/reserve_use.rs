//! What the job that runs on a writer may write: deletes may use the reserve of a full database.
//!
//! The reserve here is what deletes may take past a size limit, `RESERVE` in `size_accounting.rs`.
//! That of the disk is a file, in `disk_reserve.rs`. While that file is given up, the writer runs
//! every job as one with the reserve, so that a job that adds something is refused here.

use debros_proto::{Code, Error, Result};
use std::cell::Cell;

/// What the job that runs may write, and has written.
#[derive(Debug, Default)]
pub(super) struct ReserveUse {
    /// It may go over the size limits by the reserve.
    has_reserve: Cell<bool>,
    /// Its next statement that adds something is refused: it has the reserve only to remove.
    refuses_additions: Cell<bool>,
    /// Whether all its statements only remove, that which is failing now among them; `None`: there
    /// was none yet.
    only_removes: Cell<Option<bool>>,
}

impl ReserveUse {
    /// Another job begins. `has_reserve`: it may go over the limits by the reserve. Unless it is
    /// known that it only removes (`is_sure`), each of its statements is checked for that.
    pub(super) fn begin_job(&self, has_reserve: bool, is_sure: bool) {
        self.has_reserve.set(has_reserve);
        self.refuses_additions.set(has_reserve && !is_sure);
        self.only_removes.set(None);
    }

    /// A statement of the job is about to write.
    ///
    /// # Errors
    /// `database_full` when the job may only remove, and this statement does not.
    pub(super) fn check_write(&self, removes: bool) -> Result<()> {
        if self.refuses_additions.get() && !removes {
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
