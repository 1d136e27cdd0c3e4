//! Files that are damaged, or that nobody can use.

use super::authority::system;
use super::{backup, damage, folder, get, open, open_error, open_with, put, restore};
use debros_engine::conformance::{
    database, namespace, options, query_integer, query_ok, query_refused,
};
use debros_engine::embedded::EmbeddedConfig;
use debros_proto::Code;
use debros_proto::rpc::Statement;
use std::fs;
use std::path::Path;

#[tokio::test]
async fn a_damaged_system_database_stops_the_start_and_says_what_to_do() {
    let folder = folder();
    let engine = open(folder.path());
    for index in 0..200 {
        put(&engine, &format!("k{index}"), vec![1; 100]).await.unwrap();
    }
    engine.close().await;
    damage(&folder.path().join("system.db"));
    fs::remove_file(folder.path().join("CLEAN")).unwrap();
    let text = open_error(folder.path()).to_string();
    assert!(
        text.contains("system.db") && text.contains("damaged") && text.contains("restore"),
        "{text}"
    );
    fs::write(
        folder.path().join("system.db"),
        "this is no database, and long enough to be looked at".repeat(100),
    )
    .unwrap();
    let text = open_error(folder.path()).to_string();
    assert!(text.contains("system.db") && text.contains("damaged"), "{text}");
}

/// The others go on, and a restore mends it.
#[tokio::test]
async fn a_damaged_namespace_fails_alone_until_it_is_restored() {
    let folder = folder();
    let engine = open(folder.path());
    system(&engine, "INSERT INTO secrets VALUES ('challenge', x'01', 1)").await;
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_ok(&engine, "INSERT INTO t SELECT zeroblob(1000) FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]')")
        .await;
    engine
        .query(&database("other"), Statement::from("CREATE TABLE o(a)"), options())
        .await
        .unwrap();
    let made = backup(&engine).await;
    engine.close().await;
    damage(&folder.path().join("ns/app.db"));
    fs::remove_file(folder.path().join("CLEAN")).unwrap();

    let engine = open(folder.path());
    for _ in 0..2 {
        assert_eq!(query_refused(&engine, "SELECT 1").await.code, Code::Corrupt);
    }
    engine
        .query(&database("other"), Statement::from("INSERT INTO o VALUES (1)"), options())
        .await
        .unwrap();
    put(&engine, "k", "x").await.unwrap();
    let partly = backup(&engine).await;
    assert_eq!((&partly.missing, made.missing.len()), (&vec![namespace("app")], 0));
    assert_eq!(engine.backups().await.unwrap(), [partly.clone(), made.clone()]);
    // A clean stop does not make the file a good one: it is still to be checked.
    engine.close().await;
    let engine = open(folder.path());
    assert_eq!(query_refused(&engine, "SELECT 1").await.code, Code::Corrupt);

    // What is missing in a backup stays as it is, and the others come back.
    put(&engine, "k", "y").await.unwrap();
    let before = fs::read(folder.path().join("ns/app.db")).unwrap();
    restore(&engine, &partly.name).await.unwrap();
    assert!(
        get(&engine, "k").await.unwrap() == "x"
            && fs::read(folder.path().join("ns/app.db")).unwrap() == before
    );
    assert_eq!(query_refused(&engine, "SELECT 1").await.code, Code::Corrupt);

    restore(&engine, &made.name).await.unwrap();
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 16);
    assert_eq!(get(&engine, "k").await, None);
    engine.close().await;
}

/// What stops the owner of a damaged database must not stop the node's operator.
#[tokio::test]
async fn a_damaged_namespace_is_described_with_what_is_wrong_and_deleted() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    put(&engine, "k", "x").await.unwrap();
    engine.close().await;
    damage(&folder.path().join("ns/app.db"));
    fs::remove_file(folder.path().join("CLEAN")).unwrap();
    let engine = open(folder.path());
    let app = namespace("app");
    let info = engine.namespace_info(&app, options()).await.unwrap();
    assert!(info.problem.is_some_and(|problem| problem.contains("damaged")));
    assert!(info.kv_keys == 1 && info.sql_bytes > 0 && !info.rows_are_exact);
    engine.delete_namespace(&app, Vec::new(), options().deadline).await.unwrap();
    let info = engine.namespace_info(&app, options()).await.unwrap();
    assert_eq!((info.problem, info.kv_keys, info.sql_bytes), (None, 0, 0));
    query_ok(&engine, "CREATE TABLE t(a)").await;
    engine.close().await;
}

/// The only copy of what is damaged now may be in the oldest backup.
#[tokio::test]
async fn a_backup_that_is_not_whole_removes_none_that_is() {
    let folder = folder();
    let config = || EmbeddedConfig { backups_kept: 1, ..EmbeddedConfig::new(folder.path()) };
    let engine = open_with(config());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let whole = backup(&engine).await;
    engine.close().await;
    damage(&folder.path().join("ns/app.db"));
    fs::remove_file(folder.path().join("CLEAN")).unwrap();
    let engine = open_with(config());
    backup(&engine).await;
    let partly = backup(&engine).await;
    assert_eq!(engine.backups().await.unwrap(), [partly, whole.clone()]);
    engine.delete_namespace(&namespace("app"), Vec::new(), options().deadline).await.unwrap();
    let newest = backup(&engine).await;
    assert_eq!(engine.backups().await.unwrap(), [newest]);
    engine.close().await;
}

