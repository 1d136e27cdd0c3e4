//! Members of a namespace, and what two namespaces know of each other.

use crate::support::{
    FIVE_SECONDS, TIMEOUT, address, code, one_node, session, sign_in, try_sign_in, wallet,
};
use debros_client::rpc::Value;
use debros_client::{Client, Code, NewKey, PubsubEvent};

#[tokio::test]
async fn the_owner_gives_roles_and_admins_give_lesser_ones() {
    let (_network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    let given = owner.members().set(address(2).checksummed(), "admin").await.unwrap();
    assert_eq!((given.wallet, given.granted_by), (address(2).to_string(), address(1).to_string()));
    let admin = session(&node, 2, "a").await;
    admin.members().set(address(3).to_string(), "writer").await.unwrap();
    owner.members().set(address(4).to_string(), "admin").await.unwrap();
    let refused = [
        ("gives admin", code(admin.members().set(address(3).to_string(), "admin").await)),
        ("lowers an admin", code(admin.members().set(address(4).to_string(), "reader").await)),
        ("removes an admin", code(admin.members().remove(address(4).to_string()).await)),
        ("changes the owner", code(admin.members().set(address(1).to_string(), "reader").await)),
        ("removes the owner", code(admin.members().remove(address(1).to_string()).await)),
        ("removes itself as owner", code(owner.members().remove(address(1).to_string()).await)),
    ];
    for (name, code) in refused {
        assert_eq!(code, Some(Code::Forbidden), "{name}");
    }
    for bad in ["owner", "operator", "", "Reader"] {
        assert_eq!(
            code(owner.members().set(address(3).to_string(), bad).await),
            Some(Code::InvalidArgument),
            "{bad}"
        );
    }
    assert_eq!(code(owner.members().set("0x12", "reader").await), Some(Code::InvalidArgument));
    let listed: Vec<(String, String)> = owner
        .members()
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|member| (member.wallet, member.role))
        .collect();
    let mut expected = vec![
        (address(2).to_string(), "admin"),
        (address(3).to_string(), "writer"),
        (address(4).to_string(), "admin"),
    ];
    expected.sort();
    expected.insert(0, (address(1).to_string(), "owner"));
    assert_eq!(
        listed,
        expected.into_iter().map(|(wallet, role)| (wallet, role.to_owned())).collect::<Vec<_>>()
    );
    for number in [3, 5] {
        let other =
            if number == 3 { session(&node, 3, "a").await } else { session(&node, 5, "b").await };
        let set = other.members().set(address(6).to_string(), "reader").await;
        assert_eq!(code(set), if number == 3 { Some(Code::Forbidden) } else { None });
    }
    assert!(admin.members().remove(address(3).to_string()).await.unwrap());
    assert!(!admin.members().remove(address(3).to_string()).await.unwrap());
}

/// Whoever was let in may go, whatever the role, and takes the keys along that stand on it.
#[tokio::test]
async fn a_member_leaves_by_itself() {
    let (network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    for (number, role) in [(2, "admin"), (3, "reader")] {
        owner.members().set(address(number).to_string(), role).await.unwrap();
        let member = session(&node, number, "a").await;
        let key = member.auth().create_key(NewKey::default()).await.unwrap().api_key;
        let by_key = node.client_with("a", &key).await;
        // A key is for a program: it gives up nothing of its wallet's.
        assert_eq!(
            code(by_key.members().remove(address(number).to_string()).await),
            Some(Code::Forbidden),
            "{role}"
        );
        assert!(member.members().remove(address(number).to_string()).await.unwrap(), "{role}");
        for client in [&member, &by_key] {
            assert_eq!(
                code(client.storage().get("k").await),
                Some(Code::Unauthenticated),
                "{role}"
            );
        }
        let again =
            try_sign_in(&node.client_without_credential().await, &wallet(number), "a").await;
        assert_eq!(code(again), Some(Code::Forbidden), "{role}");
    }
    let rows = network
        .rows("SELECT subject, detail FROM audit_events WHERE kind = 'grant_revoked' ORDER BY id")
        .await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].values[0], rows[0].values[1], "by itself");
    // A member goes for itself alone, and an owner stays.
    owner.members().set(address(4).to_string(), "writer").await.unwrap();
    let member = session(&node, 4, "a").await;
    owner.members().set(address(5).to_string(), "reader").await.unwrap();
    assert_eq!(code(member.members().remove(address(5).to_string()).await), Some(Code::Forbidden));
    let stays = owner.members().remove(address(1).to_string()).await.unwrap_err();
    assert_eq!(stays.code, Code::Forbidden);
    assert!(stays.message.contains("owns the namespace \"a\""), "{stays}");
}

