//! What `--dev` adds to a node: an API key that is made once and kept, and a welcome that shows how to use it.

use crate::credentials::{Entry, Store};
use debros_client::{Client, Code, Config, Result, Scope};
use debros_node::Node;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// The namespace that a newcomer works in.
const NAMESPACE: &str = "default";
const TIMEOUT: Duration = Duration::from_secs(10);

/// Prints where the gateway is, the key, and three commands that work when pasted. A key that can not be made or
/// stored is told and does not end the node.
pub(super) async fn welcome(node: &Node, url: &str, data_dir: &Path) {
    let operator = Config::new("").credential(node.operator_credential()).call_timeout(TIMEOUT);
    let client = Client::local(node.handler(), &operator);
    let text = match key(&client, &node.peer_id().to_string(), url).await {
        Ok(key) => text(url, &key, data_dir),
        Err(error) => {
            tracing::error!("no API key could be made: {error}");
            return;
        }
    };
    // When nobody reads the screen there is nobody to welcome.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// The key of the last start, if the node still takes it; else a new one, stored for the next.
async fn key(client: &Client, peer_id: &str, url: &str) -> Result<String> {
    let store = Store::in_home();
    let stored = match &store {
        Ok(store) => store.find(peer_id, Some(NAMESPACE)).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            None
        }),
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    };
    if let Some(entry) = &stored
        && is_valid(client, &entry.api_key).await?
    {
        if entry.gateway_url != url {
            put(&store, Entry { gateway_url: url.to_owned(), ..entry.clone() });
        }
        return Ok(entry.api_key.clone());
    }
    let made = client.operator().create_api_key(NAMESPACE, "make dev", "admin", Vec::new()).await?;
    put(
        &store,
        Entry {
            peer_id: peer_id.to_owned(),
            gateway_url: url.to_owned(),
            namespace: NAMESPACE.to_owned(),
            api_key: made.api_key.clone(),
            stored_at: debros_proto::now_ms(),
        },
    );
    Ok(made.api_key)
}

async fn is_valid(client: &Client, key: &str) -> Result<bool> {
    let scope = Scope { credential: key.into(), timeout: TIMEOUT, ..Scope::default() };
    match client.scoped(scope).network().who_am_i().await {
        Ok(answer) => Ok(answer.namespace == NAMESPACE),
        Err(error) if error.code == Code::Unauthenticated => Ok(false),
        Err(error) => Err(error),
    }
}

fn put(store: &std::result::Result<Store, crate::credentials::StoreError>, entry: Entry) {
    let Ok(store) = store else { return };
    if let Err(error) = store.put(entry) {
        tracing::warn!("the API key can not be kept for the next start: {error}");
    }
}

fn text(url: &str, key: &str, data_dir: &Path) -> String {
    // In plain lines without decoration: each command can be copied as it stands.
    format!(
        "
DeBros Network runs on this machine, for development.

  gateway   {url}   (try it in a browser: {url}/docs)
  API key   {key}
  data      {data}

In another terminal, in this folder:

  curl -sS -X PUT '{url}/v1/storage?key=hello' -H 'Authorization: Bearer {key}' --data-binary 'Hello, network!' && curl -sS '{url}/v1/storage?key=hello' -H 'Authorization: Bearer {key}'

  curl -sS '{url}/v1/db/query' -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{\"sql\":\"SELECT ?1 + ?2 AS sum\",\"args\":[40,2]}}'

  {cli} storage get hello

Ctrl-C stops it. The key stays the same at the next start.

",
        data = data_dir.display(),
        cli = network_cli(),
    )
}

/// How to call the CLI from the folder that this program was started in.
fn network_cli() -> String {
    let in_bin = Path::new("bin/network-cli");
    if in_bin.exists() {
        return "./bin/network-cli".to_owned();
    }
    let beside =
        std::env::current_exe().ok().map(|path| path.with_file_name("network-cli")).filter(|path| path.exists());
    beside.map_or_else(|| "network-cli".to_owned(), |path| path.display().to_string())
}
