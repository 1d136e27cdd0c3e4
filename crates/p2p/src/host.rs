//! The handle to the network. One task owns the swarm (`swarm_task.rs`); a host sends it commands
//! and awaits the answers.

use crate::addresses::can_be_dialled;
use crate::admission::ReservedPeers;
use crate::channel::Channel;
use crate::handler::Handler;
use crate::host_config::HostConfig;
use crate::host_start_error::HostStartError;
use crate::limits::PeerLimits;
use crate::listen;
use crate::metrics::P2pMetrics;
use crate::peer_table::{PeerConnection, PeerInfo, PeerTable};
use crate::peer_trust::{PeerTrust, PeerTrustTable};
use crate::rpc_behaviour::StreamOpenError;
use crate::rpc_client_stream::RpcClientStream;
use crate::rpc_server::RpcServer;
use crate::shared_host_state::SharedHostState;
use crate::swarm_builder;
use crate::swarm_task::{self, SwarmCommand};
use debros_proto::words::span;
use debros_proto::{Code, Error};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for the swarm's task.
const COMMANDS: usize = 64;

/// The network, as the rest of the process holds it. Cheap to clone. When the last clone is
/// dropped, all connections break off; [`Host::shutdown`] is the polite way.
#[derive(Clone)]
pub struct Host {
    inner: Arc<HostInner>,
}

struct HostInner {
    peer_id: PeerId,
    shared: Arc<SharedHostState>,
    commands: mpsc::Sender<SwarmCommand>,
    server: Option<Arc<RpcServer>>,
    limits: PeerLimits,
    metrics: Arc<P2pMetrics>,
}

impl Host {
    /// Starts the host. Returns when every address is bound. Without a handler the host serves
    /// nothing: a client.
    ///
    /// # Errors
    /// When an address cannot be listened on; then none is.
    pub async fn start(
        config: HostConfig,
        handler: Option<Arc<dyn Handler>>,
    ) -> Result<Host, HostStartError> {
        let metrics = Arc::new(P2pMetrics::register());
        let (stalled, stalled_peers) = mpsc::channel(COMMANDS);
        let server = handler.map(|handler| {
            Arc::new(RpcServer::new(handler, config.limits.clone(), metrics.clone(), stalled))
        });
        let shared = Arc::new(SharedHostState {
            listen_addresses: Mutex::default(),
            peers: Mutex::new(PeerTable::new(config.limits.remembered_peers)),
            trusts: Arc::new(PeerTrustTable::default()),
            reserved: Arc::new(ReservedPeers::default()),
        });
        let mut swarm = swarm_builder::build(&config, server.clone(), &shared, &metrics)?;
        let peer_id = *swarm.local_peer_id();
        let bound = listen::bind(&mut swarm, &config.listen).await?;
        *shared.lock_listen_addresses() = bound.addresses;
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let run = swarm_task::run(
            swarm,
            bound.listeners,
            receiver,
            stalled_peers,
            shared.clone(),
            metrics.clone(),
            config.limits.failed_pings,
        );
        tokio::spawn(run);
        Ok(Host {
            inner: Arc::new(HostInner {
                peer_id,
                shared,
                commands,
                server,
                limits: config.limits,
                metrics,
            }),
        })
    }

    /// This host's id.
    pub fn peer_id(&self) -> PeerId {
        self.inner.peer_id
    }

