//! API keys.

use crate::caller::{Caller, Permission, Role, Scopes};
use crate::credentials::Credentials;
use debros_proto::rpc::{self, response};
use debros_proto::{Namespace, Result};

pub(super) async fn create(
    credentials: &Credentials,
    caller: &Caller,
    request: rpc::CreateApiKeyRequest,
) -> Result<response::Result> {
    caller.require(Permission::Operate)?;
    let namespace = Namespace::new(&request.namespace)?;
    let role = Role::parse(&request.role)?;
    let scopes = Scopes::parse(request.scopes.iter().map(String::as_str))?;
    let by = &caller.identity().subject;
    let (api_key, info) = credentials.create(&namespace, &request.name, role, scopes, by).await?;
    Ok(response::Result::CreateApiKey(rpc::CreateApiKeyResponse { api_key, info: Some(info) }))
}

pub(super) async fn list(credentials: &Credentials, caller: &Caller) -> Result<response::Result> {
    caller.require(Permission::Keys)?;
    let keys = credentials.list(caller.namespace()?).await?;
    Ok(response::Result::ListApiKeys(rpc::ListApiKeysResponse { keys }))
}

pub(super) async fn revoke(
    credentials: &Credentials,
    caller: &Caller,
    request: rpc::RevokeApiKeyRequest,
) -> Result<response::Result> {
    caller.require(Permission::Keys)?;
    let revoked = credentials.revoke(caller.namespace()?, &request.id, &caller.identity().subject).await?;
    Ok(response::Result::RevokeApiKey(rpc::RevokeApiKeyResponse { revoked }))
}
