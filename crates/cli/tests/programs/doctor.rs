//! `network-cli doctor`, on nodes that are well, stopped, killed, and without a majority.

use crate::cluster::{LONG, Member, cli, exits, start_cluster, wait_for};
use crate::support::{Node, Program, text_of};
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

/// The exit code, and the findings' levels and codes.
fn diagnose(data: &Path) -> (Option<i32>, Vec<Value>) {
    let output = cli(data, &["doctor", "-f", "json"]);
    let findings = serde_json::from_slice(&output.stdout);
    let findings: Vec<Value> =
        findings.unwrap_or_else(|error| panic!("{error}: {}", text_of(&output)));
    for finding in &findings {
        for field in ["level", "code", "subject", "message", "advice"] {
            assert!(finding[field].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
        }
    }
    (output.status.code(), findings)
}

fn errors(findings: &[Value]) -> Vec<&str> {
    let errors = findings.iter().filter(|finding| finding["level"] == "error");
    errors.filter_map(|finding| finding["code"].as_str()).collect()
}

/// Asks until these are the errors.
fn wait_for_errors(data: &Path, expected: &[&str]) -> Vec<Value> {
    let until = Instant::now() + LONG;
    loop {
        let (code, findings) = diagnose(data);
        if errors(&findings) == expected {
            assert_eq!(code, Some(i32::from(!expected.is_empty())));
            return findings;
        }
        assert!(Instant::now() < until, "{findings:#?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn a_healthy_node_is_well_in_one_line_and_one_that_ended_says_how() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("one");
    let start = || {
        let mut command = Node::command(&data);
        // Whatever the disk of the test's machine has.
        command.env("DEBROS_DATABASE_MAX_DATABASE_SIZE", "64MB");
        command.env("DEBROS_DATABASE_MAX_TEMP_SIZE", "64MB");
        Node::start_by(&mut command, &data)
    };
    assert_eq!(errors(&diagnose(&data).1), ["no_node"]);
    let node = start();
    let said = exits(&cli(&data, &["doctor"]), 0);
    assert!(said.starts_with("all is well: ") && said.lines().count() == 1, "{said}");
    assert_eq!(diagnose(&data), (Some(0), Vec::new()));
    node.stop();
    let said = exits(&cli(&data, &["doctor"]), 1);
    assert!(said.contains("was stopped at") && said.contains("to do: start it"), "{said}");
    assert_eq!(errors(&diagnose(&data).1), ["stopped"]);
    let mut node = start();
    node.program.kill();
    assert_eq!(errors(&diagnose(&data).1), ["died"]);
    // What a start fails with is kept.
    std::fs::write(data.join("operator.key"), "none").unwrap();
    let mut failed = Program::start(&mut Node::command(&data));
    assert!(!failed.wait(LONG).expect("it ends").success());
    let (_, findings) = diagnose(&data);
    assert_eq!(errors(&findings), ["start_failed"]);
    assert!(findings[0]["message"].as_str().unwrap().contains("operator.key"), "{findings:?}");
}

#[test]
fn a_cluster_that_lost_its_majority_says_who_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let members = ["one", "two"].map(|name| Member::new(folder.path(), name));
    let mut nodes = start_cluster(&[&members[0], &members[1]]);
    let one = &members[0].data;
    wait_for(one, &["one", "two"]);
    wait_for_errors(one, &[]);
    let two = nodes.pop().unwrap();
    members[1].kill(two);
    let findings = wait_for_errors(one, &["no_quorum", "away"]);
    let said = findings[0]["message"].as_str().unwrap();
    assert!(said.contains("1 of its 2 voting nodes is there, and 2 are needed"), "{said}");
    assert_eq!(findings[1]["subject"], "two");
    // One that starts without the other serves nobody, and its folder says why.
    nodes.pop().unwrap().stop();
    let mut command = members[0].command(&[]);
    command.env("DEBROS_DATABASE_RQLITED_PATH", folder.path().join("nowhere"));
    assert!(!Program::start(&mut command).wait(LONG).expect("it ends").success());
    let said = wait_for_errors(one, &["start_failed"])[0]["message"].to_string();
    assert!(said.contains("rqlited") && said.contains("make tools"), "{said}");
    let _waiting = Program::start(&mut members[0].command(&[]));
    let findings = wait_for_errors(one, &["no_quorum", "away"]);
    let said = findings[0]["message"].as_str().unwrap();
    assert!(said.contains("waits for a majority"), "{said}");
    assert!(findings[1]["message"].as_str().unwrap().contains("two was seen last at 2"));
}
