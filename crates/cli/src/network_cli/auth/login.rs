//! `auth login`: a wallet signs in, and what it gets is stored.

use crate::cli_error::CliError;
use crate::credentials::{CredentialFile, StoredCredential};
use crate::network_cli::auth_args::LoginArgs;
use crate::network_cli::credential_lookup::API_KEY;
use crate::network_cli::environment::env_variable;
use crate::network_cli::node_connection::NodeConnection;
use crate::network_cli::output::{
    Output, format_time, json_text, json_time, print_note, printable,
};
use crate::network_cli::terminal::{ask_line, is_interactive};
use crate::network_cli::{browser, gateway_lookup, keystore};
use crate::sign_in;
use serde_json::json;
use std::path::Path;

/// Refuses to wait for a browser where nobody sits at a terminal.
pub(super) fn check_interactive(how: &LoginArgs) -> Result<(), CliError> {
    if how.keystore.is_some() || how.no_browser || is_interactive() {
        return Ok(());
    }
    Err(CliError::no_credential("a sign-in in the browser needs somebody at a terminal, and there is none").with_hint(
        "sign in with `network-cli auth login --keystore FILE --password-file FILE` (or DEBROS_KEYSTORE_PASSWORD in place of \
         the file), or set DEBROS_API_KEY; --no-browser prints the page's address and waits for a browser elsewhere",
    ))
}

pub(super) async fn run(
    connection: &NodeConnection,
    out: Output,
    how: &LoginArgs,
) -> Result<(), CliError> {
    let entry = match &how.keystore {
        Some(path) => with_keystore(connection, path, how.password_file.as_deref()).await?,
        None => in_browser(connection, how.gateway.as_deref(), !how.no_browser).await?,
    };
    if env_variable(API_KEY).is_some() {
        print_note("DEBROS_API_KEY is set, and goes before what was stored now");
    }
    out.write_result(
        || {
            json!({
                "status": "ok",
                "wallet": entry.wallet,
                "namespace": entry.namespace,
                "peer_id": entry.peer_id,
                "gateway_url": json_text(&entry.gateway_url),
                "session_expires_at": json_time(entry.refresh_expires_at),
            })
        },
        || {
            let until = match entry.refresh_expires_at {
                0 => String::new(),
                end => format!(", until {} without use", format_time(end)),
            };
            let (wallet, namespace) = (printable(&entry.wallet), printable(&entry.namespace));
            format!("signed in as {wallet} in namespace {namespace}{until}")
        },
    )
}

/// Asks whether to sign in, where a command found no credential and somebody sits at a terminal.
/// Returns whether a credential is stored now, so that the command can run again.
pub(in crate::network_cli) async fn offer(
    connection: &NodeConnection,
    missing: &CliError,
) -> Result<bool, CliError> {
    let Some(question) = missing.sign_in_question.clone().filter(|_| is_interactive()) else {
        return Ok(false);
    };
    let answer = ask_line(question).await?.map(|answer| answer.to_ascii_lowercase());
    if !matches!(answer.as_deref(), Some("" | "y" | "yes")) {
        return Ok(false);
    }
    in_browser(connection, None, true).await?;
    Ok(true)
}

/// Over P2P alone.
async fn with_keystore(
    connection: &NodeConnection,
    path: &Path,
    password_file: Option<&Path>,
) -> Result<StoredCredential, CliError> {
    let namespace = connection.namespace_or_default()?;
    // Asking and opening take their time; the connection to the node stays alive meanwhile.
    let (path, password_file) = (path.to_owned(), password_file.map(Path::to_owned));
    let opening =
        tokio::task::spawn_blocking(move || keystore::open(&path, password_file.as_deref()));
    let key = opening.await.map_err(|error| CliError::new(error.to_string()))??;
    let opened = sign_in::sign_in_with_key(connection.public_client(), &key, &namespace).await?;
    let mut entry = new_entry(connection, opened.namespace.clone(), opened.subject.clone());
    entry.gateway_url = gateway_lookup::local_gateway_url(connection).unwrap_or_default();
    entry.set_session(&opened);
    store_entry(connection, entry).await
}

