//! API keys of wallets.

use crate::support::{
    FIVE_SECONDS, TIMEOUT, address, code, one_node, proof, session, sign_in, wallet,
};
use debros_client::{Code, NewKey};
use debros_testkit::TestNode;

fn key(role: &str, scopes: &[&str]) -> NewKey {
    NewKey {
        name: "k".into(),
        role: role.into(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    }
}

/// Lesson 11: keys had no scopes. Every call that a key's scopes do not name is refused.
#[tokio::test]
async fn lesson_11_a_key_without_the_scope_is_refused() {
    let (_network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    let made =
        owner.auth().create_key(key("writer", &["storage:read", "pubsub:publish"])).await.unwrap();
    let client = node.client_with("a", &made.api_key).await;
    client.storage().list("", 0, "").await.unwrap();
    client.pubsub().publish("t", "x").await.unwrap();
    let refused = [
        code(client.storage().put("k", "v").await),
        code(client.storage().delete("k").await),
        code(client.database().query("SELECT 1", []).await),
        code(client.database().transaction(["SELECT 1"]).await),
        code(client.database().create_table("CREATE TABLE t (a)").await),
        code(client.database().schema().await),
        code(client.pubsub().subscribe("t").await),
        code(client.pubsub().topics().await),
        code(client.apps().list().await),
        code(client.apps().create("n", "k").await),
        code(client.auth().list_keys().await),
        code(client.auth().create_key(key("reader", &[])).await),
        code(client.auth().revoke_key("x").await),
        code(client.members().list().await),
        code(client.members().set(address(2).to_string(), "reader").await),
        code(client.members().remove(address(2).to_string()).await),
        code(client.operator().backups().await),
    ];
    for (index, code) in refused.into_iter().enumerate() {
        assert_eq!(code, Some(Code::Forbidden), "attempt {index}");
    }
    // The access token made with it may do no more.
    let token = client.auth().token().await.unwrap().access_token;
    let by_token = client.with_credential(token);
    assert_eq!(code(by_token.storage().put("k", "v").await), Some(Code::Forbidden));
    assert_eq!(
        code(by_token.auth().token().await),
        Some(Code::Forbidden),
        "a token is not exchanged for another"
    );
}

#[tokio::test]
async fn a_key_never_begets_a_wider_one() {
    let (_network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    let connect = async |api_key: &str| node.client_with("a", api_key).await;
    let admin = connect(&owner.auth().create_key(key("admin", &[])).await.unwrap().api_key).await;
    let child = admin.auth().create_key(key("admin", &[])).await.unwrap();
    assert_eq!(
        child.info.unwrap().wallet,
        address(1).to_string(),
        "a key of a wallet's key is the wallet's"
    );
    assert_eq!(code(owner.auth().create_key(key("owner", &[])).await), Some(Code::InvalidArgument));
    assert_eq!(
        code(owner.auth().create_key(key("operator", &[])).await),
        Some(Code::InvalidArgument)
    );
    for parent in [key("writer", &[]), key("reader", &[]), key("admin", &["storage:read"])] {
        let parent = connect(&owner.auth().create_key(parent).await.unwrap().api_key).await;
        assert_eq!(code(parent.auth().create_key(key("reader", &[])).await), Some(Code::Forbidden));
    }
    let elsewhere = admin.operator().create_api_key("b", "x", "reader", vec![]).await;
    assert_eq!(code(elsewhere), Some(Code::NamespaceMismatch));
    let elsewhere = owner.operator().create_api_key("b", "x", "reader", vec![]).await;
    assert_eq!(code(elsewhere), Some(Code::NamespaceMismatch));
    for (name, bad) in [
        ("scope", key("", &["storage:delete"])),
        ("name", NewKey { name: "x".repeat(101), ..Default::default() }),
    ] {
        assert_eq!(code(owner.auth().create_key(bad).await), Some(Code::InvalidArgument), "{name}");
    }
}

#[tokio::test]
async fn a_key_can_do_no_more_than_its_wallet_can_do_now() {
    let (_network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    let member = address(2).to_string();
    owner.members().set(&member, "writer").await.unwrap();
    let theirs = session(&node, 2, "a").await;
    assert_eq!(code(theirs.auth().create_key(key("admin", &[])).await), Some(Code::Forbidden));
    let made = theirs.auth().create_key(key("", &[])).await.unwrap();
    let client = node.client_with("a", &made.api_key).await;
    let by_token = client.with_credential(client.auth().token().await.unwrap().access_token);
    client.storage().put("k", "v").await.unwrap();

    owner.members().set(&member, "reader").await.unwrap();
    for client in [&client, &by_token] {
        assert_eq!(client.network().who_am_i().await.unwrap().role, "reader");
        assert_eq!(code(client.storage().put("k", "w").await), Some(Code::Forbidden));
        client.storage().get("k").await.unwrap();
    }
    let narrower = theirs.auth().create_key(key("", &[])).await.unwrap();
    assert_eq!(narrower.info.unwrap().role, "reader");

    owner.members().remove(&member).await.unwrap();
    for client in [&client, &by_token, &theirs] {
        assert_eq!(code(client.storage().get("k").await), Some(Code::Unauthenticated));
    }
    owner.members().set(&member, "admin").await.unwrap();
    assert_eq!(
        client.network().who_am_i().await.unwrap().role,
        "writer",
        "the key's own role stays"
    );
}

#[tokio::test]
async fn a_wallet_without_the_right_to_keys_sees_its_own_alone() {
    let (_network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    owner.members().set(address(2).to_string(), "reader").await.unwrap();
    owner.members().set(address(3).to_string(), "admin").await.unwrap();
    let owners = owner.auth().create_key(key("", &[])).await.unwrap().info.unwrap();
    let reader = session(&node, 2, "a").await;
    let own = reader.auth().create_key(key("", &[])).await.unwrap().info.unwrap();
    let listed = reader.auth().list_keys().await.unwrap();
    assert_eq!(listed.iter().map(|key| &key.id).collect::<Vec<_>>(), [&own.id]);
    assert_eq!(code(reader.auth().revoke_key(&owners.id).await), Some(Code::NotFound));
    let admin = session(&node, 3, "a").await;
    assert_eq!(admin.auth().list_keys().await.unwrap().len(), 2);
    assert!(admin.auth().revoke_key(&own.id).await.unwrap());
    assert!(!reader.auth().revoke_key(&own.id).await.unwrap());
}

/// SPEC §7: a revoked key stops working everywhere within 5 seconds.
#[tokio::test]
async fn a_key_revoked_on_one_node_is_refused_by_another_within_five_seconds() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let owner = session(&node, 1, "a").await;
    let made = owner.auth().create_key(key("", &[])).await.unwrap();
    let id = made.info.unwrap().id;
    let there = other.client_with("a", &made.api_key).await;
    let by_token = there.with_credential(there.auth().token().await.unwrap().access_token);
    there.storage().put("k", "v").await.unwrap();
    by_token.storage().get("k").await.unwrap();
    let mut subscription = there.pubsub().subscribe("t").await.unwrap();
    assert!(owner.auth().revoke_key(&id).await.unwrap());
    let here = node.client_with("a", &made.api_key).await;
    assert_eq!(code(here.storage().get("k").await), Some(Code::CredentialRevoked));
    network.clock.advance(FIVE_SECONDS);
    assert_eq!(code(there.storage().get("k").await), Some(Code::CredentialRevoked));
    assert_eq!(code(by_token.storage().get("k").await), Some(Code::CredentialRevoked));
    let ended = tokio::time::timeout(TIMEOUT, subscription.next()).await.expect("an end");
    assert_eq!(ended.unwrap().unwrap_err().code, Code::CredentialRevoked);
}

/// The role that is shown of a key is what it can do.
#[tokio::test]
async fn a_key_tells_the_role_that_its_scopes_leave_it() {
    let (_network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    for (role, scopes, expected) in [
        ("", &["db:read", "storage:read"][..], "reader"),
        ("writer", &["pubsub:subscribe"], "reader"),
        ("admin", &["storage:write"], "writer"),
        ("writer", &[], "writer"),
    ] {
        let made = owner.auth().create_key(key(role, scopes)).await.unwrap();
        let info = made.info.unwrap();
        let me = node.client_with("a", &made.api_key).await.network().who_am_i().await.unwrap();
        assert_eq!(
            (info.role.as_str(), me.role.as_str()),
            (expected, expected),
            "{role} {scopes:?}"
        );
        let listed = owner.auth().list_keys().await.unwrap();
        assert_eq!(listed.iter().find(|key| key.id == info.id).unwrap().role, expected);
    }
}

/// A revocation on another node is not seen for a few seconds; what would outlive them is refused
/// at once.
#[tokio::test]
async fn a_revoked_key_makes_no_other_on_any_node() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let owner = session(&node, 1, "a").await;
    let made = owner.auth().create_key(key("admin", &[])).await.unwrap();
    let there = other.client_with("a", &made.api_key).await;
    there.members().list().await.unwrap();
    owner.auth().revoke_key(made.info.unwrap().id).await.unwrap();
    there.members().list().await.expect("the other node believes its last check");
    assert_eq!(code(there.auth().create_key(key("admin", &[])).await), Some(Code::Unauthenticated));
    assert_eq!(
        code(there.members().set(address(5).to_string(), "writer").await),
        Some(Code::Unauthenticated)
    );
    assert_eq!(network.count("api_keys").await, 1);
    assert_eq!(network.count("grants").await, 0);
}

#[tokio::test]
async fn a_key_by_proof_is_capped_by_the_wallets_role() {
    let (_network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    owner.members().set(address(2).to_string(), "reader").await.unwrap();
    let client = node.client_without_credential().await;
    let wide = client
        .auth()
        .create_key_by_proof(proof(&client, &wallet(2), "a").await, key("writer", &[]))
        .await;
    assert_eq!(code(wide), Some(Code::Forbidden));
    let made = client
        .auth()
        .create_key_by_proof(proof(&client, &wallet(2), "a").await, key("", &[]))
        .await
        .unwrap();
    assert_eq!(made.info.unwrap().role, "reader");
    let app = client.auth().register_app(proof(&client, &wallet(2), "a").await, "x").await;
    assert_eq!(code(app), Some(Code::Forbidden), "a reader registers nothing");
    let made = client
        .auth()
        .create_key_by_proof(proof(&client, &wallet(1), "a").await, key("admin", &[]))
        .await;
    assert_eq!(made.unwrap().info.unwrap().role, "admin");
    // And a first wallet owns what it makes a key for.
    let made = client
        .auth()
        .create_key_by_proof(proof(&client, &wallet(3), "new").await, key("", &[]))
        .await
        .unwrap();
    client.with_credential(made.api_key).storage().put("k", "v").await.unwrap();
    assert_eq!(sign_in(&node, 3, "new").await.role, "owner");
}

#[tokio::test]
async fn an_app_made_in_a_session_carries_its_wallet() {
    let node = TestNode::start().await;
    let owner = session(&node, 1, "a").await;
    let app = owner.apps().create("n", "k").await.unwrap();
    assert_eq!(app.wallet, address(1).to_string());
    let key = owner.auth().create_key(key("", &[])).await.unwrap().api_key;
    let by_key = node.client_with("a", &key).await;
    assert_eq!(by_key.apps().create("n", "k").await.unwrap().wallet, "");
    assert_eq!(by_key.apps().get(&app.app_id).await.unwrap().wallet, app.wallet);
}
