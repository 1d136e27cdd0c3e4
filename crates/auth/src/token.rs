//! Access tokens: JWTs, signed with Ed25519 by the node that issues them, verified by every node.
//!
//! The header names the key, never the algorithm's rules: only the header that [`issue`] writes is
//! accepted, so `none`, HMAC with the public key, embedded keys and critical extensions are all
//! refused.

mod claims;
mod keys;

pub use claims::{Claims, TokenCredential};
pub use keys::{JsonWebKey, JsonWebKeySet, KEY_BYTES, PublicKey, PublicKeySet, SigningKey};

use claims::JwtClaims;
use debros_proto::limits::MAX_CREDENTIAL_BYTES;
use debros_proto::{Code, Error, Result};
use jsonwebtoken::{Algorithm, Header, Validation};
use std::sync::LazyLock;

/// How long an access token is valid, in milliseconds.
pub const LIFETIME_MS: i64 = 15 * 60 * 1000;
/// How far ahead of this clock the issuer's may be, in milliseconds.
pub const MAX_AHEAD_MS: i64 = 30 * 1000;
/// Issuer and audience of every access token.
pub const ISSUER: &str = "debros";

/// The library checks the signature alone. The claims are checked here, against the clock that was
/// passed in.
static SIGNATURE_ALONE: LazyLock<Validation> = LazyLock::new(|| {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
});

/// Signs a token.
///
/// # Errors
/// `internal` when the cryptographic library refuses to sign.
pub fn issue(key: &SigningKey, claims: &Claims) -> Result<String> {
    let header = expected_header(key.public_key().kid());
    jsonwebtoken::encode(&header, &JwtClaims::from(claims), key.encoding_key())
        .map_err(|_| Error::internal("the access token could not be signed"))
}

/// The claims of a token that one of `keys` signed and that is valid at `now` (milliseconds since
/// the Unix epoch).
///
/// # Errors
/// `credential_expired` for a token that has expired and is valid otherwise; for every other reason
/// `unauthenticated`, with one sentence.
pub fn verify(token: &str, keys: &PublicKeySet, now: i64) -> Result<Claims> {
    let claims = decode_verified(token, keys, now).ok_or_else(|| {
        Error::new(
            Code::Unauthenticated,
            "the access token is not valid: it is damaged, or signed by a key that is not in use; refresh it or sign in \
             again",
        )
    })?;
    if now >= claims.expires_at { Err(expired_error()) } else { Ok(claims) }
}

/// The error for a token that has expired.
pub fn expired_error() -> Error {
    Error::new(Code::CredentialExpired, "the access token has expired: refresh it or sign in again")
}

/// Whether a credential has the form of an access token, and not that of a key. Cheap, and says
/// nothing about validity.
pub fn is_token(credential: &str) -> bool {
    // The start of every JSON object in Base64.
    credential.starts_with("ey") && credential.bytes().filter(|byte| *byte == b'.').count() == 2
}

fn decode_verified(token: &str, keys: &PublicKeySet, now: i64) -> Option<Claims> {
    if token.len() > MAX_CREDENTIAL_BYTES {
        return None;
    }
    let mut found = jsonwebtoken::decode_header(token).ok()?;
    let kid = found.kid.clone()?;
    let key = keys.decoding_key(&kid)?;
    let expected = expected_header(&kid);
    // RFC 7519 lets `typ` be left out.
    if found.typ.is_none() {
        found.typ.clone_from(&expected.typ);
    }
    if found != expected {
        return None;
    }
    let wire = jsonwebtoken::decode::<JwtClaims>(token, key, &SIGNATURE_ALONE).ok()?.claims;
    wire.into_claims(now)
}

fn expected_header(kid: &str) -> Header {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(kid.to_owned());
    header
}

#[cfg(test)]
mod tests;
