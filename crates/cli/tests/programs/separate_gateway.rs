//! `network-gateway`: which nodes it reaches, and whose right it lends.

use crate::support::http::{Http, status_of};
use crate::support::{Node, PATIENCE, Program, text_of, without_surroundings};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn gateway(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_network-gateway"));
    without_surroundings(&mut command);
    command.args(["--addr", "127.0.0.1:0"]).current_dir(folder).env("HOME", folder);
    command
}

fn listens(program: &mut Program) -> SocketAddr {
    assert!(!program.ends_or_listens(), "{}", program.output());
    let output = program.output();
    let (_, rest) = output.split_once("the gateway listens address=").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

fn becomes(address: SocketAddr, path: &str, status: u16) {
    let started = Instant::now();
    while status_of(address, path) != Some(status) {
        assert!(started.elapsed() < PATIENCE, "{path} does not become {status}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn it_finds_the_node_of_this_machine_and_lends_the_operators_right_to_static_keys() {
    let folder = tempfile::tempdir().unwrap();
    let refused = gateway(folder.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(5), "{}", text_of(&refused));
    assert!(text_of(&refused).contains("--bootstrap-peers"), "{}", text_of(&refused));

    let node = Node::start(&folder.path().join("data/node1"));
    let mut command = gateway(folder.path());
    command.env("GATEWAY_API_KEYS", "static-key:shop");
    let mut program = Program::start(&mut command);
    let address = listens(&mut program);
    becomes(address, "/ready", 200);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let http = Http::new(address, "static-key");
        http.put_value("k", "v").await.ok();
        let own = Http::new(node.address, &node.api_key("shop"));
        assert_eq!(own.get_value("k").await.ok().body, b"v");
        assert_eq!(http.with_key("other").get_value("k").await.status, 401);
    });
    assert!(!program.output().contains("static-key"), "the log holds no secret");
    // It was said of every good start, before the first dial had ended.
    assert!(!program.output().contains("connected=false"), "{}", program.output());
    program.signal("TERM");
    assert!(program.wait(PATIENCE).unwrap().success());
    // It keeps nothing: the folder holds what the node made.
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["data"]);
}

#[test]
fn static_keys_without_an_operator_credential_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("elsewhere"));
    let peer = node.peer();
    for (name, value) in
        [("GATEWAY_API_KEYS", "static-key:shop"), ("GATEWAY_REQUIRE_AUTH", "false")]
    {
        let output = gateway(folder.path())
            .args(["--bootstrap-peers", &peer])
            .env(name, value)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text_of(&output));
        let said = text_of(&output);
        assert!(
            said.contains("--operator-key-file")
                && said.contains(name)
                && !said.contains("static-key"),
            "{said}"
        );
    }
    // Named, or found in the folder of the node that is reached.
    for by_flag in [true, false] {
        let mut command = gateway(folder.path());
        command.args(["--bootstrap-peers", &peer]).env("GATEWAY_REQUIRE_AUTH", "false");
        if by_flag {
            command.arg("--operator-key-file").arg(node.data_dir.join("operator.key"));
        } else {
            command.env("DEBROS_NODE_DATA_DIR", &node.data_dir);
        }
        let mut program = Program::start(&mut command);
        let address = listens(&mut program);
        becomes(address, "/ready", 200);
        // Without a header of authorisation, under a name of this machine.
        let url = format!("http://{address}/v1/storage/list");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = runtime.block_on(client.get(url).send()).unwrap();
        assert_eq!(answer.status().as_u16(), 200);
    }
}

#[test]
fn without_authentication_it_stays_on_loopback_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data/node1"));
    let public = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_network-gateway"));
        without_surroundings(&mut command);
        command.args(["--addr", "0.0.0.0:0", "--require-auth=false"]).args(more);
        command.current_dir(folder.path()).env("HOME", folder.path());
        command
    };
    let output = public(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text_of(&output));
    assert!(text_of(&output).contains("--insecure-public"), "{}", text_of(&output));
    let mut program = Program::start(&mut public(&["--insecure-public"]));
    listens(&mut program);
    drop(node);
}

#[test]
fn it_may_start_before_its_node() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("node");
    // The port and the identity of a node that runs later.
    let node = Node::start(&data);
    let peer = node.peer();
    let port = peer.split('/').nth(4).unwrap().to_owned();
    node.stop();
    let mut program = Program::start(gateway(folder.path()).args(["--bootstrap-peers", &peer]));
    let address = listens(&mut program);
    becomes(address, "/ready", 503);
    let mut again = Node::command(&data);
    again.env("DEBROS_NODE_LISTEN_ADDRESSES", format!("/ip4/127.0.0.1/tcp/{port}"));
    let _node = Node::start_by(&mut again, &data);
    becomes(address, "/ready", 200);
}
