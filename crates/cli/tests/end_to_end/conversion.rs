//! From a node that keeps its data alone to a cluster, and back: everything is there afterwards.

use crate::cluster::{Member, PAUSE};
use crate::support::PATIENCE;
use crate::support::http::Http;
use crate::support::wallet::Wallet;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Somebody's application: a database, pairs, members, keys and a session.
struct Application {
    owner: Wallet,
    member: Wallet,
    /// The access token of the owner's session.
    access: String,
    refresh: String,
    api_key: String,
}

/// Through a node that may just be starting again, as clients do that retry.
async fn get(http: &Http, path: &str) -> Value {
    let began = Instant::now();
    loop {
        let answer = http.request(Method::GET, path).send().await;
        if let Ok(answer) = answer
            && (answer.status() != 503 || began.elapsed() > PATIENCE)
        {
            assert!(answer.status().is_success(), "{path}: {answer:?}");
            return answer.json().await.unwrap();
        }
        assert!(began.elapsed() < PATIENCE, "{path} is not answered");
        tokio::time::sleep(PAUSE).await;
    }
}

impl Application {
    async fn make(http: &Http) -> Self {
        let (owner, member) = (Wallet::numbered(1), Wallet::numbered(2));
        let session = owner.verify(http, "music").await.ok().json();
        let text = |name: &str| session[name].as_str().unwrap().to_owned();
        let (access, refresh) = (text("access_token"), text("refresh_token"));
        let by_owner = http.with_key(&access);
        let granted = json!({ "wallet": member.address, "role": "reader" });
        by_owner.post("/v1/namespaces/music/members", &granted).await.ok();
        let asked = json!({ "name": "backend", "scopes": ["db:read", "db:write", "storage:read", "storage:write"] });
        let key = by_owner.post("/v1/auth/api-key", &asked).await.ok().json();
        let api_key = key["api_key"].as_str().expect("a key").to_owned();
        let corpus =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/tests/corpus/sample_chinook.sql");
        let dump = std::fs::read_to_string(corpus).unwrap();
        let fills = |sql: &&str| sql.starts_with("CREATE") || sql.starts_with("INSERT");
        for sql in dump.lines().filter(fills) {
            let answer = by_owner.query(sql, json!([])).await;
            // One of them is there to be refused.
            assert!([200, 409].contains(&answer.status), "{sql}: {}", answer.text());
        }
        for number in 0..20 {
            by_owner.put_value(&format!("cover/{number}"), vec![number; 1000]).await.ok();
        }
        Self { owner, member, access, refresh, api_key }
    }

    /// All of it, as it is seen through a gateway.
    async fn seen(&self, http: &Http) -> Value {
        let by_owner = http.with_key(&self.access);
        let by_key = http.with_key(&self.api_key);
        let schema = get(&by_key, "/v1/db/schema").await;
        let mut rows = serde_json::Map::new();
        for table in schema["tables"].as_array().unwrap() {
            let name = table["name"].as_str().unwrap();
            let sql = format!("SELECT rowid, * FROM [{name}] ORDER BY rowid");
            rows.insert(name.to_owned(), by_key.rows(&sql, json!([])).await.into());
        }
        assert!(rows.len() >= 5, "{:?}", rows.keys());
        let mut values = Vec::new();
        for number in 0..20 {
            values.push(by_key.get_value(&format!("cover/{number}")).await.ok().body.len());
        }
        let members = get(&by_owner, "/v1/namespaces/music/members").await;
        assert!(members.to_string().contains(&self.member.address), "{members}");
        let mut keys = get(&by_owner, "/v1/auth/api-keys").await;
        // When it was used is no part of what is compared.
        strip(&mut keys, "last_used");
        let list = get(&by_key, "/v1/storage/list?prefix=cover/").await;
        json!({ "schema": schema, "rows": rows, "values": values, "members": members, "keys": keys, "list": list })
    }
}

/// Takes a field away wherever it is.
fn strip(value: &mut Value, field: &str) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.starts_with(field));
            fields.values_mut().for_each(|value| strip(value, field));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| strip(value, field)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_becomes_a_cluster_and_one_node_again_with_all_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let [mut one, mut two] = ["one", "two"].map(|name| Member::new(folder.path(), name, &[]));
    one.start(&[]);
    let mut application = Application::make(&one.http("")).await;
    let before = application.seen(&one.http("")).await;

    one.try_cli(&["cluster", "init"]).expect("a cluster begins");
    assert_eq!(application.seen(&one.http("")).await, before);
    let token = crate::cluster::join_token(&one);
    two.start(&["--join", &token]);
    for node in [&one, &two] {
        assert_eq!(application.seen(&node.http("")).await, before);
        // The session goes on, and through the other node.
        let asked = json!({ "refresh_token": application.refresh });
        let session = node.http("").public("/v1/auth/refresh", &asked).await.ok().json();
        application.access = session["access_token"].as_str().unwrap().to_owned();
        application.refresh = session["refresh_token"].as_str().unwrap().to_owned();
        application.owner.verify(&node.http(""), "music").await.ok();
    }
    let by_key = two.http(&application.api_key);
    by_key.query("INSERT INTO Genre VALUES (999, 'Bluegrass')", json!([])).await.ok();
    let grown = application.seen(&one.http("")).await;
    assert_ne!(grown["rows"]["Genre"], before["rows"]["Genre"]);

    two.stop();
    one.stop();
    one.settings.push(("DEBROS_DATABASE_ENGINE", "embedded".to_owned()));
    one.start(&[]);
    assert_eq!(application.seen(&one.http("")).await, grown);
    let asked = json!({ "refresh_token": application.refresh });
    one.http("").public("/v1/auth/refresh", &asked).await.ok();
    let by_key = one.http(&application.api_key);
    by_key.query("INSERT INTO Genre VALUES (1000, 'Skiffle')", json!([])).await.ok();
}
