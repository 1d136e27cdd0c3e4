//! A gateway's settings, and their errors.

use debros_proto::limits::MAX_VALUE_BYTES;
use debros_proto::{Error, Namespace, Result};
use ipnet::IpNet;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a [`Gateway`](crate::Gateway).
#[derive(Clone)]
pub struct GatewayConfig {
    /// The listen address: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, or `:8080` for all
    /// addresses of the machine (for the loopback address only, if both `require_auth` and
    /// `insecure_public` are off). Port 0 takes a free one.
    pub listen: String,
    /// Whether callers must present a credential.
    pub require_auth: bool,
    /// The namespace of callers without a credential, where none is required, and of a sign-in that
    /// names none.
    pub namespace: Namespace,
    /// Keys that this gateway itself knows, each with the namespace it acts in.
    pub static_keys: Vec<(String, Namespace)>,
    /// The credential that the gateway shows to nodes for callers with a static key and for callers
    /// without a credential.
    pub operator_credential: Option<String>,
    /// Origins whose pages may call, such as `https://app.example`. Empty: any.
    pub cors_origins: Vec<String>,
    /// The address under which browsers reach the gateway, such as `https://gw.example`, perhaps
    /// with a path. Wallets show it to the person who signs in. None: sign-in works under loopback
    /// names and the listen address.
    pub public_url: Option<String>,
    /// Proxies in front of the gateway. `X-Forwarded-For` and `Forwarded` are believed only from
    /// them.
    pub trusted_proxies: Vec<IpNet>,
    /// Serve HTTPS with these files.
    pub tls: Option<TlsFiles>,
    /// Allows a gateway that requires no credentials to be reached from other machines.
    pub insecure_public: bool,
    /// Sizes, times and counts.
    pub limits: GatewayLimits,
    /// The answer of `/v1/version`.
    pub build: GatewayBuildInfo,
}

impl GatewayConfig {
    /// The defaults: credentials required, any origin, no TLS.
    pub fn new(listen: impl Into<String>) -> Self {
        Self {
            listen: listen.into(),
            require_auth: true,
            namespace: Namespace::new("default").unwrap_or_else(|_| unreachable!("a namespace")),
            static_keys: Vec::new(),
            operator_credential: None,
            cors_origins: Vec::new(),
            public_url: None,
            trusted_proxies: Vec::new(),
            tls: None,
            insecure_public: false,
            limits: GatewayLimits::default(),
            build: GatewayBuildInfo::default(),
        }
    }

    /// Reads `key1:namespace1,key2:namespace2`. A key may hold colons itself: the last one
    /// separates.
    ///
    /// # Errors
    /// `invalid_argument` with the entry's number, never with the key.
    pub fn parse_static_keys(text: &str) -> Result<Vec<(String, Namespace)>> {
        let mut keys: Vec<(String, Namespace)> = Vec::new();
        for (index, entry) in text.split(',').enumerate() {
            let entry = entry.trim();
            if entry.is_empty() {
                continue;
            }
            let number = index + 1;
            let (key, namespace) = entry.rsplit_once(':').ok_or_else(|| {
                Error::invalid(format!(
                    "static key {number} names no namespace: write key:namespace"
                ))
            })?;
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(Error::invalid(format!(
                    "static key {number} is empty or holds a character that cannot stand in an HTTP header"
                )));
            }
            // Namespace::new would show the text, which is a part of the secret if the entry has
            // the wrong form.
            let namespace = Namespace::new(namespace).map_err(|_| {
                Error::invalid(format!(
                    "static key {number}: the text after the last colon is not a namespace (1 to 63 of a-z, 0-9, _ \
                     and -, starting with a letter or digit)"
                ))
            })?;
            if keys.iter().any(|(other, _)| other == key) {
                return Err(Error::invalid(format!("static key {number} is in the list twice")));
            }
            keys.push((key.to_owned(), namespace));
        }
        Ok(keys)
    }
}

/// Secrets are left out.
impl fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayConfig")
            .field("listen", &self.listen)
            .field("require_auth", &self.require_auth)
            .field("namespace", &self.namespace)
            .field("static_keys", &self.static_keys.len())
            .field("operator_credential", &self.operator_credential.is_some())
            .field("cors_origins", &self.cors_origins)
            .field("public_url", &self.public_url)
            .field("trusted_proxies", &self.trusted_proxies)
            .field("tls", &self.tls)
            .field("insecure_public", &self.insecure_public)
            .field("limits", &self.limits)
            .field("build", &self.build)
            .finish()
    }
}

/// Files for HTTPS, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by the certificates of its issuers.
    pub certificate: PathBuf,
    /// The certificate's private key: PKCS#8, PKCS#1 or SEC1.
    pub private_key: PathBuf,
}

