//! No room: for data, for databases, for what waits.

use super::{backup, folder, get, open_with, put, restore};
use debros_engine::conformance::{
    database, key, keyed_options, namespace, no_condition, options, query, query_integer, query_ok,
    query_refused,
};
use debros_engine::embedded::EmbeddedConfig;
use debros_proto::Code;
use debros_proto::rpc::{Statement, Value};
use std::sync::Arc;

#[tokio::test]
async fn a_new_namespace_is_refused_where_the_databases_are_full() {
    let folder = folder();
    let config = |max_size| EmbeddedConfig { max_size, ..EmbeddedConfig::new(folder.path()) };
    let engine = open_with(config(1 << 30));
    query_ok(&engine, "CREATE TABLE t(a)").await;
    engine.query(&database("gone"), Statement::from("CREATE TABLE o(a)"), options()).await.unwrap();
    let made = backup(&engine).await;
    engine.delete_namespace(&namespace("gone"), Vec::new(), options().deadline).await.unwrap();
    let size = engine.size();
    engine.close().await;

    let engine = open_with(config(size + 4096));
    for index in 0..20 {
        let new = database(&format!("new{index}"));
        let error =
            engine.query(&new, Statement::from("CREATE TABLE n(a)"), options()).await.unwrap_err();
        assert_eq!(error.code, Code::DatabaseFull, "{error}");
        assert!(error.message.contains("max_database_size"), "{error}");
    }
    assert!(engine.size() <= size + 4096, "{} after {size}", engine.size());
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 0);
    // A backup goes in however full the node is.
    restore(&engine, &made.name).await.unwrap();
    engine.query(&database("gone"), Statement::from("SELECT * FROM o"), options()).await.unwrap();
    engine.close().await;
}

#[tokio::test]
async fn a_full_database_reads_deletes_and_takes_again() {
    let folder = folder();
    let engine =
        open_with(EmbeddedConfig { max_size: 2 << 20, ..EmbeddedConfig::new(folder.path()) });
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_ok(&engine, "INSERT INTO t VALUES ('here')").await;
    let mut stored = 0;
    let error = loop {
        match put(&engine, &format!("k{stored}"), vec![7; 50_000]).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::DatabaseFull, "{error}");
    assert!(error.message.contains("max_database_size"), "{error}");
    assert!(stored > 20 && engine.size() <= 2 << 20, "{stored} {}", engine.size());
    assert_eq!(
        query(&engine, "INSERT INTO t VALUES (zeroblob(500000))", &[]).await.unwrap_err().code,
        Code::DatabaseFull
    );
    assert_eq!(get(&engine, "k0").await.map(|value| value.len()), Some(50_000));
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 1);
    for index in 0..10 {
        let name = key(&format!("k{index}"));
        let deleted = engine
            .kv_delete(
                &namespace("app"),
                &name,
                no_condition(),
                keyed_options(&format!("d{index}"), 1),
            )
            .await;
        assert!(deleted.unwrap().value);
    }
    engine
        .query(&database("app"), Statement::from("DELETE FROM t"), keyed_options("sql", 1))
        .await
        .unwrap();
    for index in 0..8 {
        put(&engine, &format!("k{index}"), vec![7; 50_000]).await.unwrap();
    }
    engine.close().await;
    // The limit is the sum of what is there at the next start too.
    let engine =
        open_with(EmbeddedConfig { max_size: 1 << 20, ..EmbeddedConfig::new(folder.path()) });
    assert!(engine.size() > 1 << 20);
    assert_eq!(
        put(&engine, "more", vec![7; 1_000_000]).await.unwrap_err().code,
        Code::DatabaseFull
    );
    assert_eq!(get(&engine, "k11").await.map(|value| value.len()), Some(50_000));
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let folder = folder();
    let engine = open_with(EmbeddedConfig {
        queue_count: 4,
        statement_time: std::time::Duration::from_secs(2),
        ..EmbeddedConfig::new(folder.path())
    });
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_ok(&engine, "INSERT INTO t VALUES (0)").await;
    let slow = {
        let engine = Arc::clone(&engine);
        let endless = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
        tokio::spawn(async move {
            loop {
                let error = query_refused(&engine, endless).await;
                // The others may fill the queue before it.
                if error.code != Code::Overloaded {
                    return error;
                }
            }
        })
    };
    // Thirty callers and a queue of four: while the slow statement runs, or in between, some find
    // it full.
    let mut refusals = Vec::new();
    while refusals.is_empty() && !slow.is_finished() {
        let tasks: Vec<_> = (0..30)
            .map(|_| {
                let engine = Arc::clone(&engine);
                tokio::spawn(
                    async move { query(&engine, "INSERT INTO t VALUES (0)", &[]).await.err() },
                )
            })
            .collect();
        for task in tasks {
            refusals.extend(task.await.unwrap());
        }
    }
    assert!(!refusals.is_empty());
    for error in refusals {
        assert_eq!(error.code, Code::Overloaded, "{error}");
        assert!(error.retry_after.is_some(), "{error}");
    }
    assert_eq!(slow.await.unwrap().code, Code::StatementTimeout);
    query_ok(&engine, "INSERT INTO t VALUES (0)").await;
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_queries_carry_counts_while_they_wait() {
    let folder = folder();
    let engine = open_with(EmbeddedConfig {
        readers: 1,
        queue_bytes: 1 << 20,
        statement_time: std::time::Duration::from_millis(500),
        ..EmbeddedConfig::new(folder.path())
    });
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let argument = Value::from("x".repeat(600_000));
    let mut refusals = Vec::new();
    // The first takes the only thread; most often it is the endless one, and of the others only one
    // may wait.
    for _ in 0..10 {
        let mut tasks = Vec::new();
        for index in 0..20 {
            let (engine, argument) = (Arc::clone(&engine), argument.clone());
            let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
            tasks.push(tokio::spawn(async move {
                match index {
                    0 => query(&engine, endless, &[]).await.err(),
                    _ => query(&engine, "SELECT length(?)", &[argument]).await.err(),
                }
            }));
        }
        for task in tasks {
            refusals
                .extend(task.await.unwrap().filter(|error| error.code != Code::StatementTimeout));
        }
        if !refusals.is_empty() {
            break;
        }
    }
    assert!(!refusals.is_empty(), "20 queries of 600 kB never waited in more than 1 MiB");
    for error in refusals {
        assert_eq!(error.code, Code::Overloaded, "{error}");
        assert!(error.message.contains("queries") && error.retry_after.is_some(), "{error}");
    }
    assert_eq!(query_integer(&engine, "SELECT 7").await, 7);
    engine.close().await;
}
