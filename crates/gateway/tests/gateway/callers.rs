//! Callers' credentials, and what the node learns of the callers.

use crate::fake_auth::WALLET;
use crate::fake_node::FakeNode;
use crate::setup::{KEY, config, start, start_with};
use debros_gateway::{Gateway, GatewayConfig, GatewayStartError};
use debros_proto::Namespace;
use serde_json::json;

const STATIC: (&str, &str) = ("X-API-Key", "key-1");

fn with_static_keys(config: &mut GatewayConfig) {
    config.static_keys = GatewayConfig::parse_static_keys("key-1:one,ak_x:y:two").unwrap();
    config.operator_credential = Some("op_good".into());
}

fn without_auth(config: &mut GatewayConfig) {
    config.require_auth = false;
    config.namespace = Namespace::new("dev").unwrap();
    config.operator_credential = Some("op_good".into());
}

#[tokio::test]
async fn every_way_to_present_a_credential_reaches_the_node() {
    let gateway = start().await;
    for header in [
        ("Authorization", "Bearer ak_good:one"),
        ("authorization", "bearer  ak_good:one"),
        ("Authorization", "ApiKey ak_good:one"),
        ("X-API-Key", "ak_good:one"),
    ] {
        let answer = gateway.request("GET", "/v1/storage/list", &[header], "").await;
        assert_eq!(answer.status, 200, "{header:?}");
        let seen = gateway.node.last_request();
        assert_eq!((seen.credential.as_str(), seen.namespace.as_str()), ("ak_good:one", ""));
    }
}

