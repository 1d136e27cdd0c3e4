//! Ethereum addresses.

use alloy_primitives::{Address, hex};
use debros_proto::ids::excerpt;
use debros_proto::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// An Ethereum address. Shown and stored as `0x` and 40 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wallet([u8; 20]);

impl Wallet {
    /// The address with these bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The address's bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Reads an address: 40 hex digits, `0x` or not. Digits in mixed case carry a checksum
    /// (EIP-55), which must be right.
    ///
    /// # Errors
    /// `invalid_argument` for another form, or for a wrong checksum.
    pub fn parse(text: &str) -> Result<Self> {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        let mut bytes = [0_u8; 20];
        let all_hex = digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !all_hex || hex::decode_to_slice(digits, &mut bytes).is_err() {
            return Err(Error::invalid(format!(
                "\"{}\" is not a wallet: use the 40 hex digits of an Ethereum address, with or without 0x",
                excerpt(text)
            )));
        }
        let wallet = Self(bytes);
        let mixed = digits.bytes().any(|byte| byte.is_ascii_lowercase())
            && digits.bytes().any(|byte| byte.is_ascii_uppercase());
        if mixed && !wallet.checksummed().ends_with(digits) {
            return Err(Error::invalid(format!(
                "the wallet \"{}\" is mistyped: its checksum (the upper and lower case of its letters, EIP-55) is wrong. \
                 Copy it again; all letters in lower case are read without a checksum",
                excerpt(text)
            )));
        }
        Ok(wallet)
    }

    /// The address with its checksum in the case of its letters (EIP-55), as wallets show it.
    pub fn checksummed(&self) -> String {
        Address::from(self.0).to_checksum(None)
    }
}

impl FromStr for Wallet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_prefixed(self.0))
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Address> for Wallet {
    fn from(address: Address) -> Self {
        Self(address.into_array())
    }
}

#[cfg(test)]
mod tests;
