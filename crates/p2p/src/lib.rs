//! The network of DeBros: one libp2p host per process, and `/debros/rpc/1.0.0` on it.
//!
//! - [`Host`]: listens, connects, knows its peers, and opens [`Channel`]s to nodes.
//! - [`Handler`]: what a node gives to a host; it answers the calls of peers.
//! - [`Channel`]: the one way to call a node. [`Channel::local`] calls a handler in this process
//!   directly, so that a gateway beside its node takes the same way as one far away.
//! - [`identity`] and [`peer_info`]: the two files that a node keeps for the network.
//! - [`PeerLimits`]: what one peer may ask for.
//! - [`PeerTrust`]: what a peer has proven; the handler of its calls raises it, and it decides
//!   which peers keep a place.
//!
//! `DESIGN.md` beside this crate describes the life of a call and the order of a shutdown.

mod addresses;
mod admission;
mod call_errors;
mod channel;
mod event_stream;
mod eviction;
mod framed_stream;
mod handler;
mod host;
mod host_config;
mod host_start_error;
pub mod identity;
mod limits;
mod listen;
mod metrics;
mod opened_stream;
pub mod peer_info;
mod peer_quota;
mod peer_table;
mod peer_trust;
mod remote_events;
mod rpc_behaviour;
mod rpc_client_stream;
mod rpc_server;
mod send_queue;
mod served_stream;
mod serving_context;
mod shared_host_state;
mod stream_server;
mod swarm_builder;
mod swarm_task;

pub use addresses::advertised_addresses;
pub use channel::Channel;
pub use event_stream::EventStream;
pub use handler::{CallContext, EventSource, Handler, Reply};
pub use host::Host;
pub use host_config::HostConfig;
pub use host_start_error::HostStartError;
pub use libp2p::identity::Keypair;
pub use libp2p::swarm::ConnectionId;
pub use libp2p::{Multiaddr, PeerId};
pub use limits::PeerLimits;
pub use peer_table::{PeerConnection, PeerInfo};
pub use peer_trust::{PeerTrust, TrustLevel};
