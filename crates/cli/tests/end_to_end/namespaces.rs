//! Two namespaces on one node know nothing of each other.

use crate::network::{Network, Ways};
use crate::support::socket::{Frame, Socket};
use debros_client::Code;
use serde_json::json;

/// Lesson 1: any key could read and drop all tenants' tables and the system's own.
#[tokio::test]
async fn lesson_01_no_namespace_reaches_another_or_the_system() {
    let network = Network::start();
    let a = network.ways("a").await;
    let b = network.ways("b").await;
    for (ways, name) in [(&a, "a"), (&b, "b")] {
        ways.inside.create("CREATE TABLE secrets (v TEXT)").await;
        ways.inside.query("INSERT INTO secrets VALUES (?)", json!([name])).await.ok();
        ways.separate.put_value("same", name).await.ok();
        ways.inside.post("/v1/apps", &json!({ "name": name, "public_key": "k" })).await.ok();
    }
    for (ways, name) in [(&a, "a"), (&b, "b")] {
        assert_eq!(ways.separate.rows("SELECT v FROM secrets", json!([])).await, [json!([name])]);
        assert_eq!(ways.inside.get_value("same").await.ok().body, name.as_bytes());
        assert_eq!(ways.library.storage().get("same").await.unwrap().unwrap().value, name);
        let keys = ways.separate.get("/v1/storage/list?prefix=").await.ok().json();
        assert_eq!(keys["keys"], json!(["same"]));
        let apps = ways.separate.get("/v1/apps").await.ok().json();
        assert_eq!((&apps["count"], &apps["items"][0]["name"]), (&json!(1), &json!(name)));
        let tables = "SELECT name, sql FROM sqlite_master ORDER BY name";
        let listed = ways.inside.rows(tables, json!([])).await;
        assert_eq!(listed, [json!(["secrets", "CREATE TABLE secrets (v TEXT)"])]);
    }
    // The other's application is not there, even for one who knows its id.
    let of_b = b.inside.get("/v1/apps").await.ok().json()["items"][0]["app_id"]
        .as_str()
        .unwrap()
        .to_owned();
    a.inside.get(&format!("/v1/apps/{of_b}")).await.fails(404, "not_found");

    for sql in [
        "SELECT key FROM api_keys",
        "DROP TABLE api_keys",
        "DELETE FROM schema_migrations",
        "SELECT * FROM kv",
        "SELECT * FROM main.kv",
        "SELECT * FROM system.api_keys",
        "SELECT * FROM b.secrets",
        "SELECT * FROM \"ns::b::secrets\"",
        "ATTACH 'b.db' AS b",
        "ATTACH DATABASE '../system.db' AS s",
        "VACUUM INTO '/tmp/stolen.db'",
        "PRAGMA database_list",
        "SELECT load_extension('x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT * FROM pragma_database_list",
    ] {
        for http in [&a.inside, &a.separate] {
            let answer = http.query(sql, json!([])).await;
            assert!(
                (400..500).contains(&answer.status),
                "{sql}: {} {}",
                answer.status,
                answer.text()
            );
            // The statement itself may be repeated to its author; where files lie may not.
            assert!(
                !answer.text().contains(network.folder.path().to_str().unwrap()),
                "{}",
                answer.text()
            );
        }
        assert!(a.library.database().query(sql, []).await.is_err(), "{sql}");
    }
    assert_eq!(b.inside.integer("SELECT count(*) FROM secrets").await, 1);
}

#[tokio::test]
async fn naming_another_namespace_does_not_help() {
    let network = Network::start();
    let a = network.ways("a").await;
    let b = network.ways("b").await;
    b.inside.put_value("k", "of b").await.ok();
    for http in [&a.inside, &a.separate] {
        http.get("/v1/storage?key=k&namespace=b").await.fails(403, "namespace_mismatch");
        http.get("/v1/storage?key=k&namespace=a").await.fails(404, "not_found");
        let mut forged = a.key.rsplit_once(':').unwrap().0.to_owned();
        forged.push_str(":b");
        http.with_key(&forged).get_value("k").await.fails(401, "unauthenticated");
        http.with_key("").get_value("k").await.fails(401, "unauthenticated");
    }
    // Over P2P the node decides too, not the client.
    let liar = network.library("b", &a.key).await;
    assert_eq!(liar.storage().get("k").await.unwrap_err().code, Code::NamespaceMismatch);
    let nobody = network.library("b", "").await;
    assert_eq!(nobody.storage().get("k").await.unwrap_err().code, Code::Unauthenticated);
}

/// Lesson 4: all tenants shared one space of topics.
#[tokio::test]
async fn lesson_04_topics_belong_to_their_namespace() {
    let network = Network::start();
    let Ways { inside, key: key_a, library, .. } = network.ways("a").await;
    let b = network.ways("b").await;
    let mut on_a = Socket::open(network.node.address, &key_a, "chat").await;
    let mut on_b = Socket::open(network.gateway.address, &b.key, "chat").await;
    let mut library_b = b.library.pubsub().subscribe("chat").await.unwrap();
    let publish = |data: &str| json!({ "topic": "chat", "data_base64": debros_proto::json::encode_base64(data.as_bytes()) });
    inside.post("/v1/pubsub/publish", &publish("for a")).await.ok();
    library.pubsub().publish("chat", "for a too").await.unwrap();
    b.separate.post("/v1/pubsub/publish", &publish("for b")).await.ok();
    assert_eq!(on_a.next().await, Frame::Binary(b"for a".to_vec()));
    assert_eq!(on_a.next().await, Frame::Binary(b"for a too".to_vec()));
    // The first that those in b receive is what was published last, and in b.
    assert_eq!(on_b.next().await, Frame::Binary(b"for b".to_vec()));
    let received = library_b.next().await.unwrap().unwrap();
    assert_eq!(received, debros_client::PubsubEvent::Message("for b".into()));

    let _only_a = Socket::open(network.node.address, &key_a, "private").await;
    let topics = |answer: crate::support::http::Answer| answer.ok().json()["topics"].clone();
    assert_eq!(topics(inside.get("/v1/pubsub/topics").await), json!(["chat", "private"]));
    assert_eq!(topics(b.separate.get("/v1/pubsub/topics").await), json!(["chat"]));
}
