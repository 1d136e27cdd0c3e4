//! Which nodes a separate gateway reaches, and whose credential it uses for callers that have none
//! of their own.

use crate::cli_error::CliError;
use crate::config::{GatewaySettings, peer_id_of};
use crate::local_node::{self, LocalNode};
use debros_client::{Client, Config, PeerId};
use debros_node::operator_key::{self, OperatorKeyError};
use std::time::Duration;

/// How long a node of this machine may take to answer, before the next one is tried.
const LOCAL_CONNECT: Duration = Duration::from_secs(2);

/// A client, and those of the nodes it goes to that keep their data on this machine.
pub(super) struct ReachedNodes {
    pub(super) client: Client,
    local: Vec<LocalNode>,
}

/// The client of the gateway. With bootstrap peers it may start before they do. Without, a node of
/// this machine is chosen: the first that answers, and only that one, because two nodes of one
/// machine are two databases.
pub(super) async fn reach_nodes(settings: &GatewaySettings) -> Result<ReachedNodes, CliError> {
    let mut known = local_node::local_nodes(named_data_dir().as_deref());
    let peers = settings.bootstrap_peers();
    if !peers.is_empty() {
        let mut config = Config::new("");
        config.bootstrap_peers = peers.to_vec();
        let wanted: Vec<_> = peers.iter().filter_map(|peer| peer_id_of(peer)).collect();
        known.retain(|node| wanted.contains(&node.peer_id));
        config.introductions = introductions(settings, &known, &wanted);
        return Ok(ReachedNodes {
            client: Client::connect_in_background(config).await?,
            local: known,
        });
    }
    let node = choose_local_node(known).await?;
    tracing::info!(address = node.address, "reaching the node of this machine");
    let mut config = Config::new("").bootstrap_peer(&node.address);
    let local = vec![node];
    config.introductions = introductions(settings, &local, &[local[0].peer_id]);
    Ok(ReachedNodes { client: Client::connect_in_background(config).await?, local })
}

/// What the gateway shows to its nodes, so that they know it as their operator's. A key that was
/// read on this machine goes to its own node alone. One that is named goes to the only node there
/// is, or to all when it serves callers there anyway.
fn introductions(
    settings: &GatewaySettings,
    local: &[LocalNode],
    wanted: &[PeerId],
) -> Vec<(PeerId, String)> {
    if let Some(path) = settings.operator_key_file() {
        if wanted.len() > 1 && !settings.access_settings().needs_operator() {
            return Vec::new();
        }
        return match operator_key::load(&path) {
            Ok(credential) => wanted.iter().map(|peer| (*peer, credential.clone())).collect(),
            Err(error) => {
                tracing::warn!(%error, "the gateway is a stranger to its node");
                Vec::new()
            }
        };
    }
    // One that cannot be read is no fault here: `operator_credential` says so where it is needed.
    let readable =
        local.iter().filter_map(|node| Some((node.peer_id, node.operator_credential().ok()??)));
    readable.collect()
}

/// The only node of this machine, or the first that answers.
async fn choose_local_node(mut nodes: Vec<LocalNode>) -> Result<LocalNode, CliError> {
    if nodes.len() == 1 {
        return Ok(nodes.remove(0));
    }
    let none = nodes.is_empty();
    for node in nodes {
        let mut config =
            Config::new("").bootstrap_peer(&node.address).connect_timeout(LOCAL_CONNECT);
        config.retry_attempts = 1;
        match Client::connect(config).await {
            Ok(probe) => {
                probe.close().await;
                return Ok(node);
            }
            Err(error) => {
                tracing::debug!(address = node.address, %error, "this node does not answer")
            }
        }
    }
    let what = if none {
        "no node of this machine has written a peer.info"
    } else {
        "no node of this machine answers"
    };
    Err(CliError::unreachable(format!("{what}, and no bootstrap peers are set")).with_hint(
        "start a node first, or name nodes with --bootstrap-peers or GATEWAY_BOOTSTRAP_PEERS \
         (/ip4/<address>/tcp/4001/p2p/<peer id>), which may start later",
    ))
}

/// The operator credential that static keys and callers without a credential act through; `None`
/// when it is not needed.
pub(super) fn operator_credential(
    settings: &GatewaySettings,
    reached: &ReachedNodes,
) -> Result<Option<String>, CliError> {
    if !settings.access_settings().needs_operator() {
        return Ok(None);
    }
    let unusable = |error: OperatorKeyError| CliError::new(error.to_string());
    if let Some(path) = settings.operator_key_file() {
        return operator_key::load(&path).map(Some).map_err(unusable);
    }
    for node in &reached.local {
        if let Some(credential) = node.operator_credential().map_err(unusable)? {
            return Ok(Some(credential));
        }
    }
    let what = if settings.access_settings().is_auth_required() {
        "static API keys (GATEWAY_API_KEYS)"
    } else {
        "callers without a credential (GATEWAY_REQUIRE_AUTH=false)"
    };
    Err(CliError::usage(format!("{what} need the node's operator credential, and none can be read on this machine")).with_hint(
        "copy <data_dir>/operator.key of the node to this machine, mode 0600, and name it with --operator-key-file or \
         GATEWAY_OPERATOR_KEY_FILE; or run the gateway inside the node (gateway.enabled)",
    ))
}

fn named_data_dir() -> Option<String> {
    std::env::var("DEBROS_NODE_DATA_DIR").ok().filter(|dir| !dir.is_empty())
}
