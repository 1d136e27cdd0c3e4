//! Sessions: refreshed, ended; and access tokens for holders of an API key.

use super::{no_store, non_empty};
use crate::api_call::ApiCall;
use crate::error::{ApiError, ErrorBody, HandlerResult};
use crate::health::timestamp;
use crate::public_call::PublicCall;
use crate::respond::{OK, json};
use debros_client::rpc::SessionResponse;
use debros_proto::{Code, now_ms};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// The tokens of a session.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SessionAnswer {
    /// A JSON Web Token.
    access_token: String,
    /// The same as `access_token`.
    token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds that the access token is valid for.
    expires_in: i64,
    /// When the access token expires.
    expires_at: String,
    /// Valid once, for 30 days. Sent again within 30 seconds, it gets the same answer; later, or
    /// after its successor was used, it ends the session.
    refresh_token: String,
    /// The wallet.
    subject: String,
    namespace: String,
    /// `reader`, `writer`, `admin` or `owner`.
    role: String,
    /// The nonce that was signed; missing after a refresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    /// True after a sign-in; missing after a refresh, where nothing is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_verified: Option<bool>,
}

/// A refresh token.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshBody {
    refresh_token: String,
    /// Missing, or the token's own.
    namespace: Option<String>,
}

/// The session to end by its refresh token, or all sessions of the wallet.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogoutBody {
    /// Ends this token's session. It needs no other credential.
    refresh_token: Option<String>,
    /// Ends all sessions of the caller's wallet in its namespace. It needs an access token of one
    /// of them as credential.
    all: Option<bool>,
    /// Missing, or that of the token or credential.
    namespace: Option<String>,
}

/// How many sessions have ended.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct LogoutAnswer {
    #[schema(example = "ok")]
    status: &'static str,
    revoked: u64,
}

/// An access token for an API key.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct TokenAnswer {
    /// A JSON Web Token.
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds that the token is valid for.
    expires_in: i64,
    expires_at: String,
    namespace: String,
}

const BEARER: &str = "Bearer";

/// Returns new tokens for a refresh token, which is then used up.
#[utoipa::path(
    post, path = "/v1/auth/refresh", tag = "auth", operation_id = "auth_refresh", security(()),
    request_body = RefreshBody,
    responses(
        (status = 200, body = SessionAnswer),
        (status = 401, description = "`unauthenticated`: unknown; `credential_expired`; `credential_revoked`: its session has ended.", body = ErrorBody),
        (status = 403, description = "The token is of another namespace.", body = ErrorBody),
        (status = 429, body = ErrorBody),
    ),
)]
pub(crate) async fn refresh(mut call: PublicCall) -> HandlerResult {
    let RefreshBody { refresh_token, namespace } = call.read_json().await?;
    let session = call.client.auth().refresh(refresh_token, namespace.unwrap_or_default()).await?;
    no_store(json(StatusCode::OK, &SessionAnswer::from_session(session)))
}

/// Ends one session, or all of the caller's wallet.
#[utoipa::path(
    post, path = "/v1/auth/logout", tag = "auth", operation_id = "auth_logout",
    security((), ("bearer" = [])), request_body = LogoutBody,
    responses((status = 200, body = LogoutAnswer), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody)),
)]
pub(crate) async fn logout(mut call: PublicCall) -> HandlerResult {
    let body: LogoutBody = call.read_json().await?;
    let (token, namespace) = (non_empty(body.refresh_token), non_empty(body.namespace));
    let revoked = match (token, body.all.unwrap_or(false)) {
        (Some(token), false) => {
            call.client.auth().logout(token, namespace.unwrap_or_default()).await?
        }
        (None, true) => {
            let caller = call.authenticated_client(namespace)?.ok_or_else(|| {
                ApiError::new(
                    Code::Unauthenticated,
                    "ending all sessions needs an access token of one of them: send Authorization: Bearer <access token>",
                )
            })?;
            caller.auth().logout_all().await?
        }
        _ => {
            return Err(ApiError::invalid(
                "the body takes either refresh_token, or all with the value true",
            ));
        }
    };
    json(StatusCode::OK, &LogoutAnswer { status: OK, revoked })
}

/// Returns an access token for the caller's API key.
///
/// It serves where headers cannot be sent, as in a WebSocket's `?token=`.
#[utoipa::path(
    post, path = "/v1/auth/token", tag = "auth", operation_id = "auth_token",
    responses((status = 200, body = TokenAnswer), (status = 403, body = ErrorBody)),
)]
pub(crate) async fn token(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let session = call.own_client()?.auth().token().await?;
    let answer = TokenAnswer {
        access_token: session.access_token,
        token_type: BEARER,
        expires_in: seconds_until(session.access_expires_at),
        expires_at: timestamp(session.access_expires_at),
        namespace: session.namespace,
    };
    no_store(json(StatusCode::OK, &answer))
}

fn seconds_until(at_ms: i64) -> i64 {
    // Rounded up, because a little time has passed: a fresh token has its whole 15 minutes.
    (at_ms - now_ms()).max(0).saturating_add(999) / 1000
}

impl SessionAnswer {
    pub(super) fn from_session(session: SessionResponse) -> Self {
        Self {
            token: session.access_token.clone(),
            access_token: session.access_token,
            token_type: BEARER,
            expires_in: seconds_until(session.access_expires_at),
            expires_at: timestamp(session.access_expires_at),
            refresh_token: session.refresh_token,
            subject: session.subject,
            namespace: session.namespace,
            role: session.role,
            nonce: None,
            signature_verified: None,
        }
    }

    pub(super) fn with_proof(mut self, nonce: String) -> Self {
        self.nonce = Some(nonce);
        self.signature_verified = Some(true);
        self
    }
}
