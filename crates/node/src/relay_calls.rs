//! What a node that holds no data does with a call: it passes it on to one that does, and answers
//! itself what is about itself.

use crate::auth::CallOrigin;
use crate::cluster::Relay;
use crate::dispatcher::{CallDispatcher, IncomingCall, plain_reply};
use debros_p2p::{Reply, TrustLevel};
use debros_proto::call_kinds::CallRequirement;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, ClusterStatusResponse, Request, Response, response};
use debros_proto::{Code, Error, Permission, Result};

/// Who answers a call that comes to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answerer {
    /// This node: the call is about it.
    ThisNode,
    /// A node that holds the data.
    Holder,
    /// Nobody: the call is about a part that this node does not have.
    Nobody,
}

impl CallDispatcher {
    /// Answers a call at a relay.
    ///
    /// # Errors
    /// The call's own; `unavailable` when no node that holds the data can be reached; `conflict` for
    /// what a relay does not have.
    pub(crate) async fn answer_as_relay(
        &self,
        relay: &Relay,
        incoming: IncomingCall<'_>,
    ) -> Result<Reply> {
        self.check_not_stopping()?;
        let (context, proof, kind) = (incoming.context, incoming.proof, incoming.kind);
        if proof.relayed.is_some() {
            return Err(Error::new(
                Code::Unavailable,
                "the node holds no data, and takes no call from another one",
            ));
        }
        if let Call::Health(_) = incoming.call {
            return Ok(plain_reply(response::Result::Health(relay.health().await)));
        }
        let is_operator = self.auth.credentials.is_operator(proof.credential);
        if is_operator && let Some(trust) = &context.trust {
            trust.raise_level(TrustLevel::Operator);
        }
        match answerer_of(&incoming.call, kind.requires, is_operator) {
            Answerer::Holder => {}
            Answerer::Nobody => return Err(no_data_error()),
            Answerer::ThisNode => return self.answer_here(incoming, is_operator).await,
        }
        let request = self.request_to_pass_on(incoming, is_operator)?;
        let mut reply = relay.pass_on(request, context.deadline).await?;
        if kind.requires != CallRequirement::Nothing
            && let Some(trust) = &context.trust
        {
            trust.raise_level(TrustLevel::Member);
        }
        if let Reply::Response(Response {
            result: Some(response::Result::ClusterStatus(status)),
            ..
        }) = &mut reply
        {
            self.see_from_here(status);
        }
        Ok(reply)
    }

    /// Answers a call that is about this node.
    async fn answer_here(&self, incoming: IncomingCall<'_>, is_operator: bool) -> Result<Reply> {
        let IncomingCall { context, proof, idempotency_key, call, kind } = incoming;
        if kind.requires == CallRequirement::Permission(Permission::Operate) && !is_operator {
            return Err(other_operator_error());
        }
        self.authorize_and_run(context, proof, idempotency_key, call, kind).await
    }

    /// The request as the other node gets it. A call without a credential is counted here, as by any
    /// node.
    ///
    /// # Errors
    /// `rate_limited`; `forbidden` when a peer names a site to sign in at that is not known here.
    fn request_to_pass_on(&self, incoming: IncomingCall<'_>, is_operator: bool) -> Result<Request> {
        let IncomingCall { context, proof, idempotency_key, call, kind } = incoming;
        let mut caller_address = String::new();
        if kind.requires == CallRequirement::Nothing {
            let origin = CallOrigin::from_call(context, proof.caller_address)?;
            self.auth.count_public_call(origin)?;
            self.auth.check_site(context.peer, &call)?;
            let address = origin.relayed_address();
            caller_address = address.map(|address| address.to_string()).unwrap_or_default();
        }
        Ok(Request {
            // The operator's credential is good at this node alone.
            credential: if is_operator { String::new() } else { proof.credential.to_owned() },
            namespace: proof.namespace.to_owned(),
            idempotency_key: idempotency_key.to_owned(),
            request_id: proof.request_id.to_owned(),
            lent: proof.lent,
            caller_address,
            relayed: Some(rpc::RelayedCaller { operator: is_operator }),
            call: Some(call),
            ..Request::default()
        })
    }

    /// Makes another node's view of the cluster this one's, in what each node sees for itself.
    fn see_from_here(&self, status: &mut ClusterStatusResponse) {
        let cluster = &self.services.cluster;
        for node in &mut status.nodes {
            let peer = node.node.as_ref().and_then(|node| node.peer_id.parse().ok());
            node.is_self = peer == Some(cluster.own_peer());
            node.connected =
                node.is_self || peer.is_some_and(|peer| cluster.members.channel(&peer).is_some());
        }
    }
}

fn answerer_of(call: &Call, requires: CallRequirement, is_operator: bool) -> Answerer {
    match call {
        Call::Status(_)
        | Call::NodeHello(_)
        | Call::NodeProof(_)
        | Call::JoinCluster(_)
        | Call::InitCluster(_)
        | Call::ConnectPeer(_)
        | Call::DisconnectPeer(_) => Answerer::ThisNode,
        Call::Peers(_) if is_operator => Answerer::ThisNode,
        _ if requires == CallRequirement::Node => Answerer::ThisNode,
        Call::Backup(_)
        | Call::ListBackups(_)
        | Call::Restore(_)
        | Call::RotateSigningKey(_)
        | Call::StepDown(_) => Answerer::Nobody,
        _ => Answerer::Holder,
    }
}

fn no_data_error() -> Error {
    Error::new(
        Code::Conflict,
        "this node is a relay: it has no database, no backups and no signing key. Run the command at a node that holds the data \
         (network-cli cluster status lists the roles)",
    )
}

fn other_operator_error() -> Error {
    Error::new(
        Code::Forbidden,
        "this node is a relay, and here only its own operator key runs it: use the command line on its machine",
    )
}

#[cfg(test)]
mod tests {
    use super::{Answerer, answerer_of};
    use debros_proto::call_kinds::CallKind;
    use debros_proto::rpc;
    use debros_proto::rpc::request::Call;

    fn answerer(call: Call, is_operator: bool) -> Answerer {
        answerer_of(&call, CallKind::of(&call).requires, is_operator)
    }

    #[test]
    fn what_is_about_the_node_is_answered_here_and_what_is_about_data_is_not() {
        for operator in [false, true] {
            let query = Call::Query(rpc::QueryRequest::default());
            assert_eq!(answerer(query, operator), Answerer::Holder);
            let status = Call::ClusterStatus(rpc::ClusterStatusRequest::default());
            assert_eq!(answerer(status, operator), Answerer::Holder);
            let status = Call::Status(rpc::StatusRequest::default());
            assert_eq!(answerer(status, operator), Answerer::ThisNode);
            let files = Call::FetchFiles(rpc::FetchFilesRequest::default());
            assert_eq!(answerer(files, operator), Answerer::ThisNode);
            let backup = Call::Backup(rpc::BackupRequest::default());
            assert_eq!(answerer(backup, operator), Answerer::Nobody);
        }
        let peers = || Call::Peers(rpc::PeersRequest::default());
        assert_eq!(answerer(peers(), false), Answerer::Holder);
        assert_eq!(answerer(peers(), true), Answerer::ThisNode);
    }
}
