//! `namespace list`, `info` and `delete`, as owner, as a key and as the node's operator.

use crate::support::cli::Cli;
use crate::support::http::Http;
use crate::support::person::Person;
use crate::support::terminal::OnTerminal;
use crate::support::wallet::Wallet;
use crate::support::{Node, text_of};
use serde_json::json;
use std::path::Path;

/// Somebody who signed in to a namespace.
fn signed_in(folder: &Path, node: &Node, number: u8, namespace: &str) -> Person {
    let wallet = Wallet::numbered(number);
    let person = Person::new(&folder.join(format!("person{number}")), &node.peer());
    let keystore = wallet.keystore(&person.home);
    person.text(&[&["auth", "login", "-n", namespace][..], &keystore.options()].concat());
    person
}

fn fill(person: &Person) {
    person.text(&["query", "CREATE TABLE t (a)"]);
    person.text(&["query", "INSERT INTO t VALUES (1), (2), (3)"]);
    person.text(&["storage", "put", "k", "12345"]);
}

#[test]
fn a_namespace_is_listed_described_and_deleted_by_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Node::command(&folder.path().join("node"));
    let node = Node::start_by(
        command.env("DEBROS_DATABASE_MAX_NAMESPACE_SIZE", "1MiB"),
        &folder.path().join("node"),
    );
    let person = signed_in(folder.path(), &node, 1, "shop");
    let stranger = signed_in(folder.path(), &node, 2, "other");
    fill(&person);

    let listed = person.json(&["namespace", "list"]);
    assert_eq!(
        (&listed["count"], listed["items"].as_array().unwrap().len()),
        (&json!(1), 1),
        "{listed}"
    );
    let info = person.json(&["namespace", "info"]);
    assert_eq!(info, listed["items"][0]);
    assert_eq!(info, person.json(&["namespace", "info", "shop"]));
    let wallet = Wallet::numbered(1).address;
    let expected = json!({
        "name": "shop", "role": "owner", "owner": wallet, "quota": 1 << 20, "tables": 1, "rows": 3, "rows_are_exact": true,
        "keys": 1, "key_bytes": 6, "keys_are_exact": true,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&info[field], value, "{field}: {info}");
    }
    assert!(info["size"].as_u64().unwrap() > 0, "{info}");
    // Word for word what HTTP answers.
    let http = Http::new(node.address, &person.text(&["auth", "token"]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(http.get("/v1/namespaces/shop")).ok().json(), info);
    let table = person.text(&["namespace", "list"]);
    assert!(
        table.starts_with("NAME") && table.contains("shop") && table.contains(&wallet),
        "{table}"
    );
    let text = person.text(&["namespace", "info"]);
    assert!(text.contains("rows     3") && text.contains("quota    1024 KiB"), "{text}");
    assert!(person.text(&["namespace", "list", "sh"]).contains("shop"));
    assert_eq!(person.json(&["namespace", "list", "x"]), json!({ "items": [], "count": 0 }));

    // Nobody can be asked: the option is named. What is no confirmation does nothing.
    let refused = person.fails(&["namespace", "delete", "shop"], 2);
    assert!(refused.contains("--confirm"), "{refused}");
    person.fails(&["namespace", "delete", "shop", "--confirm", "shp"], 2);
    person.fails(&["namespace", "delete", "shop", "-n", "other", "--confirm", "shop"], 2);
    person.fails(&["namespace", "delete", "No Name", "--confirm", "No Name"], 2);
    person.fails(&["namespace", "delete"], 2);
    stranger.fails(&["namespace", "delete", "shop", "--confirm", "shop"], 3);
    let key = person.json(&["auth", "keys", "create", "--role", "admin"])["api_key"]
        .as_str()
        .unwrap()
        .to_owned();
    let by_key = Cli::new(&node, &key, folder.path());
    assert_eq!(
        by_key.run(&["namespace", "delete", "shop", "--confirm", "shop"], b"").status.code(),
        Some(1)
    );
    assert_eq!(person.text(&["storage", "get", "k"]), "12345");

    let output = person.run(&["namespace", "delete", "shop", "--confirm", "shop", "-f", "json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("1 table with 3 rows") && said.contains("1 key (6 B)"), "{said}");
    let deleted: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&deleted["status"], &deleted["deleted"]["rows"]), (&"ok".into(), &3.into()));
    // What was stored for it is forgotten, and the key is worth nothing.
    assert!(!std::fs::read_to_string(person.credentials_file()).unwrap().contains("shop"));
    person.fails(&["storage", "get", "k", "-n", "shop"], 3);
    assert_eq!(by_key.run(&["storage", "get", "k"], b"").status.code(), Some(3));
    // The next one who comes finds nothing.
    let next = signed_in(folder.path(), &node, 2, "shop");
    next.fails(&["storage", "get", "k", "-n", "shop"], 4);
    assert_eq!(next.json(&["namespace", "info", "shop"])["tables"], 0);
}

#[test]
fn on_a_terminal_the_name_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let person = signed_in(folder.path(), &node, 1, "shop");
    fill(&person);
    for no in ["\n", "y\n", "shp\n", "\u{4}"] {
        let mut command = OnTerminal::start(&person, &["namespace", "delete", "shop"]);
        command.shows("1 table with 3 rows");
        command.shows("Type the namespace's name to go on:");
        command.types(no);
        assert_eq!(command.code(), Some(1), "{no:?}");
    }
    assert_eq!(person.text(&["storage", "get", "k"]), "12345");
    let mut command = OnTerminal::start(&person, &["namespace", "delete", "shop"]);
    command.shows("to go on:");
    command.types("shop\n");
    assert_eq!(command.code(), Some(0));
    person.fails(&["storage", "get", "k", "-n", "shop"], 3);
}

