//! Refresh tokens and logging out.

use crate::support::{FIVE_SECONDS, TIMEOUT, code, one_node, session, sign_in, wallet};
use debros_client::Code;
use std::time::Duration;

/// Lesson 11: refresh tokens were not rotated, and a stolen one worked beside its owner's for ever.
#[tokio::test]
async fn lesson_11_a_used_refresh_token_ends_its_whole_family() {
    let (network, node) = one_node().await;
    let client = node.stranger().await;
    let opened = sign_in(&node, 1, "a").await;
    let apart = sign_in(&node, 1, "a").await;
    let second = client.auth().refresh(opened.refresh_token.clone(), "a").await.unwrap();
    let third = client.auth().refresh(second.refresh_token.clone(), "").await.unwrap();
    let signed_in = client.with_credential(third.access_token.clone());
    signed_in.storage().put("k", "v").await.unwrap();

    let error = client.auth().refresh(opened.refresh_token, "").await.unwrap_err();
    assert_eq!(error.code, Code::Unauthenticated);
    for token in [second.refresh_token, third.refresh_token] {
        assert_eq!(code(client.auth().refresh(token, "").await), Some(Code::Unauthenticated));
    }
    // The access tokens of the family end as well, at once on this node.
    for token in [opened.access_token, second.access_token, third.access_token] {
        assert_eq!(code(client.with_credential(token).storage().get("k").await), Some(Code::Unauthenticated));
    }
    let kinds = network.rows("SELECT subject FROM audit_events WHERE kind = 'refresh_reuse'").await;
    assert_eq!(kinds.len(), 1);
    // The wallet's other session is another family.
    client.with_credential(apart.access_token).storage().get("k").await.unwrap();
    client.auth().refresh(apart.refresh_token, "").await.unwrap();
}

#[tokio::test]
async fn of_two_exchanges_of_one_token_at_once_one_wins_at_most() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    for _ in 0..10 {
        let opened = sign_in(&node, 1, "a").await;
        network.clock.advance(Duration::from_secs(6));
        let (here, there) = (node.stranger().await, other.stranger().await);
        let (first, second) = (here.auth(), there.auth());
        let answers = tokio::join!(
            first.refresh(opened.refresh_token.clone(), ""),
            second.refresh(opened.refresh_token.clone(), "")
        );
        let won: Vec<_> = [answers.0, answers.1].into_iter().filter_map(Result::ok).collect();
        assert!(won.len() <= 1);
        // Nobody can tell which of the two was the owner, so that nobody goes on.
        for answer in won {
            assert_eq!(code(here.auth().refresh(answer.refresh_token, "").await), Some(Code::Unauthenticated));
        }
    }
}

#[tokio::test]
async fn a_refresh_token_expires_after_thirty_days_and_each_exchange_gives_thirty_more() {
    let (network, node) = one_node().await;
    let client = node.stranger().await;
    let opened = sign_in(&node, 1, "a").await;
    let left = sign_in(&node, 1, "a").await;
    network.clock.advance(Duration::from_secs(29 * 24 * 60 * 60));
    let renewed = client.auth().refresh(opened.refresh_token, "").await.unwrap();
    network.clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
    assert_eq!(code(client.auth().refresh(left.refresh_token, "").await), Some(Code::Unauthenticated));
    let renewed = client.auth().refresh(renewed.refresh_token, "").await.unwrap();
    client.with_credential(renewed.access_token).storage().list("", 0, "").await.unwrap();
}

