//! Namespaces reach nothing but their own, and no caller harms another.

use super::{
    assert_code, database, options, query, query_integer, query_ok, query_refused, single_value,
    transaction,
};
use crate::{Engine, TargetDatabase};
use debros_proto::Code;
use debros_proto::rpc::{Statement, Value};
use std::sync::Arc;

/// The system's tables and another namespace's are not there, by any name.
pub async fn lesson_01_namespaces_reach_nothing_else(engine: Arc<dyn Engine>) {
    engine
        .query(&database("other"), Statement::from("CREATE TABLE secret(a)"), options())
        .await
        .unwrap();
    engine
        .query(
            &database("other"),
            Statement::from("INSERT INTO secret VALUES ('marked')"),
            options(),
        )
        .await
        .unwrap();
    for table in
        ["api_keys", "kv", "namespaces", "apps", "audit_events", "schema_migrations", "secret"]
    {
        for name in [
            table.to_owned(),
            format!("main.{table}"),
            format!("temp.{table}"),
            format!("\"{table}\""),
            format!("[{table}]"),
            format!("other.{table}"),
            format!("\"ns::other::{table}\""),
            format!("system.{table}"),
        ] {
            for sql in [
                format!("SELECT * FROM {name}"),
                format!("DROP TABLE {name}"),
                format!("DELETE FROM {name}"),
                format!("SELECT (SELECT count(*) FROM {name})"),
                format!("/* x */ INSERT INTO {name} DEFAULT VALUES"),
            ] {
                let error = query_refused(&engine, &sql).await;
                assert!(
                    matches!(error.code, Code::Sql | Code::StatementNotAllowed),
                    "{sql}: {error}"
                );
                assert!(!error.message.contains("marked"), "{sql}: {error}");
            }
        }
    }
    let listed = query_ok(&engine, "SELECT count(*) FROM sqlite_master").await;
    assert_eq!(single_value(&listed), Value::from(0));
    let kept = engine
        .query(&database("other"), Statement::from("SELECT a FROM secret"), options())
        .await
        .unwrap();
    assert_eq!(single_value(&kept.value), Value::from("marked"));
}

