//! What only the embedded engine can meet: its folder, its files, its limits of space, its copies.

mod authority;
mod damaged;
mod full;
mod groups;
mod leaving;
mod lost;
mod quotas;
mod space;
mod turns;

use bytes::Bytes;
use debros_engine::conformance::{
    database, key, keyed_options, namespace, no_condition, options, query, query_integer, query_ok,
};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine, EngineOpenError};
use debros_engine::{BackupInfo, Engine};
use debros_proto::rpc::{Condition, Statement, Value};
use debros_proto::{Code, Error};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Longer than any test.
const FAR: std::time::Duration = std::time::Duration::from_secs(600);

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(path: &Path) -> Arc<dyn Engine> {
    open_with(EmbeddedConfig::new(path))
}

fn open_with(config: EmbeddedConfig) -> Arc<dyn Engine> {
    Arc::new(EmbeddedEngine::open(config).unwrap_or_else(|error| panic!("{error}")))
}

fn open_error(path: &Path) -> EngineOpenError {
    match EmbeddedEngine::open(EmbeddedConfig::new(path)) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

async fn put(engine: &Arc<dyn Engine>, name: &str, value: impl Into<Bytes>) -> Result<u64, Error> {
    engine
        .kv_put(&namespace("app"), &key(name), value.into(), no_condition(), None, options())
        .await
        .map(|written| written.value)
}

async fn get(engine: &Arc<dyn Engine>, name: &str) -> Option<Bytes> {
    engine.kv_get(&namespace("app"), &key(name), options()).await.unwrap().map(|entry| entry.value)
}

async fn backup(engine: &Arc<dyn Engine>) -> BackupInfo {
    engine.backup(Box::new(|_, _| {})).await.unwrap()
}

async fn restore(engine: &Arc<dyn Engine>, name: &str) -> Result<(), Error> {
    engine.restore(name, Box::new(|_, _| {})).await
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Overwrites the middle of a database with rubbish, but leaves its first page.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    assert!(bytes.len() >= 3 * 4096, "{} is too small to damage", path.display());
    bytes[4096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_second_engine_on_the_folder_is_refused_and_names_the_first() {
    let folder = folder();
    let engine = open(folder.path());
    let error = open_error(folder.path());
    assert!(matches!(error, EngineOpenError::Locked { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&std::process::id().to_string()) && text.contains("LOCK"), "{text}");
    engine.close().await;
    open(folder.path()).close().await;
}

#[tokio::test]
async fn a_folder_that_can_not_be_written_is_named() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below"), PathBuf::from("/proc/self/debros")] {
        let text = open_error(&path).to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("data_dir"), "{text}");
    }
    // Permissions stop everyone but root.
    let locked = folder.path().join("locked");
    fs::create_dir(&locked).unwrap();
    let mut permissions = fs::metadata(&locked).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&locked, permissions).unwrap();
    if fs::write(locked.join("probe"), "x").is_err() {
        let text = open_error(&locked).to_string();
        assert!(text.contains("locked") && text.contains("allowed to write"), "{text}");
    }
}

/// A copy of the files while the engine runs is what a power cut leaves.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_an_unclean_stop() {
    let (folder, copy) = (folder(), folder());
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    for index in 0..50 {
        put(&engine, &format!("k{index}"), vec![1; 1000]).await.unwrap();
        query(&engine, "INSERT INTO t VALUES (?1)", &[Value::from(index)]).await.unwrap();
    }
    assert!(!folder.path().join("CLEAN").exists());
    copy_tree(folder.path(), copy.path());
    engine.close().await;
    assert!(folder.path().join("CLEAN").exists());
    let engine = open(copy.path());
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 50);
    for index in 0..50 {
        assert_eq!(get(&engine, &format!("k{index}")).await.map(|value| value.len()), Some(1000));
    }
    engine.close().await;
}

