//! The keys that access tokens are signed with and verified by.
//!
//! Each node signs with a key of its own, kept in its data folder. The public halves stand in the
//! database, so that every node of the network verifies every token, and a node that comes back
//! from a restart goes on with its key.

use super::audit;
use super::auth_db::{AuthDb, RowColumns as _, has_changed_row};
use super::token_key::{self, TokenKeyError};
use debros_auth::token::{self, Claims, PublicKey, PublicKeySet, SigningKey};
use debros_proto::rpc::{self, Statement};
use debros_proto::{Code, Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How old the list of public keys may be when a token is verified. A check is cached for 4 s from
/// the moment that the list was read, so this only decides how often it is read.
const MAX_SNAPSHOT_AGE: Duration = Duration::from_secs(1);
/// A key signs for so long.
const ROTATION_AGE_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// A public key is deleted then: every node checks at least daily whether its key is old, and the
/// last token is good for 15 minutes more.
const RETENTION_MS: i64 = ROTATION_AGE_MS + 2 * 24 * 60 * 60 * 1000;

/// This node's key, and every node's public keys.
pub(crate) struct TokenSigner {
    auth_db: Arc<AuthDb>,
    node_id: String,
    path: PathBuf,
    active_key: RwLock<Arc<ActiveKey>>,
    snapshot: RwLock<Arc<PublicKeySnapshot>>,
    reading: tokio::sync::Mutex<()>,
    rotating: tokio::sync::Mutex<()>,
}

struct ActiveKey {
    key: SigningKey,
    created_at: i64,
}

/// The public keys that are in use, as they were read at one moment.
struct PublicKeySnapshot {
    keys: PublicKeySet,
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
    #[error("the keys of access tokens cannot be set up: {0}")]
    Failed(#[from] Error),
}

impl TokenSigner {
    /// Loads the node's key or makes one, and publishes it.
    pub(super) async fn load_or_create(
        auth_db: Arc<AuthDb>,
        node_id: String,
        data_dir: &Path,
    ) -> Result<Self, SigningError> {
        let path = token_key::key_path(data_dir);
        let found = token_key::load_key(&path)?;
        let is_new = found.is_none();
        let key = found.map_or_else(SigningKey::generate, Ok)?;
        let created_at = auth_db.clock.now_ms();
        let known = Arc::new(PublicKeySnapshot {
            keys: PublicKeySet::default(),
            listed: Vec::new(),
            read_at: auth_db.clock.instant(),
        });
        let signing = Self {
            auth_db,
            node_id,
            path,
            active_key: RwLock::new(Arc::new(ActiveKey { key: key.clone(), created_at })),
            snapshot: RwLock::new(known),
            reading: tokio::sync::Mutex::default(),
            rotating: tokio::sync::Mutex::default(),
        };
        if is_new {
            token_key::store_key(&signing.path, &key)?;
        }
        signing.publish_key().await?;
        Ok(signing)
    }

    /// Makes the node's key known to all, at the start and after the database was replaced. A key
    /// that was removed is not made known again: the node gets another one.
    pub(super) async fn publish_key(&self) -> Result<(), SigningError> {
        let _alone = self.rotating.lock().await;
        let signer = self.active_key();
        let kid = signer.key.public_key().kid();
        let state = "SELECT created_at, removed_at IS NOT NULL FROM signing_keys WHERE kid = ?";
        let state = || Statement::new(state, [kid.into()]);
        let mut rows = self.auth_db.query_rows(state()).await?;
        // Written only when it is not there: a node starts on a full disk, too.
        if rows.is_empty() {
            self.auth_db
                .run_transaction(vec![
                    self.insert_statement(signer.key.public_key(), signer.created_at),
                ])
                .await?;
            rows = self.auth_db.query_rows(state()).await?;
        }
        let (created_at, removed) =
            rows.first().map_or((0, true), |row| (row.integer(0), row.integer(1) == 1));
        if removed {
            tracing::warn!(kid, "this node's token key was removed; it makes a new one");
            self.rotate_key_locked("start").await?;
        } else {
            self.set_active_key(ActiveKey { key: signer.key.clone(), created_at });
        }
        self.reload_snapshot().await?;
        Ok(())
    }

    /// Signs a token.
    pub(super) async fn sign_token(&self, claims: &Claims) -> Result<String> {
        let known = self.snapshot_within(MAX_SNAPSHOT_AGE).await?;
        if !known.keys.contains(self.active_key().key.public_key().kid()) {
            // Another node removed it, or the database was replaced by an older one.
            self.publish_key().await.map_err(SigningError::into_call_error)?;
        }
        token::issue(&self.active_key().key, claims)
    }

    /// What a token says, and when the list was read that says its key is in use.
    pub(crate) async fn verify_token(&self, token: &str) -> Result<(Claims, Instant)> {
        let began = self.auth_db.clock.instant();
        let known = self.snapshot_within(MAX_SNAPSHOT_AGE).await?;
        let now = self.auth_db.clock.now_ms();
        match token::verify(token, &known.keys, now) {
            Ok(claims) => Ok((claims, known.read_at)),
            Err(error) if known.read_at >= began || error.code == Code::CredentialExpired => {
                Err(error)
            }
            // It may be signed with a key that is younger than the list.
            Err(_) => {
                let known = self.snapshot_since(began).await?;
                token::verify(token, &known.keys, now).map(|claims| (claims, known.read_at))
            }
        }
    }

    /// The public keys in use.
    pub(super) async fn list_keys(&self) -> Result<Vec<rpc::SigningKey>> {
        Ok(self.snapshot_within(MAX_SNAPSHOT_AGE).await?.listed.clone())
    }

    /// Takes a new key, and goes on believing the old one. The new one is in the database before
    /// anything is signed with it: another node may see its first token at once.
    pub(super) async fn rotate_key(&self, by: &str) -> Result<rpc::SigningKey, SigningError> {
        let _alone = self.rotating.lock().await;
        self.rotate_key_locked(by).await
    }

    /// As [`rotate_key`](TokenSigner::rotate_key), while the lock is held.
    async fn rotate_key_locked(&self, by: &str) -> Result<rpc::SigningKey, SigningError> {
        let key = SigningKey::generate()?;
        let created_at = self.auth_db.clock.now_ms();
        let kid = key.public_key().kid().to_owned();
        let statements = vec![
            self.insert_statement(key.public_key(), created_at),
            audit::insert_node_event("signing_key_made", by, &kid, created_at),
        ];
        self.auth_db.run_transaction(statements).await?;
        token_key::store_key(&self.path, &key)?;
        let made = self.key_message(key.public_key(), created_at);
        self.set_active_key(ActiveKey { key, created_at });
        self.reload_snapshot().await?;
        tracing::info!(kid, "access tokens are signed with a new key");
        Ok(made)
    }

    /// Stops believing a key; false when there was none or it was removed before. When it is this
    /// node's own, the node takes a new one first.
    pub(super) async fn remove_key(&self, kid: &str, by: &str) -> Result<bool> {
        if self.active_key().key.public_key().kid() == kid {
            self.rotate_key(by).await.map_err(SigningError::into_call_error)?;
        }
        let now = self.auth_db.clock.now_ms();
        let in_use = super::auth_db::SqlCondition::new(
            "EXISTS (SELECT 1 FROM signing_keys WHERE kid = ? AND removed_at IS NULL)",
            [kid.into()],
        );
        let remove = "UPDATE signing_keys SET removed_at = ? WHERE kid = ? AND removed_at IS NULL";
        let statements = vec![
            audit::insert_node_event_if("signing_key_removed", by, kid, now, in_use),
            Statement::new(remove, [now.into(), kid.into()]),
        ];
        let results = self.auth_db.run_transaction(statements).await?;
        self.reload_snapshot().await?;
        let removed = has_changed_row(&results, 1);
        if removed {
            tracing::info!(
                kid,
                by,
                "a signing key was removed: what it signed is not valid any more"
            );
        }
        Ok(removed)
    }

    /// Takes a new key when the node's own is 30 days old.
    pub(crate) async fn rotate_if_old(&self) -> Result<(), SigningError> {
        if self.auth_db.clock.now_ms() - self.active_key().created_at >= ROTATION_AGE_MS {
            self.rotate_key("age").await?;
        }
        Ok(())
    }

    /// Forgets public keys that no token can be signed with any more. Removed ones stay written
    /// down: a stolen disk must not bring its key back.
    pub(super) fn sweep_statement(&self, now: i64) -> Statement {
        Statement::new(
            "DELETE FROM signing_keys WHERE removed_at IS NULL AND created_at <= ? AND kid <> ?",
            [(now - RETENTION_MS).into(), self.active_key().key.public_key().kid().into()],
        )
    }

    fn insert_statement(&self, key: &PublicKey, created_at: i64) -> Statement {
        Statement::new(
            "INSERT INTO signing_keys (kid, public_key, node_id, created_at) VALUES (?, ?, ?, ?) \
             ON CONFLICT (kid) DO NOTHING",
            [
                key.kid().into(),
                key.as_bytes().as_slice().into(),
                self.node_id.as_str().into(),
                created_at.into(),
            ],
        )
    }

    fn key_message(&self, key: &PublicKey, created_at: i64) -> rpc::SigningKey {
        rpc::SigningKey {
            kid: key.kid().to_owned(),
            public_key: key.as_bytes().to_vec().into(),
            node_id: self.node_id.clone(),
            created_at,
        }
    }

    fn active_key(&self) -> Arc<ActiveKey> {
        Arc::clone(&self.active_key.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_active_key(&self, signer: ActiveKey) {
        *self.active_key.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(signer);
    }

    fn cached_snapshot(&self) -> Arc<PublicKeySnapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn snapshot_within(&self, age: Duration) -> Result<Arc<PublicKeySnapshot>> {
        let known = self.cached_snapshot();
        let now = self.auth_db.clock.instant();
        if now.saturating_duration_since(known.read_at) < age {
            Ok(known)
        } else {
            self.snapshot_since(now).await
        }
    }

    /// The keys as they were at `moment` or later. Calls at the same time share one query.
    async fn snapshot_since(&self, moment: Instant) -> Result<Arc<PublicKeySnapshot>> {
        let _one = self.reading.lock().await;
        let known = self.cached_snapshot();
        if known.read_at >= moment { Ok(known) } else { self.reload_snapshot_locked().await }
    }

    async fn reload_snapshot(&self) -> Result<Arc<PublicKeySnapshot>> {
        let _one = self.reading.lock().await;
        self.reload_snapshot_locked().await
    }

    async fn reload_snapshot_locked(&self) -> Result<Arc<PublicKeySnapshot>> {
        let read_at = self.auth_db.clock.instant();
        let statement = "SELECT kid, public_key, node_id, created_at FROM signing_keys WHERE removed_at IS NULL \
             ORDER BY created_at, kid";
        let mut keys = PublicKeySet::default();
        let mut listed = Vec::new();
        for row in self.auth_db.query_rows(statement.into()).await? {
            let bytes = row
                .values
                .get(1)
                .and_then(|value| value.as_blob())
                .map_or(&[][..], |blob| blob.as_ref());
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
                _ => tracing::error!(
                    kid = row.text(0),
                    "a public key in signing_keys is damaged and is not used"
                ),
            }
        }
        let known = Arc::new(PublicKeySnapshot { keys, listed, read_at });
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&known);
        Ok(known)
    }
}

impl SigningError {
    /// What a caller may know of it.
    pub(super) fn into_call_error(self) -> Error {
        match self {
            SigningError::Failed(error) => error,
            SigningError::File(error) => {
                tracing::error!(%error, "a new token key cannot be kept");
                Error::internal("the node cannot keep a new token key; its log has more")
            }
        }
    }
}