#[tokio::test]
async fn a_refresh_token_is_refused_in_another_namespace_and_is_not_used_up_by_that() {
    let (_network, node) = one_node().await;
    let client = node.stranger().await;
    let opened = sign_in(&node, 1, "a").await;
    assert_eq!(code(client.auth().refresh(opened.refresh_token.clone(), "b").await), Some(Code::NamespaceMismatch));
    for bad in ["", "rt_", "rt_00", &opened.access_token, &format!("{}0", opened.refresh_token)] {
        assert_eq!(code(client.auth().refresh(bad, "").await), Some(Code::Unauthenticated), "{bad:.10}");
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
    let client = node.stranger().await;
    assert_eq!(code(client.auth().refresh(opened.refresh_token.clone(), "").await), Some(Code::Forbidden));
    owner.members().set(wallet(2).wallet().to_string(), "reader").await.unwrap();
    assert_eq!(client.auth().refresh(opened.refresh_token, "").await.unwrap().role, "reader");
}

/// Lesson 13: the token of a logout was never read, so that sessions could not be ended.
#[tokio::test]
async fn lesson_13_logging_out_ends_one_session_or_all() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let client = node.stranger().await;
    let first = sign_in(&node, 1, "a").await;
    let mut more = Vec::new();
    for _ in 0..3 {
        more.push(sign_in(&node, 1, "a").await);
    }
    let elsewhere = sign_in(&node, 1, "b").await;
    let stranger = sign_in(&node, 2, "c").await;
    assert_eq!(client.auth().logout(first.refresh_token.clone()).await.unwrap(), 1);
    assert_eq!(client.auth().logout(first.refresh_token.clone()).await.unwrap(), 0);
    assert_eq!(code(client.with_credential(first.access_token).storage().get("k").await), Some(Code::Unauthenticated));
    assert_eq!(code(client.auth().refresh(first.refresh_token, "").await), Some(Code::Unauthenticated));

    let signed_in = client.with_credential(more[0].access_token.clone());
    let there = other.client_with("a", &more[1].access_token).await;
    there.storage().get("k").await.unwrap();
    assert_eq!(signed_in.auth().logout_all().await.unwrap(), 3);
    for opened in &more {
        let again = client.with_credential(opened.access_token.clone());
        assert_eq!(code(again.storage().get("k").await), Some(Code::Unauthenticated));
        assert_eq!(code(client.auth().refresh(opened.refresh_token.clone(), "").await), Some(Code::Unauthenticated));
    }
    // Another node believes its last check for a few seconds more.
    network.clock.advance(FIVE_SECONDS);
    assert_eq!(code(there.storage().get("k").await), Some(Code::Unauthenticated));
    // Other namespaces and other wallets are not touched.
    client.with_credential(elsewhere.access_token).storage().get("k").await.unwrap();
    client.with_credential(stranger.access_token).storage().get("k").await.unwrap();

    assert_eq!(code(client.auth().logout_all().await), Some(Code::Unauthenticated));
    assert_eq!(code(signed_in.auth().logout_all().await), Some(Code::Unauthenticated));
    let key = node.client("k").await;
    assert_eq!(code(key.auth().logout_all().await), Some(Code::Forbidden));
    assert_eq!(code(client.auth().logout("").await), Some(Code::InvalidArgument));
    assert_eq!(code(client.auth().logout("rt_x").await), Some(Code::InvalidArgument));
    assert_eq!(client.auth().logout(format!("rt_{}", "0".repeat(64))).await.unwrap(), 0);
}

/// A subscription may be open for days: it ends with its session, though that was ended on another node.
#[tokio::test]
async fn an_ended_session_loses_its_open_subscription_on_every_node() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let opened = sign_in(&node, 1, "a").await;
    let here = node.client_with("a", &opened.access_token).await;
    let there = other.client_with("a", &opened.access_token).await;
    let mut subscriptions = [here.pubsub().subscribe("t").await.unwrap(), there.pubsub().subscribe("t").await.unwrap()];
    let ended = std::time::Instant::now();
    assert_eq!(here.auth().logout_all().await.unwrap(), 1);
    for subscription in &mut subscriptions {
        let end = tokio::time::timeout(TIMEOUT, subscription.next()).await.expect("an end");
        assert_eq!(end.unwrap().unwrap_err().code, Code::Unauthenticated);
    }
    // The real clock ran here: this is the promise itself, with room for a busy machine.
    assert!(ended.elapsed() < TIMEOUT);
}