/// Everything that one namespace could see of another.
async fn fill(client: &Client, mark: &str) {
    client.storage().put("k", mark.to_owned()).await.unwrap();
    client.database().create_table("CREATE TABLE t (a)").await.unwrap();
    client.database().query("INSERT INTO t VALUES (?)", [Value::from(mark)]).await.unwrap();
    client.apps().create(mark, "key").await.unwrap();
    client.auth().create_key(NewKey { name: mark.into(), ..Default::default() }).await.unwrap();
}

#[tokio::test]
async fn two_wallets_in_two_namespaces_see_nothing_of_each_other() {
    let (_network, node) = one_node().await;
    let (a, b) = (session(&node, 1, "a").await, session(&node, 2, "b").await);
    fill(&a, "of a").await;
    let mut heard = b.pubsub().subscribe("news").await.unwrap();
    let mut own = a.pubsub().subscribe("news").await.unwrap();
    assert!(b.storage().list("", 0, "").await.unwrap().keys.is_empty());
    assert!(b.storage().get("k").await.unwrap().is_none());
    assert!(b.database().schema().await.unwrap().is_empty());
    assert_eq!(code(b.database().query("SELECT * FROM t", []).await), Some(Code::Sql));
    for hidden in ["api_keys", "sessions", "namespaces", "secrets", "grants", "used_nonces"] {
        assert_eq!(
            code(b.database().query(format!("SELECT * FROM {hidden}"), []).await),
            Some(Code::Sql),
            "{hidden}"
        );
    }
    assert!(b.apps().list().await.unwrap().is_empty());
    assert!(b.auth().list_keys().await.unwrap().is_empty());
    assert_eq!(b.members().list().await.unwrap().len(), 1);
    let id = a.auth().list_keys().await.unwrap()[0].id.clone();
    assert_eq!(code(b.auth().revoke_key(&id).await), Some(Code::NotFound));
    let app = a.apps().list().await.unwrap()[0].app_id.clone();
    assert_eq!(code(b.apps().get(&app).await), Some(Code::NotFound));
    assert_eq!(code(b.apps().delete(&app).await), Some(Code::NotFound));
    fill(&b, "of b").await;
    assert_eq!(a.storage().get("k").await.unwrap().unwrap().value, "of a");
    let rows = a.database().query("SELECT a FROM t", []).await.unwrap().rows;
    assert_eq!(rows[0].values[0].as_text(), Some("of a"));
    // One topic's name in both: each hears its own.
    a.pubsub().publish("news", "from a").await.unwrap();
    b.pubsub().publish("news", "from b").await.unwrap();
    for (subscription, text) in [(&mut heard, "from b"), (&mut own, "from a")] {
        let event =
            tokio::time::timeout(TIMEOUT, subscription.next()).await.unwrap().unwrap().unwrap();
        assert!(matches!(&event, PubsubEvent::Message(data) if data == text), "{event:?}");
    }
}

