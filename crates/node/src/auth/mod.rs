//! Sign-in by wallet, sessions, API keys, and who may act in which namespace.
//!
//! Everything that is kept stands in the system's database, so that all nodes of a network agree.
//! What goes together is one transaction, in which each statement carries its own condition: there
//! is no moment between a check and its use.

mod api_keys;
mod apps;
mod audit;
mod auth_db;
mod call_origin;
mod credential_verifier;
mod deleting_namespaces;
mod invalidation_counters;
mod last_used;
mod members;
mod membership;
mod namespaces;
mod proof;
mod rate_limits;
mod sessions;
mod sign_in_domains;
mod sweep;
mod token_key;
mod token_signer;

pub(crate) use api_keys::{KeyFilter, NewKeySpec};
pub(crate) use auth_db::{AuthDb, RowColumns};
pub(crate) use call_origin::CallOrigin;
pub(crate) use membership::role_column;
pub(crate) use namespaces::{NamespaceRecord, PageRequest};
pub use token_key::TokenKeyError;
pub use token_signer::SigningError;
pub(crate) use token_signer::TokenSigner;

use crate::caller::{Caller, VerifiedIdentity};

use audit::RefusalCounts;
use credential_verifier::CredentialVerifier;
use debros_auth::challenge::ChallengeKey;
use debros_p2p::PeerId;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, LogThrottle, Namespace, Result};
use quick_cache::sync::Cache;
use rate_limits::AuthRateLimits;
use sign_in_domains::SignInDomains;
use std::path::Path;
use std::sync::{Arc, RwLock};

/// Namespaces that are cached as having an owner.
const OWNED_REMEMBERED: usize = 10_000;

/// The authentication service.
pub(crate) struct AuthService {
    auth_db: Arc<AuthDb>,
    pub(crate) credentials: CredentialVerifier,
    signing: Arc<TokenSigner>,
    challenge_key: RwLock<ChallengeKey>,
    limits: AuthRateLimits,
    domains: SignInDomains,
    refusals: RefusalCounts,
    reuses_logged: LogThrottle,
    /// Namespaces in which the operator was active while this process runs: they have an owner.
    owned: Cache<Namespace, ()>,
    /// Held by the one deletion of a namespace that is under way.
    deletions: tokio::sync::Mutex<()>,
}

/// What a call without a credential comes with.
pub(crate) struct PublicRequest<'a> {
    /// The calling peer; `None` from within the process.
    pub(crate) peer: Option<PeerId>,
    /// What the limits count.
    pub(crate) origin: CallOrigin,
    /// Only a logout from all sessions reads it.
    pub(crate) credential: &'a str,
    /// The namespace that the request names, for messages that name none.
    pub(crate) namespace: &'a str,
}

impl AuthService {
    /// Loads or makes what the service signs with.
    pub(crate) async fn start(
        auth_db: AuthDb,
        node_id: String,
        data_dir: &Path,
        operator_credential: &str,
        sign_in_domains: &[String],
    ) -> Result<Self, SigningError> {
        let auth_db = Arc::new(auth_db);
        let challenge_key = proof::load_challenge_key(&auth_db).await?;
        let signing =
            Arc::new(TokenSigner::load_or_create(Arc::clone(&auth_db), node_id, data_dir).await?);
        let auth = Self {
            credentials: CredentialVerifier::new(
                Arc::clone(&auth_db),
                Arc::clone(&signing),
                operator_credential,
            ),
            limits: AuthRateLimits::new(&auth_db.clock),
            domains: SignInDomains::new(sign_in_domains),
            refusals: RefusalCounts::default(),
            reuses_logged: LogThrottle::default(),
            owned: Cache::new(OWNED_REMEMBERED),
            deletions: tokio::sync::Mutex::default(),
            challenge_key: RwLock::new(challenge_key),
            signing,
            auth_db,
        };
        // Where nothing can be written the names stay taken, which does no harm, and reads go on.
        if let Err(error) = auth.free_deleted_names().await {
            tracing::warn!(error = error.message, "names of deleted namespaces could not be freed");
        }
        Ok(auth)
    }

