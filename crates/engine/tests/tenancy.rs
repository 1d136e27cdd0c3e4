//! Namespaces of the embedded engine: their files, of this form and of others, their limits, and
//! their end.

use bytes::Bytes;
use debros_engine::conformance::{
    database, key, keyed_options, namespace, no_condition, options, query, query_integer, query_ok,
    query_refused, single_value, transaction,
};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_engine::{Engine, NamespaceFilter, TargetDatabase};
use debros_proto::rpc::{Statement, TransactionRequest, Value};
use debros_proto::{Code, Error};
use prost::Message as _;
use rusqlite::Connection;
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn open(path: &Path) -> Arc<dyn Engine> {
    open_with(EmbeddedConfig::new(path))
}

fn open_with(config: EmbeddedConfig) -> Arc<dyn Engine> {
    Arc::new(EmbeddedEngine::open(config).unwrap_or_else(|error| panic!("{error}")))
}

/// What SQLite accepted once, and what it would not accept in another order or a second time.
#[tokio::test]
async fn every_schema_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    for sql in [
        "CREATE TABLE r_data(x)",
        "CREATE INDEX i ON r_data(x)",
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
        "CREATE TABLE r_config(x)",
        "CREATE VIEW v AS SELECT 'one' AS a",
        "CREATE VIRTUAL TABLE over_view USING fts4(content=\"v\")",
        "CREATE TABLE t(a)",
        "CREATE VIRTUAL TABLE over_gone USING fts4(content=\"t\")",
        "DROP TABLE t",
        "DROP VIEW v",
        "CREATE VIEW v AS SELECT 'one' AS a",
        "CREATE TABLE numbered(id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "DROP TABLE numbered",
    ] {
        query_ok(&engine, sql).await;
    }
    let schema = "SELECT rowid, type, name, tbl_name, sql FROM sqlite_schema";
    let before = query_ok(&engine, schema).await.rows;
    engine.close().await;
    let engine = open(folder.path());
    assert_eq!(query_ok(&engine, schema).await.rows, before);
    query_ok(&engine, "INSERT INTO r_data VALUES (1)").await;
    query_ok(&engine, "INSERT INTO r_config VALUES (1)").await;
    query_ok(&engine, "INSERT INTO r VALUES (1, 2, 3)").await;
    query_ok(&engine, "EXPLAIN QUERY PLAN SELECT a FROM over_view").await;
    assert_eq!(query_refused(&engine, "SELECT * FROM over_gone").await.code, Code::Sql);
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_ok(&engine, "DROP TABLE over_gone").await;
    query_ok(&engine, "DROP TABLE r_data").await;
    engine.close().await;
}

/// A view that reads no table does not look whether the schema is still the one it was compiled
/// for.
#[tokio::test]
async fn a_view_of_numbers_is_the_newest_on_every_connection() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    for round in 1..8 {
        let view = |body: &str| format!("CREATE VIEW n AS {body}");
        let upto = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {round}) SELECT i FROM n"
        );
        query_ok(&engine, &view(&upto)).await;
        for _ in 0..4 {
            // Those that are known to be quick are read by other connections than those that are
            // new.
            assert_eq!(query_ok(&engine, "SELECT * FROM n").await.rows.len(), round);
            assert_eq!(
                query_integer(&engine, &format!("SELECT count(*) FROM n /* {round} */")).await,
                round as i64
            );
        }
        query_ok(&engine, "DROP VIEW n").await;
        query_ok(&engine, &view("SELECT column1 AS a, column2 AS b FROM (VALUES (1, 2)) AS x"))
            .await;
        assert_eq!(query_ok(&engine, "SELECT * FROM n").await.columns, ["a", "b"]);
        query_ok(&engine, "DROP VIEW n").await;
        query_ok(&engine, "CREATE TABLE n(c)").await;
        assert!(query_ok(&engine, "SELECT * FROM n").await.rows.is_empty());
        query_ok(&engine, "DROP TABLE n").await;
    }
    engine.close().await;
}

