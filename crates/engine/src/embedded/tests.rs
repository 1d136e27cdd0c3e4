//! Calls that wait while something happens to their namespace, and which thread a statement takes.

use super::EmbeddedEngine;
use super::config::EmbeddedConfig;
use super::verdict_cache::CachedVerdict;
use crate::conformance::{key, keyed_options, namespace, no_condition, options};
use crate::{Engine, TargetDatabase};
use debros_proto::{Code, Result};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

async fn is_pending<T>(call: &mut Pin<Box<dyn Future<Output = Result<T>> + Send + '_>>) -> bool {
    poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_pending())).await
}

/// They were let in before the deletion, and their pairs and records came after it.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_wait_for_a_key_are_refused_when_their_namespace_was_deleted_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let engine = EmbeddedEngine::open(EmbeddedConfig::new(folder.path()))
        .unwrap_or_else(|error| panic!("{error}"));
    let app = namespace("app");
    let pair = key("k");
    let write = || keyed_options("one", 1);
    let held = engine
        .key_locks
        .lock_key(&write().idempotency_key.unwrap(), write().deadline)
        .await
        .unwrap();
    let mut put = engine.kv_put(&app, &pair, "x".into(), no_condition(), None, write());
    let mut delete = engine.kv_delete(&app, &pair, no_condition(), write());
    let mut record = engine.transaction(&TargetDatabase::System, Vec::new(), write());
    assert!(
        is_pending(&mut put).await
            && is_pending(&mut delete).await
            && is_pending(&mut record).await
    );
    engine.delete_namespace(&app, Vec::new(), options().deadline).await.unwrap();
    drop(held);
    let refused = [
        put.await.err().map(|error| error.code),
        delete.await.err().map(|error| error.code),
        record.await.err().map(|error| error.code),
    ];
    assert_eq!(refused, [Some(Code::Unavailable); 3]);
    let left = engine.databases.shared.sizes.namespace_usage(&app);
    assert_eq!(left.total(), 0, "{left:?}");
    // The next owner's.
    engine.kv_put(&app, &pair, "y".into(), no_condition(), None, write()).await.unwrap();
    engine.close().await;
}

/// Its records are in the lost file, so it is not known what a key came with.
#[tokio::test]
async fn a_key_does_nothing_while_the_namespaces_file_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        EmbeddedEngine::open(EmbeddedConfig::new(folder.path()))
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let engine = open();
    let (app, place) = (namespace("app"), TargetDatabase::Namespace(namespace("app")));
    engine.query(&place, "CREATE TABLE t(a)".into(), keyed_options("one", 1)).await.unwrap();
    engine.close().await;
    std::fs::remove_file(folder.path().join("ns/app.db")).unwrap();
    let engine = open();
    let pair = key("k");
    let put =
        engine.kv_put(&app, &pair, "x".into(), no_condition(), None, keyed_options("one", 2)).await;
    assert_eq!(put.unwrap_err().code, Code::Corrupt);
    let delete = engine.kv_delete(&app, &pair, no_condition(), keyed_options("one", 2)).await;
    assert_eq!(delete.unwrap_err().code, Code::Corrupt);
    // Without a key nothing is asked.
    engine.kv_put(&app, &pair, "x".into(), no_condition(), None, options()).await.unwrap();
    engine.close().await;
}

/// No query thread starts for it, and what its compilation shows is known the next time.
#[tokio::test]
async fn a_new_text_that_always_writes_goes_to_the_writer_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        EmbeddedEngine::open(EmbeddedConfig::new(folder.path()))
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let (app, place) = (namespace("app"), TargetDatabase::Namespace(namespace("app")));
    let engine = open();
    for sql in [
        "CREATE TABLE t(a)",
        "CREATE TABLE log(a)",
        "CREATE TRIGGER u AFTER UPDATE ON t BEGIN INSERT INTO log VALUES (new.a); END",
    ] {
        engine.query(&place, sql.into(), options()).await.unwrap();
    }
    engine.close().await;
    let engine = open();
    let writer_alone = 1;
    for (sql, is_self_atomic, threads) in [
        ("INSERT INTO t VALUES (1)", true, writer_alone),
        ("/* c */ replace INTO t VALUES (2)", true, writer_alone),
        ("INSERT INTO t VALUES (3) RETURNING a", false, writer_alone),
        ("UPDATE t SET a = 4 WHERE a = 3", false, writer_alone),
        // Whether it only removes has to be known while it waits.
        ("DELETE FROM t WHERE a = 4", true, writer_alone + 1),
    ] {
        for _ in 0..2 {
            engine.query(&place, sql.into(), options()).await.unwrap();
            let database = engine.databases.open_for_caller(&app).unwrap();
            assert_eq!(database.thread_count(), threads, "{sql}");
            let known = database.verdicts().cached_verdict(sql);
            assert!(
                matches!(known, Some(CachedVerdict::Writes(traits)) if traits.is_self_atomic() == is_self_atomic),
                "{sql}: {known:?}"
            );
        }
    }
    let refused = engine.query(&place, "INSERT INTO missing VALUES (1)".into(), options()).await;
    assert_eq!(refused.unwrap_err().code, Code::Sql);
    let reader = crate::CallOptions { read_only: true, ..options() };
    let refused = engine.query(&place, "INSERT INTO t VALUES (5)".into(), reader).await;
    assert_eq!(refused.unwrap_err().code, Code::Forbidden);
    engine.close().await;
}
