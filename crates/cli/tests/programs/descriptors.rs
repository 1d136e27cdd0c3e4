//! The limit on open files: raised as far as it goes, and lived with where it is small.

use crate::support::http::Http;
use crate::support::{Gateway, Node, without_surroundings};
use serde_json::json;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

/// A command under limits that the shell sets.
fn limited(command: &Command, limits: &str) -> Command {
    let mut shell = Command::new("sh");
    without_surroundings(&mut shell);
    shell
        .args(["-c", &format!("{limits} && exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

fn node(data_dir: &Path, limits: &str) -> Node {
    Node::start_by(&mut limited(&Node::command(data_dir), limits), data_dir)
}

fn hard_limit() -> String {
    let output = Command::new("sh").args(["-c", "ulimit -Hn"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_limit_on_open_files_is_raised_as_far_as_it_may_be_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder.path().join("node"), "ulimit -Sn 200");
    let mut command = Command::new(env!("CARGO_BIN_EXE_network-gateway"));
    without_surroundings(&mut command);
    command.args(["--addr", "127.0.0.1:0", "--bootstrap-peers", &node.peer()]);
    let gateway = Gateway::start_by(&mut limited(&command, "ulimit -Sn 200"));
    let hard = hard_limit();
    for program in [&node.program, &gateway.program] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.pid())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let (soft, most) = line
            .trim_start_matches("Max open files")
            .trim()
            .split_once(char::is_whitespace)
            .unwrap();
        assert!(most.trim().starts_with(soft) && (soft == hard || hard == "unlimited"), "{line}");
        assert!(program.output().contains(&format!("open_files={soft}")), "{}", program.output());
    }
}

/// More namespaces and idle connections than there are descriptors for.
#[test]
fn with_few_descriptors_every_namespace_is_served_and_the_operator_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder.path().join("node"), "ulimit -n 256");
    let said = node.program.output();
    assert!(said.contains("open_files=256") && said.contains("LimitNOFILE="), "{said}");
    let one = node.http("n0");
    let callers: Vec<Http> =
        (0..48).map(|number| one.with_key(&node.api_key(&format!("n{number}")))).collect();
    let _idle: Vec<TcpStream> =
        (0..32).map(|_| TcpStream::connect(node.address).unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for caller in &callers {
            caller.create("CREATE TABLE t (a)").await;
        }
        for round in 1..=2 {
            for caller in &callers {
                caller.query("INSERT INTO t VALUES (?)", json!([round])).await.ok();
                assert_eq!(
                    caller.rows("SELECT count(*) FROM t", json!([])).await,
                    [json!([round])]
                );
            }
        }
    });
    node.stop();
}
