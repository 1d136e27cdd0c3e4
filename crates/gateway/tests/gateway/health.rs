//! What anyone may ask.

use crate::fake_node::FakeNode;
use crate::setup::{KEY, OPERATOR, config, start, start_with};
use debros_gateway::{Gateway, GatewayConfig};
use serde_json::json;
use std::sync::atomic::Ordering;

/// Lesson 33: health was a constant.
#[tokio::test]
async fn lesson_33_health_is_the_nodes_own() {
    let gateway = start().await;
    let health = gateway.request("GET", "/health", &[], "").await.json();
    assert_eq!(
        (health["status"].as_str(), health["server"]["status"].as_str()),
        (Some("ok"), Some("ok"))
    );
    let expected = json!([{"name": "database_write", "ok": true, "took_us": 5}]);
    assert_eq!(
        (&health["client"]["status"], &health["client"]["checks"]),
        (&json!("ok"), &expected)
    );
    assert_eq!(health["client"]["last_updated"], "1970-01-01T00:00:01.000Z");
    assert!(health["client"]["response_time"].is_f64() && health["server"]["uptime"].is_u64());
    assert_eq!(gateway.request("GET", "/ready", &[], "").await.json(), json!({"status": "ready"}));

    let sick = start().await;
    sick.node.unhealthy.store(true, Ordering::Relaxed);
    let health = sick.request("GET", "/v1/health", &[], "").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("degraded")));
    assert_eq!(health.json()["client"]["checks"][0]["error"], "the disk is full");
    let message = sick.request("GET", "/ready", &[], "").await.assert_error(503, "unavailable");
    assert!(message.contains("the disk is full"), "{message}");
}

#[tokio::test]
async fn a_gateway_without_a_node_says_so_at_once() {
    // Nothing listens on port 1.
    let nowhere = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    let client = debros_client::Config::new("").bootstrap_peer(nowhere);
    let client = debros_client::Client::connect_in_background(client).await.unwrap();
    let gateway = Gateway::start(config(|_| {}), client, None).await.unwrap();
    let mut connection = crate::http_client::Http::connect(gateway.address()).await;
    let health = connection.request("GET", "/health", &[], b"").await.json();
    assert_eq!(
        (health["status"].as_str(), health["client"]["status"].as_str()),
        (Some("degraded"), Some("unreachable"))
    );
    connection.request("GET", "/ready", &[], b"").await.assert_error(503, "unavailable");
    let status = connection.request("GET", "/status", &[], b"").await.json();
    assert_eq!(status["network"]["connected"], false);
}

