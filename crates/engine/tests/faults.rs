//! What only the embedded engine can meet: its folder, its files, its limits of space, its copies.

use bytes::Bytes;
use debros_engine::conformance::{always, database, guarded, integer, key, must, namespace, options, query, refused};
use debros_engine::embedded::{Embedded, EmbeddedConfig, OpenError};
use debros_engine::{BackupInfo, Engine};
use debros_proto::rpc::{Condition, Statement, Value};
use debros_proto::{Code, Error};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(path: &Path) -> Arc<dyn Engine> {
    open_with(EmbeddedConfig::new(path))
}

fn open_with(config: EmbeddedConfig) -> Arc<dyn Engine> {
    Arc::new(Embedded::open(config).unwrap_or_else(|error| panic!("{error}")))
}

fn open_error(path: &Path) -> OpenError {
    match Embedded::open(EmbeddedConfig::new(path)) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

async fn put(engine: &Arc<dyn Engine>, name: &str, value: impl Into<Bytes>) -> Result<u64, Error> {
    engine
        .kv_put(&namespace("app"), &key(name), value.into(), always(), None, options())
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
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
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
    must(&engine, "CREATE TABLE t(a)").await;
    for index in 0..50 {
        put(&engine, &format!("k{index}"), vec![1; 1000]).await.unwrap();
        query(&engine, "INSERT INTO t VALUES (?1)", &[Value::from(index)]).await.unwrap();
    }
    assert!(!folder.path().join("CLEAN").exists());
    copy_tree(folder.path(), copy.path());
    engine.close().await;
    assert!(folder.path().join("CLEAN").exists());
    let engine = open(copy.path());
    assert_eq!(integer(&engine, "SELECT count(*) FROM t").await, 50);
    for index in 0..50 {
        assert_eq!(get(&engine, &format!("k{index}")).await.map(|value| value.len()), Some(1000));
    }
    engine.close().await;
}

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
    assert!(text.contains("system.db") && text.contains("damaged") && text.contains("restore"), "{text}");
    fs::write(folder.path().join("system.db"), "this is no database, and long enough to be looked at".repeat(100))
        .unwrap();
    let text = open_error(folder.path()).to_string();
    assert!(text.contains("system.db") && text.contains("damaged"), "{text}");
}

/// The others go on, and a restore mends it.
#[tokio::test]
async fn a_damaged_namespace_fails_alone_until_it_is_restored() {
    let folder = folder();
    let engine = open(folder.path());
    must(&engine, "CREATE TABLE t(a)").await;
    must(&engine, "INSERT INTO t SELECT zeroblob(1000) FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]')")
        .await;
    engine.query(&database("other"), Statement::from("CREATE TABLE o(a)"), options()).await.unwrap();
    let made = backup(&engine).await;
    engine.close().await;
    damage(&folder.path().join("ns/app.db"));
    fs::remove_file(folder.path().join("CLEAN")).unwrap();

    let engine = open(folder.path());
    for _ in 0..2 {
        assert_eq!(refused(&engine, "SELECT 1").await.code, Code::Corrupt);
    }
    engine.query(&database("other"), Statement::from("INSERT INTO o VALUES (1)"), options()).await.unwrap();
    put(&engine, "k", "x").await.unwrap();
    let partly = backup(&engine).await;
    assert_eq!((&partly.missing, made.missing.len()), (&vec![namespace("app")], 0));
    assert_eq!(engine.backups().await.unwrap(), [partly.clone(), made.clone()]);
    // A clean stop does not make the file a good one: it is still to be checked.
    engine.close().await;
    let engine = open(folder.path());
    assert_eq!(refused(&engine, "SELECT 1").await.code, Code::Corrupt);

    // What is missing in a backup stays as it is, and the others come back.
    put(&engine, "k", "y").await.unwrap();
    let before = fs::read(folder.path().join("ns/app.db")).unwrap();
    restore(&engine, &partly.name).await.unwrap();
    assert!(get(&engine, "k").await.unwrap() == "x" && fs::read(folder.path().join("ns/app.db")).unwrap() == before);
    assert_eq!(refused(&engine, "SELECT 1").await.code, Code::Corrupt);

    restore(&engine, &made.name).await.unwrap();
    assert_eq!(integer(&engine, "SELECT count(*) FROM t").await, 16);
    assert_eq!(get(&engine, "k").await, None);
    engine.close().await;
}

