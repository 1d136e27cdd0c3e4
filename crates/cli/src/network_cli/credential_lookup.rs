//! With which credential a command calls: `DEBROS_API_KEY`, then what is stored for the node, then,
//! on a terminal, a sign-in in the browser. Nothing is ever asked where nobody can answer.

use super::auth::login;
use super::node_connection::{NodeConnection, env_variable};
use super::output::{print_note, printable};
use crate::cli_error::CliError;
use crate::credentials::{
    CredentialFile, CredentialFileError, LockedCredentialFile, StoredCredential,
};
use std::io::{self, IsTerminal as _, Write as _};

/// The variable that goes before what is stored.
pub(super) const API_KEY: &str = "DEBROS_API_KEY";

/// What to do without a terminal; it is said whenever a credential is missing.
pub(super) const HOW_TO_SIGN_IN: &str = "set DEBROS_API_KEY; or sign in with `network-cli auth login` (in a browser) or \
    `network-cli auth login --keystore FILE --password-file FILE` (without one)";

/// A credential that was found.
#[derive(Debug)]
pub(super) struct ResolvedCredential {
    secret: String,
    /// Whether it is a session's access token, which ends and can be renewed.
    is_session: bool,
}

impl ResolvedCredential {
    fn from_key(secret: String) -> Self {
        Self { secret, is_session: false }
    }

    fn from_token(secret: String) -> Self {
        Self { secret, is_session: true }
    }
}

impl NodeConnection {
    /// The user's credential. Looked for once in the life of a command.
    pub(super) async fn credential(&self) -> Result<&str, CliError> {
        let found = self.resolved.get_or_try_init(|| async {
            match self.existing_credential().await? {
                Some(found) => Ok(found),
                None => self.offer_sign_in().await,
            }
        });
        Ok(&found.await?.secret)
    }

    /// The credential that allows most, without asking anybody: a session has all that its wallet
    /// may do, an API key a part.
    pub(super) async fn broadest_credential(&self) -> Result<Option<String>, CliError> {
        if let Some(key) = env_variable(API_KEY) {
            return Ok(Some(key));
        }
        let store = open_credential_file()?;
        let Some(entry) = self.require_chosen_entry(&store)? else { return Ok(None) };
        if entry.has_session()
            && let Some(token) = self.session_token(&store, &entry).await?
        {
            return Ok(Some(token));
        }
        if entry.api_key.is_empty() {
            Err(session_ended_error(&entry))
        } else {
            Ok(Some(entry.api_key))
        }
    }

    /// The entry that commands for this node and namespace use.
    pub(super) fn stored_entry(
        &self,
        store: &CredentialFile,
    ) -> Result<Option<StoredCredential>, CliError> {
        store.find(&self.peer_id, self.namespace.as_deref(), None).map_err(credential_file_failure)
    }

    /// The same for who acts with it: where wallets are stored and none of them is chosen, that is
    /// told, so that none acts in the place of one that was signed out.
    pub(super) fn require_chosen_entry(
        &self,
        store: &CredentialFile,
    ) -> Result<Option<StoredCredential>, CliError> {
        if let Some(entry) = self.stored_entry(store)? {
            return Ok(Some(entry));
        }
        let is_there = |entry: &StoredCredential| {
            entry.peer_id == self.peer_id
                && self.namespace.as_ref().is_none_or(|name| entry.namespace == *name)
        };
        if store.entries().map_err(credential_file_failure)?.iter().any(is_there) {
            let place = self
                .namespace
                .as_ref()
                .map_or_else(String::new, |name| format!(" in namespace {name}"));
            let message = format!(
                "no wallet is chosen for the node {}{place}, though some are stored",
                self.peer_id
            );
            return Err(CliError::no_credential(printable(&message)).with_hint(
                "`network-cli auth wallets` lists them, and `network-cli auth use WALLET` chooses one; or sign in with \
                 `network-cli auth login`, or set DEBROS_API_KEY",
            ));
        }
        Ok(None)
    }

    /// A credential in place of one that ended while a long command ran; `None` when it was no
    /// session's.
    pub(super) async fn renew_credential(&self) -> Result<Option<String>, CliError> {
        if !self.resolved.get().is_some_and(|found| found.is_session) {
            return Ok(None);
        }
        let store = open_credential_file()?;
        match self.stored_entry(&store)? {
            Some(entry) => self.session_token(&store, &entry).await,
            None => Ok(None),
        }
    }

    async fn existing_credential(&self) -> Result<Option<ResolvedCredential>, CliError> {
        if let Some(key) = env_variable(API_KEY) {
            return Ok(Some(ResolvedCredential::from_key(key)));
        }
        let store = open_credential_file()?;
        let Some(entry) = self.require_chosen_entry(&store)? else { return Ok(None) };
        if !entry.api_key.is_empty() {
            return Ok(Some(ResolvedCredential::from_key(entry.api_key)));
        }
        if entry.has_session()
            && let Some(token) = self.session_token(&store, &entry).await?
        {
            return Ok(Some(ResolvedCredential::from_token(token)));
        }
        // Another stored wallet is not taken in its place: whoever acts should know as whom.
        let ended = session_ended_error(&entry);
        if !is_interactive() {
            return Err(ended);
        }
        print_note(&ended.message);
        Ok(None)
    }