/// What a trigger inserts is not what the statement inserted.
#[tokio::test]
async fn the_last_inserted_row_is_the_statements_own() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    for sql in [
        "CREATE TABLE audit(id INTEGER PRIMARY KEY, m)",
        "INSERT INTO audit VALUES (500, 'seed')",
        "CREATE TABLE parent(id INTEGER PRIMARY KEY, n UNIQUE)",
        "CREATE TABLE child(id INTEGER PRIMARY KEY, parent_id INT)",
        "CREATE TRIGGER ai AFTER INSERT ON parent BEGIN INSERT INTO audit(m) VALUES ('p' || new.id); END",
        "CREATE VIRTUAL TABLE box USING rtree(id, x0, x1)",
        "INSERT INTO box VALUES (1, 0, 1)",
        "CREATE VIRTUAL TABLE words USING fts4(body)",
        "INSERT INTO child VALUES (77, 1)",
    ] {
        query_ok(&engine, sql).await;
    }
    for (sql, row) in [
        ("INSERT INTO parent(n) VALUES ('first')", 1),
        ("INSERT INTO parent(n) VALUES ('second'), ('third')", 3),
        ("INSERT OR REPLACE INTO parent VALUES (3, 'third')", 3),
        ("INSERT INTO parent(n) VALUES ('fourth') RETURNING id", 4),
        (
            "INSERT INTO parent VALUES (1000, 'x'), (1, 'y') ON CONFLICT (id) DO UPDATE SET n = excluded.n",
            1000,
        ),
        ("INSERT INTO box VALUES (77, 1, 2)", 77),
        ("INSERT INTO words(docid, body) VALUES (9, 'a')", 9),
        ("INSERT INTO parent(n) VALUES ('y') ON CONFLICT (n) DO NOTHING", 0),
        ("UPDATE parent SET n = 'z' WHERE id = 1000", 0),
        ("DELETE FROM parent WHERE id = 2", 0),
    ] {
        assert_eq!(query_ok(&engine, sql).await.last_insert_id, Some(row), "{sql}");
    }
    transaction(
        &engine,
        &[
            "INSERT INTO child VALUES (78, 1)",
            "INSERT INTO parent(id, n) VALUES (2, 'again')",
            "INSERT INTO child(parent_id) VALUES (last_insert_rowid())",
        ],
    )
    .await
    .unwrap();
    assert_eq!(
        query_integer(&engine, "SELECT parent_id FROM child ORDER BY id DESC LIMIT 1").await,
        2
    );
    engine.close().await;
}

/// A table that is made from a view of the time is made at the call's time, as its rows are.
#[tokio::test]
async fn a_table_made_from_a_view_has_the_time_of_the_call() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE VIEW clock AS SELECT julianday('now') AS at").await;
    let mut texts = vec!["CREATE TABLE first AS SELECT at FROM clock"];
    // Something that takes longer than the clock's step.
    texts.push(
        "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 200000) SELECT max(x) FROM c",
    );
    texts.push("CREATE TABLE second AS SELECT at FROM clock");
    texts.push("INSERT INTO second SELECT at FROM clock");
    transaction(&engine, &texts).await.unwrap();
    assert_eq!(
        query_integer(
            &engine,
            "SELECT count(DISTINCT at) FROM (SELECT * FROM first UNION SELECT * FROM second)"
        )
        .await,
        1
    );
    engine.close().await;
}

/// One call changes its own copy of the schema again and again.
#[tokio::test]
async fn many_changes_of_the_schema_in_one_call_are_all_there_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE first(x)").await;
    for last in ["CREATE TABLE a(x)", "INSERT INTO a VALUES (1), (1)", "CREATE TABLE first(x)"] {
        let texts = [
            "CREATE TABLE a(x UNIQUE)",
            "CREATE TABLE IF NOT EXISTS a(x)",
            "ALTER TABLE first RENAME TO b",
            last,
        ];
        assert_eq!(
            transaction(&engine, &texts).await.is_ok(),
            last == "CREATE TABLE first(x)",
            "{last}"
        );
        let names = query_ok(
            &engine,
            "SELECT group_concat(name, ' ') FROM sqlite_schema WHERE sql IS NOT NULL",
        )
        .await;
        let expected = if last == "CREATE TABLE first(x)" { "b a first" } else { "first" };
        assert_eq!(single_value(&names), Value::from(expected), "{last}");
    }
    transaction(
        &engine,
        &[
            "CREATE INDEX i ON a(x)",
            "INSERT INTO a VALUES (1)",
            "DROP TABLE first",
            "CREATE TABLE first(y)",
        ],
    )
    .await
    .unwrap();
    assert_eq!(query_refused(&engine, "SELECT x FROM first").await.code, Code::Sql);
    let schema = "SELECT rowid, type, name, tbl_name, sql FROM sqlite_schema";
    let before = query_ok(&engine, schema).await.rows;
    engine.close().await;
    let engine = open(folder.path());
    assert_eq!(query_ok(&engine, schema).await.rows, before);
    assert_eq!(query_ok(&engine, "SELECT y FROM first").await.rows.len(), 0);
    engine.close().await;
}

/// Tables under the user's own names, which no release has written.
const UNRELEASED: &str = "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
    INSERT INTO users(name) VALUES ('ann'); CREATE VIEW names AS SELECT name FROM users;";

