//! Database files that are not there any more, are empty, are no files, or are taken away while
//! they are used.

use super::authority::system;
use super::{backup, folder, get, open, open_error, open_with, put, restore};
use debros_engine::conformance::{database, namespace, options, query_ok, query_refused};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine, EngineOpenError};
use debros_engine::{Engine, NamespaceFilter};
use debros_proto::Code;
use debros_proto::rpc::Statement;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// An engine with a pair and a table in "app", and a table in "other".
async fn furnished(path: &Path) -> Arc<dyn Engine> {
    let engine = open(path);
    system(&engine, "INSERT INTO secrets VALUES ('challenge', x'01', 1)").await;
    put(&engine, "k", "kept").await.unwrap();
    query_ok(&engine, "CREATE TABLE t(a)").await;
    other(&engine, "CREATE TABLE o(a)").await;
    engine
}

async fn other(engine: &Arc<dyn Engine>, sql: &str) {
    engine.query(&database("other"), Statement::from(sql), options()).await.unwrap();
}

fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn a_lost_system_database_stops_the_start_and_nothing_is_put_in_its_place() {
    let folder = folder();
    let engine = furnished(folder.path()).await;
    let made = backup(&engine).await;
    engine.close().await;
    let (file, record) = (folder.path().join("system.db"), folder.path().join("FILES"));
    fs::rename(&file, folder.path().join("kept")).unwrap();
    for is_empty in [false, true] {
        if is_empty {
            fs::write(&file, "").unwrap();
        }
        for _ in 0..2 {
            let error = open_error(folder.path());
            assert!(matches!(error, EngineOpenError::Lost { .. }), "{error}");
            let text = error.to_string();
            assert!(
                text.contains("system.db") && text.contains("RESTORE") && text.contains("FILES"),
                "{text}"
            );
        }
    }
    assert_eq!(fs::metadata(&file).unwrap().len(), 0);
    // Put back, all is as it was, the mark of the clean stop too.
    fs::rename(folder.path().join("kept"), &file).unwrap();
    assert!(folder.path().join("CLEAN").exists());
    let engine = open(folder.path());
    assert_eq!(get(&engine, "k").await.unwrap(), "kept");
    engine.close().await;
    // What the error says: a backup by its name.
    fs::remove_file(&file).unwrap();
    fs::write(folder.path().join("RESTORE"), &made.name).unwrap();
    let engine = open(folder.path());
    assert_eq!(get(&engine, "k").await.unwrap(), "kept");
    query_ok(&engine, "INSERT INTO t VALUES (1)").await;
    engine.close().await;
    // And that all is gone.
    fs::remove_file(&file).unwrap();
    fs::remove_file(&record).unwrap();
    let engine = open(folder.path());
    assert_eq!(get(&engine, "k").await, None);
    engine.close().await;
}

#[tokio::test]
async fn a_folder_of_databases_that_is_not_there_is_missed() {
    let folder = folder();
    let config = || EmbeddedConfig {
        file_record: folder.path().join("database.files"),
        ..EmbeddedConfig::new(folder.path().join("db"))
    };
    let engine = open_with(config());
    put(&engine, "k", "kept").await.unwrap();
    engine.close().await;
    fs::rename(folder.path().join("db"), folder.path().join("unmounted")).unwrap();
    let error = EmbeddedEngine::open(config()).map(|_| ()).unwrap_err();
    assert!(matches!(error, EngineOpenError::Lost { .. }), "{error}");
    fs::remove_dir_all(folder.path().join("db")).unwrap();
    fs::rename(folder.path().join("unmounted"), folder.path().join("db")).unwrap();
    assert_eq!(get(&open_with(config()), "k").await.unwrap(), "kept");
}

