//! `--format json` writes what HTTP answers for the same thing: the same fields, the same times,
//! the same nulls.

use crate::support::Node;
use crate::support::http::Http;
use crate::support::person::Person;
use crate::support::wallet::Wallet;
use serde_json::{Value, json};

/// Fields whose value is another at each call; their kind has to be the same.
const MOVING: [&str; 13] = [
    "version",
    "uptime",
    "last_updated",
    "response_time",
    "took_us",
    "id",
    "api_key",
    "database_size",
    "last_used",
    "peer_count",
    "size",
    "free",
    "created_at",
];

/// Where the two differ. Fields that the command line has alone are named in `more`.
fn differences(http: &Value, cli: &Value, more: &[&str], place: &str, found: &mut Vec<String>) {
    match (http, cli) {
        (Value::Object(http), Value::Object(cli)) => {
            for (name, value) in http {
                match cli.get(name) {
                    Some(_) if MOVING.contains(&name.as_str()) && is_alike(value, &cli[name]) => {}
                    Some(other) => {
                        differences(value, other, &[], &format!("{place}.{name}"), found)
                    }
                    None => found.push(format!("{place}.{name} is missing")),
                }
            }
            let unknown = cli
                .keys()
                .filter(|name| !http.contains_key(*name) && !more.contains(&name.as_str()));
            found.extend(unknown.map(|name| format!("{place}.{name} is HTTP's not")));
        }
        (Value::Array(http), Value::Array(cli)) if http.len() == cli.len() => {
            for (index, (one, other)) in http.iter().zip(cli).enumerate() {
                differences(one, other, &[], &format!("{place}[{index}]"), found);
            }
        }
        _ if http == cli => {}
        _ => found.push(format!("{place}: {http} and {cli}")),
    }
}

fn is_alike(one: &Value, other: &Value) -> bool {
    let is_time = |text: &str| text.len() == 24 && text.ends_with('Z');
    match (one, other) {
        (Value::String(one), Value::String(other)) => is_time(one) == is_time(other),
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

struct Scene {
    person: Person,
    http: Http,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    /// Compares a command with a GET, or with a POST of a body.
    #[track_caller]
    fn compare(&self, args: &[&str], path: &str, body: Option<Value>, more: &[&str]) {
        self.compare_with(args, path, body, more, |answer| answer);
    }

    #[track_caller]
    fn compare_with(
        &self,
        args: &[&str],
        path: &str,
        body: Option<Value>,
        more: &[&str],
        part: impl FnOnce(Value) -> Value,
    ) {
        let answered = self.runtime.block_on(async {
            match &body {
                Some(body) => self.http.post(path, body).await,
                None => self.http.get(path).await,
            }
        });
        let http = part(answered.ok().json());
        let cli = self.person.json(args);
        let mut found = Vec::new();
        differences(&http, &cli, more, "", &mut found);
        assert!(found.is_empty(), "{args:?} and {path}: {found:#?}\n{http}\n{cli}");
    }
}

#[test]
fn json_is_that_of_http_for_the_same_thing() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let person = Person::new(&folder.path().join("home"), &node.peer());
    let keystore = Wallet::numbered(1).keystore(&person.home);
    person.text(&[&["auth", "login", "-n", "shop"][..], &keystore.options()].concat());
    let http = Http::new(node.address, &person.text(&["auth", "token"]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scene = Scene { person, http, runtime };

    scene.compare(&["auth", "whoami"], "/v1/auth/whoami", None, &[]);
    let sql = |sql: &str| Some(json!({ "sql": sql }));
    scene.person.text(&[
        "query",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT DEFAULT 'x', data BLOB, weight REAL)",
    ]);
    scene.person.text(&["query", "CREATE UNIQUE INDEX by_name ON t (name, lower(name))"]);
    let update = "UPDATE t SET name = 'y' WHERE id = 7 RETURNING id";
    scene.compare(&["query", update], "/v1/db/query", sql(update), &[]);
    let select = "SELECT NULL, 1, 1.0, 'text', x'00ff', 9007199254740993";
    scene.compare(&["query", select], "/v1/db/query", sql(select), &[]);
    scene.compare(&["db", "schema"], "/v1/db/schema", None, &[]);

    for key in ["a/1", "a/2", "a/3"] {
        let body = json!({ "key": key, "value": "djE=" });
        scene.compare(&["storage", "put", key, "v1"], "/v1/storage/put", Some(body), &[]);
    }
    let key = || Some(json!({ "key": "a/1" }));
    scene.compare(
        &["storage", "get", "a/1"],
        "/v1/storage/get",
        key(),
        &["key", "size", "version", "expires_at"],
    );
    assert_eq!(scene.person.json(&["storage", "get", "a/1"])["expires_at"], Value::Null);
    scene.person.text(&["storage", "put", "short", "v", "--ttl", "1h"]);
    assert!(
        scene.person.json(&["storage", "get", "short"])["expires_at"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    scene.compare(&["storage", "list", "a/", "2"], "/v1/storage/list?prefix=a/&limit=2", None, &[]);
    scene.compare(&["storage", "list", "a/"], "/v1/storage/list?prefix=a/", None, &[]);
    scene.compare(&["storage", "exists", "a/1"], "/v1/storage/exists?key=a/1", None, &[]);
    scene.person.text(&["storage", "delete", "a/1"]);
    scene.compare(&["storage", "delete", "a/1"], "/v1/storage/delete", key(), &[]);

    let message = json!({ "topic": "news", "data_base64": "djE=" });
    scene.compare(
        &["pubsub", "publish", "news", "v1"],
        "/v1/pubsub/publish",
        Some(message),
        &["topic", "size"],
    );
    scene.compare(&["pubsub", "topics"], "/v1/pubsub/topics", None, &[]);

    let key = || Some(json!({ "name": "ci", "scopes": ["db:read"] }));
    let create = ["auth", "keys", "create", "--name", "ci", "--scopes", "db:read"];
    scene.compare(&create, "/v1/auth/api-key", key(), &[]);
    let keys = scene.person.json(&["auth", "keys", "list"]);
    scene.person.text(&["auth", "keys", "revoke", keys["items"][0]["id"].as_str().unwrap()]);
    scene.compare(&["auth", "keys", "list"], "/v1/auth/api-keys", None, &[]);
    let wallet = Wallet::numbered(2).address;
    let member = Some(json!({ "wallet": wallet, "role": "reader" }));
    scene.compare(
        &["auth", "members", "set", &wallet, "reader"],
        "/v1/namespaces/shop/members",
        member,
        &[],
    );
    scene.compare(&["auth", "members", "list"], "/v1/namespaces/shop/members", None, &[]);
    scene.compare(&["namespace", "info"], "/v1/namespaces/shop", None, &[]);
    scene.compare(&["namespace", "list"], "/v1/namespaces", None, &[]);

    scene.compare(&["status"], "/v1/network/status", None, &[]);
    scene.compare(&["peers"], "/v1/network/peers", None, &[]);
    scene.compare_with(&["health"], "/health", None, &[], |mut answer| answer["client"].take());
    scene.compare_with(&["version"], "/v1/version", None, &[], |mut answer| {
        let fields = answer.as_object_mut().unwrap();
        fields.retain(|name, _| !["started_at", "uptime"].contains(&name.as_str()));
        answer
    });
}