#[tokio::test]
async fn without_a_credential_the_node_is_not_even_asked() {
    let gateway = start().await;
    for (method, path) in [
        ("GET", "/v1/storage/get?key=a"),
        ("PUT", "/v1/storage?key=a"),
        ("POST", "/v1/db/query"),
        ("GET", "/v1/db/schema"),
        ("POST", "/v1/pubsub/publish"),
        ("GET", "/v1/pubsub/topics"),
        ("GET", "/v1/pubsub/ws?topic=t"),
        ("GET", "/v1/network/status"),
        ("GET", "/v1/network/peers"),
        ("POST", "/v1/network/connect"),
        ("GET", "/v1/apps"),
        ("GET", "/v1/apps/app_1"),
        ("GET", "/v1/auth/whoami"),
        ("GET", "/v1/auth/api-keys"),
        ("DELETE", "/v1/auth/api-keys/key_1"),
        ("POST", "/v1/auth/token"),
        ("GET", "/v1/namespaces"),
        ("GET", "/v1/namespaces/one"),
        ("DELETE", "/v1/namespaces/one?confirm=one"),
        ("GET", "/v1/namespaces/one/members"),
        ("POST", "/v1/namespaces/one/members"),
        ("DELETE", "/v1/namespaces/one/members/0x"),
        ("GET", "/metrics"),
    ] {
        let answer = gateway.request(method, path, &[], "").await;
        answer.assert_error(401, "unauthenticated");
    }
    assert!(gateway.node.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_public_needs_no_credential() {
    let gateway = start().await;
    for path in [
        "/health",
        "/v1/health",
        "/ready",
        "/status",
        "/v1/status",
        "/v1/version",
        "/v1/openapi.json",
        "/docs/",
        "/v1/auth/login",
        "/v1/auth/jwks",
        "/.well-known/jwks.json",
    ] {
        assert_eq!(gateway.request("GET", path, &[], "").await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn bad_credentials_are_401_and_never_repeated() {
    let gateway = start().await;
    let long = "x".repeat(5000);
    for header in [
        ("Authorization", "Bearer secret-wrong"),
        ("Authorization", "Bearer"),
        ("Authorization", "Basic c2VjcmV0"),
        ("Authorization", ""),
        ("Authorization", "Bearer secret with blanks"),
        ("Authorization", "Bearer s\u{e9}cret"),
        ("X-API-Key", ""),
        ("X-API-Key", long.as_str()),
    ] {
        let answer = gateway.request("GET", "/v1/storage/list", &[header], "").await;
        let message = answer.assert_error(401, "unauthenticated");
        assert!(!message.contains("cret") && !message.contains("xxxx"), "{message}");
    }
}

/// Whichever of two were taken, the caller might have meant the other.
#[tokio::test]
async fn two_credentials_that_differ_are_refused_and_equal_ones_are_one() {
    let gateway = start().await;
    let other_key = ("X-API-Key", "ak_good:two");
    let cases: [&[(&str, &str)]; 4] = [
        &[KEY, other_key],
        &[KEY, ("Authorization", "Bearer ak_good:two")],
        &[("X-API-Key", "ak_good:one"), other_key],
        &[KEY, ("X-API-Key", "ak_good:one"), other_key],
    ];
    for headers in cases {
        let answer = gateway.request("GET", "/v1/storage/list", headers, "").await;
        let message = answer.assert_error(400, "invalid_argument");
        assert!(
            message.contains("two different credentials") && !message.contains("ak_"),
            "{message}"
        );
    }
    assert!(gateway.node.seen.lock().unwrap().is_empty());
    for headers in
        [[KEY, ("X-API-Key", "ak_good:one")], [KEY, ("authorization", "ApiKey ak_good:one")]]
    {
        assert_eq!(gateway.request("GET", "/v1/storage/list", &headers, "").await.status, 200);
    }
}

#[tokio::test]
async fn a_namespace_of_someone_else_is_refused_by_the_node() {
    let gateway = start().await;
    assert_eq!(gateway.get("/v1/storage/list?namespace=one").await.status, 200);
    let message =
        gateway.get("/v1/storage/list?namespace=two").await.assert_error(403, "namespace_mismatch");
    assert!(message.starts_with("namespace mismatch"), "{message}");
}

#[tokio::test]
async fn the_request_id_and_idempotency_key_reach_the_node() {
    let gateway = start().await;
    let headers = [KEY, ("X-Request-Id", "id-7"), ("Idempotency-Key", "once please")];
    let answer = gateway.request("PUT", "/v1/storage?key=a", &headers, "v").await;
    assert_eq!(answer.header("x-request-id"), Some("id-7"));
    let seen = gateway.node.last_request();
    assert_eq!((seen.request_id.as_str(), seen.idempotency_key.as_str()), ("id-7", "once please"));
    let long = "k".repeat(256);
    for bad in ["", "\u{e9}", "a\tb", long.as_str()] {
        let headers = [KEY, ("Idempotency-Key", bad)];
        gateway
            .request("PUT", "/v1/storage?key=b", &headers, "v")
            .await
            .assert_error(400, "invalid_argument");
    }
    let twice = [KEY, ("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    gateway
        .request("PUT", "/v1/storage?key=b", &twice, "v")
        .await
        .assert_error(400, "invalid_argument");
    assert!(gateway.node.value("one", "b").is_none());
}

#[tokio::test]
async fn a_static_key_acts_in_its_namespace_only() {
    let gateway = start_with(with_static_keys).await;
    assert_eq!(gateway.request("PUT", "/v1/storage?key=k", &[STATIC], "v").await.status, 201);
    assert_eq!(gateway.node.value("one", "k").unwrap(), "v");
    assert_eq!(gateway.node.last_request().credential, "op_good");
    let two = ("Authorization", "Bearer ak_x:y");
    gateway.request("GET", "/v1/storage?key=k", &[two], "").await.assert_error(404, "not_found");
    assert_eq!(
        gateway.request("GET", "/v1/storage?key=k&namespace=one", &[STATIC], "").await.status,
        200
    );
    let other = gateway.request("GET", "/v1/storage?key=k&namespace=two", &[STATIC], "").await;
    assert!(other.assert_error(403, "namespace_mismatch").starts_with("namespace mismatch"));
    for wrong in ["key-", "key-11", "KEY-1", "key-1:one"] {
        let answer = gateway.request("GET", "/v1/storage/list", &[("X-API-Key", wrong)], "").await;
        answer.assert_error(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_lent_credential_is_not_good_for_what_operators_do() {
    let gateway = start_with(with_static_keys).await;
    for (path, body) in [
        ("/v1/network/connect", r#"{"multiaddr":"/ip4/127.0.0.1"}"#),
        ("/v1/network/disconnect", r#"{"peer_id":"x"}"#),
    ] {
        gateway.request("POST", path, &[STATIC], body).await.assert_error(403, "forbidden");
    }
    for (method, path, body) in [
        ("POST", "/v1/auth/api-key", r#"{"name":"mine"}"#),
        ("GET", "/v1/auth/api-keys", ""),
        ("DELETE", "/v1/auth/api-keys/key_1", ""),
        ("POST", "/v1/auth/token", ""),
        ("POST", "/v1/auth/logout", r#"{"all":true}"#),
        ("DELETE", "/v1/namespaces/one?confirm=one", ""),
        ("GET", "/v1/namespaces/one/members", ""),
        ("POST", "/v1/namespaces/one/members", r#"{"wallet":"0x","role":"admin"}"#),
        ("DELETE", "/v1/namespaces/one/members/0x", ""),
    ] {
        gateway.request(method, path, &[STATIC], body).await.assert_error(403, "forbidden");
    }
    assert!(gateway.node.seen.lock().unwrap().is_empty());
    let open = start_with(without_auth).await;
    open.request("GET", "/v1/auth/api-keys", &[], "").await.assert_error(403, "forbidden");
    open.request("POST", "/v1/auth/api-key", &[], r#"{"name":"x"}"#)
        .await
        .assert_error(401, "unauthenticated");
    open.request("GET", "/v1/namespaces/dev/members", &[], "").await.assert_error(403, "forbidden");
    assert!(open.node.seen.lock().unwrap().is_empty());
    let connect = open.request("POST", "/v1/network/connect", &[], r#"{"multiaddr":"x"}"#).await;
    connect.assert_error(403, "forbidden");
    // An operator's own credential is the node's to judge.
    let operator = [("Authorization", "Bearer op_good")];
    let connect =
        open.request("POST", "/v1/network/connect", &operator, r#"{"multiaddr":"x"}"#).await;
    assert_eq!(connect.json(), json!({"status": "ok", "peer_id": "x"}));
}

/// The gateway refuses what it knows; the node refuses the rest, because the request names the
/// credential as lent.
#[tokio::test]
async fn the_node_learns_that_a_credential_is_lent_and_who_signs_in() {
    let gateway = start_with(with_static_keys).await;
    for (headers, lent) in [(&[STATIC][..], true), (&[KEY], false)] {
        gateway.request("GET", "/v1/network/peers", headers, "").await;
        let request = gateway.node.last_request();
        assert_eq!((request.lent, request.caller_address.as_str()), (lent, ""));
    }
    gateway.request("POST", "/v1/auth/challenge", &[], r#"{"wallet":"0x"}"#).await;
    assert_eq!(gateway.node.last_request().caller_address, "127.0.0.1");
}

#[tokio::test]
async fn who_am_i() {
    let gateway = start_with(with_static_keys).await;
    let own = gateway.get("/v1/auth/whoami").await.json();
    assert_eq!((own["method"].as_str(), own["namespace"].as_str()), (Some("api_key"), Some("one")));
    assert_eq!(
        (own["authenticated"].as_bool(), own["key_prefix"].as_str()),
        (Some(true), Some("ak_g"))
    );
    assert!(!own.to_string().contains("ak_good"));
    let lent = gateway.request("GET", "/v1/auth/whoami", &[STATIC], "").await.json();
    assert_eq!(
        (lent["method"].as_str(), lent["namespace"].as_str()),
        (Some("static_key"), Some("one"))
    );
    assert_eq!((lent["role"].as_str(), lent["operator"].as_bool()), (Some("writer"), Some(false)));
    assert!(!lent.to_string().contains("key-1") && !lent.to_string().contains("op_good"));
    let session = [("Authorization", "Bearer ey.good.one")];
    let session = gateway.request("GET", "/v1/auth/whoami", &session, "").await.json();
    assert_eq!(
        (session["method"].as_str(), session["role"].as_str()),
        (Some("jwt"), Some("owner"))
    );
    assert_eq!(session["expires_at"], "1970-01-01T00:15:01.000Z");
    assert_eq!((&session["wallet"], &session["subject"]), (&json!(WALLET), &json!(WALLET)));
    assert!(!session.to_string().contains("ey.good"));
    let open =
        start_with(without_auth).await.request("GET", "/v1/auth/whoami", &[], "").await.json();
    assert_eq!(
        (open["authenticated"].as_bool(), open["namespace"].as_str()),
        (Some(false), Some("dev"))
    );
}

#[tokio::test]
async fn without_auth_callers_act_in_the_configured_namespace() {
    let gateway = start_with(without_auth).await;
    assert_eq!(gateway.request("PUT", "/v1/storage?key=k", &[], "v").await.status, 201);
    assert_eq!(gateway.node.value("dev", "k").unwrap(), "v");
    let other = gateway.request("GET", "/v1/storage?key=k&namespace=one", &[], "").await;
    other.assert_error(403, "namespace_mismatch");
    // A caller that shows a credential acts as its holder, or not at all.
    gateway.request("GET", "/v1/storage?key=k", &[KEY], "").await.assert_error(404, "not_found");
    let bad = gateway.request("GET", "/v1/storage?key=k", &[("X-API-Key", "nope")], "").await;
    bad.assert_error(401, "unauthenticated");
}

/// Lesson 14 and more: any page in the developer's browser could act on a gateway that asks for
/// nothing.
#[tokio::test]
async fn lesson_14_without_auth_only_this_machines_pages_and_names_are_served() {
    let gateway = start_with(without_auth).await;
    let with = |headers: &'static [(&'static str, &'static str)]| {
        gateway.request("PUT", "/v1/storage?key=k", headers, "v")
    };
    with(&[("Origin", "https://evil.example")]).await.assert_error(403, "forbidden");
    with(&[("Origin", "null")]).await.assert_error(403, "forbidden");
    assert_eq!(with(&[("Origin", "http://localhost:3000")]).await.status, 201);
    let rebound =
        "PUT /v1/storage?key=k HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1\r\n\r\nv";
    let mut connection = gateway.connect().await;
    connection.send(rebound).await;
    connection.answer(false).await.unwrap().assert_error(403, "forbidden");
}

#[tokio::test]
async fn a_configuration_that_would_be_unsafe_or_useless_does_not_start() {
    let start = |change: fn(&mut GatewayConfig)| {
        Gateway::start(config(change), FakeNode::new().client(), None)
    };
    let told = |result: Result<Gateway, GatewayStartError>| result.unwrap_err().to_string();

    let no_operator = told(start(|config| config.require_auth = false).await);
    assert!(no_operator.contains("operator.key"), "{no_operator}");
    let no_operator = told(
        start(|config| {
            config.static_keys = GatewayConfig::parse_static_keys("hidden:one").unwrap()
        })
        .await,
    );
    assert!(
        no_operator.contains("GATEWAY_API_KEYS") && !no_operator.contains("hidden"),
        "{no_operator}"
    );
    for public in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0"] {
        let mut open = config(without_auth);
        open.listen = public.into();
        let refusal = told(Gateway::start(open, FakeNode::new().client(), None).await);
        assert!(refusal.contains("--insecure-public"), "{refusal}");
    }
    let on_purpose = start(|config| {
        without_auth(config);
        config.listen = "0.0.0.0:0".into();
        config.insecure_public = true;
    });
    assert!(on_purpose.await.is_ok());
    let no_host = start(|config| {
        without_auth(config);
        config.listen = ":0".into();
    });
    assert!(no_host.await.unwrap().address().ip().is_loopback());
    for bad in ["", "8080", "localhost", "127.0.0.1:99999", "::1:0", "no such name:0"] {
        let mut wrong = config(|_| {});
        wrong.listen = bad.into();
        let refusal = told(Gateway::start(wrong, FakeNode::new().client(), None).await);
        assert!(refusal.contains("127.0.0.1:8080"), "{refusal}");
    }
    assert!(
        told(start(|config| config.cors_origins = vec!["nonsense/".into()]).await)
            .contains("nonsense/")
    );
    assert!(
        told(start(|config| config.limits.max_connections = 0).await).contains("max_connections")
    );
    assert!(
        told(start(|config| config.public_url = Some("gw.example".into())).await)
            .contains("GATEWAY_PUBLIC_URL")
    );
}

#[tokio::test]
async fn a_port_in_use_is_told_with_what_to_do() {
    let first = start().await;
    let mut second = config(|_| {});
    second.listen = first.address().to_string();
    let refusal =
        Gateway::start(second, FakeNode::new().client(), None).await.unwrap_err().to_string();
    assert!(
        refusal.contains(&first.address().to_string()) && refusal.contains("GATEWAY_ADDR"),
        "{refusal}"
    );
}
