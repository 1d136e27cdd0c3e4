//! `auth logout`: ends what a sign-in began.

use crate::credentials::Entry;
use crate::fail::Failure;
use crate::network_cli::credential::{API_KEY, store, unusable};
use crate::network_cli::output::{Output, note};
use crate::network_cli::session::{Session, variable};
use debros_client::Code;
use serde_json::json;

pub(super) async fn run(session: &Session, out: Output, all: bool) -> Result<(), Failure> {
    if variable(API_KEY).is_some() {
        note("DEBROS_API_KEY is set, and stays in use");
    }
    let store = store()?;
    let Some(entry) = session.chosen(&store)? else {
        return Err(Failure::no_credential(format!("nothing is stored for the node {}", session.peer_id)));
    };
    let mut revoked = 0;
    if entry.has_session() {
        // When it has ended already, the right to revoke the key has ended with it.
        if let Some(token) = session.session_token(&store, &entry).await? {
            revoked = end(session, &entry, &token, all).await?;
        }
    } else if all {
        return Err(Failure::no_credential("all sessions can be ended by a session alone, and a key is stored")
            .hint("sign in with `network-cli auth login` first"));
    }
    let locked = store.lock(session.timeout).await.map_err(unusable)?;
    locked.remove(&entry).map_err(unusable)?;
    out.result(
        || json!({ "status": "ok", "revoked": revoked }),
        || format!("signed out of namespace {}; {revoked} sessions ended", entry.namespace),
    )
}

/// The key first: its owner's session is what revokes it.
async fn end(session: &Session, entry: &Entry, token: &str, all: bool) -> Result<u64, Failure> {
    let client = session.public().with_credential(token);
    if !entry.api_key.is_empty() && !entry.wallet.is_empty() {
        match session.public().with_credential(entry.api_key.as_str()).network().who_am_i().await {
            Ok(key) => {
                client.auth().revoke_key(key.subject).await?;
            }
            // It is revoked already.
            Err(error) if error.code == Code::Unauthenticated => {}
            Err(error) => return Err(error.into()),
        }
    }
    if all {
        return Ok(client.auth().logout_all().await?);
    }
    // The token may have been renewed a moment ago.
    let known = store()?.find(&entry.peer_id, Some(&entry.namespace), Some(&entry.wallet)).map_err(unusable)?;
    let refresh_token = known.unwrap_or_else(|| entry.clone()).refresh_token;
    Ok(session.public().auth().logout(refresh_token).await?)
}
