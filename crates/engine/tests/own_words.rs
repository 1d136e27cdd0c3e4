//! Whatever comes out is in the user's words: plans, errors, schemas, columns and counts show
//! nothing of the engine's own tables and names.

use debros_engine::Engine;
use debros_engine::conformance::{namespace, options, query, query_ok, transaction};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_proto::rpc::{StatementResult, value::Kind};
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;

const SCHEMA: &[&str] = &[
    "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v UNIQUE, at TEXT DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TABLE log(what, at)",
    "CREATE INDEX t_at ON t(at)",
    "CREATE VIEW recent AS SELECT id, v, date('now') AS today FROM t WHERE at > datetime('now', '-1 day')",
    "CREATE VIEW twice AS SELECT r.v, CURRENT_DATE AS d, (SELECT count(*) FROM log WHERE log.what = r.v) AS n FROM recent AS r \
     WHERE r.id IN (SELECT id FROM t WHERE v > 1)",
    "CREATE VIEW joined AS SELECT * FROM twice UNION ALL SELECT v, today, (SELECT max(id) FROM t) FROM recent",
    "CREATE TRIGGER logged AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.v, datetime('now')); \
     DELETE FROM log WHERE at < date('now', '-1 year') AND what IN (SELECT v FROM t); END",
    "CREATE TRIGGER changed BEFORE UPDATE ON t WHEN CURRENT_TIME > new.v BEGIN SELECT raise(ABORT, 'not after ' || (SELECT count(*) FROM log)); END",
    "CREATE VIRTUAL TABLE docs USING fts5(body)",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, a, b)",
];

const PLANNED: &[&str] = &[
    "SELECT * FROM recent",
    "SELECT * FROM recent WHERE id = 3",
    "SELECT * FROM twice",
    "SELECT * FROM joined",
    "SELECT * FROM joined WHERE v = 2 ORDER BY d",
    "SELECT a.v, (SELECT max(v) FROM log, recent) FROM twice AS a JOIN recent AS b USING (v) WHERE a.d IN (SELECT today FROM recent)",
    "WITH c AS MATERIALIZED (SELECT * FROM recent) SELECT * FROM c AS x JOIN c AS y ON x.id = y.id",
    "INSERT INTO t(v) VALUES (1)",
    "INSERT INTO log SELECT v, today FROM recent",
    "UPDATE t SET v = (SELECT count(*) FROM recent)",
    "DELETE FROM t WHERE id IN (SELECT id FROM recent)",
    "SELECT count(*) FROM docs('word'), boxes WHERE a > 1",
];

const ASKED: &[&str] = &[
    "SELECT * FROM sqlite_schema",
    "SELECT count(*), group_concat(sql) FROM sqlite_schema",
    "SELECT m.name, t.v FROM sqlite_schema AS m LEFT JOIN t ON 1",
    "SELECT * FROM pragma_table_list",
    "PRAGMA table_list",
    "PRAGMA table_xinfo(recent)",
    "PRAGMA foreign_key_check",
    "PRAGMA function_list",
    "PRAGMA user_version",
    "SELECT * FROM sqlite_sequence",
    "SELECT * FROM sqlite_stat1",
    "SELECT * FROM dbstat",
    "SELECT * FROM sqlite_dbpage",
    "SELECT * FROM recent, twice",
    "SELECT * FROM _debros_moment",
    "EXPLAIN SELECT * FROM recent",
    "EXPLAIN INSERT INTO t(v) VALUES (1)",
    "SELECT count(*) FROM pragma_page_count",
    "PRAGMA page_count",
    "PRAGMA freelist_count",
    "PRAGMA integrity_check",
    "INSERT INTO t(v) VALUES (1), (1)",
    "INSERT INTO t(v) VALUES (90) RETURNING *, changes()",
    "UPDATE t SET v = '' RETURNING v",
    "DELETE FROM recent",
    "ALTER TABLE t ADD CONSTRAINT small CHECK (v < 0)",
    "ALTER TABLE log ADD CONSTRAINT small CHECK (what > '')",
    "ALTER TABLE log ADD COLUMN more DEFAULT (date('now')) NOT NULL",
    "ALTER TABLE log ALTER COLUMN what SET NOT NULL",
    "ALTER TABLE t RENAME COLUMN v TO w",
    "ALTER TABLE t DROP COLUMN at",
    "DROP TABLE recent",
    "DROP VIEW t",
    "CREATE VIEW recent AS SELECT 1",
    "CREATE TABLE copied AS SELECT *, date('now') FROM recent",
    "SELECT * FROM copied",
    "REINDEX t",
    "ANALYZE log",
    "SELECT highlight(docs, 0, 1) FROM docs",
    "SELECT * FROM docs('\"')",
    "INSERT INTO docs(docs) VALUES ('no such command')",
    "INSERT INTO boxes VALUES (1, 5, 2)",
];