#[tokio::test]
async fn an_export_has_no_byte_of_the_names_inside_and_no_samples_of_keys() {
    let folder = folder();
    let engine = open(folder.path());
    for index in 0..60 {
        query_ok(&engine, &format!("CREATE TABLE t{index}(a, b)")).await;
    }
    query_ok(&engine, "CREATE INDEX i ON t0(a)").await;
    query_ok(&engine, "INSERT INTO t0(rowid, a) VALUES (7, 'x'), (9, 'y')").await;
    query_ok(&engine, "INSERT INTO t1(rowid, a) VALUES (5, 'x')").await;
    query_ok(&engine, "ANALYZE t0").await;
    for index in 20..60 {
        query_ok(&engine, &format!("DROP TABLE t{index}")).await;
    }
    let export = engine.export(&namespace("app")).await.unwrap();
    let bytes = fs::read(&export.path).unwrap();
    assert!(!bytes.windows(4).any(|part| part == b"ns::"));
    let db = rusqlite::Connection::open(&export.path).unwrap();
    let found = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(found("SELECT group_concat(rowid || a) FROM t0"), "7x,9y");
    assert_eq!(found("SELECT group_concat(rowid || a) FROM t1"), "5x", "rowids are what they were");
    assert_eq!(found("SELECT group_concat(tbl) FROM sqlite_stat1 WHERE idx = 'i'"), "t0");
    assert_eq!(found("SELECT count(*) || '' FROM sqlite_schema WHERE name = 'sqlite_stat4'"), "0");
    assert_eq!(found("PRAGMA integrity_check"), "ok");
    engine.close().await;
}

/// What it keeps its content in has names as the engine's tables have. No new one can have that
/// name.
#[tokio::test]
async fn an_export_is_whole_where_a_full_text_table_has_the_name_before_the_engines() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE VIRTUAL TABLE zdebros USING fts5(a)").await;
    query_ok(&engine, "INSERT INTO zdebros VALUES ('some word')").await;
    engine.close().await;
    let path = folder.path().join("ns/app.db");
    let mut bytes = fs::read(&path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - 7).filter(|at| bytes[*at..].starts_with(b"zdebros")).collect();
    places.iter().for_each(|at| bytes[*at] = b'_');
    fs::write(&path, bytes).unwrap();
    let engine = open(folder.path());
    let export = engine.export(&namespace("app")).await.unwrap();
    let db = rusqlite::Connection::open(&export.path).unwrap();
    let found: i64 = db
        .query_row("SELECT count(*) FROM _debros WHERE _debros MATCH 'word'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(found, 1);
    let own = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '~_debros%' ESCAPE '~'
        OR name = '_debros_idempotency'";
    let own: i64 = db.query_row(own, [], |row| row.get(0)).unwrap();
    assert_eq!(own, 0);
    engine.close().await;
}

