//! Describing, sweeping, copying and closing.

use super::{
    assert_code, database, expect_new_write, key, keyed_options, namespace, no_condition, options,
    query, query_integer, query_ok, statement,
};
use crate::{BackupInfo, Engine};
use bytes::Bytes;
use debros_proto::rpc::{Statement, Value};
use debros_proto::{Code, now_ms};
use std::sync::{Arc, Mutex};

/// Tables, views, virtual tables, columns and indexes.
pub async fn schema_describes_everything(engine: Arc<dyn Engine>) {
    let app = namespace("app");
    assert!(engine.schema(&app, options()).await.unwrap().is_empty());
    let sql = "CREATE TABLE b(id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'x', n UNIQUE)";
    engine.query(&database("app"), Statement::from(sql), keyed_options("k", 1)).await.unwrap();
    query_ok(&engine, "CREATE INDEX b_name ON b(name, lower(name))").await;
    query_ok(&engine, "CREATE VIEW a AS SELECT name FROM b").await;
    query_ok(&engine, "CREATE VIRTUAL TABLE c USING fts5(body)").await;
    query_ok(&engine, "CREATE TABLE d(id INTEGER PRIMARY KEY AUTOINCREMENT)").await;
    let tables = engine.schema(&app, options()).await.unwrap();
    let names: Vec<(&str, &str)> =
        tables.iter().map(|table| (&*table.name, &*table.kind)).collect();
    assert_eq!(names, [("a", "view"), ("b", "table"), ("c", "virtual"), ("d", "table")]);
    let b = &tables[1];
    assert_eq!(b.sql, sql);
    let columns: Vec<_> = b
        .columns
        .iter()
        .map(|c| (&*c.name, &*c.r#type, c.nullable, c.default.as_deref(), c.primary_key))
        .collect();
    assert_eq!(
        columns,
        [
            ("id", "INTEGER", false, None, true),
            ("name", "TEXT", false, Some("'x'"), false),
            ("n", "", true, None, false)
        ]
    );
    let named = b.indexes.iter().find(|index| index.name == "b_name").expect("the index");
    assert_eq!(
        (named.columns.as_slice(), named.unique),
        (&["name".to_owned(), String::new()][..], false)
    );
    assert!(named.sql.as_deref().is_some_and(|sql| sql.starts_with("CREATE INDEX")));
    assert!(
        b.indexes.iter().any(|index| index.unique && index.sql.is_none() && index.columns == ["n"])
    );
}

/// Values and kept answers, and nothing that has not expired.
pub async fn sweep_removes_what_expired(engine: Arc<dyn Engine>) {
    let app = namespace("app");
    for index in 0..30 {
        let name = key(&format!("s/{index}"));
        engine
            .kv_put(&app, &name, Bytes::new(), no_condition(), Some(100), options())
            .await
            .map(expect_new_write)
            .unwrap();
    }
    engine
        .kv_put(&app, &key("stays"), Bytes::new(), no_condition(), None, keyed_options("kv", 1))
        .await
        .unwrap();
    engine
        .query(&database("app"), Statement::from("CREATE TABLE t(a)"), keyed_options("sql", 1))
        .await
        .unwrap();
    assert_eq!(engine.sweep(now_ms()).await.unwrap(), 0);
    assert_eq!(engine.sweep(now_ms() + 200_000).await.unwrap(), 30);
    assert_eq!(engine.sweep(now_ms() + 48 * 3_600_000).await.unwrap(), 2, "the kept answers");
    let page = engine.kv_list(&app, "", None, 100, options()).await.unwrap();
    assert_eq!(page.keys, ["stays"]);
}

async fn backup(engine: &Arc<dyn Engine>) -> BackupInfo {
    let progress: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let reported = Arc::clone(&progress);
    let made = engine
        .backup(Box::new(move |done, all| reported.lock().unwrap().push((done, all))))
        .await
        .unwrap();
    let reported = progress.lock().unwrap();
    assert!(
        reported.windows(2).all(|pair| pair[0].0 <= pair[1].0),
        "progress went back: {reported:?}"
    );
    assert!(reported.last().is_some_and(|(done, all)| done == all), "{reported:?}");
    made
}

/// What a backup holds comes back, and what came after it goes.
pub async fn backup_and_restore(engine: Arc<dyn Engine>) {
    let app = namespace("app");
    assert!(engine.backups().await.unwrap().is_empty());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query(&engine, "INSERT INTO t VALUES (?1)", &[Value::from("old")]).await.unwrap();
    let version = engine
        .kv_put(&app, &key("k"), Bytes::from("old"), no_condition(), None, options())
        .await
        .map(expect_new_write)
        .unwrap();
    let made = backup(&engine).await;
    assert!(made.size > 0 && made.checksum.len() == 64, "{made:?}");
    assert_eq!(engine.backups().await.unwrap(), std::slice::from_ref(&made));
    query_ok(&engine, "UPDATE t SET a = 'new'").await;
    query_ok(&engine, "CREATE TABLE later(a)").await;
    engine
        .kv_put(&app, &key("k"), Bytes::from("new"), no_condition(), None, options())
        .await
        .map(expect_new_write)
        .unwrap();
    engine
        .kv_put(&app, &key("later"), Bytes::from("x"), no_condition(), None, options())
        .await
        .map(expect_new_write)
        .unwrap();
    engine
        .query(&database("other"), Statement::from("CREATE TABLE o(a)"), options())
        .await
        .unwrap();
    engine.restore(&made.name, Box::new(|_, _| {})).await.unwrap();
    assert_eq!(query_ok(&engine, "SELECT a FROM t").await.rows[0].values, [Value::from("old")]);
    assert_code(
        &super::query_refused(&engine, "SELECT * FROM later").await,
        Code::Sql,
        "a later table",
    );
    let entry = engine.kv_get(&app, &key("k"), options()).await.unwrap().unwrap();
    assert_eq!((entry.value, entry.version), (Bytes::from("old"), version));
    assert!(!engine.kv_exists(&app, &key("later"), options()).await.unwrap());
    let gone = engine
        .query(&database("other"), Statement::from("SELECT * FROM o"), options())
        .await
        .unwrap_err();
    assert_code(&gone, Code::Sql, "a later namespace's table");
    // And it goes on from there.
    let next = engine
        .kv_put(&app, &key("k"), Bytes::from("next"), no_condition(), None, options())
        .await
        .map(expect_new_write)
        .unwrap();
    assert!(next > version);
    query_ok(&engine, "INSERT INTO t VALUES ('next')").await;
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 2);
}

/// A name that is none, or is a path out of the folder, changes nothing.
pub async fn lesson_16_restore_of_nothing_is_refused(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    for name in ["20200101T000000000Z", "", ".", "..", "../ns", "/etc", "a/b", "x\0"] {
        let error = engine.restore(name, Box::new(|_, _| {})).await.unwrap_err();
        assert_code(&error, Code::NotFound, name);
    }
    query_ok(&engine, "SELECT * FROM t").await;
}

/// A file that SQLite opens, with the namespace's tables and nothing of the engine's; gone when it
/// is dropped.
pub async fn export_is_a_database(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)").await;
    let insert = statement(
        "INSERT INTO t(a) VALUES (?1), (?2)",
        &[Value::from("x"), Value::from(vec![0u8, 255])],
    );
    engine.query(&database("app"), insert, keyed_options("secret-key", 1)).await.unwrap();
    let export = engine.export(&namespace("app")).await.unwrap();
    let bytes = std::fs::read(&export.path).unwrap();
    assert_eq!(bytes.len() as u64, export.size);
    assert!(bytes.starts_with(b"SQLite format 3\0"));
    assert_eq!(
        debros_proto::hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(&bytes)),
        export.checksum
    );
    assert!(!bytes.windows(10).any(|part| part == b"secret-key"), "a kept answer is in the export");
    {
        let db = rusqlite::Connection::open_with_flags(
            &export.path,
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .unwrap();
        let tables: i64 =
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        let rows: i64 = db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!((tables, rows), (1, 2));
    }
    let path = export.path.clone();
    drop(export);
    assert!(!path.exists());
    let empty = engine.export(&namespace("nothing")).await.unwrap();
    assert!(std::fs::read(&empty.path).unwrap().starts_with(b"SQLite format 3\0"));
}

/// With what is stored.
pub async fn size_grows(engine: Arc<dyn Engine>) {
    let before = engine.size();
    for index in 0..4 {
        let (app, name) = (namespace("app"), key(&format!("{index}")));
        let value = Bytes::from(vec![1; 1 << 20]);
        engine
            .kv_put(&app, &name, value, no_condition(), None, options())
            .await
            .map(expect_new_write)
            .unwrap();
    }
    assert!(engine.size() >= before + (4 << 20), "{} after {before}", engine.size());
}

/// What was accepted is done; what comes after is refused.
pub async fn close_refuses_and_keeps(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { query(&engine, "INSERT INTO t VALUES (1)", &[]).await })
        })
        .collect();
    engine.close().await;
    for task in tasks {
        if let Err(error) = task.await.unwrap() {
            assert_code(&error, Code::Unavailable, "after the end");
        }
    }
    engine.close().await;
    let get = engine.kv_get(&namespace("app"), &key("k"), options()).await.unwrap_err();
    assert_code(&get, Code::Unavailable, "get");
    let put = engine
        .kv_put(&namespace("app"), &key("k"), Bytes::new(), no_condition(), None, options())
        .await
        .unwrap_err();
    assert_code(&put, Code::Unavailable, "put");
}
