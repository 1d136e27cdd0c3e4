//! Why a node's files have to be replaced by a copy of the leader's.

use tokio::sync::watch;

/// What is wrong with a node's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyReason {
    /// The log was cut before the node came back: it does not reach back to the files.
    LogCut,
    /// An entry of the log does not fit to a file.
    EntryMisfit,
    /// A database has other data than the leader's at the same entry.
    DataDiffers,
}

impl CopyReason {
    /// The reason as metrics and status have it.
    pub const fn name(self) -> &'static str {
        match self {
            CopyReason::LogCut => "log_cut",
            CopyReason::EntryMisfit => "entry_misfit",
            CopyReason::DataDiffers => "data_differs",
        }
    }
}

/// A node's files have to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyNeed {
    /// What is wrong, for programs.
    pub reason: CopyReason,
    /// The same, for people.
    pub message: String,
}

/// Whether the files here have to be replaced: what the parts of a node's database share.
#[derive(Debug, Default)]
pub(crate) struct CopyNeeds(watch::Sender<Option<CopyNeed>>);

impl CopyNeeds {
    /// The files have to be replaced, unless they have to already.
    pub(crate) fn request(&self, reason: CopyReason, message: String) {
        self.0.send_if_modified(|need| {
            let is_new = need.is_none();
            if is_new {
                tracing::error!(
                    reason = reason.name(),
                    why = message,
                    "this node's files have to be replaced by a copy of the leader's"
                );
                *need = Some(CopyNeed { reason, message });
            }
            is_new
        });
    }

    /// This node leads: what it has is what counts.
    pub(crate) fn withdraw(&self) {
        self.0.send_if_modified(|need| need.take().is_some());
    }

    pub(crate) fn get(&self) -> Option<CopyNeed> {
        self.0.borrow().clone()
    }

    /// Whether the files cannot be brought to the log any more.
    pub(crate) fn is_stuck(&self) -> bool {
        self.0.borrow().as_ref().is_some_and(|need| need.reason != CopyReason::DataDiffers)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<CopyNeed>> {
        self.0.subscribe()
    }
}
