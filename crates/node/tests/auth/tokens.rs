//! Access tokens: what is believed, on which node, and for how long.

use crate::support::{FIVE_SECONDS, Network, address, code, one_node, session, sign_in};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use debros_auth::token::SigningKey;
use debros_client::{Code, NewKey};
use debros_testkit::TestNode;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use std::time::Duration;

type Json = serde_json::Value;

fn encode(json: &Json) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(json).unwrap())
}

fn decode(part: &str) -> Json {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Header, claims and signature.
fn parts(token: &str) -> (Json, Json, String) {
    let mut parts = token.split('.');
    let mut next = || parts.next().unwrap();
    (decode(next()), decode(next()), next().to_owned())
}

/// The node's own key, as a thief of its disk has it.
fn stolen_key(node: &TestNode) -> SigningKey {
    let text = std::fs::read_to_string(node.folder().join("node/token.key")).unwrap();
    SigningKey::from_hex(text.trim()).unwrap()
}

fn encoding(key: &SigningKey) -> EncodingKey {
    // PKCS#8 of an Ed25519 seed (RFC 8410): a fixed head and the seed.
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let seed = key.to_hex();
    der.extend((0..64).step_by(2).map(|at| u8::from_str_radix(&seed[at..at + 2], 16).unwrap()));
    EncodingKey::from_ed_der(&der)
}

/// A token that is signed as it should be, with other claims.
fn forged(key: &SigningKey, claims: &Json) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(key.public_key().kid().to_owned());
    jsonwebtoken::encode(&header, claims, &encoding(key)).unwrap()
}

