//! The gateway before a real node: inside it, and separate from it over P2P.

use crate::http_client::{Answer, Http};
use crate::setup::{config, patience, until};
use crate::websocket_client::{Socket, close_code, message, notice, open, send};
use debros_client::{Client, Config};
use debros_gateway::Gateway;
use debros_testkit::TestNode;
use serde_json::json;

/// A gateway and a key for it.
struct Entrance {
    gateway: Gateway,
    key: String,
}

impl Entrance {
    async fn call_with(
        &self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        let headers = [&[("X-API-Key", self.key.as_str())], more].concat();
        Http::connect(self.gateway.address())
            .await
            .request(method, path, &headers, body.as_ref())
            .await
    }

    async fn call(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.call_with(method, path, &[], body).await
    }

    async fn query(&self, sql: &str, args: serde_json::Value) -> Answer {
        self.call("POST", "/v1/db/query", json!({"sql": sql, "args": args}).to_string()).await
    }

    async fn subscribe(&self, topic: &str) -> Socket {
        let path = format!("/v1/pubsub/ws?topic={topic}");
        open(self.gateway.address(), &path, &[("X-API-Key", &self.key)]).await.unwrap().0
    }
}

async fn separate_gateway(node: &TestNode) -> Gateway {
    let client = Client::connect(Config::new("").bootstrap_peer(node.address())).await.unwrap();
    let config = config(|config| {
        config.operator_credential = Some(node.node().operator_credential().to_owned())
    });
    Gateway::start(config, client, None).await.unwrap()
}

/// A node with both kinds of gateway before it.
async fn node_and_entrances() -> (TestNode, [Entrance; 2]) {
    let node = TestNode::start().await;
    let key = node.api_key("app").await;
    let inside = Entrance { gateway: node.gateway().await, key: key.clone() };
    let separate = Entrance { gateway: separate_gateway(&node).await, key };
    (node, [inside, separate])
}

