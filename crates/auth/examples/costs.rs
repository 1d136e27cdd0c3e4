//! What one operation costs on one core, in microseconds: `cargo run --release -p debros-auth
//! --example costs`.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use debros_auth::challenge::{self, ChallengeKey, SignInTerms};
use debros_auth::token::{self, Claims, PublicKeySet, SigningKey, TokenCredential};
use debros_auth::{PrivateKey, Wallet, secret};
use debros_proto::{Namespace, Result, now_ms};
use std::hint::black_box;
use std::time::Instant;

fn main() -> Result<()> {
    let now = now_ms();
    let namespace = Namespace::new("shop")?;
    let owner = PrivateKey::generate()?;
    let key = ChallengeKey::new([1; 32]);
    let terms = SignInTerms::p2p(owner.wallet(), namespace.clone());
    let challenge = challenge::issue(&key, &terms, now, [2; 11])?;
    let over_message = owner.sign_personal(&challenge.message);
    let over_nonce = owner.sign_personal(&challenge.nonce);
    let checksummed = owner.wallet().checksummed();

    let signing = SigningKey::generate()?;
    let keys: PublicKeySet = [signing.public_key().clone()].into_iter().collect();
    let session = TokenCredential::Session("ses_0123456789abcdef".into());
    let claims =
        Claims::new(owner.wallet().to_string(), namespace.clone(), session, "jti".into(), now);
    let token = token::issue(&signing, &claims)?;
    let api_key = secret::api_key([3; 24], &namespace);

    measure("wallet: read, with checksum", || Wallet::parse(&checksummed));
    measure("challenge: issue", || challenge::issue(&key, &terms, now, [2; 11]));
    measure("challenge: check the nonce", || challenge::check(&key, &terms, &challenge.nonce, now));
    measure("challenge: prove, message signed", || challenge.verify_signature(&over_message));
    measure("challenge: prove, bare nonce signed", || challenge.verify_signature(&over_nonce));
    measure("wallet: sign a text", || owner.sign_personal(&challenge.message));
    measure("token: issue", || token::issue(&signing, &claims));
    measure("token: verify", || token::verify(&token, &keys, now));
    measure("token: refuse, expired", || token::verify(&token, &keys, now + token::LIFETIME_MS));
    measure("token: refuse, unknown key", || token::verify(&token, &PublicKeySet::default(), now));
    measure("secret: SHA-256 of a token", || secret::sha256(&token));
    measure("secret: SHA-256 of an API key", || secret::sha256(api_key.expose()));
    Ok(())
}

/// The least of 50 runs: other work on the machine only ever adds.
fn measure<T>(name: &str, mut operation: impl FnMut() -> T) {
    const PER_RUN: u32 = 20;
    let least = (0..50)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..PER_RUN {
                black_box(operation());
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(PER_RUN)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{name:<36} {least:>8.2} µs");
}
