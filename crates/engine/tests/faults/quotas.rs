//! What a namespace, an owner and all together may take.

use super::{copy_tree, folder, open, open_with, put};
use debros_engine::conformance::{
    database, key, keyed_options, keyed_options_in, namespace, no_condition, options, query_ok,
    query_refused,
};
use debros_engine::embedded::EmbeddedConfig;
use debros_engine::{Engine, NamespaceInfo, TargetDatabase};
use debros_proto::rpc::Statement;
use debros_proto::{Code, Error};
use std::fs;
use std::path::Path;
use std::sync::Arc;

async fn info(engine: &Arc<dyn Engine>, name: &str) -> NamespaceInfo {
    engine.namespace_info(&namespace(name), options()).await.unwrap()
}

/// Pairs, records and rows each fill the same quota.
#[tokio::test]
async fn a_quota_counts_pairs_records_and_rows_together() {
    const QUOTA: u64 = 2 << 20;
    let folder = folder();
    let config =
        || EmbeddedConfig { max_namespace_size: Some(QUOTA), ..EmbeddedConfig::new(folder.path()) };
    let engine = open_with(config());
    let mut stored = 0;
    let error = loop {
        match put(&engine, &format!("k{stored}"), vec![7; 100_000]).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::QuotaExceeded, "{error}");
    assert!(
        error.message.contains("max_namespace_size") && error.message.contains("2097152"),
        "{error}"
    );
    assert!((15..21).contains(&stored), "{stored}");
    let full = info(&engine, "app").await;
    assert_eq!((full.kv_keys, full.kv_bytes / 100_000), (stored, stored));
    assert!(full.taken_bytes <= QUOTA && full.max_bytes == Some(QUOTA), "{full:?}");
    // Rows of the same namespace find no room, nor do records of what leaves nothing else; the
    // neighbour's do.
    let rows = "CREATE TABLE t AS SELECT zeroblob(200000) AS a";
    assert_eq!(query_refused(&engine, rows).await.code, Code::QuotaExceeded);
    let mut records = 0;
    let error = loop {
        let record = keyed_options(&format!("{:0>200}", records), 1);
        match engine.transaction(&TargetDatabase::System, Vec::new(), record).await {
            Ok(_) => records += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::QuotaExceeded, "{error}");
    for index in 0..3 {
        let (other, name) = (namespace("other"), key(&format!("k{index}")));
        engine
            .kv_put(&other, &name, vec![1; 100_000].into(), no_condition(), None, options())
            .await
            .unwrap();
    }
    engine.query(&database("other"), Statement::from(rows), options()).await.unwrap();
    // Smaller values and deletes go on, with a record too, and make room.
    put(&engine, "k0", "x").await.unwrap();
    for index in 0..5 {
        let name = key(&format!("k{index}"));
        let gone = engine
            .kv_delete(
                &namespace("app"),
                &name,
                no_condition(),
                keyed_options(&format!("d{index}"), 1),
            )
            .await
            .unwrap();
        assert!(gone.value);
    }
    query_ok(&engine, rows).await;
    engine.close().await;
    let engine = open_with(config());
    let error = put(&engine, "more", vec![7; 1 << 20]).await.unwrap_err();
    assert_eq!(error.code, Code::QuotaExceeded, "it is counted after a stop too: {error}");
    engine.close().await;
    // Without a quota there is as much as all may take.
    let engine = open_with(EmbeddedConfig { max_namespace_size: None, ..config() });
    put(&engine, "more", vec![7; 1 << 20]).await.unwrap();
    engine.close().await;
}

/// Puts pairs until not even the smallest finds room.
async fn fill(engine: &Arc<dyn Engine>, name: &str) {
    let owner = namespace(name);
    for bytes in [100_000, 10_000, 500, 1] {
        for index in 0.. {
            let (name, value) = (key(&format!("{bytes}-{index}")), vec![7; bytes].into());
            if let Err(error) =
                engine.kv_put(&owner, &name, value, no_condition(), None, options()).await
            {
                assert_eq!(error.code, Code::QuotaExceeded, "{error}");
                break;
            }
        }
    }
}

/// What is left of the quota is less than a page then, which SQLite would take for no limit.
#[tokio::test]
async fn a_namespace_whose_pairs_fill_its_quota_takes_no_rows() {
    const QUOTA: u64 = 2 << 20;
    const LARGE: &str = "CREATE TABLE large AS SELECT zeroblob(1000000) AS a";
    let folder = folder();
    let config = |quota| EmbeddedConfig {
        max_namespace_size: Some(quota),
        max_size: 12 << 20,
        ..EmbeddedConfig::new(folder.path())
    };
    let engine = open_with(config(QUOTA));
    query_ok(&engine, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)").await;
    query_ok(&engine, "INSERT INTO t(a) VALUES (1), (2), (3)").await;
    let made = super::backup(&engine).await;
    // A restore writes without a limit; the next write must have one again.
    super::restore(&engine, &made.name).await.unwrap();
    let file = info(&engine, "app").await.sql_bytes;
    fill(&engine, "app").await;
    let full = info(&engine, "app").await;
    assert!((QUOTA - 4096..=QUOTA).contains(&full.taken_bytes), "{full:?}");
    // Pairs without any rows leave no room for a file.
    fill(&engine, "new").await;
    for name in ["app", "new"] {
        for _ in 0..3 {
            let error =
                engine.query(&database(name), Statement::from(LARGE), options()).await.unwrap_err();
            assert_eq!(error.code, Code::QuotaExceeded, "{name}: {error}");
        }
    }
    assert_eq!(
        (info(&engine, "app").await.sql_bytes, info(&engine, "new").await.sql_bytes),
        (file, 0)
    );
    // What removes goes on, and the neighbour has room.
    query_ok(&engine, "DELETE FROM t WHERE id = 1").await;
    engine.query(&database("other"), Statement::from(LARGE), options()).await.unwrap();
    engine.close().await;
    // Pairs take more than the quota from the start, as those of an earlier version may.
    let engine = open_with(config(QUOTA / 2));
    for _ in 0..3 {
        assert_eq!(query_refused(&engine, LARGE).await.code, Code::QuotaExceeded);
    }
    assert_eq!(info(&engine, "app").await.sql_bytes, file);
    query_ok(&engine, "DELETE FROM t WHERE id = 2").await;
    engine.close().await;
}

/// What each namespace may take, one wallet could take as often as it makes namespaces.
#[tokio::test]
async fn all_namespaces_of_one_owner_have_a_quota_together() {
    const EACH: u64 = 2 << 20;
    const LARGE: &str = "CREATE TABLE large AS SELECT zeroblob(1500000) AS a";
    let folder = folder();
    let config = || EmbeddedConfig {
        max_namespace_size: Some(EACH),
        max_owner_size: Some(2 * EACH),
        ..EmbeddedConfig::new(folder.path())
    };
    let engine = open_with(config());
    let system = |sql: String| {
        let engine = Arc::clone(&engine);
        async move {
            engine.query(&TargetDatabase::System, Statement::from(sql), options()).await.unwrap()
        }
    };
    let own = |name: &str, owner: &str| {
        system(format!(
            "INSERT INTO namespaces (name, created_at, owner) VALUES ('{name}', 0, '{owner}')"
        ))
    };
    for (name, owner) in
        [("a1", "0xa"), ("a2", "0xa"), ("a3", "0xa"), ("b1", "0xb"), ("run", "operator")]
    {
        own(name, owner).await;
    }
    let made = super::backup(&engine).await;
    let large = |engine: &Arc<dyn Engine>, name: &str| {
        let (engine, database) = (Arc::clone(engine), database(name));
        async move { engine.query(&database, Statement::from(LARGE), options()).await.map(|_| ()) }
    };
    large(&engine, "a1").await.unwrap();
    fill(&engine, "a2").await;
    let all =
        || async { info(&engine, "a1").await.taken_bytes + info(&engine, "a2").await.taken_bytes };
    assert!(all().await <= 2 * EACH);
    let is_refused = |error: Error, what: &str| {
        assert_eq!(error.code, Code::QuotaExceeded, "{what}: {error}");
        assert!(
            error.message.contains("max_owner_size") && error.message.contains("4194304"),
            "{what}: {error}"
        );
    };
    // Rows and pairs of a namespace that has nothing yet; and what the others have goes on being
    // read and deleted.
    is_refused(large(&engine, "a3").await.unwrap_err(), "rows");
    let value = vec![7; 1_000_000].into();
    let pair =
        engine.kv_put(&namespace("a3"), &key("k"), value, no_condition(), None, options()).await;
    is_refused(pair.map(|_| ()).unwrap_err(), "pairs");
    for name in ["b1", "run"] {
        large(&engine, name).await.unwrap();
    }
    // It holds after a stop, and what goes makes room in the others.
    engine.close().await;
    let engine = open_with(config());
    is_refused(large(&engine, "a3").await.unwrap_err(), "after a stop");
    let gone = vec![Statement::from("UPDATE namespaces SET owner = '' WHERE name = 'a2'")];
    engine.delete_namespace(&namespace("a2"), gone, options().deadline).await.unwrap();
    large(&engine, "a3").await.unwrap();
    // Another's now: it counts for that one, and for the first no longer.
    let given = "UPDATE namespaces SET owner = '0xb' WHERE name = 'a1'";
    engine.query(&TargetDatabase::System, Statement::from(given), options()).await.unwrap();
    let new = "INSERT INTO namespaces (name, created_at, owner) VALUES ('a4', 0, '0xa'), ('b2', 0, '0xb')";
    engine.query(&TargetDatabase::System, Statement::from(new), options()).await.unwrap();
    large(&engine, "a4").await.unwrap();
    is_refused(large(&engine, "b2").await.unwrap_err(), "of the new owner");
    // A restore brings other owners, as a copy of another network has them; all is counted again.
    super::restore(&engine, &made.name).await.unwrap();
    for name in ["a1", "b1", "a2", "b2"] {
        large(&engine, name).await.unwrap();
    }
    is_refused(large(&engine, "a3").await.unwrap_err(), "after a restore");
    engine.close().await;
}

/// A delete of nothing with a record would grow without end.
#[tokio::test]
async fn what_is_kept_for_deletes_is_not_for_records_of_nothing() {
    let folder = folder();
    let engine = open_with(EmbeddedConfig {
        max_namespace_size: Some(1 << 20),
        ..EmbeddedConfig::new(folder.path())
    });
    let app = namespace("app");
    let mut index = 0;
    let error = loop {
        let record = keyed_options(&format!("{index:0>250}"), 1);
        match engine.kv_delete(&app, &key("nothing"), no_condition(), record).await {
            Ok(_) => index += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error.code, Code::QuotaExceeded | Code::DatabaseFull), "{error}");
    assert!(info(&engine, "app").await.taken_bytes <= 1 << 20);
    engine.close().await;
}

/// Whatever fails or expires, and however jobs share a transaction: the counts are those of the
/// rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_namespaces_have_is_counted_exactly() {
    let (folder, copy) = (folder(), folder());
    let config = |path: &Path| EmbeddedConfig {
        max_namespace_size: Some(4 << 20),
        ..EmbeddedConfig::new(path)
    };
    let engine = open_with(config(folder.path()));
    let names = ["one", "two", "three"];
    for round in 0..6_usize {
        let tasks: Vec<_> = (0..150_usize)
            .map(|index| {
                let engine = Arc::clone(&engine);
                tokio::spawn(async move {
                    let number = (round * 150 + index).wrapping_mul(2_654_435_761) >> 3;
                    let (owner, name) =
                        (namespace(names[number % 3]), key(&format!("k{}", number / 3 % 40)));
                    let record = || {
                        keyed_options_in(
                            names[number % 3],
                            &format!("r{}", number % 60),
                            (number % 4) as u8,
                        )
                    };
                    // Some are refused: by a condition, the quota, another request under the key.
                    let _ = match number / 7 % 6 {
                        0 => engine
                            .kv_delete(&owner, &name, no_condition(), options())
                            .await
                            .map(|_| ()),
                        1 => engine
                            .kv_delete(&owner, &name, no_condition(), record())
                            .await
                            .map(|_| ()),
                        2 => engine
                            .kv_put(
                                &owner,
                                &name,
                                vec![1; 5000].into(),
                                no_condition(),
                                Some(1),
                                options(),
                            )
                            .await
                            .map(|_| ()),
                        3 => {
                            let value = vec![2; number % 9000].into();
                            engine
                                .kv_put(&owner, &name, value, no_condition(), None, record())
                                .await
                                .map(|_| ())
                        }
                        4 => engine
                            .kv_put(
                                &owner,
                                &name,
                                vec![3; 200_000].into(),
                                no_condition(),
                                None,
                                options(),
                            )
                            .await
                            .map(|_| ()),
                        _ => engine
                            .transaction(&TargetDatabase::System, Vec::new(), record())
                            .await
                            .map(|_| ()),
                    };
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        if round % 2 == 1 {
            engine.sweep(debros_proto::now_ms() + 2000).await.unwrap();
        }
    }
    engine.delete_namespace(&namespace("three"), Vec::new(), options().deadline).await.unwrap();
    assert_eq!(info(&engine, "three").await.taken_bytes, 0);
    let made = super::backup(&engine).await;
    put(&engine, "k", vec![1; 3000]).await.unwrap();
    super::restore(&engine, &made.name).await.unwrap();
    let counted =
        [info(&engine, "one").await, info(&engine, "two").await, info(&engine, "app").await];
    assert!(counted[0].kv_keys > 5 && counted[0].taken_bytes > counted[0].kv_bytes, "{counted:?}");
    assert_eq!((counted[2].kv_keys, counted[2].taken_bytes), (0, 0), "what came after the backup");
    // A copy of the running engine's files is what a crash leaves: everything is counted again.
    copy_tree(folder.path(), copy.path());
    engine.close().await;
    let db = rusqlite::Connection::open(folder.path().join("system.db")).unwrap();
    let rows = "SELECT count(*), coalesce(sum(octet_length(key) + octet_length(value)), 0) FROM kv WHERE ns = ?1";
    for (path, how) in [(copy.path(), "counted"), (folder.path(), "written down")] {
        let engine = open_with(config(path));
        for (before, name) in counted.iter().zip(["one", "two", "app"]) {
            let now = info(&engine, name).await;
            assert_eq!(
                (now.kv_keys, now.kv_bytes, now.taken_bytes),
                (before.kv_keys, before.kv_bytes, before.taken_bytes),
                "{name}, {how}"
            );
            let found: (i64, i64) =
                db.query_row(rows, [name], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            assert_eq!((found.0 as u64, found.1 as u64), (now.kv_keys, now.kv_bytes), "{name}");
        }
        engine.close().await;
    }
}

/// The counts of the stop before were in the backup, and believed after the next.
#[tokio::test]
async fn a_backup_put_in_place_by_hand_is_counted_anew() {
    let folder = folder();
    let engine = open(folder.path());
    put(&engine, "before", "x").await.unwrap();
    engine.close().await;
    let engine = open(folder.path());
    for index in 0..30 {
        put(&engine, &format!("k{index}"), vec![1; 100]).await.unwrap();
    }
    let counted = info(&engine, "app").await;
    let made = super::backup(&engine).await;
    engine.close().await;
    let system = folder.path().join("system.db");
    fs::copy(folder.path().join("backups").join(&made.name).join("system.db"), &system).unwrap();
    assert!(folder.path().join("CLEAN").exists() && !system.with_extension("db-wal").exists());
    let engine = open(folder.path());
    let now = info(&engine, "app").await;
    assert_eq!((now.kv_keys, now.taken_bytes), (31, counted.taken_bytes));
    engine.close().await;
}

/// Each writer was promised all that was left when it began, so that as many as wrote at once got
/// that many times the room.
#[tokio::test(flavor = "multi_thread")]
async fn writes_of_many_namespaces_at_once_do_not_pass_the_limit_together() {
    const MAX: u64 = 16 << 20;
    const ROWS: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100) \
        INSERT INTO t SELECT randomblob(100000) FROM c";
    let folder = folder();
    let engine = open_with(EmbeddedConfig { max_size: MAX, ..EmbeddedConfig::new(folder.path()) });
    let names: Vec<String> = (0..6).map(|index| format!("n{index}")).collect();
    for name in &names {
        let table = Statement::from("CREATE TABLE t(a)");
        engine.query(&database(name), table, options()).await.unwrap();
    }
    let writes = names.iter().map(|name| {
        let (engine, database) = (Arc::clone(&engine), database(name));
        tokio::spawn(async move {
            engine.query(&database, Statement::from(ROWS), options()).await.map(|_| ())
        })
    });
    let mut outcomes = Vec::new();
    for write in writes.collect::<Vec<_>>() {
        outcomes.push(write.await.unwrap());
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(error.code, Code::DatabaseFull, "{error}");
    }
    let mut all = 0;
    for name in &names {
        all += info(&engine, name).await.sql_bytes;
        // What was refused left nothing, and small writes go on.
        let small = Statement::from("INSERT INTO t VALUES (1)");
        engine.query(&database(name), small, options()).await.unwrap();
    }
    assert!(all <= MAX, "{all}");
}
