//! A request with a known caller: the argument of every handler but the public ones.

use crate::body_reader;
use crate::caller_scope::{caller_scope, gateway_credential_forbidden};
use crate::connection_info::ConnectionInfo;
use crate::credential_proof::CredentialUse;
use crate::credential_resolver::LentAccess;
use crate::error::ApiError;
use crate::fair_budget::ChargeGuard;
use crate::gateway_state::GatewayState;
use crate::idempotency;
use crate::json_body::{
    BLOCKING_JSON_BYTES, MAX_BODY, check_content_encoding, check_content_type, parse_json,
};
use crate::query_params::QueryParams;
use crate::request_cost::beyond_small;
use crate::request_id::RequestId;
use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use debros_client::Client;
use debros_proto::{Code, Error, Namespace};
use http::HeaderMap;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A body over this size is read only after the node has accepted the caller: a stranger could make
/// the gateway read it.
const VERIFY_FIRST_BYTES: u64 = 256 << 10;

/// A request with a known caller. Its client acts for that caller.
pub(crate) struct ApiCall {
    pub(crate) client: Client,
    pub(crate) query: QueryParams,
    pub(crate) headers: HeaderMap,
    lent_access: Option<LentAccess>,
    body: Body,
    /// The memory that the body takes, until the call is over.
    charge: ChargeGuard,
    shared: Arc<GatewayState>,
}

impl FromRequest<Arc<GatewayState>> for ApiCall {
    type Rejection = ApiError;

    async fn from_request(request: Request, shared: &Arc<GatewayState>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let connection = parts.extensions.get::<ConnectionInfo>();
        let presented = connection.and_then(|connection| connection.credential.as_ref());
        let caller = shared.credentials.resolve_request(presented, &parts.headers, &shared.cors)?;
        let mut query = QueryParams::parse(parts.uri.query())?;
        let mut scope = caller_scope(
            shared,
            &caller,
            query.take("namespace"),
            parts.extensions.get::<RequestId>(),
        )?;
        idempotency::forward_key(&parts, &mut scope)?;
        if let Some(proof) = parts.extensions.get::<CredentialUse>() {
            proof.mark_used();
        }
        let holder = connection.map(|connection| connection.holder).unwrap_or_default();
        Ok(Self {
            client: shared.client.scoped(scope),
            query,
            headers: parts.headers,
            lent_access: caller.lent_access,
            body,
            charge: shared.memory.empty_charge(holder),
            shared: Arc::clone(shared),
        })
    }
}

impl ApiCall {
    /// How the caller came to use the gateway's own credential; `None` if it showed a credential of
    /// its own.
    pub(crate) fn lent_access(&self) -> Option<&LentAccess> {
        self.lent_access.as_ref()
    }

    /// The client for calls that need a credential of the caller's own. Sessions, keys and members
    /// are refused to callers with the gateway's lent credential.
    pub(crate) fn own_client(&self) -> Result<&Client, ApiError> {
        if self.lent_access.is_some() {
            Err(gateway_credential_forbidden())
        } else {
            Ok(&self.client)
        }
    }

    /// The same, in the namespace that the path names. The node refuses it unless it is the
    /// caller's.
    pub(crate) fn own_client_in(&self, namespace: &str) -> Result<Client, ApiError> {
        self.own_client()?;
        self.client_in(namespace)
    }

    /// The client in the namespace that the path names. The node refuses it unless it is the
    /// caller's; for a lent credential, which is valid in all namespaces, the gateway refuses it.
    pub(crate) fn client_in(&self, namespace: &str) -> Result<Client, ApiError> {
        let mut scope = self.client.scope().clone();
        if !scope.namespace.is_empty() && scope.namespace != namespace {
            return Err(ApiError::new(
                Code::NamespaceMismatch,
                "namespace mismatch: the path names another namespace than the query, or than the caller's own",
            ));
        }
        // Checked here, so that an invalid name is reported as such.
        Namespace::new(namespace)?.as_str().clone_into(&mut scope.namespace);
        Ok(self.client.scoped(scope))
    }

    /// Whether the request has a body.
    pub(crate) fn has_body(&self) -> bool {
        !self.body.is_end_stream()
    }

    /// The client for calls that only operators may make. A lent credential is refused.
    pub(crate) fn operator_client(&self) -> Result<&Client, ApiError> {
        if self.lent_access.is_some() {
            return Err(ApiError::new(
                Code::Forbidden,
                "only operators may do this: call with the node's operator credential",
            ));
        }
        Ok(&self.client)
    }

    /// Has the node verify the caller now, for calls that do not, or not soon enough.
    pub(crate) async fn verify_caller(&mut self) -> Result<(), ApiError> {
        if self.lent_access.is_none() {
            self.client.network().who_am_i().await?;
        }
        Ok(())
    }

    /// Has the node verify that the caller is an operator. Without authentication every caller
    /// passes.
    pub(crate) async fn verify_operator(&mut self) -> Result<(), ApiError> {
        if self.shared.credentials.allows_anonymous() {
            return self.verify_caller().await;
        }
        if self.lent_access.is_none() && self.client.network().who_am_i().await?.operator {
            return Ok(());
        }
        Err(ApiError::new(
            Code::Forbidden,
            "only operators may see this: call with the node's operator credential, or signed in with one of its \
             security.admin_wallets",
        ))
    }

    /// The body as it was sent.
    pub(crate) async fn read_bytes(&mut self, limit: usize) -> Result<Bytes, ApiError> {
        let announced = body_reader::announced_length(&self.body);
        let chunked = announced.is_none() && !self.body.is_end_stream();
        if chunked || announced.is_some_and(|length| length > VERIFY_FIRST_BYTES) {
            self.verify_caller().await.map_err(ApiError::with_close)?;
        }
        let body = std::mem::take(&mut self.body);
        let pause = self.shared.limits.body_timeout;
        body_reader::read_body(body, announced, limit, pause, &mut self.charge).await
    }

    /// A raw value.
    pub(crate) async fn read_value(&mut self) -> Result<Bytes, ApiError> {
        check_content_encoding(&self.headers)?;
        self.read_bytes(self.shared.limits.max_value).await
    }

    /// A JSON body of the auth routes, which is small.
    pub(crate) async fn read_small_json<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        check_content_type(&self.headers)?;
        parse_json(&self.read_bytes(MAX_BODY).await?)
    }

    /// A JSON body.
    pub(crate) async fn read_json<T: DeserializeOwned + Send + 'static>(
        &mut self,
    ) -> Result<T, ApiError> {
        check_content_type(&self.headers)?;
        let bytes = self.read_bytes(self.shared.limits.max_json).await?;
        // The values read from it take as much again.
        self.charge.resize(beyond_small(bytes.len() * 2))?;
        if bytes.len() > BLOCKING_JSON_BYTES {
            let parsed = tokio::task::spawn_blocking(move || parse_json(&bytes)).await;
            return parsed
                .unwrap_or_else(|_| Err(Error::internal("reading the request failed").into()));
        }
        parse_json(&bytes)
    }
}
