//! `/v1/namespaces/{namespace}/members`: the wallets that may act in a namespace.

use crate::api_call::ApiCall;
use crate::error::{ApiError, ErrorBody, HandlerResult};
use crate::health::timestamp;
use crate::respond::{OK, json};
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use debros_client::rpc::Member;
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// A wallet and its new role.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberBody {
    wallet: String,
    /// `reader`, `writer` or `admin`.
    #[schema(example = "reader")]
    role: String,
}

/// A wallet that may act in the namespace.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct MemberAnswer {
    /// In lower case, with 0x; `operator` if the node's operator owns the namespace.
    wallet: String,
    /// `reader`, `writer`, `admin` or `owner`.
    role: String,
    /// Null for the owner.
    granted_by: Option<String>,
    created_at: String,
}

/// The owner, then the others in order of their wallets.
#[derive(Serialize, utoipa::ToSchema)]
pub struct MembersAnswer {
    items: Vec<MemberAnswer>,
    count: usize,
}

/// The member as it is now.
#[derive(Serialize, utoipa::ToSchema)]
pub struct SetMemberAnswer {
    #[schema(example = "ok")]
    status: &'static str,
    #[serde(flatten)]
    member: MemberAnswer,
}

/// Whether the wallet had a role.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RemoveMemberAnswer {
    #[schema(example = "ok")]
    status: &'static str,
    removed: bool,
}

type PathParam<T> = Result<Path<T>, PathRejection>;

/// Lists the wallets and their roles in the namespace. For owner and admins.
#[utoipa::path(
    get, path = "/v1/namespaces/{namespace}/members", tag = "members", operation_id = "members_list",
    params(("namespace" = String, Path, description = "The credential's own; operators name any.")),
    responses((status = 200, body = MembersAnswer), (status = 403, body = ErrorBody)),
)]
pub(crate) async fn list(namespace: PathParam<String>, mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let members = call.own_client_in(&read_path(namespace)?)?.members().list().await?;
    json(StatusCode::OK, &MembersAnswer::from(members))
}

/// Gives a wallet a role in place of its former one.
///
/// For owner and admins; only the owner gives `admin`.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/members", tag = "members", operation_id = "members_set",
    request_body = MemberBody,
    params(("namespace" = String, Path, description = "The credential's own; operators name any.")),
    responses((status = 200, body = SetMemberAnswer), (status = 403, body = ErrorBody)),
)]
pub(crate) async fn set(namespace: PathParam<String>, mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let client = call.own_client_in(&read_path(namespace)?)?;
    let MemberBody { wallet, role } = call.read_small_json().await?;
    json(StatusCode::OK, &SetMemberAnswer::from(client.members().set(wallet, role).await?))
}

/// Takes a wallet's role away. Its sessions and keys stop working within 5 seconds.
#[utoipa::path(
    delete, path = "/v1/namespaces/{namespace}/members/{wallet}", tag = "members", operation_id = "members_remove",
    params(
        ("namespace" = String, Path, description = "The credential's own; operators name any."),
        ("wallet" = String, Path, description = "20 bytes in hex, with or without 0x."),
    ),
    responses((status = 200, body = RemoveMemberAnswer), (status = 403, body = ErrorBody)),
)]
pub(crate) async fn remove(path: PathParam<(String, String)>, mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let (namespace, wallet) = read_path(path)?;
    let removed = call.own_client_in(&namespace)?.members().remove(wallet).await?;
    json(StatusCode::OK, &RemoveMemberAnswer { status: OK, removed })
}

fn read_path<T>(path: PathParam<T>) -> Result<T, ApiError> {
    path.map(|Path(value)| value).map_err(|_| ApiError::invalid("the path is not UTF-8"))
}

impl From<Vec<Member>> for MembersAnswer {
    fn from(members: Vec<Member>) -> Self {
        let items: Vec<MemberAnswer> = members.into_iter().map(MemberAnswer::from).collect();
        Self { count: items.len(), items }
    }
}

impl From<Member> for SetMemberAnswer {
    fn from(member: Member) -> Self {
        Self { status: OK, member: member.into() }
    }
}

impl From<Member> for MemberAnswer {
    fn from(member: Member) -> Self {
        let Member { wallet, role, granted_by, created_at } = member;
        let granted_by = Some(granted_by).filter(|by| !by.is_empty());
        Self { wallet, role, granted_by, created_at: timestamp(created_at) }
    }
}
