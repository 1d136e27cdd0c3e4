//! Sessions: opened by a wallet's proof, kept alive by refresh tokens that are each good for one
//! exchange.

use super::auth_db::{RowColumns as _, SqlCondition, has_changed_row, statement_if};
use super::membership::{namespace_forbidden, role_column};
use super::proof::VerifiedProof;
use super::{AuthService, PublicRequest, audit};
use crate::caller::{CredentialSource, VerifiedIdentity};
use debros_auth::secret::{self, REFRESH_TOKEN_LIFETIME_MS, Secret};
use debros_auth::token::{Claims, TokenCredential};
use debros_auth::{Role, Wallet, random};
use debros_proto::rpc::{self, Proof, SessionResponse, Statement, Value};
use debros_proto::{Code, Error, Namespace, Result};

impl AuthService {
    /// Opens a session. One transaction uses the nonce up, claims the namespace if it has no owner,
    /// and opens the session if the wallet may act there: none of them is left without the others.
    pub(super) async fn sign_in(
        &self,
        proof: Option<Proof>,
        public: &PublicRequest<'_>,
    ) -> Result<SessionResponse> {
        let proven = self.verify_proof(proof, public).await?;
        let opened = self.open_session(&proven).await;
        if let Err(error) = &opened {
            self.count_refusal(proven.namespace(), error);
        }
        opened
    }

    async fn open_session(&self, proven: &VerifiedProof) -> Result<SessionResponse> {
        let (wallet, namespace) = (proven.wallet(), proven.namespace());
        let role = self.role_on_entry(proven).await?;
        let now = self.auth_db.clock.now_ms();
        let session = secret::new_id("ses", random::bytes()?);
        let refresh = secret::refresh_token(random::bytes()?);
        // Signed before anything is written: a node that cannot sign leaves no claim behind.
        let answer =
            self.session_response(wallet, namespace, &session, &refresh, role, now).await?;
        let owner = wallet.to_string();
        let opened = || {
            SqlCondition::new(
                "EXISTS (SELECT 1 FROM sessions WHERE id = ?)",
                [session.as_str().into()],
            )
        };
        let mut statements = vec![proven.insert_nonce_statement()];
        statements.extend(self.auth_db.claim_statements(wallet, namespace, now));
        let place = statements.len();
        statements.push(statement_if(
            "INSERT INTO sessions (id, wallet, namespace, created_at, last_used, expires_at) SELECT ?, ?, ?, ?, ?, ? WHERE",
            [
                session.as_str().into(),
                owner.as_str().into(),
                namespace.as_str().into(),
                now.into(),
                now.into(),
                answer.refresh_expires_at.into(),
            ],
            self.auth_db.has_role_condition(wallet, namespace, Role::Reader),
        ));
        statements.push(statement_if(
            "INSERT INTO refresh_tokens (hash, session, created_at, expires_at) SELECT ?, ?, ?, ? WHERE",
            [refresh.hash().as_slice().into(), session.as_str().into(), now.into(), answer.refresh_expires_at.into()],
            opened(),
        ));
        statements.push(audit::insert_event_if(
            "sign_in",
            namespace,
            &owner,
            &session,
            now,
            opened(),
        ));
        let results = self.run_proof_transaction(statements).await?;
        // Between the check and the transaction another wallet was faster.
        if has_changed_row(&results, place) {
            Ok(answer)
        } else {
            Err(namespace_forbidden(namespace))
        }
    }

