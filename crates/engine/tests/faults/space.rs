//! What is left for deletes in a full database, and what deletes leave.

use super::{folder, open, open_with, put};
use debros_engine::conformance::{
    database, key, keyed_options, namespace, no_condition, options, query, query_integer, query_ok,
    query_refused, transaction,
};
use debros_engine::embedded::EmbeddedConfig;
use debros_engine::{Engine, TargetDatabase, migrations};
use debros_proto::Code;
use debros_proto::rpc::{Statement, Value};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Statements that nobody has seen before, alone and together.
#[tokio::test]
async fn a_full_database_takes_every_kind_of_delete() {
    let folder = folder();
    let engine =
        open_with(EmbeddedConfig { max_size: 2 << 20, ..EmbeddedConfig::new(folder.path()) });
    query_ok(&engine, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)").await;
    query_ok(&engine, "CREATE TABLE u AS SELECT 1 AS a").await;
    query_ok(&engine, "CREATE VIRTUAL TABLE f USING fts5(a)").await;
    for index in 0..40 {
        query(&engine, "INSERT INTO f VALUES (?1)", &[Value::from(format!("word{index} again"))])
            .await
            .unwrap();
    }
    put(&engine, "k", "x").await.unwrap();
    let mut rows = 0;
    for bytes in [50_000, 500] {
        while query(&engine, "INSERT INTO t(a) VALUES (zeroblob(?1))", &[Value::from(bytes)])
            .await
            .is_ok()
        {
            rows += 1;
        }
    }
    assert_eq!(
        query_refused(&engine, "INSERT INTO t(a) VALUES (zeroblob(9000))").await.code,
        Code::DatabaseFull
    );
    let gone = engine
        .kv_delete(&namespace("app"), &key("k"), no_condition(), keyed_options("d", 1))
        .await
        .unwrap();
    assert!(gone.value);
    transaction(&engine, &["DELETE FROM t WHERE id = 1", "DELETE FROM f WHERE rowid = 3"])
        .await
        .unwrap();
    engine
        .transaction(
            &database("app"),
            vec![Statement::from("DELETE FROM t WHERE id = 2")],
            keyed_options("tx", 1),
        )
        .await
        .unwrap();
    query_ok(&engine, "DELETE FROM t WHERE id = 3").await;
    query_ok(&engine, "DROP TABLE u").await;
    query_ok(&engine, "DROP TABLE f").await;
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, rows - 3);
    // What adds uses nothing of what is kept for deletes, also not behind one.
    let mixed = ["DELETE FROM t WHERE id = 4", "INSERT INTO t(a) VALUES (zeroblob(900000))"];
    assert_eq!(transaction(&engine, &mixed).await.unwrap_err().code, Code::DatabaseFull);
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, rows - 3);
    engine.close().await;
}

