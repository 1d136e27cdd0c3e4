//! A cluster of real processes: begun, joined and left with one command each.

use crate::support::rqlited::{free_port, rqlited};
use crate::support::{Node, text_of, without_surroundings};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn cli(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_network-cli"));
    without_surroundings(&mut command);
    let home = data.parent().unwrap();
    command.current_dir(home).env("HOME", home).env("DEBROS_NODE_DATA_DIR", data);
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn token(data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_network-node"));
    without_surroundings(&mut command);
    command.args(["token", "--data-dir"]).arg(data).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
pub(crate) fn exits(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text_of(output));
    text_of(output)
}

fn status(data: &Path) -> Value {
    let output = cli(data, &["cluster", "status", "-f", "json"]);
    exits(&output, 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same question until it is answered: a node starts again when it becomes one of a cluster, and
/// when the cluster's key changes.
pub(crate) fn until_answered(ask: impl Fn() -> Output) -> Output {
    let until = Instant::now() + LONG;
    loop {
        let output = ask();
        if output.status.success() {
            return output;
        }
        assert!(Instant::now() < until, "{}", text_of(&output));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A node of a cluster, which keeps its ports.
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) data: PathBuf,
    ports: [u16; 4],
}

impl Member {
    pub(crate) fn new(folder: &Path, name: &'static str) -> Self {
        Self { name, data: folder.join(name), ports: std::array::from_fn(|_| free_port()) }
    }

    /// Where its gateway listens.
    pub(crate) fn gateway(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports[0]).into()
    }

    /// Where its rqlited answers.
    pub(crate) fn rqlite_http(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports[2]).into()
    }

    pub(crate) fn command(&self, more: &[&str]) -> Command {
        let [gateway, p2p, http, raft] = self.ports;
        let mut command = Node::command(&self.data);
        command
            .args(["--node-id", self.name])
            .args(more)
            .env("DEBROS_GATEWAY_LISTEN_ADDR", format!("127.0.0.1:{gateway}"))
            .env("DEBROS_NODE_LISTEN_ADDRESSES", format!("/ip4/127.0.0.1/tcp/{p2p}"))
            .env("DEBROS_DATABASE_RQLITE_PORT", http.to_string())
            .env("DEBROS_DATABASE_RQLITE_RAFT_PORT", raft.to_string())
            .env("DEBROS_DATABASE_RQLITED_PATH", rqlited());
        command
    }

    pub(crate) fn start(&self, more: &[&str]) -> Node {
        Node::start_by(&mut self.command(more), &self.data)
    }

    /// Kills a node with its rqlited, as a loss of power ends both.
    pub(crate) fn kill(&self, mut node: Node) {
        let text = std::fs::read_to_string(self.data.join("rqlite/rqlited.pid")).unwrap();
        let pid = text.trim();
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let folder = self.data.to_string_lossy();
        assert!(String::from_utf8_lossy(&command).contains(&*folder), "{pid} is not its rqlited");
        assert!(Command::new("kill").args(["-KILL", pid]).status().unwrap().success());
        node.program.kill();
    }
}

/// Starts the first node of a cluster, and others that join it.
pub(crate) fn start_cluster(members: &[&Member]) -> Vec<Node> {
    let first = &members[0].data;
    let mut nodes = vec![members[0].start(&[])];
    exits(&cli(first, &["cluster", "init"]), 0);
    for member in &members[1..] {
        let made = until_answered(|| token(first));
        let line = String::from_utf8(made.stdout).unwrap();
        nodes.push(member.start(&["--join", line.trim()]));
    }
    nodes
}

/// The names of the nodes that are connected.
fn connected(status: &Value) -> Vec<&str> {
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes
        .filter(|node| node["connected"] == true)
        .filter_map(|node| node["name"].as_str())
        .collect()
}

pub(crate) fn wait_for(data: &Path, names: &[&str]) -> Value {
    let until = Instant::now() + LONG;
    loop {
        let output = until_answered(|| cli(data, &["cluster", "status", "-f", "json"]));
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        if connected(&status) == names {
            return status;
        }
        assert!(Instant::now() < until, "{status:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_cluster_is_begun_joined_and_left_with_one_command_each() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let (first, second) = (Member::new(folder.path(), "one"), Member::new(folder.path(), "two"));
    let _one = first.start(&[]);
    assert!(status(&one)["cluster_id"].is_null());
    assert!(exits(&token(&one), 1).contains("network-cli cluster init"));
    assert!(exits(&cli(&one, &["cluster", "step-down"]), 5).contains("keeps its data alone"));
    assert!(!one.join("cluster.key").exists());
    exits(&cli(&one, &["cluster", "init"]), 0);

    let made = until_answered(|| token(&one));
    let line = String::from_utf8(made.stdout).unwrap();
    assert_eq!(line.lines().count(), 1);
    let line = line.trim();
    let mut refused = Node::command(&folder.path().join("bad"));
    let refused = refused.args(["--join", &line[1..]]).output().unwrap();
    let said = exits(&refused, 2);
    assert!(said.contains("no join token") && !said.contains(&line[1..]), "{said}");
    // Its copy of the cluster's data would go ways of its own.
    let mut refused = Node::command(&folder.path().join("bad"));
    let refused = refused.args(["--join", line]).env("DEBROS_DATABASE_ENGINE", "embedded");
    let said = exits(&refused.output().unwrap(), 2);
    assert!(said.contains("database.engine is embedded (env DEBROS_DATABASE_ENGINE)"), "{said}");
    let joined = second.start(&["--join", line]);
    let shown = wait_for(&one, &["one", "two"]);
    assert_eq!(shown["nodes"][1]["role"], "voter");
    assert_eq!(wait_for(&two, &["one", "two"])["cluster_id"], shown["cluster_id"]);
    // The same flags again.
    joined.stop();
    let _two = second.start(&["--join", line]);
    wait_for(&one, &["one", "two"]);
    let table = exits(&cli(&one, &["cluster", "status"]), 0);
    assert!(table.contains("NAME") && table.contains("one*") && table.contains("LAG"), "{table}");

    exits(&cli(&one, &["cluster", "remove", "nobody"]), 4);
    assert!(exits(&cli(&one, &["cluster", "remove", "one"]), 2).contains("does not remove itself"));
    exits(&cli(&one, &["cluster", "remove", "two"]), 0);
    wait_for(&one, &["one"]);
    assert_eq!(wait_for(&one, &["one"])["nodes"].as_array().unwrap().len(), 1);
}
