//! Sign-in through a gateway before a real node, with real signatures.

use crate::http_client::{Answer, Http};
use crate::setup::config;
use crate::websocket_client::{message, open};
use debros_auth::PrivateKey;
use debros_client::{Client, Config};
use debros_gateway::Gateway;
use debros_testkit::TestNode;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A person with a wallet, before a gateway.
struct Person<'a> {
    key: PrivateKey,
    gateway: &'a Gateway,
}

impl<'a> Person<'a> {
    fn new(number: u8, gateway: &'a Gateway) -> Self {
        Self { key: PrivateKey::from_bytes(&[number; 32]).unwrap(), gateway }
    }

    fn wallet(&self) -> String {
        self.key.wallet().to_string()
    }

    async fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let credential = format!("Bearer {token}");
        let headers = [("Authorization", credential.as_str())];
        let headers = if token.is_empty() { &[][..] } else { &headers[..] };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Http::connect(self.gateway.address())
            .await
            .request(method, path, headers, body.as_bytes())
            .await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, "", body).await
    }

    /// A proof for a namespace, with more fields.
    async fn proof(&self, namespace: &str) -> Value {
        let asked = json!({"wallet": self.key.wallet().checksummed(), "namespace": namespace});
        let challenge = self.post("/v1/auth/challenge", &asked).await.json();
        let signature = self.key.sign_personal(challenge["message"].as_str().unwrap());
        json!({"wallet": self.wallet(), "namespace": namespace, "nonce": challenge["nonce"], "signature": signature})
    }

    async fn sign_in(&self, namespace: &str) -> Value {
        let answer = self.post("/v1/auth/verify", &self.proof(namespace).await).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    async fn token(&self, namespace: &str) -> String {
        self.sign_in(namespace).await["access_token"].as_str().unwrap().to_owned()
    }
}

async fn node_and_gateway() -> (TestNode, Gateway) {
    let node = TestNode::start().await;
    let gateway = node
        .gateway_with(|config| {
            config.limits.sign_in_burst = 1000.try_into().unwrap();
            config.limits.wallet_burst = 1000.try_into().unwrap();
        })
        .await;
    (node, gateway)
}

