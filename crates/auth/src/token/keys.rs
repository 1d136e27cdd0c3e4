//! The keys behind tokens.

use crate::secret;
use alloy_primitives::hex;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use debros_proto::{Error, Result};
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

/// Bytes of a signing key's seed, and of a public key.
pub const KEY_BYTES: usize = 32;
/// Hex digits of a key id.
const KID_CHARS: usize = 16;

/// The key that a node signs its tokens with (Ed25519).
#[derive(Clone)]
pub struct SigningKey {
    seed: Zeroizing<[u8; KEY_BYTES]>,
    encoding: EncodingKey,
    public: PublicKey,
}

impl SigningKey {
    /// The key derived from these bytes, which must be random.
    ///
    /// # Errors
    /// `internal` when the cryptographic library refuses the key; it takes every seed.
    pub fn from_seed(seed: [u8; KEY_BYTES]) -> Result<Self> {
        let seed = Zeroizing::new(seed);
        let refused =
            || Error::internal("the token key cannot be used by the cryptographic library");
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| refused())?;
        let encoding = EncodingKey::from_ed_der(pair.to_pkcs8().map_err(|_| refused())?.as_ref());
        let public = PublicKey::from_slice(pair.public_key().as_ref()).map_err(|_| refused())?;
        Ok(Self { seed, encoding, public })
    }

    /// A new key, from the operating system's randomness.
    ///
    /// # Errors
    /// `internal` when the system gives no randomness.
    pub fn generate() -> Result<Self> {
        Self::from_seed(crate::random::bytes()?)
    }

    /// Reads the seed as 64 hex digits.
    ///
    /// # Errors
    /// `invalid_argument` for another form. The message does not repeat the text.
    pub fn from_hex(text: &str) -> Result<Self> {
        let mut seed = Zeroizing::new([0_u8; KEY_BYTES]);
        let all_hex =
            text.len() == 2 * KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !all_hex || hex::decode_to_slice(text, seed.as_mut_slice()).is_err() {
            return Err(Error::invalid("the token key is not one: it takes 64 hex digits"));
        }
        Self::from_seed(*seed)
    }

    /// The seed as 64 lower-case hex digits: a secret.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.seed.as_slice()))
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn encoding_key(&self) -> &EncodingKey {
        &self.encoding
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(kid {})", self.public.kid)
    }
}

/// The public half of a signing key. Its id comes from its bytes, so that no key can take another's
/// id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kid: String,
    bytes: [u8; KEY_BYTES],
}

impl PublicKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        let mut kid = hex::encode(secret::sha256(bytes));
        kid.truncate(KID_CHARS);
        Self { kid, bytes }
    }

    /// The key with these bytes.
    ///
    /// # Errors
    /// `invalid_argument` when they are not 32.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        bytes.try_into().map(Self::from_bytes).map_err(|_| {
            Error::invalid(format!(
                "a public key of access tokens has {KEY_BYTES} bytes, this one has {}",
                bytes.len()
            ))
        })
    }

    /// The key's id: 16 hex digits, the start of the SHA-256 of its bytes.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }
}

/// The public keys that tokens are verified with.
#[derive(Clone, Default)]
pub struct PublicKeySet(BTreeMap<String, (PublicKey, DecodingKey)>);

impl PublicKeySet {
    /// Adds a key.
    pub fn insert(&mut self, key: PublicKey) {
        let decoding = DecodingKey::from_ed_der(&key.bytes);
        self.0.insert(key.kid.clone(), (key, decoding));
    }

    /// Removes a key; false if it was not in.
    pub fn remove(&mut self, kid: &str) -> bool {
        self.0.remove(kid).is_some()
    }

    /// Whether a key is in.
    pub fn contains(&self, kid: &str) -> bool {
        self.0.contains_key(kid)
    }

    /// The keys, by id.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.values().map(|(key, _)| key)
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys as a JSON Web Key Set (RFC 7517, RFC 8037).
    pub fn to_jwks(&self) -> JsonWebKeySet {
        JsonWebKeySet { keys: self.iter().map(JsonWebKey::from).collect() }
    }

    pub(super) fn decoding_key(&self, kid: &str) -> Option<&DecodingKey> {
        self.0.get(kid).map(|(_, decoding)| decoding)
    }
}

impl FromIterator<PublicKey> for PublicKeySet {
    fn from_iter<T: IntoIterator<Item = PublicKey>>(keys: T) -> Self {
        let mut set = Self::default();
        keys.into_iter().for_each(|key| set.insert(key));
        set
    }
}

impl fmt::Debug for PublicKeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A set of public keys as other programs read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JsonWebKeySet {
    /// The keys, by id.
    pub keys: Vec<JsonWebKey>,
}

/// A public key as other programs read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JsonWebKey {
    /// Always "OKP".
    pub kty: &'static str,
    /// Always "Ed25519".
    pub crv: &'static str,
    /// Always "EdDSA".
    pub alg: &'static str,
    /// Always "sig".
    #[serde(rename = "use")]
    pub usage: &'static str,
    /// The key's id.
    pub kid: String,
    /// The key's bytes, in Base64 for URLs without padding.
    pub x: String,
}

impl From<&PublicKey> for JsonWebKey {
    fn from(key: &PublicKey) -> Self {
        Self {
            kty: "OKP",
            crv: "Ed25519",
            alg: "EdDSA",
            usage: "sig",
            kid: key.kid.clone(),
            x: URL_SAFE_NO_PAD.encode(key.bytes),
        }
    }
}
