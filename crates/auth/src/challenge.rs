//! The text that a wallet signs to sign in: a nonce for one wallet, namespace and site, in an
//! EIP-4361 message.
//!
//! A challenge is not stored. Its nonce carries the time and its own proof: the MAC of everything
//! that the challenge is for, under a key that every node of the network has. So any number of
//! challenges costs the database nothing; only the use of a proven nonce is recorded, by
//! [`Challenge::nonce_hash`], once.

mod message;
mod terms;

pub use terms::{DEFAULT_CHAIN_ID, P2P_DOMAIN, P2P_URI, SignInTerms};

use crate::secret::{self, Secret};
use crate::signature::{self, RecoveredSigner};
use alloy_primitives::hex;
use debros_proto::{Code, Error, Result};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt;
use zeroize::Zeroizing;

/// How long a challenge is valid, in milliseconds.
pub const LIFETIME_MS: i64 = 5 * 60 * 1000;
/// How far ahead of this clock another node's may be, in milliseconds.
pub const MAX_AHEAD_MS: i64 = 60 * 1000;
/// Random bytes that [`issue`] takes.
pub const RANDOM_BYTES: usize = 11;

const TIME_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = TIME_BYTES + RANDOM_BYTES + TAG_BYTES;
/// The prefix of what the MAC covers: another use of the same key, or another format, has another
/// prefix.
const PURPOSE: &[u8] = b"debros challenge 1";
const REFRESH_PURPOSE: &[u8] = b"debros refresh 1";

/// The key that makes nonces, and refresh tokens from their predecessors. Its holder can make
/// nonces, but no signatures.
#[derive(Clone)]
pub struct ChallengeKey(Zeroizing<[u8; 32]>);

impl ChallengeKey {
    /// The key with these bytes, which must be random and the same on every node of a network.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The successor of this refresh token: always the same, so that a repeated request gets the
    /// same answer although no token is stored. Only a node can compute it, and only from the token
    /// itself, never from its hash.
    pub fn next_refresh_token(&self, presented: &str) -> Secret {
        secret::refresh_token(
            mac_over_fields(self, &[REFRESH_PURPOSE, presented.as_bytes()])
                .finalize()
                .into_bytes()
                .into(),
        )
    }
}

impl fmt::Debug for ChallengeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChallengeKey(…)")
    }
}

/// A challenge: issued by this network, for these terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The terms that it is for.
    pub terms: SignInTerms,
    /// 64 lower-case hex digits (256 bits).
    pub nonce: String,
    /// Milliseconds since the Unix epoch, at a whole second.
    pub issued_at: i64,
    /// Milliseconds since the Unix epoch, [`LIFETIME_MS`] later.
    pub expires_at: i64,
    /// The text to sign (EIP-4361).
    pub message: String,
}

impl Challenge {
    /// Succeeds if the wallet of the terms signed the message, or the bare nonce.
    ///
    /// # Errors
    /// `invalid_argument` for a signature of another form, `unauthenticated` for one of another
    /// wallet or text.
    pub fn verify_signature(&self, signature: &str) -> Result<RecoveredSigner> {
        signature::verify_any(self.terms.wallet(), &[&self.message, &self.nonce], signature)
    }

    /// The record of a used nonce: SHA-256 of its 64 characters.
    pub fn nonce_hash(&self) -> [u8; 32] {
        secret::sha256(&self.nonce)
    }
}

/// Makes a challenge. `now` in milliseconds since the Unix epoch.
///
/// # Errors
/// `internal` when the clock is before 1970 or after 9999.
pub fn issue(
    key: &ChallengeKey,
    terms: &SignInTerms,
    now: i64,
    random: [u8; RANDOM_BYTES],
) -> Result<Challenge> {
    let seconds = now.div_euclid(1000);
    let wrong_clock = || Error::internal("the node's clock is not set: no challenge can be made");
    let time = u64::try_from(seconds).map_err(|_| wrong_clock())?.to_be_bytes();
    let [0, 0, 0, time @ ..] = time else { return Err(wrong_clock()) };
    let tag = challenge_mac(key, terms, &time, &random).finalize().into_bytes();
    let mut nonce = [0_u8; NONCE_BYTES];
    nonce[..TIME_BYTES].copy_from_slice(&time);
    nonce[TIME_BYTES..TIME_BYTES + RANDOM_BYTES].copy_from_slice(&random);
    nonce[TIME_BYTES + RANDOM_BYTES..].copy_from_slice(&tag[..TAG_BYTES]);
    build_challenge(terms, hex::encode(nonce), seconds).ok_or_else(wrong_clock)
}