/// A reader reads everything and writes nothing, in SQL, storage, pub/sub and apps; losing the role
/// takes it back, from what is open too.
#[tokio::test]
async fn a_reader_reads_and_does_not_write_until_the_role_is_taken() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let owner = session(&node, 1, "a").await;
    fill(&owner, "of a").await;
    let stranger = node.client_without_credential().await;
    assert_eq!(code(try_sign_in(&stranger, &wallet(2), "a").await), Some(Code::Forbidden));
    owner.members().set(address(2).to_string(), "reader").await.unwrap();
    let opened = sign_in(&node, 2, "a").await;
    assert_eq!(opened.role, "reader");
    let reader = node.client_with("a", &opened.access_token).await;
    let there = other.client_with("a", &opened.access_token).await;
    assert_eq!(reader.storage().get("k").await.unwrap().unwrap().value, "of a");
    assert_eq!(reader.database().query("SELECT a FROM t", []).await.unwrap().rows.len(), 1);
    let app = reader.apps().list().await.unwrap()[0].app_id.clone();
    let mut subscription = reader.pubsub().subscribe("news").await.unwrap();
    let mut remote = there.pubsub().subscribe("news").await.unwrap();
    owner.pubsub().publish("news", "x").await.unwrap();
    tokio::time::timeout(TIMEOUT, subscription.next()).await.unwrap().unwrap().unwrap();
    let forbidden = [
        code(reader.storage().put("k", "changed").await),
        code(reader.storage().delete("k").await),
        code(reader.database().query("INSERT INTO t VALUES (2)", []).await),
        code(
            reader.database().query("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", []).await,
        ),
        code(reader.database().query("UPDATE t SET a = 2 RETURNING a", []).await),
        code(reader.database().query("DROP TABLE t", []).await),
        code(reader.database().transaction(["DELETE FROM t"]).await),
        code(reader.database().create_table("CREATE TABLE u (a)").await),
        code(reader.database().drop_table("t").await),
        code(reader.pubsub().publish("news", "x").await),
        code(reader.apps().create("n", "k").await),
        code(reader.apps().delete(&app).await),
        code(reader.members().list().await),
        code(reader.members().set(address(2).to_string(), "admin").await),
    ];
    for (index, code) in forbidden.into_iter().enumerate() {
        assert_eq!(code, Some(Code::Forbidden), "attempt {index}");
    }
    assert_eq!(owner.storage().get("k").await.unwrap().unwrap().value, "of a");

    // More while the session is open, then nothing.
    owner.members().set(address(2).to_string(), "writer").await.unwrap();
    reader.storage().put("k", "changed").await.unwrap();
    assert!(owner.members().remove(address(2).to_string()).await.unwrap());
    assert_eq!(code(reader.storage().get("k").await), Some(Code::Unauthenticated));
    assert_eq!(code(try_sign_in(&stranger, &wallet(2), "a").await), Some(Code::Forbidden));
    network.clock.advance(FIVE_SECONDS);
    assert_eq!(code(there.storage().get("k").await), Some(Code::Unauthenticated));
    for subscription in [&mut subscription, &mut remote] {
        let ended = tokio::time::timeout(TIMEOUT, subscription.next()).await.expect("an end");
        assert_eq!(ended.unwrap().unwrap_err().code, Code::Unauthenticated);
    }
    owner.storage().get("k").await.unwrap();
}

/// Who lost a role a moment ago on another node cannot use the seconds to give it away.
#[tokio::test]
async fn an_admin_who_was_removed_grants_nothing_more_on_any_node() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let owner = session(&node, 1, "a").await;
    owner.members().set(address(2).to_string(), "admin").await.unwrap();
    let admin = session(&other, 2, "a").await;
    admin.members().list().await.unwrap();
    owner.members().remove(address(2).to_string()).await.unwrap();
    admin.members().list().await.expect("the other node believes its last check");
    assert_eq!(
        code(admin.members().set(address(3).to_string(), "writer").await),
        Some(Code::Unauthenticated)
    );
    assert_eq!(code(admin.auth().create_key(NewKey::default()).await), Some(Code::Unauthenticated));
    assert_eq!(network.count("grants").await + network.count("api_keys").await, 0);
}
