//! Wallets and namespaces through every way in: what belongs to one is nobody else's until it is
//! granted, and again when the grant is taken back.

use crate::network::Network;
use crate::support::http::Http;
use crate::support::person::Person;
use crate::support::socket::{Frame, Socket};
use crate::support::wallet::Wallet;
use crate::support::{Gateway, Node};
use debros_client::{Client, Code};
use debros_proto::json::encode_base64;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long what was revoked may go on.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

/// A wallet that signed in to a namespace, on every way in.
struct Signed {
    inside: Http,
    separate: Http,
    library: Client,
    person: Person,
    token: String,
}

impl Signed {
    async fn new(network: &Network, wallet: &Wallet, namespace: &str) -> Self {
        let inside = Http::new(network.node.address, "");
        let session = wallet.verify(&inside, namespace).await.ok().json();
        let token = session["access_token"].as_str().unwrap().to_owned();
        let home = network.folder.path().join(format!("{}-{namespace}", wallet.address));
        let person = Person::new(&home, &network.node.peer());
        let keystore = wallet.keystore(&person.home);
        person.text(&[&["auth", "login", "-n", namespace][..], &keystore.options()].concat());
        Self {
            inside: inside.with_key(&token),
            separate: Http::new(network.gateway.address, &token),
            library: network.library(namespace, &token).await,
            person,
            token,
        }
    }

    fn http(&self) -> [&Http; 2] {
        [&self.inside, &self.separate]
    }
}

/// Whether a WebSocket on a topic is let in.
async fn subscribes(address: std::net::SocketAddr, token: &str, topic: &str) -> bool {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    let mut request =
        format!("ws://{address}/v1/pubsub/ws?topic={topic}").into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.is_ok()
}

fn message(text: &str) -> Value {
    json!({ "topic": "chat", "data_base64": encode_base64(text.as_bytes()) })
}

/// Lesson 2: whoever signed became the owner of any namespace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lesson_02_two_wallets_see_nothing_of_each_other_until_a_role_is_granted() {
    let network = Network::start();
    let (alice, bob) = (Wallet::numbered(1), Wallet::numbered(2));
    let a = Signed::new(&network, &alice, "alpha").await;
    let b = Signed::new(&network, &bob, "beta").await;
    a.inside.put_value("k", "of alice").await.ok();
    a.inside.create("CREATE TABLE t (v TEXT)").await;
    a.separate.post("/v1/apps", &json!({ "name": "app of alice", "public_key": "p" })).await.ok();
    let key =
        a.inside.post("/v1/auth/api-key", &json!({ "name": "key of alice" })).await.ok().json();

    // Nothing of it is there for the other, on any way.
    for http in b.http() {
        http.get_value("k").await.fails(404, "not_found");
        assert_eq!(http.get("/v1/apps").await.ok().json()["count"], 0);
        assert_eq!(http.query("SELECT * FROM t", json!([])).await.status, 400);
        let keys = http.get("/v1/auth/api-keys").await.ok();
        assert!(!keys.text().contains("key of alice"), "{}", keys.text());
        http.get("/v1/storage?key=k&namespace=alpha").await.fails(403, "namespace_mismatch");
        assert_eq!(http.get("/v1/namespaces/alpha/members").await.status, 403);
        let wanted = json!({ "wallet": bob.address, "role": "admin" });
        assert_eq!(http.post("/v1/namespaces/alpha/members", &wanted).await.status, 403);
        let id = key["id"].as_str().unwrap();
        assert!(matches!(http.delete(&format!("/v1/auth/api-keys/{id}")).await.status, 403 | 404));
    }
    assert!(b.library.storage().get("k").await.unwrap().is_none());
    let liar = network.library("alpha", &b.token).await;
    assert_eq!(liar.storage().get("k").await.unwrap_err().code, Code::NamespaceMismatch);
    b.person.fails(&["storage", "get", "k"], 4);
    b.person.fails(&["storage", "get", "k", "-n", "alpha"], 3);
    // A proof of a wallet that is not the owner's opens nothing: over HTTP and over P2P.
    bob.verify(&a.inside, "alpha").await.fails(403, "forbidden");
    bob.verify(&a.separate, "alpha").await.fails(403, "forbidden");
    let keystore = bob.keystore(&b.person.home);
    b.person.fails(&[&["auth", "login", "-n", "alpha"][..], &keystore.options()].concat(), 1);
    // Topics of the same name are two.
    let mut on_a = Socket::open(network.node.address, &a.token, "chat").await;
    let mut on_b = Socket::open(network.gateway.address, &b.token, "chat").await;
    a.separate.post("/v1/pubsub/publish", &message("for alpha")).await.ok();
    b.inside.post("/v1/pubsub/publish", &message("for beta")).await.ok();
    assert_eq!(on_a.next().await, Frame::Binary(b"for alpha".to_vec()));
    assert_eq!(on_b.next().await, Frame::Binary(b"for beta".to_vec()));

    // Granted: a reader reads, and writes nothing.
    let granted = json!({ "wallet": bob.address, "role": "reader" });
    a.inside.post("/v1/namespaces/alpha/members", &granted).await.ok();
    let reader = Signed::new(&network, &bob, "alpha").await;
    for http in reader.http() {
        assert_eq!(http.get_value("k").await.ok().body, b"of alice");
        assert_eq!(http.get("/v1/apps").await.ok().json()["count"], 1);
        http.query("SELECT * FROM t", json!([])).await.ok();
        http.put_value("k", "of bob").await.fails(403, "forbidden");
        http.query("INSERT INTO t VALUES ('b')", json!([])).await.fails(403, "forbidden");
        http.post("/v1/pubsub/publish", &message("from bob")).await.fails(403, "forbidden");
        http.post("/v1/apps", &json!({ "name": "b", "public_key": "p" }))
            .await
            .fails(403, "forbidden");
        assert_eq!(http.post("/v1/namespaces/alpha/members", &granted).await.status, 403);
    }
    assert_eq!(reader.library.storage().get("k").await.unwrap().unwrap().value, "of alice");
    assert_eq!(reader.library.storage().put("k", "x").await.unwrap_err().code, Code::Forbidden);
    assert_eq!(reader.person.text(&["storage", "get", "k"]), "of alice");
    reader.person.fails(&["storage", "put", "k", "x"], 1);
    let mut watching = Socket::open(network.gateway.address, &reader.token, "chat").await;
    a.inside.post("/v1/pubsub/publish", &message("for readers")).await.ok();
    assert_eq!(watching.next().await, Frame::Binary(b"for readers".to_vec()));

    // Taken back: within 5 seconds on every way, and what was open ends.
    a.separate.delete(&format!("/v1/namespaces/alpha/members/{}", bob.address)).await.ok();
    let taken = Instant::now();
    for http in reader.http() {
        refused_within(taken, || async { http.get_value("k").await.status }).await;
    }
    assert!(matches!(
        reader.library.storage().get("k").await.unwrap_err().code,
        Code::Forbidden | Code::Unauthenticated
    ));
    let ended = reader.person.run(&["storage", "get", "k"]).status.code();
    assert!(matches!(ended, Some(1 | 3)), "{ended:?}");
    assert!(!subscribes(network.node.address, &reader.token, "chat").await);
    loop {
        match watching.next().await {
            Frame::Close(_) => break,
            Frame::Text(_) => {}
            Frame::Binary(data) => panic!("still served: {data:?}"),
        }
    }
    bob.verify(&a.inside, "alpha").await.fails(403, "forbidden");
    assert_eq!(a.inside.get_value("k").await.ok().body, b"of alice");
}

