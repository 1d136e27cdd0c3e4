//! The owners of two namespaces cannot see that the other exists: through every route of the
//! gateway, the command line, and the client library. (Every call of the P2P protocol itself:
//! `node/tests/access.rs`.)

use crate::network::Network;
use crate::support::http::{Answer, Http};
use crate::support::person::Person;
use crate::support::socket::Socket;
use crate::support::text_of;
use crate::support::wallet::Wallet;
use debros_client::Client;
use reqwest::Method;
use serde_json::{Value, json};

/// Words that stand in alice's namespace alone.
const MARKS: [&str; 7] = [
    "alphaspace",
    "word_of_alice",
    "table_of_alice",
    "column_of_alice",
    "key-of-alice",
    "topic-of-alice",
    "app-of-alice",
];

/// What alice has, and bob could ask for.
struct Alice {
    wallet: Wallet,
    app_id: String,
    key_id: String,
    member: String,
    _listening: [Socket; 2],
}

/// Things of the same names in both namespaces, and some of the owner's own.
async fn fill(http: &Http, owner: &str) -> (String, String) {
    let word = format!("word_of_{owner}");
    http.create(
        "CREATE TABLE t (a TEXT UNIQUE); CREATE INDEX i ON t (a); CREATE VIEW v AS SELECT a FROM t",
    )
    .await;
    http.query("INSERT INTO t VALUES (?)", json!([word])).await.ok();
    http.create(&format!("CREATE TABLE table_of_{owner} (column_of_{owner} TEXT)")).await;
    http.put_value("k", word.clone()).await.ok();
    http.put_value(&format!("key-of-{owner}"), word.clone()).await.ok();
    let app = json!({ "name": format!("app-of-{owner}"), "public_key": word });
    let app = http.post("/v1/apps", &app).await.ok().json();
    let key = http
        .post("/v1/auth/api-key", &json!({ "name": format!("key-of-{owner}") }))
        .await
        .ok()
        .json();
    (app["app_id"].as_str().unwrap().to_owned(), key["id"].as_str().unwrap().to_owned())
}

impl Alice {
    async fn new(network: &Network, http: &Http) -> Self {
        let wallet = Wallet::numbered(1);
        let session = wallet.verify(http, "alphaspace").await.ok().json();
        let token = session["access_token"].as_str().unwrap();
        let own = http.with_key(token);
        let (app_id, key_id) = fill(&own, "alice").await;
        let member = Wallet::numbered(3).address;
        own.post(
            "/v1/namespaces/alphaspace/members",
            &json!({ "wallet": member, "role": "reader" }),
        )
        .await
        .ok();
        let listening = [
            Socket::open(network.node.address, token, "chat").await,
            Socket::open(network.node.address, token, "topic-of-alice").await,
        ];
        Self { wallet, app_id, key_id, member, _listening: listening }
    }

    /// Whether a text reveals something of alice that was not in the request.
    fn is_told(&self, said: &str, asked: &str) -> Option<String> {
        let own =
            [&self.wallet.address, &self.app_id, &self.key_id, &self.member].map(String::as_str);
        let (said, asked) = (said.to_lowercase(), asked.to_lowercase());
        MARKS
            .into_iter()
            .chain(own)
            .find(|mark| said.contains(mark) && !asked.contains(mark))
            .map(str::to_owned)
    }

    #[track_caller]
    fn check(&self, said: &str, asked: &str) {
        if let Some(mark) = self.is_told(said, asked) {
            panic!("{asked} reveals {mark}: {said}");
        }
        assert!(!said.contains("ns::") || asked.contains("ns::"), "{asked}: {said}");
    }
}