/// Its disk is another one now, or is mounted elsewhere.
#[tokio::test]
async fn a_folder_in_the_place_of_another_is_not_filled_and_a_moved_one_goes_on() {
    let folder = folder();
    let (db, moved, empty) =
        (folder.path().join("db"), folder.path().join("moved"), folder.path().join("empty"));
    let config = || EmbeddedConfig {
        file_record: folder.path().join("database.files"),
        ..EmbeddedConfig::new(db.clone())
    };
    let engine = open_with(config());
    put(&engine, "k", "kept").await.unwrap();
    query_ok(&engine, "CREATE TABLE t(a)").await;
    other(&engine, "CREATE TABLE o(a)").await;
    engine.close().await;
    fs::rename(&db, &moved).unwrap();
    fs::create_dir(&empty).unwrap();
    std::os::unix::fs::symlink(&empty, &db).unwrap();
    for _ in 0..2 {
        let error = EmbeddedEngine::open(config()).map(|_| ()).unwrap_err();
        assert!(matches!(error, EngineOpenError::Lost { .. }), "{error}");
        let text = error.to_string();
        let real = fs::canonicalize(&empty).unwrap();
        assert!(
            text.contains(&format!("{}", db.display()))
                && text.contains(&format!("{}", real.display())),
            "{text}"
        );
    }
    assert!(!empty.join("system.db").exists());
    // Moved and linked it goes on, and what was lost on the way is missed.
    fs::remove_file(&db).unwrap();
    std::os::unix::fs::symlink(&moved, &db).unwrap();
    fs::remove_file(moved.join("ns/other.db")).unwrap();
    for _ in 0..2 {
        let engine = open_with(config());
        assert_eq!(get(&engine, "k").await.unwrap(), "kept");
        query_ok(&engine, "INSERT INTO t VALUES (1)").await;
        assert_eq!(engine.lost_namespaces(), [namespace("other")]);
        engine.close().await;
    }
}

#[tokio::test]
async fn a_record_that_is_no_text_stops_the_start_with_what_to_do() {
    let folder = folder();
    let engine = furnished(folder.path()).await;
    engine.close().await;
    fs::write(folder.path().join("FILES"), [0xff, b'\n']).unwrap();
    let text = open_error(folder.path()).to_string();
    assert!(
        text.contains("FILES") && text.contains("remove it") && text.contains("all there are"),
        "{text}"
    );
    fs::remove_file(folder.path().join("FILES")).unwrap();
    assert_eq!(get(&open(folder.path()), "k").await.unwrap(), "kept");
}

#[tokio::test]
async fn a_lost_namespace_is_refused_alone_until_it_is_restored_or_deleted() {
    for is_empty in [false, true] {
        let folder = folder();
        let engine = furnished(folder.path()).await;
        let made = backup(&engine).await;
        engine.close().await;
        let file = folder.path().join("ns/app.db");
        if is_empty {
            fs::write(&file, "").unwrap()
        } else {
            fs::remove_file(&file).unwrap()
        }
        for _ in 0..2 {
            let engine = open(folder.path());
            assert_eq!(engine.lost_namespaces(), [namespace("app")]);
            for sql in ["SELECT 1", "CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"] {
                let error = query_refused(&engine, sql).await;
                assert!(
                    error.code == Code::Corrupt && error.message.contains("missing"),
                    "{error}"
                );
            }
            other(&engine, "INSERT INTO o VALUES (1)").await;
            assert_eq!(get(&engine, "k").await.unwrap(), "kept");
            let filter = NamespaceFilter { prefix: String::new(), after: None, limit: 10 };
            assert!(
                engine.namespaces(filter, options()).await.unwrap().contains(&namespace("app"))
            );
            let info = engine.namespace_info(&namespace("app"), options()).await.unwrap();
            assert!(info.problem.is_some_and(|problem| problem.contains("missing")));
            let partly = backup(&engine).await;
            assert_eq!(partly.missing, [namespace("app")]);
            engine.close().await;
        }
        let engine = open(folder.path());
        restore(&engine, &made.name).await.unwrap();
        query_ok(&engine, "INSERT INTO t VALUES (1)").await;
        assert_eq!(engine.lost_namespaces(), []);
        engine.close().await;

        fs::remove_file(&file).unwrap();
        let engine = open(folder.path());
        query_refused(&engine, "SELECT 1").await;
        engine
            .delete_namespace(&namespace("app"), Vec::new(), Instant::now() + super::FAR)
            .await
            .unwrap();
        query_ok(&engine, "CREATE TABLE t(a)").await;
        assert_eq!(engine.lost_namespaces(), []);
        engine.close().await;
        let engine = open(folder.path());
        query_ok(&engine, "INSERT INTO t VALUES (1)").await;
        engine.close().await;
    }
}

