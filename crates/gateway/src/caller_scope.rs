//! The part of a call that names its caller, and the calls that a lent credential may not make.

use crate::credential_resolver::CallerCredential;
use crate::error::ApiError;
use crate::gateway_state::GatewayState;
use crate::request_id::RequestId;
use debros_client::Scope;
use debros_proto::ids::excerpt;
use debros_proto::{Code, Error};
use std::sync::Arc;

/// The scope of the node's calls for a caller.
pub(crate) fn caller_scope(
    shared: &GatewayState,
    caller: &CallerCredential,
    namespace: Option<String>,
    request_id: Option<&RequestId>,
) -> Result<Scope, ApiError> {
    let namespace = match (&caller.lent_access, namespace) {
        (None, namespace) => namespace.unwrap_or_default(),
        (Some(access), None) => access.namespace.as_str().to_owned(),
        (Some(access), Some(named)) if named == access.namespace.as_str() => named,
        (Some(access), Some(named)) => {
            let message = format!(
                "namespace mismatch: the caller acts in \"{}\", not in \"{}\"",
                access.namespace,
                excerpt(&named)
            );
            return Err(ApiError::new(Code::NamespaceMismatch, message));
        }
    };
    Ok(Scope {
        credential: Arc::clone(&caller.credential),
        namespace,
        timeout: shared.limits.request_timeout,
        request_id: request_id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
        // The node itself restricts such a caller to a writer's rights.
        lent: caller.lent_access.is_some(),
        ..Scope::default()
    })
}

/// The gateway's own credential is lent for data alone: keys, members and sessions belong to their
/// owner.
pub(crate) fn gateway_credential_forbidden() -> ApiError {
    Error::new(
        Code::Forbidden,
        "the gateway's own keys act as writers: sign in with a wallet, or show an API key of the namespace, to manage \
         sessions, keys and members",
    )
    .into()
}
