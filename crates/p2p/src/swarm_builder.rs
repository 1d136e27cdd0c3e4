//! Making the libp2p swarm.

use crate::admission::AdmissionBehaviour;
use crate::host_config::HostConfig;
use crate::host_start_error::HostStartError;
use crate::metrics::P2pMetrics;
use crate::rpc_behaviour::RpcBehaviour;
use crate::rpc_server::RpcServer;
use crate::shared_host_state::SharedHostState;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{SwarmBuilder, dns, identify, noise, ping, tcp, tls, yamux};
use std::convert::Infallible;
use std::sync::Arc;

/// The protocol version that this host states in identify.
const PROTOCOL_VERSION: &str = "debros/1.0.0";
/// Streams of all protocols on one connection; a peer that opens more loses the connection.
const MAX_STREAMS: usize = 256;
/// Streams of one connection whose protocol is still being agreed on; more are dropped.
const MAX_NEGOTIATING: usize = 64;

/// What the swarm does.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // First: a refused connection must not reach the other behaviours.
    pub(crate) admission: AdmissionBehaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) streams: RpcBehaviour,
}

/// The swarm of a host: its transports and limits.
pub(crate) fn build(
    config: &HostConfig,
    server: Option<Arc<RpcServer>>,
    shared: &SharedHostState,
    metrics: &P2pMetrics,
) -> Result<Swarm<Behaviour>, HostStartError> {
    let transport = |error: &dyn std::fmt::Display| HostStartError::Transport(error.to_string());
    let muxer = || {
        let mut muxer = yamux::Config::default();
        muxer.set_max_num_streams(MAX_STREAMS);
        muxer
    };
    let base = || {
        SwarmBuilder::with_existing_identity(config.keypair.clone())
            .with_tokio()
            .with_tcp(
                tcp::Config::new().nodelay(true),
                (noise::Config::new, tls::Config::new),
                muxer,
            )
            .map(|builder| builder.with_quic())
            .map_err(|error| transport(&error))
    };
    let behaviour = |_: &_| build_behaviour(config, server.clone(), shared, metrics);
    let options = |options: libp2p::swarm::Config| {
        options
            .with_idle_connection_timeout(config.idle_timeout)
            .with_max_negotiating_inbound_streams(MAX_NEGOTIATING)
    };
    let never = |never: Infallible| -> HostStartError { match never {} };
    match base()?.with_dns() {
        Ok(builder) => {
            Ok(builder.with_behaviour(behaviour).map_err(never)?.with_swarm_config(options).build())
        }
        Err(error) => {
            tracing::warn!(%error, "this system's name servers are not known: only IP addresses can be dialled");
            let names = dns::ResolverConfig::default();
            let builder = base()?.with_dns_config(names, dns::ResolverOpts::default());
            Ok(builder.with_behaviour(behaviour).map_err(never)?.with_swarm_config(options).build())
        }
    }
}

fn build_behaviour(
    config: &HostConfig,
    server: Option<Arc<RpcServer>>,
    shared: &SharedHostState,
    metrics: &P2pMetrics,
) -> Behaviour {
    let limits = &config.limits;
    let trusts = Arc::clone(&shared.trusts);
    let displaced = metrics.displaced_connections.clone();
    let identify = identify::Config::new(PROTOCOL_VERSION.into(), config.keypair.public())
        .with_agent_version(config.agent.clone())
        .with_cache_size(0);
    let ping =
        ping::Config::new().with_interval(limits.ping_interval).with_timeout(limits.ping_timeout);
    Behaviour {
        admission: AdmissionBehaviour::new(
            config.max_connections,
            limits,
            Arc::clone(&trusts),
            Arc::clone(&shared.reserved),
            displaced,
        ),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping),
        streams: RpcBehaviour::new(server, trusts),
    }
}
