//! A request to a route that needs no credential: limited by address, with a small body.

use crate::body_reader;
use crate::caller_scope::{caller_scope, gateway_credential_forbidden};
use crate::connection_info::ConnectionInfo;
use crate::error::ApiError;
use crate::fair_budget::ChargeGuard;
use crate::gateway_state::GatewayState;
use crate::json_body::{MAX_BODY, check_content_type, parse_json};
use crate::public_origin::SignInOrigin;
use crate::query_params::QueryParams;
use crate::request_id::RequestId;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use debros_client::{Client, Scope};
use debros_proto::Error;
use http::request::Parts;
use serde::de::DeserializeOwned;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// A request to a sign-in route. Making one counts against its address.
pub(crate) struct PublicCall {
    /// A client without a credential.
    pub(crate) client: Client,
    pub(crate) shared: Arc<GatewayState>,
    address: IpAddr,
    parts: Parts,
    body: Body,
    /// The memory that the body takes, until the call is over.
    charge: ChargeGuard,
}

impl FromRequest<Arc<GatewayState>> for PublicCall {
    type Rejection = ApiError;

    async fn from_request(request: Request, shared: &Arc<GatewayState>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let address = client_address(&parts, shared)?;
        shared.sign_in.count_address(address)?;
        let [] = QueryParams::parse(parts.uri.query())?.take_only([])?;
        let scope = Scope {
            timeout: shared.limits.request_timeout,
            request_id: parts
                .extensions
                .get::<RequestId>()
                .map(|id| id.as_str().to_owned())
                .unwrap_or_default(),
            caller_address: Some(address),
            ..Scope::default()
        };
        let holder =
            connection_info(&parts).map(|connection| connection.holder).unwrap_or_default();
        let charge = shared.memory.empty_charge(holder);
        Ok(Self {
            client: shared.client.scoped(scope),
            shared: Arc::clone(shared),
            address,
            parts,
            body,
            charge,
        })
    }
}

fn client_address(parts: &Parts, shared: &GatewayState) -> Result<IpAddr, ApiError> {
    // Every connection has two ends; a request without one would be a defect, and all such requests
    // would count as one caller.
    let peer = connection_info(parts)
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |connection| connection.peer.ip());
    shared.proxies.client_address(peer, &parts.headers)
}

fn connection_info(parts: &Parts) -> Option<&ConnectionInfo> {
    parts.extensions.get()
}

impl PublicCall {
    /// The JSON body.
    pub(crate) async fn read_json<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        check_content_type(&self.parts.headers)?;
        let body = std::mem::take(&mut self.body);
        let announced = body_reader::announced_length(&body);
        let pause = self.shared.limits.body_timeout;
        let bytes =
            body_reader::read_body(body, announced, MAX_BODY, pause, &mut self.charge).await?;
        parse_json(&bytes)
    }

    /// The namespace that the body names, or the gateway's own.
    pub(crate) fn namespace_or_default(&self, named: Option<String>) -> String {
        named
            .filter(|named| !named.is_empty())
            .unwrap_or_else(|| self.shared.namespace.as_str().to_owned())
    }

    /// Counts the request against the wallet that it names, for this address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(crate) fn count_wallet(&self, wallet: &str) -> Result<(), ApiError> {
        self.shared.sign_in.count_wallet(self.address, wallet)
    }

    /// The domain and URI of the caller's sign-in.
    pub(crate) fn sign_in_origin(&self) -> Result<SignInOrigin, ApiError> {
        sign_in_origin(&self.shared, &self.parts)
    }

    /// The client that acts for the caller's credential, if it shows one.
    ///
    /// # Errors
    /// `forbidden` for a static key: it has no sessions and makes no keys.
    pub(crate) fn authenticated_client(
        &self,
        namespace: Option<String>,
    ) -> Result<Option<Client>, ApiError> {
        let shared = &self.shared;
        let Some(caller) = shared.credentials.resolve_optional(&self.parts.headers)? else {
            return Ok(None);
        };
        if caller.lent_access.is_some() {
            return Err(gateway_credential_forbidden());
        }
        let scope =
            caller_scope(shared, &caller, namespace, self.parts.extensions.get::<RequestId>())?;
        Ok(Some(shared.client.scoped(scope)))
    }
}

/// The domain and URI at which the caller of a request signs in.
pub(crate) fn sign_in_origin(
    shared: &GatewayState,
    parts: &Parts,
) -> Result<SignInOrigin, ApiError> {
    let connection = connection_info(parts)
        .ok_or_else(|| Error::internal("the request came over no connection"))?;
    shared.public_origin.sign_in_origin(parts, connection)
}