/// Limits of what a gateway accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayLimits {
    /// Bytes of a raw value. Default 4 MiB.
    pub max_value: usize,
    /// Bytes of a JSON body. Default 16 MiB.
    pub max_json: usize,
    /// How long a request's head may take to arrive, and how long a connection may stay idle.
    /// Default 30 s.
    pub header_timeout: Duration,
    /// How long a request's body may pause. After the first pause of that length it must have come
    /// at 4 KiB/s or faster, and may take as long as it keeps that rate. Default 60 s.
    pub body_timeout: Duration,
    /// How long a caller may take none of the data that waits for it, before its connection ends.
    /// Default 30 s.
    pub write_timeout: Duration,
    /// How long the network may take for one call. Default 30 s.
    pub request_timeout: Duration,
    /// How long an HTTP/2 peer may stay silent before it is pinged, and how long its answer may
    /// then take. Default 30 s.
    pub idle_timeout: Duration,
    /// Bytes in memory that all callers hold together: requests that arrive, requests under way,
    /// answers that are not read yet. One address or credential holds at most half, and never more
    /// than is left for the others. Default 192 MiB.
    pub max_held_bytes: usize,
    /// Connections at a time, WebSockets among them. One address has at most half, and never more
    /// than is left for the others; idle connections make room for new ones. Default 10,000.
    pub max_connections: usize,
    /// WebSockets at a time; further ones are refused. One address or credential has at most half,
    /// and never more than is left for the others. Default 10,000.
    pub max_websockets: usize,
    /// How often a WebSocket is pinged. Default 30 s.
    pub ping_interval: Duration,
    /// How long a WebSocket may stay without a sign of life. Default 60 s.
    pub pong_timeout: Duration,
    /// Requests in a row that one address (of IPv6: a /64 network) may send to the sign-in routes.
    /// Default 30.
    pub sign_in_burst: NonZeroU32,
    /// After that, an address may send one in each of these periods. Default 1 s.
    pub sign_in_period: Duration,
    /// Requests of one address to the sign-in routes that may name one wallet, in a row. Default
    /// 10.
    pub wallet_burst: NonZeroU32,
    /// After that, one in each of these periods. Default 6 s.
    pub wallet_period: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            max_value: MAX_VALUE_BYTES,
            max_json: 16 << 20,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            max_held_bytes: 192 << 20,
            max_connections: 10_000,
            max_websockets: 10_000,
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(60),
            sign_in_burst: const { NonZeroU32::new(30).unwrap() },
            sign_in_period: Duration::from_secs(1),
            wallet_burst: const { NonZeroU32::new(10).unwrap() },
            wallet_period: Duration::from_secs(6),
        }
    }
}

/// Which build of the program this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayBuildInfo {
    /// Such as `0.1.0`.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// When it was built.
    pub build_time: String,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayStartError {
    /// The listen address cannot be read or resolved.
    #[error(
        "gateway listen address \"{listen}\": {reason}; write host:port, such as 127.0.0.1:8080, or :8080"
    )]
    Address {
        /// What was configured.
        listen: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The listen address cannot be bound.
    #[error("the gateway cannot listen on {address}: {source}{}", bind_hint(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Authentication is off and the address can be reached from other machines.
    #[error(
        "authentication is off, and {address} can be reached from other machines: listen on 127.0.0.1 or [::1], turn \
         authentication on (GATEWAY_REQUIRE_AUTH=true), or give --insecure-public if everyone who reaches it may read \
         and change everything in the namespace"
    )]
    Public {
        /// The address.
        address: SocketAddr,
    },
    /// A configured feature needs an operator credential, and there is none.
    #[error(
        "{what} need an operator credential, which the gateway shows to the node for them: run the gateway inside the \
         node, or give it the content of the node's <data_dir>/operator.key"
    )]
    NoOperatorCredential {
        /// The feature that needs it.
        what: &'static str,
    },
    /// An origin for CORS is not an origin.
    #[error("CORS origin \"{origin}\" would never match, because {reason}")]
    Origin {
        /// What was configured.
        origin: String,
        /// Why, and what to write instead.
        reason: String,
    },
    /// The public address is invalid.
    #[error(
        "the gateway's public address \"{url}\" cannot be used: {reason}; write something like https://gw.example \
         (gateway.public_url, GATEWAY_PUBLIC_URL)"
    )]
    PublicUrl {
        /// What was configured.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A limit does not make sense.
    #[error("gateway limit {name} is 0: it must be at least 1")]
    Limit {
        /// Its name.
        name: &'static str,
    },
    /// The files for HTTPS cannot be used.
    #[error("TLS file {}: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn bind_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another program listens there: stop it, or choose another address (gateway.listen_addr, GATEWAY_ADDR, --addr)"
        }
        std::io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need a privilege: choose a higher one"
        }
        std::io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::GatewayConfig;

    #[test]
    fn static_keys_are_split_at_the_last_colon() {
        let keys = GatewayConfig::parse_static_keys("k1:one, ak_x:two:three ,").unwrap();
        let read: Vec<(&str, &str)> =
            keys.iter().map(|(key, ns)| (key.as_str(), ns.as_str())).collect();
        assert_eq!(read, [("k1", "one"), ("ak_x:two", "three")]);
        assert!(GatewayConfig::parse_static_keys("").unwrap().is_empty());
    }

    #[test]
    fn an_error_in_static_keys_tells_the_entry_and_never_the_key() {
        for bad in [
            "good:a,topsecret",
            "good:a,topsecret:",
            "good:a,:ns",
            "good:a,TopSecret:TOPSECRET",
            "good:a,good:b",
        ] {
            let error = GatewayConfig::parse_static_keys(bad).unwrap_err();
            assert!(error.message.contains('2'), "{error}");
            assert!(!error.message.to_lowercase().contains("topsecret"), "{error}");
        }
    }

    #[test]
    fn the_debug_form_holds_no_secret() {
        let mut config = GatewayConfig::new(":0");
        config.static_keys = GatewayConfig::parse_static_keys("hidden-key:ns").unwrap();
        config.operator_credential = Some("op_hidden".into());
        let text = format!("{config:?}");
        assert!(!text.contains("hidden"), "{text}");
    }
}
