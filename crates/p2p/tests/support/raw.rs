//! A peer that speaks libp2p well and the RPC protocol as badly as a test wants.

use bytes::BytesMut;
use debros_p2p::{Host, Keypair, Multiaddr, PeerId};
use debros_proto::rpc::{Frame, Request, frame::Body};
use debros_proto::{RPC_PROTOCOL, frame};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{StreamProtocol, Swarm, SwarmEvent};
use libp2p::{Stream, SwarmBuilder, identify, noise, ping, tcp, tls, yamux};
use libp2p_stream::{Behaviour as Streams, Control, IncomingStreams, OpenStreamError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LIMIT: usize = 64 << 20;
const PROTOCOL: StreamProtocol = StreamProtocol::new(RPC_PROTOCOL);

#[derive(Clone, Copy)]
pub enum Security {
    Noise,
    Tls,
}

#[derive(libp2p::swarm::NetworkBehaviour)]
struct Behaviour {
    streams: Streams,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

fn swarm(key: &Keypair, security: Security) -> Swarm<Behaviour> {
    let behaviour = |key: &Keypair| Behaviour {
        streams: Streams::new(),
        identify: identify::Behaviour::new(identify::Config::new("raw/1".into(), key.public())),
        ping: ping::Behaviour::default(),
    };
    let keep = |config: libp2p::swarm::Config| {
        config.with_idle_connection_timeout(Duration::from_secs(60))
    };
    let builder = || SwarmBuilder::with_existing_identity(key.clone()).with_tokio();
    let (tcp, yamux) = (tcp::Config::default, yamux::Config::default);
    match security {
        Security::Noise => builder()
            .with_tcp(tcp(), noise::Config::new, yamux)
            .unwrap()
            .with_behaviour(behaviour)
            .unwrap()
            .with_swarm_config(keep)
            .build(),
        Security::Tls => builder()
            .with_tcp(tcp(), tls::Config::new, yamux)
            .unwrap()
            .with_behaviour(behaviour)
            .unwrap()
            .with_swarm_config(keep)
            .build(),
    }
}

/// A peer with one connection to a node.
pub struct RawPeer {
    control: Control,
    node: PeerId,
    /// The connection is gone.
    pub gone: CancellationToken,
    _stop: tokio_util::sync::DropGuard,
}

impl RawPeer {
    pub async fn connect(node: &Host) -> RawPeer {
        Self::connect_as(node, &Keypair::generate_ed25519(), Security::Noise).await.unwrap()
    }

    /// Connects, and waits until the node has shown that it let the connection in.
    pub async fn connect_as(
        node: &Host,
        key: &Keypair,
        security: Security,
    ) -> Result<RawPeer, String> {
        Self::dial(node, super::address(node), swarm(key, security)).await
    }

    /// A new identity that connects from another address of this machine, such as 127.0.0.2.
    pub async fn connect_from(node: &Host, address: &str) -> Result<RawPeer, String> {
        let (through, _) = super::proxy(node, address).await;
        Self::dial(node, through, swarm(&Keypair::generate_ed25519(), Security::Noise)).await
    }

    async fn dial(
        node: &Host,
        address: Multiaddr,
        mut swarm: Swarm<Behaviour>,
    ) -> Result<RawPeer, String> {
        let options = DialOpts::peer_id(node.peer_id())
            .condition(PeerCondition::Always)
            .addresses(vec![address]);
        swarm.dial(options.build()).map_err(|error| error.to_string())?;
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.to_string()),
                SwarmEvent::ConnectionClosed { .. } => return Err("closed".into()),
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                    ..
                })) => break,
                _ => {}
            }
        }
        let control = swarm.behaviour().streams.new_control();
        let (gone, stop) = (CancellationToken::new(), CancellationToken::new());
        tokio::spawn(run(swarm, gone.clone(), stop.clone()));
        Ok(RawPeer { control, node: node.peer_id(), gone, _stop: stop.drop_guard() })
    }

    pub async fn open(&mut self) -> RawStream {
        self.try_open().await.unwrap()
    }

    pub async fn try_open(&mut self) -> Result<RawStream, OpenStreamError> {
        let stream = self.control.open_stream(self.node, PROTOCOL).await?;
        Ok(RawStream { stream, input: BytesMut::new() })
    }
}

/// A peer that listens and serves RPC streams by hand.
pub struct RawNode {
    incoming: IncomingStreams,
    pub address: Multiaddr,
    _stop: tokio_util::sync::DropGuard,
}

impl RawNode {
    pub async fn start() -> RawNode {
        let mut swarm = swarm(&Keypair::generate_ed25519(), Security::Noise);
        swarm.listen_on(super::TCP.parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let incoming = swarm.behaviour().streams.new_control().accept(PROTOCOL).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(run(swarm, CancellationToken::new(), stop.clone()));
        RawNode { incoming, address, _stop: stop.drop_guard() }
    }

    pub async fn accept(&mut self) -> RawStream {
        let (_, stream) = self.incoming.next().await.unwrap();
        RawStream { stream, input: BytesMut::new() }
    }
}

async fn run(mut swarm: Swarm<Behaviour>, gone: CancellationToken, stop: CancellationToken) {
    loop {
        tokio::select! {
            event = swarm.select_next_some() => {
                if let SwarmEvent::ConnectionClosed { .. } = event {
                    gone.cancel();
                }
            }
            () = stop.cancelled() => return,
        }
    }
}

pub struct RawStream {
    stream: Stream,
    input: BytesMut,
}

impl RawStream {
    pub async fn send(&mut self, id: u64, body: Body) {
        self.send_bytes(&encoded(id, body)).await;
    }

    pub async fn request(&mut self, id: u64, request: Request) {
        self.send(id, Body::Request(request)).await;
    }

    /// Errors mean that the other side has reset the stream already, which the test looks at next.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.try_send(bytes).await;
    }

    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next frame; `None` when the stream has ended or was reset.
    pub async fn receive(&mut self) -> Option<Frame> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            if let Some(frame) = frame::decode(&mut self.input, LIMIT).unwrap() {
                return Some(frame);
            }
            match self.stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.input.extend_from_slice(&bytes[..read]),
            }
        }
    }

    /// Waits until the other side has ended the stream, whatever comes before.
    pub async fn ended(&mut self) {
        while self.receive().await.is_some() {}
    }
}

pub fn encoded(id: u64, body: Body) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame::encode(&Frame { id, body: Some(body) }, LIMIT, &mut bytes).unwrap();
    bytes
}
