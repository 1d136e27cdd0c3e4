//! A namespace is a database of its own: by name, by word, by time, and as a thing that can be
//! looked at and deleted.

use super::{
    assert_code, database, expect_new_write, key, keyed_options, keyed_options_in, namespace,
    no_condition, options, query, query_integer, query_ok, query_refused, single_value,
    transaction,
};
use crate::{Engine, NamespaceFilter, TargetDatabase};
use bytes::Bytes;
use debros_proto::rpc::{Statement, StatementResult, Value};
use debros_proto::{Code, Error};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

async fn query_in(
    engine: &Arc<dyn Engine>,
    name: &str,
    sql: &str,
) -> Result<StatementResult, Error> {
    engine
        .query(&database(name), Statement::from(sql), options())
        .await
        .map(|written| written.value)
}

fn text_values(result: &StatementResult) -> Vec<String> {
    let values = result.rows.iter().flat_map(|row| &row.values);
    values
        .map(|value| value.as_text().unwrap_or_else(|| panic!("no text: {value:?}")).to_owned())
        .collect()
}

/// Tables, indexes, views, triggers and full-text tables of the same names, with rows of each one's
/// own.
pub async fn two_namespaces_share_names_and_nothing_else(engine: Arc<dyn Engine>) {
    for name in ["app", "app2", "ap"] {
        for sql in [
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT UNIQUE)",
            "CREATE INDEX i ON t(a)",
            "CREATE TABLE log(a)",
            "CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a); END",
            "CREATE VIEW v AS SELECT a FROM t",
            "CREATE VIRTUAL TABLE docs USING fts5(a)",
        ] {
            query_in(&engine, name, sql)
                .await
                .unwrap_or_else(|error| panic!("{name}: {sql}: {error}"));
        }
        for sql in [
            format!("INSERT INTO t(a) VALUES ('{name}')"),
            format!("INSERT INTO docs VALUES ('{name}')"),
        ] {
            assert_eq!(
                query_in(&engine, name, &sql).await.unwrap().last_insert_id,
                Some(1),
                "{name}: {sql}"
            );
        }
    }
    for name in ["app", "app2", "ap"] {
        let (own, matches) = (
            [name.to_owned()],
            format!("SELECT a FROM docs WHERE docs MATCH '{name}' AND docs.a = '{name}'"),
        );
        for sql in [
            "SELECT a FROM t",
            "SELECT a FROM log",
            "SELECT v.a FROM v",
            "SELECT a FROM docs",
            &matches,
        ] {
            assert_eq!(
                text_values(&query_in(&engine, name, sql).await.unwrap()),
                own,
                "{name}: {sql}"
            );
        }
        let sequence = query_in(&engine, name, "SELECT name FROM sqlite_sequence").await.unwrap();
        assert_eq!(text_values(&sequence), ["t"]);
    }
    query_in(&engine, "app2", "DROP TABLE t").await.unwrap();
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 1);
    let gone = query_in(&engine, "app2", "SELECT * FROM t").await.unwrap_err();
    assert_code(&gone, Code::Sql, "a dropped table");
}

