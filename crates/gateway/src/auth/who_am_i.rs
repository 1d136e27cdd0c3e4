//! `GET /v1/auth/whoami`: the caller itself.

use crate::api_call::ApiCall;
use crate::error::HandlerResult;
use crate::health::timestamp;
use crate::respond::json;
use debros_client::rpc::WhoAmIResponse;
use http::StatusCode;
use serde::Serialize;

/// What the caller's credential stands for.
#[derive(Serialize, utoipa::ToSchema)]
pub struct WhoAmIAnswer {
    authenticated: bool,
    /// `jwt`, `api_key`, `operator`, `static_key`, or `none` if this gateway requires no
    /// credential.
    method: String,
    /// The wallet, or the key's id, never the key.
    subject: String,
    namespace: String,
    /// `reader`, `writer`, `admin`, `owner` or `operator`.
    role: String,
    /// Empty: everything the role allows.
    scopes: Vec<String>,
    /// The wallet behind session or key; null if there is none.
    wallet: Option<String>,
    /// Whether the caller may make the calls that only operators may make.
    operator: bool,
    /// The first characters of the key; null if the network did not make the key.
    key_prefix: Option<String>,
    /// When the key was made or the token issued.
    created_at: Option<String>,
    /// Null: never.
    expires_at: Option<String>,
}

/// Returns the caller's identity, namespace and rights.
#[utoipa::path(
    get, path = "/v1/auth/whoami", tag = "auth", operation_id = "auth_whoami",
    responses((status = 200, body = WhoAmIAnswer)),
)]
pub(crate) async fn who_am_i(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let answer = match call.lent_access() {
        Some(access) => WhoAmIAnswer {
            authenticated: access.method != "none",
            method: access.method.to_owned(),
            subject: access.method.to_owned(),
            namespace: access.namespace.as_str().to_owned(),
            role: "writer".to_owned(),
            scopes: Vec::new(),
            wallet: None,
            operator: false,
            key_prefix: None,
            created_at: None,
            expires_at: None,
        },
        None => call.client.network().who_am_i().await?.into(),
    };
    json(StatusCode::OK, &answer)
}

impl From<WhoAmIResponse> for WhoAmIAnswer {
    fn from(me: WhoAmIResponse) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let at = |ms: i64| (ms > 0).then(|| timestamp(ms));
        Self {
            authenticated: true,
            method: me.method,
            subject: me.subject,
            namespace: me.namespace,
            role: me.role,
            scopes: me.scopes,
            wallet: some(me.wallet),
            operator: me.operator,
            key_prefix: some(me.key_prefix),
            created_at: at(me.created_at),
            expires_at: at(me.expires_at),
        }
    }
}