/// A refusal says what refused it, and when to try again.
#[tokio::test]
async fn a_copy_that_is_refused_is_told_what_runs() {
    let folder = folder();
    let engine = open(folder.path());
    let (begin, begun) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begin, running) = (Mutex::new(Some(begin)), Arc::clone(&engine));
    let progress = move |_, _| {
        if let Some(begin) = begin.lock().unwrap().take() {
            begin.send(()).unwrap();
            let _ = released.recv();
        }
    };
    let backup = tokio::spawn(async move { running.backup(Box::new(progress)).await });
    begun.await.unwrap();
    let error = engine
        .delete_namespace(&namespace("app"), Vec::new(), options().deadline)
        .await
        .unwrap_err();
    assert!(
        error.code == Code::Conflict && error.message.starts_with("a backup is running"),
        "{error}"
    );
    assert!(error.retry_after.is_some());
    drop(release);
    backup.await.unwrap().unwrap();
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_namespaces_than_may_be_open_work_at_once() {
    let folder = folder();
    let engine =
        open_with(EmbeddedConfig { open_databases: 3, ..EmbeddedConfig::new(folder.path()) });
    let tasks: Vec<_> = (0..12)
        .map(|index| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let place = database(&format!("n{index}"));
                let create = Statement::from("CREATE TABLE IF NOT EXISTS t(a)");
                engine.query(&place, create, options()).await.unwrap();
                for value in 0..10i64 {
                    let insert = Statement::new("INSERT INTO t VALUES (?1)", [Value::from(value)]);
                    engine.query(&place, insert, options()).await.unwrap();
                    let count = engine
                        .query(&place, Statement::from("SELECT count(*) FROM t"), options())
                        .await
                        .unwrap();
                    assert_eq!(count.value.rows[0].values, [Value::from(value + 1)]);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for index in 0..12 {
        let count = Statement::from("SELECT count(*) FROM t");
        let count = engine.query(&database(&format!("n{index}")), count, options()).await.unwrap();
        assert_eq!(count.value.rows[0].values, [Value::from(10)]);
    }
    engine.close().await;
}

#[tokio::test]
async fn a_backup_with_a_wrong_checksum_is_refused_and_changes_nothing() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    put(&engine, "k", "old").await.unwrap();
    let made = backup(&engine).await;
    put(&engine, "k", "new").await.unwrap();
    let place = folder.path().join("backups").join(&made.name);
    let manifest = fs::read_to_string(place.join("manifest.json")).unwrap();
    for (file, change) in [
        ("system.db", Change::Flip),
        ("ns/app.db", Change::Flip),
        ("ns/app.db", Change::Cut),
        ("ns/app.db", Change::Remove),
        ("manifest.json", Change::Cut),
        ("manifest.json", Change::Put(manifest.replace("ns/app.db", "ns/../../../app.db"))),
        ("manifest.json", Change::Put(manifest.replace("\"system.db\"", "\"ns/other.db\""))),
        ("manifest.json", Change::Put(manifest.replace("\"format\": 1", "\"format\": 2"))),
    ] {
        let path = place.join(file);
        let before = fs::read(&path).unwrap();
        match &change {
            Change::Flip => {
                let mut bytes = before.clone();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
            Change::Cut => fs::write(&path, &before[..before.len() - 1]).unwrap(),
            Change::Remove => fs::remove_file(&path).unwrap(),
            Change::Put(text) => fs::write(&path, text).unwrap(),
        }
        let error = restore(&engine, &made.name).await.unwrap_err();
        assert_eq!(error.code, Code::Corrupt, "{file} {change:?}: {error}");
        assert!(
            error.message.contains(file) && error.message.contains("nothing was changed"),
            "{file}: {error}"
        );
        assert_eq!(get(&engine, "k").await, Some(Bytes::from("new")), "{file} {change:?}");
        fs::write(&path, before).unwrap();
    }
    restore(&engine, &made.name).await.unwrap();
    assert_eq!(get(&engine, "k").await, Some(Bytes::from("old")));
    engine.close().await;
}

#[derive(Debug)]
enum Change {
    Flip,
    Cut,
    Remove,
    Put(String),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_are_of_one_moment_while_writes_go_on() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        tokio::spawn(async move {
            let pair = || {
                vec![
                    Statement::from("INSERT INTO t VALUES (1)"),
                    Statement::from("INSERT INTO t VALUES (2)"),
                ]
            };
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                engine.transaction(&database("app"), pair(), options()).await.unwrap();
            }
        })
    };
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(backup(&engine).await.name);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
    let mut before = -1;
    for name in names {
        restore(&engine, &name).await.unwrap();
        let count = query_integer(&engine, "SELECT count(*) FROM t").await;
        assert!(count % 2 == 0 && count >= before, "{count} after {before}");
        before = count;
    }
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_backup_runs_and_only_the_newest_are_kept() {
    let folder = folder();
    let engine =
        open_with(EmbeddedConfig { backups_kept: 2, ..EmbeddedConfig::new(folder.path()) });
    put(&engine, "k", "x").await.unwrap();
    let backups = folder.path().join("backups");
    // A backup that stops at its first progress until it may go on.
    let (running, is_running) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let first = {
        let engine = Arc::clone(&engine);
        let progress = Box::new(move |_: u64, _: u64| {
            // The receiver may be gone after the first time.
            let _ = running.send(());
            let _ = may_go_on.lock().unwrap().recv();
        });
        tokio::spawn(async move { engine.backup(progress).await })
    };
    tokio::task::spawn_blocking(move || is_running.recv().unwrap()).await.unwrap();
    assert_eq!(engine.backup(Box::new(|_, _| {})).await.unwrap_err().code, Code::Conflict);
    assert_eq!(restore(&engine, "20200101T000000000Z").await.unwrap_err().code, Code::Conflict);
    put(&engine, "k", "a write during a backup").await.unwrap();
    assert!(engine.backups().await.unwrap().is_empty(), "an unfinished backup is listed");
    drop(go_on);
    let first = first.await.unwrap().unwrap();
    let leftover = backups.join("20200101T000000000Z.partial");
    fs::create_dir_all(&leftover).unwrap();
    fs::write(backups.join("not-a-backup"), "x").unwrap();
    let (second, third) = (backup(&engine).await, backup(&engine).await);
    assert!(first.name < second.name && second.name < third.name);
    assert_eq!(engine.backups().await.unwrap(), [third, second]);
    assert!(!leftover.exists() && backups.join("not-a-backup").exists());
    engine.close().await;
}

/// The marker is what a crash in the middle leaves.
#[tokio::test]
async fn an_interrupted_restore_is_finished_at_the_next_start() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    put(&engine, "k", "old").await.unwrap();
    let made = backup(&engine).await;
    put(&engine, "k", "new").await.unwrap();
    query_ok(&engine, "DROP TABLE t").await;
    engine.close().await;
    let marker = folder.path().join("RESTORE");
    fs::write(&marker, &made.name).unwrap();
    let engine = open(folder.path());
    assert!(!marker.exists());
    assert_eq!(get(&engine, "k").await, Some(Bytes::from("old")));
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 0);
    engine.close().await;
    fs::write(&marker, "20200101T000000000Z").unwrap();
    let text = open_error(folder.path()).to_string();
    assert!(text.contains("20200101T000000000Z") && text.contains("RESTORE"), "{text}");
}

