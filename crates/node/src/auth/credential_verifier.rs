//! Verifying credentials: the operator's, API keys, and access tokens.
//!
//! A verified credential is cached for [`VERDICT_TTL`], so that a warm check costs a hash and a
//! lookup in memory. A change on this node invalidates it at once; a change on another node is seen
//! when the entry expires, so the time to live has to be shorter than the 5 seconds for which a
//! revoked credential may still work. That time counts from the moment that the database was read,
//! for the list of signing keys and a wallet's role too.

use super::auth_db::{AuthDb, RowColumns as _};
use super::invalidation_counters::{InvalidationCounters, InvalidationStamp};
use super::last_used::LastUsedTimes;
use super::membership::role_column;
use super::token_signer::TokenSigner;
use crate::caller::{CredentialSource, Role, Scopes, VerifiedIdentity, Wallet};
use debros_auth::token::Claims;
use debros_auth::{secret, token};
use debros_proto::limits::MAX_CREDENTIAL_BYTES;
use debros_proto::rpc::{Row, Statement};
use debros_proto::{Code, Error, Namespace, Result};
use quick_cache::sync::Cache;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a check's outcome is cached.
const VERDICT_TTL: Duration = Duration::from_secs(4);
/// Cached outcomes; the least used go first.
const CACHE_CAPACITY: usize = 10_000;

/// Verifies credentials.
pub(crate) struct CredentialVerifier {
    auth_db: Arc<AuthDb>,
    signing: Arc<TokenSigner>,
    operator: Arc<VerifiedIdentity>,
    /// The operator's credential as gateways lend it.
    lent_operator: Arc<VerifiedIdentity>,
    operator_hash: [u8; 32],
    checked: Cache<[u8; 32], CachedVerification>,
    /// What discards cached outcomes.
    pub(super) invalidations: InvalidationCounters,
    pub(super) last_used: LastUsedTimes,
}

#[derive(Clone)]
struct CachedVerification {
    identity: CredentialVerdict<Arc<VerifiedIdentity>>,
    until: Instant,
    as_of: InvalidationStamp,
}

/// The outcome of a check: an identity, or the reason for the refusal.
type CredentialVerdict<T> = std::result::Result<T, CredentialRefusal>;

/// Why a credential is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CredentialRefusal {
    /// It stands for nothing that is there now.
    NotValid,
    /// An access token that was good.
    Expired,
    /// A key that was revoked, or a token of a session that was ended or of such a key.
    Revoked,
}

impl CredentialRefusal {
    fn to_error(self) -> Error {
        match self {
            Self::NotValid => invalid_credential(),
            Self::Expired => debros_auth::token::expired_error(),
            Self::Revoked => Error::new(
                Code::CredentialRevoked,
                "the credential is not valid any more: the API key was revoked, or the session was ended; sign in again",
            ),
        }
    }
}

impl CredentialVerifier {
    pub(crate) fn new(
        auth_db: Arc<AuthDb>,
        signing: Arc<TokenSigner>,
        operator_credential: &str,
    ) -> Self {
        let operator = VerifiedIdentity {
            subject: "operator".into(),
            source: CredentialSource::Operator,
            namespace: None,
            role: Role::Operator,
            scopes: Scopes::default(),
            wallet: None,
            runs_node: true,
            prefix: "op_".into(),
            created_at: 0,
            expires_at: 0,
        };
        Self {
            auth_db,
            signing,
            lent_operator: Arc::new(operator.as_lent()),
            operator: Arc::new(operator),
            operator_hash: secret::sha256(operator_credential),
            checked: Cache::new(CACHE_CAPACITY),
            invalidations: InvalidationCounters::new(),
            last_used: LastUsedTimes::default(),
        }
    }

    /// Whether this is the credential of who runs the node.
    pub(crate) fn is_operator(&self, credential: &str) -> bool {
        let hash = secret::sha256(credential);
        secret::constant_time_eq(&hash, &self.operator_hash)
    }

    /// Whose credential this is.
    pub(crate) async fn verify(&self, credential: &str) -> Result<Arc<VerifiedIdentity>> {
        self.verify_until(credential).await.map(|(identity, _)| identity)
    }

