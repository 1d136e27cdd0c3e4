//! File descriptors of the process, in a program of its own because they are counted and taken away here.
#![cfg(target_os = "linux")]

use debros_engine::Engine;
use debros_engine::conformance::{database, options};
use debros_engine::embedded::{Embedded, EmbeddedConfig};
use debros_proto::Code;
use debros_proto::rpc::Statement;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn busy(engine: &Arc<dyn Engine>, name: &str) {
    let place = database(name);
    engine.query(&place, Statement::from("CREATE TABLE IF NOT EXISTS t (a)"), options()).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let (engine, place) = (Arc::clone(engine), place.clone());
            let sql = match number % 4 {
                0 => "INSERT INTO t VALUES (1)",
                // Long enough for the threads that query.
                1 => "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5000) SELECT count(*) FROM c",
                _ => "SELECT count(*) FROM t",
            };
            tokio::spawn(async move { engine.query(&place, Statement::from(sql), options()).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Asks until it is answered, as one does who is told to come back: whoever had the database before may still be leaving.
async fn served(engine: &Arc<dyn Engine>, name: &str, sql: &str) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while Instant::now() < give_up {
        match engine.query(&database(name), Statement::from(sql), options()).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.code, Code::Overloaded, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{name} is never served");
}

/// One test, because both parts look at the whole process.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn databases_take_as_many_descriptors_as_is_said_and_their_want_is_told_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { statement_time: Duration::from_secs(5), ..EmbeddedConfig::new(folder.path()) };
    let each = config.descriptors_per_database() as usize;
    let engine: Arc<dyn Engine> = Arc::new(Embedded::open(config).unwrap());
    let before = open_files();
    for name in ["one", "two"] {
        busy(&engine, name).await;
    }
    let taken = open_files() - before;
    assert!(taken <= 2 * each, "2 databases took {taken} descriptors, {each} each are reckoned with");

    // All that is left is taken. Databases that nobody uses give theirs back for one that is wanted.
    let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
    rlimit::Resource::NOFILE.set(open_files() as u64 + 32, hard).unwrap();
    let mut held = Vec::new();
    let take_all = |held: &mut Vec<File>| held.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
    let create = || Statement::from("CREATE TABLE new (a)");
    take_all(&mut held);
    served(&engine, "new", "CREATE TABLE new (a)").await;
    // It gets what it needs to be in use.
    held.truncate(held.len().saturating_sub(each));
    busy(&engine, "new").await;
    take_all(&mut held);

    // Where none can give any, it is told as what it is, and when to come back. The first is there before the second asks.
    let (in_use, more) = (database("new"), database("more"));
    let long = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
    let error = tokio::select! {
        biased;
        ended = engine.query(&in_use, Statement::from(long), options()) => panic!("{:?}", ended.map(|_| ())),
        refused = engine.query(&more, create(), options()) => refused.unwrap_err(),
    };
    assert_eq!(error.code, Code::Overloaded, "{error}");
    assert!(error.retry_after.is_some() && error.message.contains("open files"), "{error}");

    drop(held);
    for name in ["one", "two", "more"] {
        engine.query(&database(name), create(), options()).await.unwrap();
    }
    rlimit::Resource::NOFILE.set(soft, hard).unwrap();
    engine.close().await;
}
