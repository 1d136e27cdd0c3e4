//! API keys: made with a wallet's proof or a credential, listed, revoked.

use super::proof::{ProofBody, build_proof};
use super::{no_store, non_empty};
use crate::api_call::ApiCall;
use crate::error::{ApiError, ErrorBody, HandlerResult};
use crate::health::timestamp;
use crate::public_call::PublicCall;
use crate::respond::{OK, json};
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use debros_client::NewKey;
use debros_client::rpc::{ApiKey, CreateApiKeyResponse};
use debros_proto::{Code, Error};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// The `plan` of a request that names none.
const DEFAULT_PLAN: &str = "free";
const MAX_PLAN_BYTES: usize = 64;

/// The purpose of the key; and the proof, if the request carries no credential.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateKeyBody {
    /// With `nonce` and `signature`: the proof, as for `/v1/auth/verify`.
    wallet: Option<String>,
    nonce: Option<String>,
    signature: Option<String>,
    /// As in the challenge; with a credential its own. Missing: the gateway's own, or the
    /// credential's.
    namespace: Option<String>,
    /// As in the challenge. Missing: 1.
    chain_id: Option<u64>,
    /// A label that is returned unchanged. It is not stored and changes nothing. Missing: `free`.
    plan: Option<String>,
    /// The purpose of the key, in your words.
    name: Option<String>,
    /// `reader`, `writer` or `admin`; at most your own. Missing: `writer`, or your own if that is
    /// lower.
    role: Option<String>,
    /// Such as `db:read`, at least one. Missing: everything the role allows.
    scopes: Option<Vec<String>>,
}

/// A new API key.
#[derive(Serialize, utoipa::ToSchema)]
pub struct CreateKeyAnswer {
    /// Shown only in this answer: the node stores only its hash.
    api_key: String,
    id: String,
    namespace: String,
    /// The label from the request, or `free`.
    plan: String,
    /// The wallet of the key; null if an operator made it.
    wallet: Option<String>,
    name: String,
    role: String,
    scopes: Vec<String>,
}

/// An API key without the key itself.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct KeyAnswer {
    id: String,
    /// The first characters of the key, to recognise it by.
    prefix: String,
    namespace: String,
    name: String,
    role: String,
    /// Empty: everything the role allows.
    scopes: Vec<String>,
    created_at: String,
    /// To the minute. Null: never.
    last_used: Option<String>,
    /// Null: it is live.
    revoked_at: Option<String>,
    /// The wallet of the key; null if an operator made it.
    wallet: Option<String>,
}

/// API keys, oldest first.
#[derive(Serialize, utoipa::ToSchema)]
pub struct KeysAnswer {
    items: Vec<KeyAnswer>,
    count: usize,
}

/// Whether the key was live before.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RevokeAnswer {
    #[schema(example = "ok")]
    status: &'static str,
    id: String,
    /// False: it was revoked before.
    revoked: bool,
}