/// On the node's machine, where nothing is stored, commands that read act as its operator.
#[test]
fn the_operator_sees_and_deletes_all() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data/node1"));
    fill(&signed_in(folder.path(), &node, 1, "shop"));
    node.api_key("made");
    let operator = Person::new(folder.path(), &node.peer());
    let names = |listed: serde_json::Value| -> Vec<String> {
        listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|info| info["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(operator.json(&["namespace", "list"])), ["made", "shop"]);
    assert_eq!(operator.json(&["namespace", "info", "shop"])["rows"], 3);
    operator.fails(&["namespace", "info", "none"], 4);
    operator.fails(&["namespace", "delete", "none", "--operator", "--confirm", "none"], 4);
    operator.text(&["namespace", "delete", "shop", "--operator", "--confirm", "shop"]);
    assert_eq!(names(operator.json(&["namespace", "list"])), ["made"]);
}

/// Whoever may read the node's data folder is its operator, but writes as one only when that is
/// asked for.
#[test]
fn nothing_changes_a_namespace_with_the_operators_right_unless_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data/node1"));
    fill(&signed_in(folder.path(), &node, 1, "victim"));
    // Here the operator's key can be read: by somebody without a credential, and by one who is
    // signed in elsewhere.
    let nobody = Person::new(folder.path(), &node.peer());
    let changes: [&[&str]; 4] = [
        &["namespace", "delete", "victim", "--confirm", "victim"],
        &["auth", "keys", "create", "-n", "victim"],
        &[
            "auth",
            "members",
            "set",
            "0x0000000000000000000000000000000000000001",
            "admin",
            "-n",
            "victim",
        ],
        &["auth", "keys", "revoke", "none", "-n", "victim"],
    ];
    let all_refused = || {
        for change in changes {
            let said = nobody.fails(change, 3);
            assert!(said.contains("--operator"), "{change:?}: {said}");
        }
    };
    all_refused();
    // Reading says so.
    for read in [
        &["namespace", "info", "victim"][..],
        &["namespace", "list"],
        &["auth", "keys", "list", "-n", "victim"],
    ] {
        let output = nobody.run(read);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && said.contains("acting as the node's operator"),
            "{read:?}: {said}"
        );
    }
    // The operator has no namespace of its own: which it means, it has to say, and nothing falls
    // into "default".
    for unnamed in [
        &["auth", "keys", "create", "--operator"][..],
        &["auth", "keys", "list", "--operator"],
        &[
            "auth",
            "members",
            "set",
            "0x0000000000000000000000000000000000000001",
            "admin",
            "--operator",
        ],
        &["namespace", "info", "--operator"],
    ] {
        let said = nobody.fails(unnamed, 2);
        assert!(said.contains("--namespace NAME"), "{unnamed:?}: {said}");
    }
    assert_eq!(nobody.json(&["auth", "keys", "list", "-n", "default", "--operator"])["count"], 0);
    assert!(text_of(&nobody.run(&["auth", "keys", "list"])).contains("in the namespace default"));
    assert_eq!(nobody.json(&["namespace", "list", "--operator"])["items"][0]["name"], "victim");
    let keystore = Wallet::numbered(2).keystore(&nobody.home);
    nobody.text(&[&["auth", "login", "-n", "mine"][..], &keystore.options()].concat());
    all_refused();
    for read in [&["namespace", "info", "victim"][..], &["auth", "members", "list", "-n", "victim"]]
    {
        assert!(nobody.fails(read, 3).contains("--operator"), "{read:?}");
    }
    assert_eq!(nobody.json(&["namespace", "list"])["items"].as_array().unwrap().len(), 1);
    assert_eq!(nobody.json(&["namespace", "info", "victim", "--operator"])["rows"], 3);
    assert_eq!(
        nobody.json(&["auth", "members", "list", "-n", "victim", "--operator"])["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// One damaged database stops neither a backup of the others, nor the list, nor its own deletion.
#[test]
fn a_damaged_namespace_does_not_stop_the_operator() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data/node1");
    let node = Node::start(&data_dir);
    fill(&signed_in(folder.path(), &node, 1, "dam"));
    fill(&signed_in(folder.path(), &node, 2, "well"));
    node.stop();
    let file = data_dir.join("db/ns/dam.db");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096..12288].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    std::fs::remove_file(data_dir.join("db/CLEAN")).unwrap();

    let node = Node::start(&data_dir);
    let operator = Person::new(folder.path(), &node.peer());
    let said = operator.fails(&["db", "backup"], 1);
    assert!(said.contains("is not whole") && said.contains(": dam"), "{said}");
    assert_eq!(operator.json(&["db", "backup", "--list"])["items"][0]["missing"], json!(["dam"]));
    let listed = operator.json(&["namespace", "list", "--operator"])["items"].take();
    assert_eq!((&listed[0]["name"], &listed[1]["name"]), (&json!("dam"), &json!("well")));
    assert!(listed[0]["problem"].as_str().unwrap().contains("damaged"), "{listed}");
    assert_eq!((&listed[1]["problem"], &listed[1]["rows"]), (&json!(null), &json!(3)));
    operator.text(&["namespace", "delete", "dam", "--operator", "--confirm", "dam"]);
    operator.text(&["db", "backup"]);
    assert_eq!(operator.json(&["db", "backup", "--list"])["items"][0]["missing"], json!([]));
}