    /// The identity behind a credential, and until when it holds without another check.
    pub(crate) async fn verify_until(
        &self,
        credential: &str,
    ) -> Result<(Arc<VerifiedIdentity>, Instant)> {
        if credential.is_empty() {
            return Err(Error::new(
                Code::Unauthenticated,
                "no credential: this call needs an API key or an access token",
            ));
        }
        if credential.len() > MAX_CREDENTIAL_BYTES {
            return Err(invalid_credential());
        }
        let hash = secret::sha256(credential);
        let now = self.auth_db.clock.instant();
        if secret::constant_time_eq(&hash, &self.operator_hash) {
            return Ok((Arc::clone(&self.operator), now + VERDICT_TTL));
        }
        let known = match self.checked.get(&hash) {
            Some(checked)
                if now < checked.until && self.invalidations.is_current(checked.as_of) =>
            {
                checked
            }
            // Boxed: it is rare, and would make the future of every call larger.
            _ => Box::pin(self.look_up(hash, credential, now)).await?,
        };
        known.identity.map(|identity| (identity, known.until)).map_err(CredentialRefusal::to_error)
    }

    /// What a verified credential is good for when it is lent.
    pub(crate) fn lent_identity(&self, identity: &Arc<VerifiedIdentity>) -> Arc<VerifiedIdentity> {
        // The usual case: each call of a static key comes here.
        if Arc::ptr_eq(identity, &self.operator) {
            return Arc::clone(&self.lent_operator);
        }
        Arc::new(identity.as_lent())
    }

    /// How long it is until a moment that [`verify_until`](CredentialVerifier::verify_until)
    /// returned.
    pub(crate) fn time_left(&self, until: Instant) -> Duration {
        until.saturating_duration_since(self.auth_db.clock.instant())
    }

    async fn look_up(
        &self,
        hash: [u8; 32],
        credential: &str,
        now: Instant,
    ) -> Result<CachedVerification> {
        let checked = if token::is_token(credential) {
            self.verify_token(credential, now).await?
        } else {
            self.verify_key(hash, credential, now).await?
        };
        if let Ok(identity) = &checked.identity {
            self.last_used.record(&identity.source, self.auth_db.clock.now_ms());
        }
        self.checked.insert(hash, checked.clone());
        Ok(checked)
    }

    async fn verify_key(
        &self,
        hash: [u8; 32],
        credential: &str,
        now: Instant,
    ) -> Result<CachedVerification> {
        // The text names the namespace; when it lies, its hash belongs to no key.
        let as_of =
            self.invalidations.current_stamp(secret::api_key_namespace(credential).as_ref());
        let statement = Statement::new(select_key_sql("k.hash = ?"), [hash.as_slice().into()]);
        let rows = self.auth_db.query_rows(statement).await?;
        let identity = rows
            .first()
            .map_or(Ok(Err(CredentialRefusal::NotValid)), |row| self.identity_from_row(row))?;
        Ok(CachedVerification { identity: identity.map(Arc::new), until: now + VERDICT_TTL, as_of })
    }

    async fn verify_token(&self, credential: &str, now: Instant) -> Result<CachedVerification> {
        let everywhere = self.invalidations.current_stamp(None);
        let (claims, read_at) = match self.signing.verify_token(credential).await {
            Ok(verified) => verified,
            Err(error) if error.code.is_unauthenticated() => {
                let refusal = match error.code {
                    Code::CredentialExpired => CredentialRefusal::Expired,
                    _ => CredentialRefusal::NotValid,
                };
                return Ok(CachedVerification {
                    identity: Err(refusal),
                    until: now + VERDICT_TTL,
                    as_of: everywhere,
                });
            }
            Err(error) => return Err(error),
        };
        // The list of keys was read under the first number, the session will be under the second.
        let as_of = self
            .invalidations
            .current_stamp(Some(&claims.namespace))
            .with_everywhere_of(everywhere);
        let left = Duration::from_millis(
            u64::try_from(claims.expires_at - self.auth_db.clock.now_ms()).unwrap_or(0),
        );
        // The list may have been read before `current_stamp`, and is as old as what it says.
        let until = (read_at.min(now) + VERDICT_TTL).min(now + left);
        let identity = match &claims.credential {
            token::TokenCredential::Session(session) => {
                self.session_identity(session, &claims).await?
            }
            token::TokenCredential::Key(key) => self.key_token_identity(key, &claims).await?,
        };
        Ok(CachedVerification { identity: identity.map(Arc::new), until, as_of })
    }