    /// Exchanges a refresh token. The same request again gets the same answer for [`REPEAT_MS`],
    /// while the token that it gave is unused: an answer was lost, or two tabs share a session. Any
    /// other use of a used token ends the session: one of the two that hold it is not its owner,
    /// and which one cannot be known.
    pub(super) async fn refresh_session(
        &self,
        request: rpc::RefreshRequest,
    ) -> Result<SessionResponse> {
        let presented = &request.refresh_token;
        if !secret::is_refresh_token(presented) {
            return Err(unknown_refresh_token_error());
        }
        let hash = secret::sha256(presented);
        let now = self.auth_db.clock.now_ms();
        let find = format!(
            "SELECT s.id, s.wallet, s.namespace, t.used_at, {}, t.expires_at, s.revoked_at IS NOT NULL \
             FROM refresh_tokens t JOIN sessions s ON s.id = t.session WHERE t.hash = ?",
            role_column("s.namespace", "s.wallet")
        );
        let rows = self.auth_db.query_rows(Statement::new(find, [hash.as_slice().into()])).await?;
        let row = rows.first().ok_or_else(unknown_refresh_token_error)?;
        let (session, wallet, namespace) =
            (row.text(0), Wallet::parse(row.text(1))?, Namespace::new(row.text(2))?);
        if !request.namespace.is_empty() && request.namespace != namespace.as_str() {
            return Err(namespace_mismatch_error());
        }
        if row.integer(6) == 1 {
            return Err(session_ended_error());
        }
        if row.integer(5) <= now {
            return Err(Error::new(
                Code::CredentialExpired,
                "the refresh token has expired: sign in again",
            ));
        }
        let used_at = row.values.get(3).and_then(Value::as_integer);
        let role = match self.auth_db.role_from_column(&namespace, row.text(4)) {
            Some(role) => role,
            None if used_at.is_some() => Role::Reader,
            None => return Err(namespace_forbidden(&namespace)),
        };
        let next = self.challenge_key().next_refresh_token(presented);
        // Signed before anything is written: a node that cannot sign uses no token up.
        let at = used_at.unwrap_or(now);
        let answer = self.session_response(wallet, &namespace, session, &next, role, at).await?;
        let exchange = RefreshExchange {
            old: &hash,
            new: &next.hash(),
            session,
            wallet,
            namespace: &namespace,
            now,
        };
        let results = self.auth_db.run_transaction(exchange.exchange_statements()).await?;
        if let Some(exchanged) = results.get(EXCHANGED_INDEX).and_then(|result| result.rows.first())
        {
            let exchanged_at = exchanged.integer(0);
            if exchanged_at == at {
                return Ok(answer);
            }
            // Another exchange of the token came between the check and the transaction.
            return self
                .session_response(wallet, &namespace, session, &next, role, exchanged_at)
                .await;
        }
        if has_changed_row(&results, ENDED_INDEX) {
            // Any caller with a session can cause it; the audit has each.
            if let Some(times) = self.reuses_logged.admit() {
                tracing::warn!(session, %wallet, %namespace, times, "a used refresh token came again; its session was ended");
            }
            self.credentials.invalidations.invalidate_namespace(&namespace);
        }
        self.refusals.count_refusal("refresh_refused", &namespace);
        Err(session_ended_error())
    }

    /// Ends the session of a refresh token, used or not. `named` is empty, or the token's own
    /// namespace.
    pub(super) async fn end_session(&self, refresh_token: &str, named: &str) -> Result<u64> {
        if !secret::is_refresh_token(refresh_token) {
            return Err(Error::invalid(
                "the refresh token is not one: it is rt_ and 64 hex digits, as sign-in gave it",
            ));
        }
        let hash = secret::sha256(refresh_token);
        if !named.is_empty() {
            let find = "SELECT s.namespace FROM refresh_tokens t JOIN sessions s ON s.id = t.session WHERE t.hash = ?";
            let rows =
                self.auth_db.query_rows(Statement::new(find, [hash.as_slice().into()])).await?;
            if rows.first().is_some_and(|row| row.text(0) != named) {
                return Err(namespace_mismatch_error());
            }
        }
        self.end_sessions(SqlCondition::new(
            "id = (SELECT session FROM refresh_tokens WHERE hash = ?)",
            [hash.as_slice().into()],
        ))
        .await
    }

    /// Ends all sessions of the caller's wallet in its namespace.
    pub(super) async fn end_all_sessions(&self, identity: &VerifiedIdentity) -> Result<u64> {
        let (CredentialSource::Session { .. }, Some(wallet), Some(namespace)) =
            (&identity.source, identity.wallet, &identity.namespace)
        else {
            return Err(Error::new(
                Code::Forbidden,
                "only a session's access token ends all sessions of its wallet: an API key has none, revoke it instead",
            ));
        };
        self.end_sessions(SqlCondition::new(
            "wallet = ? AND namespace = ?",
            [wallet.to_string().into(), namespace.as_str().into()],
        ))
        .await
    }

    async fn end_sessions(&self, which: SqlCondition) -> Result<u64> {
        let now = self.auth_db.clock.now_ms();
        let live =
            which.and(SqlCondition::new("revoked_at IS NULL AND expires_at > ?", [now.into()]));
        let mut end =
            statement_if("UPDATE sessions SET revoked_at = ? WHERE", [now.into()], live.clone());
        end.sql.push_str(" RETURNING namespace");
        let statements = vec![
            statement_if(
                "INSERT INTO audit_events (at, kind, namespace, subject, detail) \
                 SELECT ?, 'logout', namespace, wallet, id FROM sessions WHERE",
                [now.into()],
                live,
            ),
            end,
        ];
        let results = self.auth_db.run_transaction(statements).await?;
        let ended = results.get(1).map_or(&[][..], |result| &result.rows);
        for row in ended {
            self.credentials.invalidations.invalidate_namespace(&Namespace::new(row.text(0))?);
        }
        Ok(ended.len() as u64)
    }

