//! What holds for every request, whatever its path.

use crate::setup::{KEY, start, start_with};

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let gateway = start().await;
    for (method, path) in [
        ("GET", "/health"),
        ("GET", "/no/such"),
        ("DELETE", "/health"),
        ("OPTIONS", "/v1/storage"),
        ("PUT", "/v1/storage?key=k"),
        ("POST", "/v1/db/query"),
    ] {
        let made = gateway.request(method, path, &[], "").await;
        assert!(made.header("x-request-id").is_some_and(|id| id.len() == 25), "{method} {path}");
        let taken = gateway.request(method, path, &[("x-request-id", "mine")], "").await;
        assert_eq!(taken.header("x-request-id"), Some("mine"), "{method} {path}");
    }
    for bad in ["a b", "", "\u{e9}", &"x".repeat(129)] {
        let answer = gateway.request("GET", "/health", &[("x-request-id", bad)], "").await;
        assert_ne!(answer.header("x-request-id"), Some(bad));
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_json() {
    let gateway = start().await;
    for path in [
        "/",
        "/v1",
        "/v1/storage/",
        "/v1/Storage",
        "//v1/storage",
        "/v1/storage%2Fget",
        "/v2/health",
        "/docsx",
    ] {
        gateway.get(path).await.assert_error(404, "not_found");
    }
    for (method, path, allow) in [
        ("DELETE", "/health", "GET,HEAD"),
        ("GET", "/v1/db/query", "POST"),
        ("POST", "/v1/storage", "GET,HEAD,PUT,DELETE"),
        ("PATCH", "/v1/apps/app_1", "GET,HEAD,PUT,DELETE"),
        ("BREW", "/v1/storage/get", "GET,HEAD,POST"),
        ("HEAD", "/v1/db/query", "POST"),
    ] {
        let answer = gateway.call(method, path, "").await;
        let mut allowed: Vec<&str> =
            answer.header("allow").unwrap().split(',').map(str::trim).collect();
        let mut expected: Vec<&str> = allow.split(',').collect();
        allowed.sort_unstable();
        expected.sort_unstable();
        assert_eq!((answer.status, allowed), (405, expected), "{method} {path}");
        if method != "HEAD" {
            answer.assert_error(405, "method_not_allowed");
        }
    }
}

#[tokio::test]
async fn content_types() {
    let gateway = start().await;
    let query = |headers: &'static [(&'static str, &'static str)]| {
        gateway.request("POST", "/v1/db/query", headers, r#"{"sql":"ARGS"}"#)
    };
    assert_eq!(query(&[KEY]).await.status, 200, "a missing one is taken for JSON");
    assert_eq!(
        query(&[KEY, ("Content-Type", "application/json; charset=utf-8")]).await.status,
        200
    );
    assert_eq!(query(&[KEY, ("Content-Type", "Application/JSON")]).await.status, 200);
    assert_eq!(query(&[KEY, ("Content-Type", "application/problem+json")]).await.status, 200);
    for bad in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "multipart/form-data; boundary=x",
    ] {
        let headers = [KEY, ("Content-Type", bad)];
        let answer = gateway.request("POST", "/v1/db/query", &headers, r#"{"sql":"ARGS"}"#).await;
        answer.assert_error(415, "unsupported_media_type");
    }
    query(&[KEY, ("Content-Encoding", "gzip")]).await.assert_error(415, "unsupported_media_type");
    let raw = [KEY, ("Content-Type", "text/plain")];
    assert_eq!(
        gateway.request("POST", "/v1/storage/put?key=k", &raw, "v").await.status,
        201,
        "raw takes any"
    );
}

/// Lesson 14: CORS was open with no way to close it.
#[tokio::test]
async fn lesson_14_cors_is_configurable() {
    let listed =
        start_with(|config| config.cors_origins = vec!["https://app.example".into()]).await;
    let good = listed.request("GET", "/health", &[("Origin", "https://app.example")], "").await;
    assert_eq!(good.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(good.header("vary"), Some("Origin"));
    let evil = listed.request("GET", "/health", &[("Origin", "https://evil.example")], "").await;
    assert_eq!((evil.status, evil.header("access-control-allow-origin")), (200, None));
    assert_eq!(evil.header("vary"), Some("Origin"));
    let preflight = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "PUT")];
    let preflight = listed.request("OPTIONS", "/v1/storage", &preflight, "").await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, None));

    let any = start().await;
    let answer = any.request("GET", "/no/such", &[("Origin", "https://any.example")], "").await;
    answer.assert_error(404, "not_found");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(
        ["ETag", "X-Request-Id", "Retry-After", "Idempotent-Replayed"]
            .iter()
            .all(|name| exposed.contains(name)),
        "{exposed}"
    );
}

#[tokio::test]
async fn preflights_are_answered_for_every_path() {
    let gateway = start().await;
    for path in ["/v1/storage", "/v1/db/query", "/v1/pubsub/ws", "/v1/apps/app_1", "/no/such"] {
        let asked = [
            ("Origin", "https://any.example"),
            ("Access-Control-Request-Method", "DELETE"),
            ("Access-Control-Request-Headers", "authorization,idempotency-key"),
        ];
        let answer = gateway.request("OPTIONS", path, &asked, "").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("*")));
        assert!(answer.header("access-control-allow-methods").unwrap().contains("DELETE"));
        let headers = answer.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
        for name in [
            "authorization",
            "x-api-key",
            "content-type",
            "idempotency-key",
            "if-match",
            "if-none-match",
            "x-request-id",
        ] {
            assert!(headers.contains(name), "{name}");
        }
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let gateway = start().await;
    let mut connection = gateway.connect().await;
    for round in 0..50 {
        let path = format!("/v1/storage?key=k{round}");
        assert_eq!(connection.request("PUT", &path, &[KEY], b"v").await.status, 201);
        assert_eq!(connection.request("GET", &path, &[KEY], b"").await.body, b"v");
        connection.request("GET", "/no/such", &[], b"").await.assert_error(404, "not_found");
    }
}

#[tokio::test]
async fn http_2_works_too() {
    let gateway = start().await;
    let socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = |method: &str| {
        http::Request::builder()
            .method(method)
            .uri("http://localhost/v1/storage?key=k")
            .header("authorization", "Bearer ak_good:one")
            .body(())
            .unwrap()
    };
    let (answer, mut body) = send.send_request(request("PUT"), false).unwrap();
    body.send_data("over h2".into(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 201);
    let (answer, _) = send.send_request(request("GET"), true).unwrap();
    let mut answer = answer.await.unwrap();
    assert!(answer.headers().contains_key("x-request-id"));
    assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "over h2");
    drop((send, answer, body));
    driver.abort();
}