/// A crash between the making of a file and its line, or in the middle of the line.
#[tokio::test]
async fn a_database_without_its_line_in_the_record_is_entered() {
    let folder = folder();
    let engine = furnished(folder.path()).await;
    engine.close().await;
    let record = folder.path().join("FILES");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("+app\n", "") + "+gon").unwrap();
    let engine = open(folder.path());
    assert_eq!(engine.lost_namespaces(), []);
    query_ok(&engine, "INSERT INTO t VALUES (1)").await;
    engine.close().await;
    fs::remove_file(folder.path().join("ns/app.db")).unwrap();
    assert_eq!(open(folder.path()).lost_namespaces(), [namespace("app")]);
}

#[tokio::test]
async fn nothing_is_acknowledged_that_goes_into_a_file_without_a_name() {
    let folder = folder();
    let engine = furnished(folder.path()).await;
    query_ok(&engine, "INSERT INTO t VALUES (1)").await;
    for name in ["ns/app.db", "ns/app.db-wal"] {
        let (file, away) = (folder.path().join(name), folder.path().join("away"));
        fs::rename(&file, &away).unwrap();
        for is_replaced in [false, true] {
            if is_replaced {
                fs::copy(&away, &file).unwrap();
            }
            let error = query_refused(&engine, "INSERT INTO t VALUES (2)").await;
            assert_eq!(error.code, Code::Unavailable, "{name}: {error}");
            assert_eq!(engine.lost_namespaces(), [namespace("app")]);
            other(&engine, "INSERT INTO o VALUES (1)").await;
        }
        // Its operator puts it back.
        fs::rename(&away, &file).unwrap();
        query_ok(&engine, "INSERT INTO t VALUES (3)").await;
        assert_eq!(engine.lost_namespaces(), []);
    }
    // A restore recreates it.
    let made = backup(&engine).await;
    fs::remove_file(folder.path().join("ns/app.db")).unwrap();
    query_refused(&engine, "INSERT INTO t VALUES (4)").await;
    assert_eq!(backup(&engine).await.missing, [namespace("app")]);
    restore(&engine, &made.name).await.unwrap();
    query_ok(&engine, "INSERT INTO t VALUES (5)").await;
    // The same of the pairs.
    fs::remove_file(folder.path().join("system.db")).unwrap();
    assert_eq!(put(&engine, "k", "lost").await.unwrap_err().code, Code::Unavailable);
    engine.close().await;
    assert!(matches!(open_error(folder.path()), EngineOpenError::Lost { .. }));
}

#[tokio::test]
async fn what_is_no_file_is_refused_and_not_waited_for() {
    let folder = folder();
    let engine = furnished(folder.path()).await;
    engine.close().await;
    let file = folder.path().join("ns/app.db");
    fs::remove_file(&file).unwrap();
    pipe(&file);
    let engine = open(folder.path());
    query_refused(&engine, "SELECT 1").await;
    other(&engine, "INSERT INTO o VALUES (1)").await;
    engine.close().await;
    for name in ["system.db", "CLEAN", "FILES", "LOCK"] {
        let path = folder.path().join(name);
        let kept = fs::read(&path).unwrap_or_default();
        let _ = fs::remove_file(&path);
        pipe(&path);
        let text = open_error(folder.path()).to_string();
        assert!(text.contains(name) && text.contains("pipe"), "{text}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, kept).unwrap();
    }
}
