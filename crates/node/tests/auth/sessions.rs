//! Refresh tokens and logging out.

use crate::support::{FIVE_SECONDS, TIMEOUT, code, one_node, session, sign_in, wallet};
use debros_client::Code;
use debros_client::rpc::SessionResponse;
use std::time::Duration;

/// Lesson 11: refresh tokens were not rotated, and a stolen one worked beside its owner's forever.
#[tokio::test]
async fn lesson_11_a_used_refresh_token_ends_its_whole_family() {
    let (network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let opened = sign_in(&node, 1, "a").await;
    let apart = sign_in(&node, 1, "a").await;
    let second = client.auth().refresh(opened.refresh_token.clone(), "a").await.unwrap();
    let third = client.auth().refresh(second.refresh_token.clone(), "").await.unwrap();
    let signed_in = client.with_credential(third.access_token.clone());
    signed_in.storage().put("k", "v").await.unwrap();

    let error = client.auth().refresh(opened.refresh_token, "").await.unwrap_err();
    assert_eq!(error.code, Code::CredentialRevoked);
    for token in [second.refresh_token, third.refresh_token] {
        assert_eq!(code(client.auth().refresh(token, "").await), Some(Code::CredentialRevoked));
    }
    // The access tokens of the family end as well, at once on this node.
    for token in [opened.access_token, second.access_token, third.access_token] {
        assert_eq!(
            code(client.with_credential(token).storage().get("k").await),
            Some(Code::CredentialRevoked)
        );
    }
    let kinds = network.rows("SELECT subject FROM audit_events WHERE kind = 'refresh_reuse'").await;
    assert_eq!(kinds.len(), 1);
    // The wallet's other session is another family.
    client.with_credential(apart.access_token).storage().get("k").await.unwrap();
    client.auth().refresh(apart.refresh_token, "").await.unwrap();
}

/// Two tabs, or a caller that never saw the answer: the same request has the same answer, on every
/// node and after a restart.
#[tokio::test]
async fn a_refresh_token_sent_twice_within_thirty_seconds_gives_the_same_answer_twice() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let opened = sign_in(&node, 1, "a").await;
    let client = node.client_without_credential().await;
    let first = client.auth().refresh(opened.refresh_token.clone(), "a").await.unwrap();
    network.clock.advance(Duration::from_secs(5));
    assert_eq!(client.auth().refresh(opened.refresh_token.clone(), "a").await.unwrap(), first);
    // Each node signs with a key of its own: there the token is another text that says the same.
    let there = other
        .client_without_credential()
        .await
        .auth()
        .refresh(opened.refresh_token.clone(), "")
        .await
        .unwrap();
    assert_eq!(
        SessionResponse { access_token: String::new(), ..there.clone() },
        SessionResponse { access_token: String::new(), ..first.clone() }
    );
    client.with_credential(there.access_token).storage().get("k").await.unwrap();
    let node = network.restart(node).await;
    let client = node.client_without_credential().await;
    assert_eq!(client.auth().refresh(opened.refresh_token.clone(), "").await.unwrap(), first);
    assert_eq!(network.count("refresh_tokens").await, 2);
    assert!(
        network.rows("SELECT 1 FROM audit_events WHERE kind = 'refresh_reuse'").await.is_empty()
    );

    // Later it is a theft, though the successor was never used.
    network.clock.advance(Duration::from_secs(30));
    assert_eq!(
        code(client.auth().refresh(opened.refresh_token, "").await),
        Some(Code::CredentialRevoked)
    );
    assert_eq!(
        code(client.auth().refresh(first.refresh_token, "").await),
        Some(Code::CredentialRevoked)
    );
    let ended = client.with_credential(first.access_token).storage().get("k").await;
    assert_eq!(code(ended), Some(Code::CredentialRevoked));
}