    async fn session_identity(
        &self,
        session: &str,
        claims: &Claims,
    ) -> Result<CredentialVerdict<VerifiedIdentity>> {
        let sql = format!(
            "SELECT {}, s.revoked_at IS NULL AND s.expires_at > ? FROM sessions s \
             WHERE s.id = ? AND s.wallet = ? AND s.namespace = ?",
            role_column("s.namespace", "s.wallet")
        );
        let args = [
            self.auth_db.clock.now_ms().into(),
            session.into(),
            claims.subject.as_str().into(),
            claims.namespace.as_str().into(),
        ];
        let rows = self.auth_db.query_rows(Statement::new(sql, args)).await?;
        // We signed the token, so there was a session: one that is gone was ended with all that
        // belonged to it.
        let Some(row) = rows.first().filter(|row| row.integer(1) == 1) else {
            return Ok(Err(CredentialRefusal::Revoked));
        };
        let Some(role) = self.auth_db.role_from_column(&claims.namespace, row.text(0)) else {
            return Ok(Err(CredentialRefusal::NotValid));
        };
        let wallet = Wallet::parse(&claims.subject)?;
        Ok(Ok(VerifiedIdentity {
            subject: claims.subject.clone(),
            source: CredentialSource::Session { id: session.to_owned() },
            namespace: Some(claims.namespace.clone()),
            role,
            scopes: Scopes::default(),
            wallet: Some(wallet),
            runs_node: self.auth_db.is_admin(wallet),
            prefix: String::new(),
            created_at: claims.issued_at,
            expires_at: claims.expires_at,
        }))
    }

    async fn key_token_identity(
        &self,
        key: &str,
        claims: &Claims,
    ) -> Result<CredentialVerdict<VerifiedIdentity>> {
        let statement = Statement::new(select_key_sql("k.id = ?"), [key.into()]);
        let rows = self.auth_db.query_rows(statement).await?;
        let identity = match rows
            .first()
            .map_or(Ok(Err(CredentialRefusal::Revoked)), |row| self.identity_from_row(row))?
        {
            Ok(identity) => identity,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let belongs =
            claims.subject == key && identity.namespace.as_ref() == Some(&claims.namespace);
        let identity = VerifiedIdentity {
            created_at: claims.issued_at,
            expires_at: claims.expires_at,
            ..identity
        };
        Ok(if belongs { Ok(identity) } else { Err(CredentialRefusal::NotValid) })
    }

    /// What a row of [`select_key_sql`] stands for. A key can never do more than the wallet that
    /// made it can do now, and one whose wallet can do nothing is not valid.
    fn identity_from_row(&self, row: &Row) -> Result<CredentialVerdict<VerifiedIdentity>> {
        if row.integer(8) == 1 {
            return Ok(Err(CredentialRefusal::Revoked));
        }
        let namespace = Namespace::new(row.text(1))?;
        let mut role = Role::parse(row.text(2))?;
        let wallet = match row.text(6) {
            "" => None,
            text => {
                let Some(now) = self.auth_db.role_from_column(&namespace, row.text(7)) else {
                    return Ok(Err(CredentialRefusal::NotValid));
                };
                role = role.min(now);
                Some(Wallet::parse(text)?)
            }
        };
        Ok(Ok(VerifiedIdentity {
            subject: row.text(0).to_owned(),
            source: CredentialSource::Key { id: row.text(0).to_owned() },
            namespace: Some(namespace),
            role,
            scopes: Scopes::parse(row.text(3).split_ascii_whitespace())?,
            wallet,
            runs_node: false,
            prefix: row.text(4).to_owned(),
            created_at: row.integer(5),
            expires_at: 0,
        }))
    }
}

fn select_key_sql(which: &str) -> String {
    format!(
        "SELECT k.id, k.namespace, k.role, k.scopes, k.prefix, k.created_at, k.wallet, {}, \
         k.revoked_at IS NOT NULL FROM api_keys k WHERE {which}",
        role_column("k.namespace", "k.wallet")
    )
}

/// One sentence for every credential that stands for nothing. A revoked key has an error of its
/// own: it cannot be guessed.
pub(crate) fn invalid_credential() -> Error {
    Error::new(
        Code::Unauthenticated,
        "the credential is not valid: it is unknown or mistyped, or its wallet has no role here",
    )
}

#[cfg(test)]
mod tests;
