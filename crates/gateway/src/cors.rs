//! Which web pages may call the gateway.

use crate::config::GatewayStartError;
use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::net::IpAddr;
use url::Url;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, X-API-Key, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Request-Id",
);
const EXPOSED: HeaderValue =
    HeaderValue::from_static("ETag, X-Request-Id, Retry-After, Idempotent-Replayed");
const ANY: HeaderValue = HeaderValue::from_static("*");
/// Seconds that a browser may keep the answer to a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("3600");

/// Origins whose pages may call. Cookies are never allowed: callers show a credential.
#[derive(Debug)]
pub(crate) enum CorsPolicy {
    Any,
    /// Pages of this machine. A gateway that requires no credential must not serve every page that
    /// its user opens.
    Loopback,
    Listed(Vec<HeaderValue>),
}

impl CorsPolicy {
    pub(crate) fn new(origins: &[String], open: bool) -> Result<Self, GatewayStartError> {
        if origins.is_empty() {
            return Ok(if open { CorsPolicy::Loopback } else { CorsPolicy::Any });
        }
        if origins.iter().any(|origin| origin == "*") {
            return Ok(CorsPolicy::Any);
        }
        let listed = origins.iter().map(|origin| parse_origin(origin)).collect::<Result<_, _>>()?;
        Ok(CorsPolicy::Listed(listed))
    }

    pub(crate) fn allows(&self, origin: &HeaderValue) -> bool {
        match self {
            CorsPolicy::Any => true,
            CorsPolicy::Loopback => is_loopback_origin(origin),
            CorsPolicy::Listed(origins) => origins.contains(origin),
        }
    }

    /// The answer to an OPTIONS request, whatever its path.
    pub(crate) fn preflight_response() -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        response
    }

    /// Marks an answer for the browser.
    pub(crate) fn set_headers(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if !matches!(self, CorsPolicy::Any) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else {
            return;
        };
        headers.insert(
            ACCESS_CONTROL_ALLOW_ORIGIN,
            if matches!(self, CorsPolicy::Any) { ANY } else { origin },
        );
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

/// An origin as browsers write it: in lower case, without a path, and without the default port.
fn parse_origin(origin: &str) -> Result<HeaderValue, GatewayStartError> {
    let bad = |reason: String| GatewayStartError::Origin { origin: origin.to_owned(), reason };
    let lower = origin.to_ascii_lowercase();
    let form = "write scheme://host[:port], such as https://app.example, or * for any";
    let Some((scheme, authority)) = lower.split_once("://") else {
        return Err(bad(format!("it has no scheme: {form}")));
    };
    if authority.contains('*') {
        return Err(bad(
            "there are no patterns: list each origin, or write * alone for any".to_owned()
        ));
    }
    if matches!(scheme, "ws" | "wss") {
        return Err(bad(format!(
            "pages come from http or https: write {}",
            lower.replacen("ws", "http", 1)
        )));
    }
    let url = Url::parse(&lower)
        .map_err(|error| bad(format!("it is not an address ({error}): {form}")))?;
    let written = if matches!(scheme, "http" | "https") {
        url.origin().ascii_serialization()
    } else {
        // Pages of extensions and applications: browsers write their scheme and name unchanged.
        format!("{scheme}://{}", authority.split(['/', '?', '#']).next().unwrap_or_default())
    };
    if !url.username().is_empty()
        || url.password().is_some()
        || url.host_str().is_none_or(str::is_empty)
    {
        return Err(bad(format!("it is not an origin: {form}")));
    }
    if written != lower {
        return Err(bad(format!("browsers write it otherwise: write {written}")));
    }
    HeaderValue::from_str(&lower).map_err(|_| bad(format!("it is not an origin: {form}")))
}

fn is_loopback_origin(origin: &HeaderValue) -> bool {
    origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .is_some_and(|(_, authority)| is_loopback_authority(authority))
}

/// Whether `host[:port]` names this machine. Names are not resolved: a name in the control of
/// somebody else may resolve to the loopback address (DNS rebinding).
pub(crate) fn is_loopback_authority(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || literal.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{CorsPolicy, is_loopback_authority};
    use http::HeaderValue;

    fn listed(origins: &[&str]) -> Result<CorsPolicy, crate::GatewayStartError> {
        let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
        CorsPolicy::new(&origins, false)
    }

    #[test]
    fn lesson_14_only_listed_origins_are_allowed() {
        let cors = listed(&["https://App.example", "http://localhost:3000"]).unwrap();
        assert!(cors.allows(&HeaderValue::from_static("https://app.example")));
        assert!(cors.allows(&HeaderValue::from_static("http://localhost:3000")));
        for other in [
            "https://app.example.evil",
            "http://app.example",
            "https://app.example:444",
            "null",
            "",
        ] {
            assert!(!cors.allows(&HeaderValue::from_static(other)), "{other}");
        }
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_refused_with_what_to_write() {
        for (bad, write) in [
            ("app.example", "https://app.example"),
            ("null", "scheme://host"),
            ("", "scheme://host"),
            ("https://", "scheme://host"),
            ("https://a b", "scheme://host"),
            ("https://u@a", "scheme://host"),
            ("https://a/", "write https://a"),
            ("https://a/b?c#d", "write https://a"),
            ("https://a:443", "write https://a"),
            ("http://A:80/", "write http://a"),
            ("https://a:", "write https://a"),
            ("https://a:08443", "write https://a:8443"),
            ("https://a:99999", "port"),
            ("https://müller.example", "write https://xn--mller-kva.example"),
            ("http://127.1:3000", "write http://127.0.0.1:3000"),
            ("http://[0:0::1]", "write http://[::1]"),
            ("wss://a:8443", "write https://a:8443"),
            ("ws://a", "write http://a"),
            ("https://*.app.example", "list each origin"),
            ("chrome-extension://abc/", "write chrome-extension://abc"),
        ] {
            let error = listed(&["https://ok.example", bad]).unwrap_err().to_string();
            assert!(error.contains(&format!("\"{bad}\"")) && error.contains(write), "{error}");
        }
        for good in [
            "https://a",
            "HTTPS://A.example:8443",
            "http://[::1]:80",
            "capacitor://localhost",
            "tauri://localhost",
        ] {
            // The one with the default port is not one of them.
            assert_eq!(listed(&[good]).is_ok(), good != "http://[::1]:80", "{good}");
        }
    }

    #[test]
    fn names_of_this_machine() {
        for this in [
            "localhost",
            "LocalHost:8080",
            "app.localhost:1",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(is_loopback_authority(this), "{this}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example:80",
            "10.0.0.1",
            "[2001:db8::1]:80",
            "",
            "127.0.0.1.evil",
        ] {
            assert!(!is_loopback_authority(other), "{other}");
        }
    }
}
