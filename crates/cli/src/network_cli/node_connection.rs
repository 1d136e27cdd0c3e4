//! Which node a command talks to, and with whose right.

use super::args::GlobalOptions;
use super::credential_lookup::{ResolvedCredential, credential_file_failure, open_credential_file};
use super::output::{print_note, printable};
use crate::cli_error::CliError;
use crate::config::peer_id_of;
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

    /// With the user's credential.
    pub(super) async fn user_client(&self) -> Result<Client, CliError> {
        Ok(self.client_with(self.credential().await?))
    }

    /// With the operator's credential, when this user may read it on this machine; else with the
    /// user's own.
    pub(super) async fn operator_client(&self) -> Result<Client, CliError> {
        match self.operator_credential()? {
            Some(credential) => Ok(self.client_with(&credential)),
            None => self.user_client().await,
        }
    }

    /// To change what a namespace's admins may change, and the operator in their place: with the
    /// operator's credential when that is asked for, else with the user's own and no other, so that
    /// nobody writes with the operator's right by accident. The operator has no namespace of its
    /// own, so it has to name one.
    pub(super) async fn manager_client(&self, as_operator: bool) -> Result<Client, CliError> {
        if as_operator {
            let namespace = self.namespace.clone().ok_or_else(|| {
                CliError::usage(
                    "--operator: the namespace to act in has to be named, for the operator has none of its own",
                )
                .with_hint("add --namespace NAME; `network-cli namespace list --operator` lists them")
            })?;
            return self.strict_operator_client(namespace);
        }
        match self.broadest_credential().await? {
            Some(credential) => Ok(self.client_with(&credential)),
            None => self.user_client().await.map_err(|failure| self.with_operator_hint(failure)),
        }
    }

    /// To read the same. Where nothing at all is stored for the node, the operator's credential
    /// serves as well, and that is said; who is signed in anywhere on the node reads as that wallet
    /// or not at all.
    pub(super) async fn reader_client(&self, as_operator: bool) -> Result<Client, CliError> {
        if !as_operator && self.falls_over().await? {
            let namespace = self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
            print_note(&printable(&format!(
                "acting as the node's operator in the namespace {namespace}"
            )));
            return self.strict_operator_client(namespace.to_owned());
        }
        self.manager_client(as_operator).await
    }

    /// To list namespaces: as [`reader_client`](NodeConnection::reader_client), but the operator
    /// names none, for it sees all.
    pub(super) async fn lister(&self, as_operator: bool) -> Result<Client, CliError> {
        if !as_operator {
            if !self.falls_over().await? {
                return self.manager_client(false).await;
            }
            print_note("acting as the node's operator");
        }
        self.strict_operator_client(
            self.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        )
    }

    /// Whether the operator's credential serves who has none at all.
    async fn falls_over(&self) -> Result<bool, CliError> {
        Ok(self.may_operate()
            && self.broadest_credential().await?.is_none()
            && !self.has_stored_entry()?)
    }

    fn strict_operator_client(&self, namespace: String) -> Result<Client, CliError> {
        let Some(credential) = self.operator_credential()? else {
            return Err(CliError::no_credential("this node's operator.key can not be read here").with_hint(
                "run this on the node's machine, as the user that the node runs as, with DEBROS_NODE_DATA_DIR set to its \
                 data folder",
            ));
        };
        Ok(self.scoped_client(&credential, namespace))
    }

    /// Whether any credential is stored for the node, in whichever namespace.
    fn has_stored_entry(&self) -> Result<bool, CliError> {
        Ok(open_credential_file()?
            .entries()
            .map_err(credential_file_failure)?
            .iter()
            .any(|entry| entry.peer_id == self.peer_id))
    }

    /// The other way there is on the node's machine.
    fn with_operator_hint(&self, failure: CliError) -> CliError {
        if !self.may_operate() {
            return failure;
        }
        let way = "with --operator the command acts as the node's operator";
        let hint =
            failure.hint.as_ref().map_or_else(|| way.to_owned(), |hint| format!("{hint}; {way}"));
        failure.with_hint(hint)
    }

    /// Whether this user may act as the node's operator.
    pub(super) fn may_operate(&self) -> bool {
        self.operator_credential().is_ok_and(|credential| credential.is_some())
    }

    /// The namespace that is named, else the one of a newcomer.
    pub(super) fn namespace_or_default(&self) -> Result<Namespace, CliError> {
        Ok(Namespace::new(self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE))?)
    }

    fn operator_credential(&self) -> Result<Option<String>, CliError> {
        let Some(node) = &self.local_node else {
            return Ok(None);
        };
        node.operator_credential().map_err(|error| CliError::no_credential(error.to_string()))
    }

    /// With a credential, in the namespace that is named, else in the credential's own.
    pub(super) fn client_with(&self, credential: &str) -> Client {
        self.scoped_client(credential, self.namespace.clone().unwrap_or_default())
    }

    fn scoped_client(&self, credential: &str, namespace: String) -> Client {
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

pub(super) fn env_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
