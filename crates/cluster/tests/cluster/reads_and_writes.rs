//! Nothing goes wrong.

use crate::harness::{Cluster, integer, keyed, namespace, options, query};
use bytes::Bytes;
use debros_engine::Engine as _;
use debros_proto::rpc::{Condition, Consistency};
use debros_proto::{Code, Key};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_leader_writes_is_read_everywhere_at_once() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let engine = cluster.nodes[leader].engine();
    let weak = || options(Consistency::Weak);
    query(&*engine, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)", weak()).await.unwrap();
    query(&*engine, "CREATE VIRTUAL TABLE f USING fts5(body)", weak()).await.unwrap();
    let key = Key::new("k").unwrap();
    for round in 0..20 {
        let insert = format!("INSERT INTO t(a) VALUES ({round})");
        query(&*engine, &insert, weak()).await.unwrap();
        let word = format!("INSERT INTO f VALUES ('word{round} common')");
        query(&*engine, &word, weak()).await.unwrap();
        let value = Bytes::from(round.to_string());
        engine
            .kv_put(&namespace(), &key, value.clone(), Condition::default(), None, weak())
            .await
            .unwrap();
        for node in &cluster.nodes {
            let engine = node.engine();
            for consistency in [Consistency::Weak, Consistency::Linearizable, Consistency::Strong] {
                let count = query(&*engine, "SELECT count(*) FROM t", options(consistency)).await;
                assert_eq!(integer(&count.unwrap()), round + 1, "{} {consistency:?}", node.name);
            }
            let found = query(&*engine, "SELECT count(*) FROM f WHERE f MATCH 'common'", weak());
            assert_eq!(integer(&found.await.unwrap()), round + 1, "{}", node.name);
            let entry = engine.kv_get(&namespace(), &key, weak()).await.unwrap().unwrap();
            assert_eq!(entry.value, value, "{}", node.name);
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_another_node_is_done_by_the_leader_and_seen_at_once() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (app, key) = (namespace(), Key::new("k").unwrap());
    let weak = || options(Consistency::Weak);
    for (index, node) in cluster.nodes.iter().enumerate() {
        let engine = node.engine();
        assert_eq!(node.database.is_leader(), index == leader);
        let table = format!("t{index}");
        query(&*engine, &format!("CREATE TABLE {table}(a)"), weak()).await.unwrap();
        let insert = format!("WITH n(i) AS (VALUES (1), (2)) INSERT INTO {table} SELECT i FROM n");
        let done = query(&*engine, &insert, weak()).await.unwrap();
        assert_eq!(done.rows_affected, Some(2));
        // Also a read that may be old: this node did it.
        let none = options(Consistency::None);
        let count = query(&*engine, &format!("SELECT count(*) FROM {table}"), none).await.unwrap();
        assert_eq!(integer(&count), 2);
        let refused = query(&*engine, &format!("INSERT INTO {table} VALUES (1, 2)"), weak()).await;
        assert_eq!(refused.unwrap_err().code, Code::Sql);
        let value = Bytes::from(format!("of {index}"));
        let put =
            |options| engine.kv_put(&app, &key, value.clone(), Condition::default(), None, options);
        let (first, again) = (put(keyed(&table)).await.unwrap(), put(keyed(&table)).await.unwrap());
        assert!(!first.replayed && again.replayed && first.value == again.value);
        let found = engine.kv_get(&app, &key, weak()).await.unwrap().unwrap();
        assert_eq!((found.value, found.version), (value.clone(), first.value));
    }
    let engine = cluster.nodes[(leader + 1) % 3].engine();
    let deadline = std::time::Instant::now() + crate::harness::LONG;
    engine.delete_namespace(&app, Vec::new(), deadline).await.unwrap();
    for node in &cluster.nodes {
        let engine = node.engine();
        assert_eq!(engine.kv_get(&app, &key, weak()).await.unwrap(), None);
        let gone = query(&*engine, "SELECT * FROM t0", weak()).await.unwrap_err();
        assert_eq!(gone.code, Code::Sql);
    }
    drop(engine);
    cluster.stop().await;
}