async fn check_refused(engine: &Arc<dyn Engine>, what: &str) {
    for sql in ["SELECT * FROM users", "INSERT INTO users(name) VALUES ('bob')"] {
        let error = query_refused(engine, sql).await;
        assert!(error.code == Code::Internal && error.message.contains(what), "{sql}: {error}");
    }
    // The others have nothing to do with it.
    let other = Statement::from("CREATE TABLE IF NOT EXISTS o(a)");
    engine.query(&database("other"), other, options()).await.unwrap();
}

#[tokio::test]
async fn a_file_from_before_the_first_release_is_refused_by_its_name_and_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).close().await;
    let path = folder.path().join("ns/app.db");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(UNRELEASED).unwrap();
    drop(db);
    let engine = open(folder.path());
    check_refused(&engine, "before release 0.1.0").await;
    engine.close().await;
    let db = Connection::open(&path).unwrap();
    let left: (String, i64) = db
        .query_row("SELECT max(name), (SELECT count(*) FROM sqlite_schema) FROM names", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(left, ("ann".to_owned(), 3), "with the index of UNIQUE");
}

#[tokio::test]
async fn a_file_of_another_format_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT)").await;
    engine.close().await;
    for (format, what) in [(1, "before release 0.1.0"), (3, "newer version")] {
        let db = Connection::open(folder.path().join("ns/app.db")).unwrap();
        db.execute("UPDATE _debros_about SET value = ?1 WHERE name = 'format'", [format]).unwrap();
        drop(db);
        let engine = open(folder.path());
        check_refused(&engine, what).await;
        engine.close().await;
    }
}

#[tokio::test]
async fn a_backup_from_before_the_first_release_comes_back_as_it_was_and_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE newer(a)").await;
    let made = engine.backup(Box::new(|_, _| {})).await.unwrap();
    // The backup, as it would have been made then.
    let place = folder.path().join("backups").join(&made.name);
    let old = place.join("ns/app.db");
    fs::remove_file(&old).unwrap();
    let db = Connection::open(&old).unwrap();
    db.execute_batch(UNRELEASED).unwrap();
    drop(db);
    let bytes = fs::read(&old).unwrap();
    let sum = debros_proto::hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(&bytes));
    let manifest = fs::read_to_string(place.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    for file in manifest["files"].as_array_mut().unwrap() {
        if file["path"] == "ns/app.db" {
            file["sha256"] = sum.clone().into();
            file["size"] = bytes.len().into();
        }
    }
    fs::write(place.join("manifest.json"), manifest.to_string()).unwrap();
    engine.restore(&made.name, Box::new(|_, _| {})).await.unwrap();
    check_refused(&engine, "before release 0.1.0").await;
    assert_eq!(fs::read(&old).unwrap(), bytes, "the backup itself was changed");
    engine.close().await;
    let db = Connection::open(folder.path().join("ns/app.db")).unwrap();
    let name: String = db.query_row("SELECT name FROM users", [], |row| row.get(0)).unwrap();
    assert_eq!(name, "ann");
}

#[tokio::test]
async fn a_namespace_over_its_quota_is_told_so_and_hurts_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        max_namespace_size: Some(512 << 10),
        ..EmbeddedConfig::new(folder.path())
    };
    let engine = open_with(config.clone());
    query_ok(&engine, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)").await;
    let mut stored = 0;
    let error: Error = loop {
        match query(&engine, "INSERT INTO t(a) VALUES (zeroblob(50000))", &[]).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(stored > 5 && error.code == Code::QuotaExceeded, "{stored}: {error}");
    assert!(
        error.message.contains("database.max_namespace_size") && error.message.contains("524288"),
        "{error}"
    );
    assert_eq!(
        query_refused(&engine, "CREATE TABLE big AS SELECT zeroblob(300000) AS a FROM t")
            .await
            .code,
        Code::QuotaExceeded
    );
    assert_eq!(engine.schema(&namespace("app"), options()).await.unwrap().len(), 1);
    let info = engine.namespace_info(&namespace("app"), options()).await.unwrap();
    assert!(info.max_bytes == Some(512 << 10) && info.sql_bytes <= 512 << 10, "{info:?}");
    let other = database("other");
    engine.query(&other, Statement::from("CREATE TABLE t(a)"), options()).await.unwrap();
    let big = Statement::from("INSERT INTO t VALUES (zeroblob(300000))");
    engine.query(&other, big, options()).await.unwrap();
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, stored);
    engine
        .query(
            &database("app"),
            Statement::from("DELETE FROM t WHERE id <= 3"),
            keyed_options("room", 1),
        )
        .await
        .unwrap();
    query_ok(&engine, "INSERT INTO t(a) VALUES (zeroblob(50000))").await;
    engine.close().await;
    // A quota that is lower than what is there keeps it, and takes nothing more.
    let engine = open_with(EmbeddedConfig { max_namespace_size: Some(64 << 10), ..config });
    assert_eq!(
        query_refused(&engine, "INSERT INTO t(a) VALUES (zeroblob(500000))").await.code,
        Code::QuotaExceeded
    );
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, stored - 2);
    engine.close().await;
}

