//! `auth keys …`: API keys of a namespace.

use crate::cli_error::CliError;
use crate::credentials::{CredentialFile, StoredCredential};
use crate::network_cli::auth_args::KeysCommand;
use crate::network_cli::node_connection::NodeConnection;
use crate::network_cli::output::{Output, TableCell, format_time, print_note, printable};
use debros_client::rpc::ApiKey;
use debros_client::{Error, NewKey};
use debros_gateway::answers::{CreateKeyAnswer, KeysAnswer};
use serde_json::json;

pub(super) async fn run(
    connection: &NodeConnection,
    out: Output,
    command: KeysCommand,
) -> Result<(), CliError> {
    let explain = |error: Error| connection.permission_error(error);
    match command {
        KeysCommand::List { operator_args } => {
            let client = connection.reader_client(operator_args.operator).await?;
            list(out, client.auth().list_keys().await.map_err(explain)?)
        }
        KeysCommand::Create { name, role, scopes, save, operator_args } => {
            let client = connection.manager_client(operator_args.operator).await?;
            let wanted = NewKey { name, role: role.unwrap_or_default(), scopes };
            let made = client.auth().create_key(wanted).await.map_err(explain)?;
            let info = made.info.unwrap_or_default();
            out.write_result(
                || CreateKeyAnswer::new(made.api_key.clone(), info.clone()),
                || made.api_key.clone(),
            )?;
            if save {
                store_key(connection, &info, made.api_key).await?;
            }
            Ok(())
        }
        KeysCommand::Revoke { id, operator_args } => {
            let client = connection.manager_client(operator_args.operator).await?;
            let revoked = client.auth().revoke_key(id.clone()).await.map_err(explain)?;
            out.write_result(
                || json!({ "status": "ok", "id": id, "revoked": revoked }),
                || {
                    let id = printable(&id);
                    if revoked {
                        format!("revoked {id}")
                    } else {
                        format!("{id} was revoked before")
                    }
                },
            )
        }
    }
}

fn list(out: Output, keys: Vec<ApiKey>) -> Result<(), CliError> {
    if out.is_json() {
        return out.write_json(&KeysAnswer::from(keys));
    }
    if keys.is_empty() {
        print_note("there are no keys");
        return Ok(());
    }
    let rows = keys.iter().map(|key| {
        let state = if key.revoked_at == 0 {
            "live".to_owned()
        } else {
            format!("revoked {}", format_time(key.revoked_at))
        };
        let scopes = if key.scopes.is_empty() { "all".to_owned() } else { key.scopes.join(" ") };
        let maker = if key.wallet.is_empty() { "operator".to_owned() } else { key.wallet.clone() };
        let texts = [
            key.id.clone(),
            format!("{}…", key.prefix),
            key.name.clone(),
            key.role.clone(),
            scopes,
            maker,
        ];
        let times = [format_time(key.created_at), format_time(key.last_used), state];
        texts.into_iter().chain(times).map(TableCell::Text).collect()
    });
    out.write_table(
        &["ID", "KEY", "NAME", "ROLE", "SCOPES", "MADE BY", "CREATED", "LAST USED", "STATE"],
        rows,
    )
}

/// Beside the session of the wallet that made it, if there is one.
async fn store_key(
    connection: &NodeConnection,
    info: &ApiKey,
    key: String,
) -> Result<(), CliError> {
    let credential_file = CredentialFile::in_home()?;
    let locked = credential_file.lock(connection.timeout).await?;
    let known = locked.find(&connection.peer_id, Some(&info.namespace), Some(&info.wallet))?;
    let entry = StoredCredential {
        peer_id: connection.peer_id.clone(),
        namespace: info.namespace.clone(),
        wallet: info.wallet.clone(),
        api_key: key,
        stored_at: debros_proto::now_ms(),
        ..known.unwrap_or_default()
    };
    locked.put_current(entry)?;
    print_note(&format!("stored in {}", credential_file.path().display()));
    Ok(())
}