/// Acceptance: the whole flow over HTTP alone.
#[tokio::test(flavor = "multi_thread")]
async fn from_a_wallet_to_data_and_out_again() {
    let (_node, gateway) = node_and_gateway().await;
    let ada = Person::new(1, &gateway);
    let session = ada.sign_in("shop").await;
    assert_eq!((&session["subject"], &session["role"]), (&json!(ada.wallet()), &json!("owner")));
    let token = session["access_token"].as_str().unwrap();
    assert_eq!(ada.call("PUT", "/v1/storage?key=k", token, &json!("v")).await.status, 201);
    let me = ada.call("GET", "/v1/auth/whoami", token, &Value::Null).await.json();
    assert_eq!(
        (&me["method"], &me["wallet"], &me["namespace"]),
        (&json!("jwt"), &json!(ada.wallet()), &json!("shop"))
    );
    assert!(me["expires_at"].is_string() && me["operator"] == false);

    let made = ada
        .call("POST", "/v1/auth/api-key", token, &json!({"name": "ci", "scopes": ["storage:read"]}))
        .await
        .json();
    let key = made["api_key"].as_str().unwrap();
    assert_eq!((&made["wallet"], &made["plan"]), (&json!(ada.wallet()), &json!("free")));
    assert_eq!(ada.call("GET", "/v1/storage?key=k", key, &Value::Null).await.body, b"\"v\"");
    ada.call("PUT", "/v1/storage?key=k", key, &json!("w")).await.assert_error(403, "forbidden");
    let exchanged = ada.call("POST", "/v1/auth/token", key, &Value::Null).await.json();
    let short = exchanged["access_token"].as_str().unwrap();
    assert_eq!(ada.call("GET", "/v1/storage?key=k", short, &Value::Null).await.status, 200);
    let listed = ada.call("GET", "/v1/auth/api-keys", token, &Value::Null).await.json();
    assert_eq!((&listed["count"], &listed["items"][0]["id"]), (&json!(1), &made["id"]));
    assert!(!listed.to_string().contains(key));
    let path = format!("/v1/auth/api-keys/{}", made["id"].as_str().unwrap());
    assert_eq!(ada.call("DELETE", &path, token, &Value::Null).await.json()["revoked"], true);

    let by_proof = ada.post("/v1/auth/api-key", &ada.proof("shop").await).await;
    assert_eq!((by_proof.status, by_proof.json()["role"].as_str()), (200, Some("writer")));
    let app = ada.post("/v1/auth/register", &ada.proof("shop").await).await;
    assert_eq!((app.status, &app.json()["app"]["wallet"]), (201, &json!(ada.wallet())));
    let apps = ada.call("GET", "/v1/apps", token, &Value::Null).await.json();
    assert_eq!(apps["items"][0]["app_id"], app.json()["client_id"]);

    let refreshed = ada
        .post("/v1/auth/refresh", &json!({"refresh_token": session["refresh_token"]}))
        .await
        .json();
    assert_eq!(
        ada.call(
            "GET",
            "/v1/storage?key=k",
            refreshed["access_token"].as_str().unwrap(),
            &Value::Null
        )
        .await
        .status,
        200
    );
    let ended = ada
        .post("/v1/auth/logout", &json!({"refresh_token": refreshed["refresh_token"]}))
        .await
        .json();
    assert_eq!(ended, json!({"status": "ok", "revoked": 1}));
    let again =
        ada.post("/v1/auth/refresh", &json!({"refresh_token": refreshed["refresh_token"]})).await;
    again.assert_error(401, "credential_revoked");
    let keys = ada.call("GET", "/.well-known/jwks.json", "", &Value::Null).await.json();
    assert_eq!(
        (&keys["keys"][0]["kty"], &keys["keys"][0]["alg"]),
        (&json!("OKP"), &json!("EdDSA"))
    );
    let header = token.split('.').next().unwrap();
    use base64::Engine as _;
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(header["kid"], keys["keys"][0]["kid"]);
}

/// Lesson 2: any signer became owner of any namespace, and got a token for it.
#[tokio::test(flavor = "multi_thread")]
async fn lesson_02_a_namespace_is_its_owners_until_it_is_shared() {
    let (_node, gateway) = node_and_gateway().await;
    let (ada, bob) = (Person::new(1, &gateway), Person::new(2, &gateway));
    let owner = ada.token("shop").await;
    for path in ["verify", "register", "api-key"] {
        let answer = bob.post(&format!("/v1/auth/{path}"), &bob.proof("shop").await).await;
        assert!(answer.assert_error(403, "forbidden").contains("belongs to somebody else"));
    }
    let members = "/v1/namespaces/shop/members";
    let role = json!({"wallet": bob.wallet(), "role": "reader"});
    let strangers = bob.token("bobs").await;
    bob.call("POST", members, &strangers, &role).await.assert_error(403, "namespace_mismatch");
    assert_eq!(ada.call("POST", members, &owner, &role).await.json()["role"], "reader");
    let list = ada.call("GET", members, &owner, &Value::Null).await.json();
    assert_eq!((&list["count"], &list["items"][0]["role"]), (&json!(2), &json!("owner")));

    let reader = bob.token("shop").await;
    bob.call("GET", "/v1/storage/list", &reader, &Value::Null).await.json();
    bob.call("PUT", "/v1/storage?key=k", &reader, &json!("v")).await.assert_error(403, "forbidden");
    bob.call("GET", members, &reader, &Value::Null).await.assert_error(403, "forbidden");
    bob.call("POST", members, &reader, &role).await.assert_error(403, "forbidden");

    let path = format!("{members}/{}", bob.wallet());
    assert_eq!(ada.call("DELETE", &path, &owner, &Value::Null).await.json()["removed"], true);
    bob.post("/v1/auth/verify", &bob.proof("shop").await).await.assert_error(403, "forbidden");
}