/// The answer arrived, because the new token was used: a holder of the token before is another.
#[tokio::test]
async fn a_refresh_token_whose_successor_was_used_ends_the_session_within_thirty_seconds_too() {
    let (_network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let opened = sign_in(&node, 1, "a").await;
    let second = client.auth().refresh(opened.refresh_token.clone(), "").await.unwrap();
    let third = client.auth().refresh(second.refresh_token.clone(), "").await.unwrap();
    assert_eq!(client.auth().refresh(second.refresh_token.clone(), "").await.unwrap(), third);
    for token in [opened.refresh_token, second.refresh_token, third.refresh_token] {
        assert_eq!(code(client.auth().refresh(token, "").await), Some(Code::CredentialRevoked));
    }
}

#[tokio::test]
async fn two_exchanges_of_one_token_at_once_give_one_answer() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    for _ in 0..10 {
        let opened = sign_in(&node, 1, "a").await;
        network.clock.advance(Duration::from_secs(6));
        let clients = [
            node.client_without_credential().await,
            node.client_without_credential().await,
            other.client_without_credential().await,
        ];
        let [first, second, third] = clients.each_ref().map(debros_client::Client::auth);
        let token = || opened.refresh_token.clone();
        let answers = tokio::join!(
            first.refresh(token(), ""),
            second.refresh(token(), ""),
            third.refresh(token(), "")
        );
        let answers = [answers.0, answers.1, answers.2].map(Result::unwrap);
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].refresh_token, answers[2].refresh_token);
        let [next, ..] = answers;
        let renewed = first.refresh(next.refresh_token, "").await.unwrap();
        clients[0].with_credential(renewed.access_token).storage().list("", 0, "").await.unwrap();
    }
}

/// A database that leaks opens no session: the successor comes from the token, which stands
/// nowhere.
#[tokio::test]
async fn what_is_kept_of_refresh_tokens_is_their_hashes() {
    let (network, node) = one_node().await;
    let opened = sign_in(&node, 1, "a").await;
    let next = node
        .client_without_credential()
        .await
        .auth()
        .refresh(opened.refresh_token.clone(), "")
        .await
        .unwrap();
    for table in ["refresh_tokens", "sessions", "audit_events", "secrets", "_debros_idempotency"] {
        let kept = format!("{:?}", network.rows(&format!("SELECT * FROM {table}")).await);
        for secret in [&opened.refresh_token, &next.refresh_token, &next.access_token] {
            assert!(!kept.contains(secret.trim_start_matches("rt_")), "{table}");
        }
    }
}

