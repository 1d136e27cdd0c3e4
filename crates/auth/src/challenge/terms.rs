//! The terms of a challenge.

use crate::wallet::Wallet;
use debros_proto::ids::excerpt;
use debros_proto::{Error, Namespace, Result};

/// The domain of a sign-in without a site: a program on the P2P network.
pub const P2P_DOMAIN: &str = "p2p.debros";
/// The URI of a sign-in without a site.
pub const P2P_URI: &str = "p2p://debros/rpc/1.0.0";
/// Ethereum's main network.
pub const DEFAULT_CHAIN_ID: u64 = 1;

/// A DNS name has at most 253 bytes, a port 6 more with its colon.
const MAX_DOMAIN_BYTES: usize = 259;
const MAX_URI_BYTES: usize = 1024;

/// The wallet, the namespace and the site of a sign-in. All of it is in the text that the wallet
/// signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInTerms {
    wallet: Wallet,
    namespace: Namespace,
    domain: String,
    uri: String,
    chain_id: u64,
}

impl SignInTerms {
    /// Terms of a site: its `domain` as a browser shows it (`host` or `host:port`) and the `uri`
    /// that the sign-in is for. Both empty: [`P2P_DOMAIN`] and [`P2P_URI`]. `chain_id` 0:
    /// [`DEFAULT_CHAIN_ID`].
    ///
    /// # Errors
    /// `invalid_argument` when only one of domain and URI is given, or one has another form: only
    /// valid domains and URIs go into the signed text.
    pub fn new(
        wallet: Wallet,
        namespace: Namespace,
        domain: &str,
        uri: &str,
        chain_id: u64,
    ) -> Result<Self> {
        let chain_id = if chain_id == 0 { DEFAULT_CHAIN_ID } else { chain_id };
        let (domain, uri) = match (domain.is_empty(), uri.is_empty()) {
            (true, true) => (P2P_DOMAIN, P2P_URI),
            (false, false) => (domain, uri),
            (true, false) => {
                return Err(Error::invalid(
                    "the sign-in names a URI without a domain: name both, or none",
                ));
            }
            (false, true) => {
                return Err(Error::invalid(
                    "the sign-in names a domain without a URI: name both, or none",
                ));
            }
        };
        if !is_authority(domain) {
            return Err(Error::invalid(format!(
                "\"{}\" is not a domain to sign in at: use a host name or address, and a port if it is not the usual one",
                excerpt(domain)
            )));
        }
        if !is_uri(uri) {
            return Err(Error::invalid(format!(
                "\"{}\" is not a URI to sign in at: use a scheme and a path, in at most {MAX_URI_BYTES} characters",
                excerpt(uri)
            )));
        }
        Ok(Self { wallet, namespace, domain: domain.to_owned(), uri: uri.to_owned(), chain_id })
    }

    /// The terms of a program that signs in without a site.
    pub fn p2p(wallet: Wallet, namespace: Namespace) -> Self {
        let (domain, uri) = (P2P_DOMAIN.to_owned(), P2P_URI.to_owned());
        Self { wallet, namespace, domain, uri, chain_id: DEFAULT_CHAIN_ID }
    }

    /// The wallet that signs in.
    pub fn wallet(&self) -> Wallet {
        self.wallet
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The site: `host` or `host:port`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The resource of the site.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The chain that the wallet is on (EIP-155).
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    pub(super) fn wallet_bytes(&self) -> &[u8] {
        self.wallet.as_bytes()
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port` (RFC 3986 without user information, and without
/// percent-encoding).
fn is_authority(text: &str) -> bool {
    let (host_fits, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        (address.parse::<std::net::Ipv6Addr>().is_ok(), port)
    } else {
        let end = text.find(':').unwrap_or(text.len());
        let (host, port) = text.split_at(end);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        (!host.is_empty() && host.bytes().all(fits), port)
    };
    let digits = port.strip_prefix(':');
    let port_fits = port.is_empty()
        || digits.is_some_and(|digits| {
            digits.bytes().all(|byte| byte.is_ascii_digit())
                && digits.parse::<u16>().is_ok_and(|port| port > 0)
        });
    text.len() <= MAX_DOMAIN_BYTES && host_fits && port_fits
}

/// A scheme, a colon, and the characters that RFC 3986 allows.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let scheme_fits = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    let escapes_fit = rest.split('%').skip(1).all(|escape| {
        escape.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    text.len() <= MAX_URI_BYTES
        && scheme_fits
        && !rest.is_empty()
        && rest.bytes().all(allowed)
        && escapes_fit
}