/// The text that a challenge with this nonce and issue time (milliseconds since the Unix epoch)
/// asks a wallet to sign, for a program that signs only texts of its own. `None` if the nonce is
/// not 64 lower-case hex digits, or the time is outside of the years 1970 to 9999.
pub fn message(terms: &SignInTerms, nonce: &str, issued_at: i64) -> Option<String> {
    // A nonce holds no time below or above these.
    let seconds = Some(issued_at.div_euclid(1000))
        .filter(|seconds| (0..1 << (8 * TIME_BYTES)).contains(seconds))?;
    is_well_formed(nonce)
        .then(|| build_challenge(terms, nonce.to_owned(), seconds))?
        .map(|challenge| challenge.message)
}

/// Succeeds if this network made the nonce for these terms and it is neither too old nor from the
/// future. Whether it was used before is not known here. `now` in milliseconds since the Unix
/// epoch.
///
/// # Errors
/// `invalid_argument` when the nonce is not 64 lower-case hex digits, else `unauthenticated`.
pub fn check(key: &ChallengeKey, terms: &SignInTerms, nonce: &str, now: i64) -> Result<Challenge> {
    let mut bytes = [0_u8; NONCE_BYTES];
    if !is_well_formed(nonce) || hex::decode_to_slice(nonce, &mut bytes).is_err() {
        return Err(Error::invalid(format!(
            "the nonce is not one: it has {} lower-case hex digits, as the challenge gave them",
            2 * NONCE_BYTES
        )));
    }
    let (made_of, tag) = bytes.split_at(TIME_BYTES + RANDOM_BYTES);
    let (time, random) = made_of.split_at(TIME_BYTES);
    // In constant time.
    challenge_mac(key, terms, time, random)
        .verify_truncated_left(tag)
        .map_err(|_| invalid_nonce_error())?;
    let seconds = time.iter().fold(0_i64, |seconds, byte| seconds << 8 | i64::from(*byte));
    let challenge =
        build_challenge(terms, nonce.to_owned(), seconds).ok_or_else(invalid_nonce_error)?;
    if now >= challenge.expires_at || challenge.issued_at > now.saturating_add(MAX_AHEAD_MS) {
        return Err(invalid_nonce_error());
    }
    Ok(challenge)
}

/// One sentence for every reason, so that nobody learns which nonces exist. Also for a nonce that
/// was used before.
pub fn invalid_nonce_error() -> Error {
    Error::new(
        Code::Unauthenticated,
        "the nonce is not valid for this wallet and namespace: it is unknown, used or older than 5 minutes; ask for a \
         new challenge",
    )
}

fn is_well_formed(nonce: &str) -> bool {
    nonce.len() == 2 * NONCE_BYTES
        && nonce.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn build_challenge(terms: &SignInTerms, nonce: String, seconds: i64) -> Option<Challenge> {
    let issued_at = seconds * 1000;
    let expires_at = issued_at + LIFETIME_MS;
    let message = message::sign_in_text(terms, &nonce, issued_at, expires_at)?;
    Some(Challenge { terms: terms.clone(), nonce, issued_at, expires_at, message })
}

fn challenge_mac(
    key: &ChallengeKey,
    terms: &SignInTerms,
    time: &[u8],
    random: &[u8],
) -> Hmac<Sha256> {
    let chain_id = terms.chain_id().to_be_bytes();
    let fields: [&[u8]; 8] = [
        PURPOSE,
        terms.wallet_bytes(),
        terms.namespace().as_str().as_bytes(),
        terms.domain().as_bytes(),
        terms.uri().as_bytes(),
        &chain_id,
        time,
        random,
    ];
    mac_over_fields(key, &fields)
}

/// Every field stands behind its length, so that no two sets of fields give the same bytes.
fn mac_over_fields(key: &ChallengeKey, fields: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.0.as_slice()).expect("HMAC takes a key of any length");
    for field in fields {
        mac.update(&(field.len() as u64).to_be_bytes());
        mac.update(field);
    }
    mac
}

#[cfg(test)]
mod tests;
