//! The routes of namespaces: what callers send and get, and what reaches the node.

use crate::fake_auth::WALLET;
use crate::setup::{start, start_with};
use debros_gateway::GatewayConfig;
use debros_proto::rpc::request::Call;
use serde_json::json;

const SESSION: (&str, &str) = ("Authorization", "Bearer ey.good.one");
const STATIC: (&str, &str) = ("X-API-Key", "key-1");

fn described(name: &str) -> serde_json::Value {
    json!({
        "name": name, "role": "owner", "owner": WALLET, "created_at": "1970-01-01T00:00:01.000Z", "size": 4096, "taken": 5000,
        "quota": 8192,
        "free": 1024, "tables": 2, "rows": 3, "rows_are_exact": true, "keys": 4, "key_bytes": 5, "keys_are_exact": true,
        "problem": "the database is damaged",
    })
}

#[tokio::test]
async fn namespaces_are_listed_page_by_page() {
    let gateway = start().await;
    let page =
        gateway.request("GET", "/v1/namespaces?prefix=o&limit=7&cursor=n", &[SESSION], "").await;
    let expected = json!({ "items": [described("one"), described("two")], "count": 2, "next_cursor": "two-and-a-half" });
    assert_eq!(page.json(), expected);
    let Some(Call::ListNamespaces(asked)) = gateway.node.last_request().call else { panic!() };
    assert_eq!((asked.prefix.as_str(), asked.limit, asked.after.as_str()), ("o", 7, "n"));
    for bad in ["limit=0", "limit=x", "limit=-1", "limit=4294967296", "confirm=one"] {
        let answer = gateway.request("GET", &format!("/v1/namespaces?{bad}"), &[SESSION], "").await;
        answer.assert_error(400, "invalid_argument");
    }
}

#[tokio::test]
async fn a_namespace_is_described_to_those_in_it() {
    let gateway = start().await;
    let one = gateway.request("GET", "/v1/namespaces/one", &[SESSION], "").await;
    assert_eq!(one.json(), described("one"));
    for other in ["/v1/namespaces/two", "/v1/namespaces/one?namespace=two"] {
        gateway.request("GET", other, &[SESSION], "").await.assert_error(403, "namespace_mismatch");
    }
    gateway
        .request("GET", "/v1/namespaces/No", &[SESSION], "")
        .await
        .assert_error(400, "invalid_argument");
    let post = gateway.request("POST", "/v1/namespaces/one", &[SESSION], "").await;
    post.assert_error(405, "method_not_allowed");
}

#[tokio::test]
async fn a_namespace_is_deleted_when_its_name_is_said_twice() {
    let gateway = start().await;
    let deleted = json!({ "status": "ok", "deleted": described("one") });
    let delete = async |path: &str, body: &str| {
        let headers = [SESSION, ("Content-Type", "application/json")];
        gateway.request("DELETE", path, &headers, body).await
    };
    assert_eq!(delete("/v1/namespaces/one?confirm=one", "").await.json(), deleted);
    assert_eq!(delete("/v1/namespaces/one", r#"{"confirm":"one"}"#).await.json(), deleted);
    for (path, body) in [
        ("/v1/namespaces/one", ""),
        ("/v1/namespaces/one?confirm=", ""),
        ("/v1/namespaces/one?confirm=two", ""),
        ("/v1/namespaces/one", r#"{"confirm":"two"}"#),
        ("/v1/namespaces/one", r#"{"confirm":"one","more":1}"#),
        ("/v1/namespaces/one", "one"),
    ] {
        assert_eq!(delete(path, body).await.status, 400, "{path} {body}");
    }
    let busy = delete("/v1/namespaces/one?confirm=busy", "").await;
    assert_eq!((busy.status, busy.header("retry-after")), (409, Some("2")));
    delete("/v1/namespaces/two?confirm=two", "").await.assert_error(403, "namespace_mismatch");
}

/// The gateway's own credential could see and delete all.
#[tokio::test]
async fn a_lent_credential_sees_its_own_namespace_and_deletes_none() {
    let keys = |config: &mut GatewayConfig| {
        config.operator_credential = Some("op_good".into());
        config.static_keys = GatewayConfig::parse_static_keys("key-1:one").unwrap();
    };
    let gateway = start_with(keys).await;
    let listed = gateway.request("GET", "/v1/namespaces", &[STATIC], "").await.json();
    assert_eq!((&listed["count"], &listed["items"][0]["name"]), (&json!(1), &json!("one")));
    assert_eq!((&listed["items"][0]["role"], listed.get("next_cursor")), (&json!("writer"), None));
    let own = gateway.request("GET", "/v1/namespaces/one", &[STATIC], "").await.json();
    assert_eq!((&own["name"], &own["role"]), (&json!("one"), &json!("writer")));
    assert!(
        gateway
            .node
            .seen
            .lock()
            .unwrap()
            .iter()
            .all(|seen| matches!(seen.call, Some(Call::GetNamespace(_))))
    );
    let asked = gateway.node.seen.lock().unwrap().len();
    for other in ["/v1/namespaces/two", "/v1/namespaces?namespace=two"] {
        gateway.request("GET", other, &[STATIC], "").await.assert_error(403, "namespace_mismatch");
    }
    gateway
        .request("DELETE", "/v1/namespaces/one?confirm=one", &[STATIC], "")
        .await
        .assert_error(403, "forbidden");
    assert_eq!(gateway.node.seen.lock().unwrap().len(), asked, "the node was not asked");
}
