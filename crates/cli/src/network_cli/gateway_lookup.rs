//! Which gateway's page a sign-in in the browser uses.

use super::environment::env_variable;
use super::node_connection::NodeConnection;
use super::output::print_note;
use crate::cli_error::CliError;
use crate::credentials::CredentialFile;
use crate::gateway_url;
use std::time::Duration;

const GATEWAY_URL: &str = "DEBROS_GATEWAY_URL";
/// Where a gateway listens by default.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// How long the one on this machine may take to report its node.
const PROBE: Duration = Duration::from_secs(2);
/// Its status is a few hundred bytes.
const MAX_STATUS_BYTES: u64 = 64 * 1024;

/// The gateway that is named, else that of the node on this machine, else the one that the last
/// sign-in used, else one at the default address, if it is the node's.
pub(super) async fn find(
    connection: &NodeConnection,
    named: Option<&str>,
) -> Result<String, CliError> {
    let url = match configured_gateway(connection, named)? {
        Some(url) => url,
        None if is_gateway_of_node(connection).await => DEFAULT_URL.to_owned(),
        None => {
            return Err(CliError::usage(format!("no gateway of the node {} is known", connection.peer_id)).with_hint(
                "name its URL with --gateway or DEBROS_GATEWAY_URL; without a gateway, `network-cli auth login --keystore FILE` \
                 signs in",
            ));
        }
    };
    if url.starts_with("http://") && !gateway_url::is_loopback(&url) {
        print_note(&format!(
            "warning: {url} is not encrypted: others on the way can read the key that it makes"
        ));
    }
    Ok(url)
}

/// The gateway of the node on this machine, while it runs.
pub(super) fn local_gateway_url(connection: &NodeConnection) -> Option<String> {
    gateway_url::read(&connection.local_node.as_ref()?.data_dir)
}

fn configured_gateway(
    connection: &NodeConnection,
    named: Option<&str>,
) -> Result<Option<String>, CliError> {
    let by_name = named.map(|url| (url.to_owned(), "--gateway"));
    let by_variable = || env_variable(GATEWAY_URL).map(|url| (url, GATEWAY_URL));
    if let Some((text, place)) = by_name.or_else(by_variable) {
        let url = gateway_url::parse(&text)
            .map_err(|what| CliError::usage(format!("{place}: {what}")))?;
        return Ok(Some(url));
    }
    if let Some(url) = local_gateway_url(connection) {
        return Ok(Some(url));
    }
    let stored =
        connection.stored_entry(&CredentialFile::in_home()?)?.map(|entry| entry.gateway_url);
    Ok(stored.and_then(|url| gateway_url::parse(&url).ok()))
}

/// Whether the gateway at the default address of this machine belongs to the node. Another program
/// may listen there.
async fn is_gateway_of_node(connection: &NodeConnection) -> bool {
    let Ok(node) = connection.public_client().network().status().await else { return false };
    let Some(reported) = fetch_gateway_node_id().await else { return false };
    reported == node.peer_id || reported == node.node_id
}

async fn fetch_gateway_node_id() -> Option<String> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PROBE)
        .build()
        .ok()?;
    let answer = client.get(format!("{DEFAULT_URL}/v1/status")).send().await.ok()?;
    if !answer.status().is_success()
        || answer.content_length().is_none_or(|length| length > MAX_STATUS_BYTES)
    {
        return None;
    }
    let status: serde_json::Value = answer.json().await.ok()?;
    Some(status["network"]["node_id"].as_str()?.to_owned())
}
