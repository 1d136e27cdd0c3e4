//! File descriptors of the process, in a program of its own because they are counted and taken away
//! here.
#![cfg(target_os = "linux")]

use debros_engine::Engine;
use debros_engine::conformance::{database, options};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_proto::Code;
use debros_proto::rpc::Statement;
use std::fs::File;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn busy(engine: &Arc<dyn Engine>, name: &str) {
    let place = database(name);
    engine
        .query(&place, Statement::from("CREATE TABLE IF NOT EXISTS t (a)"), options())
        .await
        .unwrap();
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

/// Asks until it is answered, as a caller does that is to try again: the one that had the database
/// before may still be leaving.
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
    let config = EmbeddedConfig {
        statement_time: Duration::from_secs(5),
        ..EmbeddedConfig::new(folder.path())
    };
    let each = config.descriptors_per_database() as usize;
    let engine: Arc<dyn Engine> = Arc::new(EmbeddedEngine::open(config).unwrap());
    let before = open_files();
    for name in ["one", "two"] {
        busy(&engine, name).await;
    }
    let taken = open_files() - before;
    assert!(
        taken <= 2 * each,
        "2 databases took {taken} descriptors, {each} each are reckoned with"
    );

    // All that is left is taken. Databases that nobody uses give theirs back for one that is
    // wanted.
    let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
    rlimit::Resource::NOFILE.set((open_files() + 4 * each) as u64, hard).unwrap();
    let mut held = Vec::new();
    let take_all =
        |held: &mut Vec<File>| held.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
    let create = || Statement::from("CREATE TABLE new (a)");
    take_all(&mut held);
    served(&engine, "new", "CREATE TABLE new (a)").await;

    // Where none can give any, the error says so, and when to try again. All that are open are in
    // use for so long: those that had to leave are there again before the descriptors are taken,
    // and nobody is still leaving.
    let mut open = vec!["one", "two", "new"];
    let error = loop {
        held.truncate(held.len().saturating_sub(open.len() * each));
        for name in &open {
            busy(&engine, name).await;
        }
        take_all(&mut held);
        let mut in_use: Vec<_> = open
            .iter()
            .map(|name| {
                let long = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
                let (engine, place) = (Arc::clone(&engine), database(name));
                Box::pin(async move { engine.query(&place, Statement::from(long), options()).await.unwrap_err() })
            })
            .collect();
        let first_end = std::future::poll_fn(|context| {
            let ended = in_use.iter_mut().find_map(|one| match one.as_mut().poll(context) {
                Poll::Ready(error) => Some(error),
                Poll::Pending => None,
            });
            ended.map_or(Poll::Pending, Poll::Ready)
        });
        let wanted = ["more", "more-2", "more-3", "more-4"][open.len() - 3];
        let place = database(wanted);
        tokio::select! {
            biased;
            // On a slow machine the one that is wanted may come to a database that is free again:
            // it is one more then.
            error = first_end => assert_eq!(error.code, Code::StatementTimeout, "{error}"),
            refused = engine.query(&place, create(), options()) => break refused.unwrap_err(),
        }
        open.push(wanted);
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
