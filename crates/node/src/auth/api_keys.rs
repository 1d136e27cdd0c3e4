//! API keys, and the access tokens that stand for them.

use super::auth_db::{RowColumns as _, SqlCondition, has_changed_row, statement_if};
use super::credential_verifier::invalid_credential;
use super::membership::{OPERATOR, claim_statements_for, namespace_forbidden};
use super::{AuthService, PublicRequest, audit};
use crate::caller::{CredentialSource, VerifiedIdentity};
use debros_auth::secret::{self, Secret};
use debros_auth::token::{Claims, TokenCredential};
use debros_auth::{Role, Scopes, Wallet, random};
use debros_proto::rpc::{self, ApiKey, CreateApiKeyResponse, Row, SessionResponse, Statement};
use debros_proto::{Code, Error, Namespace, Result};

/// Characters in the name of a key.
const MAX_NAME_CHARS: usize = 100;

/// Keys of one namespace that are not revoked; of one wallet in an open namespace, so that no
/// wallet there uses it up for all.
const MAX_LIVE_KEYS: i64 = 1000;
/// Keys that a list shows: the live ones, then those revoked last.
const MAX_LISTED: i64 = 2 * MAX_LIVE_KEYS;

/// A key to be made.
pub(crate) struct NewKeySpec {
    name: String,
    role: Option<Role>,
    scopes: Scopes,
}

impl NewKeySpec {
    /// Reads the request.
    pub(crate) fn parse(name: String, role: &str, scopes: &[String]) -> Result<Self> {
        if name.chars().count() > MAX_NAME_CHARS {
            return Err(Error::invalid(format!(
                "the key's name is longer than {MAX_NAME_CHARS} characters"
            )));
        }
        if name.chars().any(char::is_control) {
            return Err(Error::invalid(
                "the key's name holds control characters: use one line of plain text",
            ));
        }
        let role = if role.is_empty() { None } else { Some(Role::parse(role)?) };
        Ok(Self { name, role, scopes: Scopes::parse(scopes.iter().map(String::as_str))? })
    }

    /// The key's role, when its maker has `own`: no more than its scopes name, so that the role
    /// that is shown is the one that counts.
    fn role_under(&self, own: Role) -> Result<Role> {
        match self.role {
            None => Ok(self.scopes.role_within(Role::Writer.min(own))),
            Some(role) if role <= own => Ok(self.scopes.role_within(role)),
            Some(role) => Err(Error::new(
                Code::Forbidden,
                format!(
                    "a key with the role {role} may do more than its maker, who is {own}: ask for {own} or less"
                ),
            )),
        }
    }
}

/// Which keys of a namespace a call is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyFilter {
    /// All of them.
    All,
    /// Those that the wallet made.
    CreatedBy(Wallet),
}

impl KeyFilter {
    fn sql_condition(self) -> SqlCondition {
        match self {
            KeyFilter::All => SqlCondition::always(),
            KeyFilter::CreatedBy(wallet) => {
                SqlCondition::new("wallet = ?", [wallet.to_string().into()])
            }
        }
    }
}

impl AuthService {
    /// Makes a key for a wallet that proves itself, without a session.
    pub(super) async fn create_key_by_proof(
        &self,
        request: rpc::CreateApiKeyByProofRequest,
        public: &PublicRequest<'_>,
    ) -> Result<CreateApiKeyResponse> {
        let wish = NewKeySpec::parse(request.name, &request.role, &request.scopes)?;
        let proven = self.verify_proof(request.proof, public).await?;
        let (wallet, namespace) = (proven.wallet(), proven.namespace());
        let made = async {
            let role = wish.role_under(self.role_on_entry(&proven).await?)?;
            let now = self.auth_db.clock.now_ms();
            let key = GeneratedKey::new(&wish, namespace, role, Some(wallet), now)?;
            let has_room = self.key_quota_condition(namespace, Some(wallet));
            self.check_key_quota(namespace, &has_room).await?;
            let mut statements = vec![proven.insert_nonce_statement()];
            statements.extend(self.auth_db.claim_statements(wallet, namespace, now));
            let place = statements.len();
            statements.extend(key.insert_statements(
                &wallet.to_string(),
                self.auth_db.has_role_condition(wallet, namespace, role).and(has_room),
            ));
            let results = self.run_proof_transaction(statements).await?;
            if has_changed_row(&results, place) {
                Ok(key.into_response(&wallet.to_string()))
            } else {
                Err(namespace_forbidden(namespace))
            }
        }
        .await;
        if let Err(error) = &made {
            self.count_refusal(namespace, error);
        }
        made
    }

