//! Statements and transactions.

use super::{
    assert_code, database, options, query, query_integer, query_ok, query_refused, single_value,
    statement, transaction,
};
use crate::Engine;
use debros_proto::rpc::{Statement, Value};
use debros_proto::{Code, Error};
use std::sync::Arc;

/// A write is a write behind a comment, a WITH or a blank; a read is a read that holds the word
/// INSERT.
pub async fn lesson_21_sqlite_tells_reads_from_writes(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    for sql in [
        "WITH x(a) AS (VALUES (1), (2)) INSERT INTO t SELECT a FROM x",
        "-- SELECT\n/* SELECT */ INSERT INTO t VALUES (3), (4)",
        "\n\t REPLACE INTO t VALUES (5), (6);;",
    ] {
        let result = query_ok(&engine, sql).await;
        assert!(result.is_write() && result.rows_affected == Some(2), "{sql}: {result:?}");
    }
    for sql in [
        "SELECT 'INSERT INTO t'",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "VALUES (1)",
        "EXPLAIN DELETE FROM t",
    ] {
        let result = query_ok(&engine, sql).await;
        assert!(!result.is_write() && result.last_insert_id.is_none(), "{sql}: {result:?}");
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 6);
}

/// Not those of the statement before, and none for a statement that changes no rows.
pub async fn counts_are_of_the_statement(engine: Arc<dyn Engine>) {
    let steps = [
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", 0, 0),
        ("INSERT INTO t(a) VALUES (1), (2), (3)", 3, 3),
        ("CREATE TABLE u(a)", 0, 0),
        ("CREATE VIRTUAL TABLE f USING fts5(a)", 0, 0),
        ("UPDATE t SET a = 0 WHERE id > 1", 2, 0),
        ("UPDATE t SET a = 0 WHERE id > 100", 0, 0),
        ("INSERT INTO t SELECT 7, 1 WHERE 0", 0, 0),
        ("INSERT INTO u VALUES (1)", 1, 1),
        ("INSERT INTO t(id, a) VALUES (1, 1) ON CONFLICT DO NOTHING", 0, 0),
        ("INSERT INTO t(id) VALUES (1000)", 1, 1000),
        ("DELETE FROM t", 4, 0),
        ("INSERT INTO f VALUES ('hello')", 1, 1),
        ("CREATE TABLE w(k TEXT PRIMARY KEY) WITHOUT ROWID", 0, 0),
        ("INSERT INTO w VALUES ('x')", 1, 0),
        ("DROP TABLE u", 0, 0),
        ("ALTER TABLE t ADD COLUMN b", 0, 0),
    ];
    for (sql, rows, id) in steps {
        let result = query_ok(&engine, sql).await;
        assert_eq!((result.rows_affected, result.last_insert_id), (Some(rows), Some(id)), "{sql}");
    }
}

/// RETURNING: the rows and the counts.
pub async fn returning_gives_rows_and_counts(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)").await;
    let result =
        query_ok(&engine, "INSERT INTO t(a) VALUES ('x'), ('y') RETURNING id, a AS b").await;
    assert_eq!(result.columns, ["id", "b"]);
    assert_eq!(
        (result.rows.len(), result.rows_affected, result.last_insert_id),
        (2, Some(2), Some(2))
    );
    let result = query_ok(&engine, "DELETE FROM t WHERE id = 9 RETURNING id").await;
    assert_eq!((result.rows.len(), result.rows_affected), (0, Some(0)));
    assert_eq!(result.columns, ["id"]);
}

/// An UPSERT that updates inserted nothing.
pub async fn upsert_counts(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(k TEXT UNIQUE, n)").await;
    let upsert = "INSERT INTO t VALUES ('k', 1) ON CONFLICT (k) DO UPDATE SET n = n + 1";
    let first = query_ok(&engine, upsert).await;
    assert_eq!((first.rows_affected, first.last_insert_id), (Some(1), Some(1)));
    let second = query_ok(&engine, upsert).await;
    assert_eq!((second.rows_affected, second.last_insert_id), (Some(1), Some(0)));
}

