//! The one task that owns the libp2p swarm: carries out commands, keeps the list of peers.

use crate::admission::ConnectionRefused;
use crate::host_start_error::system_error;
use crate::metrics::P2pMetrics;
use crate::peer_table::PeerConnection;
use crate::rpc_behaviour::OpenReply;
use crate::shared_host_state::SharedHostState;
use crate::swarm_builder::{Behaviour, BehaviourEvent};
use debros_proto::{Code, Error, LogThrottle, RPC_PROTOCOL};
use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, ListenError, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, TransportError, identify, ping};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

type DialReply = oneshot::Sender<Result<PeerId, Error>>;

/// The commands of the task.
pub(crate) enum SwarmCommand {
    Dial {
        address: Multiaddr,
        peer: Option<PeerId>,
        reply: DialReply,
    },
    Disconnect {
        peer: PeerId,
        reply: oneshot::Sender<bool>,
    },
    /// Closes one connection to a peer.
    CloseConnection {
        connection: ConnectionId,
        reply: oneshot::Sender<bool>,
    },
    Open {
        peer: PeerId,
        /// Any when there is none.
        connection: Option<ConnectionId>,
        reply: OpenReply,
    },
    StopListening {
        reply: oneshot::Sender<()>,
    },
    /// Closes all connections and ends the task.
    Close {
        deadline: Instant,
        reply: oneshot::Sender<()>,
    },
}

/// Runs until a `Close` command or until the last host is dropped.
pub(crate) async fn run(
    swarm: Swarm<Behaviour>,
    listeners: Vec<ListenerId>,
    mut commands: mpsc::Receiver<SwarmCommand>,
    mut stalled: mpsc::Receiver<PeerId>,
    shared: Arc<SharedHostState>,
    metrics: Arc<P2pMetrics>,
    max_failed_pings: u32,
) {
    let mut task = SwarmTask {
        swarm,
        listeners,
        shared,
        metrics,
        dials: HashMap::new(),
        failed_pings: HashMap::new(),
        max_failed_pings,
        refusals_logged: LogThrottle::default(),
        listeners_logged: LogThrottle::default(),
        pings_logged: LogThrottle::default(),
    };
    loop {
        tokio::select! {
            event = task.swarm.select_next_some() => task.handle_event(event),
            command = commands.recv() => match command {
                Some(SwarmCommand::Close { deadline, reply }) => {
                    task.close_connections(deadline).await;
                    // The requester may have stopped waiting.
                    let _ = reply.send(());
                    return;
                }
                Some(command) => task.handle_command(command),
                None => return,
            },
            Some(peer) = stalled.recv() => {
                // An error means that it is gone already.
                let _ = task.swarm.disconnect_peer_id(peer);
            }
        }
    }
}

struct SwarmTask {
    swarm: Swarm<Behaviour>,
    listeners: Vec<ListenerId>,
    shared: Arc<SharedHostState>,
    metrics: Arc<P2pMetrics>,
    /// Dials under way, with the peer that is expected and those that wait.
    dials: HashMap<ConnectionId, (Multiaddr, Option<PeerId>, DialReply)>,
    /// Pings in a row that got no answer.
    failed_pings: HashMap<ConnectionId, u32>,
    max_failed_pings: u32,
    // What strangers can cause.
    refusals_logged: LogThrottle,
    listeners_logged: LogThrottle,
    pings_logged: LogThrottle,
}

impl SwarmTask {
    fn handle_command(&mut self, command: SwarmCommand) {
        // Where a reply cannot be sent, the requester has stopped waiting.
        match command {
            SwarmCommand::Dial { address, peer, reply } => self.dial(address, peer, reply),
            SwarmCommand::Disconnect { peer, reply } => {
                let _ = reply.send(self.swarm.disconnect_peer_id(peer).is_ok());
            }
            SwarmCommand::CloseConnection { connection, reply } => {
                let _ = reply.send(self.swarm.close_connection(connection));
            }
            SwarmCommand::Open { peer, connection, reply } => {
                if self.swarm.is_connected(&peer) {
                    self.swarm.behaviour_mut().streams.request_stream(peer, connection, reply);
                }
            }
            SwarmCommand::StopListening { reply } => {
                self.swarm.behaviour_mut().admission.stopping = true;
                for listener in std::mem::take(&mut self.listeners) {
                    self.swarm.remove_listener(listener);
                }
                let _ = reply.send(());
            }
            SwarmCommand::Close { .. } => {}
        }
    }

