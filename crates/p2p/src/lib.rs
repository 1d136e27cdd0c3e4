//! The network of DeBros: one libp2p host per process, and `/debros/rpc/1.0.0` on it.
//!
//! - [`Host`]: listens, connects, knows its peers, and opens [`Channel`]s to nodes.
//! - [`Handler`]: what a node gives to a host; it answers the calls of peers.
//! - [`Channel`]: the one way to call a node. [`Channel::local`] calls a handler in this process directly, so that a
//!   gateway beside its node takes the same way as one far away.
//! - [`identity`] and [`peer_info`]: the two files that a node keeps for the network.
//! - [`Limits`]: what one peer may ask for.
//! - [`PeerTrust`]: what a peer has proven; who serves its calls says so, and it decides who keeps a place.
//!
//! `DESIGN.md` beside this crate tells the life of a call and the order of a shutdown.

mod addresses;
mod admission;
mod call;
mod calls;
mod channel;
mod events;
mod files;
mod handler;
mod host;
mod host_config;
pub mod identity;
mod limits;
mod listen;
mod local;
mod metrics;
mod opened_stream;
mod outbox;
pub mod peer_info;
mod peers;
mod places;
mod quota;
mod remote;
mod remote_events;
mod server;
mod serving;
mod session;
mod start_error;
mod streams;
mod swarm;
mod trust;
mod wire;

pub use calls::{opens_stream, writes};
pub use channel::Channel;
pub use events::Events;
pub use handler::{CallContext, EventSource, Handler, Reply};
pub use host::Host;
pub use host_config::HostConfig;
pub use libp2p::identity::Keypair;
pub use libp2p::{Multiaddr, PeerId};
pub use limits::Limits;
pub use peers::PeerInfo;
pub use start_error::StartError;
pub use trust::{PeerTrust, TrustLevel};