/// A request that is sent later than 5 seconds after the revocation must be refused.
async fn refused_within<F: Future<Output = u16>>(since: Instant, ask: impl Fn() -> F) {
    loop {
        let late = since.elapsed() > REVOKED_WITHIN;
        match ask().await {
            200 => assert!(!late, "still served after 5 seconds"),
            status => {
                assert!(matches!(status, 401 | 403), "{status}");
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lesson 12: keys of a process's own logged everybody out at a restart, and gateways refused each
/// other's tokens.
#[tokio::test]
async fn lesson_12_tokens_and_keys_hold_on_both_gateways_and_after_restarts() {
    let mut network = Network::start();
    let wallet = Wallet::numbered(1);
    let session = wallet.verify(&Http::new(network.node.address, ""), "shop").await.ok().json();
    let token = session["access_token"].as_str().unwrap().to_owned();
    let mut refresh_token = session["refresh_token"].as_str().unwrap().to_owned();
    let inside = Http::new(network.node.address, &token);
    let key = inside.post("/v1/auth/api-key", &json!({})).await.ok().json()["api_key"]
        .as_str()
        .unwrap()
        .to_owned();
    inside.put_value("k", "v").await.ok();
    for round in 0..3 {
        if round > 0 {
            let data_dir = network.node.data_dir.clone();
            network.node.stop();
            let node = Node::start(&data_dir);
            let gateway = Gateway::start(&node);
            network = Network { node, gateway, folder: network.folder };
        }
        for address in [network.node.address, network.gateway.address] {
            let http = Http::new(address, &token);
            assert_eq!(http.get_value("k").await.ok().body, b"v", "round {round}");
            assert_eq!(http.with_key(&key).get_value("k").await.ok().body, b"v", "round {round}");
            // Its own public keys are the same at every gateway.
            let keys = http.get("/v1/auth/jwks").await.ok().json();
            assert_eq!(keys["keys"].as_array().unwrap().len(), 1, "{keys}");
            let refreshed = http
                .public("/v1/auth/refresh", &json!({ "refresh_token": refresh_token }))
                .await
                .ok()
                .json();
            refresh_token = refreshed["refresh_token"].as_str().unwrap().to_owned();
        }
    }
}

#[tokio::test]
async fn a_key_revoked_through_one_gateway_is_refused_by_the_other() {
    let network = Network::start();
    let wallet = Wallet::numbered(1);
    let inside = wallet.signed_in(&Http::new(network.node.address, ""), "shop").await;
    let separate = wallet.signed_in(&Http::new(network.gateway.address, ""), "shop").await;
    for (revoking, other) in [(&inside, &separate), (&separate, &inside)] {
        let made = revoking.post("/v1/auth/api-key", &json!({})).await.ok().json();
        let with_key = other.with_key(made["api_key"].as_str().unwrap());
        // Warm: the other gateway's node has just believed it.
        with_key.get("/v1/storage/list").await.ok();
        revoking.delete(&format!("/v1/auth/api-keys/{}", made["id"].as_str().unwrap())).await.ok();
        let revoked = Instant::now();
        refused_within(revoked, || async { with_key.get("/v1/storage/list").await.status }).await;
    }
}