/// A member may leave, whatever the role, by HTTP as by P2P; its owner may not.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_gives_up_its_own_role_and_an_owner_stays() {
    let (_node, gateway) = node_and_gateway().await;
    let (ada, bob) = (Person::new(1, &gateway), Person::new(2, &gateway));
    let owner = ada.token("shop").await;
    let members = "/v1/namespaces/shop/members";
    let own = format!("{members}/{}", bob.wallet());
    for role in ["reader", "writer", "admin"] {
        let set = json!({"wallet": bob.wallet(), "role": role});
        assert_eq!(ada.call("POST", members, &owner, &set).await.json()["role"], role);
        let member = bob.token("shop").await;
        let others = format!("{members}/{}", ada.wallet());
        bob.call("DELETE", &others, &member, &Value::Null).await.assert_error(403, "forbidden");
        assert_eq!(
            bob.call("DELETE", &own, &member, &Value::Null).await.json()["removed"],
            true,
            "{role}"
        );
        bob.call("GET", "/v1/storage/list", &member, &Value::Null)
            .await
            .assert_error(401, "unauthenticated");
        bob.post("/v1/auth/verify", &bob.proof("shop").await).await.assert_error(403, "forbidden");
    }
    let own = format!("{members}/{}", ada.wallet());
    let said = ada.call("DELETE", &own, &owner, &Value::Null).await.assert_error(403, "forbidden");
    assert!(said.contains("owns the namespace"), "{said}");
    assert_eq!(
        ada.call("GET", members, &owner, &Value::Null).await.json()["items"][0]["role"],
        "owner"
    );
}

/// Lesson 9: two verifications at once with one nonce both passed.
#[tokio::test(flavor = "multi_thread")]
async fn lesson_09_of_a_hundred_uses_of_one_nonce_at_once_one_wins() {
    let (_node, gateway) = node_and_gateway().await;
    let ada = Person::new(1, &gateway);
    let proof = ada.proof("shop").await;
    let answers =
        futures::future::join_all((0..100).map(|_| ada.post("/v1/auth/verify", &proof))).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(won, 1);
    // The node lets one wallet try so many times in a row.
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 401 | 429)));
}

/// Lesson 9: what was signed named no site. A challenge under one name is not good under another.
#[tokio::test(flavor = "multi_thread")]
async fn lesson_09_a_proof_is_good_where_it_was_asked_for() {
    let (node, gateway) = node_and_gateway().await;
    let elsewhere =
        node.gateway_with(|config| config.public_url = Some("https://gw.example".into())).await;
    let proof = Person::new(1, &gateway).proof("shop").await;
    let there = Person::new(1, &elsewhere);
    there.post("/v1/auth/verify", &proof).await.assert_error(401, "unauthenticated");
    let here = Person::new(1, &gateway);
    assert_eq!(here.post("/v1/auth/verify", &proof).await.status, 200);
}

/// Lesson 13, before a real node.
#[tokio::test(flavor = "multi_thread")]
async fn lesson_13_all_sessions_of_a_wallet_end() {
    let (_node, gateway) = node_and_gateway().await;
    let ada = Person::new(1, &gateway);
    let sessions = [ada.sign_in("shop").await, ada.sign_in("shop").await];
    let token = sessions[0]["access_token"].as_str().unwrap();
    let ended = ada.call("POST", "/v1/auth/logout", token, &json!({"all": true})).await.json();
    assert_eq!(ended, json!({"status": "ok", "revoked": 2}));
    for session in &sessions {
        let again =
            ada.post("/v1/auth/refresh", &json!({"refresh_token": session["refresh_token"]})).await;
        again.assert_error(401, "credential_revoked");
    }
}

