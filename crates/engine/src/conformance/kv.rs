//! Key-value pairs.

use super::{assert_code, expect_new_write, key, namespace, no_condition, options};
use crate::Engine;
use bytes::Bytes;
use debros_proto::limits::MAX_VALUE_BYTES;
use debros_proto::rpc::Condition;
use debros_proto::{Code, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

async fn put(engine: &Arc<dyn Engine>, name: &str, value: impl Into<Bytes>) -> u64 {
    put_if(engine, name, value, no_condition()).await.unwrap()
}

async fn put_if(
    engine: &Arc<dyn Engine>,
    name: &str,
    value: impl Into<Bytes>,
    condition: Condition,
) -> Result<u64> {
    engine
        .kv_put(&namespace("app"), &key(name), value.into(), condition, None, options())
        .await
        .map(expect_new_write)
}

async fn delete(engine: &Arc<dyn Engine>, name: &str) -> bool {
    expect_new_write(
        engine.kv_delete(&namespace("app"), &key(name), no_condition(), options()).await.unwrap(),
    )
}

async fn get(engine: &Arc<dyn Engine>, name: &str) -> Option<(Bytes, u64)> {
    let entry = engine.kv_get(&namespace("app"), &key(name), options()).await.unwrap();
    entry.map(|entry| (entry.value, entry.version))
}

async fn exists(engine: &Arc<dyn Engine>, name: &str) -> bool {
    engine.kv_exists(&namespace("app"), &key(name), options()).await.unwrap()
}

async fn list(engine: &Arc<dyn Engine>, prefix: &str) -> Vec<String> {
    let page = engine.kv_list(&namespace("app"), prefix, None, 1000, options()).await.unwrap();
    assert!(!page.more);
    page.keys
}

/// What was put is there, once it was said to be.
pub async fn lesson_17_put_get_delete(engine: Arc<dyn Engine>) {
    assert_eq!(get(&engine, "a").await, None);
    assert!(!exists(&engine, "a").await && !delete(&engine, "a").await);
    let first = put(&engine, "a", "one").await;
    assert_eq!(get(&engine, "a").await, Some((Bytes::from("one"), first)));
    let second = put(&engine, "a", "two").await;
    assert!(second > first && exists(&engine, "a").await);
    assert_eq!(get(&engine, "a").await, Some((Bytes::from("two"), second)));
    assert!(
        delete(&engine, "a").await && !exists(&engine, "a").await && !delete(&engine, "a").await
    );
}

/// Bytes are bytes.
pub async fn lesson_18_values_are_exact(engine: Arc<dyn Engine>) {
    for value in [vec![], vec![0x00, 0xff], b"aGVsbG8=".to_vec(), (0..=255).collect()] {
        put(&engine, "a", value.clone()).await;
        assert_eq!(get(&engine, "a").await.map(|(bytes, _)| bytes.to_vec()), Some(value));
    }
}

/// The largest value, and one byte more.
pub async fn large_values(engine: Arc<dyn Engine>) {
    let value: Bytes =
        (0..MAX_VALUE_BYTES).map(|index| (index % 251) as u8).collect::<Vec<u8>>().into();
    put(&engine, "large", value.clone()).await;
    assert_eq!(get(&engine, "large").await.map(|(bytes, _)| bytes), Some(value));
    let error =
        put_if(&engine, "large", vec![0; MAX_VALUE_BYTES + 1], no_condition()).await.unwrap_err();
    assert_code(&error, Code::TooLarge, "value");
    put(&engine, &"k".repeat(1024), "x").await;
}

/// Each condition, on a key that is there and one that is not.
pub async fn conditions_hold(engine: Arc<dyn Engine>) {
    let version = put(&engine, "there", "x").await;
    let holds = [
        ("there", Condition { if_version: Some(version), ..no_condition() }),
        ("there", Condition { if_exists: Some(true), ..no_condition() }),
        ("there", Condition { if_not_version: Some(version + 1), ..no_condition() }),
        ("missing", Condition { if_exists: Some(false), ..no_condition() }),
        ("missing", Condition { if_not_version: Some(version), ..no_condition() }),
    ];
    let fails = [
        ("there", Condition { if_version: Some(version + 1), ..no_condition() }),
        ("there", Condition { if_exists: Some(false), ..no_condition() }),
        ("there", Condition { if_not_version: Some(version), ..no_condition() }),
        ("missing", Condition { if_version: Some(version), ..no_condition() }),
        ("missing", Condition { if_exists: Some(true), ..no_condition() }),
    ];
    for (name, condition) in fails {
        let error = put_if(&engine, name, "y", condition).await.unwrap_err();
        assert_code(&error, Code::PreconditionFailed, &format!("{name} {condition:?}"));
        let error = engine
            .kv_delete(&namespace("app"), &key(name), condition, options())
            .await
            .unwrap_err();
        assert_code(&error, Code::PreconditionFailed, &format!("{name} {condition:?}"));
    }
    assert_eq!(
        get(&engine, "there").await,
        Some((Bytes::from("x"), version)),
        "a refused put changed something"
    );
    for (name, condition) in holds {
        let trial = format!("{name} {condition:?}");
        let condition = match name {
            "there" if condition.if_version.is_some() => {
                Condition { if_version: Some(put(&engine, "there", "x").await), ..condition }
            }
            _ => condition,
        };
        put_if(&engine, name, "z", condition)
            .await
            .unwrap_or_else(|error| panic!("{trial}: {error}"));
        delete(&engine, "missing").await;
    }
    // Of many calls that make the same key, one does.
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let engine = Arc::clone(&engine);
            let first = Condition { if_exists: Some(false), ..no_condition() };
            tokio::spawn(async move { put_if(&engine, "race", "x", first).await.is_ok() })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
}

/// Not after a delete either.
pub async fn versions_never_come_again(engine: Arc<dyn Engine>) {
    let mut seen = BTreeSet::new();
    for round in 0..100 {
        assert!(seen.insert(put(&engine, "a", "x").await), "round {round}");
        if round % 2 == 0 {
            delete(&engine, "a").await;
        }
    }
}

/// Expired is missing: for gets, lists and conditions.
pub async fn values_expire(engine: Arc<dyn Engine>) {
    let app = namespace("app");
    let keep = engine
        .kv_put(&app, &key("k/keep"), Bytes::from("x"), no_condition(), Some(3600), options())
        .await;
    let kept = expect_new_write(keep.unwrap());
    let entry = engine.kv_get(&app, &key("k/keep"), options()).await.unwrap().unwrap();
    let left = entry.expires_at.unwrap() - debros_proto::now_ms();
    assert!(left > 3_500_000 && left <= 3_600_000 && entry.version == kept, "{left}");
    // An hour of life is not forever: a second put without it lives on.
    put(&engine, "k/forever", "x").await;
    engine
        .kv_put(&app, &key("k/soon"), Bytes::from("x"), no_condition(), Some(1), options())
        .await
        .map(expect_new_write)
        .unwrap();
    let until = engine
        .kv_get(&app, &key("k/soon"), options())
        .await
        .unwrap()
        .and_then(|entry| entry.expires_at);
    while until.is_some_and(|until| debros_proto::now_ms() <= until) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!exists(&engine, "k/soon").await && get(&engine, "k/soon").await.is_none());
    assert_eq!(list(&engine, "k/").await, ["k/forever", "k/keep"]);
    let missing = Condition { if_exists: Some(true), ..no_condition() };
    assert_code(
        &put_if(&engine, "k/soon", "y", missing).await.unwrap_err(),
        Code::PreconditionFailed,
        "expired",
    );
    assert!(!delete(&engine, "k/soon").await, "an expired key was deleted as if it was there");
    let zero = engine
        .kv_put(&app, &key("a"), Bytes::new(), no_condition(), Some(0), options())
        .await
        .unwrap_err();
    assert_code(&zero, Code::InvalidArgument, "ttl 0");
    engine
        .kv_put(&app, &key("a"), Bytes::new(), no_condition(), Some(u64::MAX), options())
        .await
        .map(expect_new_write)
        .unwrap();
    assert!(exists(&engine, "a").await);
}

