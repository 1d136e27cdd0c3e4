//! With which credential a command calls: `DEBROS_API_KEY`, then what is stored for the node, then, on a terminal, a
//! sign-in in the browser. Nothing is ever asked where nobody can answer.

use super::auth::login;
use super::output::{note, printable};
use super::session::{Session, variable};
use crate::credentials::{Entry, Locked, Store, StoreError};
use crate::fail::Failure;
use std::io::{self, IsTerminal as _, Write as _};

/// The variable that goes before what is stored.
pub(super) const API_KEY: &str = "DEBROS_API_KEY";

/// What to do without a terminal; it is said whenever a credential is missing.
pub(super) const HOW_TO_SIGN_IN: &str = "set DEBROS_API_KEY; or sign in with `network-cli auth login` (in a browser) or \
    `network-cli auth login --keystore FILE --password-file FILE` (without one)";

/// A credential that was found.
#[derive(Debug)]
pub(super) struct Found {
    secret: String,
    /// Whether it is a session's access token, which ends and can be renewed.
    is_session: bool,
}

impl Found {
    fn key(secret: String) -> Self {
        Self { secret, is_session: false }
    }

    fn token(secret: String) -> Self {
        Self { secret, is_session: true }
    }
}

impl Session {
    /// The user's credential. Looked for once in the life of a command.
    pub(super) async fn credential(&self) -> Result<&str, Failure> {
        let found = self.found.get_or_try_init(|| async {
            match self.existing().await? {
                Some(found) => Ok(found),
                None => self.offer().await,
            }
        });
        Ok(&found.await?.secret)
    }

    /// The credential that allows most, without asking anybody: a session has all that its wallet may do, an API key a part.
    pub(super) async fn widest(&self) -> Result<Option<String>, Failure> {
        if let Some(key) = variable(API_KEY) {
            return Ok(Some(key));
        }
        let store = store()?;
        let Some(entry) = self.chosen(&store)? else { return Ok(None) };
        if entry.has_session()
            && let Some(token) = self.session_token(&store, &entry).await?
        {
            return Ok(Some(token));
        }
        if entry.api_key.is_empty() { Err(ended(&entry)) } else { Ok(Some(entry.api_key)) }
    }

    /// The entry that commands for this node and namespace use.
    pub(super) fn stored(&self, store: &Store) -> Result<Option<Entry>, Failure> {
        store.find(&self.peer_id, self.namespace.as_deref(), None).map_err(unusable)
    }

    /// The same for who acts with it: where wallets are stored and none of them is chosen, that is told, so that none acts
    /// in the place of one that was signed out.
    pub(super) fn chosen(&self, store: &Store) -> Result<Option<Entry>, Failure> {
        if let Some(entry) = self.stored(store)? {
            return Ok(Some(entry));
        }
        let is_there = |entry: &Entry| {
            entry.peer_id == self.peer_id && self.namespace.as_ref().is_none_or(|name| entry.namespace == *name)
        };
        if store.entries().map_err(unusable)?.iter().any(is_there) {
            let place = self.namespace.as_ref().map_or_else(String::new, |name| format!(" in namespace {name}"));
            let message = format!("no wallet is chosen for the node {}{place}, though some are stored", self.peer_id);
            return Err(Failure::no_credential(printable(&message)).hint(
                "`network-cli auth wallets` lists them, and `network-cli auth use WALLET` chooses one; or sign in with \
                 `network-cli auth login`, or set DEBROS_API_KEY",
            ));
        }
        Ok(None)
    }

    /// A credential in place of one that ended while a long command ran; `None` when it was no session's.
    pub(super) async fn renewed(&self) -> Result<Option<String>, Failure> {
        if !self.found.get().is_some_and(|found| found.is_session) {
            return Ok(None);
        }
        let store = store()?;
        match self.stored(&store)? {
            Some(entry) => self.session_token(&store, &entry).await,
            None => Ok(None),
        }
    }

    async fn existing(&self) -> Result<Option<Found>, Failure> {
        if let Some(key) = variable(API_KEY) {
            return Ok(Some(Found::key(key)));
        }
        let store = store()?;
        let Some(entry) = self.chosen(&store)? else { return Ok(None) };
        if !entry.api_key.is_empty() {
            return Ok(Some(Found::key(entry.api_key)));
        }
        if entry.has_session()
            && let Some(token) = self.session_token(&store, &entry).await?
        {
            return Ok(Some(Found::token(token)));
        }
        // Another stored wallet is not taken in its place: whoever acts should know as whom.
        let ended = ended(&entry);
        if !is_interactive() {
            return Err(ended);
        }
        note(&ended.message);
        Ok(None)
    }