fn holds(folder: &Path, secret: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(holds(&entry.path(), secret));
        } else if fs::read(entry.path()).unwrap().windows(secret.len()).any(|part| part == secret) {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

#[tokio::test]
async fn nothing_of_a_deleted_namespace_stays_in_the_files() {
    const SECRET: &str = "the-sign-of-what-was-deleted";
    let folder = folder();
    let engine = open(folder.path());
    let app = namespace("app");
    for index in 0..600_usize {
        let text = format!("{SECRET}{index}");
        let value = text.repeat(1 + index % 7 * 60);
        let record = keyed_options(&format!("{SECRET}{index}"), 1);
        engine.kv_put(&app, &key(&text), value.into(), no_condition(), None, record).await.unwrap();
        let (other, name) = (namespace("other"), key(&format!("{index}")));
        engine
            .kv_put(&other, &name, vec![1; index % 3000].into(), no_condition(), None, options())
            .await
            .unwrap();
    }
    query_ok(&engine, &format!("CREATE TABLE t AS SELECT '{SECRET}' AS a")).await;
    // Some were deleted one by one before.
    for index in (0..300).step_by(2) {
        let name = key(&format!("{SECRET}{index}"));
        engine.kv_delete(&app, &name, no_condition(), options()).await.unwrap();
    }
    assert!(!holds(folder.path(), SECRET.as_bytes()).is_empty());
    engine.delete_namespace(&app, Vec::new(), options().deadline).await.unwrap();
    assert_eq!(holds(folder.path(), SECRET.as_bytes()), Vec::<String>::new());
    engine.close().await;
    assert_eq!(holds(folder.path(), SECRET.as_bytes()), Vec::<String>::new());
}

/// Free pages of the copy that a restore puts back, and those that an update of the tables leaves.
#[tokio::test]
async fn what_a_restore_or_an_update_deletes_stays_in_no_free_page() {
    const SECRET: &str = "the-sign-of-what-was-deleted";
    let system = |engine: &Arc<dyn Engine>, sql: &str| {
        let (engine, sql) = (Arc::clone(engine), Statement::from(sql));
        async move { engine.query(&TargetDatabase::System, sql, options()).await.unwrap() }
    };
    let (data, backups) = (folder(), folder());
    let path = data.path();
    let config = || EmbeddedConfig {
        backup_dir: backups.path().join("backups"),
        ..EmbeddedConfig::new(path)
    };
    let engine = open_with(config());
    system(&engine, "INSERT INTO secrets VALUES ('challenge', x'01', 1)").await;
    system(&engine, "INSERT INTO namespaces VALUES ('app', 1, '0x01')").await;
    for index in 0..100 {
        let record = keyed_options(&format!("{SECRET}{index}"), 1);
        let (app, name) = (namespace("app"), key(&format!("{SECRET}{index}")));
        engine
            .kv_put(&app, &name, SECRET.repeat(100).into(), no_condition(), None, record)
            .await
            .unwrap();
    }
    let made = super::backup(&engine).await;
    let forget = vec![Statement::from("DELETE FROM namespaces WHERE name = 'app'")];
    engine.delete_namespace(&namespace("app"), forget, options().deadline).await.unwrap();
    assert_eq!(holds(path, SECRET.as_bytes()), Vec::<String>::new());
    system(&engine, "INSERT INTO namespaces VALUES ('app', 2, '0x02')").await;
    super::restore(&engine, &made.name).await.unwrap();
    engine.close().await;
    assert_eq!(
        holds(path, SECRET.as_bytes()),
        Vec::<String>::new(),
        "of another owner's namespace"
    );

    // Records of the form that the fourth step deletes.
    let data = folder();
    let mut db = rusqlite::Connection::open(data.path().join("system.db")).unwrap();
    migrations::apply_migrations(&mut db, &migrations::MIGRATIONS[..3], 1).unwrap();
    for index in 0..100 {
        let name = format!("{SECRET}{index}");
        db.execute(
            "INSERT INTO _debros_idempotency VALUES ('', ?1, x'', ?2, 1)",
            (name, SECRET.repeat(100)),
        )
        .unwrap();
    }
    drop(db);
    open(data.path()).close().await;
    assert_eq!(
        holds(data.path(), SECRET.as_bytes()),
        Vec::<String>::new(),
        "of the records of earlier versions"
    );
}

/// What is found while it runs: what can be read is read, and nothing is written until it is
/// restored.
#[tokio::test]
async fn a_namespace_that_is_found_damaged_takes_no_writes_until_it_is_restored() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE good(a)").await;
    query_ok(&engine, "INSERT INTO good VALUES (1)").await;
    query_ok(&engine, "CREATE TABLE bad(a)").await;
    query_ok(
        &engine,
        "INSERT INTO bad SELECT zeroblob(900) FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]')",
    )
    .await;
    let made = super::backup(&engine).await;
    engine.close().await;
    let path = folder.path().join("ns/app.db");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    // The table's last pages, which a stop in order has written there.
    bytes[end - 3 * 4096..].fill(0xa5);
    fs::write(&path, bytes).unwrap();

    let engine = open(folder.path());
    query_ok(&engine, "INSERT INTO good VALUES (2)").await;
    assert_eq!(query_refused(&engine, "SELECT count(a) FROM bad").await.code, Code::Corrupt);
    let error = query_refused(&engine, "INSERT INTO good VALUES (3)").await;
    assert!(error.code == Code::Corrupt && error.message.contains("no writes"), "{error}");
    assert_eq!(transaction(&engine, &["DELETE FROM good"]).await.unwrap_err().code, Code::Corrupt);
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM good").await, 2);
    put(&engine, "k", "x").await.unwrap();
    engine
        .query(&database("other"), Statement::from("CREATE TABLE o(a)"), options())
        .await
        .unwrap();
    super::restore(&engine, &made.name).await.unwrap();
    query_ok(&engine, "INSERT INTO good VALUES (3)").await;
    assert_eq!(query_integer(&engine, "SELECT count(a) FROM bad").await, 16);
    engine.close().await;
}

