//! `network-node api-key`: the operator makes an API key at the running node, before any wallet signed in.

use super::args::ApiKeyArgs;
use crate::credentials::{Entry, Store};
use crate::fail::Failure;
use crate::local_node::LocalNode;
use debros_client::{Client, Config};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// How long the node may take. It is on this machine.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn make(wanted: &ApiKeyArgs, data_dir: &Path) -> Result<(), Failure> {
    let shown = data_dir.display();
    let node = LocalNode::read(data_dir).ok_or_else(|| {
        Failure::unreachable(format!("no node runs on {shown}: there is no peer.info in it"))
            .hint("start the node, or name its data folder with --data-dir or --config")
    })?;
    let credential = node.operator_credential().map_err(|error| Failure::new(error.to_string()))?.ok_or_else(|| {
        Failure::no_credential(format!("{shown}/operator.key can not be read"))
            .hint("run this as the user that the node runs as, or with sudo")
    })?;
    let config = Config::new("")
        .bootstrap_peer(&node.address)
        .credential(credential)
        .connect_timeout(TIMEOUT)
        .call_timeout(TIMEOUT);
    let client = Client::connect(config).await?;
    let made =
        client.operator().create_api_key(&wanted.namespace, &wanted.name, &wanted.role, wanted.scopes.clone()).await;
    client.close().await;
    let key = made?.api_key;
    writeln!(std::io::stdout(), "{key}")?;
    if wanted.save {
        let store = Store::in_home().map_err(|error| Failure::new(error.to_string()))?;
        let entry = Entry {
            peer_id: node.peer_id.to_string(),
            gateway_url: String::new(),
            namespace: wanted.namespace.clone(),
            api_key: key,
            stored_at: debros_proto::now_ms(),
        };
        store.put(entry).map_err(|error| Failure::new(error.to_string()))?;
    }
    Ok(())
}
