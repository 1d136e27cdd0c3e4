//! What one wallet, or a stranger with its address, can do to others and to the node's tables.

use crate::support::{
    address, code, one_node, one_node_at_one_moment, proof, session, try_sign_in, wallet,
};
use debros_client::{Client, Code, Config, NewKey, Scope};
use std::net::IpAddr;

const MANY: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ";

/// Lesson 10: keys and members grew without an end, and so did their lists.
#[tokio::test]
async fn lesson_10_keys_and_members_of_a_namespace_are_bounded() {
    let (network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    network
        .rows(&format!(
            "{MANY}1000) INSERT INTO api_keys (id, hash, prefix, namespace, role, created_at) \
             SELECT 'k' || i, CAST(i AS BLOB), 'ak', 'a', 'reader', i FROM n"
        ))
        .await;
    let full = owner.auth().create_key(NewKey::default()).await.unwrap_err();
    assert_eq!(full.code, Code::Conflict);
    assert!(full.message.contains("revoke one first"), "{full}");
    let by_proof = proof(&node.client_without_credential().await, &wallet(1), "a").await;
    assert_eq!(
        code(owner.auth().create_key_by_proof(by_proof, NewKey::default()).await),
        Some(Code::Conflict)
    );
    assert!(owner.auth().revoke_key("k7").await.unwrap());
    owner.auth().create_key(NewKey::default()).await.unwrap();
    session(&node, 2, "b").await.auth().create_key(NewKey::default()).await.unwrap();

    network
        .rows(&format!(
            "{MANY}1000) INSERT INTO grants SELECT 'a', '0x' || printf('%040x', i), 'reader', 'x', 1 FROM n"
        ))
        .await;
    let full = owner.members().set(address(3).to_string(), "reader").await.unwrap_err();
    assert_eq!(full.code, Code::Conflict);
    assert!(full.message.contains("remove one first"), "{full}");
    let there = format!("0x{:040x}", 1);
    owner.members().set(&there, "writer").await.unwrap();
    assert!(owner.members().remove(&there).await.unwrap());
    owner.members().set(address(3).to_string(), "reader").await.unwrap();
}

#[tokio::test]
async fn revoked_keys_are_forgotten_in_the_end() {
    let (network, node) = one_node().await;
    let now = debros_proto::now_ms();
    network
        .rows(&format!(
            "{MANY}1500) INSERT INTO api_keys (id, hash, prefix, namespace, role, created_at, revoked_at) \
             SELECT 'k' || i, CAST(i AS BLOB), 'ak', 'a', 'reader', 1, {now} - i FROM n"
        ))
        .await;
    node.node().sweep().await.unwrap();
    assert_eq!(network.count("api_keys").await, 1000);
    assert_eq!(network.count("api_keys WHERE id = 'k1'").await, 1, "the newest are kept");
    network
        .rows(&format!("UPDATE api_keys SET revoked_at = {now} - 91 * 86400000 WHERE id = 'k1'"))
        .await;
    node.node().sweep().await.unwrap();
    assert_eq!(network.count("api_keys WHERE id = 'k1'").await, 0);
}

/// One wallet pushed everything else out of the audit.
#[tokio::test]
async fn one_namespace_pushes_nothing_out_of_the_audit_of_others() {
    let (network, node) = one_node_at_one_moment().await;
    let owner = session(&node, 1, "a").await;
    let now = debros_proto::now_ms();
    network
        .rows(&format!(
            "{MANY}12000) INSERT INTO audit_events (at, kind, namespace) SELECT {now}, 'grant', 'noisy' FROM n"
        ))
        .await;
    node.node().sweep().await.unwrap();
    assert_eq!(network.count("audit_events WHERE namespace = 'noisy'").await, 10_000);
    assert_eq!(network.count("audit_events WHERE kind = 'sign_in'").await, 1);
    // What changes nothing is no event.
    for _ in 0..5 {
        owner.members().set(address(2).to_string(), "writer").await.unwrap();
    }
    assert_eq!(network.count("audit_events WHERE kind = 'grant' AND namespace = 'a'").await, 1);
    let mut refused = None;
    for _ in 0..40 {
        refused = code(owner.members().remove(address(3).to_string()).await).or(refused);
    }
    assert_eq!(refused, Some(Code::RateLimited));
}

/// Whoever saw a proof used up what its owner may prove.
#[tokio::test]
async fn a_used_proof_that_comes_again_does_not_count_against_its_owner() {
    let (_network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let seen = proof(&client, &wallet(1), "a").await;
    client.auth().sign_in(seen.clone()).await.unwrap();
    for _ in 0..30 {
        assert!(client.auth().sign_in(seen.clone()).await.is_err());
    }
    try_sign_in(&client, &wallet(1), "a").await.unwrap();
}

#[tokio::test]
async fn one_peer_claims_a_few_namespaces_at_a_time() {
    let (network, node) = one_node_at_one_moment().await;
    let client = node.client_without_credential().await;
    let mut claimed = 0;
    for number in 1..=30_u8 {
        match try_sign_in(&client, &wallet(number), &format!("n{number}")).await {
            Ok(_) => claimed += 1,
            Err(error) => assert_eq!(error.code, Code::RateLimited, "{error}"),
        }
    }
    assert_eq!((claimed, network.count("namespaces").await), (20, 20));
    try_sign_in(&client, &wallet(1), "n1").await.unwrap();
    try_sign_in(&node.client_without_credential().await, &wallet(31), "n31").await.unwrap();
}

/// Signs 30 wallets in for namespaces of their own; how many became owners.
async fn claim_thirty(client: &Client, from: u8, named: impl Fn(u8) -> Option<IpAddr>) -> usize {
    let mut claimed = 0;
    for number in from..from + 30 {
        let client =
            client.scoped(Scope { caller_address: named(number), ..client.scope().clone() });
        match try_sign_in(&client, &wallet(number), &format!("n{number}")).await {
            Ok(_) => claimed += 1,
            Err(error) => assert_eq!(error.code, Code::RateLimited, "{error}"),
        }
    }
    claimed
}

fn user(number: u8) -> Option<IpAddr> {
    Some(IpAddr::from([192, 0, 2, number]))
}

/// All users of a separate gateway shared what one peer may claim.
#[tokio::test]
async fn new_namespaces_count_for_the_user_behind_a_gateway_of_the_operator() {
    let (_network, node) = one_node().await;
    let config = Config::new("").bootstrap_peer(node.address());
    let config = config.introduction(node.node().peer_id(), node.node().operator_credential());
    let gateway = Client::connect(config).await.unwrap();
    assert_eq!(claim_thirty(&gateway, 1, user).await, 30, "each user its own");
    // A slow machine gives one back now and then; ten would take a hundred seconds.
    let one_user = claim_thirty(&gateway, 31, |_| user(200)).await;
    assert!((20..30).contains(&one_user), "{one_user}: as one peer");
    // The user is the same through another gateway.
    let inside = node.operator_client("").with_credential("");
    let same_user = claim_thirty(&inside, 61, |_| user(200)).await;
    assert!(same_user < 10, "{same_user}");
    let other_user = claim_thirty(&inside, 91, |_| user(201)).await;
    assert!((20..30).contains(&other_user), "{other_user}");
    // A proxy on this machine that the gateway does not know as one: all its users are one, and not
    // without a limit.
    let proxy = claim_thirty(&inside, 121, |_| Some(IpAddr::from([127, 0, 0, 1]))).await;
    assert!((20..30).contains(&proxy), "{proxy}");
    assert_eq!(claim_thirty(&inside, 151, |_| None).await, 30, "a program in the process itself");
}

#[tokio::test]
async fn a_peer_that_names_many_users_gains_little() {
    let (_network, node) = one_node().await;
    let liar = node.client_without_credential().await;
    let mut claimed = 0;
    for from in [1, 31, 61, 91, 121] {
        claimed += claim_thirty(&liar, from, user).await;
    }
    assert!((100..150).contains(&claimed), "{claimed}");
    let liar = node.client_without_credential().await;
    let one_user = claim_thirty(&liar, 151, |_| user(1)).await;
    assert!((20..30).contains(&one_user), "{one_user}: one address is one user with it as well");
}

#[tokio::test]
async fn an_open_namespace_is_everybodys_and_answers_are_each_ones_own() {
    let (_network, node) = one_node().await;
    let (one, two) = (session(&node, 1, "default").await, session(&node, 2, "default").await);
    let listed = one.members().list().await.err().map(|error| error.code);
    assert!(matches!(listed, None | Some(Code::Forbidden)));
    let members = node.operator_client("default").members().list().await.unwrap();
    assert_eq!(
        (members.len(), members[0].wallet.as_str(), members[0].role.as_str()),
        (1, "*", "writer")
    );
    let keyed = |client: &debros_client::Client| client.once("same");
    let first = keyed(&one).apps().create("shop", "key").await.unwrap();
    let second = keyed(&two).apps().create("shop", "key").await.unwrap();
    assert_ne!(first.app_id, second.app_id, "one wallet was answered with what another did");
    assert_eq!(keyed(&one).apps().create("shop", "key").await.unwrap().app_id, first.app_id);
}

#[tokio::test]
async fn refusals_and_names_say_what_is_wrong() {
    let (_network, node) = one_node().await;
    node.operator_client("mine").storage().put("k", "v").await.unwrap();
    let refused =
        try_sign_in(&node.client_without_credential().await, &wallet(1), "mine").await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    assert!(refused.message.contains("somebody else"), "{refused}");
    let owner = session(&node, 1, "a").await;
    for bad in ["a\nb", "\u{1b}[31m", "a\0"] {
        let key = NewKey { name: bad.into(), ..Default::default() };
        assert_eq!(code(owner.auth().create_key(key).await), Some(Code::InvalidArgument));
    }
}