/// Every way to write another namespace's name, and the system's.
pub async fn nobody_is_reached_by_a_full_name(engine: Arc<dyn Engine>) {
    query_in(&engine, "other", "CREATE TABLE secret(a)").await.unwrap();
    query_in(&engine, "other", "INSERT INTO secret VALUES ('marked')").await.unwrap();
    query_ok(&engine, "CREATE TABLE t(a)").await;
    for name in [
        "\"ns::other::secret\"",
        "[ns::other::secret]",
        "`ns::other::secret`",
        "'ns::other::secret'",
    ] {
        for sql in [
            format!("SELECT * FROM {name}"),
            format!("SELECT a FROM main.{name}"),
            format!("SELECT (SELECT a FROM {name})"),
            format!("WITH x AS (SELECT * FROM {name}) SELECT * FROM x"),
            format!("INSERT INTO t SELECT a FROM {name}"),
            format!("UPDATE t SET a = x.a FROM {name} AS x"),
            format!("DELETE FROM {name}"),
            format!("DROP TABLE {name}"),
            format!("CREATE INDEX {name} ON t(a)"),
            format!("CREATE TRIGGER r AFTER INSERT ON {name} BEGIN SELECT 1; END"),
            format!("ALTER TABLE t RENAME TO {name}"),
            format!("EXPLAIN SELECT * FROM {name}"),
            format!("SELECT 1 FROM t WHERE a IN {name}"),
        ] {
            let error = query_refused(&engine, &sql).await;
            assert!(matches!(error.code, Code::Sql | Code::StatementNotAllowed), "{sql}: {error}");
            assert!(!error.message.contains("marked"), "{sql}: {error}");
        }
        for sql in [
            format!(
                "SELECT count(*) FROM pragma_table_info({})",
                name.replace(['"', '[', ']', '`'], "'")
            ),
            format!(
                "SELECT count(*) FROM sqlite_master WHERE name = {}",
                name.replace(['"', '[', ']', '`'], "'")
            ),
        ] {
            assert_eq!(query_integer(&engine, &sql).await, 0, "{sql}");
        }
    }
    for sql in [
        "CREATE VIEW spy AS SELECT a FROM \"ns::other::secret\"",
        "CREATE TRIGGER spy AFTER INSERT ON t BEGIN DELETE FROM \"ns::other::secret\"; END",
        "CREATE VIRTUAL TABLE spy USING fts5(a, content='ns::other::secret')",
    ] {
        // A name of a thing that is not there may stand in a view.
        let _ = query(&engine, sql, &[]).await;
        for look in ["SELECT * FROM spy", "SELECT a FROM spy('marked')"] {
            if let Ok(found) = query(&engine, look, &[]).await {
                assert!(found.rows.is_empty(), "{sql}: {found:?}");
            }
        }
        let _ = query(&engine, "INSERT INTO t VALUES (1)", &[]).await;
        for kind in ["VIEW", "TRIGGER", "TABLE"] {
            let _ = query(&engine, &format!("DROP {kind} IF EXISTS spy"), &[]).await;
        }
    }
    assert_eq!(
        text_values(&query_in(&engine, "other", "SELECT a FROM secret").await.unwrap()),
        ["marked"]
    );
}

/// `sqlite_master` and the PRAGMAs give the words that the user gave.
pub async fn the_schema_is_in_the_users_words(engine: Arc<dyn Engine>) {
    let sql = [
        "CREATE TABLE Users (\n  id INTEGER PRIMARY KEY, -- the key\n  name TEXT UNIQUE DEFAULT 'x' CHECK (length(name) < 9)\n)",
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, user_id REFERENCES Users(id))",
        "CREATE INDEX by_name ON Users(lower(name))",
        "CREATE VIEW v AS SELECT Users.name FROM Users",
        "CREATE TRIGGER r AFTER INSERT ON Users BEGIN UPDATE Users SET name = new.name WHERE Users.id = new.id; END",
    ];
    for sql in sql {
        query_ok(&engine, sql).await;
    }
    let kept =
        query_ok(&engine, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
            .await;
    assert_eq!(text_values(&kept), sql);
    let names = query_ok(&engine, "SELECT name FROM sqlite_schema ORDER BY name").await;
    assert_eq!(
        text_values(&names),
        ["Users", "by_name", "orders", "r", "sqlite_autoindex_Users_1", "v"]
    );
    let parent = query_ok(&engine, "SELECT \"table\" FROM pragma_foreign_key_list('orders')").await;
    assert_eq!(text_values(&parent), ["Users"]);
    let plan = query_ok(&engine, "EXPLAIN QUERY PLAN SELECT * FROM Users WHERE name = 'x'").await;
    let reported = format!("{plan:?}");
    assert!(
        reported.contains("sqlite_autoindex_Users_1") && !reported.contains("ns::"),
        "{reported}"
    );
    let columns =
        query_ok(&engine, "SELECT Users.name, count( * ), Users.id+1 FROM Users").await.columns;
    assert_eq!(columns, ["name", "count( * )", "Users.id+1"]);
}

