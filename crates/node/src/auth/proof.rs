//! Challenges, and what a signature over one proves.

use super::auth_db::AuthDb;
use super::membership::{WalletMembership, namespace_forbidden};
use super::{AuthService, CallOrigin, PublicRequest};
use debros_auth::challenge::{self, Challenge, ChallengeKey, SignInTerms};
use debros_auth::signature::RecoveredSigner;
use debros_auth::{Role, Wallet, random};
use debros_proto::rpc::{self, Proof, Statement, Value};
use debros_proto::{Code, Error, Namespace, Result};
use std::sync::PoisonError;

/// Characters in the purpose that a challenge repeats.
const MAX_PURPOSE_CHARS: usize = 100;
/// The row of `secrets` with the key that makes nonces.
const CHALLENGE_SECRET: &str = "challenge";

/// A wallet that proved itself for a namespace. Its nonce is not used up yet:
/// [`insert_nonce_statement`](VerifiedProof::insert_nonce_statement) has to be the first statement
/// of the transaction in which it opens something.
pub(super) struct VerifiedProof {
    challenge: Challenge,
    pub(super) signer: RecoveredSigner,
    /// Who brought the proof.
    origin: CallOrigin,
}

impl VerifiedProof {
    pub(super) fn wallet(&self) -> Wallet {
        self.challenge.terms.wallet()
    }

    pub(super) fn namespace(&self) -> &Namespace {
        self.challenge.terms.namespace()
    }

    /// Uses the nonce up. Of any number of transactions with the same nonce the primary key lets
    /// one through.
    pub(super) fn insert_nonce_statement(&self) -> Statement {
        Statement::new(
            "INSERT INTO used_nonces (hash, expires_at) VALUES (?, ?)",
            [self.challenge.nonce_hash().as_slice().into(), self.challenge.expires_at.into()],
        )
    }
}

/// The key that makes nonces, which all nodes of a network share. Made at the network's first
/// start.
pub(super) async fn load_challenge_key(auth_db: &AuthDb) -> Result<ChallengeKey> {
    let find =
        || Statement::new("SELECT value FROM secrets WHERE name = ?", [CHALLENGE_SECRET.into()]);
    // Written only when it is not there: a node starts on a full disk, too.
    if let Some(row) = auth_db.query_rows(find()).await?.first() {
        return parse_challenge_key(row.values.first());
    }
    let fresh: [u8; 32] = random::bytes()?;
    let statements = vec![
        Statement::new(
            "INSERT INTO secrets (name, value, created_at) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
            [CHALLENGE_SECRET.into(), fresh.as_slice().into(), auth_db.clock.now_ms().into()],
        ),
        // Another node of the network may have been faster.
        find(),
    ];
    let results = auth_db.run_transaction(statements).await?;
    parse_challenge_key(results.get(1).and_then(|result| result.rows.first()?.values.first()))
}

fn parse_challenge_key(value: Option<&Value>) -> Result<ChallengeKey> {
    value
        .and_then(|value| value.as_blob()?.as_ref().try_into().ok())
        .map(ChallengeKey::new)
        .ok_or_else(|| {
            Error::internal(
                "the secret \"challenge\" in the system's database is damaged: delete its row",
            )
        })
}

impl AuthService {
    /// Makes a text to sign. Writes nothing, because the call is public.
    pub(super) fn issue_challenge(
        &self,
        request: rpc::ChallengeRequest,
        public: &PublicRequest<'_>,
    ) -> Result<rpc::ChallengeResponse> {
        if request.purpose.chars().count() > MAX_PURPOSE_CHARS {
            return Err(Error::invalid(format!(
                "the purpose is longer than {MAX_PURPOSE_CHARS} characters"
            )));
        }
        let wallet = Wallet::parse(&request.wallet)?;
        let namespace = named_namespace(&request.namespace, public.namespace)?;
        let terms =
            SignInTerms::new(wallet, namespace, &request.domain, &request.uri, request.chain_id)?;
        self.domains.check_domain(public.peer, terms.domain())?;
        let made = challenge::issue(
            &self.challenge_key(),
            &terms,
            self.auth_db.clock.now_ms(),
            random::bytes()?,
        )?;
        Ok(rpc::ChallengeResponse {
            wallet: wallet.to_string(),
            namespace: terms.namespace().to_string(),
            nonce: made.nonce,
            purpose: request.purpose,
            message: made.message,
            issued_at: made.issued_at,
            expires_at: made.expires_at,
        })
    }

