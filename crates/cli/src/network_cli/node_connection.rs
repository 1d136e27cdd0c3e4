//! The connection of a command to a node: which node, and calls under a credential.

use super::args::GlobalOptions;
use super::environment::{DATA_DIR, env_variable};
use super::resolved_credential::ResolvedCredential;
use crate::cli_error::CliError;
use crate::config::peer_id_of;
use crate::local_node::{self, LocalNode};
use debros_client::{Client, Config, Namespace, Scope};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Bootstrap peers of the production network. None are published yet.
const PRODUCTION_PEERS: &[&str] = &[];
/// The namespace of a command that names none.
pub(super) const DEFAULT_NAMESPACE: &str = "default";
/// How long a node of this machine may take to answer, before the next one is tried.
const LOCAL_CONNECT: Duration = Duration::from_secs(5);

/// A connection to a node.
pub(super) struct NodeConnection {
    client: Client,
    pub(super) namespace: Option<String>,
    pub(super) timeout: Duration,
    /// The node's identity.
    pub(super) peer_id: String,
    /// The node, when it keeps its data on this machine.
    pub(super) local_node: Option<LocalNode>,
    /// The user's credential, once it was needed.
    pub(super) resolved: OnceCell<ResolvedCredential>,
}

impl NodeConnection {
    /// Connects to the node that the options, the environment or this machine name.
    pub(super) async fn open(global: &GlobalOptions) -> Result<Self, CliError> {
        let (client, local) = match configured_peers(global)? {
            Some(peers) => {
                let mut config = client_config(global);
                config.bootstrap_peers = peers;
                (Client::connect(config).await?, None)
            }
            None => connect_local(global).await?,
        };
        let peer_id = client.node().map(|peer| peer.to_string()).unwrap_or_default();
        // A node that was named by its address may still be one of this machine.
        let local = local
            .or_else(|| local_nodes().into_iter().find(|node| node.peer_id.to_string() == peer_id));
        let (namespace, timeout) = (global.namespace.clone(), global.timeout);
        Ok(Self {
            client,
            namespace,
            timeout,
            peer_id,
            local_node: local,
            resolved: OnceCell::new(),
        })
    }

    /// For calls that need no credential.
    pub(super) fn public_client(&self) -> &Client {
        &self.client
    }

    /// Whether this user may act as the node's operator.
    pub(super) fn may_operate(&self) -> bool {
        self.operator_credential().is_ok_and(|credential| credential.is_some())
    }

    /// The namespace that is named, else the default one.
    pub(super) fn namespace_or_default(&self) -> Result<Namespace, CliError> {
        Ok(Namespace::new(self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE))?)
    }

    /// The operator's credential, when this user may read it on this machine.
    pub(super) fn operator_credential(&self) -> Result<Option<String>, CliError> {
        let Some(node) = &self.local_node else {
            return Ok(None);
        };
        node.operator_credential().map_err(|error| CliError::no_credential(error.to_string()))
    }

    /// With a credential, in the namespace that is named, else in the credential's own.
    pub(super) fn client_with(&self, credential: &str) -> Client {
        self.scoped_client(credential, self.namespace.clone().unwrap_or_default())
    }

    /// With a credential, in a namespace.
    pub(super) fn scoped_client(&self, credential: &str, namespace: String) -> Client {
        self.client.scoped(Scope {
            credential: credential.into(),
            namespace,
            timeout: self.timeout,
            ..Scope::default()
        })
    }

    pub(super) async fn close(self) {
        self.client.close().await;
    }
}

fn client_config(global: &GlobalOptions) -> Config {
    Config::new("").connect_timeout(global.timeout).call_timeout(global.timeout)
}

/// The nodes that the user names; `None`: one of this machine is wanted.
fn configured_peers(global: &GlobalOptions) -> Result<Option<Vec<String>>, CliError> {
    if !global.bootstrap.is_empty() {
        for peer in &global.bootstrap {
            if peer_id_of(peer).is_none() {
                let shown = debros_proto::ids::excerpt(peer);
                return Err(CliError::usage(format!("--bootstrap \"{shown}\" does not end with /p2p/<peer id>"))
                    .with_hint("write /ip4/<address>/tcp/4001/p2p/<peer id>, as it stands in the node's peer.info"));
            }
        }
        return Ok(Some(global.bootstrap.clone()));
    }
    if global.production {
        if PRODUCTION_PEERS.is_empty() {
            return Err(CliError::usage("--production: this version knows no production peers")
                .with_hint("name a node with --bootstrap or DEBROS_BOOTSTRAP_PEERS"));
        }
        return Ok(Some(PRODUCTION_PEERS.iter().map(|peer| (*peer).to_owned()).collect()));
    }
    Ok(env_variable("DEBROS_BOOTSTRAP_PEERS").map(|text| {
        text.split(',').map(str::trim).filter(|peer| !peer.is_empty()).map(str::to_owned).collect()
    }))
}

/// The first node of this machine that answers. The file of a node that died stays behind, so the
/// next one is tried.
async fn connect_local(global: &GlobalOptions) -> Result<(Client, Option<LocalNode>), CliError> {
    let nodes = local_nodes();
    let mut reasons = Vec::new();
    for node in nodes {
        let mut config = client_config(global)
            .bootstrap_peer(&node.address)
            .connect_timeout(global.timeout.min(LOCAL_CONNECT));
        config.retry_attempts = 1;
        match Client::connect(config).await {
            Ok(client) => return Ok((client, Some(node))),
            Err(error) => reasons.push(format!("{} ({error})", node.data_dir.display())),
        }
    }
    let message = if reasons.is_empty() {
        "no node on this machine: no folder with a peer.info was found".to_owned()
    } else {
        format!("no node on this machine answers: {}", reasons.join("; "))
    };
    Err(CliError::unreachable(message).with_hint(
        "start one with `make dev`, or name one: --bootstrap /ip4/<address>/tcp/4001/p2p/<peer id>, or DEBROS_BOOTSTRAP_PEERS",
    ))
}

fn local_nodes() -> Vec<LocalNode> {
    local_node::local_nodes(env_variable(DATA_DIR).as_deref())
}