/// Through the page of a gateway, and back to a callback on this machine.
async fn in_browser(
    connection: &NodeConnection,
    gateway: Option<&str>,
    open: bool,
) -> Result<StoredCredential, CliError> {
    let namespace = connection.namespace_or_default()?;
    let url = gateway_lookup::find(connection, gateway).await?;
    let given = browser::sign_in(&url, &namespace, open).await?;
    // Only the state proves where it comes from; the node says whether it is valid.
    let identity = match connection.client_with(&given.api_key).network().who_am_i().await {
        Ok(identity) => identity,
        Err(error) if error.code.is_unauthenticated() => {
            return Err(CliError::new(format!("the node {} does not know the key that {url} made", connection.peer_id))
                .with_hint(
                    "the gateway belongs to another node: name the right one with --gateway or DEBROS_GATEWAY_URL",
                ));
        }
        Err(error) => return Err(error.into()),
    };
    let mut entry = new_entry(connection, identity.namespace, identity.wallet);
    entry.gateway_url = url;
    entry.api_key = given.api_key;
    entry.refresh_token = given.refresh_token;
    store_entry(connection, entry).await
}

fn new_entry(connection: &NodeConnection, namespace: String, wallet: String) -> StoredCredential {
    let (peer_id, stored_at) = (connection.peer_id.clone(), debros_proto::now_ms());
    StoredCredential { peer_id, namespace, wallet, stored_at, ..StoredCredential::default() }
}

/// What was signed in last is what commands use. An API key that is stored already stays as long as
/// it is valid; the session before ends.
async fn store_entry(
    connection: &NodeConnection,
    mut entry: StoredCredential,
) -> Result<StoredCredential, CliError> {
    let credential_file = CredentialFile::in_home()?;
    let locked = credential_file.lock(connection.timeout).await?;
    let before = locked.find(&entry.peer_id, Some(&entry.namespace), Some(&entry.wallet))?;
    let before = before.unwrap_or_default();
    let mut superfluous = String::new();
    if !before.api_key.is_empty()
        && before.api_key != entry.api_key
        && !is_key_revoked(connection, &before.api_key).await
    {
        superfluous = std::mem::replace(&mut entry.api_key, before.api_key);
    }
    locked.put_current(entry.clone())?;
    drop(locked);
    print_note(&format!("stored in {}", credential_file.path().display()));
    if !superfluous.is_empty()
        && let Err(cli_error) =
            revoke_superfluous_key(connection, &credential_file, &entry, superfluous).await
    {
        print_note(&format!(
            "the stored API key stays in use; the new one cannot be revoked: {}",
            cli_error.message
        ));
    }
    if !before.refresh_token.is_empty() && before.refresh_token != entry.refresh_token {
        // Unused, it would live on for weeks.
        match connection.public_client().auth().logout(before.refresh_token, "").await {
            Err(error) if !error.code.is_unauthenticated() => print_note(&format!(
                "the session before cannot be ended: {}; `network-cli auth logout --all` ends all",
                error.message
            )),
            _ => {}
        }
    }
    Ok(entry)
}

/// Whether the node says that a key is not valid. When it cannot be asked, the key is kept.
async fn is_key_revoked(connection: &NodeConnection, key: &str) -> bool {
    let asked = connection.public_client().with_credential(key).network().who_am_i().await;
    asked.is_err_and(|error| error.code.is_unauthenticated())
}

/// Revokes a key that the sign-in made, where a stored one stays in use: forgotten, it would stay
/// valid.
async fn revoke_superfluous_key(
    connection: &NodeConnection,
    credential_file: &CredentialFile,
    entry: &StoredCredential,
    key: String,
) -> Result<(), CliError> {
    let id = connection.public_client().with_credential(key).network().who_am_i().await?.subject;
    let named = |why: &str| CliError::new(format!("{id}: {why}"));
    let token = connection
        .session_token(credential_file, entry)
        .await?
        .ok_or_else(|| named("there is no session"))?;
    let revoked =
        connection.public_client().with_credential(token).auth().revoke_key(id.clone()).await;
    revoked.map(drop).map_err(|error| named(&error.message))
}