/// The answer named the addresses and peer ids of the nodes behind the gateway.
#[tokio::test]
async fn callers_of_a_gateway_without_a_node_learn_nothing_of_where_it_looks() {
    let nowhere = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    let client = debros_client::Config::new("").bootstrap_peer(nowhere);
    let client = debros_client::Client::connect_in_background(client).await.unwrap();
    let gateway = Gateway::start(config(|_| {}), client.clone(), None).await.unwrap();
    // The operator sees the address: the setting may be wrong.
    let error = client.network().status().await.unwrap_err();
    assert!(
        error.to_string().contains(nowhere) && !error.message.contains("127.0.0.1"),
        "{error:?}"
    );
    for (method, path, body) in [
        ("GET", "/health", ""),
        ("GET", "/ready", ""),
        ("GET", "/status", ""),
        ("GET", "/v1/storage/get?key=k", ""),
        ("PUT", "/v1/storage?key=k", "v"),
        ("POST", "/v1/auth/challenge", r#"{"wallet":"0x"}"#),
        ("GET", "/v1/auth/jwks", ""),
        ("GET", "/v1/pubsub/topics", ""),
    ] {
        let mut connection = crate::http_client::Http::connect(gateway.address()).await;
        let answer = connection.request(method, path, &[KEY], body.as_bytes()).await;
        let text = String::from_utf8(answer.body.clone()).unwrap();
        for inner in ["127.0.0.1", "/tcp/", "12D3"] {
            assert!(!text.contains(inner), "{path}: {text}");
        }
        if answer.status != 200 {
            assert!(answer.header("retry-after").is_some(), "{path}");
            assert_eq!(answer.assert_error(503, "unavailable"), "no node can be reached", "{path}");
        }
    }
}

#[tokio::test]
async fn many_who_ask_for_health_cost_the_node_one_question() {
    let gateway = start().await;
    let asked =
        futures::future::join_all((0..50).map(|_| gateway.request("GET", "/health", &[], "")))
            .await;
    assert!(asked.iter().all(|answer| answer.status == 200));
    // The answer is cached for a second; a slow machine may take longer than that for fifty
    // requests.
    assert!(gateway.node.health_calls.load(Ordering::Relaxed) < 50);
}

#[tokio::test]
async fn status_and_version() {
    let gateway = start().await;
    let status = gateway.request("GET", "/v1/status", &[], "").await.json();
    let expected = json!({"node_id": "node-1", "connected": true, "peer_count": 3, "database_size": 4096, "uptime": 5});
    assert_eq!(status["network"], expected);
    assert!(status["server"]["started_at"].is_string());
    let version = gateway.request("GET", "/v1/version", &[], "").await.json();
    assert_eq!(version["version"], "0.1.0");
    assert!(["commit", "build_time", "started_at"].iter().all(|field| version[field].is_string()));
}

#[tokio::test]
async fn metrics_are_for_operators() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // Only what is made inside is recorded here: the handles of the gateway are.
    let node = FakeNode::new();
    let gateway = {
        let _guard = metrics::set_default_local_recorder(&recorder);
        Gateway::start(config(|_| {}), node.client(), Some(handle)).await.unwrap()
    };
    let mut connection = crate::http_client::Http::connect(gateway.address()).await;
    connection.request("PUT", "/v1/storage?key=k", &[KEY], b"12345").await;
    connection.request("GET", "/no/such/path", &[], b"").await;
    connection
        .request("GET", "/metrics", &[("X-API-Key", "wrong")], b"")
        .await
        .assert_error(401, "unauthenticated");
    for somebody in [KEY, ("Authorization", "Bearer ey.good.one")] {
        connection
            .request("GET", "/metrics", &[somebody], b"")
            .await
            .assert_error(403, "forbidden");
    }
    let metrics = connection.request("GET", "/metrics", &[OPERATOR], b"").await;
    assert_eq!(metrics.status, 200);
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains("debros_gateway_request_bytes_total 5"), "{text}");
    assert!(text.contains("debros_gateway_requests_in_flight 1"), "{text}");
    assert!(!text.contains("such"), "{text}");
    let without = start().await.request("GET", "/metrics", &[OPERATOR], "").await;
    without.assert_error(501, "unimplemented");
    // Where nobody needs a credential, nobody needs one for this. A key of the gateway's own is no
    // operator's.
    let open = start_with(|config| {
        config.require_auth = false;
        config.operator_credential = Some("op_good".into());
        config.static_keys = GatewayConfig::parse_static_keys("key-1:one").unwrap();
    })
    .await;
    for headers in [&[][..], &[KEY], &[("X-API-Key", "key-1")]] {
        open.request("GET", "/metrics", headers, "").await.assert_error(501, "unimplemented");
    }
    let lent = start_with(|config| {
        config.operator_credential = Some("op_good".into());
        config.static_keys = GatewayConfig::parse_static_keys("key-1:one").unwrap();
    });
    lent.await
        .request("GET", "/metrics", &[("X-API-Key", "key-1")], "")
        .await
        .assert_error(403, "forbidden");
}

/// Lesson 38: the document left out most of the interface.
#[tokio::test]
async fn lesson_38_the_document_and_its_page_are_served_from_the_program() {
    let gateway = start().await;
    let document = gateway.request("GET", "/v1/openapi.json", &[], "").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(
        document["paths"]["/v1/pubsub/ws"].is_object() && document["paths"]["/v1/apps"].is_object()
    );
    let redirect = gateway.request("GET", "/docs", &[], "").await;
    assert_eq!((redirect.status, redirect.header("location")), (308, Some("/docs/")));
    let page = gateway.request("GET", "/docs/", &[], "").await;
    assert!(page.header("content-security-policy").unwrap().contains("script-src 'self'"));
    let page = String::from_utf8(page.body).unwrap();
    assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
    let script = gateway.request("GET", "/docs/swagger-initializer.js", &[], "").await;
    let script = String::from_utf8(script.body).unwrap();
    assert!(script.contains("/v1/openapi.json") && !script.contains("https://"), "{script}");
    assert_eq!(gateway.request("GET", "/docs/swagger-ui-bundle.js", &[], "").await.status, 200);
    gateway.request("GET", "/docs/../../etc/passwd", &[], "").await.assert_error(404, "not_found");
}
