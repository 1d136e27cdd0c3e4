//! Writes that are committed together, of which one fails.

use super::{folder, open};
use debros_engine::conformance::{query, query_integer, query_ok, transaction};
use std::sync::Arc;

/// SQLite cannot undo a savepoint in which a full-text table was made: then the whole transaction
/// goes, and nobody else's write with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_that_fails_after_making_a_full_text_table_fails_alone() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    for module in ["fts5(a, b, c)", "fts4(a, b, c)", "rtree(a, b, c)"] {
        let make = format!("CREATE VIRTUAL TABLE f USING {module}");
        let calls: Vec<_> = (0..200)
            .map(|index| {
                let (engine, make) = (Arc::clone(&engine), make.clone());
                tokio::spawn(async move {
                    if index % 20 == 0 {
                        transaction(
                            &engine,
                            &[&make, "INSERT INTO f VALUES (1, 2, 3)", "SELECT nosuch"],
                        )
                        .await
                        .map(|_| ())
                    } else {
                        query(&engine, "INSERT INTO t VALUES (1)", &[]).await.map(|_| ())
                    }
                })
            })
            .collect();
        for (index, call) in calls.into_iter().enumerate() {
            let outcome = call.await.unwrap();
            assert_eq!(outcome.is_err(), index % 20 == 0, "{module} {index} {outcome:?}");
            if let Err(error) = outcome {
                let reported = (error.statement, error.message.as_str());
                assert_eq!(reported, (Some(2), "no such column: nosuch (line 1, column 8)"));
            }
        }
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 570);
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM sqlite_master").await, 1);
    engine.close().await;
}
