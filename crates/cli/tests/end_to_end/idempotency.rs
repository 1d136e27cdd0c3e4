//! A write with an `Idempotency-Key` happens once, whichever gateway it comes through and whatever
//! happens in between.

use crate::network::Network;
use crate::support::Node;
use crate::support::http::{Answer, Http};
use reqwest::Method;
use serde_json::{Value, json};

async fn post(http: &Http, path: &str, key: &str, body: &Value) -> Answer {
    let request = http.request(Method::POST, path).header("Idempotency-Key", key).json(body);
    Answer::of(request.send().await.expect("an answer")).await
}

async fn put(http: &Http, key: &str, name: &str, value: &str) -> Answer {
    let request = http.request(Method::PUT, "/v1/storage").query(&[("key", name)]);
    Answer::of(
        request
            .header("Idempotency-Key", key)
            .body(value.to_owned())
            .send()
            .await
            .expect("an answer"),
    )
    .await
}

#[tokio::test]
async fn a_write_is_repeated_as_an_answer_only() {
    let network = Network::start();
    let ways = network.ways("once").await;
    let (inside, separate) = (&ways.inside, &ways.separate);
    inside.create("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)").await;

    let insert = json!({ "sql": "INSERT INTO t (n) VALUES (?)", "args": [1] });
    let first = post(inside, "/v1/db/query", "k1", &insert).await.ok();
    for http in [separate, inside, separate] {
        let again = post(http, "/v1/db/query", "k1", &insert).await.ok();
        assert_eq!(
            (again.status, again.json()),
            (first.status, first.json()),
            "the first answer again"
        );
    }
    assert_eq!(inside.integer("SELECT count(*) FROM t").await, 1);

    let statements =
        json!({ "statements": ["INSERT INTO t (n) VALUES (2)", "UPDATE t SET n = n + 10"] });
    for http in [separate, inside, separate] {
        post(http, "/v1/db/transaction", "k2", &statements).await.ok();
    }
    assert_eq!(
        inside.rows("SELECT n FROM t ORDER BY id", json!([])).await,
        [json!([11]), json!([12])]
    );

    let version = put(separate, "k3", "a", "1").await.ok().json()["version"].clone();
    inside.put_value("a", "2").await.ok();
    assert_eq!(put(inside, "k3", "a", "1").await.ok().json()["version"], version);
    assert_eq!(inside.get_value("a").await.body, b"2", "the repetition did not put again");

    // Another body under the same key is a mistake of the caller, and changes nothing.
    let other = json!({ "sql": "INSERT INTO t (n) VALUES (?)", "args": [2] });
    for http in [inside, separate] {
        post(http, "/v1/db/query", "k1", &other).await.fails(422, "idempotency_mismatch");
        put(http, "k3", "a", "3").await.fails(422, "idempotency_mismatch");
        put(http, "k3", "b", "1").await.fails(422, "idempotency_mismatch");
    }
    assert_eq!(inside.integer("SELECT count(*) FROM t").await, 2);
    // Keys belong to their namespace.
    let stranger = network.node.http("stranger");
    put(&stranger, "k3", "a", "mine").await.ok();
    assert_eq!(stranger.get_value("a").await.body, b"mine");
}

#[tokio::test]
async fn a_write_is_remembered_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("node");
    let node = Node::start(&data_dir);
    let key = node.api_key("once");
    let http = Http::new(node.address, &key);
    http.create("CREATE TABLE t (n INTEGER)").await;
    let insert = json!({ "sql": "INSERT INTO t VALUES (1) RETURNING n, rowid" });
    let first = post(&http, "/v1/db/query", "k", &insert).await.ok().json();
    node.stop();

    let node = Node::start(&data_dir);
    let http = Http::new(node.address, &key);
    assert_eq!(post(&http, "/v1/db/query", "k", &insert).await.ok().json(), first);
    assert_eq!(http.integer("SELECT count(*) FROM t").await, 1);
}
