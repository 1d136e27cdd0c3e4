//! Ethereum keystore files, version 3 ("Web3 Secret Storage"): a private key under a password, as
//! geth, Foundry, ethers and others write it.
//!
//! Such a file says how much work and memory its password takes. It may come from anywhere, so its
//! numbers are compared with limits before anything is computed.

mod format;
mod kdf;

use crate::private_key::PrivateKey;
use crate::secret;
use crate::wallet::Wallet;
use aes::Aes128;
use alloy_primitives::keccak256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use debros_proto::{Code, Error, Result};
use format::{CipherParams, KeystoreCrypto, KeystoreFile};
use kdf::Kdf;
use zeroize::Zeroizing;

/// Random bytes that [`encrypt`] takes.
pub const RANDOM_BYTES: usize = 64;
/// Bytes of a file at most; a usual one has 500.
pub const MAX_FILE_BYTES: usize = 64 * 1024;

const CIPHER: &str = "aes-128-ctr";
/// Half of the derived key encrypts, the next half proves the password.
const HALF_KEY_BYTES: usize = 16;

/// The work of trying a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KdfStrength {
    /// For keys that matter: scrypt with N = 2^17, r = 8, p = 1 (128 MiB, about half a second).
    Standard,
    /// For keys of development networks: scrypt with N = 2^12, r = 8, p = 6 (4 MiB).
    Light,
}

/// Writes a key as a keystore file. `random` becomes salt, initialisation vector and file id.
///
/// # Errors
/// `internal` when the cryptographic library refuses; it takes every key and password.
pub fn encrypt(
    key: &PrivateKey,
    password: impl AsRef<[u8]>,
    strength: KdfStrength,
    random: [u8; RANDOM_BYTES],
) -> Result<String> {
    let (salt, rest) = random.split_at(32);
    let (iv, id) = rest.split_at(16);
    let kdf = Kdf::scrypt(strength, salt);
    let derived = kdf.derive_key(password.as_ref())?;
    let mut ciphertext = *key.to_bytes();
    apply_keystream(&derived, iv, &mut ciphertext)
        .ok_or_else(|| Error::internal("the key cannot be encrypted"))?;
    let file = KeystoreFile {
        address: Some(alloy_primitives::hex::encode(key.wallet().as_bytes())),
        crypto: KeystoreCrypto {
            cipher: CIPHER.to_owned(),
            cipherparams: CipherParams { iv: iv.to_vec() },
            ciphertext: ciphertext.to_vec(),
            mac: keystore_mac(&derived, &ciphertext).to_vec(),
            kdf: kdf.name().to_owned(),
            kdfparams: kdf.params(),
        },
        id: Some(format::uuid_from_bytes(id)),
        version: format::VERSION,
    };
    file.to_json()
}

/// Opens a keystore file. It takes as long as the file says, within limits, so it must not run on a
/// thread that must not block.
///
/// # Errors
/// `unauthenticated` for a wrong password; `invalid_argument` for a file that is damaged, of
/// another kind, or asks for more than 512 MiB of memory or eight times the usual work.
pub fn decrypt(json: &str, password: impl AsRef<[u8]>) -> Result<PrivateKey> {
    let file = KeystoreFile::parse(json)?;
    let crypto = &file.crypto;
    if crypto.cipher != CIPHER {
        return Err(format::damaged_file_error(format!(
            "its cipher is \"{}\", and only {CIPHER} is read",
            debros_proto::ids::excerpt(&crypto.cipher)
        )));
    }
    let mac_in_file: [u8; 32] = to_array(&crypto.mac, "mac")?;
    let iv: [u8; 16] = to_array(&crypto.cipherparams.iv, "iv")?;
    let mut bytes = Zeroizing::new(to_array::<32>(&crypto.ciphertext, "ciphertext")?);
    let derived = Kdf::from_json(&crypto.kdf, &crypto.kdfparams)?.derive_key(password.as_ref())?;
    if !secret::constant_time_eq(&keystore_mac(&derived, bytes.as_slice()), &mac_in_file) {
        return Err(Error::new(
            Code::Unauthenticated,
            "the password of the keystore file is wrong (or the file was changed: both look the same)",
        ));
    }
    apply_keystream(&derived, &iv, bytes.as_mut_slice())
        .ok_or_else(|| format::damaged_file_error("its key cannot be read"))?;
    let key = PrivateKey::from_bytes(&bytes)
        .map_err(|_| format::damaged_file_error("what it holds is no private key"))?;
    if file.wallet()?.is_some_and(|wallet| wallet != key.wallet()) {
        return Err(format::damaged_file_error("its address is not the one of the key in it"));
    }
    Ok(key)
}

/// The address that a keystore file names, read without the password; `None` if it names none. Only
/// [`decrypt`] proves it.
///
/// # Errors
/// `invalid_argument` for a file that is damaged or of another kind.
pub fn claimed_wallet(json: &str) -> Result<Option<Wallet>> {
    KeystoreFile::parse(json)?.wallet()
}

fn to_array<const N: usize>(bytes: &[u8], field: &str) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| {
        format::damaged_file_error(format!(
            "its \"{field}\" has {} bytes, and {N} are needed",
            bytes.len()
        ))
    })
}

fn apply_keystream(derived: &[u8], iv: &[u8], bytes: &mut [u8]) -> Option<()> {
    let mut cipher =
        Ctr128BE::<Aes128>::new_from_slices(derived.get(..HALF_KEY_BYTES)?, iv).ok()?;
    cipher.apply_keystream(bytes);
    Some(())
}

fn keystore_mac(derived: &[u8], ciphertext: &[u8]) -> [u8; 32] {
    let mut covered = Zeroizing::new(Vec::with_capacity(HALF_KEY_BYTES + ciphertext.len()));
    covered.extend(derived.iter().skip(HALF_KEY_BYTES).take(HALF_KEY_BYTES));
    covered.extend_from_slice(ciphertext);
    keccak256(&*covered).0
}

#[cfg(test)]
mod tests;
