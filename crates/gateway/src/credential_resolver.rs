//! Identifying the caller: finding the credential in a request.
//!
//! The gateway does not judge credentials; it passes them on and the node decides. The two
//! exceptions are in [`CredentialResolver::resolve`]: static keys, and callers without a credential
//! where none is required. Both act through the gateway's operator credential, in one namespace,
//! and never in calls that only operators may make.

use crate::config::{GatewayConfig, GatewayStartError};
use crate::cors::{CorsPolicy, is_loopback_authority};
use crate::error::ApiError;
use crate::query_params;
use debros_proto::limits::MAX_CREDENTIAL_BYTES;
use debros_proto::{Code, Namespace};
use http::header::{AUTHORIZATION, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The prefix of a WebSocket subprotocol that carries a credential.
const BEARER_PROTOCOL: &str = "bearer.";

/// The method name of callers with a static key.
pub(crate) const STATIC_KEY: &str = "static_key";

/// The caller, as the node sees it.
#[derive(Clone, Debug)]
pub(crate) struct CallerCredential {
    pub(crate) credential: Arc<str>,
    /// Set when the credential is the gateway's own, lent for one namespace.
    pub(crate) lent_access: Option<LentAccess>,
}

/// The use of the gateway's own credential that a caller may make.
#[derive(Clone, Debug)]
pub(crate) struct LentAccess {
    pub(crate) namespace: Namespace,
    /// `static_key` or `none`: how the caller was identified.
    pub(crate) method: &'static str,
}

/// The gateway's own knowledge about credentials.
pub(crate) struct CredentialResolver {
    static_keys: Vec<([u8; 32], Namespace)>,
    operator_credential: Option<Arc<str>>,
    /// The namespace of callers without a credential; `None` if everyone needs one.
    anonymous_namespace: Option<Namespace>,
    /// With `anonymous_namespace`: whether only this machine is served.
    loopback_only: bool,
}

impl CredentialResolver {
    pub(crate) fn new(config: &GatewayConfig) -> Result<Self, GatewayStartError> {
        let missing = |what| Err(GatewayStartError::NoOperatorCredential { what });
        if config.operator_credential.is_none() {
            if !config.require_auth {
                return missing("callers without a credential (authentication is off)");
            }
            if !config.static_keys.is_empty() {
                return missing("static keys (GATEWAY_API_KEYS)");
            }
        }
        Ok(Self {
            static_keys: config
                .static_keys
                .iter()
                .map(|(key, ns)| (hash_key(key), ns.clone()))
                .collect(),
            operator_credential: config.operator_credential.as_deref().map(Into::into),
            anonymous_namespace: (!config.require_auth).then(|| config.namespace.clone()),
            loopback_only: !config.insecure_public,
        })
    }

    /// Whether callers need no credential.
    pub(crate) fn allows_anonymous(&self) -> bool {
        self.anonymous_namespace.is_some()
    }

    /// The caller of a plain request, whose credential was [found](Self::find_in_headers) or not.
    pub(crate) fn resolve_request(
        &self,
        presented: Option<&Arc<str>>,
        headers: &HeaderMap,
        cors: &CorsPolicy,
    ) -> Result<CallerCredential, ApiError> {
        match presented {
            Some(credential) => Ok(self.resolve_credential(Arc::clone(credential))),
            None => self.resolve(header_credential(headers)?, headers, cors),
        }
    }

    /// The credential of a plain request, if it is well-formed.
    pub(crate) fn find_in_headers(headers: &HeaderMap) -> Option<&str> {
        header_credential(headers).ok().flatten()
    }

    /// The caller of a request that needs no credential, if it shows one.
    pub(crate) fn resolve_optional(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<CallerCredential>, ApiError> {
        Ok(header_credential(headers)?.map(|credential| self.resolve_credential(credential.into())))
    }

    /// The caller of a WebSocket, for which a browser can send no headers of its own: the
    /// credential may also be in the subprotocol or, if it is an access token, in the query. It
    /// comes with the subprotocol to answer, if the caller offered one with it.
    pub(crate) fn resolve_websocket(
        &self,
        headers: &HeaderMap,
        token: Option<&str>,
        cors: &CorsPolicy,
    ) -> Result<(CallerCredential, Option<HeaderValue>), ApiError> {
        let offered = offered_protocols(headers)?;
        let header = header_credential(headers)?;
        let protocols = offered
            .iter()
            .map(|(_, credential)| check_credential(credential))
            .collect::<Result<Vec<_>, _>>()?;
        let token = token.map(check_access_token).transpose()?;
        let presented = require_single(header.into_iter().chain(protocols).chain(token))?;
        let caller = self.resolve(presented, headers, cors)?;
        Ok((caller, offered.into_iter().next().map(|(protocol, _)| protocol)))
    }

    fn resolve(
        &self,
        presented: Option<&str>,
        headers: &HeaderMap,
        cors: &CorsPolicy,
    ) -> Result<CallerCredential, ApiError> {
        match (presented, &self.anonymous_namespace) {
            (Some(credential), _) => Ok(self.resolve_credential(credential.into())),
            (None, Some(namespace)) => {
                self.check_anonymous_caller(headers, cors)?;
                Ok(self.lend_operator_credential(namespace, "none"))
            }
            (None, None) => Err(ApiError::new(
                Code::Unauthenticated,
                "a credential is needed: send the header Authorization: Bearer <API key or token>, or X-API-Key: <key>",
            )),
        }
    }

    fn resolve_credential(&self, credential: Arc<str>) -> CallerCredential {
        match self.static_key_namespace(&credential) {
            Some(namespace) => self.lend_operator_credential(namespace, STATIC_KEY),
            None => CallerCredential { credential, lent_access: None },
        }
    }

    fn lend_operator_credential(
        &self,
        namespace: &Namespace,
        method: &'static str,
    ) -> CallerCredential {
        let access = LentAccess { namespace: namespace.clone(), method };
        // `new` refuses static keys and an open namespace without an operator credential.
        CallerCredential {
            credential: self.operator_credential.clone().unwrap_or_default(),
            lent_access: Some(access),
        }
    }

    /// Looks a key up without revealing by the time taken how much of it is right.
    fn static_key_namespace(&self, credential: &str) -> Option<&Namespace> {
        if self.static_keys.is_empty() {
            return None;
        }
        let presented = hash_key(credential);
        let mut found = None;
        for (key, namespace) in &self.static_keys {
            if bool::from(key.ct_eq(&presented)) {
                found = Some(namespace);
            }
        }
        found
    }

    /// Without credentials the browser itself would grant rights: any page that its user opens
    /// could act here.
    fn check_anonymous_caller(
        &self,
        headers: &HeaderMap,
        cors: &CorsPolicy,
    ) -> Result<(), ApiError> {
        if headers.get(ORIGIN).is_some_and(|origin| !cors.allows(origin)) {
            return Err(ApiError::new(
                Code::Forbidden,
                "pages of this origin may not call: list it in the gateway's CORS origins, or send a credential",
            ));
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        if self.loopback_only && host.is_some_and(|host| !is_loopback_authority(host)) {
            return Err(ApiError::new(
                Code::Forbidden,
                "without a credential this gateway answers only under the names of this machine, such as localhost",
            ));
        }
        Ok(())
    }
}

/// The credential in the headers that can carry one.
fn header_credential(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let unreadable = || {
        ApiError::new(
            Code::Unauthenticated,
            "the credential holds characters that no credential has",
        )
    };
    let mut found = None;
    for value in headers.get_all(AUTHORIZATION) {
        let value = value.to_str().map_err(|_| unreadable())?.trim();
        let (scheme, credential) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("bearer") && !scheme.eq_ignore_ascii_case("apikey") {
            return Err(ApiError::new(
                Code::Unauthenticated,
                "the Authorization header has another scheme than Bearer or ApiKey",
            ));
        }
        found = require_single(found.into_iter().chain([check_credential(credential.trim())?]))?;
    }
    for value in headers.get_all(X_API_KEY) {
        let credential = check_credential(value.to_str().map_err(|_| unreadable())?.trim())?;
        found = require_single(found.into_iter().chain([credential]))?;
    }
    Ok(found)
}

/// The credential of a request. Two that differ are refused: the caller might mean either, and a
/// proxy in front might have checked the other.
fn require_single<'a>(
    credentials: impl Iterator<Item = &'a str>,
) -> Result<Option<&'a str>, ApiError> {
    let mut found: Option<&str> = None;
    for credential in credentials {
        if found.is_some_and(|other| other != credential) {
            return Err(ApiError::invalid(
                "the request holds two different credentials: send one, as Authorization, as X-API-Key, or on a WebSocket as \
                 subprotocol or token",
            ));
        }
        found = Some(credential);
    }
    Ok(found)
}

/// A credential in a query. URLs are kept in histories and logs, so only a credential that expires
/// within minutes may be there.
fn check_access_token(credential: &str) -> Result<&str, ApiError> {
    let credential = check_credential(credential)?;
    if credential.bytes().filter(|byte| *byte == b'.').count() == 2 && credential.starts_with("ey")
    {
        return Ok(credential);
    }
    Err(ApiError::invalid(
        "the query parameter \"token\" takes an access token (POST /v1/auth/token makes one); a key does not belong into an \
         address: offer the subprotocol bearer.<key>, with %3A for a colon",
    ))
}

fn check_credential(credential: &str) -> Result<&str, ApiError> {
    if (1..=MAX_CREDENTIAL_BYTES).contains(&credential.len())
        && credential.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Ok(credential);
    }
    Err(ApiError::new(
        Code::Unauthenticated,
        format!(
            "the credential is empty, longer than {MAX_CREDENTIAL_BYTES} bytes, or holds a blank or control character"
        ),
    ))
}

/// The offered subprotocols that carry a credential, and the credential in each. An API key holds a
/// colon, which no subprotocol may: it is sent as %3A.
fn offered_protocols(headers: &HeaderMap) -> Result<Vec<(HeaderValue, String)>, ApiError> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter_map(|protocol| {
            let credential = protocol.strip_prefix(BEARER_PROTOCOL)?;
            let protocol = HeaderValue::from_str(protocol).ok()?;
            // Unlike in a query string, a plus is not a blank here.
            Some(
                query_params::percent_decode(&credential.replace('+', "%2B"))
                    .map(|text| (protocol, text.into_owned())),
            )
        })
        .collect()
}

fn hash_key(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}