async fn verdict(node: &TestNode, token: &str) -> Option<Code> {
    code(node.client_with("", token).await.storage().list("", 0, "").await)
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let (_network, node) = one_node().await;
    let opened = sign_in(&node, 1, "a").await;
    let token = opened.access_token;
    let (header, claims, signature) = parts(&token);
    assert_eq!(verdict(&node, &token).await, None);
    let key = stolen_key(&node);
    let kid = key.public_key().kid();
    // What the test makes itself is believed: the refusals below are for what each of them changes.
    assert_eq!(verdict(&node, &forged(&key, &claims)).await, None);

    let with = |change: &dyn Fn(&mut Json)| {
        let mut changed = claims.clone();
        change(&mut changed);
        changed
    };
    let body = encode(&claims);
    let head = |json: Json| encode(&json);
    let hmac = |head: &str, secret: &[u8]| {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap();
        mac.update(format!("{head}.{body}").as_bytes());
        format!("{head}.{body}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    };
    let none = head(serde_json::json!({"alg": "none", "typ": "JWT", "kid": kid}));
    let hs256 = head(serde_json::json!({"alg": "HS256", "typ": "JWT", "kid": kid}));
    let public = key.public_key().as_bytes().as_slice();
    let public_text = URL_SAFE_NO_PAD.encode(public);
    let other = SigningKey::from_seed([9; 32]).unwrap();
    let mut as_ours = Header::new(Algorithm::EdDSA);
    as_ours.kid = Some(kid.to_owned());
    let now = claims["iat"].as_i64().unwrap();
    let tampered = encode(&with(&|claims| claims["namespace"] = "b".into()));
    let other_wallet =
        encode(&with(&|claims| claims["sub"] = format!("0x{}", "1".repeat(40)).into()));
    let cases = [
        ("alg none", format!("{none}.{body}.")),
        ("alg none, the signature kept", format!("{none}.{body}.{signature}")),
        ("HS256 with the public key", hmac(&hs256, public)),
        ("HS256 with the public key as text", hmac(&hs256, public_text.as_bytes())),
        ("HS256 with nothing", hmac(&hs256, b"")),
        ("unknown kid", forged(&other, &claims)),
        (
            "another key under our kid",
            jsonwebtoken::encode(&as_ours, &claims, &encoding(&other)).unwrap(),
        ),
        (
            "no kid",
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &encoding(&key)).unwrap(),
        ),
        ("tampered payload", format!("{}.{tampered}.{signature}", encode(&header))),
        (
            "another wallet in the payload",
            format!("{}.{other_wallet}.{signature}", encode(&header)),
        ),
        ("no signature", format!("{}.{body}.", encode(&header))),
        ("cut", token[..token.len() - 4].to_owned()),
        ("wrong iss", forged(&key, &with(&|claims| claims["iss"] = "evil".into()))),
        ("wrong aud", forged(&key, &with(&|claims| claims["aud"] = "evil".into()))),
        (
            "no aud",
            forged(&key, &with(&|claims| drop(claims.as_object_mut().unwrap().remove("aud")))),
        ),
        (
            "no exp",
            forged(&key, &with(&|claims| drop(claims.as_object_mut().unwrap().remove("exp")))),
        ),
        ("expired", forged(&key, &with(&|claims| claims["exp"] = (now - 1).into()))),
        ("not yet", forged(&key, &with(&|claims| claims["nbf"] = (now + 120).into()))),
        (
            "another session's wallet",
            forged(&key, &with(&|claims| claims["sub"] = format!("0x{}", "1".repeat(40)).into())),
        ),
        (
            "another namespace than its session's",
            forged(&key, &with(&|claims| claims["namespace"] = "b".into())),
        ),
        (
            "an unknown session",
            forged(&key, &with(&|claims| claims["sid"] = "ses_0000000000000000".into())),
        ),
        (
            "session and key",
            forged(&key, &with(&|claims| claims["key"] = "key_0000000000000000".into())),
        ),
    ];
    for (name, token) in &cases {
        // What only the node itself could have signed was good once.
        let expected = match *name {
            "expired" => Code::CredentialExpired,
            "another session's wallet"
            | "another namespace than its session's"
            | "an unknown session" => Code::CredentialRevoked,
            _ => Code::Unauthenticated,
        };
        assert_eq!(verdict(&node, token).await, Some(expected), "{name}");
    }
    assert_eq!(verdict(&node, &token).await, None);
}

#[tokio::test]
async fn an_access_token_ends_after_fifteen_minutes() {
    let (network, node) = one_node().await;
    let opened = sign_in(&node, 1, "a").await;
    let client = node.client_with("a", &opened.access_token).await;
    network.clock.advance(Duration::from_secs(14 * 60 + 50));
    client.storage().get("k").await.unwrap();
    // The check of a moment ago is not believed past the token's end.
    network.clock.advance(Duration::from_secs(11));
    assert_eq!(code(client.storage().get("k").await), Some(Code::CredentialExpired));
    let renewed = client.auth().refresh(opened.refresh_token, "").await.unwrap();
    client.with_credential(renewed.access_token).storage().get("k").await.unwrap();
}

/// Lesson 12: the key was recreated with each process, so that a restart logged everyone out, and
/// two gateways refused each other's tokens.
#[tokio::test]
async fn lesson_12_tokens_are_good_on_every_node_and_after_restarts() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let opened = sign_in(&node, 1, "a").await;
    let there = sign_in(&other, 1, "a").await;
    for node in [&node, &other] {
        assert_eq!(verdict(node, &opened.access_token).await, None);
        assert_eq!(verdict(node, &there.access_token).await, None);
    }
    let keys = node.client_without_credential().await.auth().signing_keys().await.unwrap();
    assert_eq!(keys.len(), 2);
    let (node, other) = (network.restart(node).await, network.restart(other).await);
    let (node, other) = (network.restart(node).await, network.restart(other).await);
    for node in [&node, &other] {
        assert_eq!(verdict(node, &opened.access_token).await, None);
        assert_eq!(verdict(node, &there.access_token).await, None);
    }
    assert_eq!(
        other.client_without_credential().await.auth().signing_keys().await.unwrap(),
        keys,
        "a restart makes no new key"
    );
    node.client_without_credential().await.auth().refresh(opened.refresh_token, "").await.unwrap();
}