/// What reaches out of the database, changes how it works, or breaks a transaction open.
pub async fn hostile_statements_are_refused(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    // Makes the table of kept answers, if the back end keeps it here.
    let insert = Statement::from("INSERT INTO t VALUES (1)");
    engine.query(&database("app"), insert, super::keyed_options("k", 1)).await.unwrap();
    for sql in [
        "ATTACH 'x.db' AS x",
        "ATTACH DATABASE ':memory:' AS x",
        "/**/attach\n'x.db' as x",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO 'x.db'",
        "-- a comment\nVACUUM",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "END TRANSACTION",
        "ROLLBACK",
        "SAVEPOINT a",
        "RELEASE a",
        "ROLLBACK TO a",
        "/*debros*/ COMMIT",
        "/*debros*/ ROLLBACK TO job",
        "/*debros*/ RELEASE job",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA journal_mode",
        "PRAGMA synchronous = OFF",
        "PRAGMA schema_version = 5",
        "PRAGMA legacy_alter_table = ON",
        "PRAGMA trusted_schema = OFF",
        "UPDATE sqlite_schema SET sql = ''",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA max_page_count = 1",
        "PRAGMA database_list",
        "PRAGMA query_only = OFF",
        "PRAGMA temp_store_directory = '/'",
        "PRAGMA \"journal_mode\"",
        "PRAGMA main.journal_mode",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM pragma_journal_mode",
        "SELECT load_extension('x')",
        "SELECT load_extension('x', 'y')",
        "SELECT fts3_tokenizer('simple')",
        "CREATE TEMP TABLE x(a)",
        "CREATE TABLE temp.x(a)",
        "CREATE TEMP VIEW x AS SELECT 1",
        "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE x USING dbstat",
        "SELECT * FROM dbstat",
        "SELECT * FROM sqlite_dbpage",
        "CREATE TABLE _debros_x(a)",
        "CREATE VIEW _DeBros_x AS SELECT 1",
        "CREATE INDEX _debros_i ON t(a)",
        "ALTER TABLE t RENAME TO _debros_t",
        "SELECT * FROM _debros_idempotency",
        "SELECT * FROM \"_DEBROS_idempotency\"",
        "SELECT (SELECT key FROM main._debros_idempotency)",
        "WITH x AS (SELECT * FROM _debros_idempotency) SELECT * FROM x",
        "/*debros*/ SELECT request_hash, answer FROM _debros_idempotency",
        "DELETE FROM _debros_idempotency",
        "UPDATE _debros_idempotency SET key = 'x'",
        "INSERT INTO _debros_idempotency VALUES (1, 2, 3, 4, 5)",
        "DROP TABLE _debros_idempotency",
        "ALTER TABLE _debros_idempotency ADD COLUMN x",
        "CREATE INDEX x ON _debros_idempotency(key)",
        "CREATE TRIGGER x AFTER INSERT ON _debros_idempotency BEGIN DELETE FROM t; END",
        "UPDATE sqlite_master SET sql = ''",
        "DELETE FROM sqlite_schema",
        "INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 0, '')",
        "CREATE TABLE sqlite_x(a)",
    ] {
        let error = query_refused(&engine, sql).await;
        assert!(
            matches!(error.code, Code::StatementNotAllowed | Code::Sql),
            "{sql}: {:?} {error}",
            error.code
        );
        assert!(!error.message.contains("not authorized"), "{sql}: {error}");
        let inside = transaction(&engine, &["INSERT INTO t VALUES (2)", sql]).await.unwrap_err();
        assert_eq!(inside.statement, Some(1), "{sql}: {inside}");
        assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 1, "{sql}");
    }
    for sql in [
        "ATTACH 'x' AS x",
        "VACUUM",
        "BEGIN",
        "PRAGMA journal_mode",
        // Only in a transaction.
        "PRAGMA foreign_keys = OFF",
        "SELECT load_extension('x')",
    ] {
        assert_code(&query_refused(&engine, sql).await, Code::StatementNotAllowed, sql);
    }
    // What is not the namespace's is not there.
    for sql in [
        "PRAGMA table_info(_debros_idempotency)",
        "SELECT * FROM pragma_table_info('_debros_idempotency')",
    ] {
        assert!(query_ok(&engine, sql).await.rows.is_empty(), "{sql}");
    }
    // What a module reads for itself goes through the same gate.
    let _ = query(
        &engine,
        "CREATE VIRTUAL TABLE spy USING fts5(key, answer, content='_debros_idempotency')",
        &[],
    )
    .await;
    assert!(
        query(&engine, "SELECT * FROM spy", &[]).await.is_err(),
        "the kept answers are read through a full-text table"
    );
    let _ = query(&engine, "CREATE VIEW w AS SELECT * FROM _debros_idempotency", &[]).await;
    assert!(
        query(&engine, "SELECT * FROM w", &[]).await.is_err(),
        "the kept answers are read through a view"
    );
}

/// Those that only describe.
pub async fn schema_pragmas_work(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(id INTEGER PRIMARY KEY, a REFERENCES t(id))").await;
    query_ok(&engine, "CREATE INDEX i ON t(a)").await;
    for (sql, rows) in [
        ("PRAGMA table_info(t)", 2),
        ("PRAGMA table_xinfo('t')", 2),
        ("PRAGMA index_list(t)", 1),
        ("PRAGMA index_info(i)", 1),
        ("PRAGMA index_xinfo(i)", 2),
        ("PRAGMA foreign_key_list(t)", 1),
        ("PRAGMA foreign_key_check", 0),
        ("PRAGMA user_version", 1),
        ("PRAGMA application_id", 1),
        ("SELECT name FROM pragma_table_info('t')", 2),
        (
            "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'",
            2,
        ),
    ] {
        assert_eq!(query_ok(&engine, sql).await.rows.len(), rows, "{sql}");
    }
    for sql in [
        "PRAGMA table_list",
        "PRAGMA function_list",
        "PRAGMA collation_list",
        "PRAGMA compile_options",
    ] {
        assert!(!query_ok(&engine, sql).await.rows.is_empty(), "{sql}");
    }
}