/// Acceptance: what is put through one way in is read through the others.
#[tokio::test]
async fn every_way_in_leads_to_the_same_data() {
    let (node, [inside, separate]) = node_and_entrances().await;
    assert_eq!(inside.call("PUT", "/v1/storage?key=k", b"\x00\xff").await.status, 201);
    assert_eq!(separate.call("GET", "/v1/storage?key=k", "").await.body, b"\x00\xff");
    let client = node.client_with("app", &inside.key).await;
    assert_eq!(&client.storage().get("k").await.unwrap().unwrap().value[..], b"\x00\xff");

    let created = separate
        .call("POST", "/v1/db/create-table", r#"{"schema":"CREATE TABLE t (a UNIQUE)"}"#)
        .await;
    assert_eq!(created.status, 201);
    assert_eq!(
        inside.query("INSERT INTO t VALUES (?)", json!([1])).await.json()["rows_affected"],
        1
    );
    assert_eq!(separate.query("SELECT a FROM t", json!([])).await.json()["rows"], json!([[1]]));
    separate.query("INSERT INTO t VALUES (1)", json!([])).await.assert_error(409, "constraint");
    let tables = inside.call("GET", "/v1/db/schema", "").await.json();
    assert_eq!(tables["tables"][0]["name"], "t");
    let dropped = inside.call("POST", "/v1/db/drop-table", r#"{"table":"t"}"#).await;
    assert_eq!(dropped.status, 200);

    let (mut here, mut there) = (inside.subscribe("news").await, separate.subscribe("news").await);
    client.pubsub().publish("news", "x").await.unwrap();
    assert_eq!(
        (message(&mut here).await, message(&mut there).await),
        (b"x".to_vec(), b"x".to_vec())
    );
    assert_eq!(
        separate.call("GET", "/v1/pubsub/topics", "").await.json(),
        json!({"topics": ["news"]})
    );

    for entrance in [&inside, &separate] {
        let status = entrance.call("GET", "/v1/network/status", "").await.json();
        assert_eq!(status["peer_id"], node.node().peer_id().to_string());
        assert_eq!(entrance.call("GET", "/ready", "").await.status, 200);
        assert_eq!(entrance.call("GET", "/health", "").await.json()["status"], "ok");
        assert_eq!(entrance.call("GET", "/v1/auth/whoami", "").await.json()["namespace"], "app");
    }
    let app = inside.call("POST", "/v1/apps", r#"{"name":"shop","public_key":"pk"}"#).await.json();
    let path = format!("/v1/apps/{}", app["app_id"].as_str().unwrap());
    assert_eq!(separate.call("GET", &path, "").await.json(), app);
    assert_eq!(separate.call("DELETE", &path, "").await.status, 200);
}

/// Acceptance: values come back exact. Lessons 18 and 21.
#[tokio::test]
async fn lesson_18_21_values_come_back_exact() {
    let (_node, entrances) = node_and_entrances().await;
    for entrance in &entrances {
        let exact = entrance
            .query(
                "SELECT 9007199254740993, ?, '', ?, 9e999 - 9e999, 9e999",
                json!([i64::MIN, {"$blob": "AP8="}]),
            )
            .await;
        let back = r#"{"sql":"SELECT ? = 9e999, ? = -9e999, typeof(?)","args":[9e999,-9e999,-0]}"#;
        let back = entrance.call("POST", "/v1/db/query", back).await.json();
        assert_eq!(back["rows"], json!([[1, 1, "integer"]]), "what came out can be sent in");
        let body = String::from_utf8(exact.body).unwrap();
        let rows =
            r#""rows":[[9007199254740993,-9223372036854775808,"",{"$blob":"AP8="},null,9e999]]"#;
        assert!(body.contains(rows), "{body}");

        let value: Vec<u8> = (0..=255).cycle().take(4 << 20).collect();
        assert_eq!(entrance.call("PUT", "/v1/storage?key=big", &value).await.status, 201);
        assert_eq!(entrance.call("GET", "/v1/storage?key=big", "").await.body, value);

        entrance.query("CREATE TABLE IF NOT EXISTS numbers (n INTEGER)", json!([])).await;
        entrance.query("DELETE FROM numbers", json!([])).await;
        let statements: Vec<_> = (0..1000)
            .map(|n| json!({"sql": "INSERT INTO numbers VALUES (?)", "args": [n]}))
            .collect();
        let transaction = json!({"statements": statements}).to_string();
        let done = entrance.call("POST", "/v1/db/transaction", transaction).await;
        assert_eq!((done.status, done.json()["results"].as_array().unwrap().len()), (200, 1000));
        let failed =
            json!({"statements": ["DELETE FROM numbers", "INSERT INTO nowhere VALUES (1)"]})
                .to_string();
        let failed = entrance.call("POST", "/v1/db/transaction", failed).await;
        failed.assert_error(400, "sql_error");
        assert_eq!(failed.json()["statement"], 1);
        let rows = "SELECT a.n * 10 + b.n FROM numbers a, numbers b WHERE b.n < 10 ORDER BY 1";
        let rows = entrance.query(rows, json!([])).await.json();
        assert_eq!(rows["count"], 10_000);
        for (index, row) in rows["rows"].as_array().unwrap().iter().enumerate() {
            assert_eq!(row[0], index);
        }
    }
}

#[tokio::test]
async fn versions_and_expiry_hold_at_the_engine() {
    let (_node, entrances) = node_and_entrances().await;
    for (number, entrance) in entrances.iter().enumerate() {
        let path = format!("/v1/storage?key=v{number}");
        let with = async |name: &str, tag: &str| {
            entrance.call_with("PUT", &path, &[(name, tag)], "v").await
        };
        with("If-Match", "*").await.assert_error(412, "precondition_failed");
        with("If-Match", "\"1\"").await.assert_error(412, "precondition_failed");
        let first = with("If-None-Match", "*").await;
        let tag = first.header("etag").unwrap().to_owned();
        with("If-None-Match", "*").await.assert_error(412, "precondition_failed");
        with("If-None-Match", &tag).await.assert_error(412, "precondition_failed");
        with("If-Match", "\"not-ours\"").await.assert_error(412, "precondition_failed");
        let second = with("If-Match", &tag).await;
        assert_eq!(second.status, 201);
        assert_ne!(second.header("etag"), Some(tag.as_str()));
        let unchanged = entrance
            .call_with("GET", &path, &[("If-None-Match", second.header("etag").unwrap())], "")
            .await;
        assert_eq!(unchanged.status, 304);
        entrance
            .call_with("DELETE", &path, &[("If-Match", &tag)], "")
            .await
            .assert_error(412, "precondition_failed");
        assert_eq!(entrance.call("DELETE", &path, "").await.json()["deleted"], true);
        assert_eq!(entrance.call("PUT", &format!("{path}&ttl=3600"), "v").await.status, 201);
    }
}

#[tokio::test]
async fn an_idempotency_key_makes_a_write_happen_once_through_any_gateway() {
    let (_node, [inside, separate]) = node_and_entrances().await;
    inside.query("CREATE TABLE t (a)", json!([])).await;
    let once = [("Idempotency-Key", "order-17")];
    let insert = json!({"sql": "INSERT INTO t VALUES (1)"}).to_string();
    let first = inside.call_with("POST", "/v1/db/query", &once, &insert).await;
    let again = separate.call_with("POST", "/v1/db/query", &once, &insert).await;
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.json(), again.json());
    assert_eq!(
        (first.header("idempotent-replayed"), again.header("idempotent-replayed")),
        (None, Some("true"))
    );
    assert_eq!(
        inside.query("SELECT count(*) FROM t", json!([])).await.json()["rows"],
        json!([[1]])
    );
    let other = json!({"sql": "INSERT INTO t VALUES (2)"}).to_string();
    let other = separate.call_with("POST", "/v1/db/query", &once, other).await;
    other.assert_error(422, "idempotency_mismatch");
    assert_eq!(other.header("idempotent-replayed"), None, "an error was not given before");
    for (method, path, body) in [
        ("PUT", "/v1/storage?key=k", "value"),
        ("DELETE", "/v1/storage?key=k", ""),
        ("POST", "/v1/db/create-table", r#"{"schema":"CREATE TABLE u (a)"}"#),
        ("POST", "/v1/pubsub/publish", r#"{"topic":"t","data_base64":""}"#),
    ] {
        for (entrance, replayed) in
            [(&inside, None), (&separate, Some("true")), (&inside, Some("true"))]
        {
            let answer = entrance
                .call_with(method, path, &[("Idempotency-Key", &format!("{method} {path}"))], body)
                .await;
            assert!(answer.status < 300, "{path}: {}", answer.status);
            assert_eq!(answer.header("idempotent-replayed"), replayed, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_node_decides_what_a_key_allows() {
    let node = TestNode::start().await;
    let reader = Entrance {
        gateway: node.gateway().await,
        key: node.api_key_with("app", "reader", &[]).await,
    };
    reader.call("PUT", "/v1/storage?key=k", "v").await.assert_error(403, "forbidden");
    reader.call("GET", "/v1/storage?key=k", "").await.assert_error(404, "not_found");
    let message = reader
        .call("GET", "/v1/storage?key=k&namespace=other", "")
        .await
        .assert_error(403, "namespace_mismatch");
    assert!(message.starts_with("namespace mismatch"), "{message}");
    reader
        .call("POST", "/v1/network/connect", r#"{"multiaddr":"/ip4/127.0.0.1/tcp/1"}"#)
        .await
        .assert_error(403, "forbidden");
    let stranger = Entrance { key: "ak_guess:app".into(), ..reader };
    stranger.call("GET", "/v1/storage?key=k", "").await.assert_error(401, "unauthenticated");
    let body = vec![b'x'; 1 << 20];
    stranger.call("PUT", "/v1/storage?key=k", body).await.assert_error(401, "unauthenticated");
}

#[tokio::test]
async fn a_separate_gateway_comes_back_after_the_node_restarts() {
    let node = TestNode::start().await;
    let entrance =
        Entrance { gateway: separate_gateway(&node).await, key: node.api_key("app").await };
    entrance.call("PUT", "/v1/storage?key=k", "kept").await;
    let mut socket = entrance.subscribe("t").await;
    let _node = node.restart().await;
    assert_eq!(notice(&mut socket).await, json!({"type": "reconnected"}));
    send(&mut socket, "on").await;
    assert_eq!(message(&mut socket).await, b"on");
    assert_eq!(entrance.call("GET", "/v1/storage?key=k", "").await.body, b"kept");
}

/// Acceptance: a stop answers what it accepted, with the node behind it stopping after.
#[tokio::test]
async fn gateway_and_node_stop_in_order() {
    let (node, [inside, separate]) = node_and_entrances().await;
    let mut sockets = [inside.subscribe("t").await, separate.subscribe("t").await];
    let mut connections = Vec::new();
    for entrance in [&inside, &separate] {
        let mut connection = Http::connect(entrance.gateway.address()).await;
        let headers = [("X-API-Key", entrance.key.as_str())];
        connection
            .send(crate::http_client::request("PUT", "/v1/storage?key=k", &headers, b"v"))
            .await;
        connections.push(connection);
    }
    tokio::join!(
        inside.gateway.shutdown(patience()),
        separate.gateway.shutdown(patience()),
        async {
            for socket in &mut sockets {
                assert_eq!(close_code(socket).await, 1001);
            }
        }
    );
    for mut connection in connections {
        assert_eq!(connection.answer(false).await.unwrap().status, 201);
    }
    until("nothing listens", || std::net::TcpStream::connect(inside.gateway.address()).is_err())
        .await;
    node.shutdown().await;
}

/// A node's other namespaces must not be sent elsewhere for it, and it must not go unsaid.
#[tokio::test]
async fn a_lost_database_is_told_and_takes_nobody_else_along() {
    let node = TestNode::start().await;
    let key = node.api_key("app").await;
    for namespace in ["app", "lost"] {
        node.client(namespace).await.database().create_table("CREATE TABLE t (a)").await.unwrap();
    }
    let file = node.folder().join("node/db/ns/lost.db");
    let node = node.restart_after(move || std::fs::remove_file(file).unwrap()).await;
    let entrance = Entrance { gateway: node.gateway().await, key };
    assert_eq!(entrance.call("GET", "/ready", "").await.status, 200);
    let health = entrance.call("GET", "/health", "").await.json();
    assert_eq!(health["status"], "degraded");
    let failed: Vec<_> = health["client"]["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["ok"] == false)
        .collect();
    assert!(failed.len() == 1 && failed[0]["name"] == "namespaces", "{health}");
    assert_eq!(entrance.query("INSERT INTO t VALUES (1)", json!([])).await.status, 200);
    let error =
        node.client("lost").await.database().query("CREATE TABLE t (a)", []).await.unwrap_err();
    assert!(
        error.code == debros_proto::Code::Corrupt && error.message.contains("missing"),
        "{error}"
    );
}