    /// The addresses that are bound now, with `/p2p/<peer id>`.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        let addresses = self.inner.shared.lock_listen_addresses();
        addresses
            .iter()
            .map(|address| address.clone().with(Protocol::P2p(self.inner.peer_id)))
            .collect()
    }

    /// Connected peers, then those last seen, at most [`PeerLimits::remembered_peers`] of the
    /// latter.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.inner.shared.lock_peers().list()
    }

    /// How many peers are connected.
    pub fn connected_peers(&self) -> usize {
        self.inner.shared.lock_peers().count_connected()
    }

    /// Connects to the peer at an address, with or without `/p2p/<peer id>` at its end. A peer that
    /// is connected already is not dialled again.
    ///
    /// # Errors
    /// `invalid_argument` when the address cannot be dialled, is this host's own, or another peer
    /// answers there; `unavailable` when the address does not answer; `overloaded` when this host
    /// has all its connections in use.
    pub async fn connect(&self, address: Multiaddr, timeout: Duration) -> Result<PeerId, Error> {
        let peer = match address.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            _ => None,
        };
        if !can_be_dialled(&address) {
            return Err(Error::invalid(format!(
                "{address:?} is no address that can be dialled: give one like /ip4/192.0.2.1/tcp/4001/p2p/<peer id>"
            )));
        }
        if peer == Some(self.inner.peer_id) {
            return Err(Error::invalid(format!("{address} is this host itself")));
        }
        if let Some(peer) = peer
            && self.inner.shared.lock_peers().is_connected(&peer)
        {
            return Ok(peer);
        }
        let shown = address.clone();
        let dial = self.run_command(|reply| SwarmCommand::Dial { address, peer, reply });
        match tokio::time::timeout(timeout, dial).await {
            Ok(connected) => connected?,
            Err(_) => Err(Error::new(
                Code::Unavailable,
                format!("no answer from {shown} within {}", span(timeout)),
            )),
        }
    }

    /// Closes all connections to a peer; says whether there were any.
    pub async fn disconnect(&self, peer: PeerId) -> bool {
        self.run_command(|reply| SwarmCommand::Disconnect { peer, reply }).await.unwrap_or(false)
    }

    /// Closes one connection to a peer; says whether it was open.
    pub async fn close_connection(&self, connection: ConnectionId) -> bool {
        self.run_command(|reply| SwarmCommand::CloseConnection { connection, reply })
            .await
            .unwrap_or(false)
    }

    /// The open connections to a peer, oldest first.
    pub fn connections(&self, peer: &PeerId) -> Vec<PeerConnection> {
        self.inner.shared.lock_peers().connections(peer)
    }

    /// What a connected peer has proven, to read and to change.
    pub fn trust(&self, peer: &PeerId) -> Option<Arc<PeerTrust>> {
        self.inner.shared.trusts.get(peer)
    }

    /// Says which peers' connections are not counted and never make room for others.
    pub fn set_reserved_peers(&self, peers: HashSet<PeerId>) {
        self.inner.shared.reserved.replace(peers);
    }

    /// Opens a channel on an existing connection: one RPC stream, which stays until the last clone
    /// of the channel is dropped or the connection breaks.
    ///
    /// # Errors
    /// `unavailable` when the peer is not connected or does not answer, `unimplemented` when it is
    /// no node.
    pub async fn open(&self, peer: PeerId) -> Result<Channel, Error> {
        self.open_on_some(peer, None).await
    }

    /// As [`open`](Host::open), on one of the peer's connections.
    ///
    /// # Errors
    /// As [`open`](Host::open).
    pub async fn open_on(&self, peer: PeerId, connection: ConnectionId) -> Result<Channel, Error> {
        self.open_on_some(peer, Some(connection)).await
    }

    async fn open_on_some(
        &self,
        peer: PeerId,
        connection: Option<ConnectionId>,
    ) -> Result<Channel, Error> {
        let not_connected =
            || Error::new(Code::Unavailable, format!("the peer {peer} is not connected"));
        let (reply, opened) = oneshot::channel();
        self.send_command(SwarmCommand::Open { peer, connection, reply }).await?;
        let stream = opened.await.map_err(|_| not_connected())?.map_err(|error| match error {
            StreamOpenError::Unsupported => Error::new(
                Code::Unimplemented,
                format!("the peer {peer} is no node: it serves no calls"),
            ),
            StreamOpenError::Broken => not_connected(),
            StreamOpenError::TooMany => Error::new(
                Code::Overloaded,
                format!("too many channels to {peer} are being opened at a time"),
            ),
        })?;
        let HostInner { limits, metrics, .. } = &*self.inner;
        Ok(Channel::remote(RpcClientStream::start(peer, stream, limits, metrics.clone())))
    }

    /// Stops, in this order: no new connections; no new streams and calls, the running ones end and
    /// their answers are written; connections close; the swarm's task ends. What is not done at the
    /// deadline is broken off.
    pub async fn shutdown(&self, deadline: Instant) {
        // Errors mean that the swarm's task has ended already.
        let _ = self.run_command(|reply| SwarmCommand::StopListening { reply }).await;
        if let Some(server) = &self.inner.server {
            server.stop(deadline).await;
        }
        let _ = self.run_command(|reply| SwarmCommand::Close { deadline, reply }).await;
    }

    async fn run_command<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> SwarmCommand,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.send_command(command(reply)).await?;
        answer.await.map_err(|_| host_stopped_error())
    }

    async fn send_command(&self, command: SwarmCommand) -> Result<(), Error> {
        self.inner.commands.send(command).await.map_err(|_| host_stopped_error())
    }
}

fn host_stopped_error() -> Error {
    Error::new(Code::Unavailable, "the network of this process has stopped")
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({})", self.inner.peer_id)
    }
}