    /// An access token of a stored session that the node takes now: the stored one, else one that its refresh token gets.
    /// `None` when the session has ended; then it is forgotten, and its entry stays as it was otherwise.
    pub(super) async fn session_token(&self, store: &Store, entry: &Entry) -> Result<Option<String>, Failure> {
        if let Some(token) = entry.live_access_token(debros_proto::now_ms())
            && self.takes(token).await?
        {
            return Ok(Some(token.to_owned()));
        }
        // One program at a time: a refresh token that comes a second time, and late, ends the session for all.
        let locked = store.lock(self.timeout).await.map_err(unusable)?;
        let known = locked.find(&entry.peer_id, Some(&entry.namespace), Some(&entry.wallet)).map_err(unusable)?;
        // Signed out meanwhile.
        let Some(known) = known else { return Ok(None) };
        if known.access_token != entry.access_token
            && let Some(token) = known.live_access_token(debros_proto::now_ms())
        {
            // Another program was faster.
            return Ok(Some(token.to_owned()));
        }
        self.refresh(&locked, known).await
    }

    /// Asks first instead of repeating the command later: a command may have read its input by then.
    async fn takes(&self, token: &str) -> Result<bool, Failure> {
        match self.with(token).network().who_am_i().await {
            Ok(_) => Ok(true),
            Err(error) if error.code.is_unauthenticated() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// New tokens for a session. They are on disk before they are used.
    async fn refresh(&self, locked: &Locked<'_>, mut entry: Entry) -> Result<Option<String>, Failure> {
        let refreshed = if entry.refresh_token.is_empty() {
            None
        } else {
            match self.public().auth().refresh(entry.refresh_token.as_str(), entry.namespace.as_str()).await {
                Ok(session) => Some(session),
                Err(error) if error.code.is_unauthenticated() => None,
                Err(error) => return Err(error.into()),
            }
        };
        entry.set_session(&refreshed.unwrap_or_default());
        entry.stored_at = debros_proto::now_ms();
        let token = entry.access_token.clone();
        locked.update(entry).map_err(unusable)?;
        Ok(Some(token).filter(|token| !token.is_empty()))
    }

    /// Signs in, when there is somebody to do it.
    async fn offer(&self) -> Result<Found, Failure> {
        let in_namespace = self.namespace.as_ref().map(|name| format!(" in namespace {name}")).unwrap_or_default();
        let missing = format!("no credential for the node {}{in_namespace}", self.peer_id);
        let question = format!("{}. Sign in with a wallet in the browser now? [Y/n] ", printable(&missing));
        if !is_interactive() || !agreed(question).await? {
            return Err(Failure::no_credential(printable(&missing)).hint(HOW_TO_SIGN_IN));
        }
        let entry = login::in_browser(self, None, true).await?;
        Ok(if entry.api_key.is_empty() { Found::token(entry.access_token) } else { Found::key(entry.api_key) })
    }
}

/// The user's store.
pub(super) fn store() -> Result<Store, Failure> {
    Store::in_home().map_err(unusable)
}

/// The store can not be used, which leaves the user without a credential.
#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(super) fn unusable(error: StoreError) -> Failure {
    Failure::no_credential(error.to_string())
}

/// Whether somebody sits there who can be asked, and sees the question.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn ended(entry: &Entry) -> Failure {
    let who = if entry.wallet.is_empty() { "the key" } else { &entry.wallet };
    Failure::no_credential(format!("the session of {who} in namespace {} has ended", entry.namespace))
        .hint(HOW_TO_SIGN_IN)
}

/// On a thread of its own: the connection to the node stays alive meanwhile.
async fn agreed(question: String) -> Result<bool, Failure> {
    let asked = tokio::task::spawn_blocking(move || -> io::Result<String> {
        let mut stderr = io::stderr();
        stderr.write_all(question.as_bytes())?;
        stderr.flush()?;
        let mut answer = String::new();
        if io::stdin().read_line(&mut answer)? == 0 {
            note("");
            return Ok("no".to_owned());
        }
        Ok(answer)
    });
    let read = asked.await.map_err(|error| Failure::new(error.to_string()))?;
    let answer =
        read.map_err(|error| Failure::new(format!("the answer can not be read from the terminal: {error}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes"))
}
