//! Callers that keep the threads of a namespace busy, and the others.

use super::{folder, open_with};
use debros_engine::conformance::{database, namespace, options, query_ok};
use debros_engine::embedded::EmbeddedConfig;
use debros_engine::{CallOptions, CallerKey};
use debros_proto::rpc::Statement;
use std::time::Instant;

/// Reads without end, of one caller and then of two, in the namespace of a third.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_reads_leave_room_for_others() {
    let folder = folder();
    let config =
        EmbeddedConfig { statement_time: super::FAR, ..EmbeddedConfig::new(folder.path()) };
    let engine = open_with(config);
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_ok(&engine, "INSERT INTO t VALUES (1)").await;
    let database = database("app");
    let by = |caller: u64| CallOptions {
        caller: CallerKey(caller),
        deadline: Instant::now() + super::FAR,
        ..options()
    };
    let endless = |number: u64, caller: u64| {
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT {number} UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        );
        engine.query(&database, Statement::from(sql.as_str()), by(caller))
    };
    let mut running: Vec<_> = (0..8).map(|number| endless(number, 1)).collect();
    for read in &mut running {
        assert!(is_pending(read).await);
    }
    // Some that take longer than what is quick, and some of the greedy caller itself.
    let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT count(*) FROM n";
    for (caller, sql) in [(2, "SELECT a FROM t"), (2, long), (1, "SELECT a + 1 FROM t")] {
        engine.query(&database, Statement::from(sql), by(caller)).await.unwrap();
    }
    engine.schema(&namespace("app"), by(2)).await.unwrap();
    engine.query(&database, Statement::from("INSERT INTO t VALUES (2)"), by(2)).await.unwrap();
    // Together two have all that there is, but for what is quick.
    let mut more: Vec<_> = (8..16).map(|number| endless(number, 3)).collect();
    for read in &mut more {
        assert!(is_pending(read).await);
    }
    for number in 0..10 {
        let quick = format!("SELECT a + {number} FROM t");
        engine.query(&database, Statement::from(quick.as_str()), by(2)).await.unwrap();
    }
    // Or for a caller with nothing running.
    let long = long.replace("200000", "200001");
    engine.query(&database, Statement::from(long.as_str()), by(2)).await.unwrap();
    engine.schema(&namespace("app"), by(2)).await.unwrap();
    let info = engine.namespace_info(&namespace("app"), by(2)).await.unwrap();
    assert_eq!((info.tables, info.problem), (1, None));
    for caller in [1, 3] {
        engine.schema(&namespace("app"), by(caller)).await.unwrap();
        engine.namespace_info(&namespace("app"), by(caller)).await.unwrap();
    }
    for read in &mut running[..2] {
        assert!(is_pending(read).await, "it ended, and only then the others were answered");
    }
    // They end with their callers.
    drop((running, more));
    engine.close().await;
}

/// Polls once.
async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    tokio::select! {
        biased;
        _ = future => false,
        () = std::future::ready(()) => true,
    }
}