    /// Checks a proof: the text that was signed is made again from its fields, never taken from the
    /// caller.
    pub(super) async fn verify_proof(
        &self,
        proof: Option<Proof>,
        public: &PublicRequest<'_>,
    ) -> Result<VerifiedProof> {
        let proof = proof.ok_or_else(|| {
            Error::invalid("the request holds no proof: wallet, nonce and signature")
        })?;
        let wallet = Wallet::parse(&proof.wallet)?;
        let namespace = named_namespace(&proof.namespace, public.namespace)?;
        self.check_not_deleting(&namespace)?;
        let proven = self.check_proof(&proof, wallet, &namespace, public).await;
        if let Err(error) = &proven {
            self.count_refusal(&namespace, error);
        }
        proven
    }

    async fn check_proof(
        &self,
        proof: &Proof,
        wallet: Wallet,
        namespace: &Namespace,
        public: &PublicRequest<'_>,
    ) -> Result<VerifiedProof> {
        let terms =
            SignInTerms::new(wallet, namespace.clone(), &proof.domain, &proof.uri, proof.chain_id)?;
        self.domains.check_domain(public.peer, terms.domain())?;
        let now = self.auth_db.clock.now_ms();
        let challenge = challenge::check(&self.challenge_key(), &terms, &proof.nonce, now)?;
        let signer = match challenge.verify_signature(&proof.signature) {
            // Whoever saw a proof can send it again. That must not use up what its owner may prove.
            Ok(_) if self.is_nonce_used(&challenge).await? => Err(challenge::invalid_nonce_error()),
            signer => signer,
        };
        match signer {
            Ok(signer) => self.limits.count_proof(wallet).map(|()| VerifiedProof {
                challenge,
                signer,
                origin: public.origin,
            }),
            Err(error) if error.code == Code::Unauthenticated => {
                Err(self.limits.count_failed_proof(wallet).err().unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }

    async fn is_nonce_used(&self, challenge: &Challenge) -> Result<bool> {
        let look = "SELECT 1 FROM used_nonces WHERE hash = ?";
        let look = Statement::new(look, [challenge.nonce_hash().as_slice().into()]);
        Ok(!self.auth_db.query_rows(look).await?.is_empty())
    }

    /// The role that a proven wallet has once it has entered its namespace, which it may own then.
    ///
    /// # Errors
    /// `forbidden` when the namespace is another's; `rate_limited` when too many are claimed from
    /// there.
    pub(super) async fn role_on_entry(&self, proven: &VerifiedProof) -> Result<Role> {
        let namespace = proven.namespace();
        match self.auth_db.membership(proven.wallet(), namespace).await? {
            WalletMembership::Member(role) => Ok(role),
            WalletMembership::Unclaimed => {
                self.limits.count_claim(proven.origin).map(|()| Role::Owner)
            }
            WalletMembership::Stranger => Err(namespace_forbidden(namespace)),
        }
    }

    /// Counts a sign-in that was refused; a mistyped one was not.
    pub(super) fn count_refusal(&self, namespace: &Namespace, error: &Error) {
        if matches!(error.code, Code::Unauthenticated | Code::Forbidden | Code::RateLimited) {
            self.refusals.count_refusal("sign_in_refused", namespace);
        }
    }

    /// Runs the transaction in which a proven wallet opens something. Its first statement is
    /// [`insert_nonce_statement`](VerifiedProof::insert_nonce_statement).
    pub(super) async fn run_proof_transaction(
        &self,
        statements: Vec<Statement>,
    ) -> Result<Vec<rpc::StatementResult>> {
        self.auth_db.run_transaction(statements).await.map_err(|error| match (error.code, error.statement) {
            (Code::Constraint, Some(0)) => challenge::invalid_nonce_error(),
            (Code::Constraint, _) => {
                tracing::error!(statement = error.statement, error = %error.message, "a sign-in broke a constraint");
                Error::internal("the sign-in could not be written down; the node's log has more")
            }
            // Which statement of ours it was is nothing to a caller.
            _ => Error { statement: None, ..error },
        })
    }

    pub(super) fn challenge_key(&self) -> ChallengeKey {
        self.challenge_key.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn reload_challenge_key(&self) -> Result<()> {
        let key = load_challenge_key(&self.auth_db).await?;
        *self.challenge_key.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }
}

/// The namespace that a message names, or else the request around it.
fn named_namespace(in_message: &str, named: &str) -> Result<Namespace> {
    Namespace::new(if in_message.is_empty() { named } else { in_message })
}