    /// Counts a call that needs no credential and is answered elsewhere.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(crate) fn count_public_call(&self, origin: CallOrigin) -> Result<()> {
        self.limits.count_call(origin).inspect_err(|_| {
            metrics::counter!("debros_node_auth_refusals_total", "kind" => "peer_limited")
                .increment(1);
        })
    }

    /// Checks the site of a sign-in that is answered elsewhere.
    ///
    /// # Errors
    /// `forbidden` when a peer names a site that the node does not know.
    pub(crate) fn check_site(&self, peer: Option<PeerId>, call: &Call) -> Result<()> {
        let proof = match call {
            Call::Challenge(request) => return self.domains.check_named(peer, &request.domain),
            Call::SignIn(request) => &request.proof,
            Call::RegisterApp(request) => &request.proof,
            Call::CreateApiKeyByProof(request) => &request.proof,
            _ => return Ok(()),
        };
        let domain = proof.as_ref().map(|proof| proof.domain.as_str());
        self.domains.check_named(peer, domain.unwrap_or_default())
    }

    /// Calls that carry their own proof.
    pub(crate) async fn handle_public(
        &self,
        public: PublicRequest<'_>,
        call: Call,
    ) -> Result<response::Result> {
        self.count_public_call(public.origin)?;
        match call {
            Call::Challenge(request) => {
                self.issue_challenge(request, &public).map(response::Result::Challenge)
            }
            Call::SignIn(request) => {
                self.sign_in(request.proof, &public).await.map(response::Result::Session)
            }
            Call::RegisterApp(request) => {
                let app = self.register_app(request, &public).await?;
                Ok(response::Result::App(rpc::AppResponse { app: Some(app) }))
            }
            Call::CreateApiKeyByProof(request) => {
                self.create_key_by_proof(request, &public).await.map(response::Result::CreateApiKey)
            }
            Call::Refresh(request) => {
                self.refresh_session(request).await.map(response::Result::Session)
            }
            Call::Logout(request) => {
                let revoked = self.logout(request, &public).await?;
                Ok(response::Result::Logout(rpc::LogoutResponse { revoked }))
            }
            Call::Jwks(_) => {
                let keys = self.signing.list_keys().await?;
                Ok(response::Result::Jwks(rpc::JwksResponse { keys }))
            }
            _ => Err(Error::internal("the call is listed as public, but no service answers it")),
        }
    }

    async fn logout(&self, request: rpc::LogoutRequest, public: &PublicRequest<'_>) -> Result<u64> {
        let mut revoked = 0;
        if request.all {
            let identity = self.credentials.verify(public.credential).await?;
            let caller = Caller::new(identity, public.namespace)?;
            revoked += self.end_all_sessions(caller.identity()).await?;
        } else if request.refresh_token.is_empty() {
            return Err(Error::invalid(
                "nothing says which session ends: send its refresh token, or all with the session's access token",
            ));
        }
        if !request.refresh_token.is_empty() {
            revoked += self.end_session(&request.refresh_token, &request.namespace).await?;
        }
        Ok(revoked)
    }

    /// Gives a namespace in which the operator acts to the operator, unless it has an owner: the
    /// first wallet that comes later must not own what is there already.
    pub(crate) async fn claim_for_operator(&self, namespace: &Namespace) -> Result<()> {
        if self.owned.get(namespace).is_some() {
            return Ok(());
        }
        let known = rpc::Statement::new(
            "SELECT 1 FROM namespaces WHERE name = ?",
            [namespace.as_str().into()],
        );
        if self.auth_db.query_rows(known).await?.is_empty() {
            let claim = membership::claim_statements_for(
                membership::OPERATOR,
                namespace,
                self.auth_db.clock.now_ms(),
            );
            match self.auth_db.run_transaction(claim.into()).await {
                // Where nothing can be written, nothing new can come that a stranger could own, and
                // reads go on.
                Err(error)
                    if matches!(
                        error.code,
                        Code::DatabaseFull | Code::DiskFull | Code::ReadOnly
                    ) =>
                {
                    return Ok(());
                }
                written => written.map(|_| ())?,
            }
        }
        self.owned.insert(namespace.clone(), ());
        Ok(())
    }

    /// Whether every verified wallet may act in the namespace.
    pub(crate) fn is_open(&self, namespace: &Namespace) -> bool {
        self.auth_db.is_open(namespace)
    }

    /// Counts a change to keys or members. The operator may make any number.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(crate) fn count_change(&self, by: &VerifiedIdentity) -> Result<()> {
        by.wallet.map_or(Ok(()), |wallet| self.limits.count_change(wallet))
    }

    /// Makes the node sign with a new key.
    pub(crate) async fn rotate_signing_key(&self, by: &str) -> Result<rpc::SigningKey> {
        self.signing.rotate_key(by).await.map_err(SigningError::into_call_error)
    }

    /// Takes a new key when the node's own is old.
    pub(crate) async fn rotate_signing_key_if_old(&self) -> Result<(), SigningError> {
        self.signing.rotate_if_old().await
    }

    /// Stops believing a signing key.
    pub(crate) async fn remove_signing_key(&self, kid: &str, by: &str) -> Result<bool> {
        let removed = self.signing.remove_key(kid, by).await;
        // Also when it failed: it may have failed after the removal.
        if !matches!(removed, Ok(false)) {
            self.credentials.invalidations.invalidate_all();
        }
        removed
    }

    /// Discards what is cached of the tables after they were replaced as a whole.
    pub(crate) async fn reload_after_restore(&self) -> Result<()> {
        self.credentials.invalidations.invalidate_all();
        self.owned.clear();
        // Each is tried, whatever became of the others.
        let freed = self.free_deleted_names().await;
        let reloaded = self.reload_challenge_key().await;
        let published = self.signing.publish_key().await.map_err(SigningError::into_call_error);
        // What was looked up meanwhile may be of before.
        self.credentials.invalidations.invalidate_all();
        self.owned.clear();
        freed.and(reloaded).and(published)
    }
}
