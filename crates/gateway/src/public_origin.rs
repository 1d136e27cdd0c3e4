//! The names under which the gateway is known: the text that a wallet's owner signs shows one
//! (EIP-4361).
//!
//! The name never comes from a caller alone. Otherwise a page elsewhere could have its visitors
//! sign a text that names that page, and use the signature here. The node prevents the same through
//! another gateway: it accepts configured names (`security.sign_in_domains`), and any name only
//! from a gateway in its own process.

use crate::config::GatewayStartError;
use crate::connection_info::ConnectionInfo;
use crate::cors::is_loopback_authority;
use crate::error::ApiError;
use http::Uri;
use http::header::HOST;
use std::net::{Ipv6Addr, SocketAddr};

/// The path of the sign-in page.
pub(crate) const LOGIN_PATH: &str = "/v1/auth/login";

/// Domain and URI of a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignInOrigin {
    pub(crate) domain: String,
    pub(crate) uri: String,
}

/// The names of this gateway.
pub(crate) struct PublicOrigin {
    configured: Option<SignInOrigin>,
    /// The configured listen address, in lower case.
    listen: String,
    scheme: &'static str,
}

impl PublicOrigin {
    pub(crate) fn new(
        public_url: Option<&str>,
        listen: &str,
        https: bool,
    ) -> Result<Self, GatewayStartError> {
        let public = public_url.map(parse_public_url).transpose()?;
        Ok(Self {
            configured: public,
            listen: listen.to_ascii_lowercase(),
            scheme: if https { "https" } else { "http" },
        })
    }

    /// The domain and URI for a challenge of this request.
    ///
    /// # Errors
    /// `invalid_argument` if the request came under a name that the gateway does not know to be its
    /// own.
    pub(crate) fn sign_in_origin(
        &self,
        request: &http::request::Parts,
        connection: &ConnectionInfo,
    ) -> Result<SignInOrigin, ApiError> {
        if let Some(public) = &self.configured {
            return Ok(public.clone());
        }
        match request_authority(request) {
            Some(domain) if self.is_own(&domain, connection.local) => {
                Ok(SignInOrigin { uri: format!("{}://{domain}{LOGIN_PATH}", self.scheme), domain })
            }
            _ => Err(ApiError::invalid(
                "this gateway does not know that it is reached under this name, so nobody can sign in here: its operator has \
                 to set gateway.public_url (GATEWAY_PUBLIC_URL) to its address, such as https://gw.example; without it, \
                 sign-in works under localhost and the address that the gateway listens on",
            )),
        }
    }

    fn is_own(&self, domain: &str, local: SocketAddr) -> bool {
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let usual_port = if self.scheme == "https" { 443 } else { 80 };
        let without_port =
            |authority: &str| authority.strip_suffix(&format!(":{usual_port}")).map(str::to_owned);
        let is = |own: &str| own == domain || without_port(own).as_deref() == Some(domain);
        is_loopback_authority(domain) || is(&local.to_string()) || is(&self.listen)
    }
}

/// The name that the request was sent to, in lower case; none if it is not one plain `host` or
/// `host:port`.
fn request_authority(request: &http::request::Parts) -> Option<String> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = match (request.uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), _, _) => authority.as_str(),
        (None, Some(host), None) => host.to_str().ok()?,
        _ => return None,
    };
    is_plain_authority(host).then(|| host.to_ascii_lowercase())
}

/// `host`, `address` or `[v6 address]`, each with or without a port.
fn is_plain_authority(authority: &str) -> bool {
    if authority.starts_with('[') {
        return authority.parse::<SocketAddr>().is_ok()
            || authority
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok());
    }
    let (name, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !name.is_empty()
        && name.bytes().all(in_name)
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok()
}

fn parse_public_url(url: &str) -> Result<SignInOrigin, GatewayStartError> {
    let bad = |reason| GatewayStartError::PublicUrl { url: url.to_owned(), reason };
    let uri: Uri = url.parse().map_err(|_| bad("it is not an address"))?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "https" | "http"));
    let scheme = scheme.ok_or_else(|| bad("it does not start with https:// or http://"))?;
    let authority =
        uri.authority().ok_or_else(|| bad("it names no host"))?.as_str().to_ascii_lowercase();
    if authority.contains('@') {
        return Err(bad("it holds a user name or password"));
    }
    if uri.query().is_some() || url.contains('#') {
        return Err(bad("it holds a query or fragment"));
    }
    let path = uri.path().trim_end_matches('/');
    Ok(SignInOrigin { uri: format!("{scheme}://{authority}{path}{LOGIN_PATH}"), domain: authority })
}