/// `_` and `%` are characters, case counts, and the order is that of bytes.
pub async fn lesson_19_lists_match_bytes(engine: Arc<dyn Engine>) {
    let keys = [
        "a",
        "a%",
        "a_",
        "a_b",
        "ab",
        "abc",
        "A_",
        "b",
        "é",
        "éa",
        "\u{10ffff}",
        "\u{10ffff}x",
        "ключ",
        "~",
    ];
    for name in keys {
        put(&engine, name, "x").await;
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable_by_key(|name| name.as_bytes());
    assert_eq!(list(&engine, "").await, sorted);
    for prefix in ["a", "a_", "a%", "A", "é", "\u{10ffff}", "к", "zz", "a_bc"] {
        let expected: Vec<&str> =
            sorted.iter().copied().filter(|name| name.starts_with(prefix)).collect();
        assert_eq!(list(&engine, prefix).await, expected, "{prefix:?}");
    }
}

/// Page by page, nothing twice and nothing left out.
pub async fn lists_page(engine: Arc<dyn Engine>) {
    for index in 0..25 {
        put(&engine, &format!("p/{index:02}"), "x").await;
    }
    put(&engine, "q", "x").await;
    let (mut seen, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
    loop {
        let page =
            engine.kv_list(&namespace("app"), "p/", after.as_deref(), 10, options()).await.unwrap();
        seen.extend(page.keys.iter().cloned());
        after = page.keys.last().cloned();
        if !page.more {
            break;
        }
        assert_eq!(page.keys.len(), 10);
    }
    assert_eq!(seen, (0..25).map(|index| format!("p/{index:02}")).collect::<Vec<_>>());
    let past = engine.kv_list(&namespace("app"), "p/", Some("p/24"), 10, options()).await.unwrap();
    assert!(past.keys.is_empty() && !past.more);
    let before = engine.kv_list(&namespace("app"), "p/", Some("a"), 1, options()).await.unwrap();
    assert_eq!((before.keys, before.more), (vec!["p/00".to_owned()], true));
}

/// The same key in two namespaces is two keys.
pub async fn namespaces_do_not_share_keys(engine: Arc<dyn Engine>) {
    for name in ["app", "app2", "app-x"] {
        engine
            .kv_put(&namespace(name), &key("k"), Bytes::from(name), no_condition(), None, options())
            .await
            .unwrap();
    }
    for name in ["app", "app2", "app-x"] {
        let entry = engine.kv_get(&namespace(name), &key("k"), options()).await.unwrap().unwrap();
        assert_eq!(entry.value, name);
        let page = engine.kv_list(&namespace(name), "", None, 10, options()).await.unwrap();
        assert_eq!(page.keys, ["k"]);
    }
    assert!(delete(&engine, "k").await);
    assert!(engine.kv_exists(&namespace("app2"), &key("k"), options()).await.unwrap());
}

/// Many at once: every answer is true.
pub async fn concurrent_puts(engine: Arc<dyn Engine>) {
    let tasks: Vec<_> = (0..200)
        .map(|index| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let name = format!("c/{}", index % 50);
                let version = put(&engine, &name, format!("{index}")).await;
                let (_, now) = get(&engine, &name).await.unwrap();
                assert!(now >= version, "an acknowledged put was not read");
                version
            })
        })
        .collect();
    let mut versions = BTreeSet::new();
    for task in tasks {
        versions.insert(task.await.unwrap());
    }
    assert_eq!(versions.len(), 200, "two puts got one version");
    assert_eq!(list(&engine, "c/").await.len(), 50);
}
