//! Why a node does not start, with the setting to change.

use super::args::NodeArgs;
use crate::cli_error::CliError;
use crate::config::NodeSettings;
use debros_engine::embedded::EngineOpenError;
use debros_node::NodeStartError;

/// A node that does not start. The error says what and where; the hint names the setting and where
/// it was set.
pub(super) fn explain_node(
    error: &NodeStartError,
    args: &NodeArgs,
    settings: &NodeSettings,
) -> CliError {
    let cli_error = CliError::new(error.to_string());
    match error {
        NodeStartError::Database(EngineOpenError::Locked { .. }) => {
            let (folder, origin) = settings.value_and_origin("database.data_dir");
            cli_error.with_hint(format!(
                "database.data_dir is {folder} ({origin}); each node needs its own: change it there, set \
                 DEBROS_DATABASE_DATA_DIR, or leave the key out, which puts the database into node.data_dir"
            ))
        }
        NodeStartError::Host(_) if args.dev => cli_error.with_hint(
            "choose another port: make dev P2P_PORT=4011 (or network-node --dev --p2p-port 4011)",
        ),
        NodeStartError::Host(_) => {
            let (addresses, origin) = settings.value_and_origin("node.listen_addresses");
            cli_error.with_hint(format!(
                "node.listen_addresses is {addresses} ({origin}); --p2p-port changes the port"
            ))
        }
        _ => cli_error,
    }
}

/// A gateway inside that does not start.
pub(super) fn explain_gateway(
    error: &debros_gateway::GatewayStartError,
    args: &NodeArgs,
) -> CliError {
    let cli_error = CliError::new(error.to_string());
    match error {
        debros_gateway::GatewayStartError::Bind { .. } if args.dev => cli_error.with_hint(
            "choose another port: make dev GATEWAY_PORT=8081 (or network-node --dev --gateway-addr 127.0.0.1:8081)",
        ),
        debros_gateway::GatewayStartError::Bind { .. } => cli_error
            .with_hint("gateway.listen_addr or --gateway-addr chooses the address of the gateway inside the node"),
        _ => cli_error,
    }
}