    /// The tokens of a session, as of `now`. They are the same for the same arguments, as long as
    /// the node signs with the same key.
    async fn session_response(
        &self,
        wallet: Wallet,
        namespace: &Namespace,
        session: &str,
        refresh: &Secret,
        role: Role,
        now: i64,
    ) -> Result<SessionResponse> {
        let credential = TokenCredential::Session(session.to_owned());
        let id = secret::new_id(
            "tok",
            secret::sha256(refresh.hash()).first_chunk().copied().unwrap_or_default(),
        );
        let claims = Claims::new(wallet.to_string(), namespace.clone(), credential, id, now);
        Ok(SessionResponse {
            access_token: self.signing.sign_token(&claims).await?,
            access_expires_at: claims.expires_at,
            refresh_token: refresh.expose().to_owned(),
            refresh_expires_at: now + REFRESH_TOKEN_LIFETIME_MS,
            subject: claims.subject,
            namespace: namespace.to_string(),
            role: role.name().to_owned(),
        })
    }
}

/// For how long the same exchange is answered again, in milliseconds.
const REPEAT_MS: i64 = 30 * 1000;
/// Places in [`RefreshExchange::exchange_statements`].
const ENDED_INDEX: usize = 3;
const EXCHANGED_INDEX: usize = 5;

/// One refresh token in the place of another.
struct RefreshExchange<'a> {
    old: &'a [u8; 32],
    /// Made from the old token, so that each exchange of the old one finds the same.
    new: &'a [u8; 32],
    session: &'a str,
    wallet: Wallet,
    namespace: &'a Namespace,
    now: i64,
}

impl RefreshExchange<'_> {
    /// Puts the new token in the place of an old one that is unused, finds that this was done a
    /// moment ago, or else ends the session. The last statement has a row, with the time of the
    /// exchange, in the first two cases.
    fn exchange_statements(&self) -> Vec<Statement> {
        let &Self { old, new, session, wallet, namespace, now } = self;
        let (old, new) = (old.as_slice(), new.as_slice());
        let expires_at = now + REFRESH_TOKEN_LIFETIME_MS;
        // True as well for the exchange that this very transaction has made.
        let exchanged = || {
            SqlCondition::new(
                "EXISTS (SELECT 1 FROM refresh_tokens t JOIN refresh_tokens n ON n.session = t.session \
                 WHERE t.hash = ? AND t.used_at > ? AND n.hash = ? AND n.used_at IS NULL)",
                [old.into(), (now - REPEAT_MS).into(), new.into()],
            )
        };
        let live = || {
            SqlCondition::new(
                "EXISTS (SELECT 1 FROM sessions WHERE id = ? AND revoked_at IS NULL)",
                [session.into()],
            )
        };
        let used = SqlCondition::new(
            "EXISTS (SELECT 1 FROM refresh_tokens WHERE hash = ? AND used_at IS NOT NULL)",
            [old.into()],
        );
        let reused = live().and(used).and(exchanged().not());
        vec![
            Statement::new(
                "INSERT INTO refresh_tokens (hash, session, created_at, expires_at) \
                 SELECT ?, t.session, ?, ? FROM refresh_tokens t JOIN sessions s ON s.id = t.session \
                 WHERE t.hash = ? AND t.used_at IS NULL AND t.expires_at > ? AND s.revoked_at IS NULL",
                [new.into(), now.into(), expires_at.into(), old.into(), now.into()],
            ),
            statement_if(
                "UPDATE refresh_tokens SET used_at = ? WHERE hash = ? AND used_at IS NULL AND",
                [now.into(), old.into()],
                SqlCondition::new(
                    "EXISTS (SELECT 1 FROM refresh_tokens WHERE hash = ?)",
                    [new.into()],
                ),
            ),
            audit::insert_event_if(
                "refresh_reuse",
                namespace,
                &wallet.to_string(),
                session,
                now,
                reused.clone(),
            ),
            statement_if(
                "UPDATE sessions SET revoked_at = ? WHERE id = ? AND",
                [now.into(), session.into()],
                reused,
            ),
            Statement::new(
                "UPDATE sessions SET last_used = n.created_at, expires_at = n.expires_at FROM refresh_tokens n \
                 WHERE sessions.id = n.session AND n.hash = ? AND n.created_at = ? AND sessions.revoked_at IS NULL",
                [new.into(), now.into()],
            ),
            statement_if(
                "SELECT used_at FROM refresh_tokens WHERE hash = ? AND",
                [old.into()],
                exchanged().and(live()),
            ),
        ]
    }
}

fn namespace_mismatch_error() -> Error {
    Error::new(
        Code::NamespaceMismatch,
        "namespace mismatch: the refresh token belongs to another namespace than the request names",
    )
}

fn unknown_refresh_token_error() -> Error {
    Error::new(
        Code::Unauthenticated,
        "the refresh token is not valid: it is unknown or mistyped; sign in again",
    )
}

/// Whether it was signed out or a used token came again stays open: that is between the owner and
/// the audit.
fn session_ended_error() -> Error {
    Error::new(
        Code::CredentialRevoked,
        "the session of the refresh token has ended: it was signed out, or a refresh token of it was used twice; sign in \
         again",
    )
}
