//! The public keys that access tokens are signed with, for programs that verify tokens themselves.

use crate::error::{ErrorBody, HandlerResult};
use crate::gateway_state::GatewayState;
use crate::node_health::connected_client;
use crate::respond::json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use debros_client::rpc::SigningKey;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use std::sync::Arc;

/// A JSON Web Key Set (RFC 7517).
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Jwks {
    keys: Vec<Jwk>,
}

/// An Ed25519 public key (RFC 8037).
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Jwk {
    #[schema(example = "OKP")]
    kty: &'static str,
    #[schema(example = "Ed25519")]
    crv: &'static str,
    #[schema(example = "EdDSA")]
    alg: &'static str,
    #[schema(example = "sig", rename = "use")]
    #[serde(rename = "use")]
    usage: &'static str,
    kid: String,
    /// The key's 32 bytes in Base64url.
    x: String,
}

/// Returns the public keys that access tokens are signed with.
#[utoipa::path(
    get, path = "/v1/auth/jwks", tag = "auth", operation_id = "auth_jwks", security(()),
    responses((status = 200, body = Jwks), (status = 503, body = ErrorBody)),
)]
pub(crate) async fn jwks(State(shared): State<Arc<GatewayState>>) -> HandlerResult {
    let ask = async { connected_client(&shared.client)?.auth().signing_keys().await };
    let keys = shared.signing_keys.get_or_fetch(ask).await?;
    let mut answer =
        json(StatusCode::OK, &Jwks { keys: keys.into_iter().map(Jwk::from).collect() })?;
    // Caches have to drop a removed key within seconds.
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3"));
    Ok(answer)
}

impl From<SigningKey> for Jwk {
    fn from(key: SigningKey) -> Self {
        let x = URL_SAFE_NO_PAD.encode(&key.public_key);
        Self { kty: "OKP", crv: "Ed25519", alg: "EdDSA", usage: "sig", kid: key.kid, x }
    }
}
