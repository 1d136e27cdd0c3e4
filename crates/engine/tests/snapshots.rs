//! Readers that keep the snapshot they read: none misses what was written before, and the log does
//! not grow for them.

use debros_engine::conformance::{key, namespace, no_condition, options};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_engine::{Engine, TargetDatabase};
use debros_proto::rpc::Statement;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

fn open(path: &Path) -> Arc<dyn Engine> {
    Arc::new(EmbeddedEngine::open(EmbeddedConfig::new(path)).unwrap())
}

async fn put(engine: &Arc<dyn Engine>, name: &str, value: Vec<u8>) {
    engine
        .kv_put(&namespace("app"), &key(name), value.into(), no_condition(), None, options())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_read_sees_every_write_that_was_acknowledged_before_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    put(&engine, "counter", 0_u64.to_be_bytes().to_vec()).await;
    let (acknowledged, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (engine, acknowledged, done) =
                (Arc::clone(&engine), Arc::clone(&acknowledged), Arc::clone(&done));
            tokio::spawn(async move {
                let mut reads = 0_u64;
                while !done.load(SeqCst) {
                    let before = acknowledged.load(SeqCst);
                    let entry = engine
                        .kv_get(&namespace("app"), &key("counter"), options())
                        .await
                        .unwrap()
                        .unwrap();
                    let read = u64::from_be_bytes(entry.value.as_ref().try_into().unwrap());
                    assert!(read >= before, "read {read} after {before} was acknowledged");
                    reads += 1;
                    tokio::task::yield_now().await;
                }
                reads
            })
        })
        .collect();
    for count in 1..=1_000_u64 {
        put(&engine, "counter", count.to_be_bytes().to_vec()).await;
        acknowledged.store(count, SeqCst);
    }
    done.store(true, SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_is_written_back_under_readers_that_never_stop() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    put(&engine, "read", vec![7; 100]).await;
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (engine, done) = (Arc::clone(&engine), Arc::clone(&done));
            tokio::spawn(async move {
                while !done.load(SeqCst) {
                    engine.kv_get(&namespace("app"), &key("read"), options()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    // 128 MiB in all, of which the log may hold 16 MiB and what comes while it is written back.
    for round in 0..512 {
        put(&engine, &format!("big-{}", round % 64), vec![1; 256 << 10]).await;
    }
    let log = std::fs::metadata(folder.path().join("system.db-wal")).unwrap().len();
    done.store(true, SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(log < 64 << 20, "the log has {log} bytes");
}

#[tokio::test]
async fn a_quick_query_sees_a_new_table_and_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let database = TargetDatabase::Namespace(namespace("app"));
    let query = async |sql: &str| {
        engine.query(&database, Statement::from(sql), options()).await.unwrap().value
    };
    query("CREATE TABLE t (x INTEGER)").await;
    for expected in 1..=20_i64 {
        query("INSERT INTO t (x) VALUES (1)").await;
        // From the third time on it runs where it was asked, on a connection that may keep a
        // moment.
        let counted = query("SELECT count(*) FROM t").await;
        assert_eq!(counted.rows[0].values[0].as_integer(), Some(expected));
        if expected == 10 {
            query("CREATE TABLE other (y)").await;
            query("ALTER TABLE t ADD COLUMN z").await;
        }
    }
}