/// What the database says of a name, it says of the user's.
pub async fn errors_speak_the_users_names(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a UNIQUE, b NOT NULL, c CHECK (c > 0), d REFERENCES p(id))")
        .await;
    query_ok(&engine, "CREATE TABLE p(id INTEGER PRIMARY KEY)").await;
    query_ok(&engine, "INSERT INTO t(a, b) VALUES (1, 1)").await;
    query_ok(&engine, "CREATE TABLE strict(i INTEGER) STRICT").await;
    query_ok(&engine, "CREATE VIEW broken AS SELECT a FROM nowhere").await;
    for (sql, message) in [
        ("INSERT INTO t(a, b) VALUES (1, 1)", "UNIQUE constraint failed: t.a"),
        ("INSERT INTO t(a) VALUES (2)", "NOT NULL constraint failed: t.b"),
        ("INSERT INTO t(b, c) VALUES (2, 0)", "CHECK constraint failed: c > 0"),
        ("INSERT INTO strict VALUES ('x')", "cannot store TEXT value in INTEGER column strict.i"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("SELECT t.x FROM t", "no such column: t.x"),
        ("CREATE TABLE t(a)", "table t already exists"),
        ("DROP INDEX absent", "no such index: absent"),
        ("INSERT INTO t VALUES (1)", "table t has 4 columns but 1 values were supplied"),
        ("DROP VIEW t", "use DROP TABLE to delete table t"),
        ("SELECT * FROM broken", "nowhere"),
    ] {
        let error = query_refused(&engine, sql).await;
        assert!(error.message.contains(message), "{sql}: {error}");
        assert!(!error.message.contains("ns::"), "{sql}: {error}");
        let error = transaction(&engine, &["SELECT 1", sql]).await.unwrap_err();
        assert!(error.message.contains(message) && error.statement == Some(1), "{sql}: {error}");
    }
    let error = query_refused(&engine, "SELECT a,\n  b FORM t").await;
    assert!(error.message.contains("line 2"), "{error}");
}

/// Time and randomness are given a value once, where the call comes in: what is stored is stored
/// alike everywhere.
pub async fn values_of_the_moment_are_given_once(engine: Arc<dyn Engine>) {
    query_ok(
        &engine,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, at TEXT DEFAULT CURRENT_TIMESTAMP, now TEXT DEFAULT (strftime('%f', 'now')))",
    )
    .await;
    query_ok(&engine, "CREATE TABLE log(at TEXT)").await;
    query_ok(&engine, "CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO log VALUES (strftime('%f', 'now')); END")
        .await;
    let inserts = [
        "INSERT INTO t(id) VALUES (1)",
        "INSERT INTO t DEFAULT VALUES",
        "INSERT INTO t(id) SELECT 3",
    ];
    transaction(&engine, &inserts).await.unwrap();
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t WHERE length(at) = 19").await, 3);
    assert_eq!(
        query_integer(&engine, "SELECT count(DISTINCT now) FROM t").await,
        1,
        "one transaction has one time"
    );
    assert_eq!(
        query_integer(&engine, "SELECT count(*) FROM log WHERE at = (SELECT now FROM t)").await,
        3,
        "triggers too"
    );
    // Outside of the write nothing of it is left.
    let apart = "SELECT abs(julianday('now') - julianday(at)) < 0.01 FROM t LIMIT 1";
    assert_eq!(query_integer(&engine, apart).await, 1);
    query_ok(&engine, "CREATE TABLE n(r INTEGER, b BLOB)").await;
    for _ in 0..20 {
        query_ok(&engine, "INSERT INTO n VALUES (random(), randomblob(8))").await;
    }
    assert_eq!(
        query_integer(&engine, "SELECT count(DISTINCT r) + count(DISTINCT b) FROM n").await,
        40
    );
    // A failed one leaves no time behind for the others of its group.
    query_ok(&engine, "CREATE TRIGGER no BEFORE INSERT ON t WHEN new.id = 9 BEGIN SELECT RAISE(ABORT, 'it is refused'), datetime('now'); END")
        .await;
    assert_code(
        &query_refused(&engine, "INSERT INTO t(id) VALUES (9)").await,
        Code::Constraint,
        "the trigger",
    );
    let second = query_ok(&engine, "INSERT INTO t(id) VALUES (10) RETURNING now").await;
    assert_eq!(second.rows.len(), 1);
    assert_eq!(
        query_integer(&engine, "SELECT count(*) FROM log JOIN t ON t.now = log.at WHERE t.id = 10")
            .await,
        1,
        "the time is that of the call"
    );
}