    /// Makes a key for a verified caller, which may do in the namespace what `own` says.
    pub(crate) async fn create_key(
        &self,
        by: &VerifiedIdentity,
        namespace: &Namespace,
        own: Role,
        wish: &NewKeySpec,
    ) -> Result<CreateApiKeyResponse> {
        self.count_change(by)?;
        // The operator names a namespace in the message.
        self.check_not_deleting(namespace)?;
        let role = wish.role_under(own.min(Role::Admin))?;
        let now = self.auth_db.clock.now_ms();
        let key = GeneratedKey::new(wish, namespace, role, by.wallet, now)?;
        let has_room = self.key_quota_condition(namespace, by.wallet);
        self.check_key_quota(namespace, &has_room).await?;
        let mut statements = Vec::new();
        if by.source == CredentialSource::Operator {
            statements.extend(claim_statements_for(OPERATOR, namespace, now));
        }
        let place = statements.len();
        statements.extend(key.insert_statements(
            &by.subject,
            self.authority_condition(by, namespace, role).and(has_room),
        ));
        let results = self.auth_db.run_transaction(statements).await?;
        if has_changed_row(&results, place) {
            Ok(key.into_response(&by.subject))
        } else {
            Err(invalid_credential())
        }
    }

    /// Whether one more key may be made, as a condition inside a transaction.
    fn key_quota_condition(&self, namespace: &Namespace, wallet: Option<Wallet>) -> SqlCondition {
        let mut sql =
            "(SELECT count(*) FROM api_keys WHERE namespace = ? AND revoked_at IS NULL".to_owned();
        let mut args = vec![namespace.as_str().into()];
        if let Some(wallet) = wallet.filter(|_| self.auth_db.is_open(namespace)) {
            sql.push_str(" AND wallet = ?");
            args.push(wallet.to_string().into());
        }
        args.push(MAX_LIVE_KEYS.into());
        SqlCondition::new(sql + ") < ?", args)
    }

    /// Says that there are too many keys, in words.
    async fn check_key_quota(&self, namespace: &Namespace, has_room: &SqlCondition) -> Result<()> {
        let look = statement_if("SELECT 1 WHERE", [], has_room.clone());
        if !self.auth_db.query_rows(look).await?.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            Code::Conflict,
            format!(
                "the namespace \"{namespace}\" has {MAX_LIVE_KEYS} API keys, the most that may be valid at a time: revoke one first"
            ),
        ))
    }

    /// Whether a verified caller still has at least this role, as a condition inside a transaction.
    /// What a caller opens for others outlives the few seconds for which its own check is cached.
    pub(super) fn authority_condition(
        &self,
        by: &VerifiedIdentity,
        namespace: &Namespace,
        least: Role,
    ) -> SqlCondition {
        let credential = match &by.source {
            CredentialSource::Operator => return SqlCondition::always(),
            CredentialSource::Lent => return SqlCondition::never(),
            CredentialSource::Session { id } => SqlCondition::new(
                "EXISTS (SELECT 1 FROM sessions WHERE id = ? AND revoked_at IS NULL)",
                [id.as_str().into()],
            ),
            CredentialSource::Key { id } => SqlCondition::new(
                "EXISTS (SELECT 1 FROM api_keys WHERE id = ? AND revoked_at IS NULL)",
                [id.as_str().into()],
            ),
        };
        match by.wallet {
            Some(wallet) => {
                credential.and(self.auth_db.has_role_condition(wallet, namespace, least))
            }
            None => credential,
        }
    }

    /// Keys of a namespace, oldest first, without the keys themselves.
    pub(crate) async fn list_keys(
        &self,
        namespace: &Namespace,
        whose: KeyFilter,
    ) -> Result<Vec<ApiKey>> {
        let statement = statement_if(
            "SELECT id, prefix, namespace, name, role, scopes, created_at, last_used, revoked_at, wallet FROM api_keys \
             WHERE namespace = ? AND",
            [namespace.as_str().into()],
            whose.sql_condition(),
        );
        let sql = format!(
            "SELECT * FROM ({} ORDER BY revoked_at IS NOT NULL, revoked_at DESC, created_at DESC LIMIT {MAX_LISTED}) \
             ORDER BY created_at, id",
            statement.sql
        );
        let ordered = Statement::new(sql, statement.args);
        Ok(self.auth_db.query_rows(ordered).await?.iter().map(api_key_from_row).collect())
    }

    /// Revokes a key; false when it was revoked before.
    pub(crate) async fn revoke_key(
        &self,
        namespace: &Namespace,
        id: &str,
        whose: KeyFilter,
        by: &str,
    ) -> Result<bool> {
        let key =
            SqlCondition::new("id = ? AND namespace = ?", [id.into(), namespace.as_str().into()]);
        let key = key.and(whose.sql_condition());
        let live = key.clone().and(SqlCondition::new("revoked_at IS NULL", []));
        let exists = SqlCondition::new(
            format!("EXISTS (SELECT 1 FROM api_keys WHERE {})", live.sql),
            live.args.clone(),
        );
        let now = self.auth_db.clock.now_ms();
        let statements = vec![
            statement_if("SELECT 1 FROM api_keys WHERE", [], key),
            audit::insert_event_if("key_revoked", namespace, by, id, now, exists),
            statement_if("UPDATE api_keys SET revoked_at = ? WHERE", [now.into()], live),
        ];
        let results = self.auth_db.run_transaction(statements).await?;
        if results.first().is_none_or(|found| found.rows.is_empty()) {
            let shown = debros_proto::ids::excerpt(id);
            return Err(Error::new(
                Code::NotFound,
                format!("the namespace has no API key with the id \"{shown}\""),
            ));
        }
        let revoked = has_changed_row(&results, 2);
        if revoked {
            self.credentials.invalidations.invalidate_namespace(namespace);
            tracing::info!(id, %namespace, by, "an API key was revoked");
        }
        Ok(revoked)
    }

    /// An access token in place of an API key. It ends with the key.
    pub(crate) async fn token_for_key(
        &self,
        by: &VerifiedIdentity,
        namespace: &Namespace,
    ) -> Result<SessionResponse> {
        let (CredentialSource::Key { id }, 0) = (&by.source, by.expires_at) else {
            return Err(Error::new(
                Code::Forbidden,
                "only an API key is exchanged for an access token: a session's token is renewed with its refresh token",
            ));
        };
        let token = secret::new_id("tok", random::bytes()?);
        let now = self.auth_db.clock.now_ms();
        let claims = Claims::new(
            id.clone(),
            namespace.clone(),
            TokenCredential::Key(id.clone()),
            token,
            now,
        );
        Ok(SessionResponse {
            access_token: self.signing.sign_token(&claims).await?,
            access_expires_at: claims.expires_at,
            refresh_token: String::new(),
            refresh_expires_at: 0,
            subject: claims.subject,
            namespace: namespace.to_string(),
            role: by.scopes.role_within(by.role).name().to_owned(),
        })
    }
}

