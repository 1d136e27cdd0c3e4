//! Damage that comes to a file while it is open. A program of its own, because it reads the log of
//! all threads.

use debros_engine::Engine;
use debros_engine::conformance::{database, key, namespace, no_condition, options, query_ok};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_proto::rpc::Statement;
use debros_proto::{Code, Error};
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// What came since it was asked the last time.
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

/// Overwrites all pages but the first, which stays in every connection's memory. The file keeps its
/// length: parts of it are mapped.
fn damage(path: &Path) {
    let pages = std::fs::metadata(path).unwrap().len() / 4096;
    assert!(pages > 10, "{} is too small to damage", path.display());
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&vec![0x5a; (pages as usize - 1) * 4096], 4096).unwrap();
}

#[tokio::test]
async fn the_log_names_the_file_and_the_caller_learns_no_path() {
    let log = Log::default();
    let sink = log.clone();
    tracing_subscriber::fmt().with_writer(move || sink.clone()).with_ansi(false).init();
    let folder = tempfile::tempdir().unwrap();
    let open = || -> Arc<dyn Engine> {
        Arc::new(EmbeddedEngine::open(EmbeddedConfig::new(folder.path())).unwrap())
    };
    let engine = open();
    query_ok(&engine, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)").await;
    query_ok(
        &engine,
        "INSERT INTO t(a) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         SELECT zeroblob(1000) FROM n",
    )
    .await;
    for index in 0..100 {
        let (name, key) = (namespace("app"), key(&format!("k{index}")));
        engine
            .kv_put(&name, &key, vec![7; 1000].into(), no_condition(), None, options())
            .await
            .unwrap();
    }
    engine.close().await;
    let engine = open();
    // Opens it.
    query_ok(&engine, "SELECT 1").await;
    let (app, system) = (folder.path().join("ns/app.db"), folder.path().join("system.db"));
    damage(&app);
    damage(&system);
    log.take();

    let check = |what: &str, path: &Path, error: Error| {
        assert_eq!(error.code, Code::Corrupt, "{what}: {error}");
        assert!(!error.message.contains(folder.path().to_str().unwrap()), "{what}: {error}");
        let logged = log.take();
        assert!(logged.contains("the database is damaged"), "{what}: {logged}");
        assert!(logged.contains(path.to_str().unwrap()), "{what}: {logged}");
    };
    let sql = async |text: &str| {
        engine.query(&database("app"), Statement::from(text), options()).await.unwrap_err()
    };
    check("a statement that writes", &app, sql("INSERT INTO t(a) VALUES (1)").await);
    check("a query", &app, sql("SELECT count(a) FROM t").await);
    // Known by now: it is refused before it comes to the file.
    let known = sql("UPDATE t SET a = 1").await;
    assert!(known.code == Code::Corrupt && log.take().is_empty(), "{known}");
    check("an export", &app, engine.export(&namespace("app")).await.unwrap_err());
    let (name, key) = (namespace("app"), key("k50"));
    let put = async || {
        engine
            .kv_put(&name, &key, vec![8].into(), no_condition(), None, options())
            .await
            .unwrap_err()
    };
    check("a put", &system, put().await);
    check("a get", &system, engine.kv_get(&name, &key, options()).await.unwrap_err());
    let known = put().await;
    assert!(known.code == Code::Corrupt && log.take().is_empty(), "{known}");
    engine.close().await;
}
