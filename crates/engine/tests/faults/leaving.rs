//! What was begun for a caller that has gone away.

use super::{folder, open_with};
use debros_engine::CallOptions;
use debros_engine::conformance::{database, namespace, options, query_ok};
use debros_engine::embedded::EmbeddedConfig;
use debros_proto::Code;
use debros_proto::rpc::Statement;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

/// It held its thread, and the namespace, for as long as a statement may run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_ends_when_its_caller_leaves() {
    let folder = folder();
    let config =
        EmbeddedConfig { statement_time: super::FAR, ..EmbeddedConfig::new(folder.path()) };
    let engine = open_with(config);
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let reading = {
        let (engine, options) = (
            Arc::clone(&engine),
            CallOptions { deadline: Instant::now() + super::FAR, ..options() },
        );
        tokio::spawn(async move {
            engine.query(&database("app"), Statement::from(ENDLESS), options).await
        })
    };
    let app = namespace("app");
    let delete = |deadline| engine.delete_namespace(&app, Vec::new(), deadline);
    // It is not begun while something runs.
    loop {
        match delete(Instant::now()).await {
            Err(error) if error.code == Code::DeadlineExceeded => break,
            outcome => outcome.unwrap(),
        }
        query_ok(&engine, "CREATE TABLE t(a)").await;
    }
    reading.abort();
    assert!(reading.await.unwrap_err().is_cancelled());
    delete(Instant::now() + Duration::from_secs(60)).await.unwrap();
    engine.close().await;
}

/// Exports were made to their end for nobody, any number at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_ends_when_its_caller_leaves() {
    let folder = folder();
    let engine = open_with(EmbeddedConfig::new(folder.path()));
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_ok(&engine, "INSERT INTO t VALUES (zeroblob(8000000))").await;
    let app = namespace("app");
    tokio::select! {
        biased;
        export = engine.export(&app) => drop(export.unwrap()),
        () = std::future::ready(()) => {}
    }
    // As long as the first one is there others are refused.
    let export = loop {
        match engine.export(&app).await {
            Err(error) if error.code == Code::Overloaded => assert!(error.retry_after.is_some()),
            export => break export.unwrap(),
        }
    };
    let files = std::fs::read_dir(folder.path().join("tmp")).unwrap().count();
    assert_eq!(files, 1, "only that of the one that is there");
    assert_eq!(engine.export(&app).await.unwrap_err().code, Code::Overloaded);
    drop(export);
    engine.export(&app).await.unwrap();
    engine.close().await;
}
