//! One stored credential, and which of several is meant.

use debros_client::rpc::SessionResponse;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An access token that ends this soon, in milliseconds, is not used for a new command.
const SOON_MS: i64 = 30_000;

/// The name of a key that an operator made, in place of a wallet.
pub const OPERATOR: &str = "operator";

/// What is stored for one wallet in one namespace of one node: an API key, a session, or both.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCredential {
    /// The node's identity.
    pub peer_id: String,
    /// The URL of the node's gateway, empty when none is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway_url: String,
    /// The namespace that the credential belongs to.
    pub namespace: String,
    /// The wallet that signed in, in lower case with 0x; empty for a key that an operator made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub wallet: String,
    /// The API key, empty when there is none. A secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_key: String,
    /// The access token of the session, empty when there is none. A secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub access_token: String,
    /// Until when the access token is good, milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub access_expires_at: i64,
    /// The session's refresh token, for one use; empty when there is no session. A secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refresh_token: String,
    /// Until when the refresh token is good, milliseconds since the Unix epoch; 0: not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refresh_expires_at: i64,
    /// Whether commands for this node use it when nothing else is said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub current: bool,
    /// When it was stored, milliseconds since the Unix epoch.
    #[serde(default)]
    pub stored_at: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The secrets are left out.
impl fmt::Debug for StoredCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredCredential")
            .field("peer_id", &self.peer_id)
            .field("gateway_url", &self.gateway_url)
            .field("namespace", &self.namespace)
            .field("wallet", &self.wallet)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl StoredCredential {
    /// Puts a session's tokens in place of those that were there.
    pub fn set_session(&mut self, session: &SessionResponse) {
        self.access_token.clone_from(&session.access_token);
        self.access_expires_at = session.access_expires_at;
        self.refresh_token.clone_from(&session.refresh_token);
        self.refresh_expires_at = session.refresh_expires_at;
    }

    /// The wallet, or [`OPERATOR`] for a key that an operator made.
    pub fn display_name(&self) -> &str {
        if self.wallet.is_empty() { OPERATOR } else { &self.wallet }
    }

    /// Whether there is a session that can be used or refreshed.
    pub fn has_session(&self) -> bool {
        !self.access_token.is_empty() || !self.refresh_token.is_empty()
    }

    /// The access token, when it is good for some time yet. `now` in milliseconds since the Unix
    /// epoch.
    pub fn usable_access_token(&self, now: i64) -> Option<&str> {
        let live =
            !self.access_token.is_empty() && self.access_expires_at > now.saturating_add(SOON_MS);
        live.then_some(self.access_token.as_str())
    }

    /// Whether both are the same wallet's in the same namespace of the same node.
    pub(super) fn has_same_identity(&self, other: &StoredCredential) -> bool {
        self.peer_id == other.peer_id
            && self.namespace == other.namespace
            && self.wallet == other.wallet
    }
}

/// The entry that commands for a node use: in the namespace, when one is named, and of the wallet,
/// when one is named.
///
/// Where no wallet is named, the current entry; in another namespace one of the current wallet,
/// else the only one there. A node without a current entry is one where the user signed out: no
/// command acts there until a wallet is named, so that no other wallet acts unnoticed. Of a wallet
/// that is named, the current entry, else the newest.
pub(super) fn choose_credential<'a>(
    entries: &'a [StoredCredential],
    peer_id: &str,
    namespace: Option<&str>,
    wallet: Option<&str>,
) -> Option<&'a StoredCredential> {
    let current = entries.iter().find(|entry| entry.peer_id == peer_id && entry.current);
    if wallet.is_none() && current.is_none() {
        return None;
    }
    let fits = |entry: &&StoredCredential| {
        entry.peer_id == peer_id
            && namespace.is_none_or(|name| entry.namespace == name)
            && wallet.is_none_or(|wallet| entry.wallet == wallet)
    };
    if wallet.is_some() {
        return entries.iter().filter(fits).max_by_key(|entry| (entry.current, entry.stored_at));
    }
    let of_current_wallet =
        |entry: &&StoredCredential| current.is_some_and(|current| current.wallet == entry.wallet);
    let mut fitting = entries.iter().filter(fits);
    if let Some(chosen) = fitting
        .clone()
        .find(|entry| entry.current)
        .or_else(|| fitting.clone().find(of_current_wallet))
    {
        return Some(chosen);
    }
    // The only one, when the namespace is named.
    let only = fitting.next().filter(|_| namespace.is_some());
    only.filter(|_| fitting.next().is_none())
}
