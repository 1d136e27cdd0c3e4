//! Measures an engine with many namespaces: what making one costs, what they take, and what a
//! statement in one costs among few and among many.
//!
//! ```text
//! cargo run --release -p debros-engine --example namespaces -- <folder> [namespaces, 10000]
//! ```

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use debros_engine::conformance::{database, namespace, options};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_engine::{Engine, NamespaceFilter};
use debros_proto::rpc::{Statement, Value};
use std::time::{Duration, Instant};

const TABLES: usize = 5;
const ROUNDS: i64 = 2000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("give a folder for the databases; it is filled")?;
    let count: usize = args.next().map_or(Ok(10_000), |count| count.parse())?;
    let config = EmbeddedConfig { max_size: 1 << 40, ..EmbeddedConfig::new(folder) };
    println!("{} databases are kept open", config.open_databases);
    let engine = EmbeddedEngine::open(config)?;
    let mut made = Vec::new();
    for index in 0..count {
        if index == 10 {
            report(&engine, 10).await?;
        }
        made.push(make(&engine, index).await?);
        if index + 1 == 100 || index + 1 == 1000 {
            report(&engine, index + 1).await?;
        }
    }
    made.sort_unstable();
    let (all, first): (Vec<Duration>, Vec<Duration>) = made.into_iter().unzip();
    let mut first = first;
    first.sort_unstable();
    for (what, times) in [("first statement", &first), ("5 tables", &all)] {
        let at = |share: usize| times[(times.len() - 1) * share / 1000];
        println!("{what}: median {:?}, p99 {:?}, slowest {:?}", at(500), at(990), at(1000));
    }
    report(&engine, count).await?;
    let started = Instant::now();
    let filter = NamespaceFilter { prefix: String::new(), after: None, limit: usize::MAX };
    let listed = engine.namespaces(filter, options()).await?.len();
    println!("listing {listed}: {:?}", started.elapsed());
    let started = Instant::now();
    engine.delete_namespace(&namespace("n0"), Vec::new(), options().deadline).await?;
    println!("deleting one: {:?}", started.elapsed());
    engine.close().await;
    Ok(())
}

/// How long all its tables took, and the first of them.
async fn make(
    engine: &EmbeddedEngine,
    index: usize,
) -> Result<(Duration, Duration), debros_proto::Error> {
    let place = database(&format!("n{index}"));
    let started = Instant::now();
    let mut first = None;
    for table in 0..TABLES {
        let sql = format!(
            "CREATE TABLE t{table}(id INTEGER PRIMARY KEY, name TEXT NOT NULL, at TEXT DEFAULT CURRENT_TIMESTAMP, n INTEGER)"
        );
        engine.query(&place, Statement::from(sql.as_str()), options()).await?;
        first.get_or_insert_with(|| started.elapsed());
    }
    let all = started.elapsed();
    let rows = Statement::from("INSERT INTO t0(name, n) VALUES ('a', 1), ('b', 2), ('c', 3)");
    engine.query(&place, rows, options()).await?;
    Ok((all, first.unwrap_or_default()))
}

/// What a statement costs now in a namespace that is in use.
async fn report(engine: &EmbeddedEngine, count: usize) -> Result<(), debros_proto::Error> {
    let place = database("n5");
    let mut costs = Vec::new();
    for (sql, args) in [
        ("SELECT name FROM t0 WHERE id = ?1", vec![Value::from(1)]),
        ("INSERT INTO t1(name, n) VALUES (?1, ?2)", vec![Value::from("x"), Value::from(1)]),
    ] {
        let statement = || Statement::new(sql, args.iter().cloned());
        for _ in 0..10 {
            engine.query(&place, statement(), options()).await?;
        }
        let started = Instant::now();
        for _ in 0..ROUNDS {
            engine.query(&place, statement(), options()).await?;
        }
        costs.push(started.elapsed() / ROUNDS as u32);
    }
    println!(
        "{count} namespaces: read {:?}, insert {:?}, {} MiB resident, {} MiB on disk",
        costs[0],
        costs[1],
        resident() >> 20,
        engine.size() >> 20
    );
    Ok(())
}

/// Bytes of memory that the process holds; 0 where the system does not report it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}