/// Bodies for a route that takes one: as an application would send them, and asking for what alice
/// has.
fn bodies(operation: &str, proof: &Value) -> Vec<Value> {
    let sql = |sql: &str| json!({ "sql": sql });
    match operation {
        "auth_challenge" => vec![json!({ "wallet": proof["wallet"], "namespace": "betaspace" })],
        "auth_verify" | "auth_register" => vec![proof.clone()],
        "auth_create_key" => vec![json!({ "name": "n" }), proof.clone()],
        "auth_refresh" => vec![json!({ "refresh_token": format!("rt_{}", "0".repeat(64)) })],
        "auth_logout" => vec![json!({ "refresh_token": format!("rt_{}", "0".repeat(64)) })],
        "members_set" => vec![json!({ "wallet": Wallet::numbered(5).address, "role": "reader" })],
        "namespaces_delete" => vec![json!({ "confirm": "wrong" })],
        "storage_put" => vec![json!({ "key": "new", "value": "AA==" })],
        "storage_put_value" => vec![json!("raw")],
        "storage_get_json" | "storage_delete" => {
            vec![json!({ "key": "k2" }), json!({ "key": "key-of-alice" })]
        }
        "db_query" => [
            "SELECT * FROM t",
            "SELECT * FROM v",
            "SELECT * FROM sqlite_master",
            "SELECT * FROM pragma_table_list",
            "SELECT * FROM table_of_alice",
            "SELECT * FROM \"ns::alphaspace::t\"",
            "SELECT * FROM alphaspace.t",
            "PRAGMA database_list",
            "INSERT INTO t VALUES ('word_of_bob')",
            "EXPLAIN QUERY PLAN SELECT * FROM t",
        ]
        .map(sql)
        .to_vec(),
        "db_transaction" => vec![
            json!({ "statements": ["SELECT * FROM t", "SELECT count(*) FROM sqlite_master"] }),
            json!({ "statements": ["SELECT * FROM table_of_alice"] }),
        ],
        "db_create_table" => {
            vec![
                json!({ "schema": "CREATE TABLE t (a)" }),
                json!({ "schema": "CREATE TABLE made (a)" }),
            ]
        }
        "db_drop_table" => vec![json!({ "table": "table_of_alice" }), json!({ "table": "made" })],
        "pubsub_publish" => vec![json!({ "topic": "chat", "data_base64": "eA==" })],
        "network_connect" => vec![json!({ "multiaddr": "/ip4/127.0.0.1/tcp/1" })],
        "network_disconnect" => {
            vec![json!({ "peer_id": "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp" })]
        }
        "apps_create" | "apps_update" => vec![json!({ "name": "n", "public_key": "p" })],
        other => {
            panic!("the route {other} takes a body: add one here, so that this test asks it too")
        }
    }
}

/// A path with bob's own names in it, and with alice's. The second holds whether such a thing is
/// alice's.
fn paths(pattern: &str, alice: &Alice, bob: &str) -> Vec<(String, bool)> {
    if !pattern.contains('{') {
        return vec![(pattern.to_owned(), false)];
    }
    let filled = |namespace: &str, wallet: &str, id: &str, app: &str| {
        let path = pattern.replace("{namespace}", namespace).replace("{wallet}", wallet);
        let path = path.replace("{id}", id).replace("{app_id}", app);
        assert!(!path.contains('{'), "{pattern}: say here what stands in the path");
        path
    };
    let own = filled("betaspace", bob, "key_none", "app_none");
    let hers = filled("alphaspace", &alice.wallet.address, &alice.key_id, &alice.app_id);
    vec![(own, false), (hers, true)]
}

async fn send(http: &Http, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let request = http.request(Method::from_bytes(method.as_bytes()).unwrap(), path);
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    Answer::of(request.send().await.expect("an answer")).await
}

/// What a GET or DELETE needs in its query.
fn query(operation: &str) -> Vec<&'static str> {
    match operation {
        "storage_get"
        | "storage_get_value"
        | "storage_exists"
        | "storage_delete_value"
        | "storage_put_value" => {
            vec!["?key=k2", "?key=key-of-alice", "?key=k2&namespace=alphaspace"]
        }
        "storage_list" => vec!["", "?prefix=key-of-", "?namespace=alphaspace"],
        "auth_login" => vec!["?callback=http://127.0.0.1:1/cb&state=s&namespace=betaspace"],
        "namespaces_list" => {
            vec!["", "?prefix=alpha", "?limit=1", "?cursor=alpha", "?namespace=alphaspace"]
        }
        "namespaces_delete" => vec!["?confirm=alphaspace"],
        _ => vec!["", "?namespace=alphaspace"],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owners_of_two_namespaces_can_not_see_that_the_other_exists() {
    let network = Network::start();
    let inside = Http::new(network.node.address, "");
    let alice = Alice::new(&network, &inside).await;
    let bob = Wallet::numbered(2);
    let session = bob.verify(&inside, "betaspace").await.ok().json();
    let token = session["access_token"].as_str().unwrap().to_owned();
    fill(&inside.with_key(&token), "bob").await;
    let _listening = Socket::open(network.node.address, &token, "chat").await;

    // Every route of the gateways, as their document lists them.
    let document = inside.get("/v1/openapi.json").await.ok().json();
    let mut asked = 0;
    for http in [inside.with_key(&token), Http::new(network.gateway.address, &token)] {
        for (pattern, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                let proof = json!({
                    "wallet": bob.address, "nonce": "00".repeat(32), "signature": "00".repeat(65), "namespace": "betaspace",
                });
                let bodies: Vec<Option<Value>> = match operation.get("requestBody") {
                    None => vec![None],
                    Some(_) => bodies(id, &proof).into_iter().map(Some).collect(),
                };
                for (path, hers) in paths(pattern, &alice, &bob.address) {
                    for query in query(id) {
                        for body in &bodies {
                            let path = format!("{path}{query}");
                            let answer =
                                send(&http, &method.to_uppercase(), &path, body.as_ref()).await;
                            let request = format!(
                                "{method} {path} {}",
                                body.as_ref().map(Value::to_string).unwrap_or_default()
                            );
                            let said = String::from_utf8_lossy(&answer.body).into_owned();
                            alice.check(&said, &request);
                            let elsewhere = hers || query.contains("namespace=alphaspace");
                            let needs_credential = operation.get("security").is_none();
                            assert!(
                                !(elsewhere && needs_credential)
                                    || (400..500).contains(&answer.status),
                                "{request}: {} {said}",
                                answer.status
                            );
                            asked += 1;
                        }
                    }
                }
            }
        }
        // What is hers is answered as what is nobody's.
        for path in [
            "/v1/namespaces/NAME",
            "/v1/namespaces/NAME/members",
            "/v1/storage?key=k&namespace=NAME",
        ] {
            let mut answers = Vec::new();
            for name in ["alphaspace", "nospace-at"] {
                let answer = http.get(&path.replace("NAME", name)).await;
                let mut body = answer.json();
                body.as_object_mut().unwrap().remove("request_id");
                answers.push((answer.status, body.to_string().replace(name, "NAME")));
            }
            assert_eq!(answers[0], answers[1], "{path}");
        }
        let own: Value = http.get("/v1/namespaces").await.ok().json();
        assert_eq!((&own["count"], &own["items"][0]["name"]), (&json!(1), &json!("betaspace")));
        http.get("/metrics").await.fails(403, "forbidden");
        let topics = http.get("/v1/pubsub/topics").await.ok().json();
        assert_eq!(topics["topics"], json!(["chat"]));
    }
    assert!(asked > 150, "{asked} requests: is the document still whole?");

    by_library(&network, &alice, &token).await;
    by_command_line(&network, &alice, &bob).await;
}

