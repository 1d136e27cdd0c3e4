//! Why a node does not start, with the setting to change.

use super::args::Args;
use crate::config::NodeSettings;
use crate::fail::Failure;
use debros_engine::embedded::OpenError;
use debros_node::StartError;

/// A node that does not start. The error says what and where; the hint names the setting and where it was set.
pub(super) fn node(error: &StartError, args: &Args, settings: &NodeSettings) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        StartError::Database(OpenError::Locked { .. }) => {
            let (folder, origin) = settings.shown("database.data_dir");
            failure.hint(format!(
                "database.data_dir is {folder} ({origin}); each node needs its own: change it there, set \
                 DEBROS_DATABASE_DATA_DIR, or leave the key out, which puts the database into node.data_dir"
            ))
        }
        StartError::Host(_) if args.dev => {
            failure.hint("choose another port: make dev P2P_PORT=4011 (or network-node --dev --p2p-port 4011)")
        }
        StartError::Host(_) => {
            let (addresses, origin) = settings.shown("node.listen_addresses");
            failure.hint(format!("node.listen_addresses is {addresses} ({origin}); --p2p-port changes the port"))
        }
        _ => failure,
    }
}

/// A gateway inside that does not start.
pub(super) fn gateway(error: &debros_gateway::StartError, args: &Args) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        debros_gateway::StartError::Bind { .. } if args.dev => failure.hint(
            "choose another port: make dev GATEWAY_PORT=8081 (or network-node --dev --gateway-addr 127.0.0.1:8081)",
        ),
        debros_gateway::StartError::Bind { .. } => {
            failure.hint("gateway.listen_addr or --gateway-addr chooses the address of the gateway inside the node")
        }
        _ => failure,
    }
}
