//! From a signature to the wallet that made it (`personal_sign`, EIP-191).
//!
//! Only one form of a signature is accepted. For each signature (r, s) there is a second valid one
//! (r, n - s), and wallets make the one with the low s; accepting both would give one proof two
//! names.

use crate::wallet::Wallet;
use alloy_primitives::{Address, Signature, hex};
use debros_proto::{Code, Error, Result};

/// Bytes of a signature: r (32), s (32), v (1).
pub const SIGNATURE_BYTES: usize = 65;

/// The signer of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredSigner {
    /// The address.
    pub wallet: Wallet,
    /// The public key: 0x04, then x and y with 32 bytes each.
    pub public_key: [u8; 65],
}

impl RecoveredSigner {
    /// The public key as `0x` and 130 hex digits.
    pub fn public_key_hex(&self) -> String {
        hex::encode_prefixed(self.public_key)
    }
}

/// The wallet that signed `message`. Any well-formed signature belongs to some wallet: compare it,
/// or use [`verify`].
///
/// # Errors
/// `invalid_argument` for a signature that is not of the form above, `unauthenticated` for one that
/// no key can have made.
pub fn recover(message: &str, signature: &str) -> Result<RecoveredSigner> {
    recover_parsed(message, &parse(signature)?)
}

/// Succeeds if `wallet` signed `message`.
///
/// # Errors
/// `invalid_argument` for a signature of another form, `unauthenticated` for one of another wallet
/// or text.
pub fn verify(wallet: Wallet, message: &str, signature: &str) -> Result<RecoveredSigner> {
    verify_any(wallet, &[message], signature)
}

/// Succeeds if `wallet` signed one of `messages`.
///
/// # Errors
/// As for [`verify`].
pub(crate) fn verify_any(
    wallet: Wallet,
    messages: &[&str],
    signature: &str,
) -> Result<RecoveredSigner> {
    let signature = parse(signature)?;
    messages
        .iter()
        .filter_map(|message| recover_parsed(message, &signature).ok())
        .find(|signer| signer.wallet == wallet)
        .ok_or_else(wrong_signer_error)
}

fn recover_parsed(message: &str, signature: &Signature) -> Result<RecoveredSigner> {
    let key = signature.recover_from_msg(message).map_err(|_| wrong_signer_error())?;
    let point = key.to_encoded_point(false);
    let public_key = point.as_bytes().try_into().map_err(|_| wrong_signer_error())?;
    Ok(RecoveredSigner { wallet: Address::from_public_key(&key).into(), public_key })
}

fn parse(text: &str) -> Result<Signature> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.len() != 2 * SIGNATURE_BYTES {
        return Err(Error::invalid(format!(
            "the signature has {} characters: it takes {} hex digits ({SIGNATURE_BYTES} bytes, r, s and v), with or without 0x",
            digits.chars().count(),
            2 * SIGNATURE_BYTES
        )));
    }
    let mut bytes = [0_u8; SIGNATURE_BYTES];
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        || hex::decode_to_slice(digits, &mut bytes).is_err()
    {
        return Err(Error::invalid("the signature is not hexadecimal"));
    }
    let [scalars @ .., v] = &bytes;
    // The library reads the v of old transactions (35 and above) as well; a personal signature has
    // none of these.
    let odd = match v {
        0 | 27 => false,
        1 | 28 => true,
        other => {
            return Err(Error::invalid(format!(
                "the signature's last byte (v) is {other}: it has to be 0, 1, 27 or 28"
            )));
        }
    };
    let signature = Signature::from_bytes_and_parity(scalars, odd);
    if signature.to_k256().is_err() {
        return Err(Error::invalid(
            "the signature's r or s is zero or not below the order of secp256k1",
        ));
    }
    // The library would silently take the other form.
    if signature.normalize_s().is_some() {
        return Err(Error::invalid(
            "the signature's s is in the upper half of its range: only the low form is accepted (EIP-2)",
        ));
    }
    Ok(signature)
}

fn wrong_signer_error() -> Error {
    Error::new(
        Code::Unauthenticated,
        "the signature is not this wallet's for the text it was asked to sign: sign the challenge's message with the \
         wallet that the challenge was made for",
    )
}

#[cfg(test)]
mod tests;