/// Dots, quotes, blanks and keywords in names.
pub async fn names_with_any_signs_work(engine: Arc<dyn Engine>) {
    for name in [
        "a.b",
        "main.t",
        "it's",
        "two \"\"quotes\"\"",
        "select",
        "ключ 🔑",
        "a;b",
        "--",
        "a ns::other::t",
        "%_",
    ] {
        query_ok(&engine, &format!("CREATE TABLE \"{name}\"(\"{name}\")")).await;
        query_ok(&engine, &format!("INSERT INTO \"{name}\" VALUES (1)")).await;
        assert_eq!(
            query_integer(&engine, &format!("SELECT \"{name}\" FROM \"{name}\"")).await,
            1,
            "{name}"
        );
        query_ok(&engine, &format!("DROP TABLE \"{name}\"")).await;
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM sqlite_master").await, 0);
}

/// A name in an argument is data, whatever it looks like.
pub async fn lesson_15_hostile_names_are_only_names(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let hostile = "'); DROP TABLE t; --";
    query(&engine, "INSERT INTO t VALUES (?1)", &[Value::from(hostile)]).await.unwrap();
    assert_eq!(single_value(&query_ok(&engine, "SELECT a FROM t").await), Value::from(hostile));
}

/// `OR ROLLBACK` and `RAISE(ROLLBACK)` undo the caller's own statement and nothing of anyone
/// else's.
pub async fn rollback_clauses_hurt_nobody_else(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a UNIQUE)").await;
    query_ok(&engine, "CREATE TABLE trap(a)").await;
    query_ok(&engine, "CREATE TRIGGER r BEFORE INSERT ON trap BEGIN SELECT RAISE(ROLLBACK, 'the trap sprung'); END")
        .await;
    query_ok(&engine, "INSERT INTO t VALUES (-1)").await;
    let tasks: Vec<_> = (0..120i64)
        .map(|index| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                match index % 6 {
                    0 => {
                        let error =
                            query_refused(&engine, "INSERT OR ROLLBACK INTO t VALUES (-1)").await;
                        assert_code(&error, Code::Constraint, "or rollback");
                    }
                    1 => {
                        let error = query_refused(&engine, "INSERT INTO trap VALUES (1)").await;
                        assert_code(&error, Code::Constraint, "raise");
                        assert!(error.message.contains("sprung"), "{error}");
                    }
                    2 => {
                        let inserts =
                            ["INSERT INTO t VALUES (-2)", "INSERT OR ROLLBACK INTO t VALUES (-1)"];
                        assert_eq!(
                            transaction(&engine, &inserts).await.unwrap_err().statement,
                            Some(1)
                        );
                    }
                    _ => {
                        let done =
                            query(&engine, "INSERT INTO t VALUES (?1)", &[Value::from(index)])
                                .await
                                .unwrap();
                        assert_eq!(done.rows_affected, Some(1));
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 61);
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t WHERE a >= 0").await, 60);
}

/// A write that is interrupted takes no other with it; a slow namespace does not stop another.
pub async fn a_slow_statement_hurts_nobody_else(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let slow = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let soon = std::time::Instant::now() + std::time::Duration::from_millis(150);
    let bad = {
        let engine = Arc::clone(&engine);
        let options = crate::CallOptions { deadline: soon, ..options() };
        tokio::spawn(
            async move { engine.query(&database("app"), Statement::from(slow), options).await },
        )
    };
    let good: Vec<_> = (0..20)
        .map(|_| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { query_ok(&engine, "INSERT INTO t VALUES (1)").await })
        })
        .collect();
    let other = TargetDatabase::Namespace(super::namespace("other"));
    engine.query(&other, Statement::from("CREATE TABLE o(a)"), options()).await.unwrap();
    let error = bad.await.unwrap().unwrap_err();
    assert!(matches!(error.code, Code::StatementTimeout | Code::DeadlineExceeded), "{error}");
    for task in good {
        assert_eq!(task.await.unwrap().rows_affected, Some(1));
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 20);
}
