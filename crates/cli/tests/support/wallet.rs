//! Wallets that sign in tests: their keys, their keystore files, and their sign-in over HTTP.

use super::http::{Answer, Http};
use debros_auth::PrivateKey;
use debros_auth::keystore::{self, KdfStrength, RANDOM_BYTES};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

pub const PASSWORD: &str = "correct horse battery staple";

/// A wallet with the same key in every run.
pub struct Wallet {
    pub key: PrivateKey,
    /// In lower case.
    pub address: String,
}

impl Wallet {
    /// The wallet with this number, from 1.
    pub fn numbered(number: u8) -> Self {
        let key = PrivateKey::from_bytes(&[number; 32]).expect("a key");
        let address = key.wallet().to_string();
        Self { key, address }
    }

    /// Writes a keystore file and one with its password, which cost little to open.
    pub fn keystore(&self, folder: &Path) -> Keystore {
        let text = keystore::encrypt(&self.key, PASSWORD, KdfStrength::Light, [7; RANDOM_BYTES])
            .expect("a keystore");
        let keystore = Keystore {
            file: folder.join(format!("{}.json", self.address)),
            password_file: folder.join("password"),
        };
        write_private(&keystore.file, &text);
        write_private(&keystore.password_file, &format!("{PASSWORD}\n"));
        keystore
    }

    /// The body of a request that carries the wallet's proof.
    pub async fn proof(&self, http: &Http, namespace: &str) -> Value {
        let challenge = http
            .public(
                "/v1/auth/challenge",
                &json!({ "wallet": self.address, "namespace": namespace }),
            )
            .await;
        let challenge = challenge.ok().json();
        let signature = self.key.sign_personal(challenge["message"].as_str().expect("a message"));
        json!({ "wallet": self.address, "nonce": challenge["nonce"], "signature": signature, "namespace": namespace })
    }

    /// Signs in over HTTP: whatever `verify` answers.
    pub async fn verify(&self, http: &Http, namespace: &str) -> Answer {
        let proof = self.proof(http, namespace).await;
        http.public("/v1/auth/verify", &proof).await
    }

    /// A caller with a session of the wallet, which must be allowed in.
    pub async fn signed_in(&self, http: &Http, namespace: &str) -> Http {
        let session = self.verify(http, namespace).await.ok().json();
        http.with_key(session["access_token"].as_str().expect("a token"))
    }
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).expect("write");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
}

/// A keystore file.
pub struct Keystore {
    pub file: PathBuf,
    pub password_file: PathBuf,
}

impl Keystore {
    /// The options that name it.
    pub fn options(&self) -> [&str; 4] {
        let (file, password_file) = (self.file.to_str(), self.password_file.to_str());
        ["--keystore", file.expect("UTF-8"), "--password-file", password_file.expect("UTF-8")]
    }
}