/// Makes an API key, with a wallet's proof or with a credential, not both.
#[utoipa::path(
    post, path = "/v1/auth/api-key", tag = "auth", operation_id = "auth_create_key",
    security((), ("bearer" = []), ("api_key" = [])), request_body = CreateKeyBody,
    responses(
        (status = 200, body = CreateKeyAnswer), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 429, body = ErrorBody),
    ),
)]
pub(crate) async fn create(mut call: PublicCall) -> HandlerResult {
    let CreateKeyBody { wallet, nonce, signature, namespace, chain_id, plan, name, role, scopes } =
        call.read_json().await?;
    let plan = plan.unwrap_or_else(|| DEFAULT_PLAN.to_owned());
    if plan.is_empty() || plan.len() > MAX_PLAN_BYTES || plan.contains(char::is_control) {
        return Err(ApiError::invalid(format!(
            "plan is a label of 1 to {MAX_PLAN_BYTES} bytes without control characters"
        )));
    }
    if scopes.as_ref().is_some_and(Vec::is_empty) {
        return Err(ApiError::invalid(
            "scopes is an empty list: name at least one scope, or leave it out for everything that the role allows",
        ));
    }
    let key = NewKey {
        name: name.unwrap_or_default(),
        role: role.unwrap_or_default(),
        scopes: scopes.unwrap_or_default(),
    };
    let made = match (non_empty(wallet), non_empty(nonce), non_empty(signature)) {
        (None, None, None) => {
            if chain_id.is_some() {
                return Err(ApiError::invalid(
                    "chain_id goes with a proof: wallet, nonce and signature",
                ));
            }
            let caller = call.authenticated_client(non_empty(namespace))?.ok_or_else(|| {
                ApiError::new(
                    Code::Unauthenticated,
                    "an API key takes a wallet's proof (wallet, nonce and signature in the body) or a credential \
                     (Authorization: Bearer <access token>)",
                )
            })?;
            caller.auth().create_key(key).await?
        }
        (Some(wallet), Some(nonce), Some(signature)) => {
            if call.authenticated_client(None)?.is_some() {
                return Err(ApiError::invalid(
                    "the request holds a wallet's proof and a credential: send one of them, so that it is clear whose key \
                     this is",
                ));
            }
            let body = ProofBody::new(wallet, nonce, signature, namespace, chain_id);
            call.client.auth().create_key_by_proof(build_proof(&call, body)?, key).await?
        }
        _ => return Err(ApiError::invalid("a proof is wallet, nonce and signature, all three")),
    };
    no_store(json(StatusCode::OK, &create_key_answer(made, plan)?))
}

/// Lists the keys of the namespace for its admins, else those of the caller's own wallet.
#[utoipa::path(
    get, path = "/v1/auth/api-keys", tag = "auth", operation_id = "auth_list_keys",
    responses((status = 200, body = KeysAnswer), (status = 403, body = ErrorBody)),
)]
pub(crate) async fn list(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    json(StatusCode::OK, &KeysAnswer::from(call.own_client()?.auth().list_keys().await?))
}

/// Revokes an API key: it stops working everywhere within 5 seconds.
#[utoipa::path(
    delete, path = "/v1/auth/api-keys/{id}", tag = "auth", operation_id = "auth_revoke_key",
    params(("id" = String, Path, description = "The key's id, as the list shows it.")),
    responses((status = 200, body = RevokeAnswer), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)),
)]
pub(crate) async fn revoke(
    id: Result<Path<String>, PathRejection>,
    mut call: ApiCall,
) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let Path(id) = id.map_err(|_| ApiError::invalid("the key's id in the path is not UTF-8"))?;
    let revoked = call.own_client()?.auth().revoke_key(id.as_str()).await?;
    json(StatusCode::OK, &RevokeAnswer { status: OK, id, revoked })
}

fn create_key_answer(
    made: CreateApiKeyResponse,
    plan: String,
) -> Result<CreateKeyAnswer, ApiError> {
    let info = made
        .info
        .ok_or_else(|| Error::internal("the node answered without the key's description"))?;
    Ok(CreateKeyAnswer { plan, ..CreateKeyAnswer::new(made.api_key, info) })
}

impl CreateKeyAnswer {
    /// The answer for a new key; a missing plan becomes the default.
    pub fn new(api_key: String, info: ApiKey) -> Self {
        Self {
            api_key,
            id: info.id,
            namespace: info.namespace,
            plan: DEFAULT_PLAN.to_owned(),
            wallet: non_empty(Some(info.wallet)),
            name: info.name,
            role: info.role,
            scopes: info.scopes,
        }
    }
}

impl From<Vec<ApiKey>> for KeysAnswer {
    fn from(keys: Vec<ApiKey>) -> Self {
        let items: Vec<KeyAnswer> = keys.into_iter().map(KeyAnswer::from).collect();
        Self { count: items.len(), items }
    }
}

impl From<ApiKey> for KeyAnswer {
    fn from(key: ApiKey) -> Self {
        let at = |ms: i64| (ms > 0).then(|| timestamp(ms));
        Self {
            id: key.id,
            prefix: key.prefix,
            namespace: key.namespace,
            name: key.name,
            role: key.role,
            scopes: key.scopes,
            created_at: timestamp(key.created_at),
            last_used: at(key.last_used),
            revoked_at: at(key.revoked_at),
            wallet: non_empty(Some(key.wallet)),
        }
    }
}
