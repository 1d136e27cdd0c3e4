//! The line that lets a new node in: where to dial, which peer has to answer there, and a secret
//! that is good for one node and one hour. Not the key.

use super::cluster_key::{KEY_BYTES, random_bytes};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use debros_p2p::{Multiaddr, PeerId};
use debros_proto::rpc;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a token is good.
pub(crate) const TOKEN_LIFE: Duration = Duration::from_secs(60 * 60);
/// Addresses in a token.
const MAX_ADDRESSES: usize = 4;
/// Characters of a token.
const MAX_TEXT: usize = 4096;

/// A join token, as `network-node token` prints it.
#[derive(Clone)]
pub struct JoinToken {
    peer_id: PeerId,
    addresses: Vec<Multiaddr>,
    cluster_id: String,
    secret: Zeroizing<[u8; KEY_BYTES]>,
    /// Milliseconds since the Unix epoch; the node that made it decides by its own clock.
    expires_at: i64,
}

/// A text is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no join token: copy the whole line that `network-node token` prints on a node of the cluster"
)]
pub struct JoinTokenError;

impl JoinToken {
    /// A new token of a node.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(super) fn generate(
        peer_id: PeerId,
        mut addresses: Vec<Multiaddr>,
        cluster_id: &str,
        expires_at: i64,
    ) -> debros_proto::Result<Self> {
        addresses.truncate(MAX_ADDRESSES);
        let secret = Zeroizing::new(random_bytes()?);
        Ok(Self { peer_id, addresses, cluster_id: cluster_id.to_owned(), secret, expires_at })
    }

    /// The node that made it. Nobody else is shown the secret.
    pub(super) fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    pub(super) fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    pub(super) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub(super) fn secret(&self) -> &[u8; KEY_BYTES] {
        &self.secret
    }

    /// The token as one line.
    pub(super) fn to_text(&self) -> String {
        let content = rpc::JoinTokenContent {
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            cluster_id: self.cluster_id.clone(),
            secret: self.secret.to_vec().into(),
            expires_at: self.expires_at,
        };
        URL_SAFE_NO_PAD.encode(content.encode_to_vec())
    }
}

/// What is kept of a token's secret.
pub(crate) fn hash_secret(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(JoinTokenError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| JoinTokenError)?;
        let content =
            rpc::JoinTokenContent::decode(bytes.as_slice()).map_err(|_| JoinTokenError)?;
        let addresses: Vec<Multiaddr> = content
            .addresses
            .iter()
            .map(|address| address.parse().map_err(|_| JoinTokenError))
            .collect::<Result<_, _>>()?;
        let mut peers = content.addresses.iter().map(|address| peer_id_in(address));
        let peer_id = peers.next().flatten().ok_or(JoinTokenError)?;
        if peers.any(|other| other != Some(peer_id)) || content.cluster_id.is_empty() {
            return Err(JoinTokenError);
        }
        let secret = content.secret.as_ref().try_into().map_err(|_| JoinTokenError)?;
        Ok(Self {
            peer_id,
            addresses,
            cluster_id: content.cluster_id,
            secret: Zeroizing::new(secret),
            expires_at: content.expires_at,
        })
    }
}

fn peer_id_in(address: &str) -> Option<PeerId> {
    address.rsplit_once("/p2p/")?.1.parse().ok()
}

/// Without the secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken(of {} for {})", self.peer_id, self.cluster_id)
    }
}

#[cfg(test)]
mod tests {
    use super::{JoinToken, JoinTokenError};
    use debros_p2p::PeerId;

    fn token() -> JoinToken {
        let peer = PeerId::random();
        let address = format!("/ip4/192.0.2.1/tcp/4001/p2p/{peer}").parse().unwrap();
        JoinToken::generate(peer, vec![address], "cafe", 7).unwrap()
    }

    #[test]
    fn a_token_reads_back_from_its_line() {
        let made = token();
        let read: JoinToken = format!(" {}\n", made.to_text()).parse().unwrap();
        assert_eq!(read.secret(), made.secret());
        assert_eq!((read.peer_id(), read.addresses()), (made.peer_id(), made.addresses()));
        assert_eq!((read.cluster_id(), read.expires_at), ("cafe", 7));
        assert!(
            made.to_text()
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
        assert!(!format!("{made:?}").contains(&debros_proto::hex::encode(made.secret())));
    }

    #[test]
    fn a_part_of_a_token_is_none() {
        let text = token().to_text();
        for wrong in
            ["", "x", "op_1234", &text[1..], &text[..text.len() - 9], &text[..text.len() / 2]]
        {
            assert_eq!(wrong.parse::<JoinToken>().unwrap_err(), JoinTokenError, "{wrong}");
        }
        assert!("A".repeat(5000).parse::<JoinToken>().is_err());
    }
}
