//! `auth keys …`: API keys of a namespace.

use crate::credentials::Entry;
use crate::fail::Failure;
use crate::network_cli::auth_args::KeysCommand;
use crate::network_cli::credential::{store, unusable};
use crate::network_cli::output::{Output, Shown, note, printable, time};
use crate::network_cli::session::Session;
use debros_client::rpc::ApiKey;
use debros_client::{Code, Error, NewKey};
use debros_gateway::answers::{CreateKeyAnswer, KeysAnswer};
use serde_json::json;

pub(super) async fn run(session: &Session, out: Output, command: KeysCommand) -> Result<(), Failure> {
    let told = |error: Error| may_as_operator(session, error);
    match command {
        KeysCommand::List { right } => {
            let client = session.reader(right.operator).await?;
            list(out, client.auth().list_keys().await.map_err(told)?)
        }
        KeysCommand::Create { name, role, scopes, save, right } => {
            let client = session.manager(right.operator).await?;
            let wanted = NewKey { name, role: role.unwrap_or_default(), scopes };
            let made = client.auth().create_key(wanted).await.map_err(told)?;
            let info = made.info.unwrap_or_default();
            out.result(|| CreateKeyAnswer::new(made.api_key.clone(), info.clone()), || made.api_key.clone())?;
            if save {
                keep(session, &info, made.api_key).await?;
            }
            Ok(())
        }
        KeysCommand::Revoke { id, right } => {
            let client = session.manager(right.operator).await?;
            let revoked = client.auth().revoke_key(id.clone()).await.map_err(told)?;
            out.result(
                || json!({ "status": "ok", "id": id, "revoked": revoked }),
                || {
                    let id = printable(&id);
                    if revoked { format!("revoked {id}") } else { format!("{id} was revoked before") }
                },
            )
        }
    }
}

/// On the node's machine there is another way.
pub(super) fn may_as_operator(session: &Session, error: Error) -> Failure {
    let forbidden = error.code == Code::Forbidden;
    let failure = Failure::from(error);
    if forbidden && session.may_operate() {
        return failure.hint("with --operator the command acts as the node's operator");
    }
    failure
}

fn list(out: Output, keys: Vec<ApiKey>) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&KeysAnswer::from(keys));
    }
    if keys.is_empty() {
        note("there are no keys");
        return Ok(());
    }
    let rows = keys.iter().map(|key| {
        let state = if key.revoked_at == 0 { "live".to_owned() } else { format!("revoked {}", time(key.revoked_at)) };
        let scopes = if key.scopes.is_empty() { "all".to_owned() } else { key.scopes.join(" ") };
        let maker = if key.wallet.is_empty() { "operator".to_owned() } else { key.wallet.clone() };
        let texts = [key.id.clone(), format!("{}…", key.prefix), key.name.clone(), key.role.clone(), scopes, maker];
        let times = [time(key.created_at), time(key.last_used), state];
        texts.into_iter().chain(times).map(Shown::Text).collect()
    });
    out.table(&["ID", "KEY", "NAME", "ROLE", "SCOPES", "MADE BY", "CREATED", "LAST USED", "STATE"], rows)
}

/// Beside the session of the wallet that made it, if there is one.
async fn keep(session: &Session, info: &ApiKey, key: String) -> Result<(), Failure> {
    let store = store()?;
    let locked = store.lock(session.timeout).await.map_err(unusable)?;
    let known = locked.find(&session.peer_id, Some(&info.namespace), Some(&info.wallet)).map_err(unusable)?;
    let entry = Entry {
        peer_id: session.peer_id.clone(),
        namespace: info.namespace.clone(),
        wallet: info.wallet.clone(),
        api_key: key,
        stored_at: debros_proto::now_ms(),
        ..known.unwrap_or_default()
    };
    locked.put_current(entry).map_err(unusable)?;
    note(&format!("stored in {}", store.path().display()));
    Ok(())
}
