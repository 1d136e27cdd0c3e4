//! Members of a namespace, and the keys that access tokens are signed with.

use crate::auth::AuthService;
use crate::caller::{Caller, Permission, Role, Wallet};
use debros_proto::Result;
use debros_proto::rpc::{self, response};

pub(super) async fn list(auth: &AuthService, caller: &Caller) -> Result<response::Result> {
    let members = auth.list_members(caller.namespace()?).await?;
    Ok(response::Result::ListMembers(rpc::ListMembersResponse { members }))
}

pub(super) async fn set(
    auth: &AuthService,
    caller: &Caller,
    request: rpc::SetMemberRequest,
) -> Result<response::Result> {
    let (wallet, role) = (Wallet::parse(&request.wallet)?, Role::parse(&request.role)?);
    let member = auth.grant_role(caller.identity(), caller.namespace()?, wallet, role).await?;
    Ok(response::Result::Member(rpc::MemberResponse { member: Some(member) }))
}

pub(super) async fn remove(
    auth: &AuthService,
    caller: &Caller,
    request: rpc::RemoveMemberRequest,
) -> Result<response::Result> {
    let wallet = Wallet::parse(&request.wallet)?;
    // A member may leave; to take the role of others, one has to manage members.
    if !caller.identity().is_session_of(wallet) {
        caller.require(Permission::Members)?;
    }
    let removed = auth.revoke_role(caller.identity(), caller.namespace()?, wallet).await?;
    Ok(response::Result::RemoveMember(rpc::RemoveMemberResponse { removed }))
}

pub(super) async fn rotate_signing_key(
    auth: &AuthService,
    caller: &Caller,
) -> Result<response::Result> {
    let key = auth.rotate_signing_key(&caller.identity().subject).await?;
    Ok(response::Result::RotateSigningKey(rpc::RotateSigningKeyResponse { key: Some(key) }))
}

pub(super) async fn remove_signing_key(
    auth: &AuthService,
    caller: &Caller,
    request: rpc::RemoveSigningKeyRequest,
) -> Result<response::Result> {
    let removed = auth.remove_signing_key(&request.kid, &caller.identity().subject).await?;
    Ok(response::Result::RemoveSigningKey(rpc::RemoveSigningKeyResponse { removed }))
}
