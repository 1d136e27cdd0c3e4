//! What a host is started with.

use crate::limits::PeerLimits;
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use std::time::Duration;

/// What a host is started with.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The host's identity; its peer id follows from it.
    pub keypair: Keypair,
    /// Where to listen. Clients listen nowhere.
    pub listen: Vec<Multiaddr>,
    /// Connections in all, in and out; over it, newcomers displace idle strangers or those of the
    /// address that has most, or are refused.
    pub max_connections: u32,
    /// The agent that this host states to others, e.g. `debros/0.1.0`.
    pub agent: String,
    /// How long a connection without open streams stays.
    pub idle_timeout: Duration,
    /// What one peer may ask for.
    pub limits: PeerLimits,
}

impl HostConfig {
    /// A client: listens nowhere, has the standard limits, and checks more often whether its node
    /// is still there: calls wait for a node that went without a word.
    pub fn client(keypair: Keypair, agent: impl Into<String>) -> Self {
        Self {
            keypair,
            listen: Vec::new(),
            max_connections: 64,
            agent: agent.into(),
            idle_timeout: Duration::from_secs(60),
            limits: PeerLimits {
                ping_interval: Duration::from_secs(5),
                ping_timeout: Duration::from_secs(5),
                failed_pings: 1,
                ..PeerLimits::default()
            },
        }
    }
}