/// What came after the backup goes: open, closed, damaged, and after a crash in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_deletes_the_namespaces_that_the_backup_does_not_have() {
    let folder = folder();
    let create = |engine: &Arc<dyn Engine>, name: &str| {
        let (engine, place) = (Arc::clone(engine), database(name));
        async move {
            engine.query(&place, Statement::from("CREATE TABLE t(a)"), options()).await.map(|_| ())
        }
    };
    let engine = open(folder.path());
    create(&engine, "app").await.unwrap();
    let made = backup(&engine).await;
    let size = engine.size();
    create(&engine, "closed").await.unwrap();
    engine.close().await;
    fs::write(folder.path().join("ns/damaged.db"), "this is no database ".repeat(1000)).unwrap();
    let engine = open(folder.path());
    create(&engine, "open").await.unwrap();

    let files = || {
        let mut names: Vec<String> = fs::read_dir(folder.path().join("ns"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("app."))
            .collect();
        names.sort();
        names
    };
    restore(&engine, &made.name).await.unwrap();
    assert_eq!(files(), [""; 0]);
    assert_eq!(engine.size(), size);

    // A crash after the first of several was deleted.
    for name in ["closed", "open"] {
        create(&engine, name).await.unwrap();
    }
    engine.close().await;
    fs::remove_file(folder.path().join("ns/closed.db")).unwrap();
    fs::write(folder.path().join("RESTORE"), &made.name).unwrap();
    let engine = open(folder.path());
    assert_eq!(files(), [""; 0]);
    engine.close().await;
}

