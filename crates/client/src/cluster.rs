//! The cluster, as operators see and change it.

use crate::{Client, Result, expect_answer};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, ClusterStatusResponse, CreateJoinTokenResponse, RemoveNodeResponse};

/// The cluster of the node. Everything here is for operators.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    pub(crate) client: &'a Client,
}

impl Cluster<'_> {
    /// Makes the node the first of a new cluster and returns the cluster's id.
    ///
    /// # Errors
    /// `forbidden`; `conflict` when it is part of one already.
    pub async fn init(&self) -> Result<String> {
        let answer = self.client.call(Call::InitCluster(rpc::InitClusterRequest {})).await?;
        expect_answer!(answer, InitCluster).map(|answer| answer.cluster_id)
    }

    /// The nodes of the cluster. The id is empty when the node is part of none.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn status(&self) -> Result<ClusterStatusResponse> {
        self.status_with(false).await
    }

    /// As [`status`](Cluster::status), with what may be wrong: also of a node that is part of no
    /// cluster. Takes some seconds where other nodes do not answer.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn diagnose(&self) -> Result<ClusterStatusResponse> {
        self.status_with(true).await
    }

    async fn status_with(&self, diagnose: bool) -> Result<ClusterStatusResponse> {
        let call = Call::ClusterStatus(rpc::ClusterStatusRequest { diagnose });
        expect_answer!(self.client.call(call).await?, ClusterStatus)
    }

    /// A join token: it lets one node in, within an hour. A secret.
    ///
    /// # Errors
    /// `forbidden`; `conflict` when the node is part of no cluster.
    pub async fn create_join_token(&self) -> Result<CreateJoinTokenResponse> {
        let call = Call::CreateJoinToken(rpc::CreateJoinTokenRequest {});
        expect_answer!(self.client.call(call).await?, CreateJoinToken)
    }

    /// Takes a node out of the cluster for good, by its name or peer id, and changes the cluster's
    /// key.
    ///
    /// # Errors
    /// `forbidden`; `not_found`; `invalid_argument` for the node that is asked.
    pub async fn remove(&self, node: impl Into<String>) -> Result<RemoveNodeResponse> {
        let call = Call::RemoveNode(rpc::RemoveNodeRequest { node: node.into() });
        expect_answer!(self.client.call(call).await?, RemoveNode)
    }

    /// Lets another node lead; returns the peer id of the one that does, empty when none is elected
    /// yet.
    ///
    /// # Errors
    /// `forbidden`; `unavailable` when the node does not lead, or no other can.
    pub async fn step_down(&self) -> Result<String> {
        let answer = self.client.call(Call::StepDown(rpc::StepDownRequest {})).await?;
        expect_answer!(answer, StepDown).map(|answer| answer.leader)
    }
}
