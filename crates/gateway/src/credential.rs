//! Who calls: finding the credential in a request.
//!
//! The gateway does not judge credentials; it passes them on and the node decides. The two exceptions are in
//! [`Credentials::caller`]: static keys, and callers without a credential where none is asked for. Both act through the
//! gateway's operator credential, in one namespace, and never on what only operators may do.

use crate::config::{GatewayConfig, StartError};
use crate::cors::{Cors, is_loopback_authority};
use crate::error::ApiError;
use crate::query;
use debros_proto::limits::MAX_CREDENTIAL_BYTES;
use debros_proto::{Code, Namespace};
use http::header::{AUTHORIZATION, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What a WebSocket subprotocol that carries a credential starts with.
const BEARER_PROTOCOL: &str = "bearer.";

/// Who calls, as it is told to the node.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) credential: Arc<str>,
    /// Set when the credential is the gateway's own, lent for one namespace.
    pub(crate) granted: Option<Grant>,
}

/// What a caller may do with the gateway's own credential.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) namespace: Namespace,
    /// `static_key` or `none`: how the caller proved who it is.
    pub(crate) method: &'static str,
}

/// What the gateway knows about credentials.
pub(crate) struct Credentials {
    static_keys: Vec<([u8; 32], Namespace)>,
    operator: Option<Arc<str>>,
    /// Where callers without a credential act; `None` when everyone needs one.
    open: Option<Namespace>,
    /// With `open`: whether only this machine is served.
    loopback_only: bool,
}

impl Credentials {
    pub(crate) fn new(config: &GatewayConfig) -> Result<Self, StartError> {
        let missing = |what| Err(StartError::NoOperatorCredential { what });
        if config.operator_credential.is_none() {
            if !config.require_auth {
                return missing("callers without a credential (authentication is off)");
            }
            if !config.static_keys.is_empty() {
                return missing("static keys (GATEWAY_API_KEYS)");
            }
        }
        Ok(Self {
            static_keys: config.static_keys.iter().map(|(key, ns)| (hash(key), ns.clone())).collect(),
            operator: config.operator_credential.as_deref().map(Into::into),
            open: (!config.require_auth).then(|| config.namespace.clone()),
            loopback_only: !config.insecure_public,
        })
    }

    /// The caller of a plain request.
    pub(crate) fn of_request(&self, headers: &HeaderMap, cors: &Cors) -> Result<Caller, ApiError> {
        let presented = in_headers(headers)?;
        self.caller(presented, headers, cors)
    }

    /// The caller of a WebSocket, for which a browser can send no headers of its own: the credential may also stand in
    /// the subprotocol or in the query. With it comes the subprotocol to answer, if the caller offered one with it.
    pub(crate) fn of_websocket(
        &self,
        headers: &HeaderMap,
        token: Option<&str>,
        cors: &Cors,
    ) -> Result<(Caller, Option<HeaderValue>), ApiError> {
        let offered = offered_protocol(headers);
        let decoded = offered.as_ref().map(|(_, text)| query::decode(text)).transpose()?;
        let presented = match in_headers(headers)? {
            Some(header) => Some(header),
            None => decoded.as_deref().or(token).map(checked).transpose()?,
        };
        let caller = self.caller(presented, headers, cors)?;
        Ok((caller, offered.map(|(protocol, _)| protocol)))
    }

    fn caller(&self, presented: Option<&str>, headers: &HeaderMap, cors: &Cors) -> Result<Caller, ApiError> {
        match (presented, &self.open) {
            (Some(credential), _) => Ok(match self.static_namespace(credential) {
                Some(namespace) => self.lend(namespace, "static_key"),
                None => Caller { credential: credential.into(), granted: None },
            }),
            (None, Some(namespace)) => {
                self.check_open_caller(headers, cors)?;
                Ok(self.lend(namespace, "none"))
            }
            (None, None) => Err(ApiError::new(
                Code::Unauthenticated,
                "a credential is needed: send the header Authorization: Bearer <API key or token>, or X-API-Key: <key>",
            )),
        }
    }

    fn lend(&self, namespace: &Namespace, method: &'static str) -> Caller {
        let grant = Grant { namespace: namespace.clone(), method };
        // `new` refuses static keys and an open namespace without an operator credential.
        Caller { credential: self.operator.clone().unwrap_or_default(), granted: Some(grant) }
    }

    /// Looks a key up without telling by the time it takes how much of it is right.
    fn static_namespace(&self, credential: &str) -> Option<&Namespace> {
        if self.static_keys.is_empty() {
            return None;
        }
        let presented = hash(credential);
        let mut found = None;
        for (key, namespace) in &self.static_keys {
            if bool::from(key.ct_eq(&presented)) {
                found = Some(namespace);
            }
        }
        found
    }

    /// Without credentials the browser would be the one that lends rights: any page its user opens could act here.
    fn check_open_caller(&self, headers: &HeaderMap, cors: &Cors) -> Result<(), ApiError> {
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
fn in_headers(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let unreadable = || ApiError::new(Code::Unauthenticated, "the credential holds characters that no credential has");
    if let Some(value) = headers.get(AUTHORIZATION) {
        let value = value.to_str().map_err(|_| unreadable())?.trim();
        let (scheme, credential) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("bearer") && !scheme.eq_ignore_ascii_case("apikey") {
            return Err(ApiError::new(
                Code::Unauthenticated,
                "the Authorization header has another scheme than Bearer or ApiKey",
            ));
        }
        return checked(credential.trim()).map(Some);
    }
    match headers.get(X_API_KEY) {
        Some(value) => checked(value.to_str().map_err(|_| unreadable())?.trim()).map(Some),
        None => Ok(None),
    }
}

fn checked(credential: &str) -> Result<&str, ApiError> {
    if (1..=MAX_CREDENTIAL_BYTES).contains(&credential.len()) && credential.bytes().all(|byte| byte.is_ascii_graphic())
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

/// The offered subprotocol that carries a credential, and the credential in it. An API key holds a colon, which no
/// subprotocol may: it is sent as %3A.
fn offered_protocol(headers: &HeaderMap) -> Option<(HeaderValue, String)> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .find_map(|protocol| {
            let credential = protocol.strip_prefix(BEARER_PROTOCOL)?;
            // A blank in place of a plus would be wrong here: this is no query string.
            Some((HeaderValue::from_str(protocol).ok()?, credential.replace('+', "%2B")))
        })
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}
