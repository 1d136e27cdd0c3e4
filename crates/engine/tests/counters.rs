//! `last_insert_rowid()` and `changes()` are in each call what they would be on a new connection of
//! the caller's own: the same statements, one call each time, beside an SQLite that was just
//! opened.

use debros_engine::conformance::options;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_engine::{Engine, TargetDatabase};
use debros_proto::rpc::{Row, Statement, value::Kind};
use debros_proto::{Namespace, Result};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use std::path::Path;

const SCHEMA: &[&str] = &[
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
    "CREATE TABLE seen(what, rowid_seen, changes_seen)",
    "CREATE TABLE fired(id INTEGER PRIMARY KEY, v)",
    "CREATE TRIGGER before BEFORE INSERT ON fired BEGIN INSERT INTO seen VALUES ('b', last_insert_rowid(), changes()); END",
    "CREATE TRIGGER after AFTER INSERT ON fired BEGIN INSERT INTO seen VALUES ('a', last_insert_rowid(), changes()); \
     UPDATE seen SET what = what || 'x'; INSERT INTO seen VALUES ('c', last_insert_rowid(), changes()); END",
    "CREATE TRIGGER dated AFTER UPDATE ON fired BEGIN INSERT INTO seen VALUES (date('now') > '2000', last_insert_rowid(), changes()); END",
    "CREATE VIRTUAL TABLE docs USING fts5(v)",
    "CREATE VIEW counted AS SELECT last_insert_rowid() AS l, changes() AS c",
    "CREATE VIEW doubled AS SELECT * FROM t",
    "CREATE TRIGGER doubling INSTEAD OF INSERT ON doubled BEGIN INSERT INTO t(v) VALUES (new.v), (new.v); END",
    "CREATE TABLE w(id PRIMARY KEY, v) WITHOUT ROWID",
];

/// Calls, each of some statements.
const CALLS: &[&[&str]] = &[
    &["INSERT INTO t VALUES (20, 'b') RETURNING last_insert_rowid(), changes()"],
    &["SELECT last_insert_rowid(), changes()"],
    &[
        "INSERT INTO t(v) VALUES ('c'), ('d'), ('e')",
        "SELECT last_insert_rowid(), changes()",
        "SELECT * FROM counted",
    ],
    &["INSERT INTO t(v) SELECT last_insert_rowid() FROM t ORDER BY id RETURNING v"],
    &[
        "INSERT INTO t VALUES (42, 'x'), (43, 'y')",
        "INSERT INTO fired VALUES (7, 1)",
        "SELECT last_insert_rowid(), changes()",
    ],
    &["INSERT INTO fired VALUES (8, 1), (9, 2)"],
    &["UPDATE t SET v = changes() WHERE id < 23 RETURNING v, last_insert_rowid()"],
    &[
        "UPDATE t SET v = 1",
        "UPDATE t SET v = changes()",
        "UPDATE t SET v = 2 WHERE 0",
        "SELECT changes(), last_insert_rowid()",
    ],
    &[
        "INSERT INTO t VALUES (100, 1), (101, 1)",
        "UPDATE fired SET v = 3",
        "SELECT changes(), last_insert_rowid()",
    ],
    &["UPDATE fired SET v = 4"],
    &[
        "INSERT INTO docs VALUES ('one'), ('two')",
        "SELECT changes(), last_insert_rowid()",
        "DELETE FROM docs",
        "SELECT changes()",
    ],
    &[
        "INSERT INTO t VALUES (200, 1)",
        "CREATE TABLE more(a)",
        "SELECT changes(), last_insert_rowid()",
        "DROP TABLE more",
        "SELECT changes(), last_insert_rowid()",
    ],
    &[
        "INSERT INTO t VALUES (300, 1)",
        "CREATE VIRTUAL TABLE others USING fts5(v)",
        "SELECT changes(), last_insert_rowid()",
        "DROP TABLE others",
        "SELECT changes(), last_insert_rowid()",
    ],
    &["INSERT INTO doubled(v) VALUES (1)", "SELECT changes(), last_insert_rowid()"],
    &[
        "INSERT INTO w VALUES (1, last_insert_rowid()), (2, changes())",
        "SELECT changes(), last_insert_rowid()",
        "DELETE FROM w",
    ],
    &["INSERT OR IGNORE INTO t VALUES (20, 'again')", "SELECT changes(), last_insert_rowid()"],
    &["INSERT OR REPLACE INTO t VALUES (20, 'again')", "SELECT changes(), last_insert_rowid()"],
    &[
        "INSERT INTO t VALUES (20, 1) ON CONFLICT DO UPDATE SET v = last_insert_rowid()",
        "SELECT changes(), last_insert_rowid()",
    ],
    &["CREATE INDEX t_v ON t(v)", "ANALYZE t", "SELECT changes(), last_insert_rowid()"],
    &["ALTER TABLE t ADD COLUMN z DEFAULT 5", "SELECT changes(), last_insert_rowid()"],
    &[
        "CREATE TABLE copied AS SELECT * FROM t",
        "SELECT changes(), last_insert_rowid()",
        "DROP TABLE copied",
    ],
    &["SELECT count(*) FROM t WHERE id = last_insert_rowid() OR v = changes()"],
    &["SELECT * FROM seen ORDER BY rowid"],
    &["SELECT * FROM t ORDER BY id"],
    &["SELECT * FROM w"],
];

