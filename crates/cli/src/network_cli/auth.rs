//! `auth …`: what the credential stands for, and API keys.

use super::args::{AuthCommand, KeysCommand};
use super::output::{Output, Shown, note, printable, time};
use super::session::Session;
use crate::credentials::{Entry, Store};
use crate::fail::Failure;
use debros_client::rpc::ApiKey;
use serde_json::json;

pub(super) async fn run(
    session: &Session,
    out: Output,
    command: AuthCommand,
    namespace: Option<&str>,
) -> Result<(), Failure> {
    match command {
        AuthCommand::Whoami => whoami(session, out).await,
        AuthCommand::Token => {
            let credential = session.credential()?;
            out.result(|| json!({ "token": credential }), || credential.clone())
        }
        AuthCommand::Keys(KeysCommand::List) => list(session, out).await,
        AuthCommand::Keys(KeysCommand::Create { name, role, scopes, save }) => {
            let namespace = namespace.unwrap_or("default");
            let made = session.operator()?.operator().create_api_key(namespace, name, role, scopes).await?;
            let info = made.info.unwrap_or_default();
            out.result(
                || {
                    let mut object = key_json(&info);
                    object["api_key"] = made.api_key.as_str().into();
                    object
                },
                || made.api_key.clone(),
            )?;
            if save {
                store(session, namespace, &made.api_key)?;
            }
            Ok(())
        }
        AuthCommand::Keys(KeysCommand::Revoke { id }) => {
            let revoked = session.operator_in_namespace()?.auth().revoke_key(id.clone()).await?;
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

async fn whoami(session: &Session, out: Output) -> Result<(), Failure> {
    let who = session.user()?.network().who_am_i().await?;
    if out.is_json() {
        return out.json(&json!({
            "authenticated": true,
            "method": who.method,
            "subject": who.subject,
            "namespace": who.namespace,
            "role": who.role,
            "scopes": who.scopes,
            "key_prefix": who.key_prefix,
            "created_at": who.created_at,
        }));
    }
    let scopes = if who.scopes.is_empty() { "all of the role".to_owned() } else { who.scopes.join(" ") };
    let lines = [
        ("method", who.method),
        ("subject", who.subject),
        ("namespace", who.namespace),
        ("role", who.role),
        ("scopes", scopes),
        ("key", format!("{}…", who.key_prefix)),
        ("created", time(who.created_at)),
    ];
    let text: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<11}{}", printable(value))).collect();
    out.line(&text.join("\n"))
}

async fn list(session: &Session, out: Output) -> Result<(), Failure> {
    let keys = session.operator_in_namespace()?.auth().list_keys().await?;
    if out.is_json() {
        return out.json(&keys.iter().map(key_json).collect::<Vec<_>>());
    }
    if keys.is_empty() {
        note("the namespace has no keys");
        return Ok(());
    }
    let rows = keys.iter().map(|key| {
        let state = if key.revoked_at == 0 { "live".to_owned() } else { format!("revoked {}", time(key.revoked_at)) };
        let scopes = if key.scopes.is_empty() { "all".to_owned() } else { key.scopes.join(" ") };
        let texts = [key.id.clone(), format!("{}…", key.prefix), key.name.clone(), key.role.clone(), scopes];
        let times = [time(key.created_at), time(key.last_used), state];
        texts.into_iter().chain(times).map(Shown::Text).collect()
    });
    out.table(&["ID", "KEY", "NAME", "ROLE", "SCOPES", "CREATED", "LAST USED", "STATE"], rows)
}

fn key_json(key: &ApiKey) -> serde_json::Value {
    json!({
        "id": key.id,
        "prefix": key.prefix,
        "namespace": key.namespace,
        "name": key.name,
        "role": key.role,
        "scopes": key.scopes,
        "created_at": key.created_at,
        "last_used": key.last_used,
        "revoked_at": key.revoked_at,
    })
}

fn store(session: &Session, namespace: &str, key: &str) -> Result<(), Failure> {
    let entry = Entry {
        peer_id: session.peer_id.clone(),
        gateway_url: String::new(),
        namespace: namespace.to_owned(),
        api_key: key.to_owned(),
        stored_at: debros_proto::now_ms(),
    };
    let stored = Store::in_home().and_then(|store| store.put(entry).map(|()| store.path()));
    let path = stored.map_err(|error| Failure::new(error.to_string()))?;
    note(&format!("stored in {}", path.display()));
    Ok(())
}