#[cfg(test)]
mod tests {
    use super::{PublicOrigin, SignInOrigin};
    use crate::connection_info::ConnectionInfo;
    use http::Request;

    fn sign_in_origin_of(public_origin: &PublicOrigin, host: &str) -> Option<SignInOrigin> {
        let (parts, ()) =
            Request::get("/v1/auth/challenge").header("Host", host).body(()).unwrap().into_parts();
        let connection = ConnectionInfo {
            peer: "198.51.100.7:999".parse().unwrap(),
            local: "192.0.2.1:8080".parse().unwrap(),
            holder: Default::default(),
            credential: None,
        };
        public_origin.sign_in_origin(&parts, &connection).ok()
    }

    /// Lesson 9: the signed text named no site, so that another site could relay it.
    #[test]
    fn lesson_09_an_unknown_host_is_never_named() {
        let public_origin = PublicOrigin::new(None, "gw.internal:8080", false).unwrap();
        for own in [
            "localhost:8080",
            "LOCALHOST",
            "127.0.0.1:1",
            "[::1]:8080",
            "192.0.2.1:8080",
            "gw.internal:8080",
        ] {
            assert_eq!(
                sign_in_origin_of(&public_origin, own).unwrap().domain,
                own.to_ascii_lowercase()
            );
        }
        for other in [
            "evil.example",
            "evil.example:8080",
            "192.0.2.1:8081",
            "192.0.2.1",
            "localhost.evil.example",
            "evil.example/.localhost",
            "evil.example#.localhost",
            "user@localhost",
            "evil.example .localhost",
            "evil.example:80.localhost",
            "[::1].localhost",
            "",
        ] {
            assert_eq!(sign_in_origin_of(&public_origin, other), None, "{other}");
        }
        assert_eq!(
            sign_in_origin_of(&public_origin, "localhost:8080").unwrap().uri,
            "http://localhost:8080/v1/auth/login"
        );
    }

    /// HTTP/2 has no Host header, and an absolute form in HTTP/1.1 goes before it.
    #[test]
    fn the_requests_own_authority_goes_before_the_host_header() {
        let public_origin = PublicOrigin::new(None, ":8080", true).unwrap();
        let connection = ConnectionInfo {
            peer: "127.0.0.1:999".parse().unwrap(),
            local: "127.0.0.1:8080".parse().unwrap(),
            holder: Default::default(),
            credential: None,
        };
        let asked = |uri: &str| {
            let request = Request::get(uri).header("Host", "localhost").body(()).unwrap();
            public_origin
                .sign_in_origin(&request.into_parts().0, &connection)
                .ok()
                .map(|origin| origin.uri)
        };
        assert_eq!(asked("https://evil.example/v1/auth/challenge"), None);
        let expected = "https://localhost:8443/v1/auth/login";
        assert_eq!(asked("https://localhost:8443/v1/auth/challenge").as_deref(), Some(expected));
    }

    #[test]
    fn lesson_09_a_configured_address_is_the_only_one() {
        let public_origin =
            PublicOrigin::new(Some("https://GW.example/debros/"), ":8080", false).unwrap();
        let expected = SignInOrigin {
            domain: "gw.example".to_owned(),
            uri: "https://gw.example/debros/v1/auth/login".to_owned(),
        };
        for host in ["gw.example", "evil.example", "localhost:8080"] {
            assert_eq!(sign_in_origin_of(&public_origin, host), Some(expected.clone()));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_at_the_start() {
        for bad in [
            "gw.example",
            "ftp://gw.example",
            "https://",
            "https://u:p@gw.example",
            "https://gw.example/?a=b",
            "https://gw.example/#a",
            "/gw",
            "",
        ] {
            let error =
                PublicOrigin::new(Some(bad), ":8080", false).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("GATEWAY_PUBLIC_URL"), "{error}");
        }
    }
}