/// What triggers do is not counted, and their rowids are not the statement's.
pub async fn triggers_are_not_counted(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_ok(&engine, "CREATE TABLE log(a)").await;
    query_ok(
        &engine,
        "CREATE TRIGGER r AFTER UPDATE ON t BEGIN INSERT INTO log VALUES (new.a); INSERT INTO log VALUES (2); END",
    )
    .await;
    query_ok(&engine, "INSERT INTO t VALUES (1)").await;
    let result = query_ok(&engine, "UPDATE t SET a = 2").await;
    assert_eq!((result.rows_affected, result.last_insert_id), (Some(1), Some(0)));
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM log").await, 2);
}

/// Syntax errors and unknown names say so, and where.
pub async fn mistakes_are_the_callers(engine: Arc<dyn Engine>) {
    for (sql, word) in [
        ("SELEC 1", "SELEC"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT nothing", "nothing"),
        ("INSERT INTO nowhere VALUES (1)", "nowhere"),
        ("SELECT 'open", "line 1, column 8"),
        ("SELECT no_such_function(1)", "no_such_function"),
    ] {
        let error = query_refused(&engine, sql).await;
        assert_code(&error, Code::Sql, sql);
        assert!(error.message.contains(word), "{sql}: {error}");
    }
}

/// As many as there are placeholders.
pub async fn arguments_must_fit(engine: Arc<dyn Engine>) {
    for args in [&[][..], &[Value::from(1), Value::from(2)]] {
        let error = query(&engine, "SELECT ?1", args).await.unwrap_err();
        assert_code(&error, Code::Sql, "arguments");
        assert!(error.message.contains("takes 1 argument;"), "{error}");
    }
    let result =
        query(&engine, "SELECT :a, ?, @b", &[Value::from(1), Value::from(2), Value::from(3)])
            .await
            .unwrap();
    assert_eq!(result.rows[0].values, [Value::from(1), Value::from(2), Value::from(3)]);
}

/// Not two, and not none.
pub async fn one_statement_in_a_query(engine: Arc<dyn Engine>) {
    for sql in [
        "SELECT 1; SELECT 2",
        "CREATE TABLE t(a); DROP TABLE t",
        "INSERT INTO x VALUES (1); -- a\n SELECT 1",
    ] {
        let error = query_refused(&engine, sql).await;
        assert!(matches!(error.code, Code::StatementNotAllowed | Code::Sql), "{sql}: {error}");
    }
    for sql in ["", " ", ";", " ; -- x\n", "/* nothing */", "-- nothing"] {
        assert_code(&query_refused(&engine, sql).await, Code::InvalidArgument, sql);
    }
    query_ok(&engine, "SELECT 1;").await;
    query_ok(&engine, " ; SELECT 1 ; -- done\n ;").await;
}

/// Nothing of a transaction stays when one of its statements fails.
pub async fn lesson_20_a_transaction_is_atomic(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a UNIQUE)").await;
    let insert = "INSERT INTO t VALUES (1)";
    for bad in [
        "BAD",
        "INSERT INTO nowhere VALUES (1)",
        insert,
        "INSERT OR FAIL INTO t VALUES (7), (8), (1)",
        "ATTACH 'x' AS y",
    ] {
        let error = transaction(&engine, &["CREATE TABLE u(a)", insert, bad]).await.unwrap_err();
        assert_eq!(error.statement, Some(2), "{bad}: {error}");
        assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 0, "{bad}");
        assert_code(&query_refused(&engine, "SELECT * FROM u").await, Code::Sql, bad);
    }
    let results =
        transaction(&engine, &[insert, "SELECT count(*) FROM t", "DELETE FROM t"]).await.unwrap();
    assert_eq!(results[0].rows_affected, Some(1));
    assert_eq!(single_value(&results[1]), Value::from(1));
    assert!(results[1].rows_affected.is_none() && results[2].rows_affected == Some(1));
    let empty = engine.transaction(&database("app"), Vec::new(), options()).await.unwrap_err();
    assert_code(&empty, Code::InvalidArgument, "an empty transaction");
    assert_code(
        &query_refused(&engine, "INSERT OR FAIL INTO t VALUES (7), (8), (7)").await,
        Code::Constraint,
        "or fail",
    );
    assert_eq!(
        query_integer(&engine, "SELECT count(*) FROM t").await,
        0,
        "OR FAIL left rows behind its error"
    );
}

