//! Private keys, for programs that own a wallet: the command line and tests. A node never has one.

use crate::wallet::Wallet;
use alloy_primitives::{Address, Signature, eip191_hash_message, hex};
use debros_proto::{Error, Result};
use k256::ecdsa::SigningKey;
use std::fmt;
use zeroize::Zeroizing;

/// The private key of a wallet (secp256k1). Its memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// The key with these bytes, which must be random.
    ///
    /// # Errors
    /// `invalid_argument` when the bytes are no key: zero, or not below the order of the curve. Of
    /// random bytes one in 2^127 is none.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self> {
        SigningKey::from_slice(bytes).map(Self).map_err(|_| {
            Error::invalid("the private key is not one: its number is zero or not below the order of secp256k1")
        })
    }

    /// A new key, from the operating system's randomness.
    ///
    /// # Errors
    /// `internal` when the system gives no randomness.
    pub fn generate() -> Result<Self> {
        let bytes = Zeroizing::new(crate::random::bytes()?);
        Self::from_bytes(&bytes)
    }

    /// Reads 64 hex digits, `0x` or not.
    ///
    /// # Errors
    /// `invalid_argument` for another form. The message does not repeat the text.
    pub fn from_hex(text: &str) -> Result<Self> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = Zeroizing::new([0_u8; 32]);
        let all_hex = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !all_hex || hex::decode_to_slice(digits, bytes.as_mut_slice()).is_err() {
            return Err(Error::invalid(
                "the private key is not one: use 64 hex digits, with or without 0x",
            ));
        }
        Self::from_bytes(&bytes)
    }

    /// The key as 64 lower-case hex digits: a secret.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.to_bytes().as_slice()))
    }

    /// The key's bytes: a secret.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    /// The address that belongs to the key.
    pub fn wallet(&self) -> Wallet {
        Address::from_private_key(&self.0).into()
    }

    /// Signs a text as wallets do (`personal_sign`, EIP-191): `0x` and the hex of `r||s||v`, with
    /// `v` 27 or 28. The same text always gets the same signature (RFC 6979).
    pub fn sign_personal(&self, message: &str) -> String {
        let digest = eip191_hash_message(message);
        let signed = self.0.sign_prehash_recoverable(digest.as_slice());
        // Fails only for digests shorter than half the curve's order; this one has 32 bytes.
        let signature = Signature::from(signed.expect("a 32-byte digest can be signed"));
        signature.to_string()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.wallet())
    }
}

#[cfg(test)]
mod tests;
