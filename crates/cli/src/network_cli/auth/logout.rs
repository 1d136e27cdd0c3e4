//! `auth logout`: ends what a sign-in began.

use crate::credentials::Entry;
use crate::fail::Failure;
use crate::network_cli::credential::{API_KEY, store, unusable};
use crate::network_cli::output::{Output, note, printable};
use crate::network_cli::session::{Session, variable};
use debros_client::Code;
use debros_proto::words::counted;
use serde_json::json;

/// What became of the stored API key.
enum Key {
    /// None was stored.
    None,
    /// The node takes it no more.
    Revoked,
    /// An operator made it, with this id; it came with no sign-in, and stays valid.
    Forgotten(String),
}

pub(super) async fn run(session: &Session, out: Output, all: bool) -> Result<(), Failure> {
    if variable(API_KEY).is_some() {
        note("DEBROS_API_KEY is set, and stays in use");
    }
    let store = store()?;
    let Some(entry) = session.chosen(&store)? else {
        return Err(Failure::no_credential(format!("nothing is stored for the node {}", session.peer_id)));
    };
    let token = if entry.has_session() { session.session_token(&store, &entry).await? } else { None };
    if all && token.is_none() {
        return Err(Failure::no_credential(
            "all sessions can be ended by a session alone, and none that lives is stored",
        )
        .hint("sign in with `network-cli auth login` first"));
    }
    // The key first: its owner's session is what revokes it.
    let key = revoke_key(session, &entry, token.as_deref()).await?;
    let revoked = match token {
        Some(token) => end_sessions(session, &entry, &token, all).await?,
        None => 0,
    };
    let locked = store.lock(session.timeout).await.map_err(unusable)?;
    locked.remove(&entry).map_err(unusable)?;
    let became = match &key {
        Key::None => "none",
        Key::Revoked => "revoked",
        Key::Forgotten(_) => "forgotten",
    };
    out.result(
        || json!({ "status": "ok", "revoked": revoked, "api_key": became }),
        || {
            let key = match &key {
                Key::None => String::new(),
                Key::Revoked => "; its API key is revoked".to_owned(),
                Key::Forgotten(id) => format!(
                    "; the operator's API key {} is forgotten here and stays valid: `network-cli auth keys revoke` revokes it",
                    printable(id)
                ),
            };
            let ended = counted(revoked, "session");
            format!("signed out of namespace {}; {ended} ended{key}", entry.namespace)
        },
    )
}

/// With the session; when that has ended, with the key itself, which an admin's key may. A key that can not be revoked
/// stays stored: forgotten, it would live on where nobody knows of it.
async fn revoke_key(session: &Session, entry: &Entry, token: Option<&str>) -> Result<Key, Failure> {
    if entry.api_key.is_empty() {
        return Ok(Key::None);
    }
    let by_itself = session.public().with_credential(entry.api_key.as_str());
    let id = match by_itself.network().who_am_i().await {
        Ok(who) => who.subject,
        // It is revoked already.
        Err(error) if error.code.is_unauthenticated() => return Ok(Key::Revoked),
        Err(error) => return Err(error.into()),
    };
    if entry.wallet.is_empty() {
        return Ok(Key::Forgotten(id));
    }
    let client = token.map_or(by_itself, |token| session.public().with_credential(token));
    match client.auth().revoke_key(id.clone()).await {
        Ok(_) => Ok(Key::Revoked),
        Err(error) if error.code == Code::Forbidden => Err(stays_valid(entry, &id)),
        Err(error) => Err(error.into()),
    }
}

fn stays_valid(entry: &Entry, id: &str) -> Failure {
    let Entry { wallet, namespace, .. } = entry;
    let message = format!(
        "not signed out: no live session of {wallet} in namespace {namespace} is stored, and the API key {id} may not revoke \
         itself. It stays valid, and stored"
    );
    let hint = format!(
        "sign in again with `network-cli auth login -n {namespace}`, which keeps the key, and then out; or let an admin of \
         the namespace run `network-cli auth keys revoke {id} -n {namespace}`"
    );
    Failure::new(printable(&message)).hint(printable(&hint))
}

async fn end_sessions(session: &Session, entry: &Entry, token: &str, all: bool) -> Result<u64, Failure> {
    if all {
        return Ok(session.public().with_credential(token).auth().logout_all().await?);
    }
    // The token may have been renewed a moment ago.
    let known = store()?.find(&entry.peer_id, Some(&entry.namespace), Some(&entry.wallet)).map_err(unusable)?;
    let refresh_token = known.unwrap_or_else(|| entry.clone()).refresh_token;
    Ok(session.public().auth().logout(refresh_token, "").await?)
}
