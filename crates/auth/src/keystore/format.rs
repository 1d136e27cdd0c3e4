//! The file as JSON.

use super::MAX_FILE_BYTES;
use crate::wallet::Wallet;
use alloy_primitives::hex;
use debros_proto::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub(super) const VERSION: u32 = 3;

#[derive(Serialize, Deserialize)]
pub(super) struct KeystoreFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    // Early files write it with a capital letter.
    #[serde(alias = "Crypto")]
    pub(super) crypto: KeystoreCrypto,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    pub(super) version: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct KeystoreCrypto {
    pub(super) cipher: String,
    pub(super) cipherparams: CipherParams,
    #[serde(with = "hex_text")]
    pub(super) ciphertext: Vec<u8>,
    pub(super) kdf: String,
    pub(super) kdfparams: serde_json::Value,
    #[serde(with = "hex_text")]
    pub(super) mac: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct CipherParams {
    #[serde(with = "hex_text")]
    pub(super) iv: Vec<u8>,
}

impl KeystoreFile {
    pub(super) fn parse(json: &str) -> Result<Self> {
        if json.len() > MAX_FILE_BYTES {
            return Err(damaged_file_error(format!("it has more than {MAX_FILE_BYTES} bytes")));
        }
        let file: Self = serde_json::from_str(json).map_err(|error| parse_error(&error))?;
        if file.version != VERSION {
            return Err(damaged_file_error(format!(
                "its version is {}, and only version {VERSION} is read",
                file.version
            )));
        }
        Ok(file)
    }

    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|_| Error::internal("the keystore file cannot be written"))
    }

    /// Some programs omit the address, or leave it empty, so that the file does not reveal it.
    pub(super) fn wallet(&self) -> Result<Option<Wallet>> {
        match self.address.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => Wallet::parse(text)
                .map(Some)
                .map_err(|_| damaged_file_error("its address is not one")),
        }
    }
}

/// The error and its position. If the parser's words repeat a piece of the file, the position
/// alone: the piece may be of another secret that was named by mistake.
fn parse_error(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    if ["invalid type", "invalid value", "unknown "].iter().any(|start| text.starts_with(start)) {
        let (line, column) = (error.line(), error.column());
        return damaged_file_error(format!(
            "at line {line}, column {column} it is not what a keystore file of version 3 holds"
        ));
    }
    damaged_file_error(text)
}

pub(super) fn damaged_file_error(what: impl AsRef<str>) -> Error {
    Error::invalid(format!("the keystore file cannot be used: {}", what.as_ref()))
}

/// A random UUID (version 4, RFC 9562) of 16 random bytes.
pub(super) fn uuid_from_bytes(random: &[u8]) -> String {
    let mut digits = hex::encode(random);
    digits.replace_range(12..13, "4");
    let variant = ["8", "9", "a", "b"][usize::from(random.get(8).copied().unwrap_or_default() & 3)];
    digits.replace_range(16..17, variant);
    let parts =
        [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| digits.get(range).unwrap_or_default());
    parts.join("-")
}

mod hex_text {
    use super::{Deserialize as _, Deserializer, Serializer, de, hex};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map_err(|_| de::Error::custom("a field is not hexadecimal"))
    }
}