fn open(folder: &Path) -> EmbeddedEngine {
    EmbeddedEngine::open(EmbeddedConfig::new(folder)).unwrap_or_else(|error| panic!("{error}"))
}

fn plain(row: Row) -> Vec<Value> {
    let plain = |kind| match kind {
        None => Value::Null,
        Some(Kind::Integer(integer)) => Value::Integer(integer),
        Some(Kind::Real(real)) => Value::Real(real),
        Some(Kind::Text(text)) => Value::Text(text),
        Some(Kind::Blob(blob)) => Value::Blob(blob.to_vec()),
    };
    row.values.into_iter().map(|value| plain(value.kind)).collect()
}

async fn call(
    engine: &EmbeddedEngine,
    namespace: &str,
    statements: &[&str],
) -> Result<Vec<Vec<Vec<Value>>>> {
    let database = TargetDatabase::Namespace(Namespace::new(namespace).unwrap());
    let statement = |sql: &&str| Statement { sql: (*sql).to_owned(), ..Statement::default() };
    let results = match statements {
        [one] => vec![engine.query(&database, statement(one), options()).await?.value],
        several => {
            engine
                .transaction(&database, several.iter().map(statement).collect(), options())
                .await?
                .value
        }
    };
    Ok(results.into_iter().map(|result| result.rows.into_iter().map(plain).collect()).collect())
}

fn beside(path: &Path, statements: &[&str]) -> Vec<Vec<Vec<Value>>> {
    let db = Connection::open(path).unwrap();
    let rows = |sql: &&str| {
        let mut statement = db.prepare(sql).unwrap();
        let width = statement.column_count();
        let mut rows = statement.query(params_from_iter([0; 0])).unwrap();
        let mut found = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            found.push((0..width).map(|index| row.get(index).unwrap()).collect());
        }
        found
    };
    statements.iter().map(rows).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_counts_as_a_connection_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let path = folder.path().join("plain.db");
    for sql in SCHEMA {
        call(&engine, "app", &[sql]).await.unwrap();
        beside(&path, &[sql]);
    }
    for statements in CALLS {
        // The connection has just done other things.
        call(
            &engine,
            "app",
            &["CREATE TABLE IF NOT EXISTS others_rows(id)", "DELETE FROM others_rows"],
        )
        .await
        .unwrap();
        call(&engine, "app", &["INSERT INTO others_rows VALUES (1), (2), (3), (4), (5)"])
            .await
            .unwrap();
        let found = call(&engine, "app", statements)
            .await
            .unwrap_or_else(|error| panic!("{statements:?}: {error}"));
        assert_eq!(found, beside(&path, statements), "{statements:?}");
    }
}

/// Calls that are written in one group share a transaction and a connection, and see nothing of
/// each other.
#[tokio::test(flavor = "multi_thread")]
async fn callers_of_one_group_see_their_own_counters() {
    let folder = tempfile::tempdir().unwrap();
    let engine = std::sync::Arc::new(open(folder.path()));
    call(&engine, "app", &["CREATE TABLE t(id INTEGER PRIMARY KEY, seen)"]).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let engine = std::sync::Arc::clone(&engine);
        callers.spawn(async move {
            let first = ["INSERT INTO t(seen) VALUES (last_insert_rowid()) RETURNING seen"];
            assert_eq!(call(&engine, "app", &first).await.unwrap(), [[[Value::Integer(0)]]]);
            let both = [
                "SELECT last_insert_rowid(), changes()",
                "INSERT INTO t(seen) VALUES (1), (2) RETURNING id",
                "SELECT last_insert_rowid(), changes()",
            ];
            let found = call(&engine, "app", &both).await.unwrap();
            assert_eq!(found[0], [[Value::Integer(0), Value::Integer(0)]]);
            assert_eq!(found[2], [[found[1][1][0].clone(), Value::Integer(2)]]);
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}