/// The marker is what a crash in the middle leaves: before anything went, and after a part.
#[tokio::test]
async fn an_interrupted_deletion_is_finished_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let note = Statement::from(
        "INSERT OR IGNORE INTO namespaces (name, created_at) VALUES ('the-note', 1)",
    );
    let noted = TransactionRequest { statements: vec![note] }.encode_to_vec();
    for with_file in [true, false] {
        let engine = open(folder.path());
        query_ok(&engine, "CREATE TABLE t(a)").await;
        engine
            .query(
                &database("other"),
                Statement::from("CREATE TABLE IF NOT EXISTS o(a)"),
                options(),
            )
            .await
            .unwrap();
        for index in 0..1500 {
            let name = key(&format!("k{index}"));
            engine
                .kv_put(&namespace("app"), &name, Bytes::new(), no_condition(), None, options())
                .await
                .unwrap();
        }
        engine.close().await;
        fs::write(folder.path().join("ns/app.delete"), &noted).unwrap();
        if !with_file {
            fs::remove_file(folder.path().join("ns/app.db")).unwrap();
        }
        let engine = open(folder.path());
        assert!(
            !folder.path().join("ns/app.delete").exists()
                && !folder.path().join("ns/app.db").exists()
        );
        let all = NamespaceFilter { prefix: String::new(), after: None, limit: 10 };
        let names = engine.namespaces(all, options()).await.unwrap();
        assert_eq!(names, [namespace("other"), namespace("the-note")]);
        let page = engine.kv_list(&namespace("app"), "", None, 10, options()).await.unwrap();
        assert!(page.keys.is_empty());
        engine.close().await;
    }
}

/// Its statements say that it may not be: then nothing goes, at once or at the next start after a
/// crash.
#[tokio::test]
async fn a_deletion_that_its_statements_refuse_deletes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = || Statement::from("INSERT INTO namespaces (name, created_at) VALUES (NULL, 0)");
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    engine
        .kv_put(&namespace("app"), &key("k"), Bytes::new(), no_condition(), None, options())
        .await
        .unwrap();
    let refused = engine
        .delete_namespace(&namespace("app"), vec![refuse()], options().deadline)
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::Constraint);
    assert!(!folder.path().join("ns/app.delete").exists());
    engine.close().await;
    let noted = TransactionRequest { statements: vec![refuse()] }.encode_to_vec();
    fs::write(folder.path().join("ns/app.delete"), &noted).unwrap();
    let engine = open(folder.path());
    assert!(!folder.path().join("ns/app.delete").exists());
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 0);
    assert!(engine.kv_exists(&namespace("app"), &key("k"), options()).await.unwrap());
    engine.close().await;
}

#[tokio::test]
async fn a_deletion_is_refused_while_a_backup_runs() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let (running, is_running) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let backup = {
        let engine = Arc::clone(&engine);
        let progress = Box::new(move |_: u64, _: u64| {
            // The receiver may be gone after the first time.
            let _ = running.send(());
            let _ = may_go_on.lock().unwrap().recv();
        });
        tokio::spawn(async move { engine.backup(progress).await })
    };
    tokio::task::spawn_blocking(move || is_running.recv().unwrap()).await.unwrap();
    let refused = engine
        .delete_namespace(&namespace("app"), Vec::new(), options().deadline)
        .await
        .unwrap_err();
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::Conflict, true));
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 0);
    drop(go_on);
    backup.await.unwrap().unwrap();
    engine.delete_namespace(&namespace("app"), Vec::new(), options().deadline).await.unwrap();
    engine.close().await;
}