/// A key that is made but not kept yet.
struct GeneratedKey {
    secret: Secret,
    info: ApiKey,
    wallet: Option<Wallet>,
}

impl GeneratedKey {
    fn new(
        wish: &NewKeySpec,
        namespace: &Namespace,
        role: Role,
        wallet: Option<Wallet>,
        now: i64,
    ) -> Result<Self> {
        let secret = secret::api_key(random::bytes()?, namespace);
        let info = ApiKey {
            id: secret::new_id("key", random::bytes()?),
            prefix: secret.prefix().to_owned(),
            namespace: namespace.to_string(),
            name: wish.name.clone(),
            role: role.name().to_owned(),
            scopes: wish.scopes.names(),
            created_at: now,
            last_used: 0,
            revoked_at: 0,
            wallet: wallet.map(|wallet| wallet.to_string()).unwrap_or_default(),
        };
        Ok(Self { secret, info, wallet })
    }

    /// Keeps the key's hash, if the condition holds. The first statement changes a row when it did.
    fn insert_statements(&self, by: &str, condition: SqlCondition) -> [Statement; 2] {
        let info = &self.info;
        let kept = SqlCondition::new(
            "EXISTS (SELECT 1 FROM api_keys WHERE id = ?)",
            [info.id.as_str().into()],
        );
        let namespace_column = info.namespace.as_str();
        [
            statement_if(
                "INSERT INTO api_keys (id, hash, prefix, namespace, name, role, scopes, created_at, wallet) \
                 SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE",
                [
                    info.id.as_str().into(),
                    self.secret.hash().as_slice().into(),
                    info.prefix.as_str().into(),
                    namespace_column.into(),
                    info.name.as_str().into(),
                    info.role.as_str().into(),
                    info.scopes.join(" ").into(),
                    info.created_at.into(),
                    self.wallet.map(|wallet| wallet.to_string()).into(),
                ],
                condition,
            ),
            statement_if(
                "INSERT INTO audit_events (at, kind, namespace, subject, detail) SELECT ?, 'key_created', ?, ?, ? WHERE",
                [
                    info.created_at.into(),
                    namespace_column.into(),
                    by.into(),
                    info.id.as_str().into(),
                ],
                kept,
            ),
        ]
    }

    /// The only time that the key is returned.
    fn into_response(self, by: &str) -> CreateApiKeyResponse {
        let ApiKey { id, namespace, role, .. } = &self.info;
        tracing::info!(id, namespace, role, by, "an API key was made");
        CreateApiKeyResponse { api_key: self.secret.expose().to_owned(), info: Some(self.info) }
    }
}

fn api_key_from_row(row: &Row) -> ApiKey {
    ApiKey {
        id: row.text(0).to_owned(),
        prefix: row.text(1).to_owned(),
        namespace: row.text(2).to_owned(),
        name: row.text(3).to_owned(),
        role: row.text(4).to_owned(),
        scopes: row.text(5).split_ascii_whitespace().map(str::to_owned).collect(),
        created_at: row.integer(6),
        last_used: row.integer(7),
        revoked_at: row.integer(8),
        wallet: row.text(9).to_owned(),
    }
}
