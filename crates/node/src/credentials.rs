//! Verifying credentials, and the API keys behind them.
//!
//! A verified key is remembered for [`REMEMBER`], so that a warm check costs a hash and a look into memory. Revoking
//! here forgets the key at once; a revocation on another node is seen when the memory runs out, which is why it has to
//! be shorter than the 5 seconds that a revoked key may go on to work.

use crate::caller::{Identity, Role, Scopes};
use crate::hex;
use debros_engine::{CallOptions, Database, Engine};
use debros_proto::limits::MAX_CREDENTIAL_BYTES;
use debros_proto::rpc::{ApiKey, Consistency, Row, Statement};
use debros_proto::{Code, Error, Namespace, Result, now_ms};
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;

/// How long a check's outcome is believed.
const REMEMBER: Duration = Duration::from_secs(4);
/// Outcomes remembered; the least used go first.
const REMEMBERED: usize = 10_000;
/// How long a check may wait for the database.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Characters of a key that are shown to recognise it.
const PREFIX_CHARS: usize = 11;
/// Characters in the name of a key.
const MAX_NAME_CHARS: usize = 100;

/// Verifies credentials and keeps API keys.
pub(crate) struct Credentials {
    engine: Arc<dyn Engine>,
    operator: Arc<Identity>,
    operator_hash: [u8; 32],
    checked: Cache<[u8; 32], Checked>,
    /// When each key was used last, until the next [`flush`](Credentials::flush): writing it with every request would
    /// turn every read into a write.
    used: Mutex<HashMap<String, i64>>,
}

#[derive(Clone)]
struct Checked {
    /// `None`: no such key.
    identity: Option<Arc<Identity>>,
    until: Instant,
}

impl Credentials {
    pub(crate) fn new(engine: Arc<dyn Engine>, operator_credential: &str) -> Self {
        let operator = Identity {
            subject: "operator".into(),
            namespace: None,
            role: Role::Operator,
            scopes: Scopes::default(),
            prefix: "op_".into(),
            created_at: 0,
        };
        Self {
            engine,
            operator: Arc::new(operator),
            operator_hash: hash(operator_credential),
            checked: Cache::new(REMEMBERED),
            used: Mutex::default(),
        }
    }

    /// Whose credential this is.
    pub(crate) async fn verify(&self, credential: &str) -> Result<Arc<Identity>> {
        if credential.is_empty() {
            return Err(Error::new(Code::Unauthenticated, "no credential: this call needs an API key"));
        }
        if credential.len() > MAX_CREDENTIAL_BYTES {
            return Err(invalid_credential());
        }
        let hash = hash(credential);
        if bool::from(hash.ct_eq(&self.operator_hash)) {
            return Ok(Arc::clone(&self.operator));
        }
        let now = Instant::now();
        let known = match self.checked.get(&hash) {
            Some(checked) if now < checked.until => checked.identity,
            // Boxed: it is rare, and would make the future of every call larger.
            _ => Box::pin(self.look_up(hash, now)).await?,
        };
        known.ok_or_else(invalid_credential)
    }

    async fn look_up(&self, hash: [u8; 32], now: Instant) -> Result<Option<Arc<Identity>>> {
        let statement = Statement::new(
            "SELECT id, namespace, role, scopes, prefix, created_at FROM api_keys WHERE hash = ?1 AND revoked_at IS NULL",
            [hash.as_slice().into()],
        );
        let result = self.engine.query(&Database::System, statement, options()).await?.value;
        let identity = result.rows.first().map(identity_of).transpose()?.map(Arc::new);
        if let Some(identity) = &identity {
            self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(identity.subject.clone(), now_ms());
        }
        self.checked.insert(hash, Checked { identity: identity.clone(), until: now + REMEMBER });
        Ok(identity)
    }