    /// An access token of a stored session that the node takes now: the stored one, else one that
    /// its refresh token gets. `None` when the session has ended; then it is forgotten, and its
    /// entry stays as it was otherwise.
    pub(super) async fn session_token(
        &self,
        store: &CredentialFile,
        entry: &StoredCredential,
    ) -> Result<Option<String>, CliError> {
        if let Some(token) = entry.usable_access_token(debros_proto::now_ms())
            && self.is_token_accepted(token).await?
        {
            return Ok(Some(token.to_owned()));
        }
        // One program at a time: a refresh token that comes a second time, and late, ends the
        // session for all.
        let locked = store.lock(self.timeout).await.map_err(credential_file_failure)?;
        let known = locked
            .find(&entry.peer_id, Some(&entry.namespace), Some(&entry.wallet))
            .map_err(credential_file_failure)?;
        // Signed out meanwhile.
        let Some(known) = known else { return Ok(None) };
        if known.access_token != entry.access_token
            && let Some(token) = known.usable_access_token(debros_proto::now_ms())
        {
            // Another program was faster.
            return Ok(Some(token.to_owned()));
        }
        self.refresh_session(&locked, known).await
    }

    /// Asks first instead of repeating the command later: a command may have read its input by
    /// then.
    async fn is_token_accepted(&self, token: &str) -> Result<bool, CliError> {
        match self.client_with(token).network().who_am_i().await {
            Ok(_) => Ok(true),
            Err(error) if error.code.is_unauthenticated() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// New tokens for a session. They are on disk before they are used.
    async fn refresh_session(
        &self,
        locked: &LockedCredentialFile<'_>,
        mut entry: StoredCredential,
    ) -> Result<Option<String>, CliError> {
        let refreshed = if entry.refresh_token.is_empty() {
            None
        } else {
            match self
                .public_client()
                .auth()
                .refresh(entry.refresh_token.as_str(), entry.namespace.as_str())
                .await
            {
                Ok(session) => Some(session),
                Err(error) if error.code.is_unauthenticated() => None,
                Err(error) => return Err(error.into()),
            }
        };
        entry.set_session(&refreshed.unwrap_or_default());
        entry.stored_at = debros_proto::now_ms();
        let token = entry.access_token.clone();
        locked.update(entry).map_err(credential_file_failure)?;
        Ok(Some(token).filter(|token| !token.is_empty()))
    }

    /// Signs in, when there is somebody to do it.
    async fn offer_sign_in(&self) -> Result<ResolvedCredential, CliError> {
        let in_namespace =
            self.namespace.as_ref().map(|name| format!(" in namespace {name}")).unwrap_or_default();
        let missing = format!("no credential for the node {}{in_namespace}", self.peer_id);
        let question =
            format!("{}. Sign in with a wallet in the browser now? [Y/n] ", printable(&missing));
        if !is_interactive() || !ask_to_sign_in(question).await? {
            return Err(CliError::no_credential(printable(&missing)).with_hint(HOW_TO_SIGN_IN));
        }
        let entry = login::in_browser(self, None, true).await?;
        Ok(if entry.api_key.is_empty() {
            ResolvedCredential::from_token(entry.access_token)
        } else {
            ResolvedCredential::from_key(entry.api_key)
        })
    }
}

/// The user's store.
pub(super) fn open_credential_file() -> Result<CredentialFile, CliError> {
    CredentialFile::in_home().map_err(credential_file_failure)
}

/// The store can not be used, which leaves the user without a credential.
#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(super) fn credential_file_failure(error: CredentialFileError) -> CliError {
    CliError::no_credential(error.to_string())
}

/// Whether somebody sits there who can be asked, and sees the question.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn session_ended_error(entry: &StoredCredential) -> CliError {
    let who = if entry.wallet.is_empty() { "the key" } else { &entry.wallet };
    CliError::no_credential(format!(
        "the session of {who} in namespace {} has ended",
        entry.namespace
    ))
    .with_hint(HOW_TO_SIGN_IN)
}

/// On a thread of its own: the connection to the node stays alive meanwhile.
async fn ask_to_sign_in(question: String) -> Result<bool, CliError> {
    let asked = tokio::task::spawn_blocking(move || -> io::Result<String> {
        let mut stderr = io::stderr();
        stderr.write_all(question.as_bytes())?;
        stderr.flush()?;
        let mut answer = String::new();
        if io::stdin().read_line(&mut answer)? == 0 {
            print_note("");
            return Ok("no".to_owned());
        }
        Ok(answer)
    });
    let read = asked.await.map_err(|error| CliError::new(error.to_string()))?;
    let answer = read.map_err(|error| {
        CliError::new(format!("the answer can not be read from the terminal: {error}"))
    })?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes"))
}