/// `last_insert_rowid()`, `changes()` and `total_changes()` report on the own transaction and of
/// nobody else.
pub async fn counters_tell_nothing_of_others(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_in(&engine, "other", "CREATE TABLE t(a)").await.unwrap();
    query_ok(&engine, "INSERT INTO t VALUES (1), (2), (3)").await;
    for name in ["app", "other"] {
        for sql in ["SELECT last_insert_rowid()", "SELECT changes()"] {
            assert_eq!(
                single_value(&query_in(&engine, name, sql).await.unwrap()),
                Value::from(0),
                "{name}: {sql}"
            );
        }
        if let Ok(total) = query_in(&engine, name, "SELECT total_changes()").await {
            assert_eq!(single_value(&total), Value::from(0), "{name}");
        }
    }
    let results = transaction(
        &engine,
        &[
            "SELECT last_insert_rowid() + changes()",
            "INSERT INTO t VALUES (4), (5)",
            "SELECT last_insert_rowid() * 100 + changes()",
            "INSERT INTO t VALUES (last_insert_rowid())",
            "UPDATE t SET a = 0 WHERE a < 4",
            "SELECT changes()",
        ],
    )
    .await
    .unwrap();
    let read = |index: usize| single_value(&results[index]);
    assert_eq!((read(0), read(2), read(5)), (Value::from(0), Value::from(502), Value::from(3)));
    assert_eq!(query_integer(&engine, "SELECT max(a) FROM t").await, 5);
}

/// Statements of a transaction see what those before them made of the schema; when it fails, nobody
/// ever does.
pub async fn definitions_belong_to_their_transaction(engine: Arc<dyn Engine>) {
    let results = transaction(
        &engine,
        &[
            "CREATE TABLE t(a)",
            "INSERT INTO t VALUES (1)",
            "ALTER TABLE t ADD COLUMN b DEFAULT 2",
            "SELECT * FROM t",
            "ALTER TABLE t RENAME TO u",
            "ALTER TABLE u RENAME COLUMN b TO c",
            "SELECT name FROM sqlite_master",
            "SELECT c FROM u",
        ],
    )
    .await
    .unwrap();
    assert_eq!(results[3].columns, ["a", "b"]);
    assert_eq!(
        (text_values(&results[6]), single_value(&results[7])),
        (vec!["u".to_owned()], Value::from(2))
    );
    for bad in ["BAD", "INSERT INTO nowhere VALUES (1)", "SELECT b FROM u", "CREATE TABLE u(a)"] {
        let inside = [
            "CREATE TABLE x(a)",
            "ALTER TABLE u ADD COLUMN d",
            "DROP TABLE u",
            "CREATE TABLE u(z)",
            bad,
        ];
        let error = transaction(&engine, &inside).await.unwrap_err();
        assert_eq!(error.statement, Some(4), "{bad}: {error}");
        assert_eq!(
            text_values(&query_ok(&engine, "SELECT name FROM sqlite_master").await),
            ["u"],
            "{bad}"
        );
        assert_eq!(query_ok(&engine, "SELECT * FROM u").await.columns, ["a", "c"], "{bad}");
        assert_code(&query_refused(&engine, "SELECT * FROM x").await, Code::Sql, bad);
    }
    assert_eq!(engine.schema(&namespace("app"), options()).await.unwrap().len(), 1);
    // What is there already changes nothing.
    for _ in 0..3 {
        query_ok(&engine, "CREATE TABLE IF NOT EXISTS u(other, columns)").await;
        query_ok(&engine, "DROP TABLE IF EXISTS absent").await;
    }
    assert_eq!(query_ok(&engine, "SELECT * FROM u").await.columns, ["a", "c"]);
}

