//! What a check costs.

use super::{AuthDb, CredentialVerifier};
use crate::auth::AuthService;
use crate::clock::Clock;
use debros_auth::{PrivateKey, Wallet};
use debros_engine::Engine;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, response};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

async fn auth(folder: &std::path::Path) -> AuthService {
    let engine: Arc<dyn Engine> =
        Arc::new(EmbeddedEngine::open(EmbeddedConfig::new(folder.join("db"))).unwrap());
    let auth_db = AuthDb::new(engine, Clock::default(), [], Vec::<Wallet>::new());
    AuthService::start(auth_db, "node".into(), folder, "op_x", &[]).await.unwrap()
}

async fn call_public(auth: &AuthService, call: Call) -> response::Result {
    auth.handle_public(
        crate::auth::PublicRequest {
            peer: None,
            origin: crate::auth::CallOrigin::User(None),
            credential: "",
            namespace: "a",
        },
        call,
    )
    .await
    .unwrap()
}

async fn proof(auth: &AuthService, key: &PrivateKey) -> Option<rpc::Proof> {
    let wallet = key.wallet().to_string();
    let request = rpc::ChallengeRequest { wallet: wallet.clone(), ..Default::default() };
    let response::Result::Challenge(asked) = call_public(auth, Call::Challenge(request)).await
    else {
        panic!()
    };
    Some(rpc::Proof {
        signature: key.sign_personal(&asked.message),
        wallet,
        nonce: asked.nonce,
        ..Default::default()
    })
}

/// Nanoseconds of one check that finds its credential cached; the best of many rounds, because
/// a busy machine only makes it slower.
async fn warm(credentials: &CredentialVerifier, credential: &str) -> u128 {
    credentials.verify(credential).await.unwrap();
    let mut best = u128::MAX;
    for _ in 0..50 {
        let began = Instant::now();
        for _ in 0..1000 {
            black_box(credentials.verify(black_box(credential)).await.unwrap());
        }
        best = best.min(began.elapsed().as_nanos() / 1000);
    }
    best
}

/// A measurement: `cargo test --release -p debros-node --lib warm -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures, and only a release build is worth it"]
#[allow(clippy::print_stdout)]
async fn warm_check_costs() {
    let folder = tempfile::tempdir().unwrap();
    let auth = auth(folder.path()).await;
    let wallet = PrivateKey::from_bytes(&[1; 32]).unwrap();
    let sign_in = Call::SignIn(rpc::SignInRequest { proof: proof(&auth, &wallet).await });
    let response::Result::Session(session) = call_public(&auth, sign_in).await else { panic!() };
    let create = rpc::CreateApiKeyByProofRequest {
        proof: proof(&auth, &wallet).await,
        ..Default::default()
    };
    let response::Result::CreateApiKey(key) =
        call_public(&auth, Call::CreateApiKeyByProof(create)).await
    else {
        panic!()
    };
    for (name, credential) in [("access token", &session.access_token), ("API key", &key.api_key)] {
        let nanoseconds = warm(&auth.credentials, credential).await;
        println!("warm check of an {name} ({} bytes): {nanoseconds} ns", credential.len());
    }
}
