//! Which node `network-cli` finds by itself, and with which credential.

use crate::support::{Node, text_of, without_surroundings};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn cli(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_network-cli"));
    without_surroundings(&mut command);
    command.current_dir(folder).env("HOME", folder).stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    cli(folder).args(arguments).output().unwrap()
}

#[track_caller]
fn exits(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text_of(output));
    text_of(output)
}

#[test]
fn the_file_of_a_dead_node_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let said = exits(&run(folder.path(), &["status"]), 5);
    assert!(said.contains("no node on this machine") && said.contains("--bootstrap"), "{said}");

    // Killed, a node leaves its file behind; where it listened, nobody or another node may listen
    // now.
    let mut dead = Node::start(&data.join("dev"));
    dead.program.kill();
    let said = exits(&run(folder.path(), &["status"]), 5);
    assert!(said.contains("data/dev"), "{said}");
    let alive = Node::start(&data.join("node9"));
    let status = run(folder.path(), &["-f", "json", "peer-id"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(alive.peer().ends_with(status["peer_id"].as_str().unwrap()));

    // The named folder goes first, an address before it, and several addresses are tried.
    let mut named = cli(folder.path());
    named.env("DEBROS_NODE_DATA_DIR", data.join("node9")).arg("status");
    exits(&named.output().unwrap(), 0);
    let nobody = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    exits(&run(folder.path(), &["status", "-b", nobody]), 5);
    exits(&run(folder.path(), &["status", "-b", nobody, "-b", &alive.peer()]), 0);
    let mut variable = cli(folder.path());
    variable.env("DEBROS_BOOTSTRAP_PEERS", nobody).args(["status", "-t", "5s"]);
    exits(&variable.output().unwrap(), 5);
}

#[test]
fn without_a_credential_it_says_which_variable_to_set_and_never_asks() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data/node1"));
    let said = exits(&run(folder.path(), &["storage", "list"]), 3);
    assert!(said.contains("DEBROS_API_KEY"), "{said}");
    let said = exits(&run(folder.path(), &["-f", "json", "query", "SELECT 1"]), 3);
    let json: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(json["code"], "unauthenticated");
    // The operator's credential beside peer.info serves the operator's commands, and only those.
    exits(&run(folder.path(), &["peers"]), 0);
    let said = exits(&run(folder.path(), &["connect", "nonsense"]), 2);
    assert!(said.contains("nonsense"), "{said}");
    let made =
        run(folder.path(), &["auth", "keys", "create", "-n", "shop", "--save", "--operator"]);
    exits(&made, 0);
    exits(&run(folder.path(), &["storage", "put", "k", "v"]), 0);
    let who = run(folder.path(), &["auth", "whoami", "-f", "json"]);
    let who: serde_json::Value = serde_json::from_slice(&who.stdout).unwrap();
    assert_eq!((who["namespace"].as_str(), who["role"].as_str()), (Some("shop"), Some("writer")));
    let token = run(folder.path(), &["auth", "token"]);
    assert_eq!(token.stdout, made.stdout);
    // A variable goes before what is stored, also when it is wrong.
    let wrong = cli(folder.path())
        .env("DEBROS_API_KEY", "ak_wrong:shop")
        .args(["storage", "get", "k"])
        .output()
        .unwrap();
    exits(&wrong, 3);
    // A key of one namespace does not act in another.
    exits(&run(folder.path(), &["storage", "list", "-n", "other"]), 3);
    drop(node);
}

#[test]
fn operator_commands_need_the_operator() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("elsewhere"));
    let key = node.api_key("default");
    let peer = node.peer();
    let as_user = |arguments: &[&str]| {
        cli(folder.path())
            .env("DEBROS_API_KEY", &key)
            .args(["-b", &peer])
            .args(arguments)
            .output()
            .unwrap()
    };
    let said = exits(&as_user(&["db", "backup"]), 1);
    assert!(said.contains("error: "), "{said}");
    exits(&as_user(&["connect", &peer]), 1);
    // With the node's folder named, the operator's key is found beside its peer.info.
    let mut operator = cli(folder.path());
    operator
        .env("DEBROS_NODE_DATA_DIR", folder.path().join("elsewhere"))
        .args(["db", "backup", "-f", "json"]);
    let output = operator.output().unwrap();
    exits(&output, 0);
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = made["name"].as_str().unwrap();
    let mut restore = cli(folder.path());
    restore
        .env("DEBROS_NODE_DATA_DIR", folder.path().join("elsewhere"))
        .args(["db", "restore", name]);
    let said = exits(&restore.output().unwrap(), 2);
    assert!(said.contains("--yes"), "{said}");
    exits(&restore.arg("--yes").output().unwrap(), 0);
}
