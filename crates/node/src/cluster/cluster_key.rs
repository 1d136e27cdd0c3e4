//! A key of the cluster: what its nodes prove to each other, and what their other common secrets
//! are derived from.

use debros_p2p::PeerId;
use debros_proto::{Error, Result, rpc};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Bytes of a key, a nonce and a proof.
pub(crate) const KEY_BYTES: usize = 32;
/// What a proof is made over begins with this.
const PROOF_DOMAIN: &[u8] = b"debros cluster proof v1";
/// Keys derived for other purposes carry it, so that they differ from those of any other program.
const DERIVE_DOMAIN: &str = "debros cluster v1: ";

/// The public name of a key, by which nodes find one that both have.
pub(crate) type KeyId = [u8; 8];

/// Who proves something to whom. It is a part of what is proven, so that a proof cannot be sent
/// back to the one that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The one that began proves to the other.
    FromDialer,
    /// The other proves to the one that began.
    FromListener,
}

/// One exchange of proofs: its two ends, and a fresh nonce of each.
#[derive(Clone, Debug)]
pub(crate) struct ProofExchange {
    /// The one that began.
    pub(crate) dialer: PeerId,
    pub(crate) listener: PeerId,
    pub(crate) dialer_nonce: [u8; KEY_BYTES],
    pub(crate) listener_nonce: [u8; KEY_BYTES],
}

/// 32 random bytes, numbered in the order in which keys replaced each other.
#[derive(Clone)]
pub(crate) struct ClusterKey {
    epoch: u64,
    secret: Zeroizing<[u8; KEY_BYTES]>,
}

impl ClusterKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn generate(epoch: u64) -> Result<Self> {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        fill_random(&mut *secret)?;
        Ok(Self { epoch, secret })
    }

    pub(crate) fn from_parts(epoch: u64, secret: [u8; KEY_BYTES]) -> Self {
        Self { epoch, secret: Zeroizing::new(secret) }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn secret(&self) -> &[u8; KEY_BYTES] {
        &self.secret
    }

    /// Proves in one direction of an exchange that this side holds the key.
    pub(crate) fn proof(&self, direction: Direction, exchange: &ProofExchange) -> [u8; KEY_BYTES] {
        self.proof_mac(direction, exchange).finalize().into_bytes().into()
    }

    /// Whether a proof holds; in a time that does not depend on where it is wrong.
    pub(crate) fn holds(
        &self,
        proof: &[u8],
        direction: Direction,
        exchange: &ProofExchange,
    ) -> bool {
        self.proof_mac(direction, exchange).verify_slice(proof).is_ok()
    }

    fn proof_mac(&self, direction: Direction, exchange: &ProofExchange) -> Hmac<Sha256> {
        let direction: &[u8] = match direction {
            Direction::FromDialer => b"from dialer",
            Direction::FromListener => b"from listener",
        };
        let (dialer, listener) = (exchange.dialer.to_bytes(), exchange.listener.to_bytes());
        let fields: [&[u8]; 6] = [
            PROOF_DOMAIN,
            direction,
            &dialer,
            &listener,
            &exchange.dialer_nonce,
            &exchange.listener_nonce,
        ];
        let key = self.derive("proof");
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&*key).expect("HMAC takes a key of any length");
        for field in fields {
            // With its length: no field can continue in the next.
            mac.update(&(field.len() as u64).to_be_bytes());
            mac.update(field);
        }
        mac
    }

    /// Another secret that all nodes with this key have, for one purpose. Each label gives another
    /// one, and none of them tells anything of the key or of the others.
    pub(crate) fn derive(&self, label: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut derived = Zeroizing::new([0; KEY_BYTES]);
        Hkdf::<Sha256>::new(None, &*self.secret)
            .expand_multi_info(&[DERIVE_DOMAIN.as_bytes(), label.as_bytes()], &mut *derived)
            .expect("32 bytes are less than HKDF gives");
        derived
    }

    /// The key's public name.
    pub(crate) fn id(&self) -> KeyId {
        let mut id = KeyId::default();
        id.copy_from_slice(&self.derive("public id")[..size_of::<KeyId>()]);
        id
    }

    /// Whether this key takes the place of another. Of two that were made at the same time the same
    /// one wins on every node.
    pub(crate) fn replaces(&self, other: &ClusterKey) -> bool {
        (self.epoch, &*self.secret) > (other.epoch, &*other.secret)
    }

    pub(crate) fn to_message(&self) -> rpc::ClusterKeyMessage {
        rpc::ClusterKeyMessage { key: self.secret.to_vec().into(), epoch: self.epoch }
    }

    /// Reads a key that another node sent.
    ///
    /// # Errors
    /// `invalid_argument` when it is none.
    pub(crate) fn from_message(message: Option<rpc::ClusterKeyMessage>) -> Result<Self> {
        message
            .and_then(|message| {
                Some(Self::from_parts(message.epoch, message.key.as_ref().try_into().ok()?))
            })
            .ok_or_else(|| Error::invalid("the message holds no key of a cluster"))
    }
}

