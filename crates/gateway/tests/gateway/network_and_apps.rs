//! `/v1/network` and `/v1/apps`.

use crate::setup::start;
use serde_json::json;

/// Lesson 33: these answered 500 to everyone.
#[tokio::test]
async fn lesson_33_network_status_and_peers() {
    let gateway = start().await;
    let status = gateway.get("/v1/network/status").await.json();
    assert_eq!(
        (status["node_id"].as_str(), status["connected"].as_bool()),
        (Some("node-1"), Some(true))
    );
    let peers = gateway.get("/v1/network/peers").await.json();
    assert_eq!((peers[0]["id"].as_str(), peers[0]["rtt_us"].is_null()), (Some("12D3"), true));
    let wrong = gateway.request("GET", "/v1/network/status", &[("X-API-Key", "wrong")], "").await;
    wrong.assert_error(401, "unauthenticated");
}

#[tokio::test]
async fn peers_are_for_operators_to_connect() {
    let gateway = start().await;
    let operator = [("Authorization", "Bearer op_good")];
    let connect = gateway
        .request("POST", "/v1/network/connect", &operator, r#"{"multiaddr":"/ip4/127.0.0.1"}"#)
        .await;
    assert_eq!(connect.json(), json!({"status": "ok", "peer_id": "/ip4/127.0.0.1"}));
    let leave =
        gateway.request("POST", "/v1/network/disconnect", &operator, r#"{"peer_id":"x"}"#).await;
    assert_eq!(leave.json(), json!({"status": "ok", "disconnected": true}));
    gateway
        .post("/v1/network/connect", r#"{"multiaddr":"x"}"#)
        .await
        .assert_error(403, "forbidden");
    gateway
        .post("/v1/network/disconnect", r#"{"peer_id":"x"}"#)
        .await
        .assert_error(403, "forbidden");
    let bad = gateway.request("POST", "/v1/network/connect", &operator, r#"{"peer":"x"}"#).await;
    bad.assert_error(400, "invalid_argument");
}

/// Lesson 33: apps answered 500 to everyone.
#[tokio::test]
async fn lesson_33_an_app_from_its_making_to_its_end() {
    let gateway = start().await;
    let created = gateway.post("/v1/apps", r#"{"name":"shop","public_key":"pk"}"#).await;
    assert_eq!((created.status, created.json()["name"].as_str()), (201, Some("shop")));
    let id = created.json()["app_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/apps/{id}");
    assert_eq!(gateway.get(&path).await.json(), created.json());
    let list = gateway.get("/v1/apps").await.json();
    assert_eq!((list["count"].as_u64(), &list["items"][0]), (Some(1), &created.json()));
    let updated = gateway.call("PUT", &path, r#"{"name":"store"}"#).await;
    assert_eq!((updated.status, updated.json()), (200, json!({"status": "ok"})));
    let app = gateway.get(&path).await.json();
    assert_eq!((app["name"].as_str(), app["public_key"].as_str()), (Some("store"), Some("pk")));
    assert_eq!(gateway.call("DELETE", &path, "").await.json(), json!({"status": "ok"}));
    gateway.get(&path).await.assert_error(404, "not_found");
    gateway.call("DELETE", &path, "").await.assert_error(404, "not_found");
}

#[tokio::test]
async fn bad_apps_are_refused() {
    let gateway = start().await;
    gateway.post("/v1/apps", r#"{"name":"x"}"#).await.assert_error(400, "invalid_argument");
    gateway
        .post("/v1/apps", r#"{"name":"x","public_key":"y","id":"z"}"#)
        .await
        .assert_error(400, "invalid_argument");
    gateway.call("PUT", "/v1/apps/app_1", "{}").await.assert_error(400, "invalid_argument");
    gateway
        .call("PUT", "/v1/apps/app_none", r#"{"name":"x"}"#)
        .await
        .assert_error(404, "not_found");
    gateway.get("/v1/apps/%ff").await.assert_error(400, "invalid_argument");
    gateway.get("/v1/apps/").await.assert_error(404, "not_found");
    gateway.get("/v1/apps/a/b").await.assert_error(404, "not_found");
}
