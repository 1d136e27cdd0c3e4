//! The sites at which one signs in to this network.
//!
//! The text that a wallet signs names a site, and its owner compares that with what the browser
//! shows. This protects only if the node knows its sites: any peer may bring a proof, and a foreign
//! site could otherwise show its own name, have its visitors sign for it, and use their proofs
//! here.

use debros_auth::challenge::P2P_DOMAIN;
use debros_p2p::PeerId;
use debros_proto::ids::excerpt;
use debros_proto::{Code, Error, Result};
use std::collections::HashSet;
use std::net::IpAddr;

/// The known sites.
pub(super) struct SignInDomains {
    listed: HashSet<String>,
}

impl SignInDomains {
    /// Those that are configured: `host` or `host:port`.
    pub(super) fn new(listed: &[String]) -> Self {
        Self { listed: listed.iter().map(|domain| domain.to_ascii_lowercase()).collect() }
    }

    /// As [`check_domain`](Self::check_domain), also where no site is named.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_named(&self, peer: Option<PeerId>, domain: &str) -> Result<()> {
        if domain.is_empty() { Ok(()) } else { self.check_domain(peer, domain) }
    }

    /// Passes for a known site, for one of the caller's own machine, and for every site that a
    /// gateway in this process names: it takes no name from a caller.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_domain(&self, peer: Option<PeerId>, domain: &str) -> Result<()> {
        let known = peer.is_none()
            || domain == P2P_DOMAIN
            || is_loopback(domain)
            || self.listed.contains(&domain.to_ascii_lowercase());
        if known {
            return Ok(());
        }
        Err(Error::new(
            Code::Forbidden,
            format!(
                "this network does not know \"{}\" as a site to sign in at: its operator lists the names of its gateways in \
                 security.sign_in_domains",
                excerpt(domain)
            ),
        ))
    }
}

/// Whether a site is on the user's own machine.
fn is_loopback(domain: &str) -> bool {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => domain,
    };
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = host.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || literal.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::SignInDomains;
    use debros_p2p::Keypair;
    use debros_proto::Code;

    /// Lesson 9: a site that is not ours could have its visitors sign and use the proof here.
    #[test]
    fn lesson_09_a_peer_names_known_sites_alone() {
        let domains = SignInDomains::new(&["GW.example".to_owned(), "gw.example:8443".to_owned()]);
        let peer = Some(Keypair::generate_ed25519().public().to_peer_id());
        for known in [
            "gw.example",
            "GW.EXAMPLE",
            "gw.example:8443",
            "p2p.debros",
            "localhost",
            "localhost:6001",
            "app.localhost:1",
            "127.0.0.9:80",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:1",
        ] {
            domains.check_domain(peer, known).unwrap();
        }
        for foreign in [
            "evil.example",
            "gw.example:444",
            "a.gw.example",
            "gw.example.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "192.0.2.1:8080",
            "[2001:db8::1]",
            "p2p.debros:1",
        ] {
            let refused = domains.check_domain(peer, foreign).unwrap_err();
            assert_eq!(refused.code, Code::Forbidden, "{foreign}");
            assert!(
                refused.message.contains("security.sign_in_domains")
                    && refused.message.contains(foreign)
            );
            domains.check_domain(None, foreign).unwrap();
        }
    }
}