impl PartialEq for ClusterKey {
    fn eq(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.secret.ct_eq(&*other.secret).into()
    }
}

/// The number alone: the key is a secret.
impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({})", self.epoch)
    }
}

/// Fills a buffer with the system's randomness.
///
/// # Errors
/// When it has none.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        tracing::error!(%error, "the system has no randomness");
        Error::internal("the system has no randomness; the node's log says more")
    })
}

/// Random bytes.
///
/// # Errors
/// When the system has no randomness.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fill_random(&mut bytes).map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::{ClusterKey, Direction, ProofExchange};
    use debros_p2p::PeerId;

    fn exchange() -> ProofExchange {
        ProofExchange {
            dialer: PeerId::random(),
            listener: PeerId::random(),
            dialer_nonce: [1; 32],
            listener_nonce: [2; 32],
        }
    }

    #[test]
    fn a_proof_holds_for_what_it_was_made_over_and_for_nothing_else() {
        let (key, made) = (ClusterKey::from_parts(1, [7; 32]), exchange());
        let proof = key.proof(Direction::FromDialer, &made);
        assert!(key.holds(&proof, Direction::FromDialer, &made));
        let changes: [fn(&mut ProofExchange); 6] = [
            |other| other.dialer = PeerId::random(),
            |other| other.listener = PeerId::random(),
            |other| other.dialer_nonce[31] ^= 1,
            |other| other.listener_nonce[0] ^= 1,
            |other| std::mem::swap(&mut other.dialer, &mut other.listener),
            |other| std::mem::swap(&mut other.dialer_nonce, &mut other.listener_nonce),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut other = made.clone();
            change(&mut other);
            assert!(!key.holds(&proof, Direction::FromDialer, &other), "change {index}");
        }
        let other = ClusterKey::from_parts(1, [8; 32]);
        assert!(!other.holds(&proof, Direction::FromDialer, &made));
        assert!(!key.holds(&proof[..31], Direction::FromDialer, &made));
        assert!(!key.holds(b"", Direction::FromDialer, &made));
    }

    #[test]
    fn a_proof_that_is_sent_back_proves_nothing() {
        let (key, made) = (ClusterKey::from_parts(1, [7; 32]), exchange());
        let proof = key.proof(Direction::FromListener, &made);
        assert!(!key.holds(&proof, Direction::FromDialer, &made));
        // Nor in an exchange that the other side began with the same nonces.
        let mirrored = ProofExchange {
            dialer: made.listener,
            listener: made.dialer,
            dialer_nonce: made.listener_nonce,
            listener_nonce: made.dialer_nonce,
        };
        for direction in [Direction::FromDialer, Direction::FromListener] {
            assert!(!key.holds(&proof, direction, &mirrored), "{direction:?}");
        }
    }

    #[test]
    fn what_is_derived_is_the_same_for_one_label_and_differs_between_two() {
        let key = ClusterKey::from_parts(1, [7; 32]);
        assert_eq!(*key.derive("raft"), *ClusterKey::from_parts(9, [7; 32]).derive("raft"));
        assert_ne!(*key.derive("raft"), *key.derive("tls"));
        assert_ne!(*key.derive("raft"), [7; 32]);
        assert_ne!(key.id(), ClusterKey::from_parts(1, [8; 32]).id());
    }

    #[test]
    fn of_two_keys_of_one_number_the_same_wins_everywhere() {
        let (low, high) = (ClusterKey::from_parts(2, [1; 32]), ClusterKey::from_parts(2, [2; 32]));
        assert!(high.replaces(&low) && !low.replaces(&high) && !low.replaces(&low));
        assert!(ClusterKey::from_parts(3, [0; 32]).replaces(&high));
        assert!(!format!("{high:?}").contains("2, 2"));
    }
}