/// A write that was acknowledged by a database which is then deleted goes with it; one that comes
/// after is in the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_during_a_restore_are_refused_or_kept() {
    let folder = folder();
    let engine = open(folder.path());
    put(&engine, "k", "x").await.unwrap();
    let made = backup(&engine).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut written = 0_i64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let both = vec![
                    Statement::from("CREATE TABLE IF NOT EXISTS t(a INTEGER)"),
                    Statement::new("INSERT INTO t VALUES (?1)", [Value::from(written + 1)]),
                ];
                match engine.transaction(&database("app"), both, options()).await {
                    Ok(_) => written += 1,
                    Err(error) => assert!(error.code.is_safe_to_retry(), "{error}"),
                }
            }
            written
        })
    };
    for _ in 0..20 {
        restore(&engine, &made.name).await.unwrap();
        tokio::task::yield_now().await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let last = writer.await.unwrap();
    // What is there is everything since the last deletion.
    let both = vec![
        Statement::from("CREATE TABLE IF NOT EXISTS t(a INTEGER)"),
        Statement::new("INSERT INTO t VALUES (?1)", [Value::from(last + 1)]),
    ];
    engine.transaction(&database("app"), both, options()).await.unwrap();
    engine.close().await;
    let engine = open(folder.path());
    let gaps = query_integer(&engine, "SELECT max(a) - min(a) + 1 - count(*) FROM t").await;
    assert_eq!((gaps, query_integer(&engine, "SELECT max(a) FROM t").await), (0, last + 1));
    engine.close().await;
}

#[tokio::test]
async fn a_changed_or_newer_schema_stops_the_start_and_names_it() {
    let folder = folder();
    open(folder.path()).close().await;
    let db = rusqlite::Connection::open(folder.path().join("system.db")).unwrap();
    let checksum: String = db
        .query_row("SELECT checksum FROM schema_migrations WHERE version = 1", [], |row| row.get(0))
        .unwrap();
    db.execute("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1", []).unwrap();
    assert!(open_error(folder.path()).to_string().contains("001_init.sql"));
    db.execute("UPDATE schema_migrations SET checksum = ?1 WHERE version = 1", [checksum]).unwrap();
    db.execute("INSERT INTO schema_migrations VALUES (999, 'future', 'x', 0)", []).unwrap();
    let text = open_error(folder.path()).to_string();
    assert!(text.contains("999") && text.contains("future"), "{text}");
}

#[tokio::test]
async fn left_over_exports_are_removed_at_start() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let export = engine.export(&namespace("app")).await.unwrap();
    let left = folder.path().join("tmp/left.db");
    fs::copy(&export.path, &left).unwrap();
    engine.close().await;
    let engine = open(folder.path());
    assert!(!left.exists());
    engine.close().await;
}

/// A kept answer is good for its time and no longer.
#[tokio::test]
async fn an_expired_answer_is_not_given_again() {
    let folder = folder();
    let engine = open(folder.path());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let app = database("app");
    let insert =
        || engine.query(&app, Statement::from("INSERT INTO t VALUES (1)"), keyed_options("k", 1));
    insert().await.unwrap();
    assert!(insert().await.unwrap().replayed);
    let db = rusqlite::Connection::open(folder.path().join("ns/app.db")).unwrap();
    db.execute("UPDATE _debros_idempotency SET expires_at = 1", []).unwrap();
    drop(db);
    assert!(!insert().await.unwrap().replayed);
    assert!(insert().await.unwrap().replayed);
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 2);
    engine.close().await;
}

/// Dropped without a close, it still finishes and lets go of the folder.
#[tokio::test]
async fn a_dropped_engine_keeps_what_it_said() {
    let folder = folder();
    let engine = open(folder.path());
    put(&engine, "k", "x").await.unwrap();
    drop(engine);
    let engine = open(folder.path());
    assert_eq!(get(&engine, "k").await, Some(Bytes::from("x")));
    let there = Condition { if_exists: Some(false), ..no_condition() };
    let again =
        engine.kv_put(&namespace("app"), &key("k"), Bytes::new(), there, None, options()).await;
    assert_eq!(again.unwrap_err().code, Code::PreconditionFailed);
    engine.close().await;
}
