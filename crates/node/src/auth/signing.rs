//! The keys that access tokens are signed with and verified by.
//!
//! Each node signs with a key of its own, kept in its data folder. The public halves stand in the database, so that every
//! node of the network verifies every token, and a node that comes back from a restart goes on with its key.

use super::audit;
use super::store::{Columns as _, Store, changed};
use super::token_key::{self, TokenKeyError};
use debros_auth::token::{self, Claims, PublicKey, PublicKeys, SigningKey};
use debros_proto::rpc::{self, Statement};
use debros_proto::{Code, Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How old the list of public keys may be when a token is verified. A check is believed for 4 s from the moment that the
/// list was read, so this only decides how often it is read.
const LIST_AGE: Duration = Duration::from_secs(1);
/// A key signs for so long.
const KEY_AGE_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// A public key is forgotten then: no node looks less often than daily whether its key is old, and the last token is good
/// for 15 minutes more.
const KEPT_MS: i64 = KEY_AGE_MS + 2 * 24 * 60 * 60 * 1000;

/// This node's key, and every node's public keys.
pub(crate) struct Signing {
    store: Arc<Store>,
    node_id: String,
    path: PathBuf,
    signer: RwLock<Arc<Signer>>,
    known: RwLock<Arc<Known>>,
    reading: tokio::sync::Mutex<()>,
    rotating: tokio::sync::Mutex<()>,
}

struct Signer {
    key: SigningKey,
    created_at: i64,
}

/// The public keys that are in use, as they were read at one moment.
struct Known {
    keys: PublicKeys,
    listed: Vec<rpc::SigningKey>,
    read_at: Instant,
}

/// Why a node has no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The file.
    #[error(transparent)]
    File(#[from] TokenKeyError),
    /// The database, or the system's randomness.
    #[error("the keys of access tokens can not be set up: {0}")]
    Failed(#[from] Error),
}

impl Signing {
    /// Loads the node's key or makes one, and publishes it.
    pub(super) async fn start(store: Arc<Store>, node_id: String, data_dir: &Path) -> Result<Self, SigningError> {
        let path = token_key::path(data_dir);
        let found = token_key::load(&path)?;
        let is_new = found.is_none();
        let key = found.map_or_else(SigningKey::generate, Ok)?;
        let created_at = store.clock.now_ms();
        let known = Arc::new(Known { keys: PublicKeys::default(), listed: Vec::new(), read_at: store.clock.instant() });
        let signing = Self {
            store,
            node_id,
            path,
            signer: RwLock::new(Arc::new(Signer { key: key.clone(), created_at })),
            known: RwLock::new(known),
            reading: tokio::sync::Mutex::default(),
            rotating: tokio::sync::Mutex::default(),
        };
        if is_new {
            token_key::store(&signing.path, &key)?;
        }
        signing.publish().await?;
        Ok(signing)
    }

    /// Makes the node's key known to all, at the start and after the database was replaced. A key that was removed is not
    /// made known again: the node gets another one.
    pub(super) async fn publish(&self) -> Result<(), SigningError> {
        let _alone = self.rotating.lock().await;
        let signer = self.signer();
        let kid = signer.key.public().kid();
        let state = "SELECT created_at, removed_at IS NOT NULL FROM signing_keys WHERE kid = ?";
        let state = || Statement::new(state, [kid.into()]);
        let mut rows = self.store.rows(state()).await?;
        // Written only when it is not there: a node starts on a full disk, too.
        if rows.is_empty() {
            self.store.write(vec![self.insert(signer.key.public(), signer.created_at)]).await?;
            rows = self.store.rows(state()).await?;
        }
        let (created_at, removed) = rows.first().map_or((0, true), |row| (row.integer(0), row.integer(1) == 1));
        if removed {
            tracing::warn!(kid, "this node's token key was removed; it makes a new one");
            self.rotate_alone("start").await?;
        } else {
            self.set(Signer { key: signer.key.clone(), created_at });
        }
        self.read().await?;
        Ok(())
    }

    /// Signs a token.
    pub(super) async fn issue(&self, claims: &Claims) -> Result<String> {
        let known = self.known(LIST_AGE).await?;
        if !known.keys.contains(self.signer().key.public().kid()) {
            // Another node removed it, or the database was replaced by an older one.
            self.publish().await.map_err(SigningError::into_call_error)?;
        }
        token::issue(&self.signer().key, claims)
    }

    /// What a token says, and when the list was read that says its key is in use.
    pub(crate) async fn verify(&self, token: &str) -> Result<(Claims, Instant)> {
        let began = self.store.clock.instant();
        let known = self.known(LIST_AGE).await?;
        let now = self.store.clock.now_ms();
        match token::verify(token, &known.keys, now) {
            Ok(claims) => Ok((claims, known.read_at)),
            Err(error) if known.read_at >= began || error.code == Code::CredentialExpired => Err(error),
            // It may be signed with a key that is younger than the list.
            Err(_) => {
                let known = self.known_since(began).await?;
                token::verify(token, &known.keys, now).map(|claims| (claims, known.read_at))
            }
        }
    }

    /// The public keys in use.
    pub(super) async fn listed(&self) -> Result<Vec<rpc::SigningKey>> {
        Ok(self.known(LIST_AGE).await?.listed.clone())
    }

    /// Takes a new key, and goes on believing the old one. The new one is in the database before anything is signed with
    /// it: another node may see its first token at once.
    pub(super) async fn rotate(&self, by: &str) -> Result<rpc::SigningKey, SigningError> {
        let _alone = self.rotating.lock().await;
        self.rotate_alone(by).await
    }

    /// As [`rotate`](Signing::rotate), while the lock is held.
    async fn rotate_alone(&self, by: &str) -> Result<rpc::SigningKey, SigningError> {
        let key = SigningKey::generate()?;
        let created_at = self.store.clock.now_ms();
        let kid = key.public().kid().to_owned();
        let statements =
            vec![self.insert(key.public(), created_at), audit::event_of_node("signing_key_made", by, &kid, created_at)];
        self.store.write(statements).await?;
        token_key::store(&self.path, &key)?;
        let made = self.listed_key(key.public(), created_at);
        self.set(Signer { key, created_at });
        self.read().await?;
        tracing::info!(kid, "access tokens are signed with a new key");
        Ok(made)
    }

    /// Stops believing a key; false when there was none or it was removed before. When it is this node's own, the node
    /// takes a new one first.
    pub(super) async fn remove(&self, kid: &str, by: &str) -> Result<bool> {
        if self.signer().key.public().kid() == kid {
            self.rotate(by).await.map_err(SigningError::into_call_error)?;
        }
        let now = self.store.clock.now_ms();
        let in_use = super::store::Condition::new(
            "EXISTS (SELECT 1 FROM signing_keys WHERE kid = ? AND removed_at IS NULL)",
            [kid.into()],
        );
        let remove = "UPDATE signing_keys SET removed_at = ? WHERE kid = ? AND removed_at IS NULL";
        let statements = vec![
            audit::event_of_node_if("signing_key_removed", by, kid, now, in_use),
            Statement::new(remove, [now.into(), kid.into()]),
        ];
        let results = self.store.write(statements).await?;
        self.read().await?;
        let removed = changed(&results, 1);
        if removed {
            tracing::info!(kid, by, "a signing key was removed: what it signed is not valid any more");
        }
        Ok(removed)
    }

    /// Takes a new key when the node's own is 30 days old.
    pub(crate) async fn rotate_when_old(&self) -> Result<(), SigningError> {
        if self.store.clock.now_ms() - self.signer().created_at >= KEY_AGE_MS {
            self.rotate("age").await?;
        }
        Ok(())
    }

    /// Forgets public keys that no token can be signed with any more. Removed ones stay written down: a stolen disk must
    /// not bring its key back.
    pub(super) fn sweep(&self, now: i64) -> Statement {
        Statement::new(
            "DELETE FROM signing_keys WHERE removed_at IS NULL AND created_at <= ? AND kid <> ?",
            [(now - KEPT_MS).into(), self.signer().key.public().kid().into()],
        )
    }

    fn insert(&self, key: &PublicKey, created_at: i64) -> Statement {
        Statement::new(
            "INSERT INTO signing_keys (kid, public_key, node_id, created_at) VALUES (?, ?, ?, ?) \
             ON CONFLICT (kid) DO NOTHING",
            [key.kid().into(), key.as_bytes().as_slice().into(), self.node_id.as_str().into(), created_at.into()],
        )
    }

    fn listed_key(&self, key: &PublicKey, created_at: i64) -> rpc::SigningKey {
        rpc::SigningKey {
            kid: key.kid().to_owned(),
            public_key: key.as_bytes().to_vec().into(),
            node_id: self.node_id.clone(),
            created_at,
        }
    }

    fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, signer: Signer) {
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(signer);
    }

    fn last_known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn known(&self, age: Duration) -> Result<Arc<Known>> {
        let known = self.last_known();
        let now = self.store.clock.instant();
        if now.saturating_duration_since(known.read_at) < age { Ok(known) } else { self.known_since(now).await }
    }

    /// The keys as they were at `moment` or later. Many who ask at once share one look.
    async fn known_since(&self, moment: Instant) -> Result<Arc<Known>> {
        let _one = self.reading.lock().await;
        let known = self.last_known();
        if known.read_at >= moment { Ok(known) } else { self.read_now().await }
    }

    async fn read(&self) -> Result<Arc<Known>> {
        let _one = self.reading.lock().await;
        self.read_now().await
    }

    async fn read_now(&self) -> Result<Arc<Known>> {
        let read_at = self.store.clock.instant();
        let statement = "SELECT kid, public_key, node_id, created_at FROM signing_keys WHERE removed_at IS NULL \
             ORDER BY created_at, kid";
        let mut keys = PublicKeys::default();
        let mut listed = Vec::new();
        for row in self.store.rows(statement.into()).await? {
            let bytes = row.values.get(1).and_then(|value| value.as_blob()).map_or(&[][..], |blob| blob.as_ref());
            // The id comes from the bytes: a row under another id would be a key in disguise.
            match PublicKey::from_slice(bytes) {
                Ok(key) if key.kid() == row.text(0) => {
                    listed.push(rpc::SigningKey {
                        kid: key.kid().to_owned(),
                        public_key: bytes.to_vec().into(),
                        node_id: row.text(2).to_owned(),
                        created_at: row.integer(3),
                    });
                    keys.insert(key);
                }
                _ => tracing::error!(kid = row.text(0), "a public key in signing_keys is damaged and is not used"),
            }
        }
        let known = Arc::new(Known { keys, listed, read_at });
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&known);
        Ok(known)
    }
}

impl SigningError {
    /// What a caller may know of it.
    pub(super) fn into_call_error(self) -> Error {
        match self {
            SigningError::Failed(error) => error,
            SigningError::File(error) => {
                tracing::error!(%error, "a new token key can not be kept");
                Error::internal("the node can not keep a new token key; its log has more")
            }
        }
    }
}
