//! Nothing goes wrong.

use crate::harness::{Cluster, integer, namespace, options, query};
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
async fn a_write_on_another_node_says_who_leads_and_changes_nothing() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let other = cluster.nodes[(leader + 1) % 3].engine();
    for sql in ["CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"] {
        let refused = query(&*other, sql, options(Consistency::Weak)).await.unwrap_err();
        assert!(matches!(refused.code, Code::NotLeader | Code::Sql), "{refused:?}");
    }
    let key = Key::new("k").unwrap();
    let app = namespace();
    let put = other.kv_put(
        &app,
        &key,
        Bytes::from_static(b"v"),
        Condition::default(),
        None,
        options(Consistency::Weak),
    );
    assert_eq!(put.await.unwrap_err().code, Code::NotLeader);
    let engine = cluster.nodes[leader].engine();
    let found = engine.kv_get(&namespace(), &key, options(Consistency::Strong)).await.unwrap();
    assert_eq!(found, None);
    cluster.stop().await;
}
