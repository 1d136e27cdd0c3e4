//! API keys and refresh tokens: their forms, and the hashes that are stored in their place.
//!
//! Each has at least 192 random bits, so a plain SHA-256 is enough: there is nothing to guess.

use alloy_primitives::hex;
use debros_proto::Namespace;
use sha2::{Digest as _, Sha256};
use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Random bytes of an API key.
pub const API_KEY_BYTES: usize = 24;
/// Random bytes of a refresh token.
pub const REFRESH_TOKEN_BYTES: usize = 32;
/// Random bytes of an [`new_id`].
pub const ID_BYTES: usize = 8;
/// How long a refresh token is valid, in milliseconds.
pub const REFRESH_TOKEN_LIFETIME_MS: i64 = 30 * 24 * 60 * 60 * 1000;

const API_KEY: &str = "ak_";
const REFRESH_TOKEN: &str = "rt_";
/// Characters of a secret that are shown to recognise it.
const PREFIX_CHARS: usize = 11;

/// A secret on its way to its owner, which receives it once. Its memory is overwritten when it is
/// dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The hash that is stored in its place.
    pub fn hash(&self) -> [u8; 32] {
        sha256(self.expose())
    }

    /// Its first characters, for people to recognise it.
    pub fn prefix(&self) -> &str {
        self.0.get(..PREFIX_CHARS).unwrap_or_default()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}…)", self.prefix())
    }
}

/// An API key: `ak_`, 48 hex digits, `:` and its namespace.
pub fn api_key(random: [u8; API_KEY_BYTES], namespace: &Namespace) -> Secret {
    let random = Zeroizing::new(random);
    let digits = Zeroizing::new(hex::encode(random.as_slice()));
    Secret(Zeroizing::new(format!("{API_KEY}{}:{namespace}", *digits)))
}

/// The namespace that an API key names, if the text has an API key's form. Whether the key exists
/// is not known here.
pub fn api_key_namespace(text: &str) -> Option<Namespace> {
    let (digits, namespace) = text.strip_prefix(API_KEY)?.split_once(':')?;
    is_hex(digits, API_KEY_BYTES).then(|| Namespace::new(namespace).ok())?
}

/// A refresh token: `rt_` and 64 hex digits.
pub fn refresh_token(random: [u8; REFRESH_TOKEN_BYTES]) -> Secret {
    let random = Zeroizing::new(random);
    let digits = Zeroizing::new(hex::encode(random.as_slice()));
    Secret(Zeroizing::new(format!("{REFRESH_TOKEN}{}", *digits)))
}

/// Whether the text has a refresh token's form. Whether the token exists is not known here.
pub fn is_refresh_token(text: &str) -> bool {
    text.strip_prefix(REFRESH_TOKEN).is_some_and(|digits| is_hex(digits, REFRESH_TOKEN_BYTES))
}

/// An id for something that is stored: `kind`, `_` and 16 hex digits. No secret.
pub fn new_id(kind: &str, random: [u8; ID_BYTES]) -> String {
    format!("{kind}_{}", hex::encode(random))
}

/// SHA-256.
pub fn sha256(bytes: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(bytes.as_ref()).into()
}

/// Whether two hashes are the same, in constant time.
pub fn constant_time_eq(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.ct_eq(right).into()
}

fn is_hex(digits: &str, bytes: usize) -> bool {
    digits.len() == 2 * bytes
        && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests;
