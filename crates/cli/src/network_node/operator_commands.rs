//! The operator's commands for the running node, on the node's machine: API keys, the keys that sign
//! access tokens, and join tokens.

use super::args::ApiKeyArgs;
use crate::cli_error::CliError;
use crate::credentials::{CredentialFile, CredentialFileError, StoredCredential};
use crate::local_node::LocalNode;
use debros_client::{Client, Config};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// How long the node may take. It is on this machine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection with the operator's credential.
struct OperatorConnection {
    client: Client,
    node: LocalNode,
}

impl OperatorConnection {
    async fn connect(data_dir: &Path) -> Result<Self, CliError> {
        let shown = data_dir.display();
        let node = LocalNode::read(data_dir).ok_or_else(|| {
            CliError::unreachable(format!("no node runs on {shown}: there is no peer.info in it"))
                .with_hint("start the node, or name its data folder with --data-dir or --config")
        })?;
        let credential =
            node.operator_credential().map_err(|error| CliError::new(error.to_string()))?;
        let credential = credential.ok_or_else(|| {
            CliError::no_credential(format!("{shown}/operator.key cannot be read"))
                .with_hint("run this as the user that the node runs as, or with sudo")
        })?;
        let config = Config::new("")
            .bootstrap_peer(&node.address)
            .credential(credential)
            .connect_timeout(TIMEOUT)
            .call_timeout(TIMEOUT);
        Ok(Self { client: Client::connect(config).await?, node })
    }
}

/// `api-key`: makes a key, before any wallet signed in.
pub(super) async fn create_api_key(wanted: &ApiKeyArgs, data_dir: &Path) -> Result<(), CliError> {
    let OperatorConnection { client, node } = OperatorConnection::connect(data_dir).await?;
    let made = client
        .operator()
        .create_api_key(&wanted.namespace, &wanted.name, &wanted.role, wanted.scopes.clone())
        .await;
    client.close().await;
    let key = made?.api_key;
    writeln!(std::io::stdout(), "{key}")?;
    if wanted.save {
        let entry = StoredCredential {
            peer_id: node.peer_id.to_string(),
            namespace: wanted.namespace.clone(),
            api_key: key,
            stored_at: debros_proto::now_ms(),
            ..StoredCredential::default()
        };
        store_credential(entry).await.map_err(|error| CliError::new(error.to_string()))?;
    }
    Ok(())
}

async fn store_credential(entry: StoredCredential) -> Result<(), CredentialFileError> {
    CredentialFile::in_home()?.lock(TIMEOUT).await?.put_current(entry)
}

/// `token`: prints what lets one new node into the cluster.
pub(super) async fn create_join_token(data_dir: &Path) -> Result<(), CliError> {
    let OperatorConnection { client, .. } = OperatorConnection::connect(data_dir).await?;
    let made = client.cluster().create_join_token().await;
    client.close().await;
    writeln!(std::io::stdout(), "{}", made?.token)?;
    Ok(())
}

/// `rotate-key`: the node signs with a new key from now on. Prints its id.
pub(super) async fn rotate_key(data_dir: &Path) -> Result<(), CliError> {
    let OperatorConnection { client, .. } = OperatorConnection::connect(data_dir).await?;
    let key = client.operator().rotate_signing_key().await;
    client.close().await;
    writeln!(std::io::stdout(), "{}", key?.kid)?;
    Ok(())
}

/// `remove-signing-key`: no node believes tokens of this key any more.
pub(super) async fn remove_signing_key(kid: &str, data_dir: &Path) -> Result<(), CliError> {
    let OperatorConnection { client, .. } = OperatorConnection::connect(data_dir).await?;
    let removed = client.operator().remove_signing_key(kid).await;
    client.close().await;
    if removed? {
        let kid = debros_proto::ids::excerpt(kid);
        writeln!(
            std::io::stdout(),
            "removed the signing key {kid}: no node takes access tokens that it signed any more"
        )?;
        return Ok(());
    }
    Err(CliError::not_found(format!(
        "there is no signing key \"{}\"",
        debros_proto::ids::excerpt(kid)
    ))
    .with_hint(
        "/v1/auth/jwks of a gateway lists the keys; one that was removed is not there any more",
    ))
}