fn open(folder: &Path) -> Arc<dyn Engine> {
    Arc::new(EmbeddedEngine::open(EmbeddedConfig::new(folder)).unwrap())
}

fn details(result: &StatementResult) -> Vec<String> {
    let detail = |values: &[debros_proto::rpc::Value]| match &values[3].kind {
        Some(Kind::Text(text)) => text.clone(),
        other => panic!("{other:?}"),
    };
    result.rows.iter().map(|row| detail(&row.values)).collect()
}

/// A line of a plan without the numbers that distinguish subqueries.
fn unnumbered(detail: &str) -> String {
    let mut line = detail.to_owned();
    for word in ["SUBQUERY ", "(subquery-"] {
        if let Some((before, after)) = line.split_once(word) {
            line = format!(
                "{before}{word}{}",
                after.trim_start_matches(|sign: char| sign.is_ascii_digit())
            );
        }
    }
    line
}

fn own(text: &str) -> bool {
    let text = text.to_lowercase();
    ["debros", "ns::", "sqlite_fail", "savepoint"].iter().any(|word| text.contains(word))
}

#[tokio::test]
async fn a_plan_is_that_of_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let plain = Connection::open_in_memory().unwrap();
    for sql in SCHEMA {
        query_ok(&engine, sql).await;
        plain.execute_batch(sql).unwrap();
    }
    for sql in PLANNED {
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        let mut statement = plain.prepare(&sql).unwrap();
        let expected: Vec<String> =
            statement.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        let found = query_ok(&engine, &sql).await;
        let without_numbers = |details: Vec<String>| {
            details.iter().map(|detail| unnumbered(detail)).collect::<Vec<_>>()
        };
        assert_eq!(without_numbers(details(&found)), without_numbers(expected), "{sql}");
        assert_eq!(found.columns, ["id", "parent", "notused", "detail"]);
    }
}

#[tokio::test]
async fn nothing_that_comes_out_names_the_engines_own() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    for sql in SCHEMA {
        query_ok(&engine, sql).await;
    }
    let mut shown = Vec::new();
    for sql in ASKED {
        let alone = format!("{:?}", query(&engine, sql, &[]).await);
        let together = format!("{:?}", transaction(&engine, &["SELECT 1", sql]).await);
        // What the user wrote may be shown.
        let is_told = |text: &String| {
            own(&if own(sql) { text.replace("_debros_moment", "") } else { text.clone() })
        };
        shown.extend(
            [alone, together]
                .iter()
                .filter(|text| is_told(text))
                .map(|text| format!("{sql}: {text}")),
        );
    }
    assert!(shown.is_empty(), "{}", shown.join("\n"));
    let tables = engine.schema(&namespace("app"), options()).await.unwrap();
    assert!(!own(&format!("{tables:?}")), "{tables:?}");
    // What changes nothing of the user's counts nothing.
    let results = transaction(
        &engine,
        &[
            "INSERT INTO t(v) VALUES (70), (71)",
            "DELETE FROM t WHERE v = 70",
            "UPDATE log SET at = 1 WHERE 0",
        ],
    )
    .await
    .unwrap();
    let counts: Vec<_> = results.iter().map(|result| result.rows_affected).collect();
    assert_eq!(counts, [Some(2), Some(1), Some(0)]);
}