#[tokio::test]
async fn rotation_logs_nobody_out() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let before = sign_in(&node, 1, "a").await;
    // Another node has read the list a moment ago: it has to read it again for the new key.
    assert_eq!(verdict(&other, &before.access_token).await, None);
    let made = node.operator_client("").operator().rotate_signing_key().await.unwrap();
    let after = sign_in(&node, 1, "a").await;
    let (header, ..) = parts(&after.access_token);
    assert_eq!(header["kid"], made.kid.as_str());
    for node in [&other, &node] {
        assert_eq!(verdict(node, &after.access_token).await, None);
        assert_eq!(verdict(node, &before.access_token).await, None);
    }
    let node = network.restart(node).await;
    assert_eq!(parts(&sign_in(&node, 1, "a").await.access_token).0["kid"], made.kid.as_str());
    assert_eq!(
        code(session(&node, 1, "a").await.operator().rotate_signing_key().await),
        Some(Code::Forbidden)
    );
}

#[tokio::test]
async fn a_key_is_renewed_after_thirty_days_and_swept_after_its_last_token() {
    let (network, node) = one_node().await;
    let first = parts(&sign_in(&node, 1, "a").await.access_token).0["kid"].clone();
    network.clock.advance(Duration::from_secs(30 * 24 * 60 * 60 - 60));
    let node = network.restart(node).await;
    let opened = sign_in(&node, 1, "a").await;
    assert_eq!(parts(&opened.access_token).0["kid"], first);
    network.clock.advance(Duration::from_secs(60));
    node.node().renew_token_key().await.unwrap();
    let renewed = parts(&sign_in(&node, 1, "a").await.access_token).0["kid"].clone();
    assert_ne!(renewed, first);
    assert_eq!(verdict(&node, &opened.access_token).await, None);
    network.clock.advance(Duration::from_secs(24 * 60 * 60));
    node.node().sweep().await.unwrap();
    assert_eq!(network.count("signing_keys").await, 2);
    network.clock.advance(Duration::from_secs(24 * 60 * 60));
    node.node().sweep().await.unwrap();
    assert_eq!(network.count("signing_keys").await, 1);
    assert_eq!(verdict(&node, &sign_in(&node, 1, "a").await.access_token).await, None);
}

/// A node's disk was stolen: its key is removed, and nothing signed with it is believed any more,
/// on any node.
#[tokio::test]
async fn tokens_of_a_removed_key_die_on_every_node() {
    let (network, node) = one_node().await;
    let robbed = network.node().await;
    let stolen = stolen_key(&robbed);
    let theirs = sign_in(&robbed, 1, "a").await;
    let ours = sign_in(&node, 1, "a").await;
    let (_, claims, _) = parts(&theirs.access_token);
    let forged_before = forged(&stolen, &claims);
    for node in [&node, &robbed] {
        assert_eq!(verdict(node, &forged_before).await, None);
    }
    let operator = node.operator_client("");
    assert!(operator.operator().remove_signing_key(stolen.public_key().kid()).await.unwrap());
    assert!(!operator.operator().remove_signing_key(stolen.public_key().kid()).await.unwrap());
    // At once where it was done, within 5 seconds elsewhere.
    for token in [&theirs.access_token, &forged_before, &forged(&stolen, &claims)] {
        assert_eq!(verdict(&node, token).await, Some(Code::Unauthenticated));
    }
    network.clock.advance(FIVE_SECONDS);
    for token in [&theirs.access_token, &forged_before] {
        assert_eq!(verdict(&robbed, token).await, Some(Code::Unauthenticated));
    }
    assert_eq!(verdict(&node, &ours.access_token).await, None);
    // The robbed node signs with a new key, and its old one does not come back with a restart or a
    // sweep.
    let again = sign_in(&robbed, 1, "a").await;
    assert_ne!(parts(&again.access_token).0["kid"], stolen.public_key().kid());
    std::fs::write(robbed.folder().join("node/token.key"), stolen.to_hex().as_str()).unwrap();
    network.clock.advance(Duration::from_secs(40 * 24 * 60 * 60));
    node.node().sweep().await.unwrap();
    let robbed = network.restart(robbed).await;
    let again = sign_in(&robbed, 1, "a").await;
    assert_ne!(parts(&again.access_token).0["kid"], stolen.public_key().kid());
    assert_eq!(verdict(&node, &again.access_token).await, None);
    let keys = node.client_without_credential().await.auth().signing_keys().await.unwrap();
    assert!(keys.iter().all(|key| key.kid != stolen.public_key().kid()));
}

