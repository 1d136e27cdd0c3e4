//! Writes that happen once, by an [`IdempotencyKey`](crate::IdempotencyKey).

use super::{
    assert_code, database, key, keyed_options, keyed_options_in, namespace, no_condition,
    query_integer, query_ok, statement,
};
use crate::{Engine, TargetDatabase};
use bytes::Bytes;
use debros_proto::Code;
use debros_proto::rpc::{Condition, Statement, Value};
use std::sync::Arc;

/// The second call gets the first one's answer, rows and all.
pub async fn a_keyed_write_happens_once(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)").await;
    let insert =
        statement("INSERT INTO t(a) VALUES (?1) RETURNING id, a", &[Value::from(vec![0u8, 255])]);
    let first =
        engine.query(&database("app"), insert.clone(), keyed_options("k", 1)).await.unwrap();
    let again =
        engine.query(&database("app"), insert.clone(), keyed_options("k", 1)).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(first.value, again.value);
    let other =
        engine.query(&database("app"), insert.clone(), keyed_options("other", 1)).await.unwrap();
    assert!(!other.replayed);
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 2);
    let both = vec![insert, Statement::from("SELECT count(*) FROM t")];
    let first =
        engine.transaction(&database("app"), both.clone(), keyed_options("tx", 2)).await.unwrap();
    let again = engine.transaction(&database("app"), both, keyed_options("tx", 2)).await.unwrap();
    assert!(!first.replayed && again.replayed && first.value == again.value, "{again:?}");
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 3);
}

/// What happens outside of the database can be made to happen once, too.
pub async fn a_key_alone_is_committed(engine: Arc<dyn Engine>) {
    let app = database("app");
    let record = |key, hash| engine.transaction(&app, Vec::new(), keyed_options(key, hash));
    let first = record("k", 1).await.unwrap();
    assert!(!first.replayed && first.value.is_empty(), "{first:?}");
    assert!(record("k", 1).await.unwrap().replayed);
    assert_code(&record("k", 2).await.unwrap_err(), Code::IdempotencyMismatch, "another request");
    assert!(!record("other", 1).await.unwrap().replayed);
    let nothing = engine.transaction(&app, Vec::new(), super::options()).await.unwrap_err();
    assert_code(&nothing, Code::InvalidArgument, "nothing at all");
}

/// A replayed CREATE or DROP would not compile any more, and a long text is not remembered: the
/// answer comes all the same.
pub async fn keyed_definitions(engine: Arc<dyn Engine>) {
    let app = database("app");
    let padding = "-".repeat(10_000);
    for (name, sql) in [("create", "CREATE TABLE t(a)"), ("drop", "DROP TABLE t")] {
        for text in [sql.to_owned(), format!("{sql} --{padding}")] {
            let call = |hash| {
                engine.query(&app, Statement::from(text.as_str()), keyed_options(name, hash))
            };
            let replayed = call(1).await.unwrap().replayed;
            assert_eq!(replayed, text.len() > 100, "{name}");
            assert!(call(1).await.unwrap().replayed, "{name}");
            assert_code(&call(2).await.unwrap_err(), Code::IdempotencyMismatch, name);
        }
    }
    let bad =
        || engine.query(&app, Statement::from("SELECT * FROM nowhere"), keyed_options("bad", 1));
    for _ in 0..2 {
        assert_code(&bad().await.unwrap_err(), Code::Sql, "an unknown table");
    }
}

/// The same key with another request is refused.
pub async fn a_key_is_for_one_request(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let insert = Statement::from("INSERT INTO t VALUES (1)");
    engine.query(&database("app"), insert.clone(), keyed_options("k", 1)).await.unwrap();
    let error = engine.query(&database("app"), insert, keyed_options("k", 2)).await.unwrap_err();
    assert_code(&error, Code::IdempotencyMismatch, "another request");
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 1);
}

/// What failed may be tried again under its key.
pub async fn a_failed_write_leaves_no_record(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a UNIQUE)").await;
    let insert = Statement::from("INSERT INTO t VALUES (1)");
    query_ok(&engine, "INSERT INTO t VALUES (1)").await;
    let error =
        engine.query(&database("app"), insert.clone(), keyed_options("k", 1)).await.unwrap_err();
    assert_code(&error, Code::Constraint, "the first try");
    query_ok(&engine, "DELETE FROM t").await;
    let second = engine.query(&database("app"), insert, keyed_options("k", 1)).await.unwrap();
    assert!(!second.replayed);
    let refused = Condition { if_exists: Some(true), ..no_condition() };
    let (app, k) = (namespace("app"), key("k"));
    let put =
        |condition, options| engine.kv_put(&app, &k, Bytes::from("x"), condition, None, options);
    assert_code(
        &put(refused, keyed_options("kv", 1)).await.unwrap_err(),
        Code::PreconditionFailed,
        "the first put",
    );
    assert!(!put(no_condition(), keyed_options("kv", 1)).await.unwrap().replayed);
}

/// Fifty at once with one key: one acts, all get the same answer.
pub async fn fifty_callers_act_once(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a)").await;
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let insert = Statement::from("INSERT INTO t(a) VALUES (1) RETURNING id");
                engine.query(&database("app"), insert, keyed_options("k", 1)).await.unwrap()
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(answers.iter().all(|answer| answer.value == answers[0].value));
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 1);
}

