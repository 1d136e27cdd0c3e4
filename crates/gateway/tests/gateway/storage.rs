//! `/v1/storage`.

use crate::setup::{KEY, start};
use serde_json::json;

#[tokio::test]
async fn a_raw_value_comes_back_byte_for_byte() {
    let gateway = start().await;
    let value: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let put = gateway.call("POST", "/v1/storage/put?key=a%2Fb+%F0%9F%94%91", &value).await;
    assert_eq!((put.status, put.header("etag")), (201, Some("\"1\"")));
    assert_eq!(put.json(), json!({"status": "ok", "key": "a/b 🔑", "size": 70_000, "version": 1}));
    let get = gateway.get("/v1/storage/get?key=a%2Fb%20%F0%9F%94%91").await;
    assert_eq!((get.status, get.header("content-type")), (200, Some("application/octet-stream")));
    assert_eq!((get.header("etag"), get.body == value), (Some("\"1\""), true));
    assert_eq!(gateway.node.value("one", "a/b 🔑").unwrap(), value);
}

/// Lesson 18: bytes came back as base64 text.
#[tokio::test]
async fn lesson_18_bytes_that_are_no_text_survive_both_forms() {
    let gateway = start().await;
    let put = gateway.post("/v1/storage/put", r#"{"key":"k","value":"AP8="}"#).await;
    assert_eq!((put.status, put.json()["size"].as_u64()), (201, Some(2)));
    assert_eq!(gateway.get("/v1/storage/get?key=k").await.body, [0, 255]);
    assert_eq!(
        gateway.post("/v1/storage/get", r#"{"key":"k"}"#).await.json(),
        json!({"value": "AP8="})
    );
    assert_eq!(gateway.post("/v1/storage/get?key=k", "").await.body, [0, 255]);
}

#[tokio::test]
async fn the_rest_form_does_the_same() {
    let gateway = start().await;
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k", "v").await.status, 201);
    assert_eq!(gateway.get("/v1/storage?key=k").await.body, b"v");
    let deleted = gateway.call("DELETE", "/v1/storage?key=k", "").await;
    assert_eq!(deleted.json(), json!({"status": "ok", "key": "k", "deleted": true}));
    gateway.get("/v1/storage?key=k").await.assert_error(404, "not_found");
}

#[tokio::test]
async fn deleting_and_asking_for_a_missing_key() {
    let gateway = start().await;
    let deleted = gateway.post("/v1/storage/delete", r#"{"key":"none"}"#).await;
    assert_eq!((deleted.status, deleted.json()["deleted"].as_bool()), (200, Some(false)));
    assert_eq!(gateway.post("/v1/storage/delete?key=none", "").await.json()["deleted"], false);
    assert_eq!(gateway.get("/v1/storage/exists?key=none").await.json(), json!({"exists": false}));
    gateway.call("PUT", "/v1/storage?key=k", "").await;
    assert_eq!(gateway.get("/v1/storage/exists?key=k").await.json(), json!({"exists": true}));
    assert_eq!(gateway.get("/v1/storage/get?key=k").await.body, b"");
}

#[tokio::test]
async fn lists_have_pages() {
    let gateway = start().await;
    for key in ["a_1", "a_2", "a_3", "ab"] {
        gateway.call("PUT", &format!("/v1/storage?key={key}"), "v").await;
    }
    let page = gateway.get("/v1/storage/list?prefix=a_&limit=2").await.json();
    assert_eq!(page["keys"], json!(["a_1", "a_2"]));
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest =
        gateway.get(&format!("/v1/storage/list?prefix=a_&limit=2&cursor={cursor}")).await.json();
    assert_eq!(rest, json!({"keys": ["a_3"]}));
    for bad in ["0", "-1", "x", "", "1e3", "99999999999", "1001"] {
        let message = gateway
            .get(&format!("/v1/storage/list?limit={bad}"))
            .await
            .assert_error(400, "invalid_argument");
        assert_eq!(message, "limit is not a whole number from 1 to 1000", "{bad}");
    }
}

#[tokio::test]
async fn versions_make_puts_and_deletes_conditional() {
    let gateway = start().await;
    let put = |condition: (&'static str, &'static str)| {
        let gateway = &gateway;
        async move { gateway.request("PUT", "/v1/storage?key=k", &[KEY, condition], "v").await }
    };
    put(("If-Match", "*")).await.assert_error(412, "precondition_failed");
    assert_eq!(put(("If-None-Match", "*")).await.status, 201);
    put(("If-None-Match", "*")).await.assert_error(412, "precondition_failed");
    assert_eq!(put(("If-Match", "\"1\"")).await.header("etag"), Some("\"2\""));
    put(("If-Match", "\"1\"")).await.assert_error(412, "precondition_failed");
    put(("If-Match", "W/\"2\"")).await.assert_error(412, "precondition_failed");
    put(("If-Match", "\"x\"")).await.assert_error(412, "precondition_failed");
    put(("If-None-Match", "\"2\"")).await.assert_error(412, "precondition_failed");
    put(("If-Match", "2")).await.assert_error(400, "invalid_argument");
    let delete = |tag| gateway.request("DELETE", "/v1/storage?key=k", tag, "");
    delete(&[KEY, ("If-Match", "\"1\"")]).await.assert_error(412, "precondition_failed");
    assert_eq!(delete(&[KEY, ("If-Match", "\"2\"")]).await.status, 200);
}

#[tokio::test]
async fn reads_can_be_conditional() {
    let gateway = start().await;
    gateway.call("PUT", "/v1/storage?key=k", "v").await;
    let fresh = gateway
        .request("GET", "/v1/storage/get?key=k", &[KEY, ("If-None-Match", "W/\"1\"")], "")
        .await;
    assert_eq!((fresh.status, fresh.header("etag"), fresh.body.len()), (304, Some("\"1\""), 0));
    let stale = gateway
        .request("GET", "/v1/storage/get?key=k", &[KEY, ("If-None-Match", "\"7\"")], "")
        .await;
    assert_eq!(stale.body, b"v");
    let other =
        gateway.request("GET", "/v1/storage/get?key=k", &[KEY, ("If-Match", "\"7\"")], "").await;
    other.assert_error(412, "precondition_failed");
}

#[tokio::test]
async fn a_value_can_expire() {
    let gateway = start().await;
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k&ttl=60", "v").await.status, 201);
    let Some(debros_proto::rpc::request::Call::Put(put)) = gateway.node.last_request().call else {
        panic!("a put")
    };
    assert_eq!(put.ttl_seconds, Some(60));
    for bad in ["0", "-5", "1.5", "soon", ""] {
        let answer = gateway.call("PUT", &format!("/v1/storage?key=k&ttl={bad}"), "v").await;
        answer.assert_error(400, "invalid_argument");
    }
}

#[tokio::test]
async fn head_tells_what_get_would() {
    let gateway = start().await;
    gateway.call("PUT", "/v1/storage?key=k", "value").await;
    let head = gateway.call("HEAD", "/v1/storage/get?key=k", "").await;
    assert_eq!(
        (head.status, head.header("content-length"), head.header("etag")),
        (200, Some("5"), Some("\"1\""))
    );
    let missing = gateway.call("HEAD", "/v1/storage/get?key=none", "").await;
    assert_eq!(missing.status, 404);
    let length: usize = missing.header("content-length").unwrap().parse().unwrap();
    assert_eq!(length, gateway.get("/v1/storage/get?key=none").await.body.len());
}

#[tokio::test]
async fn bad_keys_and_bodies_are_the_callers_mistake() {
    let gateway = start().await;
    gateway.get("/v1/storage/get").await.assert_error(400, "invalid_argument");
    gateway.get("/v1/storage/get?key=").await.assert_error(400, "invalid_argument");
    gateway
        .get(&format!("/v1/storage/get?key={}", "k".repeat(1025)))
        .await
        .assert_error(400, "invalid_argument");
    gateway.get("/v1/storage/get?key=%00").await.assert_error(400, "invalid_argument");
    gateway.get("/v1/storage/get?key=%ff").await.assert_error(400, "invalid_argument");
    gateway.get("/v1/storage/get?key=a&key=b").await.assert_error(400, "invalid_argument");
    gateway.get("/v1/storage/get?key=a&ttl=5").await.assert_error(400, "invalid_argument");
    gateway.get("/v1/storage/get?key=a&kex=5").await.assert_error(400, "invalid_argument");
    gateway
        .post("/v1/storage/put", r#"{"key":"k","value":"not base64!"}"#)
        .await
        .assert_error(400, "invalid_argument");
    gateway.post("/v1/storage/put", r#"{"key":"k"}"#).await.assert_error(400, "invalid_argument");
    gateway.post("/v1/storage/get", "").await.assert_error(400, "malformed");
    assert!(gateway.node.value("one", "k").is_none(), "nothing changed");
}
