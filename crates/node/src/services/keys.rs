//! API keys: who may make, see and revoke which.

use crate::auth::{AuthService, KeyFilter, NewKeySpec};
use crate::caller::{Caller, CredentialSource, Permission, Role};
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, Namespace, Result};

pub(super) async fn create(
    auth: &AuthService,
    caller: &Caller,
    request: rpc::CreateApiKeyRequest,
) -> Result<response::Result> {
    let wish = NewKeySpec::parse(request.name, &request.role, &request.scopes)?;
    let namespace = key_namespace(caller, &request.namespace)?;
    let identity = caller.identity();
    match identity.source {
        // A wallet's keys are its own affair: they can do no more than the wallet itself.
        CredentialSource::Operator | CredentialSource::Session { .. } => {}
        // A key that leaks must not beget others, unless it manages keys.
        CredentialSource::Key { .. } | CredentialSource::Lent => {
            caller.require(Permission::Keys)?
        }
    }
    let own = identity.role.min(Role::Admin);
    auth.create_key(identity, &namespace, own, &wish).await.map(response::Result::CreateApiKey)
}

pub(super) async fn list(auth: &AuthService, caller: &Caller) -> Result<response::Result> {
    let keys = auth.list_keys(caller.namespace()?, visible_keys(caller)?).await?;
    Ok(response::Result::ListApiKeys(rpc::ListApiKeysResponse { keys }))
}

pub(super) async fn revoke(
    auth: &AuthService,
    caller: &Caller,
    request: rpc::RevokeApiKeyRequest,
) -> Result<response::Result> {
    auth.count_change(caller.identity())?;
    let by = &caller.identity().subject;
    let revoked =
        auth.revoke_key(caller.namespace()?, &request.id, visible_keys(caller)?, by).await?;
    Ok(response::Result::RevokeApiKey(rpc::RevokeApiKeyResponse { revoked }))
}

pub(super) async fn token(auth: &AuthService, caller: &Caller) -> Result<response::Result> {
    let identity = caller.identity();
    let namespace = identity.namespace.as_ref().ok_or_else(|| {
        Error::new(
            Code::Forbidden,
            "only an API key is exchanged for an access token, not the operator's credential",
        )
    })?;
    auth.token_for_key(identity, namespace).await.map(response::Result::Session)
}

/// The keys that a caller may see and revoke: an admin all, another wallet in its session those
/// that it made.
fn visible_keys(caller: &Caller) -> Result<KeyFilter> {
    let identity = caller.identity();
    match (&identity.source, identity.wallet) {
        _ if caller.may(Permission::Keys) => Ok(KeyFilter::All),
        (CredentialSource::Session { .. }, Some(wallet)) => Ok(KeyFilter::CreatedBy(wallet)),
        _ => caller.require(Permission::Keys).map(|()| KeyFilter::All),
    }
}

/// Where the key will be valid: where the caller is, unless an operator names another place.
fn key_namespace(caller: &Caller, named: &str) -> Result<Namespace> {
    if named.is_empty() {
        return caller.namespace().cloned();
    }
    match &caller.identity().namespace {
        None => Namespace::new(named),
        Some(own) if own.as_str() == named => Ok(own.clone()),
        Some(_) => Err(Error::new(
            Code::NamespaceMismatch,
            "namespace mismatch: a key is made for the namespace of the credential that makes it",
        )),
    }
}