#[tokio::test]
async fn removing_a_nodes_own_key_gives_it_another() {
    let (_network, node) = one_node().await;
    let before = sign_in(&node, 1, "a").await;
    let own = stolen_key(&node).public_key().kid().to_owned();
    assert!(node.operator_client("").operator().remove_signing_key(&own).await.unwrap());
    assert_eq!(verdict(&node, &before.access_token).await, Some(Code::Unauthenticated));
    let renewed = node
        .client_without_credential()
        .await
        .auth()
        .refresh(before.refresh_token, "")
        .await
        .unwrap();
    assert_eq!(verdict(&node, &renewed.access_token).await, None);
    assert_ne!(stolen_key(&node).public_key().kid(), own);
}

/// A restore brings data back. It undid every revocation since the backup besides.
#[tokio::test]
async fn a_restore_undoes_no_revocation() {
    let node = TestNode::start().await;
    let owner = session(&node, 1, "a").await;
    owner.storage().put("k", "old").await.unwrap();
    let key = owner.auth().create_key(NewKey::default()).await.unwrap();
    let by_key = node.client_with("a", &key.api_key).await;
    owner.members().set(&address(2).to_string(), "writer").await.unwrap();
    let (member, left) = (session(&node, 2, "a").await, sign_in(&node, 1, "a").await);
    let operator = node.operator_client("");
    let mut events = operator.operator().backup().await.unwrap();
    let mut name = String::new();
    while let Some(event) = events.next().await {
        if let Some(debros_client::rpc::event::Kind::Done(done)) = event.unwrap().kind {
            name = done.backup.unwrap().name;
        }
    }
    owner.storage().put("k", "new").await.unwrap();
    owner.auth().revoke_key(&key.info.unwrap().id).await.unwrap();
    owner.members().remove(&address(2).to_string()).await.unwrap();
    node.client_without_credential().await.auth().logout(left.refresh_token, "").await.unwrap();
    let later = sign_in(&node, 1, "a").await;
    let old_key = stolen_key(&node).public_key().kid().to_owned();
    operator.operator().rotate_signing_key().await.unwrap();
    let signed_with_new = sign_in(&node, 1, "a").await;
    let mut events = operator.operator().restore(name).await.unwrap();
    while let Some(event) = events.next().await {
        event.unwrap();
    }
    assert_eq!(owner.storage().get("k").await.unwrap().unwrap().value, "old");
    assert_eq!(code(by_key.storage().get("k").await), Some(Code::CredentialRevoked));
    assert_eq!(code(member.storage().get("k").await), Some(Code::Unauthenticated));
    assert_eq!(verdict(&node, &left.access_token).await, Some(Code::CredentialRevoked));
    for good in [&later, &signed_with_new] {
        assert_eq!(
            verdict(&node, &good.access_token).await,
            None,
            "what was opened since stays open"
        );
    }
    let keys = node.client_without_credential().await.auth().signing_keys().await.unwrap();
    assert!(keys.iter().any(|key| key.kid == old_key) && keys.len() == 2, "{keys:?}");
    session(&node, 1, "a").await.storage().put("k", "new").await.unwrap();
}

#[tokio::test]
async fn a_damaged_or_exposed_token_key_stops_the_start_and_says_what_to_do() {
    let network = Network::new().await;
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut config = debros_node::NodeConfig::new(folder.path().join("node"));
        config.listen_addresses = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        config.database.backup_interval = None;
        debros_node::Node::start_on(config, std::sync::Arc::clone(&network.engine))
    };
    let in_ten_seconds = || std::time::Instant::now() + Duration::from_secs(10);
    start().await.unwrap().shutdown(in_ten_seconds()).await;
    let path = folder.path().join("node/token.key");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &good[..63]).unwrap();
    let error = start().await.err().unwrap().to_string();
    assert!(
        error.contains("token.key is damaged")
            && error.contains("move it away")
            && !error.contains(&good[..20])
    );
    std::fs::write(&path, &good).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let error = start().await.err().unwrap().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    start().await.unwrap().shutdown(in_ten_seconds()).await;
}
