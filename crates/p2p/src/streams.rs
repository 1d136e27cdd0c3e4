//! RPC streams on libp2p connections: opens them where asked, hands those that peers open to the server.
//!
//! libp2p-stream would do for a start, but it dials when there is no connection, keeps an entry for every connection
//! that ever was, and puts the streams of all peers through one slot, where one peer's flood makes the others lose
//! theirs. Here a peer's streams meet their limit in the task of the peer's own connection.

use crate::admission::ip;
use crate::opened_stream::Opened;
use crate::server::Server;
use crate::trust::{PeerTrust, Trusts};
use debros_proto::RPC_PROTOCOL;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
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
pub(crate) enum OpenError {
    /// The peer does not speak the protocol.
    Unsupported,
    /// The peer did not agree to the stream in time, or the connection broke.
    Broken,
    /// Too many are being opened already.
    TooMany,
}

/// Where an opened stream goes.
pub(crate) type OpenReply = oneshot::Sender<Result<Opened, OpenError>>;

pub(crate) struct Streams {
    server: Option<Arc<Server>>,
    trusts: Arc<Trusts>,
    requests: VecDeque<(PeerId, OpenReply)>,
    waker: Option<Waker>,
}

impl Streams {
    /// Without a server, streams that peers want to open are refused in the protocol negotiation.
    pub(crate) fn new(server: Option<Arc<Server>>, trusts: Arc<Trusts>) -> Self {
        Self { server, trusts, requests: VecDeque::new(), waker: None }
    }

    /// Opens a stream on a connection to the peer. Without a connection the reply is dropped.
    pub(crate) fn open(&mut self, peer: PeerId, reply: OpenReply) {
        self.requests.push_back((peer, reply));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Opener;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Opener::new(peer, self.trusts.enter(peer, ip(remote)), self.server.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Opener::new(peer, self.trusts.enter(peer, ip(address)), self.server.clone()))
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, reply)) = self.requests.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event: reply });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One connection's part.
pub(crate) struct Opener {
    peer: PeerId,
    trust: Arc<PeerTrust>,
    server: Option<Arc<Server>>,
    to_request: usize,
    /// Who waits for a stream, oldest first. Streams are alike: each goes to whoever has waited longest.
    waiting: VecDeque<OpenReply>,
    waker: Option<Waker>,
    /// Cancelled when this is dropped, which is when the connection is gone.
    gone: DropGuard,
}

impl Opener {
    fn opened(&self, stream: Stream) -> Opened {
        Opened { stream, gone: self.gone.token().clone() }
    }

    fn new(peer: PeerId, trust: Arc<PeerTrust>, server: Option<Arc<Server>>) -> Self {
        let gone = CancellationToken::new().drop_guard();
        Self { peer, trust, server, to_request: 0, waiting: VecDeque::new(), waker: None, gone }
    }
}

impl ConnectionHandler for Opener {
    type FromBehaviour = OpenReply;
    type ToBehaviour = Infallible;
    type InboundProtocol = Rpc;
    type OutboundProtocol = Rpc;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Rpc, ()> {
        SubstreamProtocol::new(Rpc { offered: self.server.is_some() }, ())
    }

    fn on_behaviour_event(&mut self, reply: OpenReply) {
        if self.waiting.len() >= MAX_WAITING {
            // Whoever asked may have left.
            let _ = reply.send(Err(OpenError::TooMany));
            return;
        }
        self.waiting.push_back(reply);
        self.to_request += 1;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Rpc, (), Infallible>> {
        if self.to_request > 0 {
            self.to_request -= 1;
            let protocol = SubstreamProtocol::new(Rpc { offered: true }, ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Rpc, Rpc>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                if let Some(server) = &self.server {
                    server.accept(self.peer, Arc::clone(&self.trust), self.opened(stream));
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                if let Some(reply) = self.waiting.pop_front() {
                    let _ = reply.send(Ok(self.opened(stream)));
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Apply(never) => match never {},
                    StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => OpenError::Broken,
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
pub(crate) struct Rpc {
    offered: bool,
}

impl UpgradeInfo for Rpc {
    type Info = StreamProtocol;
    type InfoIter = std::option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.offered.then_some(PROTOCOL).into_iter()
    }
}

impl InboundUpgrade<Stream> for Rpc {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl OutboundUpgrade<Stream> for Rpc {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}