    fn dial(&mut self, address: Multiaddr, peer: Option<PeerId>, reply: DialReply) {
        // A port of its own for each dial: sharing the listening port makes a quick reconnect fail,
        // because the old connection between the same two ports lingers in the system.
        let options = match peer {
            Some(peer) => DialOpts::peer_id(peer)
                // Even when another dial to the peer is under way: that one's address may be dead.
                .condition(PeerCondition::Always)
                .addresses(vec![address.clone()])
                .allocate_new_port()
                .build(),
            None => {
                DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build()
            }
        };
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(connection, (address, peer, reply));
            }
            Err(error) => {
                let _ = reply.send(Err(dial_error(&address, peer, &error)));
            }
        }
    }

    fn handle_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.metrics.connections.increment(1.0);
                let reached_at = match &endpoint {
                    ConnectedPoint::Dialer { address, .. } => Some(address),
                    ConnectedPoint::Listener { .. } => None,
                };
                {
                    let mut peers = self.shared.lock_peers();
                    peers.mark_connected(peer_id, reached_at);
                    let is_outbound = endpoint.is_dialer();
                    peers
                        .add_connection(peer_id, PeerConnection { id: connection_id, is_outbound });
                }
                if let Some((_, _, reply)) = self.dials.remove(&connection_id) {
                    // The requester may have stopped waiting.
                    let _ = reply.send(Ok(peer_id));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.metrics.connections.decrement(1.0);
                self.failed_pings.remove(&connection_id);
                let mut peers = self.shared.lock_peers();
                peers.remove_connection(peer_id, connection_id);
                if num_established == 0 {
                    peers.mark_disconnected(peer_id);
                }
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => match error {
                ListenError::Denied { cause } => {
                    self.metrics.refused_connections.increment(1);
                    let reason = cause
                        .downcast::<ConnectionRefused>()
                        .map_or_else(|_| String::new(), |reason| reason.to_string());
                    match self.refusals_logged.admit() {
                        Some(times) => {
                            tracing::warn!(from = %send_back_addr, reason, times, "refused a connection")
                        }
                        None => {
                            tracing::debug!(from = %send_back_addr, reason, "refused a connection")
                        }
                    }
                }
                error => {
                    tracing::debug!(from = %send_back_addr, %error, "an incoming connection failed")
                }
            },
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.metrics.failed_dials.increment(1);
                if let Some((address, peer, reply)) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err(dial_error(&address, peer, &error)));
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                let mut listen = self.shared.lock_listen_addresses();
                if !listen.contains(&address) {
                    listen.push(address);
                }
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.shared.lock_listen_addresses().retain(|known| *known != address)
            }
            SwarmEvent::ListenerError { error, .. } => match self.listeners_logged.admit() {
                Some(times) => tracing::warn!(%error, times, "a listener failed"),
                None => tracing::debug!(%error, "a listener failed"),
            },
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                let serves =
                    info.protocols.iter().any(|protocol| protocol.as_ref() == RPC_PROTOCOL);
                self.shared.lock_peers().record_identify(
                    peer_id,
                    &info.agent_version,
                    serves,
                    info.listen_addrs,
                );
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping)) => self.handle_ping(ping),
            _ => {}
        }
    }

    fn handle_ping(&mut self, ping: ping::Event) {
        match ping.result {
            Ok(rtt) => {
                self.failed_pings.remove(&ping.connection);
                self.shared.lock_peers().record_ping(ping.peer, rtt);
            }
            Err(ping::Failure::Unsupported) => {}
            Err(_) => {
                let failed = self.failed_pings.entry(ping.connection).or_default();
                *failed += 1;
                if *failed >= self.max_failed_pings {
                    let why = "closed a connection: pings in a row got no answer";
                    match self.pings_logged.admit() {
                        Some(times) => {
                            tracing::info!(peer = %ping.peer, pings = *failed, times, "{why}")
                        }
                        None => tracing::debug!(peer = %ping.peer, pings = *failed, "{why}"),
                    }
                    self.swarm.close_connection(ping.connection);
                }
            }
        }
    }

    /// Closes all connections, each after what is written was sent; breaks off what is left at the
    /// deadline.
    async fn close_connections(mut self, deadline: Instant) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error means that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.network_info().connection_counters().num_established() > 0 {
                let event = self.swarm.select_next_some().await;
                self.handle_event(event);
            }
        };
        if tokio::time::timeout_at(deadline.into(), closing).await.is_err() {
            tracing::warn!("broke off connections that did not close in time");
        }
        self.shared.lock_listen_addresses().clear();
    }
}

/// The message for a failed dial.
fn dial_error(address: &Multiaddr, expected: Option<PeerId>, error: &DialError) -> Error {
    match error {
        DialError::WrongPeerId { obtained, .. } => {
            let expected = expected.map(|peer| peer.to_string()).unwrap_or_default();
            Error::invalid(format!(
                "at {address} answers the peer {obtained}, not {expected}: the address is out of date, or not what it \
                 claims to be"
            ))
        }
        // Without an address: because it was left out as one that this host listens on.
        DialError::LocalPeerId { .. } | DialError::NoAddresses => {
            Error::invalid(format!("{address} is this host itself"))
        }
        DialError::Denied { .. } => Error::new(
            Code::Overloaded,
            format!("{address} was not dialled: this host's connections are all in use"),
        ),
        DialError::Transport(attempts) => match attempts.first() {
            Some((_, TransportError::MultiaddrNotSupported(_))) => Error::invalid(format!(
                "{address} is no address that can be dialled: give one like /ip4/192.0.2.1/tcp/4001/p2p/<peer id>"
            )),
            Some((_, TransportError::Other(error))) => {
                tracing::debug!(%address, %error, "a dial failed");
                Error::new(
                    Code::Unavailable,
                    match system_error(error) {
                        Some(cause) => format!("cannot connect to {address}: {}", cause.kind()),
                        None => format!(
                            "cannot connect to {address}: no peer finished the handshake there"
                        ),
                    },
                )
            }
            None => Error::new(Code::Unavailable, format!("cannot connect to {address}")),
        },
        DialError::Aborted | DialError::DialPeerConditionFalse(_) => {
            Error::new(Code::Unavailable, format!("the dial of {address} was broken off"))
        }
    }
}
