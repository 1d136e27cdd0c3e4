//! Which node a command talks to, and with which credential.

use super::args::Global;
use crate::config::peer_id_of;
use crate::credentials::Store;
use crate::fail::Failure;
use crate::local_node::{self, LocalNode};
use debros_client::{Client, Config, Scope};
use std::time::Duration;

/// Bootstrap peers of the production network. None are published yet.
const PRODUCTION_PEERS: &[&str] = &[];
/// How long a node of this machine may take to answer, before the next one is tried.
const LOCAL_CONNECT: Duration = Duration::from_secs(5);

/// A connection to a node.
pub(super) struct Session {
    client: Client,
    namespace: Option<String>,
    timeout: Duration,
    /// The node's identity.
    pub(super) peer_id: String,
    /// The node, when it keeps its data on this machine.
    local: Option<LocalNode>,
}

impl Session {
    /// Connects to the node that the options, the environment or this machine name.
    pub(super) async fn open(global: &Global) -> Result<Self, Failure> {
        let (client, local) = match named_peers(global)? {
            Some(peers) => {
                let mut config = config(global);
                config.bootstrap_peers = peers;
                (Client::connect(config).await?, None)
            }
            None => local(global).await?,
        };
        let peer_id = client.node().map(|peer| peer.to_string()).unwrap_or_default();
        // A node that was named by its address may still be one of this machine.
        let local = local.or_else(|| nodes().into_iter().find(|node| node.peer_id.to_string() == peer_id));
        Ok(Self { client, namespace: global.namespace.clone(), timeout: global.timeout, peer_id, local })
    }

    /// For calls that need no credential.
    pub(super) fn public(&self) -> &Client {
        &self.client
    }

    /// With the user's credential.
    pub(super) fn user(&self) -> Result<Client, Failure> {
        Ok(self.scoped(self.credential()?, self.namespace.clone()))
    }

    /// With the operator's credential, when this user may read it on this machine; else with the user's own.
    pub(super) fn operator(&self) -> Result<Client, Failure> {
        match self.operator_credential()? {
            Some(credential) => Ok(self.scoped(credential, self.namespace.clone())),
            None => self.user(),
        }
    }

    /// As [`operator`](Session::operator), for calls that act in a namespace: the operator has none of its own.
    pub(super) fn operator_in_namespace(&self) -> Result<Client, Failure> {
        match self.operator_credential()? {
            Some(credential) => {
                let namespace = self.namespace.clone().unwrap_or_else(|| "default".to_owned());
                Ok(self.scoped(credential, Some(namespace)))
            }
            None => self.user(),
        }
    }

    /// The user's credential: `DEBROS_API_KEY`, else what is stored for the node.
    pub(super) fn credential(&self) -> Result<String, Failure> {
        if let Some(key) = variable("DEBROS_API_KEY") {
            return Ok(key);
        }
        let store = Store::in_home().map_err(|error| Failure::no_credential(error.to_string()))?;
        let stored = store.find(&self.peer_id, self.namespace.as_deref());
        let entry = stored.map_err(|error| Failure::no_credential(error.to_string()))?;
        let in_namespace = self.namespace.as_ref().map(|name| format!(" in namespace {name}")).unwrap_or_default();
        entry.map(|entry| entry.api_key).ok_or_else(|| {
            Failure::no_credential(format!("no credential for the node {}{in_namespace}", self.peer_id)).hint(
                "set DEBROS_API_KEY; on the node's machine, `network-node api-key --namespace NAME --save` makes a key and \
                 stores it for this program",
            )
        })
    }

    fn operator_credential(&self) -> Result<Option<String>, Failure> {
        let Some(node) = &self.local else {
            return Ok(None);
        };
        node.operator_credential().map_err(|error| Failure::no_credential(error.to_string()))
    }

    fn scoped(&self, credential: String, namespace: Option<String>) -> Client {
        self.client.scoped(Scope {
            credential: credential.into(),
            namespace: namespace.unwrap_or_default(),
            timeout: self.timeout,
            ..Scope::default()
        })
    }

    pub(super) async fn close(self) {
        self.client.close().await;
    }
}

fn config(global: &Global) -> Config {
    Config::new("").connect_timeout(global.timeout).call_timeout(global.timeout)
}

/// The nodes that the user names; `None`: one of this machine is wanted.
fn named_peers(global: &Global) -> Result<Option<Vec<String>>, Failure> {
    if !global.bootstrap.is_empty() {
        for peer in &global.bootstrap {
            if peer_id_of(peer).is_none() {
                let shown = debros_proto::ids::excerpt(peer);
                return Err(Failure::usage(format!("--bootstrap \"{shown}\" does not end with /p2p/<peer id>"))
                    .hint("write /ip4/<address>/tcp/4001/p2p/<peer id>, as it stands in the node's peer.info"));
            }
        }
        return Ok(Some(global.bootstrap.clone()));
    }
    if global.production {
        if PRODUCTION_PEERS.is_empty() {
            return Err(Failure::usage("--production: this version knows no production peers")
                .hint("name a node with --bootstrap or DEBROS_BOOTSTRAP_PEERS"));
        }
        return Ok(Some(PRODUCTION_PEERS.iter().map(|peer| (*peer).to_owned()).collect()));
    }
    Ok(variable("DEBROS_BOOTSTRAP_PEERS")
        .map(|text| text.split(',').map(str::trim).filter(|peer| !peer.is_empty()).map(str::to_owned).collect()))
}

/// The first node of this machine that answers. The file of a node that died stays behind, so the next one is tried.
async fn local(global: &Global) -> Result<(Client, Option<LocalNode>), Failure> {
    let nodes = nodes();
    let mut reasons = Vec::new();
    for node in nodes {
        let mut config =
            config(global).bootstrap_peer(&node.address).connect_timeout(global.timeout.min(LOCAL_CONNECT));
        config.retry_attempts = 1;
        match Client::connect(config).await {
            Ok(client) => return Ok((client, Some(node))),
            Err(error) => reasons.push(format!("{} ({})", node.data_dir.display(), error.message)),
        }
    }
    let message = if reasons.is_empty() {
        "no node on this machine: no folder with a peer.info was found".to_owned()
    } else {
        format!("no node on this machine answers: {}", reasons.join("; "))
    };
    Err(Failure::unreachable(message).hint(
        "start one with `make dev`, or name one: --bootstrap /ip4/<address>/tcp/4001/p2p/<peer id>, or DEBROS_BOOTSTRAP_PEERS",
    ))
}

fn nodes() -> Vec<LocalNode> {
    local_node::nodes(variable("DEBROS_NODE_DATA_DIR").as_deref())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
