//! `auth wallets`, `auth use`, `auth wallet new`, `auth sign`.

use crate::cli_error::CliError;
use crate::credentials::{CredentialFile, OPERATOR, StoredCredential};
use crate::network_cli::auth_args::KeystoreArgs;
use crate::network_cli::node_connection::NodeConnection;
use crate::network_cli::output::{
    Output, TableCell, format_time, json_list, json_text, json_time, print_note, printable,
};
use crate::network_cli::{input, keystore};
use debros_auth::{PrivateKey, Wallet};
use serde_json::json;
use std::path::{Path, PathBuf};

/// A text to sign is short enough to read.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Characters of a key that are shown to recognise it.
const PREFIX_CHARS: usize = 11;

/// What is stored, of all nodes.
pub(super) fn list(out: Output) -> Result<(), CliError> {
    let mut entries = CredentialFile::in_home()?.entries()?;
    entries.sort_by(|a, b| {
        (&a.peer_id, &a.namespace, &a.wallet).cmp(&(&b.peer_id, &b.namespace, &b.wallet))
    });
    if out.is_json() {
        return out.write_json(&json_list(entries.iter().map(entry_json)));
    }
    if entries.is_empty() {
        print_note("nothing is stored; `network-cli auth login` signs a wallet in");
        return Ok(());
    }
    let rows = entries.iter().map(|entry| {
        let key = if entry.api_key.is_empty() {
            "-".to_owned()
        } else {
            format!("{}…", key_prefix(entry))
        };
        let session = match (entry.has_session(), entry.refresh_expires_at) {
            (false, _) => "-".to_owned(),
            (true, 0) => "yes".to_owned(),
            (true, end) => format!("until {}", format_time(end)),
        };
        let gateway = if entry.gateway_url.is_empty() { "-" } else { &entry.gateway_url };
        [
            if entry.current { "*" } else { "" },
            entry.display_name(),
            &entry.namespace,
            &key,
            &session,
            &entry.peer_id,
            gateway,
        ]
        .map(TableCell::from)
        .into()
    });
    out.write_table(&["", "WALLET", "NAMESPACE", "KEY", "SESSION", "NODE", "GATEWAY"], rows)
}

fn entry_json(entry: &StoredCredential) -> serde_json::Value {
    json!({
        "wallet": json_text(&entry.wallet),
        "namespace": entry.namespace,
        "peer_id": entry.peer_id,
        "gateway_url": json_text(&entry.gateway_url),
        "current": entry.current,
        "key_prefix": json_text(key_prefix(entry)),
        "has_session": entry.has_session(),
        "session_expires_at": json_time(entry.refresh_expires_at),
        "stored_at": json_time(entry.stored_at),
    })
}

fn key_prefix(entry: &StoredCredential) -> &str {
    entry.api_key.get(..PREFIX_CHARS).unwrap_or_default()
}

/// Makes a stored wallet the one that commands for the node use.
pub(super) async fn use_wallet(
    connection: &NodeConnection,
    out: Output,
    wanted: &str,
) -> Result<(), CliError> {
    let wallet =
        if wanted == OPERATOR { String::new() } else { Wallet::parse(wanted)?.to_string() };
    let credential_file = CredentialFile::in_home()?;
    let locked = credential_file.lock(connection.timeout).await?;
    let namespace = connection.namespace.as_deref();
    let found = locked.find(&connection.peer_id, namespace, Some(&wallet))?;
    let entry = found.ok_or_else(|| {
        let in_namespace =
            namespace.map(|name| format!(" in namespace {name}")).unwrap_or_default();
        CliError::not_found(format!(
            "{wanted} is not stored for the node {}{in_namespace}",
            connection.peer_id
        ))
        .with_hint(
            "`network-cli auth wallets` lists what is; `network-cli auth login` signs a wallet in",
        )
    })?;
    locked.put_current(entry.clone())?;
    out.write_result(
        || json!({ "status": "ok", "wallet": json_text(&entry.wallet), "namespace": entry.namespace }),
        || format!("commands use {} in namespace {} now", entry.display_name(), entry.namespace),
    )
}

/// Makes a wallet in a keystore file.
pub(super) fn create_wallet(
    out: Output,
    file: Option<PathBuf>,
    password_file: Option<&Path>,
) -> Result<(), CliError> {
    let key = PrivateKey::generate()?;
    let wallet = key.wallet();
    let file = match file {
        Some(file) => file,
        None => {
            CredentialFile::in_home()?.folder().join("keystores").join(format!("{wallet}.json"))
        }
    };
    keystore::create(&file, &key, password_file)?;
    print_note(&format!(
        "kept in {}; the file and its password are the wallet: keep a copy of both",
        file.display()
    ));
    out.write_result(
        || json!({ "wallet": wallet.to_string(), "keystore": file }),
        || wallet.to_string(),
    )
}

/// Signs a text as wallets do (`personal_sign`).
pub(super) fn sign_message(
    out: Output,
    wallet: &KeystoreArgs,
    message: String,
) -> Result<(), CliError> {
    let is_literal = message != "-";
    let bytes = input::read(message, is_literal, MAX_MESSAGE_BYTES)?;
    let mut text =
        String::from_utf8(bytes).map_err(|_| CliError::usage("the text to sign is not UTF-8"))?;
    if !is_literal && text.ends_with('\n') {
        // The line end that `echo` and editors add.
        text.pop();
    }
    let key = keystore::open(&wallet.keystore, wallet.password_file.as_deref())?;
    let signature = key.sign_personal(&text);
    out.write_result(
        || json!({ "wallet": key.wallet().to_string(), "signature": signature }),
        || printable(&signature),
    )
}
