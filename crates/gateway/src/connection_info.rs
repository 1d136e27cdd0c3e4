//! The connection that a request came over, and the caller behind it.

use crate::error::ApiError;
use crate::fair_budget::CallerBuckets;
use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Once};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The two ends of a connection as the system knows them, and the caller behind it.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    /// The caller, as the request shows it.
    pub(crate) holder: CallerBuckets,
    /// The credential in the request's headers, if it is well-formed.
    pub(crate) credential: Option<Arc<str>>,
}

/// The proxies whose forwarded-for headers are believed.
pub(crate) struct TrustedProxies {
    trusted: Vec<IpNet>,
    /// Whether the log has named a proxy that is not in the list.
    reported_untrusted: Once,
}

impl TrustedProxies {
    pub(crate) fn new(trusted: Vec<IpNet>) -> Self {
        Self { trusted, reported_untrusted: Once::new() }
    }

    pub(crate) fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// The address that a request comes from: the other end of the connection; or, if that is a
    /// trusted proxy, the right-most address in its header that is not one. Anybody may have
    /// written the entries to the left of it.
    ///
    /// # Errors
    /// `invalid_argument` if the two headers name different callers: the proxy sets one, and its
    /// caller sent the other.
    pub(crate) fn client_address(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Result<IpAddr, ApiError> {
        let peer = peer.to_canonical();
        if !self.is_trusted(peer) {
            if headers.contains_key(&X_FORWARDED_FOR) || headers.contains_key(FORWARDED) {
                self.reported_untrusted.call_once(|| {
                    tracing::info!(
                        %peer,
                        "forwarded-for headers of this address are not believed, so all behind it count as one caller; if it \
                         is your proxy, list it in gateway.trusted_proxies (GATEWAY_TRUSTED_PROXIES)"
                    );
                });
            }
            return Ok(peer);
        }
        let listed = self
            .last_untrusted(peer, entries_from_right(headers, &X_FORWARDED_FOR).map(parse_address));
        let forwarded = self
            .last_untrusted(peer, entries_from_right(headers, &FORWARDED).map(parse_forwarded_for));
        match (headers.contains_key(&X_FORWARDED_FOR), headers.contains_key(FORWARDED)) {
            (true, true) if listed != forwarded => Err(ApiError::invalid(
                "the headers X-Forwarded-For and Forwarded name different callers: the proxy has to remove the one that it \
                 does not set itself",
            )),
            (false, true) => Ok(forwarded),
            _ => Ok(listed),
        }
    }

    /// Goes from the right, as long as proxies are trusted and entries are addresses.
    fn last_untrusted(
        &self,
        peer: IpAddr,
        entries: impl Iterator<Item = Option<IpAddr>>,
    ) -> IpAddr {
        let mut last = peer;
        for entry in entries {
            let Some(address) = entry else { break };
            last = address;
            if !self.is_trusted(address) {
                break;
            }
        }
        last
    }
}

/// The entries of a list header, from the last one to the first; several headers of one name are
/// one list.
fn entries_from_right<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let values: Vec<_> = headers.get_all(name).iter().collect();
    values.into_iter().rev().flat_map(|value| value.to_str().unwrap_or_default().rsplit(','))
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed =
        bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    parsed.map(|address: IpAddr| address.to_canonical())
}

/// The address in `for=…` of an entry of RFC 7239; none if it is hidden or `unknown`.
fn parse_forwarded_for(entry: &str) -> Option<IpAddr> {
    let value = entry.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    })?;
    parse_address(
        value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value),
    )
}

#[cfg(test)]
mod tests {
    use super::TrustedProxies;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use std::net::IpAddr;

    fn caller(peer: &str, headers: &[(&'static str, &str)]) -> Option<String> {
        let trusted = ["10.0.0.0/8", "2001:db8:1::/48"].map(|network| network.parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let peer: IpAddr = peer.parse().unwrap();
        TrustedProxies::new(trusted.to_vec())
            .client_address(peer, &map)
            .ok()
            .map(|address| address.to_string())
    }

    /// Lesson 10: X-Forwarded-For was believed from everyone.
    #[test]
    fn lesson_10_only_named_proxies_are_believed() {
        let header = [("x-forwarded-for", "203.0.113.9")];
        assert_eq!(caller("198.51.100.1", &header).unwrap(), "198.51.100.1");
        assert_eq!(caller("10.1.2.3", &header).unwrap(), "203.0.113.9");
        assert_eq!(caller("::ffff:10.1.2.3", &header).unwrap(), "203.0.113.9");
        assert_eq!(
            caller("2001:db8:1::7", &[("forwarded", "for=203.0.113.9")]).unwrap(),
            "203.0.113.9"
        );
        assert_eq!(caller("10.1.2.3", &[]).unwrap(), "10.1.2.3");
    }

    /// Lesson 10: the caller's own entry is to the left.
    #[test]
    fn lesson_10_the_right_most_stranger_counts() {
        let from_proxy = |value: &str| caller("10.0.0.1", &[("x-forwarded-for", value)]).unwrap();
        assert_eq!(from_proxy("1.1.1.1, 203.0.113.9"), "203.0.113.9");
        assert_eq!(from_proxy("1.1.1.1, 203.0.113.9, 10.0.0.2"), "203.0.113.9");
        assert_eq!(from_proxy("10.9.9.9"), "10.9.9.9");
        assert_eq!(from_proxy("1.1.1.1, nonsense"), "10.0.0.1");
        assert_eq!(from_proxy("1.1.1.1, nonsense, 10.0.0.2"), "10.0.0.2");
        assert_eq!(from_proxy("203.0.113.9:4711"), "203.0.113.9");
        assert_eq!(from_proxy("[2001:db8:2::1]:4711"), "2001:db8:2::1");
        let twice = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(caller("10.0.0.1", &twice).unwrap(), "203.0.113.9");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let from_proxy = |value: &str| caller("10.0.0.1", &[("forwarded", value)]).unwrap();
        assert_eq!(
            from_proxy("for=1.1.1.1;proto=http, For=\"[2001:db8:2::1]:4711\";by=10.0.0.2"),
            "2001:db8:2::1"
        );
        assert_eq!(from_proxy("for=203.0.113.9, for=_hidden"), "10.0.0.1");
        assert_eq!(from_proxy("for=unknown"), "10.0.0.1");
    }

    #[test]
    fn two_headers_that_differ_are_refused() {
        let differ = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.8")];
        assert_eq!(caller("10.0.0.1", &differ), None);
        let equal = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9")];
        assert_eq!(caller("10.0.0.1", &equal).unwrap(), "203.0.113.9");
        assert_eq!(
            caller("198.51.100.1", &differ).unwrap(),
            "198.51.100.1",
            "a stranger's headers are not read"
        );
    }
}
