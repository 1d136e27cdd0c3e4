//! Which node a command talks to, and with whose right.

use super::args::Global;
use super::credential::{Found, store, unusable};
use super::output::{note, printable};
use crate::config::peer_id_of;
use crate::fail::Failure;
use crate::local_node::{self, LocalNode};
use debros_client::{Client, Config, Namespace, Scope};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Bootstrap peers of the production network. None are published yet.
const PRODUCTION_PEERS: &[&str] = &[];
/// The variable with the data folder of a node of this machine.
pub(super) const DATA_DIR: &str = "DEBROS_NODE_DATA_DIR";
/// The namespace of who names none.
pub(super) const DEFAULT_NAMESPACE: &str = "default";
/// How long a node of this machine may take to answer, before the next one is tried.
const LOCAL_CONNECT: Duration = Duration::from_secs(5);

/// A connection to a node.
pub(super) struct Session {
    client: Client,
    pub(super) namespace: Option<String>,
    pub(super) timeout: Duration,
    /// The node's identity.
    pub(super) peer_id: String,
    /// The node, when it keeps its data on this machine.
    pub(super) local: Option<LocalNode>,
    /// The user's credential, once it was needed.
    pub(super) found: OnceCell<Found>,
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
        let (namespace, timeout) = (global.namespace.clone(), global.timeout);
        Ok(Self { client, namespace, timeout, peer_id, local, found: OnceCell::new() })
    }

    /// For calls that need no credential.
    pub(super) fn public(&self) -> &Client {
        &self.client
    }

    /// With the user's credential.
    pub(super) async fn user(&self) -> Result<Client, Failure> {
        Ok(self.with(self.credential().await?))
    }

    /// With the operator's credential, when this user may read it on this machine; else with the user's own.
    pub(super) async fn operator(&self) -> Result<Client, Failure> {
        match self.operator_credential()? {
            Some(credential) => Ok(self.with(&credential)),
            None => self.user().await,
        }
    }

    /// To change what a namespace's admins may change, and the operator in their place: with the operator's credential when
    /// that is asked for, else with the user's own and no other, so that nobody writes with the operator's right by accident.
    /// The operator has no namespace of its own, so it has to name one.
    pub(super) async fn manager(&self, as_operator: bool) -> Result<Client, Failure> {
        if as_operator {
            let namespace = self.namespace.clone().ok_or_else(|| {
                Failure::usage(
                    "--operator: the namespace to act in has to be named, for the operator has none of its own",
                )
                .hint("add --namespace NAME; `network-cli namespace list --operator` lists them")
            })?;
            return self.as_operator(namespace);
        }
        match self.widest().await? {
            Some(credential) => Ok(self.with(&credential)),
            None => self.user().await.map_err(|failure| self.or_as_operator(failure)),
        }
    }

    /// To read the same. Where nothing at all is stored for the node, the operator's credential serves as well, and that is
    /// said; who is signed in anywhere on the node reads as that wallet or not at all.
    pub(super) async fn reader(&self, as_operator: bool) -> Result<Client, Failure> {
        if !as_operator && self.falls_over().await? {
            let namespace = self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
            note(&printable(&format!("acting as the node's operator in the namespace {namespace}")));
            return self.as_operator(namespace.to_owned());
        }
        self.manager(as_operator).await
    }

    /// To list namespaces: as [`reader`](Session::reader), but the operator names none, for it sees all.
    pub(super) async fn lister(&self, as_operator: bool) -> Result<Client, Failure> {
        if !as_operator {
            if !self.falls_over().await? {
                return self.manager(false).await;
            }
            note("acting as the node's operator");
        }
        self.as_operator(self.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()))
    }

    /// Whether the operator's credential serves who has none at all.
    async fn falls_over(&self) -> Result<bool, Failure> {
        Ok(self.may_operate() && self.widest().await?.is_none() && !self.is_known_here()?)
    }

    fn as_operator(&self, namespace: String) -> Result<Client, Failure> {
        let Some(credential) = self.operator_credential()? else {
            return Err(Failure::no_credential("this node's operator.key can not be read here").hint(
                "run this on the node's machine, as the user that the node runs as, with DEBROS_NODE_DATA_DIR set to its \
                 data folder",
            ));
        };
        Ok(self.scoped(&credential, namespace))
    }

    /// Whether any credential is stored for the node, in whichever namespace.
    fn is_known_here(&self) -> Result<bool, Failure> {
        Ok(store()?.entries().map_err(unusable)?.iter().any(|entry| entry.peer_id == self.peer_id))
    }

    /// The other way there is on the node's machine.
    fn or_as_operator(&self, failure: Failure) -> Failure {
        if !self.may_operate() {
            return failure;
        }
        let way = "with --operator the command acts as the node's operator";
        let hint = failure.hint.as_ref().map_or_else(|| way.to_owned(), |hint| format!("{hint}; {way}"));
        failure.hint(hint)
    }

    /// Whether this user may act as the node's operator.
    pub(super) fn may_operate(&self) -> bool {
        self.operator_credential().is_ok_and(|credential| credential.is_some())
    }

    /// The namespace that is named, else the one of a newcomer.
    pub(super) fn namespace_or_default(&self) -> Result<Namespace, Failure> {
        Ok(Namespace::new(self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE))?)
    }

    fn operator_credential(&self) -> Result<Option<String>, Failure> {
        let Some(node) = &self.local else {
            return Ok(None);
        };
        node.operator_credential().map_err(|error| Failure::no_credential(error.to_string()))
    }

    /// With a credential, in the namespace that is named, else in the credential's own.
    pub(super) fn with(&self, credential: &str) -> Client {
        self.scoped(credential, self.namespace.clone().unwrap_or_default())
    }

    fn scoped(&self, credential: &str, namespace: String) -> Client {
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
            Err(error) => reasons.push(format!("{} ({error})", node.data_dir.display())),
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
    local_node::nodes(variable(DATA_DIR).as_deref())
}

pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
