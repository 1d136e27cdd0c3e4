//! The uses of a wallet's signature: a challenge to sign, then a session or an application's
//! registration.

use super::no_store;
use super::sessions::SessionAnswer;
use crate::error::{ApiError, ErrorBody, HandlerResult};
use crate::health::timestamp;
use crate::public_call::PublicCall;
use crate::respond::json;
use debros_client::rpc::{App, ChallengeRequest, Proof};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// The wallet that wants to sign in, and the namespace.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChallengeBody {
    /// An Ethereum address: 20 bytes in hex, with or without 0x.
    #[schema(example = "0x52908400098527886E0F7030069857D2E4169EE7")]
    wallet: String,
    /// The purpose, in the caller's words; only returned. At most 100 characters.
    purpose: Option<String>,
    /// Missing: the gateway's own.
    namespace: Option<String>,
    /// The chain that the wallet is on (EIP-155). Missing: 1. The proof has to name the same.
    chain_id: Option<u64>,
}

/// A text to sign.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ChallengeAnswer {
    /// In lower case, with 0x.
    wallet: String,
    namespace: String,
    /// 64 hex digits, valid once. A signature over it alone is accepted as well.
    nonce: String,
    purpose: String,
    /// The text to sign with `personal_sign` (EIP-4361 and EIP-191).
    message: String,
    /// 5 minutes from now.
    expires_at: String,
}

/// A wallet's signature over a challenge.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProofBody {
    wallet: String,
    /// The challenge's.
    nonce: String,
    /// `personal_sign` (EIP-191) over the challenge's message: 65 bytes in hex, with or without 0x.
    signature: String,
    /// As in the challenge. Missing: the gateway's own.
    namespace: Option<String>,
    /// As in the challenge. Missing: 1.
    chain_id: Option<u64>,
}

/// A wallet's signature over a challenge, and the application that it registers.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterBody {
    wallet: String,
    nonce: String,
    signature: String,
    namespace: Option<String>,
    chain_id: Option<u64>,
    /// The application's name.
    name: Option<String>,
}

/// A registered application.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RegisterAnswer {
    /// The application's id.
    client_id: String,
    app: RegisteredApp,
    signature_verified: bool,
}

/// An application and the wallet that registered it.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RegisteredApp {
    /// `app_<random>`.
    app_id: String,
    name: String,
    public_key: String,
    namespace: String,
    wallet: String,
}

/// Makes a text for a wallet to sign. Nothing is stored.
#[utoipa::path(
    post, path = "/v1/auth/challenge", tag = "auth", operation_id = "auth_challenge", security(()),
    request_body = ChallengeBody,
    responses((status = 200, body = ChallengeAnswer), (status = 429, body = ErrorBody)),
)]
pub(crate) async fn challenge(mut call: PublicCall) -> HandlerResult {
    let ChallengeBody { wallet, purpose, namespace, chain_id } = call.read_json().await?;
    let origin = call.sign_in_origin()?;
    call.count_wallet(&wallet)?;
    let request = ChallengeRequest {
        wallet,
        namespace: call.namespace_or_default(namespace),
        purpose: purpose.unwrap_or_default(),
        domain: origin.domain,
        uri: origin.uri,
        chain_id: chain_id.unwrap_or_default(),
    };
    let challenge = call.client.auth().challenge(request).await?;
    let answer = ChallengeAnswer {
        wallet: challenge.wallet,
        namespace: challenge.namespace,
        nonce: challenge.nonce,
        purpose: challenge.purpose,
        message: challenge.message,
        expires_at: timestamp(challenge.expires_at),
    };
    no_store(json(StatusCode::OK, &answer))
}

/// Opens a session. The first wallet that signs in to a namespace owns it.
#[utoipa::path(
    post, path = "/v1/auth/verify", tag = "auth", operation_id = "auth_verify", security(()),
    request_body = ProofBody,
    responses(
        (status = 200, body = SessionAnswer), (status = 401, body = ErrorBody),
        (status = 403, description = "The namespace belongs to somebody else.", body = ErrorBody),
        (status = 429, body = ErrorBody),
    ),
)]
pub(crate) async fn verify(mut call: PublicCall) -> HandlerResult {
    let body: ProofBody = call.read_json().await?;
    let nonce = body.nonce.clone();
    let proof = build_proof(&call, body)?;
    let session = call.client.auth().sign_in(proof).await?;
    no_store(json(StatusCode::OK, &SessionAnswer::from_session(session).with_proof(nonce)))
}

/// Registers an application in the name of a wallet.
#[utoipa::path(
    post, path = "/v1/auth/register", tag = "auth", operation_id = "auth_register", security(()),
    request_body = RegisterBody,
    responses(
        (status = 201, body = RegisterAnswer), (status = 401, body = ErrorBody),
        (status = 403, description = "The namespace belongs to somebody else.", body = ErrorBody),
        (status = 429, body = ErrorBody),
    ),
)]
pub(crate) async fn register(mut call: PublicCall) -> HandlerResult {
    let RegisterBody { wallet, nonce, signature, namespace, chain_id, name } =
        call.read_json().await?;
    let proof = build_proof(&call, ProofBody { wallet, nonce, signature, namespace, chain_id })?;
    let app = call.client.auth().register_app(proof, name.unwrap_or_default()).await?;
    json(StatusCode::CREATED, &RegisterAnswer::from(app))
}

/// The fields for the node: the caller's, and the domain and URI that this gateway knows to be its
/// own. Counts against the wallet.
pub(super) fn build_proof(call: &PublicCall, body: ProofBody) -> Result<Proof, ApiError> {
    let origin = call.sign_in_origin()?;
    call.count_wallet(&body.wallet)?;
    Ok(Proof {
        wallet: body.wallet,
        namespace: call.namespace_or_default(body.namespace),
        nonce: body.nonce,
        signature: body.signature,
        domain: origin.domain,
        uri: origin.uri,
        chain_id: body.chain_id.unwrap_or_default(),
    })
}

impl ProofBody {
    pub(super) fn new(
        wallet: String,
        nonce: String,
        signature: String,
        namespace: Option<String>,
        chain_id: Option<u64>,
    ) -> Self {
        Self { wallet, nonce, signature, namespace, chain_id }
    }
}

impl From<App> for RegisterAnswer {
    fn from(app: App) -> Self {
        let App { app_id, name, public_key, namespace, wallet, .. } = app;
        Self {
            client_id: app_id.clone(),
            app: RegisteredApp { app_id, name, public_key, namespace, wallet },
            signature_verified: true,
        }
    }
}