/// SQLite says "full" where numbers have run out.
#[tokio::test]
async fn autoincrement_at_its_end_is_the_callers_conflict() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a)").await;
    query_ok(&engine, "CREATE TABLE log(a)").await;
    query_ok(
        &engine,
        "CREATE TRIGGER r AFTER INSERT ON log BEGIN INSERT INTO t(a) VALUES (new.a); END",
    )
    .await;
    let both =
        query_refused(&engine, "INSERT INTO t VALUES (9223372036854775807, 1), (NULL, 2)").await;
    query_ok(&engine, "INSERT INTO t VALUES (9223372036854775807, 1)").await;
    let alone = query_refused(&engine, "INSERT INTO t(a) VALUES (2)").await;
    let again =
        query(&engine, "INSERT INTO t(a) VALUES (?1)", &[Value::from(2)]).await.unwrap_err();
    let trigger = query_refused(&engine, "INSERT INTO log VALUES (3)").await;
    let within =
        transaction(&engine, &["SELECT 1", "INSERT INTO t(a) VALUES (2)"]).await.unwrap_err();
    assert_eq!(within.statement, Some(1));
    for (error, what) in [
        (both, "both"),
        (alone, "alone"),
        (again, "again"),
        (trigger, "trigger"),
        (within, "within"),
    ] {
        assert_eq!(error.code, Code::Constraint, "{what}: {error}");
        assert!(
            error.message.contains("AUTOINCREMENT") && error.message.contains("row of t:"),
            "{error}"
        );
    }
    query_ok(&engine, "INSERT INTO t VALUES (5, 1)").await;
    query_ok(&engine, "CREATE TABLE plain(id INTEGER PRIMARY KEY, a)").await;
    query_ok(&engine, "INSERT INTO plain VALUES (9223372036854775807, 1)").await;
    query_ok(&engine, "INSERT INTO plain(a) VALUES (2)").await;
    engine.close().await;
}

/// The largest number there is may be any value, and a table at its end beside the one that is
/// full.
#[tokio::test]
async fn no_room_is_not_taken_for_the_end_of_autoincrement() {
    let folder = folder();
    let engine = open_with(EmbeddedConfig {
        max_namespace_size: Some(1 << 20),
        ..EmbeddedConfig::new(folder.path())
    });
    query_ok(&engine, "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT, expires INTEGER, b)")
        .await;
    query_ok(&engine, "CREATE TABLE other(id INTEGER PRIMARY KEY AUTOINCREMENT, a)").await;
    query_ok(&engine, "INSERT INTO s(expires) VALUES (9223372036854775807)").await;
    query_ok(&engine, "INSERT INTO other VALUES (9223372036854775807, 1)").await;
    let large = "INSERT INTO s(expires, b) VALUES (?1, randomblob(2000000))";
    for number in [5, i64::MAX] {
        let error = query(&engine, large, &[Value::from(number)]).await.unwrap_err();
        assert_eq!(error.code, Code::QuotaExceeded, "{number}: {error}");
    }
    let literal = "INSERT INTO s(expires, b) VALUES (9223372036854775807, randomblob(2000000))";
    assert_eq!(query_refused(&engine, literal).await.code, Code::QuotaExceeded);
    // The same numbers where there is room: the row's own is the last one, and the next has none.
    let both = "INSERT INTO s(id, expires) VALUES (?1, 1), (NULL, 2)";
    let error = query(&engine, both, &[Value::from(i64::MAX)]).await.unwrap_err();
    assert!(error.code == Code::Constraint && error.message.contains("row of s:"), "{error}");
    engine.close().await;
}
