//! The auth and member routes: what callers send and get, and what reaches the node.

use crate::fake_auth::{API_KEY, BAD_SIGNATURE, NONCE, REFRESH_TOKEN, WALLET, access_token};
use crate::http_client::Answer;
use crate::setup::{KEY, Running, config, start, start_with};
use debros_gateway::Gateway;
use debros_proto::Namespace;
use debros_proto::rpc::{self, request::Call};
use serde_json::{Value, json};

const SESSION: (&str, &str) = ("Authorization", "Bearer ey.good.one");

/// Without a credential.
async fn public(gateway: &Running, path: &str, body: &Value) -> Answer {
    gateway.request("POST", path, &[], body.to_string()).await
}

fn proof() -> Value {
    json!({"wallet": WALLET, "nonce": NONCE, "signature": "0x11", "namespace": "one"})
}

fn proof_and(more: Value) -> Value {
    let mut body = proof();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn last_call(gateway: &Running) -> (rpc::Request, Call) {
    let request = gateway.node.last_request();
    let call = request.call.clone().unwrap();
    (request, call)
}

#[tokio::test]
async fn a_challenge_is_for_the_gateways_own_name_and_namespace() {
    let gateway = start_with(|config| config.namespace = Namespace::new("home").unwrap()).await;
    let answer =
        public(&gateway, "/v1/auth/challenge", &json!({"wallet": WALLET, "purpose": "tests"}))
            .await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let expected = json!({
        "wallet": WALLET, "namespace": "home", "nonce": NONCE, "purpose": "tests",
        "message": "localhost http://localhost/v1/auth/login 0", "expires_at": "1970-01-01T00:05:01.000Z",
    });
    assert_eq!(answer.json(), expected);
    let (request, _) = last_call(&gateway);
    assert_eq!((request.credential.as_str(), request.namespace.as_str()), ("", ""));
    let body = json!({"wallet": WALLET, "namespace": "one", "chain_id": 137});
    let answer = public(&gateway, "/v1/auth/challenge", &body).await.json();
    assert_eq!((answer["namespace"].as_str(), answer["purpose"].as_str()), (Some("one"), Some("")));
    assert_eq!(answer["message"], "localhost http://localhost/v1/auth/login 137");

    let named = start_with(|config| config.public_url = Some("https://gw.example".into())).await;
    let answer = public(&named, "/v1/auth/challenge", &json!({"wallet": WALLET})).await.json();
    assert_eq!(answer["message"], "gw.example https://gw.example/v1/auth/login 0");
}

/// Lesson 9: a page elsewhere could have its visitors sign what was good here.
#[tokio::test]
async fn lesson_09_under_a_name_that_is_not_its_own_the_gateway_gives_no_challenge() {
    let gateway = start().await;
    let body = json!({"wallet": WALLET}).to_string();
    let ask = async |host: &str| {
        let length = body.len();
        let request = format!(
            "POST /v1/auth/challenge HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let mut connection = gateway.connect().await;
        connection.send(request).await;
        connection.answer(false).await.unwrap()
    };
    ask("evil.example/.localhost").await.assert_error(400, "malformed");
    for foreign in ["evil.example", "evil.example:80", "localhost.evil.example"] {
        let message = ask(foreign).await.assert_error(400, "invalid_argument");
        assert!(message.contains("GATEWAY_PUBLIC_URL") && !message.contains("evil"), "{message}");
    }
    assert!(gateway.node.seen.lock().unwrap().is_empty());
    let own = gateway.address().to_string();
    let message = ask(&own).await.json()["message"].clone();
    assert_eq!(message, format!("{own} http://{own}/v1/auth/login 0"));
}

#[tokio::test]
async fn a_proof_opens_a_session() {
    let gateway = start().await;
    let answer = public(&gateway, "/v1/auth/verify", &proof_and(json!({"chain_id": 5}))).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let session = answer.json();
    let token = access_token("one");
    assert_eq!((&session["access_token"], &session["token"]), (&json!(token), &json!(token)));
    assert_eq!((&session["token_type"], &session["expires_in"]), (&json!("Bearer"), &json!(900)));
    assert!(session["expires_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        (&session["refresh_token"], &session["subject"]),
        (&json!(REFRESH_TOKEN), &json!(WALLET))
    );
    assert_eq!((&session["namespace"], &session["nonce"]), (&json!("one"), &json!(NONCE)));
    assert_eq!((&session["signature_verified"], &session["role"]), (&json!(true), &json!("owner")));
    let (request, Call::SignIn(sign_in)) = last_call(&gateway) else { panic!("a sign-in") };
    assert_eq!(request.credential, "");
    let expected = rpc::Proof {
        wallet: WALLET.into(),
        namespace: "one".into(),
        nonce: NONCE.into(),
        signature: "0x11".into(),
        domain: "localhost".into(),
        uri: "http://localhost/v1/auth/login".into(),
        chain_id: 5,
    };
    assert_eq!(sign_in.proof, Some(expected));
    let bad =
        public(&gateway, "/v1/auth/verify", &proof_and(json!({"signature": BAD_SIGNATURE}))).await;
    bad.assert_error(401, "unauthenticated");
}

#[tokio::test]
async fn a_proof_registers_an_application() {
    let gateway = start().await;
    let answer = public(&gateway, "/v1/auth/register", &proof_and(json!({"name": "shop"}))).await;
    assert_eq!(answer.status, 201);
    let app = json!({"app_id": "app_1", "name": "shop", "public_key": "", "namespace": "one", "wallet": WALLET});
    assert_eq!(
        answer.json(),
        json!({"client_id": "app_1", "app": app, "signature_verified": true})
    );
}

#[tokio::test]
async fn a_session_is_refreshed_and_ended() {
    let gateway = start().await;
    let refresh = json!({"refresh_token": REFRESH_TOKEN, "namespace": "one"});
    let session = public(&gateway, "/v1/auth/refresh", &refresh).await.json();
    assert_eq!(
        (&session["access_token"], &session["refresh_token"]),
        (&json!("ey.good.one"), &json!(REFRESH_TOKEN))
    );
    assert!(
        session.get("nonce").is_none() && session.get("signature_verified").is_none(),
        "nothing was signed"
    );
    let other = json!({"refresh_token": REFRESH_TOKEN, "namespace": "two"});
    public(&gateway, "/v1/auth/refresh", &other).await.assert_error(403, "namespace_mismatch");
    let used =
        public(&gateway, "/v1/auth/refresh", &json!({"refresh_token": "rt_used_secret"})).await;
    assert!(!used.assert_error(401, "unauthenticated").contains("rt_used"));
    // An access token that has expired must not stand in the way of its renewal.
    let expired = [("Authorization", "Bearer expired"), ("X-API-Key", "another")];
    assert_eq!(
        gateway.request("POST", "/v1/auth/refresh", &expired, refresh.to_string()).await.status,
        200
    );
    let ended = public(&gateway, "/v1/auth/logout", &json!({"refresh_token": REFRESH_TOKEN})).await;
    assert_eq!(ended.json(), json!({"status": "ok", "revoked": 1}));
    // The original's clients name the namespace, and send fields that are empty.
    let named = json!({"refresh_token": REFRESH_TOKEN, "namespace": "one", "all": false});
    assert_eq!(public(&gateway, "/v1/auth/logout", &named).await.status, 200);
    let other = json!({"refresh_token": REFRESH_TOKEN, "namespace": "two"});
    public(&gateway, "/v1/auth/logout", &other).await.assert_error(403, "namespace_mismatch");
    let all = json!({"refresh_token": "", "namespace": "one", "all": true}).to_string();
    assert_eq!(gateway.request("POST", "/v1/auth/logout", &[SESSION], &all).await.status, 200);
    let all = json!({"all": true, "namespace": "two"}).to_string();
    gateway
        .request("POST", "/v1/auth/logout", &[SESSION], &all)
        .await
        .assert_error(403, "namespace_mismatch");
}

/// Lesson 13: the route was public, so the token was never read, and nobody could end all sessions.
#[tokio::test]
async fn lesson_13_all_sessions_are_ended_with_an_access_token() {
    let gateway = start().await;
    let all = json!({"all": true}).to_string();
    let ended = gateway.request("POST", "/v1/auth/logout", &[SESSION], &all).await;
    assert_eq!(ended.json(), json!({"status": "ok", "revoked": 3}));
    assert_eq!(gateway.node.last_request().credential, "ey.good.one");
    gateway
        .request("POST", "/v1/auth/logout", &[], &all)
        .await
        .assert_error(401, "unauthenticated");
    let bad = gateway.request("POST", "/v1/auth/logout", &[("X-API-Key", "wrong")], &all).await;
    bad.assert_error(401, "unauthenticated");
    for bad in
        [json!({}), json!({"all": false}), json!({"all": true, "refresh_token": REFRESH_TOKEN})]
    {
        let answer = gateway.request("POST", "/v1/auth/logout", &[SESSION], bad.to_string()).await;
        answer.assert_error(400, "invalid_argument");
    }
}

#[tokio::test]
async fn an_api_key_is_made_by_proof_or_by_credential() {
    let gateway = start().await;
    let by_proof = proof_and(json!({"plan": "pro", "name": "ci", "scopes": ["db:read"]}));
    let made = public(&gateway, "/v1/auth/api-key", &by_proof).await;
    assert_eq!((made.status, made.header("cache-control")), (200, Some("no-store")));
    let expected = json!({
        "api_key": API_KEY, "id": "key_1", "namespace": "one", "plan": "pro", "wallet": WALLET, "name": "ci",
        "role": "writer", "scopes": ["db:read"],
    });
    assert_eq!(made.json(), expected);
    let make = async |headers: &[(&str, &str)], body: &Value| {
        gateway.request("POST", "/v1/auth/api-key", headers, body.to_string()).await
    };
    let made = make(&[SESSION], &json!({"name": "mine", "role": "reader"})).await.json();
    assert_eq!(
        (&made["plan"], &made["role"], &made["api_key"]),
        (&json!("free"), &json!("reader"), &json!(API_KEY))
    );
    assert_eq!(gateway.node.last_request().credential, "ey.good.one");
    make(&[SESSION], &json!({"namespace": "two"})).await.assert_error(403, "namespace_mismatch");
    let message = make(&[], &json!({"name": "x"})).await.assert_error(401, "unauthenticated");
    assert!(message.contains("proof") && message.contains("Authorization"), "{message}");
    make(&[SESSION], &proof()).await.assert_error(400, "invalid_argument");
    for bad in [
        json!({"wallet": WALLET}),
        json!({"wallet": WALLET, "nonce": NONCE}),
        json!({"chain_id": 1}),
        json!({"scopes": []}),
        json!({"plan": ""}),
        json!({"plan": "a\nb"}),
        json!({"plan": "p".repeat(65)}),
    ] {
        make(&[SESSION], &bad).await.assert_error(400, "invalid_argument");
    }
}

#[tokio::test]
async fn api_keys_are_listed_and_revoked() {
    let gateway = start().await;
    let list = gateway.request("GET", "/v1/auth/api-keys", &[SESSION], "").await.json();
    let expected = json!({
        "id": "key_1", "prefix": "ak_hid", "namespace": "one", "name": "", "role": "writer", "scopes": [],
        "created_at": "1970-01-01T00:00:01.000Z", "last_used": null, "revoked_at": null, "wallet": WALLET,
    });
    assert_eq!(list, json!({"items": [expected], "count": 1}));
    let revoked = gateway.request("DELETE", "/v1/auth/api-keys/key_1", &[SESSION], "").await;
    assert_eq!(revoked.json(), json!({"status": "ok", "id": "key_1", "revoked": true}));
    gateway
        .request("DELETE", "/v1/auth/api-keys/key_2", &[SESSION], "")
        .await
        .assert_error(404, "not_found");
    gateway
        .request("DELETE", "/v1/auth/api-keys/%ff", &[SESSION], "")
        .await
        .assert_error(400, "invalid_argument");
    gateway
        .request("GET", "/v1/auth/api-keys/key_1", &[SESSION], "")
        .await
        .assert_error(405, "method_not_allowed");
}

#[tokio::test]
async fn an_api_key_is_exchanged_for_a_token() {
    let gateway = start().await;
    let answer = gateway.request("POST", "/v1/auth/token", &[KEY], "").await;
    let token = answer.json();
    assert_eq!(
        (&token["access_token"], &token["token_type"]),
        (&json!("ey.good.one"), &json!("Bearer"))
    );
    assert_eq!((&token["expires_in"], &token["namespace"]), (&json!(900), &json!("one")));
    assert!(token.get("refresh_token").is_none());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn the_signing_keys_are_a_key_set() {
    let gateway = start().await;
    let key = json!({
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "k1",
        "x": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc",
    });
    for path in ["/v1/auth/jwks", "/.well-known/jwks.json"] {
        assert_eq!(gateway.request("GET", path, &[], "").await.json(), json!({"keys": [key]}));
    }
}

#[tokio::test]
async fn members_are_those_of_the_namespace_in_the_path() {
    let gateway = start().await;
    let call = async |method: &str, path: &str, body: &str| {
        gateway.request(method, path, &[SESSION], body).await
    };
    let owner = json!({"wallet": WALLET, "role": "owner", "granted_by": null, "created_at": "1970-01-01T00:00:01.000Z"});
    let list = call("GET", "/v1/namespaces/one/members", "").await.json();
    assert_eq!(list, json!({"items": [owner], "count": 1}));
    assert_eq!(gateway.node.last_request().namespace, "one");
    let set =
        call("POST", "/v1/namespaces/one/members", r#"{"wallet":"0xAA","role":"reader"}"#).await;
    let expected = json!({
        "status": "ok", "wallet": "0xaa", "role": "reader", "granted_by": WALLET, "created_at": "1970-01-01T00:00:01.000Z",
    });
    assert_eq!((set.status, set.json()), (200, expected));
    let removed = call("DELETE", "/v1/namespaces/one/members/0xAA", "").await.json();
    assert_eq!(removed, json!({"status": "ok", "removed": true}));

    for (method, path, body) in [
        ("GET", "/v1/namespaces/two/members", ""),
        ("POST", "/v1/namespaces/two/members", r#"{"wallet":"0xAA","role":"admin"}"#),
        ("DELETE", "/v1/namespaces/two/members/0xAA", ""),
        ("GET", "/v1/namespaces/one/members?namespace=two", ""),
    ] {
        call(method, path, body).await.assert_error(403, "namespace_mismatch");
    }
    call("GET", "/v1/namespaces/No%20Such/members", "").await.assert_error(400, "invalid_argument");
    call("POST", "/v1/namespaces/one/members", r#"{"wallet":"0xAA"}"#)
        .await
        .assert_error(400, "invalid_argument");
    let unknown = r#"{"wallet":"0xAA","role":"reader","note":"x"}"#;
    call("POST", "/v1/namespaces/one/members", unknown).await.assert_error(400, "invalid_argument");
}

/// Lesson 14, and the same strictness as everywhere: what is not understood is refused, and nothing
/// secret is repeated.
#[tokio::test]
async fn lesson_14_bad_bodies_are_the_callers_mistake() {
    let gateway = start_with(|config| config.limits.sign_in_burst = 1000.try_into().unwrap()).await;
    for path in ["challenge", "verify", "register", "refresh", "logout", "api-key"] {
        let path = format!("/v1/auth/{path}");
        for (body, code) in [
            ("", "malformed"),
            ("{", "malformed"),
            ("null", "invalid_argument"),
            ("[]", "invalid_argument"),
            (r#"{"secret_field":"s3cret"}"#, "invalid_argument"),
            (r#"{"wallet":7}"#, "invalid_argument"),
        ] {
            let message = gateway.request("POST", &path, &[], body).await.assert_error(400, code);
            assert!(!message.contains("s3cret"), "{message}");
        }
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        gateway
            .request("POST", &path, &form, "a=b")
            .await
            .assert_error(415, "unsupported_media_type");
        gateway
            .request("POST", &format!("{path}?key=a"), &[], "{}")
            .await
            .assert_error(400, "invalid_argument");
        gateway.request("GET", &path, &[], "").await.assert_error(405, "method_not_allowed");
    }
    assert!(gateway.node.seen.lock().unwrap().is_empty());
}

/// Pages of any origin may sign in, where the gateway's CORS setting lets them.
#[tokio::test]
async fn lesson_14_the_auth_routes_follow_the_cors_setting() {
    let gateway =
        start_with(|config| config.cors_origins = vec!["https://app.example".into()]).await;
    let body = json!({"wallet": WALLET}).to_string();
    let from = async |origin: &str| {
        let answer =
            gateway.request("POST", "/v1/auth/challenge", &[("Origin", origin)], &body).await;
        answer.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(from("https://app.example").await.as_deref(), Some("https://app.example"));
    assert_eq!(from("https://evil.example").await, None);
}

/// Secrets stand in no error and no metric, and the API takes none in an address.
#[tokio::test]
async fn secrets_are_in_no_error_metric_or_address() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    // The runtime of this test has one thread: what the gateway counts is recorded here.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let node = crate::fake_node::FakeNode::new();
    let gateway =
        Gateway::start(config(|_| {}), node.client(), Some(recorder.handle())).await.unwrap();
    let running = Running { gateway, node };
    let (nonce, token) = ("c0ffee".repeat(10), "rt_5ecret");
    let mut told = Vec::new();
    for (path, body) in [
        ("verify", json!({"wallet": WALLET, "nonce": nonce, "signature": BAD_SIGNATURE})),
        ("refresh", json!({"refresh_token": token})),
        ("refresh", json!({"refresh_token": token, "access_token": token})),
        ("logout", json!({"refresh_token": token, "all": true})),
    ] {
        let answer = public(&running, &format!("/v1/auth/{path}"), &body).await;
        assert!(answer.status >= 400);
        told.push(answer.json().to_string());
    }
    for path in [
        "/v1/auth/api-keys/ak_5ecret",
        "/v1/auth/login/ak_5ecret",
        "/v1/namespaces/one/members/rt_5ecret",
        "/v1/namespaces/rt_5ecret",
    ] {
        running.request("GET", path, &[SESSION], "").await;
    }
    for address in [
        "/v1/auth/whoami?api_key=ak_5ecret",
        "/v1/auth/whoami?token=ak_5ecret",
        "/v1/auth/refresh?refresh_token=rt_5ecret",
        "/v1/pubsub/ws?topic=t&token=ak_5ecret",
    ] {
        let answer = running.request("GET", address, &[SESSION], "").await;
        assert!(matches!(answer.status, 400 | 405), "{address}: {}", answer.status);
        told.push(answer.json().to_string());
    }
    let metrics = running.request("GET", "/metrics", &[crate::setup::OPERATOR], "").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(
        metrics.contains("/v1/auth/api-keys/{id}")
            && metrics.contains("/members/{wallet}")
            && metrics.contains("\"/v1/namespaces/{namespace}\""),
        "{metrics}"
    );
    told.push(metrics);
    for text in told {
        assert!(
            !text.contains("5ecret") && !text.contains("c0ffee") && !text.contains("0xbad"),
            "{text}"
        );
        assert!(!text.contains("ey.good"), "{text}");
    }
}
