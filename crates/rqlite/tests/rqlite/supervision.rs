//! One child: its start, its deaths, its folder.

use super::common::{LONG, alone, kill, signal};
use crate::support::program;
use debros_rqlite::{ReadLevel, Rqlited, RqlitedConfig, RqlitedState, StartError, Statement};
use rustix::process::Signal;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn runs(pid: u32) -> bool {
    // One that ended and was not waited for yet has no arguments.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|arguments| !arguments.is_empty())
}

fn wait_until_gone(pid: u32) {
    let until = Instant::now() + LONG;
    while runs(pid) {
        assert!(Instant::now() < until, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_serves_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let node = alone(folder.path()).await;
    let ready = started.elapsed();
    let pid = node.pid().unwrap();
    assert!(runs(pid));
    assert!(node.memory().is_some_and(|bytes| bytes > 1 << 20));
    assert!(node.features().loses_rows_on_long_reads(), "the fetched one is of version 8");
    assert_eq!(node.client().is_leader().await, Ok(true));
    let leader = node.client().leader().await.unwrap().unwrap();
    assert_eq!(leader.node_id, "n1");
    assert_eq!(leader.raft_addr, node.raft_addr().to_string());
    let nodes = node.client().nodes().await.unwrap();
    assert!(nodes.len() == 1 && nodes[0].leader && nodes[0].voter && nodes[0].reachable);
    let auth = folder.path().join("auth.json");
    let exposed = debros_proto::durable_file::exposed_mode(&auth.metadata().unwrap());
    assert_eq!(exposed, None, "others cannot read the password");

    let mut state = node.state();
    let stopping = Instant::now();
    node.stop(Duration::from_secs(10)).await;
    let stopped = stopping.elapsed();
    assert!(!runs(pid));
    assert_eq!(*state.borrow_and_update(), RqlitedState::Stopped);
    println!("ready after {ready:?}, stopped after {stopped:?}");
    assert!(stopped < Duration::from_secs(10), "it was killed: {stopped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_comes_back_with_its_data_and_the_client_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = alone(folder.path()).await;
    let client = node.client();
    let write = ["CREATE TABLE t (x)", "INSERT INTO t VALUES (42)"].map(Statement::new);
    client.execute(&write, LONG).await.unwrap();
    let mut state = node.state();
    // Another test may have taken the port that was chosen for its first start.
    let before = node.restarts();
    let first = kill(&node);
    let seen = tokio::time::timeout(LONG, async {
        state
            .wait_for(|state| matches!(state, RqlitedState::Restarting { .. }))
            .await
            .unwrap()
            .clone()
    });
    let RqlitedState::Restarting { reason, restarts } = seen.await.unwrap() else { unreachable!() };
    assert!(reason.contains("signal: 9"), "{reason}");
    assert_eq!((restarts, node.restarts()), (before + 1, before + 1));
    assert!(node.wait_serving(LONG).await);
    assert_ne!(node.pid(), Some(first));
    let read = client.query(&Statement::new("SELECT x FROM t"), ReadLevel::Strong, LONG).await;
    assert_eq!(read.unwrap().values, [[serde_json::json!(42)]]);
    node.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_on_the_same_folder_names_the_holder() {
    let folder = tempfile::tempdir().unwrap();
    let node = alone(folder.path()).await;
    let config = RqlitedConfig::alone(program(), folder.path().to_owned(), "n2");
    let error = Rqlited::start(config.clone()).await.unwrap_err();
    assert!(matches!(error, StartError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    node.stop(Duration::from_secs(10)).await;
    let again = Rqlited::start(config).await.unwrap();
    again.stop(Duration::from_secs(10)).await;
}

/// An `rqlited` that nobody supervises, in the place where a node's is.
fn orphan(folder: &Path) -> std::process::Child {
    let folder = folder.canonicalize().unwrap();
    let raft = crate::support::own_address().to_string();
    let http = crate::support::own_address().to_string();
    let child = Command::new(program())
        .args(["-node-id", "n1", "-http-addr", &http, "-raft-addr", &raft])
        .arg(folder.join("store"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::fs::write(folder.join("rqlited.pid"), child.id().to_string()).unwrap();
    let until = Instant::now() + LONG;
    while !folder.join("store/raft.db").exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rqlited_of_an_earlier_life_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut earlier = orphan(folder.path());
    let node = alone(folder.path()).await;
    assert!(earlier.try_wait().unwrap().is_some(), "it ended");
    node.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_only_has_the_number_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(folder.path().join("rqlited.pid"), other.id().to_string()).unwrap();
    let node = alone(folder.path()).await;
    assert!(other.try_wait().unwrap().is_none(), "it still runs");
    node.stop(Duration::from_secs(10)).await;
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_in_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = RqlitedConfig::alone(program(), folder.path().to_owned(), "n1");
    config.raft = taken.local_addr().unwrap();
    let node = Rqlited::start(config).await.unwrap();
    let mut state = node.state();
    let seen = tokio::time::timeout(LONG, async {
        state
            .wait_for(|state| matches!(state, RqlitedState::Restarting { .. }))
            .await
            .unwrap()
            .clone()
    });
    let RqlitedState::Restarting { reason, .. } = seen.await.unwrap() else { unreachable!() };
    assert!(reason.contains("address already in use"), "{reason}");
    // Once it is free, the child heals by itself.
    drop(taken);
    assert!(node.wait_serving(LONG).await);
    node.stop(Duration::from_secs(10)).await;
}

/// Not a test: the process that the next one kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a_child_dies_with_its_parent"]
async fn parent_process() {
    let folder = std::env::var("RQLITE_TEST_FOLDER").unwrap();
    let _node = alone(Path::new(&folder)).await;
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_dies_with_its_parent() {
    let folder = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "supervision::parent_process"])
        .env("RQLITE_TEST_FOLDER", folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + LONG;
    let guard = folder.path().join("store/rsnapshots/FULL_NEEDED");
    // Made when it serves.
    while !guard.exists() {
        assert!(Instant::now() < until, "it does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = std::fs::read_to_string(folder.path().join("rqlited.pid")).unwrap();
    let pid: u32 = pid.parse().unwrap();
    assert!(runs(pid));
    signal(parent.id(), Signal::KILL);
    parent.wait().unwrap();
    wait_until_gone(pid);
}
