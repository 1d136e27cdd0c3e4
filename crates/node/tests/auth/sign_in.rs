//! Challenges and ownership.

use crate::support::{
    Network, TIMEOUT, address, challenge, code, one_node, one_node_at_one_moment, proof, session,
    sign_in, signed, try_sign_in, wallet,
};
use debros_client::rpc::request::Call;
use debros_client::rpc::{ChallengeRequest, Proof, Request, SignInRequest};
use debros_client::{Client, Code, NewKey};
use debros_p2p::{Channel, Host, HostConfig};
use debros_testkit::TestNode;
use std::time::Duration;

async fn channel(node: &TestNode) -> (Host, Channel) {
    let host =
        Host::start(HostConfig::client(debros_p2p::Keypair::generate_ed25519(), "test"), None)
            .await
            .unwrap();
    let peer = host.connect(node.address().parse().unwrap(), TIMEOUT).await.unwrap();
    let channel = host.open(peer).await.unwrap();
    (host, channel)
}

fn sign_in_request(proof: &Proof) -> Request {
    Request {
        call: Some(Call::SignIn(SignInRequest { proof: Some(proof.clone()) })),
        ..Default::default()
    }
}

/// Acceptance 2: the whole flow over P2P with the Rust client alone.
#[tokio::test]
async fn a_client_signs_in_over_p2p_alone() {
    let (_network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let key = wallet(1);
    let asked = client
        .auth()
        .challenge(ChallengeRequest {
            wallet: key.wallet().checksummed(),
            namespace: "shop".into(),
            purpose: "a test".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!((asked.nonce.len(), asked.purpose.as_str()), (64, "a test"));
    assert_eq!(asked.expires_at - asked.issued_at, 5 * 60 * 1000);
    assert!(
        asked
            .message
            .starts_with("p2p.debros wants you to sign in with your Ethereum account:\n0x")
    );
    assert!(asked.message.contains("\nSign in to the namespace shop on DeBros Network.\n"));

    let opened = client.auth().sign_in(signed(&asked, &key, &asked.message)).await.unwrap();
    assert_eq!(opened.subject, key.wallet().to_string());
    assert_eq!((opened.namespace.as_str(), opened.role.as_str()), ("shop", "owner"));
    let owner = client.with_credential(opened.access_token.clone());
    owner.storage().put("greeting", "hello").await.unwrap();
    assert_eq!(owner.storage().get("greeting").await.unwrap().unwrap().value, "hello");
    let me = owner.network().who_am_i().await.unwrap();
    assert_eq!(
        (me.method.as_str(), me.wallet.as_str(), me.role.as_str()),
        ("jwt", opened.subject.as_str(), "owner")
    );
    assert_eq!((me.expires_at, me.operator), (opened.access_expires_at, false));

    let made = owner
        .auth()
        .create_key(NewKey { name: "server".into(), ..Default::default() })
        .await
        .unwrap();
    let info = made.info.unwrap();
    assert_eq!((info.role.as_str(), info.wallet.as_str()), ("writer", opened.subject.as_str()));
    let by_key = client.with_credential(made.api_key);
    by_key.storage().put("greeting", "hi").await.unwrap();
    let me = by_key.network().who_am_i().await.unwrap();
    assert_eq!(
        (me.method.as_str(), me.subject.as_str(), me.expires_at),
        ("api_key", info.id.as_str(), 0)
    );
    let short = by_key.auth().token().await.unwrap();
    assert!(short.refresh_token.is_empty());
    let me = client.with_credential(short.access_token).network().who_am_i().await.unwrap();
    assert_eq!((me.method.as_str(), me.subject.as_str()), ("jwt", info.id.as_str()));

    let renewed = client.auth().refresh(opened.refresh_token, "").await.unwrap();
    assert_ne!(renewed.access_token, opened.access_token);
    let app =
        client.auth().register_app(proof(&client, &key, "shop").await, "storefront").await.unwrap();
    assert_eq!((app.name.as_str(), app.wallet.as_str()), ("storefront", opened.subject.as_str()));
    assert!(
        app.public_key.starts_with("0x04") && app.public_key.len() == 132,
        "{}",
        app.public_key
    );
    let by_proof = client
        .auth()
        .create_key_by_proof(proof(&client, &key, "shop").await, NewKey::default())
        .await
        .unwrap();
    assert!(by_proof.api_key.ends_with(":shop"));
    assert_eq!(owner.auth().list_keys().await.unwrap().len(), 2);

    assert_eq!(client.auth().logout(renewed.refresh_token, "").await.unwrap(), 1);
    assert_eq!(code(owner.storage().get("greeting").await), Some(Code::CredentialRevoked));
    by_key.storage().get("greeting").await.unwrap();
}

#[tokio::test]
async fn a_signature_over_the_bare_nonce_is_accepted() {
    let (_network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let asked = challenge(&client, address(1), "a").await;
    client.auth().sign_in(signed(&asked, &wallet(1), &asked.nonce)).await.unwrap();
}

/// Lesson 9: the nonce was looked up, then marked, and two at once both got in.
#[tokio::test]
async fn lesson_09_a_nonce_works_once_in_sequence() {
    let (network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let proof = proof(&client, &wallet(1), "a").await;
    client.auth().sign_in(proof.clone()).await.unwrap();
    let error = client.auth().sign_in(proof.clone()).await.unwrap_err();
    assert_eq!(error.code, Code::Unauthenticated);
    assert!(error.message.contains("unknown, used or older than 5 minutes"), "{error}");
    // Whatever it would open.
    assert_eq!(
        code(client.auth().register_app(proof.clone(), "x").await),
        Some(Code::Unauthenticated)
    );
    assert_eq!(
        code(client.auth().create_key_by_proof(proof, NewKey::default()).await),
        Some(Code::Unauthenticated)
    );
    assert_eq!(network.count("sessions").await, 1);
    assert_eq!(network.count("api_keys").await + network.count("apps").await, 0);
}

/// Lesson 9, at once: 100 requests on two nodes, exactly one session.
#[tokio::test]
async fn lesson_09_a_nonce_works_once_among_a_hundred_at_once() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let (_a, here) = channel(&node).await;
    let (_b, there) = channel(&other).await;
    let proof = proof(&node.client_without_credential().await, &wallet(1), "a").await;
    let calls = (0..100).map(|number| {
        let channel = if number % 2 == 0 { &here } else { &there };
        channel.call(sign_in_request(&proof), TIMEOUT)
    });
    let answers = futures::future::join_all(calls).await;
    let won = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(won, 1);
    for error in answers.into_iter().filter_map(Result::err) {
        assert!(matches!(error.code, Code::Unauthenticated | Code::RateLimited), "{error:?}");
    }
    assert_eq!((network.count("sessions").await, network.count("refresh_tokens").await), (1, 1));
    assert_eq!(network.count("used_nonces").await, 1);
}

#[tokio::test]
async fn a_nonce_of_another_wallet_or_namespace_is_refused() {
    let (network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let asked = challenge(&client, address(1), "a").await;
    let mut other_wallet = signed(&asked, &wallet(2), &asked.message);
    other_wallet.wallet = address(2).to_string();
    let mut other_namespace = signed(&asked, &wallet(1), &asked.message);
    other_namespace.namespace = "b".into();
    let mut made_up = signed(&asked, &wallet(1), &"0".repeat(64));
    made_up.nonce = "0".repeat(64);
    for (name, proof) in
        [("wallet", other_wallet), ("namespace", other_namespace), ("nonce", made_up)]
    {
        let error = client.auth().sign_in(proof).await.unwrap_err();
        assert_eq!(error.code, Code::Unauthenticated, "{name}");
        assert!(
            error.message.starts_with("the nonce is not valid for this wallet and namespace"),
            "{name}: {error}"
        );
    }
    for nonce in [
        "",
        "00",
        &"g".repeat(64),
        &asked.nonce.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A"),
    ] {
        let mut proof = signed(&asked, &wallet(1), &asked.message);
        proof.nonce = nonce.to_owned();
        assert_eq!(
            code(client.auth().sign_in(proof).await),
            Some(Code::InvalidArgument),
            "{nonce}"
        );
    }
    assert_eq!(network.count("namespaces").await, 0);
}

#[tokio::test]
async fn a_nonce_expires_after_five_minutes() {
    let (network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let early = proof(&client, &wallet(1), "a").await;
    let late = proof(&client, &wallet(1), "a").await;
    network.clock.advance(Duration::from_secs(4 * 60 + 50));
    client.auth().sign_in(early).await.unwrap();
    network.clock.advance(Duration::from_secs(11));
    let error = client.auth().sign_in(late).await.unwrap_err();
    assert_eq!(error.code, Code::Unauthenticated);
    assert!(error.message.contains("older than 5 minutes"), "{error}");
}

/// Lesson 2: any wallet that signed became the owner of any namespace, and got a token for it.
#[tokio::test]
async fn lesson_02_a_wallet_gets_nothing_in_a_namespace_that_it_does_not_own() {
    let (network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    owner.storage().put("secret", "x").await.unwrap();
    let client = node.client_without_credential().await;
    let thief = wallet(2);
    let error = client.auth().sign_in(proof(&client, &thief, "a").await).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    assert!(error.message.contains("its owner can grant you a role"), "{error}");
    assert_eq!(
        code(client.auth().register_app(proof(&client, &thief, "a").await, "x").await),
        Some(Code::Forbidden)
    );
    let key = client
        .auth()
        .create_key_by_proof(proof(&client, &thief, "a").await, NewKey::default())
        .await;
    assert_eq!(code(key), Some(Code::Forbidden));
    assert_eq!(network.owner("a").await, Some(address(1).to_string()));
    assert_eq!(network.count("sessions").await, 1);
    assert_eq!(network.count("api_keys").await + network.count("apps").await, 0);
    // What it does own stays its own.
    let mine = session(&node, 2, "b").await;
    assert!(mine.storage().get("secret").await.unwrap().is_none());
}

/// Lesson 3: a call without any signature gave the existing key of any wallet.
#[tokio::test]
async fn lesson_03_no_key_and_no_session_without_a_signature() {
    let (network, node) = one_node().await;
    session(&node, 1, "a").await;
    let client = node.client_without_credential().await;
    let asked = challenge(&client, address(1), "a").await;
    for signature in ["", "0x", &"0".repeat(130)] {
        let mut proof = signed(&asked, &wallet(1), &asked.message);
        proof.signature = signature.to_owned();
        assert_eq!(
            code(client.auth().sign_in(proof.clone()).await),
            Some(Code::InvalidArgument),
            "{signature}"
        );
        let key = client.auth().create_key_by_proof(proof.clone(), NewKey::default()).await;
        assert_eq!(code(key), Some(Code::InvalidArgument));
        assert_eq!(code(client.auth().register_app(proof, "x").await), Some(Code::InvalidArgument));
    }
    let (_host, channel) = channel(&node).await;
    let nothing =
        Request { call: Some(Call::SignIn(SignInRequest { proof: None })), ..Default::default() };
    assert_eq!(code(channel.call(nothing, TIMEOUT).await), Some(Code::InvalidArgument));
    assert_eq!((network.count("api_keys").await, network.count("sessions").await), (0, 1));
}

/// Two wallets for one free namespace at once: one owner, and the other has nothing.
#[tokio::test]
async fn of_many_wallets_at_once_one_becomes_the_owner() {
    let (network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let mut proofs = Vec::new();
    for number in 1..=20 {
        proofs.push(proof(&client, &wallet(number), "a").await);
    }
    let (_host, channel) = channel(&node).await;
    let answers = futures::future::join_all(
        proofs.iter().map(|proof| channel.call(sign_in_request(proof), TIMEOUT)),
    )
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for error in answers.into_iter().filter_map(Result::err) {
        assert_eq!(error.code, Code::Forbidden);
    }
    let owners = network.rows("SELECT owner FROM namespaces WHERE name = 'a'").await;
    let sessions = network.rows("SELECT wallet FROM sessions").await;
    assert_eq!((owners.len(), sessions.len()), (1, 1));
    assert_eq!(owners[0].values[0], sessions[0].values[0]);
}

/// A sign-in that fails leaves no claim: not when its nonce was used, and not when its signature is
/// wrong.
#[tokio::test]
async fn no_claim_survives_a_failed_sign_in() {
    let (network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let asked = challenge(&client, address(1), "free").await;
    assert_eq!(
        code(client.auth().sign_in(signed(&asked, &wallet(2), &asked.message)).await),
        Some(Code::Unauthenticated)
    );
    // A used nonce, while the namespace is free again.
    let proof = proof(&client, &wallet(1), "free").await;
    client.auth().sign_in(proof.clone()).await.unwrap();
    let statement = debros_client::rpc::Statement::from("DELETE FROM namespaces");
    let options = debros_engine::CallOptions {
        consistency: Default::default(),
        deadline: std::time::Instant::now() + TIMEOUT,
        idempotency_key: None,
        caller: Default::default(),
        read_only: false,
    };
    network.engine.query(&debros_engine::TargetDatabase::System, statement, options).await.unwrap();
    assert_eq!(code(client.auth().sign_in(proof).await), Some(Code::Unauthenticated));
    assert_eq!(network.count("namespaces").await, 0);
}

/// A stranger must not become the owner of what the operator's callers wrote before wallets came.
#[tokio::test]
async fn what_the_operator_began_is_never_a_strangers() {
    let (network, node) = one_node().await;
    node.operator_client("dev").storage().put("k", "v").await.unwrap();
    node.operator_client("sql").database().create_table("CREATE TABLE t (a)").await.unwrap();
    node.api_key("keyed").await;
    let client = node.client_without_credential().await;
    for namespace in ["dev", "sql", "keyed"] {
        assert_eq!(network.owner(namespace).await.as_deref(), Some("operator"));
        assert_eq!(
            code(try_sign_in(&client, &wallet(1), namespace).await),
            Some(Code::Forbidden),
            "{namespace}"
        );
    }
    // And the other way round: a wallet's namespace stays the wallet's.
    session(&node, 1, "mine").await;
    node.operator_client("mine").storage().put("k", "v").await.unwrap();
    assert_eq!(network.owner("mine").await, Some(address(1).to_string()));
}

#[tokio::test]
async fn in_an_open_namespace_every_wallet_writes_and_none_owns() {
    let network = Network::new().await;
    let node =
        network.node_with(|config| config.open_namespaces.push("square".parse().unwrap())).await;
    let (first, second) = (session(&node, 1, "square").await, session(&node, 2, "square").await);
    first.storage().put("k", "v").await.unwrap();
    assert_eq!(second.storage().get("k").await.unwrap().unwrap().value, "v");
    let me = first.network().who_am_i().await.unwrap();
    assert_eq!(me.role, "writer");
    assert_eq!(code(first.members().list().await), Some(Code::Forbidden));
    // Keys and sessions are a wallet's own affair there.
    let made = first.auth().create_key(NewKey::default()).await.unwrap();
    let id = made.info.unwrap().id;
    assert_eq!(first.auth().list_keys().await.unwrap().len(), 1);
    assert!(second.auth().list_keys().await.unwrap().is_empty());
    assert_eq!(code(second.auth().revoke_key(&id).await), Some(Code::NotFound));
    let wide = first.auth().create_key(NewKey { role: "admin".into(), ..Default::default() }).await;
    assert_eq!(code(wide), Some(Code::Forbidden));
    assert_eq!(second.auth().logout_all().await.unwrap(), 1);
    first.storage().get("k").await.unwrap();
    assert!(first.auth().revoke_key(&id).await.unwrap());
    // No longer open, it is the operator's, not the first wallet's.
    let node = network.restart(node).await;
    let client = node.client_without_credential().await;
    assert_eq!(code(try_sign_in(&client, &wallet(1), "square").await), Some(Code::Forbidden));
    // "default" is open by itself.
    session(&node, 1, "default").await;
    session(&node, 2, "default").await;
}

#[tokio::test]
async fn an_admin_wallet_runs_the_node_and_stays_in_its_namespace() {
    let network = Network::new().await;
    let node = network.node_with(|config| config.admin_wallets.push(address(1))).await;
    let admin = session(&node, 1, "a").await;
    assert!(admin.network().who_am_i().await.unwrap().operator);
    admin.operator().backups().await.unwrap();
    admin.operator().rotate_signing_key().await.unwrap();
    node.api_key("b").await;
    let (_host, channel) = channel(&node).await;
    let elsewhere = Request {
        credential: admin.scope().credential.to_string(),
        namespace: "b".into(),
        call: Some(Call::List(Default::default())),
        ..Default::default()
    };
    assert_eq!(code(channel.call(elsewhere, TIMEOUT).await), Some(Code::NamespaceMismatch));
    assert_eq!(
        code(admin.operator().create_api_key("b", "x", "admin", vec![]).await),
        Some(Code::NamespaceMismatch)
    );
    // Its keys do not: a key is not the wallet.
    let key = admin
        .auth()
        .create_key(NewKey { role: "admin".into(), ..Default::default() })
        .await
        .unwrap()
        .api_key;
    assert_eq!(
        code(node.client_with("a", &key).await.operator().backups().await),
        Some(Code::Forbidden)
    );
    let other = session(&node, 2, "c").await;
    assert_eq!(code(other.operator().backups().await), Some(Code::Forbidden));
}

/// Lesson 10: a request for a challenge wrote to the database and created the namespace.
#[tokio::test]
async fn lesson_10_ten_thousand_challenges_write_nothing_and_are_limited() {
    let (network, node) = one_node_at_one_moment().await;
    sign_in(&node, 1, "a").await;
    let tables = ["used_nonces", "namespaces", "sessions", "refresh_tokens", "audit_events", "kv"];
    let mut before = Vec::new();
    for table in tables {
        before.push(network.count(table).await);
    }
    let size = network.engine.size();
    let (_host, channel) = channel(&node).await;
    let (mut answered, mut limited) = (0, 0);
    for number in 0..100 {
        let calls = (0..100).map(|inner| {
            let request = ChallengeRequest {
                wallet: address(1).to_string(),
                namespace: format!("n{number}-{inner}"),
                ..Default::default()
            };
            channel.call(
                Request { call: Some(Call::Challenge(request)), ..Default::default() },
                TIMEOUT,
            )
        });
        for answer in futures::future::join_all(calls).await {
            match answer {
                Ok(_) => answered += 1,
                Err(error) => {
                    assert_eq!(error.code, Code::RateLimited, "{error}");
                    assert!(error.retry_after.is_some_and(|wait| wait >= Duration::from_secs(1)));
                    limited += 1;
                }
            }
        }
    }
    assert_eq!(answered + limited, 10_000);
    assert_eq!((answered, limited), (1000, 9000));
    // Other callers are served while this one waits.
    let other = session(&node, 1, "a").await;
    other.storage().get("k").await.unwrap();
    for (table, before) in tables.iter().zip(before) {
        let own_sign_in = i64::from(matches!(
            *table,
            "used_nonces" | "sessions" | "refresh_tokens" | "audit_events"
        ));
        assert_eq!(network.count(table).await, before + own_sign_in, "{table}");
    }
    assert!(network.engine.size() <= size + (64 << 10), "the database has grown");
}

/// Attempts on a wallet are limited, and do not lock its owner out.
#[tokio::test]
async fn attempts_on_a_wallet_are_limited_and_its_owner_still_gets_in() {
    let (network, node) = one_node_at_one_moment().await;
    let (_host, channel) = channel(&node).await;
    let client = node.client_without_credential().await;
    let asked = challenge(&client, address(1), "a").await;
    let wrong = signed(&asked, &wallet(2), &asked.message);
    let mut codes = Vec::new();
    for _ in 0..12 {
        codes.push(code(channel.call(sign_in_request(&wrong), TIMEOUT).await).unwrap());
    }
    assert!(codes[..10].iter().all(|code| *code == Code::Unauthenticated), "{codes:?}");
    assert_eq!(codes[11], Code::RateLimited);
    client.auth().sign_in(signed(&asked, &wallet(1), &asked.message)).await.unwrap();

    // Sign-ins that hold are limited too: each of them writes.
    let mut limited = 0;
    for _ in 0..15 {
        let proof = proof(&client, &wallet(3), "b").await;
        limited += u32::from(
            code(channel.call(sign_in_request(&proof), TIMEOUT).await) == Some(Code::RateLimited),
        );
    }
    assert_eq!(limited, 5);
    network.clock.advance(Duration::from_secs(6));
    try_sign_in(&client, &wallet(3), "b").await.unwrap();
}

#[tokio::test]
async fn expired_rows_are_swept() {
    let (network, node) = one_node().await;
    let opened = sign_in(&node, 1, "a").await;
    node.client_without_credential().await.auth().refresh(opened.refresh_token, "").await.unwrap();
    network.clock.advance(Duration::from_secs(31 * 24 * 60 * 60));
    let tables = ["used_nonces", "sessions", "refresh_tokens"];
    for table in tables {
        assert!(network.count(table).await > 0, "{table}");
    }
    node.node().sweep().await.unwrap();
    for table in tables {
        assert_eq!(network.count(table).await, 0, "{table}");
    }
    assert!(network.count("audit_events").await > 0);
    network.clock.advance(Duration::from_secs(60 * 24 * 60 * 60));
    node.node().sweep().await.unwrap();
    assert_eq!(network.count("audit_events").await, 0);
    assert_eq!(network.owner("a").await, Some(address(1).to_string()), "ownership does not expire");
}

#[tokio::test]
async fn what_happens_is_written_down() {
    let (network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    let id = owner.auth().create_key(NewKey::default()).await.unwrap().info.unwrap().id;
    owner.auth().revoke_key(&id).await.unwrap();
    owner.members().set(address(2).to_string(), "reader").await.unwrap();
    owner.members().remove(address(2).to_string()).await.unwrap();
    let client: Client = node.client_without_credential().await;
    for _ in 0..3 {
        try_sign_in(&client, &wallet(3), "a").await.unwrap_err();
    }
    owner.auth().logout_all().await.unwrap();
    node.node().sweep().await.unwrap();
    let rows = network
        .rows("SELECT kind, detail FROM audit_events WHERE namespace = 'a' ORDER BY id")
        .await;
    let kinds: Vec<&str> = rows.iter().filter_map(|row| row.values[0].as_text()).collect();
    assert_eq!(
        kinds,
        [
            "namespace_claimed",
            "sign_in",
            "key_created",
            "key_revoked",
            "grant",
            "grant_revoked",
            "logout",
            "sign_in_refused"
        ]
    );
    assert_eq!(rows.last().unwrap().values[1].as_text(), Some("3 times"));
}

/// Lesson 14: what the database said came out as it was.
#[tokio::test]
async fn lesson_14_a_failing_database_tells_nothing_of_itself() {
    let (network, node) = one_node().await;
    let opened = sign_in(&node, 1, "a").await;
    let client = node.client_without_credential().await;
    let proof = proof(&client, &wallet(1), "a").await;
    network.engine.close().await;
    network.clock.advance(Duration::from_secs(5));
    let (_host, channel) = channel(&node).await;
    let credential = opened.access_token.clone();
    let refresh = debros_client::rpc::RefreshRequest {
        refresh_token: opened.refresh_token,
        namespace: String::new(),
    };
    let requests = [
        sign_in_request(&proof),
        Request { call: Some(Call::Refresh(refresh)), ..Default::default() },
        Request { call: Some(Call::Jwks(Default::default())), ..Default::default() },
        Request {
            credential,
            call: Some(Call::ListMembers(Default::default())),
            ..Default::default()
        },
    ];
    for request in requests {
        let error = channel.call(request, TIMEOUT).await.unwrap_err();
        assert_eq!(error.code, Code::Unavailable, "{error}");
        for inner in ["SELECT", "INSERT", "sqlite", "SQL", ".db", "sessions", "signing_keys"] {
            assert!(!error.message.contains(inner), "{error}");
        }
        assert_eq!(error.statement, None);
    }
}
