//! From the password to the key that encrypts, with limits on what a file may ask for.

use super::KdfStrength;
use super::format::damaged_file_error;
use alloy_primitives::hex;
use debros_proto::ids::excerpt;
use debros_proto::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Twice what geth's files need.
const MAX_SCRYPT_MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// N·r·p; eight times what geth's files need.
const MAX_SCRYPT_WORK: u64 = 1 << 24;
/// Nearly forty times what geth's files need.
const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;
/// The cipher takes 16 bytes and the proof of the password 16 more.
const DERIVED_BYTES: std::ops::RangeInclusive<u64> = 32..=128;
const MAX_SALT_BYTES: usize = 1024;

/// A key derivation function and its parameters, within the limits.
pub(super) enum Kdf {
    Scrypt { log_n: u8, r: u32, p: u32, bytes: usize, salt: Vec<u8> },
    Pbkdf2 { rounds: u32, bytes: usize, salt: Vec<u8> },
}

#[derive(Deserialize)]
struct ScryptParams {
    n: u64,
    r: u32,
    p: u32,
    dklen: u64,
    salt: String,
}

#[derive(Deserialize)]
struct Pbkdf2Params {
    c: u32,
    prf: String,
    dklen: u64,
    salt: String,
}

impl Kdf {
    pub(super) fn scrypt(strength: KdfStrength, salt: &[u8]) -> Self {
        let (log_n, r, p) = match strength {
            KdfStrength::Standard => (17, 8, 1),
            KdfStrength::Light => (12, 8, 6),
        };
        Self::Scrypt { log_n, r, p, bytes: 32, salt: salt.to_vec() }
    }

    pub(super) fn from_json(name: &str, params: &Value) -> Result<Self> {
        match name {
            "scrypt" => Self::from_scrypt_params(parse_params(params)?),
            "pbkdf2" => Self::from_pbkdf2_params(parse_params(params)?),
            other => Err(damaged_file_error(format!(
                "its key derivation function is \"{}\", and only scrypt and pbkdf2 are read",
                excerpt(other)
            ))),
        }
    }

    fn from_scrypt_params(params: ScryptParams) -> Result<Self> {
        let ScryptParams { n, r, p, dklen, salt } = params;
        if n < 2 || !n.is_power_of_two() || r == 0 || p == 0 {
            return Err(damaged_file_error(format!(
                "its scrypt parameters n={n} r={r} p={p} are not valid"
            )));
        }
        let block = n.saturating_mul(r.into());
        let memory = block.saturating_mul(128);
        if memory > MAX_SCRYPT_MEMORY_BYTES || block.saturating_mul(p.into()) > MAX_SCRYPT_WORK {
            return Err(damaged_file_error(format!(
                "its scrypt parameters n={n} r={r} p={p} ask for {} MiB of memory and {} times the usual work; at most \
                 {} MiB and 8 times are spent",
                memory >> 20,
                block.saturating_mul(p.into()).saturating_mul(8) / MAX_SCRYPT_WORK,
                MAX_SCRYPT_MEMORY_BYTES >> 20
            )));
        }
        // Below 64: n is a power of two in 64 bits.
        let log_n = n.trailing_zeros() as u8;
        Ok(Self::Scrypt { log_n, r, p, bytes: derived_bytes(dklen)?, salt: read_salt(&salt)? })
    }

    fn from_pbkdf2_params(params: Pbkdf2Params) -> Result<Self> {
        let Pbkdf2Params { c: rounds, prf, dklen, salt } = params;
        if prf != "hmac-sha256" {
            return Err(damaged_file_error(format!(
                "its pbkdf2 uses \"{}\", and only hmac-sha256 is read",
                excerpt(&prf)
            )));
        }
        if rounds == 0 || rounds > MAX_PBKDF2_ROUNDS {
            return Err(damaged_file_error(format!(
                "its pbkdf2 asks for {rounds} rounds; 1 to {MAX_PBKDF2_ROUNDS} are computed"
            )));
        }
        Ok(Self::Pbkdf2 { rounds, bytes: derived_bytes(dklen)?, salt: read_salt(&salt)? })
    }

    pub(super) fn derive_key(&self, password: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Scrypt { log_n, r, p, bytes, salt } => {
                let refused = || Error::internal("scrypt refuses its parameters");
                let params = scrypt::Params::new(*log_n, *r, *p).map_err(|_| refused())?;
                let mut derived = Zeroizing::new(vec![0; *bytes]);
                scrypt::scrypt(password, salt, &params, &mut derived).map_err(|_| refused())?;
                Ok(derived)
            }
            Self::Pbkdf2 { rounds, bytes, salt } => {
                let mut derived = Zeroizing::new(vec![0; *bytes]);
                pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, *rounds, &mut derived);
                Ok(derived)
            }
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Scrypt { .. } => "scrypt",
            Self::Pbkdf2 { .. } => "pbkdf2",
        }
    }

    pub(super) fn params(&self) -> Value {
        match self {
            Self::Scrypt { log_n, r, p, bytes, salt } => {
                json!({ "n": 1_u64 << log_n, "r": r, "p": p, "dklen": bytes, "salt": hex::encode(salt) })
            }
            Self::Pbkdf2 { rounds, bytes, salt } => {
                json!({ "c": rounds, "prf": "hmac-sha256", "dklen": bytes, "salt": hex::encode(salt) })
            }
        }
    }
}

fn parse_params<T: DeserializeOwned>(params: &Value) -> Result<T> {
    T::deserialize(params)
        .map_err(|error| damaged_file_error(format!("its \"kdfparams\" cannot be read: {error}")))
}

fn derived_bytes(dklen: u64) -> Result<usize> {
    let fits = DERIVED_BYTES.contains(&dklen).then(|| usize::try_from(dklen).ok()).flatten();
    fits.ok_or_else(|| {
        damaged_file_error(format!("its \"dklen\" is {dklen}: it has to be 32 to 128"))
    })
}

fn read_salt(text: &str) -> Result<Vec<u8>> {
    if text.len() > 2 * MAX_SALT_BYTES {
        return Err(damaged_file_error(format!("its salt has more than {MAX_SALT_BYTES} bytes")));
    }
    hex::decode(text).map_err(|_| damaged_file_error("its salt is not hexadecimal"))
}
