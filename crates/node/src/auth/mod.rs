//! Sign-in by wallet, sessions, API keys, and who may act in which namespace.
//!
//! Everything that is kept stands in the system's database, so that all nodes of a network agree. What goes together is
//! one transaction, in which each statement carries its own condition: there is no moment between a check and its use.

mod api_keys;
mod apps;
mod audit;
mod credentials;
mod domains;
mod leaving;
mod limits;
mod members;
mod namespaces;
mod origin;
mod proof;
mod sessions;
mod signing;
mod standing;
mod store;
mod sweep;
mod token_key;

pub(crate) use api_keys::{KeyWish, Whose};
pub(crate) use namespaces::{Known, Page};
pub(crate) use origin::Origin;
pub(crate) use signing::Signing;
pub use signing::SigningError;
pub(crate) use standing::role_column;
pub(crate) use store::Store;
pub use token_key::TokenKeyError;

use crate::caller::{Caller, Identity};

use audit::Refusals;
use credentials::Credentials;
use debros_auth::challenge::ChallengeKey;
use debros_p2p::PeerId;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, LogThrottle, Namespace, Result};
use domains::Domains;
use limits::Limits;
use quick_cache::sync::Cache;
use std::path::Path;
use std::sync::{Arc, RwLock};

/// Namespaces that are remembered as having an owner.
const OWNED_REMEMBERED: usize = 10_000;

/// The authentication service.
pub(crate) struct Auth {
    store: Arc<Store>,
    pub(crate) credentials: Credentials,
    signing: Arc<Signing>,
    challenge_key: RwLock<ChallengeKey>,
    limits: Limits,
    domains: Domains,
    refusals: Refusals,
    reuses_logged: LogThrottle,
    /// Namespaces in which the operator was active while this process runs: they have an owner.
    owned: Cache<Namespace, ()>,
    /// Held by the one deletion of a namespace that is under way.
    deletions: tokio::sync::Mutex<()>,
}

/// What a call without a credential comes with.
pub(crate) struct Knock<'a> {
    /// Who asks; `None` from within the process.
    pub(crate) peer: Option<PeerId>,
    /// Whom limits count.
    pub(crate) origin: Origin,
    /// Only a logout from all sessions looks at it.
    pub(crate) credential: &'a str,
    /// The namespace that the request names, for messages that name none.
    pub(crate) namespace: &'a str,
}

impl Auth {
    /// Loads or makes what the service signs with.
    pub(crate) async fn start(
        store: Store,
        node_id: String,
        data_dir: &Path,
        operator_credential: &str,
        sign_in_domains: &[String],
    ) -> Result<Self, SigningError> {
        let store = Arc::new(store);
        let challenge_key = proof::load_key(&store).await?;
        let signing = Arc::new(Signing::start(Arc::clone(&store), node_id, data_dir).await?);
        let auth = Self {
            credentials: Credentials::new(Arc::clone(&store), Arc::clone(&signing), operator_credential),
            limits: Limits::new(&store.clock),
            domains: Domains::new(sign_in_domains),
            refusals: Refusals::default(),
            reuses_logged: LogThrottle::default(),
            owned: Cache::new(OWNED_REMEMBERED),
            deletions: tokio::sync::Mutex::default(),
            challenge_key: RwLock::new(challenge_key),
            signing,
            store,
        };
        // Where nothing can be written the names stay taken, which harms nobody, and reads go on.
        if let Err(error) = auth.free_deleted().await {
            tracing::warn!(error = error.message, "names of deleted namespaces could not be freed");
        }
        Ok(auth)
    }

