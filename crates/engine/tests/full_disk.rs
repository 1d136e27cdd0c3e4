//! A disk with no byte left. A program of its own: the folder of SQLite's temporary files is one for
//! all engines of a process, so that those of other tests would lie on this disk too.

use bytes::Bytes;
use debros_engine::Engine;
use debros_engine::conformance::{
    database, key, keyed_options, namespace, no_condition, options, query_integer, query_ok,
    query_refused, transaction,
};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_proto::rpc::Statement;
use debros_proto::{Code, Error};
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

fn open_with(config: EmbeddedConfig) -> Arc<dyn Engine> {
    Arc::new(EmbeddedEngine::open(config).unwrap_or_else(|error| panic!("{error}")))
}

async fn put(engine: &Arc<dyn Engine>, name: &str, value: impl Into<Bytes>) -> Result<u64, Error> {
    engine
        .kv_put(&namespace("app"), &key(name), value.into(), no_condition(), None, options())
        .await
        .map(|written| written.value)
}

/// A small file system of its own; `None` where the test may not mount one.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(size: &str) -> Option<Mount> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Mount(folder))
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let path = self.0.path().join("filler");
        let mut file = fs::File::create(path).unwrap();
        for part in [1 << 20, 4096, 1] {
            while std::io::Write::write_all(&mut file, &vec![1; part]).is_ok() {}
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// With no byte left on the disk.
#[tokio::test]
#[allow(clippy::print_stderr, reason = "why the test did nothing")]
async fn a_full_disk_takes_deletes_and_nothing_else_until_there_is_room() {
    let Some(mount) = Mount::new("64m") else {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    };
    let path = mount.0.path().join("db");
    let config = || EmbeddedConfig { open_databases: 1, ..EmbeddedConfig::new(&path) };
    let engine = open_with(config());
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_ok(&engine, "INSERT INTO t SELECT value FROM json_each('[1,2,3,4,5,6,7,8,9]')").await;
    for index in 0..20 {
        put(&engine, &format!("k{index}"), vec![1; 100_000]).await.unwrap();
    }
    for name in ["other", "third"] {
        engine
            .query(&database(name), Statement::from("CREATE TABLE o(a)"), options())
            .await
            .unwrap();
        engine
            .query(&database(name), Statement::from("INSERT INTO o VALUES (1)"), options())
            .await
            .unwrap();
    }
    mount.fill();
    // What the logs have already holds some more.
    let error = loop {
        if let Err(error) = put(&engine, "more", vec![1; 100_000]).await {
            break error;
        }
    };
    assert_eq!(error.code, Code::DiskFull, "{error}");
    for index in 0..10 {
        let name = key(&format!("k{index}"));
        let gone = engine
            .kv_delete(
                &namespace("app"),
                &name,
                no_condition(),
                keyed_options(&format!("d{index}"), 1),
            )
            .await;
        assert!(gone.unwrap().value, "{index}");
    }
    // Its database is not open: that takes room as well.
    engine
        .query(&database("other"), Statement::from("DELETE FROM o WHERE a = 1"), options())
        .await
        .unwrap();
    query_ok(&engine, "DELETE FROM t WHERE a < 5").await;
    transaction(&engine, &["DELETE FROM t WHERE a = 5", "DELETE FROM t WHERE a = 6"])
        .await
        .unwrap();
    assert_eq!(put(&engine, "small", "x").await.unwrap_err().code, Code::DiskFull);
    assert_eq!(query_refused(&engine, "INSERT INTO t VALUES (1)").await.code, Code::DiskFull);
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 3);
    query_ok(&engine, "DROP TABLE t").await;
    engine.delete_namespace(&namespace("third"), Vec::new(), options().deadline).await.unwrap();
    engine.close().await;
    // It starts on a full disk, too, with what was kept before.
    open_with(config()).close().await;
    mount.fill();
    let engine = open_with(config());
    let name = key("k15");
    assert!(
        engine.kv_delete(&namespace("app"), &name, no_condition(), options()).await.unwrap().value
    );
    assert_eq!(put(&engine, "small", "x").await.unwrap_err().code, Code::DiskFull);
    fs::remove_file(mount.0.path().join("filler")).unwrap();
    let again = async {
        while put(&engine, "small", "x").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again)
        .await
        .expect("writes go on when there is room");
    query_ok(&engine, "CREATE TABLE t(a)").await;
    assert!(path.join("RESERVE").exists());
    engine.close().await;
}