#[tokio::test]
async fn a_refresh_token_expires_after_thirty_days_and_each_exchange_gives_thirty_more() {
    let (network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let opened = sign_in(&node, 1, "a").await;
    let left = sign_in(&node, 1, "a").await;
    network.clock.advance(Duration::from_secs(29 * 24 * 60 * 60));
    let renewed = client.auth().refresh(opened.refresh_token, "").await.unwrap();
    network.clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
    assert_eq!(
        code(client.auth().refresh(left.refresh_token.clone(), "").await),
        Some(Code::CredentialExpired)
    );
    assert_eq!(
        code(client.with_credential(left.access_token).storage().get("k").await),
        Some(Code::CredentialExpired)
    );
    // An expired one ends nothing, and is forgotten a day later.
    network.clock.advance(Duration::from_secs(24 * 60 * 60));
    node.node().sweep().await.unwrap();
    assert_eq!(
        code(client.auth().refresh(left.refresh_token, "").await),
        Some(Code::Unauthenticated)
    );
    let renewed = client.auth().refresh(renewed.refresh_token, "").await.unwrap();
    client.with_credential(renewed.access_token).storage().list("", 0, "").await.unwrap();
}

#[tokio::test]
async fn a_refresh_token_is_refused_in_another_namespace_and_is_not_used_up_by_that() {
    let (_network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let opened = sign_in(&node, 1, "a").await;
    assert_eq!(
        code(client.auth().refresh(opened.refresh_token.clone(), "b").await),
        Some(Code::NamespaceMismatch)
    );
    for bad in ["", "rt_", "rt_00", &opened.access_token, &format!("{}0", opened.refresh_token)] {
        assert_eq!(
            code(client.auth().refresh(bad, "").await),
            Some(Code::Unauthenticated),
            "{bad:.10}"
        );
    }
    client.auth().refresh(opened.refresh_token, "a").await.unwrap();
}

#[tokio::test]
async fn a_wallet_without_a_role_is_not_refreshed() {
    let (_network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    owner.members().set(wallet(2).wallet().to_string(), "writer").await.unwrap();
    let opened = sign_in(&node, 2, "a").await;
    owner.members().remove(wallet(2).wallet().to_string()).await.unwrap();
    let client = node.client_without_credential().await;
    assert_eq!(
        code(client.auth().refresh(opened.refresh_token.clone(), "").await),
        Some(Code::Forbidden)
    );
    owner.members().set(wallet(2).wallet().to_string(), "reader").await.unwrap();
    assert_eq!(client.auth().refresh(opened.refresh_token, "").await.unwrap().role, "reader");
}

/// Lesson 13: the token of a logout was never read, so that sessions could not be ended.
#[tokio::test]
async fn lesson_13_logging_out_ends_one_session_or_all() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let client = node.client_without_credential().await;
    let first = sign_in(&node, 1, "a").await;
    let mut more = Vec::new();
    for _ in 0..3 {
        more.push(sign_in(&node, 1, "a").await);
    }
    let elsewhere = sign_in(&node, 1, "b").await;
    let stranger = sign_in(&node, 2, "c").await;
    let elsewhere_named = client.auth().logout(first.refresh_token.clone(), "b").await;
    assert_eq!(code(elsewhere_named), Some(Code::NamespaceMismatch), "and nothing ended");
    assert_eq!(client.auth().logout(first.refresh_token.clone(), "a").await.unwrap(), 1);
    assert_eq!(client.auth().logout(first.refresh_token.clone(), "").await.unwrap(), 0);
    assert_eq!(
        code(client.with_credential(first.access_token).storage().get("k").await),
        Some(Code::CredentialRevoked)
    );
    assert_eq!(
        code(client.auth().refresh(first.refresh_token, "").await),
        Some(Code::CredentialRevoked)
    );

    let signed_in = client.with_credential(more[0].access_token.clone());
    let there = other.client_with("a", &more[1].access_token).await;
    there.storage().get("k").await.unwrap();
    assert_eq!(signed_in.auth().logout_all().await.unwrap(), 3);
    for opened in &more {
        let again = client.with_credential(opened.access_token.clone());
        assert_eq!(code(again.storage().get("k").await), Some(Code::CredentialRevoked));
        assert_eq!(
            code(client.auth().refresh(opened.refresh_token.clone(), "").await),
            Some(Code::CredentialRevoked)
        );
    }
    // Another node believes its last check for a few seconds more.
    network.clock.advance(FIVE_SECONDS);
    assert_eq!(code(there.storage().get("k").await), Some(Code::CredentialRevoked));
    // Other namespaces and other wallets are not touched.
    client.with_credential(elsewhere.access_token).storage().get("k").await.unwrap();
    client.with_credential(stranger.access_token).storage().get("k").await.unwrap();

    assert_eq!(code(client.auth().logout_all().await), Some(Code::Unauthenticated));
    assert_eq!(code(signed_in.auth().logout_all().await), Some(Code::CredentialRevoked));
    let key = node.client("k").await;
    assert_eq!(code(key.auth().logout_all().await), Some(Code::Forbidden));
    assert_eq!(code(client.auth().logout("", "").await), Some(Code::InvalidArgument));
    assert_eq!(code(client.auth().logout("rt_x", "").await), Some(Code::InvalidArgument));
    assert_eq!(client.auth().logout(format!("rt_{}", "0".repeat(64)), "").await.unwrap(), 0);
}

/// A subscription may be open for days: it ends with its session, though that was ended on another
/// node.
#[tokio::test]
async fn an_ended_session_loses_its_open_subscription_on_every_node() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let opened = sign_in(&node, 1, "a").await;
    let here = node.client_with("a", &opened.access_token).await;
    let there = other.client_with("a", &opened.access_token).await;
    let mut subscriptions =
        [here.pubsub().subscribe("t").await.unwrap(), there.pubsub().subscribe("t").await.unwrap()];
    let ended = std::time::Instant::now();
    assert_eq!(here.auth().logout_all().await.unwrap(), 1);
    for subscription in &mut subscriptions {
        let end = tokio::time::timeout(TIMEOUT, subscription.next()).await.expect("an end");
        assert_eq!(end.unwrap().unwrap_err().code, Code::CredentialRevoked);
    }
    // The real clock ran here: this is the promise itself, with room for a busy machine.
    assert!(ended.elapsed() < TIMEOUT);
}
