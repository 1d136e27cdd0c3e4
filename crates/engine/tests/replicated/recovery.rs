//! What a log does to a node's files after a failure, and what must not get into a log.

use crate::config;
use crate::test_log::TestLog;
use debros_engine::conformance::{database, options};
use debros_engine::embedded::EmbeddedEngine;
use debros_engine::{CallOptions, Engine as _};
use debros_proto::rpc::{Consistency, Statement};
use debros_proto::{Code, Namespace, Result};
use std::sync::Arc;

async fn run(engine: &EmbeddedEngine, namespace: &str, sql: &str) -> Result<usize> {
    let options = CallOptions { consistency: Consistency::None, ..options() };
    let done = engine.query(&database(namespace), Statement::from(sql), options).await?;
    Ok(done.value.rows.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_a_loss_of_power_undid_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("leader")).unwrap();
    std::fs::create_dir(path("follower")).unwrap();
    let log = Arc::new(TestLog::leader());
    let leader =
        EmbeddedEngine::open_replicated(config(&path("leader")), Arc::clone(&log) as _).unwrap();
    run(&leader, "app", "CREATE TABLE t(a)").await.unwrap();
    run(&leader, "app", "INSERT INTO t VALUES ('of the first owner')").await.unwrap();
    let before = log.entries().len();
    let app = Namespace::new("app").unwrap();
    leader.delete_namespace(&app, Vec::new(), options().deadline).await.unwrap();
    let removed = log.entries().len();
    run(&leader, "app", "CREATE TABLE t(b)").await.unwrap();

    let open = || {
        let log = Arc::new(TestLog::follower());
        EmbeddedEngine::open_replicated(config(&path("follower")), log).unwrap()
    };
    let follower = open();
    follower.apply(log.entries()[..before].to_vec()).await.unwrap();
    follower.sync_files().unwrap();
    drop(follower);
    let file = path("follower").join("ns/app.db");
    let kept = std::fs::read(&file).unwrap();
    let follower = open();
    follower.apply(log.entries()[..removed].to_vec()).await.unwrap();
    assert!(!file.exists());
    drop(follower);
    // The removal of the file did not reach the disk, the note of it did.
    std::fs::write(&file, kept).unwrap();
    let follower = open();
    follower.apply(log.entries()).await.unwrap();
    assert_eq!(run(&follower, "app", "SELECT b FROM t").await, Ok(0));
    // And what came after it stays when the log is applied once more.
    follower.apply(log.entries()).await.unwrap();
    assert_eq!(run(&follower, "app", "SELECT b FROM t").await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_changes_more_than_memory_holds_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(TestLog::leader());
    let config = debros_engine::embedded::EmbeddedConfig {
        max_namespace_size: None,
        ..config(folder.path())
    };
    let engine = EmbeddedEngine::open_replicated(config, Arc::clone(&log) as _).unwrap();
    run(&engine, "app", "CREATE TABLE t(a)").await.unwrap();
    let entries = log.entries().len();
    let many = "INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 300)
        SELECT zeroblob(1000000) FROM c";
    let refused = run(&engine, "app", many).await.unwrap_err();
    assert_eq!(refused.code, Code::TooLarge, "{refused}");
    assert_eq!(log.entries().len(), entries);
    // Nothing of it is left, neither in the file nor in what is counted.
    assert_eq!(run(&engine, "app", "SELECT a FROM t").await, Ok(0));
    for _ in 0..3 {
        run(&engine, "app", &many.replace("300", "200")).await.unwrap();
        run(&engine, "app", "DELETE FROM t").await.unwrap();
    }
    // A statement on the schema goes into the log as its text, however many rows it touches.
    run(&engine, "app", "CREATE INDEX i ON t(a)").await.unwrap();
}

/// The cluster went on without the node: what it had begun is another one's business.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_had_begun_when_it_ended_is_not_finished_when_it_is_alone() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(TestLog::leader());
    let open = || EmbeddedEngine::open_replicated(config(folder.path()), Arc::clone(&log) as _);
    let engine = open().unwrap();
    run(&engine, "app", "CREATE TABLE t(a)").await.unwrap();
    drop(engine);
    let markers = ["ns/app.delete", "RESTORE"].map(|name| folder.path().join(name));
    std::fs::write(&markers[0], []).unwrap();
    std::fs::write(&markers[1], "b-20260101T000000Z").unwrap();
    drop(open().unwrap());
    assert!(markers.iter().all(|marker| !marker.exists()));
    let alone = EmbeddedEngine::open(config(folder.path())).unwrap();
    assert_eq!(run(&alone, "app", "SELECT a FROM t").await, Ok(0));
}