/// What stops the owner of a damaged database must not stop the node's operator.
#[tokio::test]
async fn a_damaged_namespace_is_described_with_what_is_wrong_and_deleted() {
    let folder = folder();
    let engine = open(folder.path());
    must(&engine, "CREATE TABLE t(a)").await;
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
    must(&engine, "CREATE TABLE t(a)").await;
    engine.close().await;
}

/// The only copy of what is damaged now may be in the oldest backup.
#[tokio::test]
async fn a_backup_that_is_not_whole_removes_none_that_is() {
    let folder = folder();
    let config = || EmbeddedConfig { backups_kept: 1, ..EmbeddedConfig::new(folder.path()) };
    let engine = open_with(config());
    must(&engine, "CREATE TABLE t(a)").await;
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
    assert_eq!(db.execute("UPDATE _debros_about SET value = 99 WHERE name = 'format'", []).unwrap(), 1);
}

#[tokio::test]
async fn a_namespace_that_can_not_be_used_is_backed_up_and_comes_back_alone_as_that() {
    let folder = folder();
    let engine = open(folder.path());
    must(&engine, "CREATE TABLE t(a)").await;
    let good = backup(&engine).await;
    engine.close().await;
    make_newer(&folder.path().join("ns/app.db"));
    let engine = open(folder.path());
    assert!(refused(&engine, "SELECT * FROM t").await.message.contains("newer version"));
    engine.query(&database("other"), Statement::from("CREATE TABLE o(a)"), options()).await.unwrap();
    let made = backup(&engine).await;
    assert_eq!(made.missing, []);

    // A file that does not open for another reason than damage is replaced as well.
    restore(&engine, &good.name).await.unwrap();
    assert_eq!(integer(&engine, "SELECT count(*) FROM t").await, 0);

    for _ in 0..2 {
        restore(&engine, &made.name).await.unwrap();
        assert!(!folder.path().join("RESTORE").exists());
        assert!(refused(&engine, "SELECT * FROM t").await.message.contains("newer version"));
        engine.query(&database("other"), Statement::from("SELECT * FROM o"), options()).await.unwrap();
    }
    engine.close().await;
    let engine = open(folder.path());
    restore(&engine, &good.name).await.unwrap();
    must(&engine, "INSERT INTO t VALUES (1)").await;
    engine.close().await;
}

#[tokio::test]
async fn a_new_namespace_is_refused_where_the_databases_are_full() {
    let folder = folder();
    let config = |max_size| EmbeddedConfig { max_size, ..EmbeddedConfig::new(folder.path()) };
    let engine = open_with(config(1 << 30));
    must(&engine, "CREATE TABLE t(a)").await;
    engine.query(&database("gone"), Statement::from("CREATE TABLE o(a)"), options()).await.unwrap();
    let made = backup(&engine).await;
    engine.delete_namespace(&namespace("gone"), Vec::new(), options().deadline).await.unwrap();
    let size = engine.size();
    engine.close().await;

    let engine = open_with(config(size + 4096));
    for index in 0..20 {
        let new = database(&format!("new{index}"));
        let error = engine.query(&new, Statement::from("CREATE TABLE n(a)"), options()).await.unwrap_err();
        assert_eq!(error.code, Code::DatabaseFull, "{error}");
        assert!(error.message.contains("max_database_size"), "{error}");
    }
    assert!(engine.size() <= size + 4096, "{} after {size}", engine.size());
    assert_eq!(integer(&engine, "SELECT count(*) FROM t").await, 0);
    // A backup goes in however full the node is.
    restore(&engine, &made.name).await.unwrap();
    engine.query(&database("gone"), Statement::from("SELECT * FROM o"), options()).await.unwrap();
    engine.close().await;
}