/// Many at once, of which a part fails: each one's schema is there exactly when its answer says so.
pub async fn definitions_of_many_callers_do_not_mix(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE p(id INTEGER PRIMARY KEY)").await;
    query_ok(&engine, "CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)").await;
    let tasks: Vec<_> = (0..60)
        .map(|index| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let (create, insert) = (
                    format!("CREATE TABLE t{index}(a)"),
                    format!("INSERT INTO t{index} VALUES ({index})"),
                );
                let last = match index % 4 {
                    0 => "SELECT 1",
                    1 => "BAD",
                    2 => "INSERT OR ROLLBACK INTO p VALUES (1), (1)",
                    _ => "INSERT INTO c VALUES (99)",
                };
                let made = transaction(&engine, &[&create, &insert, last]).await;
                assert_eq!(made.is_ok(), index % 4 == 0, "{index}: {made:?}");
                let found = query(&engine, &format!("SELECT a FROM t{index}"), &[]).await;
                assert_eq!(found.is_ok(), made.is_ok(), "{index}: {found:?}");
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM sqlite_master").await, 17);
    assert_eq!(engine.schema(&namespace("app"), options()).await.unwrap().len(), 17);
}

/// A read while the schema changes sees the one or the other, never the names of one over the rows
/// of the other.
pub async fn readers_see_one_schema_or_the_other(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a, b)").await;
    query_ok(&engine, "INSERT INTO t VALUES ('a', 'b')").await;
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (engine, done) = (Arc::clone(&engine), Arc::clone(&done));
            tokio::spawn(async move {
                while !done.load(SeqCst) {
                    let found = query_ok(&engine, "SELECT * FROM t").await;
                    assert_eq!(text_values(&found), found.columns);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for _ in 0..20 {
        let swap = ["DROP TABLE t", "CREATE TABLE t(b, a)", "INSERT INTO t VALUES ('b', 'a')"];
        transaction(&engine, &swap).await.unwrap();
        let grow = ["ALTER TABLE t ADD COLUMN c DEFAULT 'c'"];
        transaction(&engine, &grow).await.unwrap();
        let back = ["DROP TABLE t", "CREATE TABLE t(a, b)", "INSERT INTO t VALUES ('a', 'b')"];
        transaction(&engine, &back).await.unwrap();
    }
    done.store(true, SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
}

/// A read that takes longer than a change of the schema is answered while they come back to back.
pub async fn a_long_read_outlasts_schema_changes(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a, b)").await;
    query_ok(&engine, "INSERT INTO t VALUES ('a', 'b')").await;
    let reading = Arc::clone(&engine);
    let read = tokio::spawn(async move {
        let slow = "SELECT t.* FROM t, (WITH RECURSIVE n(i) AS \
                    (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) \
                    SELECT count(*) AS c FROM n) WHERE c > 0";
        for _ in 0..5 {
            let found = query_ok(&reading, slow).await;
            assert_eq!(text_values(&found), found.columns);
        }
    });
    let mut changes = 0;
    while !read.is_finished() {
        for columns in ["b, a", "a, b"] {
            let values = columns.replace('a', "'a'").replace('b', "'b'");
            let change = [
                "DROP TABLE t".to_owned(),
                format!("CREATE TABLE t({columns})"),
                format!("INSERT INTO t VALUES ({values})"),
            ];
            transaction(&engine, &change.each_ref().map(String::as_str)).await.unwrap();
            changes += 1;
        }
    }
    read.await.unwrap();
    assert!(changes > 0, "nothing changed while it was read");
}

fn no_filter() -> NamespaceFilter {
    NamespaceFilter { prefix: String::new(), after: None, limit: 100 }
}

async fn list_names(engine: &Arc<dyn Engine>, filter: NamespaceFilter) -> Vec<String> {
    let found = engine.namespaces(filter, options()).await.unwrap();
    found.iter().map(ToString::to_string).collect()
}

/// Made by the first use, listed in order, shown with what they hold; a look makes nothing.
pub async fn namespaces_are_listed_and_described(engine: Arc<dyn Engine>) {
    assert_eq!(list_names(&engine, no_filter()).await, [""; 0]);
    let nothing = engine.namespace_info(&namespace("app"), options()).await.unwrap();
    assert_eq!(
        (nothing.created_at, nothing.tables, nothing.kv_keys, nothing.sql_bytes),
        (None, 0, 0, 0)
    );
    assert_eq!(list_names(&engine, no_filter()).await, [""; 0], "a look made something");
    for name in ["app", "b2", "b1"] {
        query_in(&engine, name, "CREATE TABLE t(a)").await.unwrap();
    }
    let named = Statement::from("INSERT INTO namespaces (name, created_at) VALUES ('written', 77)");
    engine.query(&TargetDatabase::System, named, options()).await.unwrap();
    for index in 0..3 {
        let (name, value) = (key(&format!("k{index}")), Bytes::from_static(&[0; 98]));
        engine
            .kv_put(&namespace("b-keys"), &name, value, no_condition(), None, options())
            .await
            .map(expect_new_write)
            .unwrap();
    }
    assert_eq!(list_names(&engine, no_filter()).await, ["app", "b-keys", "b1", "b2", "written"]);
    let filter =
        NamespaceFilter { prefix: "b".to_owned(), after: Some(namespace("b-keys")), limit: 1 };
    assert_eq!(list_names(&engine, filter).await, ["b1"]);
    let filter = NamespaceFilter { prefix: "b1".to_owned(), ..no_filter() };
    assert_eq!(list_names(&engine, filter).await, ["b1"]);

    query_ok(&engine, "INSERT INTO t VALUES (1), (2)").await;
    query_ok(&engine, "CREATE TABLE u(a)").await;
    query_ok(&engine, "CREATE VIEW v AS SELECT * FROM t").await;
    let app = engine.namespace_info(&namespace("app"), options()).await.unwrap();
    assert_eq!((app.tables, app.rows, app.rows_are_exact, app.kv_keys), (2, 2, true, 0));
    assert!(
        app.sql_bytes > 0 && app.created_at.is_some_and(|at| at > 1_600_000_000_000),
        "{app:?}"
    );
    let keys = engine.namespace_info(&namespace("b-keys"), options()).await.unwrap();
    assert_eq!((keys.kv_keys, keys.kv_bytes, keys.tables, keys.created_at), (3, 300, 0, None));
    let written = engine.namespace_info(&namespace("written"), options()).await.unwrap();
    assert_eq!(written.created_at, Some(77));
}

/// Everything goes, the neighbour's stays, and what comes after begins empty.
pub async fn a_deleted_namespace_is_as_one_never_used(engine: Arc<dyn Engine>) {
    for name in ["app", "app2"] {
        let create = Statement::from("CREATE TABLE t(a)");
        engine.query(&database(name), create, keyed_options_in(name, "sql", 1)).await.unwrap();
        query_in(&engine, name, "INSERT INTO t VALUES (1)").await.unwrap();
        let (owner, value) = (namespace(name), Bytes::from("x"));
        engine
            .kv_put(&owner, &key("k"), value, no_condition(), None, keyed_options_in(name, "kv", 1))
            .await
            .map(expect_new_write)
            .unwrap();
    }
    let version =
        engine.kv_get(&namespace("app"), &key("k"), options()).await.unwrap().unwrap().version;
    let note = "INSERT INTO audit_events (at, kind, namespace) VALUES (1, 'deleted', 'app')";
    let bad = vec![Statement::from(note), Statement::from("DELETE FROM nowhere")];
    let error =
        engine.delete_namespace(&namespace("app"), bad, options().deadline).await.unwrap_err();
    assert_code(&error, Code::Sql, "a statement that belongs to it");
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 1, "something was deleted");

    engine
        .delete_namespace(&namespace("app"), vec![Statement::from(note)], options().deadline)
        .await
        .unwrap();
    let noted = Statement::from("SELECT count(*) FROM audit_events");
    let noted = engine.query(&TargetDatabase::System, noted, options()).await.unwrap();
    assert_eq!(single_value(&noted.value), Value::from(1));
    assert_eq!(list_names(&engine, no_filter()).await, ["app2"]);
    assert_eq!(engine.kv_get(&namespace("app"), &key("k"), options()).await.unwrap(), None);
    assert_code(&query_refused(&engine, "SELECT * FROM t").await, Code::Sql, "a deleted table");
    // The kept answers went too.
    let again = Statement::from("CREATE TABLE t(b)");
    assert!(
        !engine.query(&database("app"), again, keyed_options("sql", 2)).await.unwrap().replayed
    );
    let put = engine
        .kv_put(
            &namespace("app"),
            &key("k"),
            Bytes::from("y"),
            no_condition(),
            None,
            keyed_options("kv", 2),
        )
        .await;
    assert!(put.map(expect_new_write).unwrap() > version);
    assert_eq!(query_ok(&engine, "SELECT * FROM t").await.columns, ["b"]);

    assert_eq!(
        single_value(&query_in(&engine, "app2", "SELECT a FROM t").await.unwrap()),
        Value::from(1)
    );
    assert!(engine.kv_exists(&namespace("app2"), &key("k"), options()).await.unwrap());
    // Of one that was never used, nothing is to do.
    engine.delete_namespace(&namespace("never"), Vec::new(), options().deadline).await.unwrap();
}

/// What is acknowledged beside a deletion is there after it, or went with it; nobody hangs.
pub async fn writes_beside_a_deletion_are_refused_or_kept(engine: Arc<dyn Engine>) {
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|task| {
            let (engine, done) = (Arc::clone(&engine), Arc::clone(&done));
            tokio::spawn(async move {
                while !done.load(SeqCst) {
                    let both = ["CREATE TABLE IF NOT EXISTS t(a)", "INSERT INTO t VALUES (1)"];
                    if let Err(error) = transaction(&engine, &both).await {
                        assert!(error.code.is_safe_to_retry(), "{error}");
                    }
                    let (name, app) = (key(&format!("k{task}")), namespace("app"));
                    if let Err(error) = engine
                        .kv_put(&app, &name, Bytes::new(), no_condition(), None, options())
                        .await
                    {
                        assert!(error.code.is_safe_to_retry(), "{error}");
                    }
                    if let Err(error) = query(&engine, "SELECT count(*) FROM t", &[]).await {
                        assert!(
                            error.code == Code::Sql || error.code.is_safe_to_retry(),
                            "{error}"
                        );
                    }
                }
            })
        })
        .collect();
    for _ in 0..10 {
        engine.delete_namespace(&namespace("app"), Vec::new(), options().deadline).await.unwrap();
        tokio::task::yield_now().await;
    }
    done.store(true, SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let last = [
        "CREATE TABLE IF NOT EXISTS t(a)",
        "INSERT INTO t VALUES (2)",
        "SELECT count(*) FROM t WHERE a = 2",
    ];
    let results = transaction(&engine, &last).await.unwrap();
    assert_eq!(single_value(&results[2]), Value::from(1));
}
