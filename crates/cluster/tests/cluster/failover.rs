//! Nodes that end, and come back.

use crate::harness::{Cluster, LONG, Network, Node, integer, keyed, options, query};
use debros_cluster::ClusterEngine;
use debros_engine::Engine as _;
use debros_proto::Code;
use debros_proto::rpc::Consistency;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Whoever leads, asked as a client would: again until it answers.
async fn write(cluster: &Mutex<Vec<Arc<ClusterEngine>>>, sql: &str, key: &str) -> bool {
    for _ in 0..400 {
        let engines = cluster.lock().unwrap().clone();
        for engine in engines {
            match query(&*engine, sql, keyed(key)).await {
                Ok(_) => return true,
                Err(error) if error.code == Code::Constraint => panic!("{error:?}"),
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost_when_the_leader_ends() {
    let mut cluster = Cluster::start(3).await;
    let engine = cluster.nodes[cluster.leader().await].engine();
    query(&*engine, "CREATE TABLE t(id TEXT, a)", options(Consistency::Weak)).await.unwrap();
    drop(engine);
    let engines = |cluster: &Cluster| cluster.nodes.iter().map(|node| node.engine()).collect();
    let reachable = Arc::new(Mutex::new(engines(&cluster)));
    let acknowledged = Arc::<Mutex<BTreeSet<String>>>::default();
    let (stop, longest) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (reachable, acknowledged) = (Arc::clone(&reachable), Arc::clone(&acknowledged));
            let (stop, longest) = (Arc::clone(&stop), Arc::clone(&longest));
            tokio::spawn(async move {
                for number in 0.. {
                    if stop.load(SeqCst) {
                        return;
                    }
                    let id = format!("{writer}-{number}");
                    let sql = format!("INSERT INTO t VALUES ('{id}', randomblob(100))");
                    let began = Instant::now();
                    assert!(write(&reachable, &sql, &id).await, "{id} was never taken");
                    longest.fetch_max(began.elapsed().as_millis() as u64, SeqCst);
                    acknowledged.lock().unwrap().insert(id);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let leader = cluster.leader().await;
        let name = cluster.nodes[leader].name.clone();
        reachable.lock().unwrap().remove(leader);
        cluster.kill(leader).await;
        cluster.leader().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.restart(&name).await;
        *reachable.lock().unwrap() = engines(&cluster);
    }
    stop.store(true, SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap());
    for node in &cluster.nodes {
        let engine = node.engine();
        let strong = || options(Consistency::Strong);
        let found = query(&*engine, "SELECT id FROM t", strong()).await.unwrap();
        let rows: Vec<String> =
            found.rows.iter().map(|row| format!("{:?}", row.values[0])).collect();
        let distinct: BTreeSet<&String> = rows.iter().collect();
        assert_eq!(rows.len(), distinct.len(), "{}: a write happened twice", node.name);
        for id in &acknowledged {
            assert!(
                rows.iter().any(|row| row.contains(&format!("\"{id}\""))),
                "{}: {id} is lost",
                node.name
            );
        }
        let count = query(&*engine, "SELECT count(*) FROM t", strong()).await.unwrap();
        assert_eq!(integer(&count), rows.len() as i64);
    }
    tracing::info!(
        writes = acknowledged.len(),
        longest_ms = longest.load(SeqCst),
        "all that was acknowledged is there"
    );
    drop(reachable);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_serves_only_reads_that_may_be_old() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let engine = cluster.nodes[leader].engine();
    query(&*engine, "CREATE TABLE t(a)", options(Consistency::Weak)).await.unwrap();
    let other = &cluster.nodes[(leader + 1) % 3];
    let cut = other.engine();
    query(&*cut, "SELECT count(*) FROM t", options(Consistency::Strong)).await.unwrap();
    let _: &Network = &cluster.network;
    cluster.network.disconnect(&cluster.nodes[leader].name);
    let soon = |consistency| debros_engine::CallOptions {
        deadline: Instant::now() + Duration::from_secs(1),
        ..options(consistency)
    };
    let old = query(&*cut, "SELECT count(*) FROM t", soon(Consistency::None)).await.unwrap();
    assert_eq!(integer(&old), 0);
    let refused =
        query(&*cut, "SELECT count(*) FROM t", soon(Consistency::Weak)).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
    drop(cut);
    engine.close_by(Instant::now()).await;
    cluster.stop().await;
}

/// An rqlited that ends in order hands the lead of Raft over at once: no time goes by in which the
/// node that led could not have been heard of.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_rqlited_hands_over_reads_nothing_old() {
    let cluster = Cluster::start(3).await;
    let engine = cluster.nodes[cluster.leader().await].engine();
    query(&*engine, "CREATE TABLE t(a)", options(Consistency::Weak)).await.unwrap();
    drop(engine);
    for round in 1..=8 {
        let old = cluster.leader().await;
        let insert = || format!("INSERT INTO t VALUES ({round})");
        // A confirmation that is as recent as one can be.
        let engine = cluster.nodes[old].engine();
        let key = |part: &str| keyed(&format!("{part}-{round}"));
        query(&*engine, &insert(), key("before")).await.unwrap();
        cluster.nodes[old].rqlited.hand_over();
        write_elsewhere(&cluster, old, &insert(), &format!("after-{round}")).await;
        let count = until_answered(&engine, "SELECT count(*) FROM t").await;
        assert_eq!(count, 2 * round, "round {round}");
        assert!(cluster.nodes[old].rqlited.wait_serving(LONG).await);
    }
    cluster.stop().await;
}

/// Writes on another node than the one that led, as soon as it leads.
async fn write_elsewhere(cluster: &Cluster, old: usize, sql: &str, key: &str) {
    let until = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < until, "no other node took the write");
        for (number, node) in cluster.nodes.iter().enumerate() {
            let leads = number != old && node.database.is_leader();
            if leads && query(&*node.engine(), sql, keyed(key)).await.is_ok() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads at `weak`, again as long as the node does not find the leader.
async fn until_answered(engine: &ClusterEngine, sql: &str) -> i64 {
    let until = Instant::now() + LONG;
    loop {
        match query(engine, sql, options(Consistency::Weak)).await {
            Ok(found) => return integer(&found),
            Err(error) => assert!(Instant::now() < until, "{error:?}"),
        }
    }
}

/// A node whose files take nothing, as on a full disk, must not keep the others from leading.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_lead_says_so_and_another_one_leads() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let engine = cluster.nodes[leader].engine();
    query(&*engine, "CREATE TABLE t(a)", options(Consistency::Weak)).await.unwrap();
    for node in others(&cluster, leader) {
        node.engine().local().close_by(Instant::now() + LONG).await;
    }
    // What they cannot apply.
    query(&*engine, "INSERT INTO t VALUES (1)", keyed("one")).await.unwrap();
    lead_again_after_others_failed(&cluster, leader).await;
    drop(engine);
    cluster.stop().await;
}

/// An rqlited whose SQLite meets a full disk goes on without what it could not write. When it leads
/// Raft, its copy is the log: what is missing there would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_copy_of_the_log_lacks_entries_does_not_lead() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let engine = cluster.nodes[leader].engine();
    query(&*engine, "CREATE TABLE t(a)", options(Consistency::Weak)).await.unwrap();
    query(&*engine, "INSERT INTO t VALUES (1)", keyed("one")).await.unwrap();
    for node in others(&cluster, leader) {
        let count = until_answered(&node.engine(), "SELECT count(*) FROM t").await;
        assert_eq!(count, 1);
        let copy = cluster.folder.path().join(&node.name).join("rqlite/store/db.sqlite");
        remove_last_entry(&copy, node.database.status().applied).await;
    }
    lead_again_after_others_failed(&cluster, leader).await;
    assert_eq!(until_answered(&engine, "SELECT count(*) FROM t").await, 2);
    drop(engine);
    cluster.stop().await;
}

/// Removes the newest entry of a copy of the log, once it is there.
async fn remove_last_entry(copy: &std::path::Path, newest: u64) {
    let until = Instant::now() + LONG;
    let copy = rusqlite::Connection::open(copy).unwrap();
    copy.busy_timeout(LONG).unwrap();
    while copy.execute("DELETE FROM log WHERE entry = ?", [i64::try_from(newest).unwrap()]).unwrap()
        == 0
    {
        assert!(Instant::now() < until, "entry {newest} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn others(cluster: &Cluster, leader: usize) -> [&Node; 2] {
    [&cluster.nodes[(leader + 1) % 3], &cluster.nodes[(leader + 2) % 3]]
}

/// Has the others lead Raft, which cannot lead the cluster and say so, until this node leads again
/// and takes a write.
async fn lead_again_after_others_failed(cluster: &Cluster, leader: usize) {
    let healthy = &cluster.nodes[leader];
    let engine = healthy.engine();
    let until = Instant::now() + LONG;
    let mut has_said_so = false;
    while !(has_said_so && query(&*engine, "INSERT INTO t VALUES (2)", keyed("two")).await.is_ok())
    {
        assert!(Instant::now() < until, "said so: {has_said_so}");
        let mut broken = others(cluster, leader).into_iter();
        assert!(broken.clone().all(|node| !node.database.is_leader()), "a broken node leads");
        let unfit = broken.find(|node| *node.database.is_unfit().borrow());
        has_said_so |= unfit.is_some();
        // Until one of the others leads Raft, and from then on whoever cannot lead.
        let leads = healthy.database.is_leader() && !has_said_so;
        if let Some(node) = unfit.or(leads.then_some(healthy)) {
            node.rqlited.hand_over();
            node.rqlited.wait_serving(LONG).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