/// Acceptance: what one namespace holds cannot be seen from another, whichever way is taken.
#[tokio::test(flavor = "multi_thread")]
async fn two_wallets_see_nothing_of_each_other() {
    let (_node, gateway) = node_and_gateway().await;
    let (ada, bob) = (Person::new(1, &gateway), Person::new(2, &gateway));
    let (adas, bobs) = (ada.token("adas").await, bob.token("bobs").await);
    assert_eq!(ada.call("PUT", "/v1/storage?key=k", &adas, &json!("v")).await.status, 201);
    ada.call("POST", "/v1/db/create-table", &adas, &json!({"schema": "CREATE TABLE t (a)"})).await;
    ada.call("POST", "/v1/apps", &adas, &json!({"name": "shop", "public_key": "pk"})).await;
    ada.call("POST", "/v1/auth/api-key", &adas, &json!({"name": "ci"})).await;
    let listen = async |token: &str| {
        let path = format!("/v1/pubsub/ws?topic=news&token={token}");
        open(gateway.address(), &path, &[]).await.unwrap().0
    };
    let (mut to_ada, mut to_bob) = (listen(&adas).await, listen(&bobs).await);
    for (person, token, data) in [(&ada, &adas, "YWRh"), (&bob, &bobs, "Ym9i")] {
        let body = json!({"topic": "news", "data_base64": data});
        assert_eq!(person.call("POST", "/v1/pubsub/publish", token, &body).await.status, 200);
    }
    assert_eq!(
        (message(&mut to_ada).await, message(&mut to_bob).await),
        (b"ada".to_vec(), b"bob".to_vec())
    );

    bob.call("GET", "/v1/storage?key=k", &bobs, &Value::Null).await.assert_error(404, "not_found");
    let seen = async |path: &str| bob.call("GET", path, &bobs, &Value::Null).await.json();
    assert_eq!(seen("/v1/storage/list").await["keys"], json!([]));
    assert_eq!(seen("/v1/db/schema").await["tables"], json!([]));
    assert_eq!(seen("/v1/apps").await["count"], 0);
    assert_eq!(seen("/v1/auth/api-keys").await["count"], 0);
    for path in [
        "/v1/storage?key=k&namespace=adas",
        "/v1/apps?namespace=adas",
        "/v1/namespaces/adas/members",
    ] {
        bob.call("GET", path, &bobs, &Value::Null).await.assert_error(403, "namespace_mismatch");
    }
    let other = format!("/v1/pubsub/ws?topic=news&namespace=adas&token={bobs}");
    assert!(open(gateway.address(), &other, &[]).await.is_err());
}

/// Acceptance, and lesson 12: a restart logged everyone out, and two gateways refused each other's
/// tokens.
#[tokio::test(flavor = "multi_thread")]
async fn lesson_12_tokens_and_keys_hold_through_every_gateway_and_after_restarts() {
    let (node, inside) = node_and_gateway().await;
    let client = Client::connect(Config::new("").bootstrap_peer(node.address())).await.unwrap();
    let separate = Gateway::start(config(|_| {}), client, None).await.unwrap();
    let (here, there) = (Person::new(1, &inside), Person::new(1, &separate));
    let session = here.sign_in("shop").await;
    let token = session["access_token"].as_str().unwrap();
    let made = here.call("POST", "/v1/auth/api-key", token, &json!({"name": "ci"})).await.json();
    let key = made["api_key"].as_str().unwrap();
    let node = node.restart().await.restart().await;
    for credential in [token, key] {
        let me = there.call("GET", "/v1/auth/whoami", credential, &Value::Null).await.json();
        assert_eq!((&me["namespace"], &me["wallet"]), (&json!("shop"), &json!(here.wallet())));
    }
    let refresh = json!({"refresh_token": session["refresh_token"]});
    assert_eq!(there.post("/v1/auth/refresh", &refresh).await.status, 200);

    // Revoked through one gateway, refused by the other.
    let second = node.gateway().await;
    let path = format!("/v1/auth/api-keys/{}", made["id"].as_str().unwrap());
    let owner = Person::new(1, &second);
    assert_eq!(owner.call("DELETE", &path, token, &Value::Null).await.json()["revoked"], true);
    let revoked = Instant::now();
    loop {
        // What is sent later than that must be refused; when its answer comes is the machine's
        // affair.
        let is_late = revoked.elapsed() > Duration::from_secs(5);
        if there.call("GET", "/v1/auth/whoami", key, &Value::Null).await.status == 401 {
            break;
        }
        assert!(!is_late, "a revoked key works for more than 5 seconds");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
