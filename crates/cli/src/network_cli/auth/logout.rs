//! `auth logout`: ends what a sign-in began.

use crate::cli_error::CliError;
use crate::credentials::{CredentialFile, StoredCredential};
use crate::network_cli::credential_lookup::API_KEY;
use crate::network_cli::environment::env_variable;
use crate::network_cli::node_connection::NodeConnection;
use crate::network_cli::output::{Output, print_note, printable};
use debros_client::Code;
use debros_proto::words::counted;
use serde_json::json;

/// What became of the stored API key.
enum ApiKeyOutcome {
    /// None was stored.
    None,
    /// The node does not accept it any more.
    Revoked,
    /// An operator made it, with this id; it came with no sign-in, and stays valid.
    Forgotten(String),
}

pub(super) async fn run(
    connection: &NodeConnection,
    out: Output,
    all: bool,
) -> Result<(), CliError> {
    if env_variable(API_KEY).is_some() {
        print_note("DEBROS_API_KEY is set, and stays in use");
    }
    let credential_file = CredentialFile::in_home()?;
    let Some(entry) = connection.require_chosen_entry(&credential_file)? else {
        return Err(CliError::no_credential(format!(
            "nothing is stored for the node {}",
            connection.peer_id
        )));
    };
    let token = if entry.has_session() {
        connection.session_token(&credential_file, &entry).await?
    } else {
        None
    };
    if all && token.is_none() {
        return Err(CliError::no_credential(
            "all sessions can be ended by a session alone, and none that lives is stored",
        )
        .with_hint("sign in with `network-cli auth login` first"));
    }
    // The key first: its owner's session is what revokes it.
    let key = revoke_key(connection, &entry, token.as_deref()).await?;
    let revoked = match token {
        Some(token) => end_sessions(connection, &entry, &token, all).await?,
        None => 0,
    };
    let locked = credential_file.lock(connection.timeout).await?;
    locked.remove(&entry)?;
    let became = match &key {
        ApiKeyOutcome::None => "none",
        ApiKeyOutcome::Revoked => "revoked",
        ApiKeyOutcome::Forgotten(_) => "forgotten",
    };
    out.write_result(
        || json!({ "status": "ok", "revoked": revoked, "api_key": became }),
        || {
            let key = match &key {
                ApiKeyOutcome::None => String::new(),
                ApiKeyOutcome::Revoked => "; its API key is revoked".to_owned(),
                ApiKeyOutcome::Forgotten(id) => format!(
                    "; the operator's API key {} is forgotten here and stays valid: `network-cli auth keys revoke` revokes it",
                    printable(id)
                ),
            };
            let ended = counted(revoked, "session");
            format!("signed out of namespace {}; {ended} ended{key}", entry.namespace)
        },
    )
}

/// With the session; when that has ended, with the key itself, which an admin's key may. A key that
/// cannot be revoked stays stored: forgotten, it would stay valid unnoticed.
async fn revoke_key(
    connection: &NodeConnection,
    entry: &StoredCredential,
    token: Option<&str>,
) -> Result<ApiKeyOutcome, CliError> {
    if entry.api_key.is_empty() {
        return Ok(ApiKeyOutcome::None);
    }
    let by_itself = connection.public_client().with_credential(entry.api_key.as_str());
    let id = match by_itself.network().who_am_i().await {
        Ok(identity) => identity.subject,
        // It is revoked already.
        Err(error) if error.code.is_unauthenticated() => return Ok(ApiKeyOutcome::Revoked),
        Err(error) => return Err(error.into()),
    };
    if entry.wallet.is_empty() {
        return Ok(ApiKeyOutcome::Forgotten(id));
    }
    let client = token.map_or(by_itself, |token| connection.public_client().with_credential(token));
    match client.auth().revoke_key(id.clone()).await {
        Ok(_) => Ok(ApiKeyOutcome::Revoked),
        Err(error) if error.code == Code::Forbidden => Err(key_stays_valid_error(entry, &id)),
        Err(error) => Err(error.into()),
    }
}

fn key_stays_valid_error(entry: &StoredCredential, id: &str) -> CliError {
    let StoredCredential { wallet, namespace, .. } = entry;
    let message = format!(
        "not signed out: no live session of {wallet} in namespace {namespace} is stored, and the API key {id} may not revoke \
         itself. It stays valid, and stored"
    );
    let hint = format!(
        "sign in again with `network-cli auth login -n {namespace}`, which keeps the key, and then out; or let an admin of \
         the namespace run `network-cli auth keys revoke {id} -n {namespace}`"
    );
    CliError::new(printable(&message)).with_hint(printable(&hint))
}

async fn end_sessions(
    connection: &NodeConnection,
    entry: &StoredCredential,
    token: &str,
    all: bool,
) -> Result<u64, CliError> {
    if all {
        return Ok(connection.public_client().with_credential(token).auth().logout_all().await?);
    }
    // The token may have been renewed a moment ago.
    let known = CredentialFile::in_home()?.find(
        &entry.peer_id,
        Some(&entry.namespace),
        Some(&entry.wallet),
    )?;
    let refresh_token = known.unwrap_or_else(|| entry.clone()).refresh_token;
    Ok(connection.public_client().auth().logout(refresh_token, "").await?)
}
