//! What one namespace's small puts and quick reads take while another's large puts and endless
//! reads run.
//!
//! ```text
//! cargo run --release -p debros-engine --example neighbours
//! ```

#![allow(clippy::print_stdout)]

use debros_engine::conformance::{database, key, namespace, no_condition, options, query_ok};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_engine::{CallOptions, CallerKey, Engine};
use debros_proto::rpc::Statement;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TIME: Duration = Duration::from_secs(5);
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

fn by(caller: u64) -> CallOptions {
    CallOptions { caller: CallerKey(caller), ..options() }
}

async fn small_puts(engine: &Arc<dyn Engine>) -> Vec<Duration> {
    let (until, mut took) = (Instant::now() + TIME, Vec::new());
    while Instant::now() < until {
        let started = Instant::now();
        engine
            .kv_put(
                &namespace("small"),
                &key("k"),
                vec![1; 100].into(),
                no_condition(),
                None,
                by(1),
            )
            .await
            .expect("a small put");
        took.push(started.elapsed());
    }
    took
}

async fn quick_reads(engine: &Arc<dyn Engine>) -> Vec<Duration> {
    let (until, mut took) = (Instant::now() + TIME, Vec::new());
    while Instant::now() < until {
        // A text that is new each time, so that it is not known to be quick.
        let sql = format!("SELECT a + {} FROM t", took.len());
        let started = Instant::now();
        engine
            .query(&database("app"), Statement::from(sql.as_str()), by(1))
            .await
            .expect("a quick read");
        took.push(started.elapsed());
    }
    took
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!(
        "{what:45} {:6} calls, p50 {:?}, p99 {:?}, longest {:?}",
        took.len(),
        at(50),
        at(99),
        at(100)
    );
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine: Arc<dyn Engine> =
        Arc::new(EmbeddedEngine::open(EmbeddedConfig::new(folder.path())).expect("an engine"));
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_ok(&engine, "INSERT INTO t VALUES (1)").await;
    report("small puts", small_puts(&engine).await);
    report("new reads", quick_reads(&engine).await);
    let large: Vec<_> = (0..8)
        .map(|number| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let (name, value) =
                    (key(&format!("k{number}")), bytes::Bytes::from(vec![1; 4 << 20]));
                loop {
                    let _ = engine
                        .kv_put(
                            &namespace("large"),
                            &name,
                            value.clone(),
                            no_condition(),
                            None,
                            by(2),
                        )
                        .await;
                }
            })
        })
        .collect();
    report("small puts, beside 8 callers with 4 MiB each", small_puts(&engine).await);
    large.iter().for_each(tokio::task::JoinHandle::abort);
    let endless: Vec<_> = (0..8)
        .map(|number| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                loop {
                    let _ = engine
                        .query(&database("app"), Statement::from(ENDLESS), by(2 + number % 2))
                        .await;
                }
            })
        })
        .collect();
    report("new reads, beside 8 endless of two callers", quick_reads(&engine).await);
    endless.iter().for_each(tokio::task::JoinHandle::abort);
    engine.close().await;
}
