//! The node and its peers.

use crate::{Client, Result, expect_answer};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, Peer, StatusResponse, WhoAmIResponse};

/// The node, its peers, and what the caller's credential stands for.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a> {
    pub(crate) client: &'a Client,
}

impl Network<'_> {
    /// The node's state: ids, version, uptime, peers, database size. Needs no credential.
    ///
    /// # Errors
    /// `unavailable` when no node can be reached.
    pub async fn status(&self) -> Result<StatusResponse> {
        expect_answer!(self.client.call(Call::Status(rpc::StatusRequest {})).await?, Status)
    }

    /// The peers of the node.
    ///
    /// # Errors
    /// `unauthenticated`, `unavailable`.
    pub async fn peers(&self) -> Result<Vec<Peer>> {
        expect_answer!(self.client.call(Call::Peers(rpc::PeersRequest {})).await?, Peers)
            .map(|answer| answer.peers)
    }

    /// What the caller's credential stands for.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub async fn who_am_i(&self) -> Result<WhoAmIResponse> {
        expect_answer!(self.client.call(Call::WhoAmI(rpc::WhoAmIRequest {})).await?, WhoAmI)
    }
}
