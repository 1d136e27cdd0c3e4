//! What writes cost whose text is new each time: one caller after the other, and sixteen at once.
//!
//! ```text
//! cargo run --release -p debros-engine --example new_texts
//! ```

#![allow(clippy::print_stdout)]

use debros_engine::conformance::{database, options, query_ok};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_engine::{CallOptions, CallerKey, Engine};
use debros_proto::rpc::Statement;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const TIME: Duration = Duration::from_secs(4);

async fn insert_until(
    engine: Arc<dyn Engine>,
    caller: u64,
    number: Arc<AtomicU64>,
    until: Instant,
) {
    while Instant::now() < until {
        let sql = format!("INSERT INTO t (a) VALUES ('text {}')", number.fetch_add(1, Relaxed));
        let options = CallOptions { caller: CallerKey(caller), ..options() };
        engine
            .query(&database("app"), Statement::from(sql.as_str()), options)
            .await
            .expect("an insert");
    }
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = EmbeddedConfig::new(folder.path());
    let engine: Arc<dyn Engine> = Arc::new(EmbeddedEngine::open(config).expect("an engine"));
    query_ok(&engine, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)").await;
    let number = Arc::<AtomicU64>::default();
    for callers in [1, 16] {
        let (started, before) = (Instant::now(), number.load(Relaxed));
        let until = started + TIME;
        let running: Vec<_> = (0..callers)
            .map(|caller| {
                tokio::spawn(insert_until(Arc::clone(&engine), caller, Arc::clone(&number), until))
            })
            .collect();
        for task in running {
            task.await.expect("a caller");
        }
        let (took, writes) = (started.elapsed(), number.load(Relaxed) - before);
        println!(
            "{callers:2} callers: {:6.0} writes/s, {:6.0} µs each",
            writes as f64 / took.as_secs_f64(),
            took.as_secs_f64() * 1e6 * callers as f64 / writes as f64
        );
    }
    engine.close().await;
}