/// Two namespaces may use the same idempotency key.
pub async fn idempotency_keys_are_of_a_namespace(engine: Arc<dyn Engine>) {
    for name in ["one", "two"] {
        let create = Statement::from("CREATE TABLE t(a)");
        let written =
            engine.query(&database(name), create, keyed_options_in(name, "k", 1)).await.unwrap();
        assert!(!written.replayed, "{name}");
        let put = engine
            .kv_put(
                &namespace(name),
                &key("k"),
                Bytes::new(),
                no_condition(),
                None,
                keyed_options_in(name, "kv", 1),
            )
            .await;
        assert!(!put.unwrap().replayed, "{name}");
    }
}

/// Puts and deletes of key-value pairs happen once, too.
pub async fn keyed_puts_and_deletes(engine: Arc<dyn Engine>) {
    let (app, k) = (namespace("app"), key("k"));
    let put =
        || engine.kv_put(&app, &k, Bytes::from("x"), no_condition(), None, keyed_options("put", 1));
    let (first, again) = (put().await.unwrap(), put().await.unwrap());
    assert!(!first.replayed && again.replayed && first.value == again.value);
    let delete = || engine.kv_delete(&app, &k, no_condition(), keyed_options("delete", 1));
    assert!(delete().await.unwrap().value);
    put_plain(&engine).await;
    let again = delete().await.unwrap();
    assert!(again.replayed && again.value);
    assert!(
        engine.kv_exists(&app, &key("k"), super::options()).await.unwrap(),
        "a replayed delete deleted"
    );
}

async fn put_plain(engine: &Arc<dyn Engine>) {
    let (app, k) = (namespace("app"), key("k"));
    let put =
        engine.kv_put(&app, &k, Bytes::from("y"), no_condition(), None, super::options()).await;
    assert!(!put.unwrap().replayed);
}

/// A put, a query, a transaction, a statement on the system's tables and a record alone have one
/// key between them.
pub async fn one_key_is_for_one_call_whatever_it_is(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let (app, system) = (database("app"), TargetDatabase::System);
    let insert = || Statement::from("INSERT INTO t VALUES (1)");
    let note = || Statement::from("INSERT INTO audit_events (at, kind) VALUES (1, 'note')");
    const CALLS: usize = 6;
    let call = async |which: usize, name: &str| {
        // The hash is of the call too, where it comes from a caller.
        let options = keyed_options(name, u8::try_from(which).expect("a small number"));
        let k = key(name);
        match which {
            0 => engine
                .kv_put(&namespace("app"), &k, "x".into(), no_condition(), None, options)
                .await
                .map(|done| done.replayed),
            1 => engine.query(&app, insert(), options).await.map(|done| done.replayed),
            2 => engine
                .transaction(&app, vec![insert(), insert()], options)
                .await
                .map(|done| done.replayed),
            3 => engine.query(&system, note(), options).await.map(|done| done.replayed),
            4 => engine.transaction(&system, Vec::new(), options).await.map(|done| done.replayed),
            _ => engine
                .kv_delete(&namespace("app"), &key("other"), no_condition(), options)
                .await
                .map(|done| done.replayed),
        }
    };
    for first in 0..CALLS {
        let name = format!("k{first}");
        assert_eq!(call(first, &name).await.map_err(|error| error.code), Ok(false), "{first}");
        for second in (0..CALLS).filter(|second| *second != first) {
            let error = call(second, &name).await.expect_err("one key in two calls");
            assert_code(&error, Code::IdempotencyMismatch, &format!("{first}, then {second}"));
        }
        assert_eq!(call(first, &name).await.map_err(|error| error.code), Ok(true), "{first}");
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 3);
    // Another namespace's key is another.
    let put = engine
        .kv_put(
            &namespace("b"),
            &key("k"),
            "x".into(),
            no_condition(),
            None,
            keyed_options_in("b", "k1", 9),
        )
        .await;
    assert!(!put.expect("another namespace's key").replayed);
}

/// At the same moment, too.
pub async fn one_key_in_two_calls_at_once_acts_once(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    for round in 0..20 {
        let name = format!("k{round}");
        let (k, app) = (key(&name), namespace("app"));
        let put =
            engine.kv_put(&app, &k, "x".into(), no_condition(), None, keyed_options(&name, 1));
        let db = database("app");
        let insert =
            engine.query(&db, Statement::from("INSERT INTO t VALUES (1)"), keyed_options(&name, 2));
        let before = query_integer(&engine, "SELECT count(*) FROM t").await;
        let (put, insert) = tokio::join!(put, insert);
        let is_put = engine.kv_exists(&app, &k, super::options()).await.expect("a look");
        let is_inserted = query_integer(&engine, "SELECT count(*) FROM t").await == before + 1;
        assert_eq!((put.is_ok(), insert.is_ok()), (is_put, is_inserted), "{put:?} {insert:?}");
        assert!(is_put != is_inserted, "both acted, or neither");
        for refused in [put.err(), insert.err()].into_iter().flatten() {
            assert_code(&refused, Code::IdempotencyMismatch, "the other");
        }
    }
}
