//! Signing in with a wallet, sessions, and API keys.

use crate::{Client, Result, expect_answer};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{
    self, ApiKey, App, ChallengeResponse, CreateApiKeyResponse, Proof, SessionResponse, SigningKey,
};

/// Sign-in by wallet, sessions, and the API keys of the caller's namespace.
///
/// ```no_run
/// # async fn run(client: debros_client::Client, sign: impl Fn(&str) -> String) -> debros_client::Result<()> {
/// use debros_client::rpc::{ChallengeRequest, Proof};
///
/// let challenge = client
///     .auth()
///     .challenge(ChallengeRequest { wallet: "0x…".into(), namespace: "my-app".into(), ..Default::default() })
///     .await?;
/// let proof = Proof {
///     wallet: challenge.wallet,
///     namespace: challenge.namespace,
///     nonce: challenge.nonce,
///     signature: sign(&challenge.message),
///     ..Default::default()
/// };
/// let session = client.auth().sign_in(proof).await?;
/// let signed_in = client.with_credential(session.access_token);
/// signed_in.storage().put("greeting", "hello").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Auth<'a> {
    pub(crate) client: &'a Client,
}

/// How an API key is made.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// What the key is for, in the maker's words.
    pub name: String,
    /// `reader`, `writer` or `admin`. Empty: `writer`, or less where the maker may less.
    pub role: String,
    /// Narrows the role to these, such as `db:read`. Empty: everything the role allows.
    pub scopes: Vec<String>,
}

impl Auth<'_> {
    /// Asks for a text to sign. Nothing is written; the challenge is good for 5 minutes, once.
    ///
    /// # Errors
    /// `invalid_argument`, `rate_limited`.
    pub async fn challenge(&self, request: rpc::ChallengeRequest) -> Result<ChallengeResponse> {
        expect_answer!(self.client.call(Call::Challenge(request)).await?, Challenge)
    }

    /// Opens a session with a wallet's proof: an access token for 15 minutes and a refresh token
    /// for 30 days. The first wallet that signs in for a namespace owns it.
    ///
    /// # Errors
    /// `unauthenticated` when the proof does not hold, `forbidden` when the namespace is another
    /// wallet's, `rate_limited`.
    pub async fn sign_in(&self, proof: Proof) -> Result<SessionResponse> {
        let request = rpc::SignInRequest { proof: Some(proof) };
        expect_answer!(self.client.call(Call::SignIn(request)).await?, Session)
    }

    /// Registers an application in the name of a wallet.
    ///
    /// # Errors
    /// As [`sign_in`](Auth::sign_in).
    pub async fn register_app(&self, proof: Proof, name: impl Into<String>) -> Result<App> {
        let request = rpc::RegisterAppRequest { proof: Some(proof), name: name.into() };
        let answer = expect_answer!(self.client.call(Call::RegisterApp(request)).await?, App)?;
        answer
            .app
            .ok_or_else(|| crate::Error::internal("the node answered without the application"))
    }

    /// Makes an API key with a wallet's proof, without a session. The key is returned this once.
    ///
    /// # Errors
    /// As [`sign_in`](Auth::sign_in), and `forbidden` for a role that the wallet does not have.
    pub async fn create_key_by_proof(
        &self,
        proof: Proof,
        key: NewKey,
    ) -> Result<CreateApiKeyResponse> {
        let NewKey { name, role, scopes } = key;
        let request = rpc::CreateApiKeyByProofRequest { proof: Some(proof), name, role, scopes };
        expect_answer!(self.client.call(Call::CreateApiKeyByProof(request)).await?, CreateApiKey)
    }

    /// Exchanges a refresh token for new tokens. The same request within 30 seconds gets the same
    /// answer, as long as the new refresh token was not used; shown again otherwise, the old one
    /// ends the whole session.
    ///
    /// # Errors
    /// `unauthenticated` when the token is unknown, `credential_expired`, `credential_revoked` when
    /// its session has ended, `namespace_mismatch`.
    pub async fn refresh(
        &self,
        refresh_token: impl Into<String>,
        namespace: impl Into<String>,
    ) -> Result<SessionResponse> {
        let request = rpc::RefreshRequest {
            refresh_token: refresh_token.into(),
            namespace: namespace.into(),
        };
        expect_answer!(self.client.call(Call::Refresh(request)).await?, Session)
    }

    /// Ends the session of a refresh token; returns how many sessions ended now. `namespace` is
    /// empty, or the token's own.
    ///
    /// # Errors
    /// `namespace_mismatch`, `unavailable`.
    pub async fn logout(
        &self,
        refresh_token: impl Into<String>,
        namespace: impl Into<String>,
    ) -> Result<u64> {
        let (refresh_token, namespace) = (refresh_token.into(), namespace.into());
        self.end_sessions(rpc::LogoutRequest { refresh_token, all: false, namespace }).await
    }

    /// Ends all sessions of the caller's wallet in its namespace; returns how many. The caller's
    /// credential has to be an access token.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub async fn logout_all(&self) -> Result<u64> {
        self.end_sessions(rpc::LogoutRequest { all: true, ..Default::default() }).await
    }

    async fn end_sessions(&self, request: rpc::LogoutRequest) -> Result<u64> {
        expect_answer!(self.client.call(Call::Logout(request)).await?, Logout)
            .map(|answer| answer.revoked)
    }

    /// The public keys that access tokens are signed with.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>> {
        expect_answer!(self.client.call(Call::Jwks(rpc::JwksRequest {})).await?, Jwks)
            .map(|answer| answer.keys)
    }

    /// Exchanges the caller's API key for an access token.
    ///
    /// # Errors
    /// `unauthenticated`, `forbidden` when the credential is no API key.
    pub async fn token(&self) -> Result<SessionResponse> {
        expect_answer!(self.client.call(Call::Token(rpc::TokenRequest {})).await?, Session)
    }

    /// Makes an API key for the caller's namespace. The key is returned this once; only its hash is
    /// kept.
    ///
    /// # Errors
    /// `forbidden` for a role that the caller does not have, `invalid_argument`.
    pub async fn create_key(&self, key: NewKey) -> Result<CreateApiKeyResponse> {
        let NewKey { name, role, scopes } = key;
        let request = rpc::CreateApiKeyRequest { namespace: String::new(), name, role, scopes };
        expect_answer!(self.client.call(Call::CreateApiKey(request)).await?, CreateApiKey)
    }

    /// The API keys of the caller's namespace, revoked ones too, without the keys themselves. Who
    /// is no admin there sees its own wallet's.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn list_keys(&self) -> Result<Vec<ApiKey>> {
        expect_answer!(
            self.client.call(Call::ListApiKeys(rpc::ListApiKeysRequest {})).await?,
            ListApiKeys
        )
        .map(|answer| answer.keys)
    }

    /// Revokes an API key of the caller's namespace; false when it was revoked before. It stops
    /// working everywhere within 5 seconds.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn revoke_key(&self, id: impl Into<String>) -> Result<bool> {
        let revoke = rpc::RevokeApiKeyRequest { id: id.into() };
        expect_answer!(self.client.call(Call::RevokeApiKey(revoke)).await?, RevokeApiKey)
            .map(|answer| answer.revoked)
    }
}
