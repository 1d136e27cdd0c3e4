//! The errors of a node whose cluster does not do what it was asked.

use debros_proto::{Code, Error};
use debros_rqlite::ClientError;

/// Nothing was done here, and another node may do it.
pub(crate) fn not_leader_error() -> Error {
    Error::new(Code::NotLeader, "another node leads the cluster; nothing was changed")
}

/// The own rqlite does not answer, or has no majority.
pub(crate) fn log_error(error: &ClientError) -> Error {
    tracing::debug!(%error, "the cluster's log does not answer");
    Error::new(Code::Unavailable, "the cluster's log does not answer now; try again")
}
