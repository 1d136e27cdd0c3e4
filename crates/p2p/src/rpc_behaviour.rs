//! RPC streams on libp2p connections: opens them on request, hands those that peers open to the
//! server.
//!
//! libp2p-stream would do for a start, but it dials when there is no connection, keeps an entry for
//! each connection that ever was, and puts the streams of all peers through one slot, where one
//! peer's flood makes the others lose theirs. Here a peer's streams meet their limit in the task of
//! the peer's own connection.

use crate::admission::ip_of;
use crate::opened_stream::OpenedStream;
use crate::peer_trust::{PeerTrust, PeerTrustTable};
use crate::rpc_server::RpcServer;
use debros_proto::RPC_PROTOCOL;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

const PROTOCOL: StreamProtocol = StreamProtocol::new(RPC_PROTOCOL);
/// Streams that may wait to be opened on one connection.
const MAX_WAITING: usize = 64;

/// Why no stream was opened.
#[derive(Debug)]
pub(crate) enum StreamOpenError {
    /// The peer does not speak the protocol.
    Unsupported,
    /// The peer did not agree to the stream in time, or the connection broke.
    Broken,
    /// Too many are being opened already.
    TooMany,
}

/// Where an opened stream goes.
pub(crate) type OpenReply = oneshot::Sender<Result<OpenedStream, StreamOpenError>>;

pub(crate) struct RpcBehaviour {
    server: Option<Arc<RpcServer>>,
    trust_table: Arc<PeerTrustTable>,
    requests: VecDeque<(PeerId, NotifyHandler, OpenReply)>,
    waker: Option<Waker>,
}

impl RpcBehaviour {
    /// Without a server, streams that peers want to open are refused in the protocol negotiation.
    pub(crate) fn new(server: Option<Arc<RpcServer>>, trusts: Arc<PeerTrustTable>) -> Self {
        Self { server, trust_table: trusts, requests: VecDeque::new(), waker: None }
    }

    /// Opens a stream on a connection to the peer, on any or on this one. Without a connection the
    /// reply is dropped.
    pub(crate) fn request_stream(
        &mut self,
        peer: PeerId,
        connection: Option<ConnectionId>,
        reply: OpenReply,
    ) {
        let handler = connection.map_or(NotifyHandler::Any, NotifyHandler::One);
        self.requests.push_back((peer, handler, reply));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for RpcBehaviour {
    type ConnectionHandler = RpcConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(RpcConnectionHandler::new(
            peer,
            connection,
            self.trust_table.get_or_insert(peer, ip_of(remote)),
            self.server.clone(),
        ))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(RpcConnectionHandler::new(
            peer,
            connection,
            self.trust_table.get_or_insert(peer, ip_of(address)),
            self.server.clone(),
        ))
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, handler, reply)) = self.requests.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event: reply });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One connection's part.
pub(crate) struct RpcConnectionHandler {
    peer: PeerId,
    connection: ConnectionId,
    trust: Arc<PeerTrust>,
    server: Option<Arc<RpcServer>>,
    streams_to_request: usize,
    /// Requests that wait for a stream, oldest first. Streams are alike: each goes to the one that
    /// has waited longest.
    waiting: VecDeque<OpenReply>,
    waker: Option<Waker>,
    /// Cancelled when this is dropped, which is when the connection is gone.
    gone: DropGuard,
}

impl RpcConnectionHandler {
    fn wrap_stream(&self, stream: Stream) -> OpenedStream {
        OpenedStream { stream, connection_closed: self.gone.token().clone() }
    }

    fn new(
        peer: PeerId,
        connection: ConnectionId,
        trust: Arc<PeerTrust>,
        server: Option<Arc<RpcServer>>,
    ) -> Self {
        let gone = CancellationToken::new().drop_guard();
        Self {
            peer,
            connection,
            trust,
            server,
            streams_to_request: 0,
            waiting: VecDeque::new(),
            waker: None,
            gone,
        }
    }
}

impl ConnectionHandler for RpcConnectionHandler {
    type FromBehaviour = OpenReply;
    type ToBehaviour = Infallible;
    type InboundProtocol = RpcUpgrade;
    type OutboundProtocol = RpcUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<RpcUpgrade, ()> {
        SubstreamProtocol::new(RpcUpgrade { offered: self.server.is_some() }, ())
    }

    fn on_behaviour_event(&mut self, reply: OpenReply) {
        if self.waiting.len() >= MAX_WAITING {
            // The requester may be gone.
            let _ = reply.send(Err(StreamOpenError::TooMany));
            return;
        }
        self.waiting.push_back(reply);
        self.streams_to_request += 1;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<RpcUpgrade, (), Infallible>> {
        if self.streams_to_request > 0 {
            self.streams_to_request -= 1;
            let protocol = SubstreamProtocol::new(RpcUpgrade { offered: true }, ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<RpcUpgrade, RpcUpgrade>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => {
                if let Some(server) = &self.server {
                    server.accept_stream(
                        self.peer,
                        self.connection,
                        Arc::clone(&self.trust),
                        self.wrap_stream(stream),
                    );
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                ..
            }) => {
                if let Some(reply) = self.waiting.pop_front() {
                    let _ = reply.send(Ok(self.wrap_stream(stream)));
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => StreamOpenError::Unsupported,
                    StreamUpgradeError::Apply(never) => match never {},
                    StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => {
                        StreamOpenError::Broken
                    }
                };
                if let Some(reply) = self.waiting.pop_front() {
                    let _ = reply.send(Err(error));
                }
            }
            _ => {}
        }
    }
}

/// Negotiates the protocol's name; the stream itself is the result.
pub(crate) struct RpcUpgrade {
    offered: bool,
}

impl UpgradeInfo for RpcUpgrade {
    type Info = StreamProtocol;
    type InfoIter = std::option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.offered.then_some(PROTOCOL).into_iter()
    }
}

impl InboundUpgrade<Stream> for RpcUpgrade {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl OutboundUpgrade<Stream> for RpcUpgrade {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}