async fn by_library(network: &Network, alice: &Alice, token: &str) {
    let client: Client = network.library("betaspace", token).await;
    let mut told = String::new();
    let mut note = |what: &dyn std::fmt::Debug| told.push_str(&format!("{what:?}\n"));
    note(&client.health().await);
    note(&client.network().status().await);
    note(&client.network().peers().await);
    note(&client.network().who_am_i().await);
    note(&client.namespaces().list("", "", 0).await);
    note(&client.namespaces().get().await);
    note(&client.members().list().await);
    note(&client.auth().list_keys().await);
    note(&client.apps().list().await);
    note(&client.storage().list("", 1000, "").await);
    note(&client.storage().get("k").await);
    note(&client.pubsub().topics().await);
    note(&client.database().schema().await);
    for sql in [
        "SELECT * FROM t",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM sqlite_sequence",
        "SELECT * FROM x",
    ] {
        note(&client.database().query(sql, []).await);
    }
    note(&client.operator().backups().await);
    alice.check(&told, "the library");
    assert!(told.contains("word_of_bob"), "{told}");
    let liar = network.library("alphaspace", token).await;
    for refused in [
        liar.namespaces().get().await.map(drop),
        liar.namespaces().list("", "", 0).await.map(drop),
        liar.namespaces().delete("alphaspace").await.map(drop),
        liar.storage().get("k").await.map(drop),
        liar.database().schema().await.map(drop),
        liar.pubsub().topics().await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.code, debros_client::Code::NamespaceMismatch);
        alice.check(&error.message, "the library in her namespace");
    }
}

async fn by_command_line(network: &Network, alice: &Alice, bob: &Wallet) {
    let person = Person::new(&network.folder.path().join("bob"), &network.node.peer());
    let keystore = bob.keystore(&person.home);
    person.text(&[&["auth", "login", "-n", "betaspace"][..], &keystore.options()].concat());
    let mut told = String::new();
    for args in [
        &["health"][..],
        &["peers"],
        &["status"],
        &["namespace", "list"],
        &["namespace", "list", "alpha"],
        &["namespace", "info"],
        &["storage", "list"],
        &["storage", "get", "k"],
        &["pubsub", "topics"],
        &["auth", "whoami"],
        &["auth", "wallets"],
        &["auth", "keys", "list"],
        &["auth", "members", "list"],
        &["db", "schema"],
        &["db", "backup", "--list"],
        &["db", "export", "out.db"],
        &["query", "SELECT * FROM sqlite_master"],
        &["query", "SELECT * FROM t"],
        &["query", "SELECT * FROM nothing"],
    ] {
        for format in ["table", "json"] {
            let output = person.run(&[args, &["-f", format]].concat());
            let said = text_of(&output);
            alice.check(&said, &args.join(" "));
            told.push_str(&said);
        }
    }
    assert!(told.contains("word_of_bob") && told.contains("betaspace"), "{told}");
    let exported = std::fs::read(person.home.join("out.db")).unwrap();
    alice.check(&String::from_utf8_lossy(&exported).replace("ns::", ""), "db export");
    // Hers and nobody's are the same.
    for command in
        [&["namespace", "info", "NAME"][..], &["namespace", "delete", "NAME", "--confirm", "NAME"]]
    {
        let said = ["alphaspace", "nospace-at"].map(|name| {
            let args: Vec<&str> =
                command.iter().map(|word| if *word == "NAME" { name } else { word }).collect();
            person.fails(&args, 3).replace(name, "NAME")
        });
        assert_eq!(said[0], said[1], "{command:?}");
    }
}
