//! What `--dev` adds to a node: a wallet that is signed in, an API key that is made once and kept,
//! and a welcome that shows how to use them.

use super::dev_wallet;
use crate::credentials::{CredentialFile, CredentialFileError, StoredCredential};
use crate::sign_in;
use debros_auth::{PrivateKey, Wallet};
use debros_client::{Client, Config, Namespace, NewKey, Result};
use debros_node::Node;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// The namespace that a new user works in.
const NAMESPACE: &str = "default";
const TIMEOUT: Duration = Duration::from_secs(10);

/// Prints where the gateway is, the wallet, the key, and three commands that work when pasted. What
/// cannot be made or stored is logged and does not end the node.
pub(super) async fn print_welcome(node: &Node, url: &str, data_dir: &Path) {
    let wallet = match dev_wallet::load_or_create(data_dir) {
        Ok(wallet) => wallet,
        Err(error) => return tracing::error!("{error}"),
    };
    let client = Client::local(node.handler(), &Config::new("").call_timeout(TIMEOUT));
    let text = match sign_in_dev_wallet(&client, &wallet, &node.peer_id().to_string(), url).await {
        Ok(key) => welcome_text(url, &wallet.wallet(), &key, data_dir),
        Err(error) => return tracing::error!("the development wallet cannot sign in: {error}"),
    };
    // When the screen is gone there is nobody to welcome.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Signs the wallet in, and returns its API key: that of the last start, if the node still takes
/// it, else a new one. Both are stored for the command line and for the next start.
async fn sign_in_dev_wallet(
    client: &Client,
    wallet: &PrivateKey,
    peer_id: &str,
    url: &str,
) -> Result<String> {
    let namespace = Namespace::new(NAMESPACE)?;
    let known = stored_entry(peer_id, &wallet.wallet()).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        None
    });
    let mut entry = known.unwrap_or_default();
    if !entry.refresh_token.is_empty() {
        // The session of the last start would live on unused for a month. That it cannot be ended
        // harms nobody.
        let _ = client.auth().logout(entry.refresh_token.as_str(), "").await;
    }
    let session = sign_in::sign_in_with_key(client, wallet, &namespace).await?;
    entry.set_session(&session);
    if entry.api_key.is_empty() || !is_valid(client, &entry.api_key).await? {
        let wanted = NewKey { name: "make dev".to_owned(), ..NewKey::default() };
        entry.api_key =
            client.with_credential(session.access_token).auth().create_key(wanted).await?.api_key;
    }
    let key = entry.api_key.clone();
    let (peer_id, gateway_url) = (peer_id.to_owned(), url.to_owned());
    let (namespace, wallet) = (NAMESPACE.to_owned(), wallet.wallet().to_string());
    let stored_at = debros_proto::now_ms();
    if let Err(error) = store_entry(StoredCredential {
        peer_id,
        gateway_url,
        namespace,
        wallet,
        stored_at,
        ..entry
    })
    .await
    {
        tracing::warn!("the sign-in cannot be kept for network-cli and the next start: {error}");
    }
    Ok(key)
}

fn stored_entry(
    peer_id: &str,
    wallet: &Wallet,
) -> std::result::Result<Option<StoredCredential>, CredentialFileError> {
    CredentialFile::in_home()?.find(peer_id, Some(NAMESPACE), Some(&wallet.to_string()))
}

/// Another wallet that was chosen with `auth use` stays chosen.
async fn store_entry(entry: StoredCredential) -> std::result::Result<(), CredentialFileError> {
    CredentialFile::in_home()?.lock(TIMEOUT).await?.put(entry)
}

async fn is_valid(client: &Client, key: &str) -> Result<bool> {
    match client.with_credential(key).network().who_am_i().await {
        Ok(answer) => Ok(answer.namespace == NAMESPACE),
        Err(error) if error.code.is_unauthenticated() => Ok(false),
        Err(error) => Err(error),
    }
}

fn welcome_text(url: &str, wallet: &Wallet, key: &str, data_dir: &Path) -> String {
    // In plain lines without decoration: each command can be copied as it stands.
    format!(
        "
DeBros Network runs on this machine, for development.

  gateway   {url}   (try it in a browser: {url}/docs)
  wallet    {wallet}   (signed in; {cli} auth whoami)
  API key   {key}
  data      {data}

In another terminal, in this folder:

  curl -sS -X PUT '{url}/v1/storage?key=hello' -H 'Authorization: Bearer {key}' --data-binary 'Hello, network!' && curl -sS '{url}/v1/storage?key=hello' -H 'Authorization: Bearer {key}'

  curl -sS '{url}/v1/db/query' -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{\"sql\":\"SELECT ?1 + ?2 AS sum\",\"args\":[40,2]}}'

  {cli} storage get hello

Ctrl-C stops it. The wallet and the key stay the same at the next start.

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
    let beside = std::env::current_exe()
        .ok()
        .map(|path| path.with_file_name("network-cli"))
        .filter(|path| path.exists());
    beside.map_or_else(|| "network-cli".to_owned(), |path| path.display().to_string())
}
