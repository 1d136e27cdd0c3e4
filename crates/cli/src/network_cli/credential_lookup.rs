//! Which credential of the user a command calls with: `DEBROS_API_KEY`, else what is stored for the
//! node. Nothing is asked here: a missing credential is an error, which carries the question that
//! somebody at a terminal can answer.

use super::environment::env_variable;
use super::node_connection::NodeConnection;
use super::output::printable;
use super::resolved_credential::ResolvedCredential;
use crate::cli_error::CliError;
use crate::credentials::{CredentialFile, LockedCredentialFile, StoredCredential};

/// The variable that goes before what is stored.
pub(super) const API_KEY: &str = "DEBROS_API_KEY";

/// What to do without a terminal; it is said whenever a credential is missing.
pub(super) const HOW_TO_SIGN_IN: &str = "set DEBROS_API_KEY; or sign in with `network-cli auth login` (in a browser) or \
    `network-cli auth login --keystore FILE --password-file FILE` (without one)";

impl NodeConnection {
    /// The user's credential. Looked for until it is found once.
    ///
    /// # Errors
    /// No credential, with the question whether to sign in; what the file or the node says.
    pub(super) async fn credential(&self) -> Result<&str, CliError> {
        Ok(&self.resolved.get_or_try_init(|| self.find_credential()).await?.secret)
    }

    /// The credential that allows most, without asking anybody: a session has all that its wallet
    /// may do, an API key a part.
    pub(super) async fn broadest_credential(&self) -> Result<Option<String>, CliError> {
        if let Some(key) = env_variable(API_KEY) {
            return Ok(Some(key));
        }
        let credential_file = CredentialFile::in_home()?;
        let Some(entry) = self.require_chosen_entry(&credential_file)? else { return Ok(None) };
        if entry.has_session()
            && let Some(token) = self.session_token(&credential_file, &entry).await?
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
        credential_file: &CredentialFile,
    ) -> Result<Option<StoredCredential>, CliError> {
        Ok(credential_file.find(&self.peer_id, self.namespace.as_deref(), None)?)
    }

    /// The same for a command that acts with it. Stored wallets of which none is chosen are an
    /// error, so that none acts in the place of one that was signed out.
    pub(super) fn require_chosen_entry(
        &self,
        credential_file: &CredentialFile,
    ) -> Result<Option<StoredCredential>, CliError> {
        if let Some(entry) = self.stored_entry(credential_file)? {
            return Ok(Some(entry));
        }
        let is_there = |entry: &StoredCredential| {
            entry.peer_id == self.peer_id
                && self.namespace.as_ref().is_none_or(|name| entry.namespace == *name)
        };
        if credential_file.entries()?.iter().any(is_there) {
            let message = format!(
                "no wallet is chosen for the node {}{}, though some are stored",
                self.peer_id,
                self.namespace_text()
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
        let credential_file = CredentialFile::in_home()?;
        match self.stored_entry(&credential_file)? {
            Some(entry) => self.session_token(&credential_file, &entry).await,
            None => Ok(None),
        }
    }

    async fn find_credential(&self) -> Result<ResolvedCredential, CliError> {
        if let Some(key) = env_variable(API_KEY) {
            return Ok(ResolvedCredential::from_key(key));
        }
        let credential_file = CredentialFile::in_home()?;
        let missing = || {
            let place = self.namespace_text();
            CliError::no_credential(printable(&format!(
                "no credential for the node {}{place}",
                self.peer_id
            )))
            .with_hint(HOW_TO_SIGN_IN)
        };
        let Some(entry) = self.require_chosen_entry(&credential_file)? else {
            let missing = missing();
            let question = sign_in_question(&missing);
            return Err(missing.with_sign_in_question(question));
        };
        if !entry.api_key.is_empty() {
            return Ok(ResolvedCredential::from_key(entry.api_key));
        }
        if entry.has_session()
            && let Some(token) = self.session_token(&credential_file, &entry).await?
        {
            return Ok(ResolvedCredential::from_token(token));
        }
        // Another stored wallet is not taken in its place, so that none acts unnoticed.
        let ended = session_ended_error(&entry);
        let question = format!("{}\n{}", printable(&ended.message), sign_in_question(&missing()));
        Err(ended.with_sign_in_question(question))
    }

    fn namespace_text(&self) -> String {
        self.namespace.as_ref().map_or_else(String::new, |name| format!(" in namespace {name}"))
    }

    /// An access token of a stored session that the node takes now: the stored one, else one that
    /// its refresh token gets. `None` when the session has ended; then it is forgotten, and its
    /// entry stays as it was otherwise.
    pub(super) async fn session_token(
        &self,
        credential_file: &CredentialFile,
        entry: &StoredCredential,
    ) -> Result<Option<String>, CliError> {
        if let Some(token) = entry.usable_access_token(debros_proto::now_ms())
            && self.is_token_accepted(token).await?
        {
            return Ok(Some(token.to_owned()));
        }
        // One program at a time: a refresh token that comes a second time, and late, ends the
        // session for all.
        let locked = credential_file.lock(self.timeout).await?;
        let known = locked.find(&entry.peer_id, Some(&entry.namespace), Some(&entry.wallet))?;
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
        locked.update(entry)?;
        Ok(Some(token).filter(|token| !token.is_empty()))
    }
}

fn session_ended_error(entry: &StoredCredential) -> CliError {
    let owner = if entry.wallet.is_empty() { "the key" } else { &entry.wallet };
    CliError::no_credential(format!(
        "the session of {owner} in namespace {} has ended",
        entry.namespace
    ))
    .with_hint(HOW_TO_SIGN_IN)
}

fn sign_in_question(why: &CliError) -> String {
    format!("{}. Sign in with a wallet in the browser now? [Y/n] ", why.message)
}