/// What a schema was is in the file: a database that was closed for another one's sake comes back
/// with it.
#[tokio::test]
async fn a_schema_comes_back_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { open_databases: 1, ..EmbeddedConfig::new(folder.path()) };
    let engine = open_with(config);
    for round in 0..3 {
        for name in ["app", "other"] {
            let place = database(name);
            let run = async |sql: String| {
                engine.query(&place, Statement::from(sql.as_str()), options()).await.unwrap().value
            };
            run(format!("CREATE TABLE t{round}(a DEFAULT CURRENT_TIMESTAMP)")).await;
            run(format!("CREATE INDEX i{round} ON t{round}(a)")).await;
            run(format!("CREATE TABLE x{round}(a)")).await;
            run(format!("ALTER TABLE x{round} RENAME TO y{round}")).await;
            run(format!("INSERT INTO t{round} DEFAULT VALUES")).await;
            let kept = run("SELECT count(*) FROM sqlite_master".to_owned()).await;
            assert_eq!(single_value(&kept), Value::from(3 * (round + 1)), "{name}");
        }
    }
    let system = Statement::from("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'ns::%'");
    let system = engine.query(&TargetDatabase::System, system, options()).await.unwrap();
    assert_eq!(single_value(&system.value), Value::from(0));
    engine.close().await;
}

#[tokio::test]
async fn a_statement_that_took_its_transaction_down_leaves_nothing_of_its_rights_behind() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a UNIQUE)").await;
    query_ok(&engine, "INSERT INTO t VALUES (1)").await;
    let error = query_refused(&engine, "INSERT OR ROLLBACK INTO t VALUES (1)").await;
    assert_eq!(error.code, Code::Constraint, "{error}");
    engine.close().await;
    let unchecked = fs::read_to_string(folder.path().join("CLEAN")).unwrap();
    assert_eq!(unchecked, "", "the database was not closed well");
}

/// Writes between a deletion that failed and the next start were acknowledged, and deleted by it.
#[tokio::test]
async fn a_namespace_whose_deletion_failed_stays_shut_until_it_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let backup = engine.backup(Box::new(|_, _| {})).await.unwrap();
    engine.close().await;
    let engine = open(folder.path());
    // A log that cannot be removed.
    let log = folder.path().join("ns/app.db-wal");
    fs::create_dir(&log).unwrap();
    let put = async || {
        let put = engine
            .kv_put(&namespace("app"), &key("k"), Bytes::new(), no_condition(), None, options())
            .await;
        put.map(|_| ()).map_err(|error| error.code)
    };
    for _ in 0..2 {
        let failed = engine
            .delete_namespace(&namespace("app"), Vec::new(), options().deadline)
            .await
            .unwrap_err();
        assert_eq!(failed.code, Code::Internal);
        assert!(folder.path().join("ns/app.delete").exists());
        assert_eq!(put().await, Err(Code::Unavailable));
        assert_eq!(query_refused(&engine, "SELECT * FROM t").await.code, Code::Unavailable);
    }
    // The next start would delete what is put back now.
    let restored = engine.restore(&backup.name, Box::new(|_, _| {})).await.unwrap_err();
    assert!(restored.code == Code::Conflict && restored.message.contains("\"app\""), "{restored}");
    fs::remove_dir(&log).unwrap();
    engine.delete_namespace(&namespace("app"), Vec::new(), options().deadline).await.unwrap();
    assert!(!folder.path().join("ns/app.delete").exists());
    put().await.unwrap();
    engine.restore(&backup.name, Box::new(|_, _| {})).await.unwrap();
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 0);
    engine.close().await;
}

/// Its answer was that the next start would go on with it.
#[tokio::test]
async fn a_deletion_that_can_not_be_noted_deletes_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let (marker, partial) =
        (folder.path().join("ns/app.delete"), folder.path().join("ns/app.delete.partial"));
    std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
    // With nothing to note nothing is written.
    let note = || vec![Statement::from("DELETE FROM grants")];
    let full =
        engine.delete_namespace(&namespace("app"), note(), options().deadline).await.unwrap_err();
    assert_eq!(full.code, Code::DiskFull);
    assert!(full.message.contains("nothing was deleted"), "{}", full.message);
    assert!(!marker.exists() && partial.symlink_metadata().is_err(), "something was left");
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 0);
    fs::create_dir(&partial).unwrap();
    let broken =
        engine.delete_namespace(&namespace("app"), note(), options().deadline).await.unwrap_err();
    assert!(
        broken.code == Code::Internal && broken.message.contains("nothing was deleted"),
        "{broken}"
    );
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 0);
    fs::remove_dir(&partial).unwrap();
    engine.close().await;
}

#[tokio::test]
async fn files_that_were_not_written_to_their_end_are_removed_at_start() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).close().await;
    let left = ["ns/app.db.partial", "ns/app.delete.partial", "CLEAN.partial"]
        .map(|name| folder.path().join(name));
    left.iter().for_each(|path| fs::write(path, "half").unwrap());
    let engine = open(folder.path());
    assert!(left.iter().all(|path| !path.exists()));
    engine.close().await;
}
