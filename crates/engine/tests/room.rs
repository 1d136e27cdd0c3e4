//! What one namespace's statements may take from all: memory and room for temporary files. Both
//! limits are the process's, so these tests have a program of their own, in which they take turns.

use debros_engine::Engine;
use debros_engine::conformance::{database, options, query, query_integer, query_ok};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_proto::rpc::{Statement, Value};
use debros_proto::{Code, Error};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

const MIB: u64 = 1 << 20;
static TURN: Mutex<()> = Mutex::const_new(());

struct Bench {
    engine: Arc<dyn Engine>,
    folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

async fn bench() -> Bench {
    let turn = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        max_memory: 96 * MIB,
        max_temp_size: 64 * MIB,
        ..EmbeddedConfig::new(folder.path())
    };
    Bench { engine: Arc::new(EmbeddedEngine::open(config).unwrap()), folder, _turn: turn }
}

/// A full-text search that works on the places of a hundred phrases at once, each with all places
/// of one word.
fn phrases() -> Value {
    let phrase = format!("\"{}b\"", "a ".repeat(50));
    Value::from(vec![phrase; 100].join(" OR "))
}

async fn fill(engine: &Arc<dyn Engine>) {
    query_ok(engine, "CREATE VIRTUAL TABLE ft USING fts5(text)").await;
    query_ok(engine, "CREATE TABLE found(id)").await;
    let document = Value::from("a ".repeat(500_000));
    query(engine, "INSERT INTO ft VALUES (?1)", &[document]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_wants_all_memory_is_refused_and_nobody_else_is() {
    let Bench { engine, .. } = &bench().await;
    fill(engine).await;
    for _ in 0..2 {
        let error = query(engine, "SELECT rowid FROM ft(?1)", &[phrases()]).await.unwrap_err();
        assert_eq!(error.code, Code::Overloaded, "{error}");
        assert!(
            error.message.contains("database.max_memory") && error.retry_after.is_some(),
            "{error}"
        );
        assert_eq!(query_integer(engine, "SELECT count(*) FROM ft('a NOT b')").await, 1);
    }
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_wants_all_memory_takes_no_other_along() {
    let Bench { engine, folder, .. } = &bench().await;
    fill(engine).await;
    let mut acknowledged = 0;
    let mut greedy: Vec<Error> = Vec::new();
    for _ in 0..3 {
        let mut tasks = Vec::new();
        for index in 0..12 {
            let engine = Arc::clone(engine);
            tasks.push(tokio::spawn(async move {
                match index {
                    5 => query(&engine, "INSERT INTO found SELECT rowid FROM ft(?1)", &[phrases()])
                        .await
                        .map(|_| 0),
                    _ => query(&engine, "INSERT INTO found VALUES (7)", &[]).await.map(|_| 1),
                }
            }));
        }
        for task in tasks {
            match task.await.unwrap() {
                Ok(rows) => acknowledged += rows,
                Err(error) => greedy.push(error),
            }
        }
    }
    // Beside the greedy one others may have to try again, which surely were not done.
    assert!(greedy.len() >= 3, "{greedy:?}");
    assert!(greedy.iter().all(|error| error.code == Code::Overloaded), "{greedy:?}");
    assert_eq!(query_integer(engine, "SELECT count(*) FROM found").await, acknowledged);
    query_ok(engine, "INSERT INTO found VALUES (7)").await;
    engine.close().await;
    let engine: Arc<dyn Engine> =
        Arc::new(EmbeddedEngine::open(EmbeddedConfig::new(folder.path())).unwrap());
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM found").await, acknowledged + 1);
    engine.close().await;
}

/// Joins a thousand values of 1 MB, which are kept in a temporary file meanwhile.
const SPILLS: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000),
    m AS MATERIALIZED (SELECT x, zeroblob(1000000) || x AS z FROM c)
    SELECT count(*) FROM m a, m b WHERE a.z = b.z";

/// This process's files without a name, in a folder: their number and bytes.
fn nameless(folder: &Path) -> (usize, u64) {
    let folder = folder.canonicalize().unwrap();
    let open = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    let within = open.filter(|file| {
        std::fs::read_link(file).is_ok_and(|name| {
            name.starts_with(&folder) && name.to_string_lossy().ends_with("(deleted)")
        })
    });
    within
        .filter_map(|file| std::fs::metadata(file).ok())
        .fold((0, 0), |(n, bytes), file| (n + 1, bytes + file.len()))
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporary_files_are_in_the_data_folder_and_end_with_their_budget() {
    let Bench { engine, folder, .. } = &bench().await;
    query_ok(engine, "CREATE TABLE t(a)").await;
    let counts = {
        // Runs all the while, and writes nothing.
        let engine = Arc::clone(engine);
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) SELECT count(*) FROM n";
        tokio::spawn(async move { query_integer(&engine, sql).await })
    };
    let spilling: Vec<_> = (0..3)
        .map(|_| {
            let engine = Arc::clone(engine);
            tokio::spawn(async move {
                engine.query(&database("app"), Statement::from(SPILLS), options()).await
            })
        })
        .collect();
    let (mut seen, mut most) = (0, 0);
    while !spilling.iter().all(tokio::task::JoinHandle::is_finished) {
        let (count, bytes) = nameless(&folder.path().join("tmp"));
        (seen, most) = (seen.max(count), most.max(bytes));
        tokio::task::yield_now().await;
    }
    for task in spilling {
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.code, Code::DiskFull, "{error}");
        assert!(error.message.contains("database.max_temp_size"), "{error}");
    }
    assert!(seen > 0, "no temporary file was in the data folder");
    assert!(most < 1000 * MIB, "{most}");
    assert_eq!(counts.await.unwrap(), 3_000_000);
    // What is small spills beside nobody's files.
    assert_eq!(nameless(folder.path()).1, 0);
    assert_eq!(query_integer(engine, &SPILLS.replace("1000)", "30)")).await, 30);
    engine.close().await;
}