    /// Calls that carry their own proof.
    pub(crate) async fn knock(&self, knock: Knock<'_>, call: Call) -> Result<response::Result> {
        if let Err(error) = self.limits.call(knock.origin) {
            metrics::counter!("debros_node_auth_refusals_total", "kind" => "peer_limited").increment(1);
            return Err(error);
        }
        match call {
            Call::Challenge(request) => self.challenge(request, &knock).map(response::Result::Challenge),
            Call::SignIn(request) => self.sign_in(request.proof, &knock).await.map(response::Result::Session),
            Call::RegisterApp(request) => {
                let app = self.register(request, &knock).await?;
                Ok(response::Result::App(rpc::AppResponse { app: Some(app) }))
            }
            Call::CreateApiKeyByProof(request) => {
                self.create_key_by_proof(request, &knock).await.map(response::Result::CreateApiKey)
            }
            Call::Refresh(request) => self.refresh(request).await.map(response::Result::Session),
            Call::Logout(request) => {
                let revoked = self.leave(request, &knock).await?;
                Ok(response::Result::Logout(rpc::LogoutResponse { revoked }))
            }
            Call::Jwks(_) => {
                let keys = self.signing.listed().await?;
                Ok(response::Result::Jwks(rpc::JwksResponse { keys }))
            }
            _ => Err(Error::internal("the call is listed as public, but nobody answers it")),
        }
    }

    async fn leave(&self, request: rpc::LogoutRequest, knock: &Knock<'_>) -> Result<u64> {
        let mut revoked = 0;
        if request.all {
            let identity = self.credentials.verify(knock.credential).await?;
            let caller = Caller::new(identity, knock.namespace)?;
            revoked += self.log_out_everywhere(caller.identity()).await?;
        } else if request.refresh_token.is_empty() {
            return Err(Error::invalid(
                "nothing says which session ends: send its refresh token, or all with the session's access token",
            ));
        }
        if !request.refresh_token.is_empty() {
            revoked += self.log_out(&request.refresh_token, &request.namespace).await?;
        }
        Ok(revoked)
    }

    /// Gives a namespace in which the operator acts to the operator, unless somebody owns it: the first wallet that comes
    /// later must not own what is there already.
    pub(crate) async fn operator_acts_in(&self, namespace: &Namespace) -> Result<()> {
        if self.owned.get(namespace).is_some() {
            return Ok(());
        }
        let known = rpc::Statement::new("SELECT 1 FROM namespaces WHERE name = ?", [namespace.as_str().into()]);
        if self.store.rows(known).await?.is_empty() {
            let claim = standing::claim_for(standing::OPERATOR, namespace, self.store.clock.now_ms());
            match self.store.write(claim.into()).await {
                // Where nothing can be written, nothing new can come that a stranger could own, and reads go on.
                Err(error) if matches!(error.code, Code::DatabaseFull | Code::DiskFull | Code::ReadOnly) => {
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
        self.store.is_open(namespace)
    }

    /// Counts a change to keys or members. The operator may make any number.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(crate) fn count_change(&self, by: &Identity) -> Result<()> {
        by.wallet.map_or(Ok(()), |wallet| self.limits.change(wallet))
    }

    /// Makes the node sign with a new key.
    pub(crate) async fn rotate_key(&self, by: &str) -> Result<rpc::SigningKey> {
        self.signing.rotate(by).await.map_err(SigningError::into_call_error)
    }

    /// Takes a new key when the node's own is old.
    pub(crate) async fn rotate_key_when_old(&self) -> Result<(), SigningError> {
        self.signing.rotate_when_old().await
    }

    /// Stops believing a signing key.
    pub(crate) async fn remove_key(&self, kid: &str, by: &str) -> Result<bool> {
        let removed = self.signing.remove(kid, by).await;
        // Also when it failed: it may have failed after the removal.
        if !matches!(removed, Ok(false)) {
            self.credentials.forget();
        }
        removed
    }

    /// Learns the tables anew after they were replaced as a whole.
    pub(crate) async fn tables_replaced(&self) -> Result<()> {
        self.credentials.forget();
        self.owned.clear();
        // Each is tried, whatever became of the others.
        let freed = self.free_deleted().await;
        let reloaded = self.reload_challenge_key().await;
        let published = self.signing.publish().await.map_err(SigningError::into_call_error);
        // What was looked up meanwhile may be of before.
        self.credentials.forget();
        self.owned.clear();
        freed.and(reloaded).and(published)
    }
}
