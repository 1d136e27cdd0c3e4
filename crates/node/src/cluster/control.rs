//! What the replication of the data adds to the cluster: who leads, how far each node is, and what
//! has to happen there before a node leaves. Where the data is not replicated, nothing.

use async_trait::async_trait;
use debros_p2p::PeerId;
use debros_proto::{Code, Error, Result, rpc};
use std::collections::{HashMap, HashSet};

/// How far the nodes are.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReplicationStatus {
    pub(crate) leader: Option<PeerId>,
    pub(crate) term: Option<u64>,
    /// How the data of the node that answers is.
    pub(crate) health: Option<rpc::DataHealth>,
    pub(crate) progress: HashMap<PeerId, ReplicationProgress>,
    /// The nodes that the log waits for; `None`: it does not say.
    pub(crate) holders: Option<HashSet<PeerId>>,
}

/// How far one node is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReplicationProgress {
    /// The last entry of the log that it has applied.
    pub(crate) applied_entry: Option<u64>,
    /// How many entries it is behind.
    pub(crate) lag: Option<u64>,
}

/// The replication of the data, as an operator sees and changes it.
#[async_trait]
pub(crate) trait ClusterControl: Send + Sync {
    /// Who leads, and how far the nodes are.
    async fn status(&self) -> ReplicationStatus;

    /// What may be wrong with it; `None` where the data is not replicated.
    async fn diagnose(&self) -> Option<rpc::ReplicationDiagnosis>;

    /// Lets another node lead; returns the one that does, if it is elected already.
    ///
    /// # Errors
    /// `unavailable` when this node does not lead, or no other can.
    async fn step_down(&self) -> Result<Option<PeerId>>;

    /// Takes a node out of those that vote on the data and hold it, before it is removed from the
    /// register. Repeated for the same node it does nothing.
    ///
    /// # Errors
    /// When that cannot be done now; then the node is not removed.
    async fn remove_holder(&self, peer: PeerId) -> Result<()>;
}

/// A node that keeps its data alone.
pub(crate) struct DataAlone;

#[async_trait]
impl ClusterControl for DataAlone {
    async fn status(&self) -> ReplicationStatus {
        ReplicationStatus::default()
    }

    async fn diagnose(&self) -> Option<rpc::ReplicationDiagnosis> {
        None
    }

    async fn step_down(&self) -> Result<Option<PeerId>> {
        Err(Error::new(Code::Unavailable, "this node keeps its data alone"))
    }

    async fn remove_holder(&self, _: PeerId) -> Result<()> {
        Ok(())
    }
}