/// Many at once: each sees all or nothing of the others.
pub async fn transactions_do_not_mix(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE account(id INTEGER PRIMARY KEY, n)").await;
    query_ok(&engine, "INSERT INTO account VALUES (1, 1000), (2, 0)").await;
    let tasks: Vec<_> = (0..32)
        .map(|index| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                for _ in 0..8 {
                    let take = statement(
                        "UPDATE account SET n = n - ?1 WHERE id = 1",
                        &[Value::from(index)],
                    );
                    let look = Statement::from("SELECT sum(n) FROM account");
                    let give = statement(
                        "UPDATE account SET n = n + ?1 WHERE id = 2",
                        &[Value::from(index)],
                    );
                    let fail = if index % 4 == 0 { "BAD" } else { "SELECT 1" };
                    let all = vec![take, look, give, Statement::from(fail)];
                    match engine.transaction(&database("app"), all, options()).await {
                        Ok(written) => {
                            let left = 1000 - i64::from(index);
                            assert_eq!(single_value(&written.value[1]), Value::from(left));
                        }
                        Err(error) => {
                            assert_eq!((index % 4, error.statement), (0, Some(3)), "{error}")
                        }
                    }
                    let sum = query(&engine, "SELECT sum(n) FROM account", &[]).await.unwrap();
                    assert_eq!(single_value(&sum), Value::from(1000));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// What a constraint refuses is `constraint`, in SQLite's words.
pub async fn constraints_are_named(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a UNIQUE, b NOT NULL DEFAULT 0, c CHECK (c > 0))").await;
    query_ok(&engine, "INSERT INTO t(a) VALUES (1)").await;
    for (sql, word) in [
        ("INSERT INTO t(a) VALUES (1)", "UNIQUE constraint failed: t.a"),
        ("INSERT INTO t(b) VALUES (NULL)", "NOT NULL constraint failed: t.b"),
        ("INSERT INTO t(c) VALUES (0)", "CHECK constraint failed"),
    ] {
        let error = query_refused(&engine, sql).await;
        assert_code(&error, Code::Constraint, sql);
        assert!(error.message.contains(word), "{sql}: {error}");
    }
}

/// Always on.
pub async fn foreign_keys_are_enforced(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE p(id INTEGER PRIMARY KEY)").await;
    query_ok(&engine, "CREATE TABLE c(p REFERENCES p(id) ON DELETE CASCADE)").await;
    assert_code(
        &query_refused(&engine, "INSERT INTO c VALUES (1)").await,
        Code::Constraint,
        "foreign key",
    );
    transaction(&engine, &["INSERT INTO p VALUES (1)", "INSERT INTO c VALUES (1)"]).await.unwrap();
    query_ok(&engine, "DELETE FROM p").await;
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM c").await, 0);
}

/// A deferred key is checked at the end of its own transaction, and fails only that.
pub async fn deferred_foreign_keys_hurt_nobody_else(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE p(id INTEGER PRIMARY KEY)").await;
    query_ok(&engine, "CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)").await;
    transaction(&engine, &["INSERT INTO c VALUES (1)", "INSERT INTO p VALUES (1)"]).await.unwrap();
    query_ok(&engine, "CREATE TABLE other(a)").await;
    let bad = spawn_all(&engine, 10, "INSERT INTO c VALUES (99)");
    let good = spawn_all(&engine, 30, "INSERT INTO other VALUES (1)");
    for outcome in bad {
        assert_code(&outcome.await.unwrap().unwrap_err(), Code::Constraint, "deferred");
    }
    for outcome in good {
        outcome.await.unwrap().unwrap();
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM other").await, 30);
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM c").await, 1);
}

fn spawn_all(
    engine: &Arc<dyn Engine>,
    count: usize,
    sql: &'static str,
) -> Vec<tokio::task::JoinHandle<Result<(), Error>>> {
    (0..count)
        .map(|_| {
            let engine = Arc::clone(engine);
            tokio::spawn(async move { query(&engine, sql, &[]).await.map(|_| ()) })
        })
        .collect()
}

/// The next read knows the new table, the new column, and the dropped one.
pub async fn a_schema_change_is_seen_at_once(engine: Arc<dyn Engine>) {
    for round in 0..20 {
        assert_code(&query_refused(&engine, "SELECT * FROM t").await, Code::Sql, "before");
        query_ok(&engine, "CREATE TABLE t(a)").await;
        assert_eq!(query_ok(&engine, "SELECT * FROM t").await.columns, ["a"], "round {round}");
        query_ok(&engine, "INSERT INTO t VALUES (1)").await;
        query_ok(&engine, "ALTER TABLE t ADD COLUMN b DEFAULT 2").await;
        let result = query_ok(&engine, "SELECT * FROM t").await;
        assert_eq!((result.columns.len(), result.rows[0].values.len()), (2, 2), "round {round}");
        query_ok(&engine, "DROP TABLE t").await;
    }
}

/// Semicolons inside of strings and trigger bodies end no statement.
pub async fn lesson_36_semicolons_in_texts_and_triggers(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a TEXT DEFAULT ';')").await;
    query_ok(
        &engine,
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET a = a || ';'; DELETE FROM t WHERE a = ''; END;",
    )
    .await;
    query_ok(&engine, "INSERT INTO t VALUES ('a;b'); -- ;").await;
    assert_eq!(single_value(&query_ok(&engine, "SELECT a FROM t").await), Value::from("a;b;"));
}

/// What SQLite brings along.
pub async fn extensions_work(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE VIRTUAL TABLE docs USING fts5(body)").await;
    query_ok(&engine, "INSERT INTO docs VALUES ('the quick fox'), ('lazy dog')").await;
    assert_eq!(
        query_integer(&engine, "SELECT count(*) FROM docs WHERE docs MATCH 'quick'").await,
        1
    );
    query_ok(&engine, "CREATE TABLE src(id INTEGER PRIMARY KEY, body)").await;
    query_ok(
        &engine,
        "CREATE VIRTUAL TABLE idx USING fts5(body, content='src', content_rowid='id')",
    )
    .await;
    query_ok(
        &engine,
        "CREATE TRIGGER src_in AFTER INSERT ON src BEGIN INSERT INTO idx(rowid, body) VALUES (new.id, new.body); END",
    )
    .await;
    query_ok(&engine, "INSERT INTO src(body) VALUES ('found')").await;
    assert_eq!(query_integer(&engine, "SELECT rowid FROM idx WHERE idx MATCH 'found'").await, 1);
    query_ok(&engine, "CREATE VIRTUAL TABLE box USING rtree(id, x0, x1)").await;
    query_ok(&engine, "INSERT INTO box VALUES (1, 0, 2)").await;
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM box WHERE x1 > 1").await, 1);
    assert_eq!(query_integer(&engine, "SELECT sum(value) FROM json_each('[1,2,3]')").await, 6);
    let windows = "SELECT sum(n) OVER (ORDER BY n) AS s FROM (VALUES (1), (2)) AS v(n) ORDER BY s DESC LIMIT 1";
    assert_code(
        &query_refused(&engine, windows).await,
        Code::Sql,
        "SQLite names no columns of VALUES",
    );
    assert_eq!(
        query_integer(&engine, "SELECT row_number() OVER (ORDER BY value) FROM json_each('[5]')")
            .await,
        1
    );
    query_ok(&engine, "CREATE TABLE g(a INTEGER, b INTEGER AS (a * 2) STORED) STRICT").await;
    query_ok(&engine, "INSERT INTO g VALUES (21)").await;
    assert_eq!(query_integer(&engine, "SELECT b FROM g").await, 42);
    query_ok(&engine, "CREATE VIEW w AS SELECT b FROM g").await;
    assert_eq!(
        query_integer(
            &engine,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT max(i) FROM n, w"
        )
        .await,
        9
    );
}