    /// Makes a key. The key itself is told once and not kept.
    pub(crate) async fn create(
        &self,
        namespace: &Namespace,
        name: &str,
        role: Role,
        scopes: Scopes,
        by: &str,
    ) -> Result<(String, ApiKey)> {
        if name.chars().count() > MAX_NAME_CHARS {
            return Err(Error::invalid(format!("the key's name is longer than {MAX_NAME_CHARS} characters")));
        }
        let id = format!("key_{}", random_hex::<8>()?);
        let key = format!("ak_{}:{namespace}", random_hex::<24>()?);
        let prefix: String = key.chars().take(PREFIX_CHARS).collect();
        let now = now_ms();
        let scope_names = scopes.names();
        let statements = vec![
            Statement::new(
                "INSERT INTO namespaces (name, created_at) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING",
                [namespace.as_str().into(), now.into()],
            ),
            Statement::new(
                "INSERT INTO api_keys (id, hash, prefix, namespace, name, role, scopes, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                [
                    id.as_str().into(),
                    hash(&key).as_slice().into(),
                    prefix.as_str().into(),
                    namespace.as_str().into(),
                    name.into(),
                    role.name().into(),
                    scope_names.join(" ").into(),
                    now.into(),
                ],
            ),
            audit("key_created", namespace, by, &id, now),
        ];
        self.engine.transaction(&Database::System, statements, options()).await?;
        let info = ApiKey {
            id,
            prefix,
            namespace: namespace.to_string(),
            name: name.to_owned(),
            role: role.name().to_owned(),
            scopes: scope_names,
            created_at: now,
            last_used: 0,
            revoked_at: 0,
            wallet: String::new(),
        };
        Ok((key, info))
    }

    /// The keys of a namespace, oldest first.
    pub(crate) async fn list(&self, namespace: &Namespace) -> Result<Vec<ApiKey>> {
        let statement = Statement::new(
            "SELECT id, prefix, namespace, name, role, scopes, created_at, last_used, revoked_at \
             FROM api_keys WHERE namespace = ?1 ORDER BY created_at, id",
            [namespace.as_str().into()],
        );
        let result = self.engine.query(&Database::System, statement, options()).await?.value;
        Ok(result.rows.iter().map(api_key_of).collect())
    }

    /// Revokes a key of a namespace; false when it was revoked before.
    pub(crate) async fn revoke(&self, namespace: &Namespace, id: &str, by: &str) -> Result<bool> {
        let find = Statement::new(
            "SELECT hash, revoked_at FROM api_keys WHERE id = ?1 AND namespace = ?2",
            [id.into(), namespace.as_str().into()],
        );
        let found = self.engine.query(&Database::System, find, options()).await?.value;
        let Some(row) = found.rows.first() else {
            let shown = debros_proto::ids::excerpt(id);
            return Err(Error::new(Code::NotFound, format!("the namespace has no API key with the id \"{shown}\"")));
        };
        let now = now_ms();
        let revoke = Statement::new(
            "UPDATE api_keys SET revoked_at = ?1 WHERE id = ?2 AND namespace = ?3 AND revoked_at IS NULL",
            [now.into(), id.into(), namespace.as_str().into()],
        );
        let statements = vec![revoke, audit("key_revoked", namespace, by, id, now)];
        let results = self.engine.transaction(&Database::System, statements, options()).await?.value;
        if let Some(hash) =
            row.values.first().and_then(|value| value.as_blob()).and_then(|blob| blob.as_ref().try_into().ok())
        {
            let hash: [u8; 32] = hash;
            self.checked.remove(&hash);
        }
        Ok(results.first().is_some_and(|result| result.rows_affected == Some(1)))
    }

    /// Writes down when keys were used last.
    pub(crate) async fn flush(&self) -> Result<()> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        let statements: Vec<Statement> = used
            .into_iter()
            .map(|(id, at)| Statement::new("UPDATE api_keys SET last_used = ?1 WHERE id = ?2", [at.into(), id.into()]))
            .collect();
        for some in statements.chunks(debros_proto::limits::MAX_TRANSACTION_STATEMENTS) {
            self.engine.transaction(&Database::System, some.to_vec(), options()).await?;
        }
        Ok(())
    }

    /// Forgets every remembered check, after the keys were replaced as a whole.
    pub(crate) fn forget(&self) {
        self.checked.clear();
    }
}

/// One sentence for every reason, so that nobody learns which keys exist.
fn invalid_credential() -> Error {
    Error::new(Code::Unauthenticated, "the credential is not valid: it is unknown, revoked or mistyped")
}

fn hash(credential: &str) -> [u8; 32] {
    Sha256::digest(credential.as_bytes()).into()
}

fn random_hex<const BYTES: usize>() -> Result<String> {
    let mut random = [0_u8; BYTES];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "the system gives no randomness");
        Error::internal("the system gives no randomness")
    })?;
    Ok(hex::encode(&random))
}

fn audit(kind: &str, namespace: &Namespace, subject: &str, detail: &str, at: i64) -> Statement {
    Statement::new(
        "INSERT INTO audit_events (at, kind, namespace, subject, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
        [at.into(), kind.into(), namespace.as_str().into(), subject.into(), detail.into()],
    )
}

fn options() -> CallOptions {
    CallOptions {
        consistency: Consistency::Weak,
        deadline: Instant::now() + LOOKUP_TIMEOUT,
        guard: None,
        read_only: false,
    }
}

fn identity_of(row: &Row) -> Result<Identity> {
    let text = |index: usize| row.values.get(index).and_then(|value| value.as_text()).unwrap_or_default();
    Ok(Identity {
        subject: text(0).to_owned(),
        namespace: Some(Namespace::new(text(1))?),
        role: Role::parse(text(2))?,
        scopes: Scopes::parse(text(3).split_ascii_whitespace())?,
        prefix: text(4).to_owned(),
        created_at: row.values.get(5).and_then(|value| value.as_integer()).unwrap_or_default(),
    })
}

fn api_key_of(row: &Row) -> ApiKey {
    let text = |index: usize| row.values.get(index).and_then(|value| value.as_text()).unwrap_or_default().to_owned();
    let integer = |index: usize| row.values.get(index).and_then(|value| value.as_integer()).unwrap_or_default();
    ApiKey {
        id: text(0),
        prefix: text(1),
        namespace: text(2),
        name: text(3),
        role: text(4),
        scopes: text(5).split_ascii_whitespace().map(str::to_owned).collect(),
        created_at: integer(6),
        last_used: integer(7),
        revoked_at: integer(8),
        wallet: String::new(),
    }
}