#[tokio::test]
async fn an_export_has_no_byte_of_the_names_inside_and_no_samples_of_keys() {
    let folder = folder();
    let engine = open(folder.path());
    for index in 0..60 {
        must(&engine, &format!("CREATE TABLE t{index}(a, b)")).await;
    }
    must(&engine, "CREATE INDEX i ON t0(a)").await;
    must(&engine, "INSERT INTO t0(rowid, a) VALUES (7, 'x'), (9, 'y')").await;
    must(&engine, "INSERT INTO t1(rowid, a) VALUES (5, 'x')").await;
    must(&engine, "ANALYZE t0").await;
    for index in 20..60 {
        must(&engine, &format!("DROP TABLE t{index}")).await;
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

/// Whoever is refused is told by what, and when to come again.
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
    let error = engine.delete_namespace(&namespace("app"), Vec::new(), options().deadline).await.unwrap_err();
    assert!(error.code == Code::Conflict && error.message.starts_with("a backup is running"), "{error}");
    assert!(error.retry_after.is_some());
    drop(release);
    backup.await.unwrap().unwrap();
    engine.close().await;
}

#[tokio::test]
async fn a_full_database_reads_deletes_and_takes_again() {
    let folder = folder();
    let engine = open_with(EmbeddedConfig { max_size: 2 << 20, ..EmbeddedConfig::new(folder.path()) });
    must(&engine, "CREATE TABLE t(a)").await;
    must(&engine, "INSERT INTO t VALUES ('here')").await;
    let mut stored = 0;
    let error = loop {
        match put(&engine, &format!("k{stored}"), vec![7; 50_000]).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::DatabaseFull, "{error}");
    assert!(error.message.contains("max_database_size"), "{error}");
    assert!(stored > 20 && engine.size() <= 2 << 20, "{stored} {}", engine.size());
    assert_eq!(
        query(&engine, "INSERT INTO t VALUES (zeroblob(500000))", &[]).await.unwrap_err().code,
        Code::DatabaseFull
    );
    assert_eq!(get(&engine, "k0").await.map(|value| value.len()), Some(50_000));
    assert_eq!(integer(&engine, "SELECT count(*) FROM t").await, 1);
    for index in 0..10 {
        let name = key(&format!("k{index}"));
        let deleted = engine.kv_delete(&namespace("app"), &name, always(), guarded(&format!("d{index}"), 1)).await;
        assert!(deleted.unwrap().value);
    }
    engine.query(&database("app"), Statement::from("DELETE FROM t"), guarded("sql", 1)).await.unwrap();
    for index in 0..8 {
        put(&engine, &format!("k{index}"), vec![7; 50_000]).await.unwrap();
    }
    engine.close().await;
    // The limit is the sum of what is there at the next start too.
    let engine = open_with(EmbeddedConfig { max_size: 1 << 20, ..EmbeddedConfig::new(folder.path()) });
    assert!(engine.size() > 1 << 20);
    assert_eq!(put(&engine, "more", vec![7; 1_000_000]).await.unwrap_err().code, Code::DatabaseFull);
    assert_eq!(get(&engine, "k11").await.map(|value| value.len()), Some(50_000));
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_namespaces_than_may_be_open_work_at_once() {
    let folder = folder();
    let engine = open_with(EmbeddedConfig { open_databases: 3, ..EmbeddedConfig::new(folder.path()) });
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
                    let count =
                        engine.query(&place, Statement::from("SELECT count(*) FROM t"), options()).await.unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let folder = folder();
    let engine = open_with(EmbeddedConfig {
        queue_count: 4,
        statement_time: std::time::Duration::from_millis(500),
        ..EmbeddedConfig::new(folder.path())
    });
    must(&engine, "CREATE TABLE t(a)").await;
    must(&engine, "INSERT INTO t VALUES (0)").await;
    let slow = {
        let engine = Arc::clone(&engine);
        let endless = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
        tokio::spawn(async move {
            loop {
                let error = refused(&engine, endless).await;
                // The others may fill the queue before it.
                if error.code != Code::Overloaded {
                    return error;
                }
            }
        })
    };
    // Thirty callers and a queue of four: while the slow statement runs, or in between, some find it full.
    let mut refusals = Vec::new();
    while refusals.is_empty() && !slow.is_finished() {
        let tasks: Vec<_> = (0..30)
            .map(|_| {
                let engine = Arc::clone(&engine);
                tokio::spawn(async move { query(&engine, "INSERT INTO t VALUES (0)", &[]).await.err() })
            })
            .collect();
        for task in tasks {
            refusals.extend(task.await.unwrap());
        }
    }
    assert!(!refusals.is_empty());
    for error in refusals {
        assert_eq!(error.code, Code::Overloaded, "{error}");
        assert!(error.retry_after.is_some(), "{error}");
    }
    assert_eq!(slow.await.unwrap().code, Code::StatementTimeout);
    must(&engine, "INSERT INTO t VALUES (0)").await;
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_queries_carry_counts_while_they_wait() {
    let folder = folder();
    let engine = open_with(EmbeddedConfig {
        readers: 1,
        queue_bytes: 1 << 20,
        statement_time: std::time::Duration::from_millis(500),
        ..EmbeddedConfig::new(folder.path())
    });
    must(&engine, "CREATE TABLE t(a)").await;
    let argument = Value::from("x".repeat(600_000));
    let mut refusals = Vec::new();
    // The first takes the only thread; most often it is the endless one, and of the others only one may wait.
    for _ in 0..10 {
        let mut tasks = Vec::new();
        for index in 0..20 {
            let (engine, argument) = (Arc::clone(&engine), argument.clone());
            let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
            tasks.push(tokio::spawn(async move {
                match index {
                    0 => query(&engine, endless, &[]).await.err(),
                    _ => query(&engine, "SELECT length(?)", &[argument]).await.err(),
                }
            }));
        }
        for task in tasks {
            refusals.extend(task.await.unwrap().filter(|error| error.code != Code::StatementTimeout));
        }
        if !refusals.is_empty() {
            break;
        }
    }
    assert!(!refusals.is_empty(), "20 queries of 600 kB never waited in more than 1 MiB");
    for error in refusals {
        assert_eq!(error.code, Code::Overloaded, "{error}");
        assert!(error.message.contains("queries") && error.retry_after.is_some(), "{error}");
    }
    assert_eq!(integer(&engine, "SELECT 7").await, 7);
    engine.close().await;
}

#[tokio::test]
async fn a_backup_with_a_wrong_checksum_is_refused_and_changes_nothing() {
    let folder = folder();
    let engine = open(folder.path());
    must(&engine, "CREATE TABLE t(a)").await;
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
        assert!(error.message.contains(file) && error.message.contains("nothing was changed"), "{file}: {error}");
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
    must(&engine, "CREATE TABLE t(a)").await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        tokio::spawn(async move {
            let pair =
                || vec![Statement::from("INSERT INTO t VALUES (1)"), Statement::from("INSERT INTO t VALUES (2)")];
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
        let count = integer(&engine, "SELECT count(*) FROM t").await;
        assert!(count % 2 == 0 && count >= before, "{count} after {before}");
        before = count;
    }
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_backup_runs_and_only_the_newest_are_kept() {
    let folder = folder();
    let engine = open_with(EmbeddedConfig { backups_kept: 2, ..EmbeddedConfig::new(folder.path()) });
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
    must(&engine, "CREATE TABLE t(a)").await;
    put(&engine, "k", "old").await.unwrap();
    let made = backup(&engine).await;
    put(&engine, "k", "new").await.unwrap();
    must(&engine, "DROP TABLE t").await;
    engine.close().await;
    let marker = folder.path().join("RESTORE");
    fs::write(&marker, &made.name).unwrap();
    let engine = open(folder.path());
    assert!(!marker.exists());
    assert_eq!(get(&engine, "k").await, Some(Bytes::from("old")));
    assert_eq!(integer(&engine, "SELECT count(*) FROM t").await, 0);
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
        async move { engine.query(&place, Statement::from("CREATE TABLE t(a)"), options()).await.map(|_| ()) }
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

/// A write that was acknowledged by a database which is then deleted goes with it; one that comes after is in the new one.
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
    let gaps = integer(&engine, "SELECT max(a) - min(a) + 1 - count(*) FROM t").await;
    assert_eq!((gaps, integer(&engine, "SELECT max(a) FROM t").await), (0, last + 1));
    engine.close().await;
}

#[tokio::test]
async fn a_changed_or_newer_schema_stops_the_start_and_names_it() {
    let folder = folder();
    open(folder.path()).close().await;
    let db = rusqlite::Connection::open(folder.path().join("system.db")).unwrap();
    let checksum: String =
        db.query_row("SELECT checksum FROM schema_migrations WHERE version = 1", [], |row| row.get(0)).unwrap();
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
    must(&engine, "CREATE TABLE t(a)").await;
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
    must(&engine, "CREATE TABLE t(a)").await;
    let app = database("app");
    let insert = || engine.query(&app, Statement::from("INSERT INTO t VALUES (1)"), guarded("k", 1));
    insert().await.unwrap();
    assert!(insert().await.unwrap().replayed);
    let db = rusqlite::Connection::open(folder.path().join("ns/app.db")).unwrap();
    db.execute("UPDATE _debros_idempotency SET expires_at = 1", []).unwrap();
    drop(db);
    assert!(!insert().await.unwrap().replayed);
    assert!(insert().await.unwrap().replayed);
    assert_eq!(integer(&engine, "SELECT count(*) FROM t").await, 2);
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
    let there = Condition { if_exists: Some(false), ..always() };
    let again = engine.kv_put(&namespace("app"), &key("k"), Bytes::new(), there, None, options()).await;
    assert_eq!(again.unwrap_err().code, Code::PreconditionFailed);
    engine.close().await;
}

async fn system(engine: &Arc<dyn Engine>, sql: &str) -> Vec<String> {
    let place = debros_engine::Database::System;
    let rows = engine.query(&place, Statement::from(sql), options()).await.unwrap().value.rows;
    rows.iter().filter_map(|row| row.values.first()?.as_text().map(str::to_owned)).collect()
}

/// A network's secret, one row of each table that says who may act, and namespaces with data of every kind.
async fn inhabit(engine: &Arc<dyn Engine>, secret: &str) {
    for sql in [
        &format!("INSERT INTO secrets VALUES ('challenge', CAST('{secret}' AS BLOB), 1)"),
        "INSERT INTO api_keys (id, hash, prefix, namespace, role, created_at) VALUES ('k', x'01', 'ak', 'app', 'admin', 1)",
        "INSERT INTO grants VALUES ('app', '0x02', 'admin', '0x01', 1)",
        "INSERT INTO namespaces VALUES ('app', 1, '0x01'), ('gone-sql', 1, '0x01'), ('gone-kv', 1, '0x01'), \
         ('gone-apps', 1, '0x01')",
        "INSERT INTO sessions VALUES ('s', '0x01', 'app', 1, NULL, 9, NULL)",
        "INSERT INTO refresh_tokens VALUES (x'01', 's', 1, 9, NULL)",
        "INSERT INTO signing_keys VALUES ('kid', x'01', 'node', 1, NULL)",
        "INSERT INTO apps (app_id, namespace, name, created_at, updated_at) VALUES ('a', 'gone-apps', 'a', 1, 1)",
        "INSERT INTO audit_events (at, kind) VALUES (1, 'before')",
    ] {
        system(engine, sql).await;
    }
    engine.query(&database("gone-sql"), Statement::from("CREATE TABLE t(a)"), options()).await.unwrap();
    let other = namespace("gone-kv");
    engine.kv_put(&other, &key("k"), Bytes::from("x"), always(), None, options()).await.unwrap();
    put(engine, "k", "old").await.unwrap();
}

/// Everything is revoked, and the namespaces' names are free.
async fn revoke(engine: &Arc<dyn Engine>) {
    for sql in [
        "UPDATE api_keys SET revoked_at = 2",
        "DELETE FROM grants",
        "UPDATE namespaces SET owner = '0x03' WHERE name = 'app'",
        "DELETE FROM namespaces WHERE name <> 'app'",
        "UPDATE sessions SET revoked_at = 2",
        "UPDATE refresh_tokens SET used_at = 2",
        "UPDATE signing_keys SET removed_at = 2",
        "INSERT INTO used_nonces VALUES (x'01', 9)",
        "INSERT INTO audit_events (at, kind) VALUES (2, 'after')",
    ] {
        system(engine, sql).await;
    }
    put(engine, "k", "new").await.unwrap();
}

/// Everybody who may act, and what is written down of it.
async fn who_may_act(engine: &Arc<dyn Engine>) -> Vec<String> {
    let mut all = Vec::new();
    for sql in [
        "SELECT id FROM api_keys WHERE revoked_at IS NULL",
        "SELECT wallet FROM grants",
        "SELECT name || ' ' || owner FROM namespaces ORDER BY name",
        "SELECT id FROM sessions WHERE revoked_at IS NULL",
        "SELECT 'unused' FROM refresh_tokens WHERE used_at IS NULL",
        "SELECT kid FROM signing_keys WHERE removed_at IS NULL",
        "SELECT 'nonce' FROM used_nonces",
        "SELECT kind FROM audit_events ORDER BY id",
    ] {
        all.extend(system(engine, sql).await);
    }
    all
}

const KEPT: [&str; 7] = [
    "app 0x03",
    // What came back with data and belonged to nobody.
    "gone-apps operator",
    "gone-kv operator",
    "gone-sql operator",
    "nonce",
    "before",
    "after",
];

/// A restore made everything that was revoked since the backup good again.
#[tokio::test]
async fn a_restore_brings_data_back_and_leaves_who_may_act_as_it_is() {
    let folder = folder();
    let engine = open(folder.path());
    inhabit(&engine, "one").await;
    let made = backup(&engine).await;
    revoke(&engine).await;
    restore(&engine, &made.name).await.unwrap();
    assert_eq!(get(&engine, "k").await, Some(Bytes::from("old")));
    assert_eq!(who_may_act(&engine).await, KEPT);
    // Interrupted before anything was replaced, and after everything was: both times the next start finishes it.
    let mut engine = engine;
    for value in ["new", "old"] {
        put(&engine, "k", value).await.unwrap();
        engine.close().await;
        let marker = folder.path().join("RESTORE");
        fs::write(&marker, &made.name).unwrap();
        engine = open(folder.path());
        assert!(!marker.exists());
        assert_eq!(get(&engine, "k").await, Some(Bytes::from("old")));
        assert_eq!(who_may_act(&engine).await, KEPT);
    }
    engine.close().await;
}

#[tokio::test]
async fn a_backup_of_another_network_brings_who_may_act_and_its_sessions_have_ended() {
    let (first, second) = (folder(), folder());
    let engine = open(first.path());
    inhabit(&engine, "one").await;
    let made = backup(&engine).await;
    engine.close().await;
    let engine = open(second.path());
    system(&engine, "INSERT INTO secrets VALUES ('challenge', x'02', 1)").await;
    system(&engine, "INSERT INTO signing_keys VALUES ('kid', x'01', 'node', 1, 5)").await;
    copy_tree(&first.path().join("backups"), &second.path().join("backups"));
    restore(&engine, &made.name).await.unwrap();
    assert_eq!(
        who_may_act(&engine).await,
        ["k", "0x02", "app 0x01", "gone-apps 0x01", "gone-kv 0x01", "gone-sql 0x01", "unused", "before"],
        "the key that is known to be removed stays so"
    );
    assert_eq!(get(&engine, "k").await, Some(Bytes::from("old")));
    assert_eq!(system(&engine, "SELECT hex(value) FROM secrets").await, ["6F6E65"]);
    engine.close().await;
}

/// Everything of a namespace that a restore could bring back: rows, a pair, an application, kept answers.
async fn furnish(engine: &Arc<dyn Engine>, name: &str, owner: &str, created_at: i64) {
    for sql in [
        format!("INSERT INTO namespaces VALUES ('{name}', {created_at}, '{owner}')"),
        format!(
            "INSERT INTO apps (app_id, namespace, name, created_at, updated_at) VALUES ('{name}-{owner}', '{name}', 'a', 1, 1)"
        ),
        format!("INSERT INTO _debros_idempotency VALUES ('', 'ns::{name}::{owner}', x'', x'', 9999999999999)"),
    ] {
        system(engine, &sql).await;
    }
    let rows = format!("CREATE TABLE t AS SELECT '{owner}' AS a");
    engine.query(&database(name), Statement::from(rows.as_str()), guarded("sql", 1)).await.unwrap();
    let value = Bytes::from(owner.to_owned());
    engine.kv_put(&namespace(name), &key("k"), value, always(), None, guarded("kv", 1)).await.unwrap();
}

/// Whose data a namespace has, by every way to it; `None` when it has none at all.
async fn furnished_by(engine: &Arc<dyn Engine>, name: &str) -> Option<String> {
    let apps = format!("SELECT substr(app_id, {}) FROM apps WHERE namespace = '{name}'", name.len() + 2);
    let answers = format!(
        "SELECT substr(key, {}) FROM _debros_idempotency WHERE ns = '' AND key >= 'ns::{name}::' AND key < 'ns::{name}:;'",
        name.len() + 7
    );
    let kept = format!("SELECT key FROM _debros_idempotency WHERE ns = '{name}'");
    let pair = engine.kv_get(&namespace(name), &key("k"), options()).await.unwrap().map(|entry| entry.value);
    let pair: Vec<String> = pair.iter().map(|value| String::from_utf8(value.to_vec()).unwrap()).collect();
    let rows = match engine.query(&database(name), Statement::from("SELECT a FROM t"), options()).await {
        Ok(found) => found.value.rows.iter().map(|row| row.values[0].as_text().unwrap().to_owned()).collect(),
        Err(error) => {
            assert_eq!(error.code, Code::Sql, "{error}");
            Vec::new()
        }
    };
    let kept = system(engine, &kept).await.len();
    let found = [system(engine, &apps).await, system(engine, &answers).await, pair, rows];
    assert!(found.iter().all(|ways| *ways == found[0]), "{name}: {found:?}");
    assert_eq!(kept, found[0].len(), "{name}: kept answers of pairs");
    found[0].first().cloned()
}

async fn delete(engine: &Arc<dyn Engine>, name: &str) {
    let rows = [
        format!("DELETE FROM namespaces WHERE name = '{name}'"),
        format!("DELETE FROM apps WHERE namespace = '{name}'"),
        format!("DELETE FROM _debros_idempotency WHERE ns = '' AND key LIKE 'ns::{name}::%'"),
    ];
    let also = rows.iter().map(|sql| Statement::from(sql.as_str())).collect();
    engine.delete_namespace(&namespace(name), also, options().deadline).await.unwrap();
}

/// The first owner's data came back to whoever had the name then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_gives_a_deleted_namespaces_data_to_nobody_who_made_the_name_again() {
    let folder = folder();
    let engine = open(folder.path());
    system(&engine, "INSERT INTO secrets VALUES ('challenge', x'01', 1)").await;
    for name in ["again", "given", "gone", "taken", "unlisted"] {
        furnish(&engine, name, "0x01", 1).await;
    }
    system(&engine, "DELETE FROM namespaces WHERE name = 'unlisted'").await;
    let made = backup(&engine).await;
    for name in ["again", "gone", "taken", "unlisted"] {
        delete(&engine, name).await;
    }
    system(&engine, "UPDATE namespaces SET owner = '0x02' WHERE name = 'given'").await;
    furnish(&engine, "again", "0x01", 2).await;
    for name in ["since", "taken", "unlisted"] {
        furnish(&engine, name, "0x02", 2).await;
    }
    restore(&engine, &made.name).await.unwrap();

    let mut engine = engine;
    for round in 0..3 {
        for (name, whose) in [
            ("again", Some("0x01")),
            ("given", Some("0x01")),
            ("gone", Some("0x01")),
            ("since", None),
            ("taken", None),
            ("unlisted", None),
        ] {
            assert_eq!(furnished_by(&engine, name).await.as_deref(), whose, "{name}, round {round}");
        }
        assert_eq!(
            system(&engine, "SELECT name || ' ' || owner || ' ' || created_at FROM namespaces ORDER BY name").await,
            ["again 0x01 2", "given 0x02 1", "gone operator 1", "since 0x02 2", "taken 0x02 2", "unlisted 0x02 2"],
            "round {round}"
        );
        // Interrupted when nothing but the marker was there, or after everything.
        engine.close().await;
        fs::write(folder.path().join("RESTORE"), &made.name).unwrap();
        engine = open(folder.path());
    }
    engine.close().await;
}