/// As a newer version of the node leaves it: whole, and not to be used.
fn make_newer(path: &Path) {
    let db = rusqlite::Connection::open(path).unwrap();
    assert_eq!(
        db.execute("UPDATE _debros_about SET value = 99 WHERE name = 'format'", []).unwrap(),
        1
    );
}

#[tokio::test]
async fn a_namespace_that_can_not_be_used_is_backed_up_and_comes_back_alone_as_that() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let good = backup(&engine).await;
    engine.close().await;
    make_newer(&folder.path().join("ns/app.db"));
    let engine = open(folder.path());
    assert!(query_refused(&engine, "SELECT * FROM t").await.message.contains("newer version"));
    engine
        .query(&database("other"), Statement::from("CREATE TABLE o(a)"), options())
        .await
        .unwrap();
    let made = backup(&engine).await;
    assert_eq!(made.missing, []);

    // A file that does not open for another reason than damage is replaced as well.
    restore(&engine, &good.name).await.unwrap();
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 0);

    for _ in 0..2 {
        restore(&engine, &made.name).await.unwrap();
        assert!(!folder.path().join("RESTORE").exists());
        assert!(query_refused(&engine, "SELECT * FROM t").await.message.contains("newer version"));
        engine
            .query(&database("other"), Statement::from("SELECT * FROM o"), options())
            .await
            .unwrap();
    }
    engine.close().await;
    let engine = open(folder.path());
    restore(&engine, &good.name).await.unwrap();
    query_ok(&engine, "INSERT INTO t VALUES (1)").await;
    engine.close().await;
}

/// SQLite's check lists more than damage: what a user's own statements have brought out of step.
/// That is no reason to keep the owner from the database after an unclean stop, nor to leave it out
/// of a backup.
#[tokio::test]
async fn what_is_only_out_of_step_is_no_damage() {
    let folder = folder();
    let engine = open(folder.path());
    for sql in [
        "CREATE VIRTUAL TABLE f4 USING fts4(b, content=\"nowhere\")",
        "CREATE TABLE t(x CHECK(x = \"y\"))",
        "INSERT INTO t VALUES ('y')",
        "ALTER TABLE t ADD COLUMN y DEFAULT 'z'",
        "CREATE TABLE texts(id INTEGER PRIMARY KEY, b)",
        "CREATE VIRTUAL TABLE f USING fts5(b, content = 'texts', content_rowid = 'id')",
        "INSERT INTO texts VALUES (1, 'one'), (2, 'two')",
    ] {
        query_ok(&engine, sql).await;
    }
    for index in 0..200 {
        query_ok(&engine, &format!("INSERT INTO texts(b) VALUES ('{index}')")).await;
    }
    // The index has to forget what it never knew.
    let error =
        query_refused(&engine, "INSERT INTO f(f, rowid, b) VALUES ('delete', 2, 'two')").await;
    assert!(error.code == Code::Sql && error.message.contains("'rebuild'"), "{error}");
    query_ok(&engine, "INSERT INTO f(rowid, b) VALUES (1, 'other words')").await;
    let made = backup(&engine).await;
    assert_eq!(made.missing, []);
    engine.close().await;
    fs::remove_file(folder.path().join("CLEAN")).unwrap();
    let engine = open(folder.path());
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM texts").await, 202);
    restore(&engine, &made.name).await.unwrap();
    query_ok(&engine, "INSERT INTO f(f) VALUES ('rebuild')").await;
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM f WHERE f MATCH 'two'").await, 1);
    query_ok(&engine, "DROP TABLE f4").await;
    engine.close().await;
}

/// Where a database's file is gone and its log is not, as after a crash between the two, the next
/// of the name begins empty.
#[tokio::test]
async fn a_log_without_its_file_is_not_the_next_ones() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE secrets(a)").await;
    query_ok(&engine, "INSERT INTO secrets VALUES ('of another')").await;
    let (file, log) = (folder.path().join("ns/app.db"), folder.path().join("ns/app.db-wal"));
    let kept = fs::read(&log).unwrap();
    assert!(kept.len() > 4096);
    engine.close().await;
    fs::remove_file(&file).unwrap();
    fs::write(&log, &kept).unwrap();
    // It was taken away on purpose.
    let record = folder.path().join("FILES");
    fs::write(&record, fs::read_to_string(&record).unwrap() + "-app\n").unwrap();
    fs::remove_file(folder.path().join("CLEAN")).unwrap();
    let engine = open(folder.path());
    assert!(
        query_refused(&engine, "SELECT * FROM secrets").await.message.starts_with("no such table")
    );
    query_ok(&engine, "CREATE TABLE own(a)").await;
    engine.close().await;
    let engine = open(folder.path());
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM own").await, 0);
    engine.close().await;
}

/// It would be of a half state, and take the place of the one that is to be put back.
#[tokio::test]
async fn no_backup_is_made_of_what_a_restore_has_not_finished() {
    let folder = folder();
    let engine =
        open_with(EmbeddedConfig { backups_kept: 1, ..EmbeddedConfig::new(folder.path()) });
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let made = backup(&engine).await;
    fs::write(folder.path().join("RESTORE"), &made.name).unwrap();
    let error = engine.backup(Box::new(|_, _| {})).await.unwrap_err();
    assert!(error.code == Code::Conflict && error.message.contains(&made.name), "{error}");
    restore(&engine, &made.name).await.unwrap();
    backup(&engine).await;
    engine.close().await;
}
