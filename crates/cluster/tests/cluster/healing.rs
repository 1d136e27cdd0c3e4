//! Files that are not what they should be are found, and said to need a new copy.

use crate::harness::{Cluster, LONG, Settings, namespace, options, query};
use debros_cluster::{ClusterDatabase, CopyNeed, CopyReason};
use debros_proto::Code;
use debros_proto::rpc::Consistency;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So often that a test need not wait.
const OFTEN: Duration = Duration::from_millis(100);

/// Runs a statement, for as long as an election lasts.
async fn run(cluster: &Cluster, at: usize, sql: &str) {
    let engine = cluster.nodes[at].engine();
    let until = Instant::now() + LONG;
    while let Err(error) = query(&*engine, sql, options(Consistency::Weak)).await {
        let passes = [Code::Unavailable, Code::NotLeader, Code::UnknownOutcome];
        assert!(passes.contains(&error.code) && Instant::now() < until, "{sql}: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until all nodes have all that is in the log.
async fn catch_up(cluster: &Cluster) {
    for node in &cluster.nodes {
        assert!(node.database.wait_ready(LONG).await, "{:?}", node.database.status());
    }
}

/// Changes a node's file behind its back.
fn damage(cluster: &Cluster, name: &str, sql: &str) {
    let file = cluster.folder.path().join(name).join("db/ns").join(format!("{}.db", namespace()));
    let db = rusqlite::Connection::open(file).unwrap();
    db.busy_timeout(LONG).unwrap();
    db.execute_batch(sql).unwrap();
}

async fn copy_need(database: &ClusterDatabase) -> CopyNeed {
    let need = tokio::time::timeout(LONG, database.wait_copy_need()).await;
    need.unwrap_or_else(|_| panic!("nothing is found: {:?}", database.status()))
}

async fn wait_for(what: &str, mut look: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !look() {
        assert!(Instant::now() < until, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Three nodes that have a table with rows.
async fn cluster_with_rows(settings: Settings) -> Cluster {
    let cluster = Cluster::start_set_up(3, settings).await;
    let leader = cluster.leader().await;
    run(&cluster, leader, "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, a TEXT)").await;
    run(&cluster, leader, "INSERT INTO t (a) VALUES ('one'), ('two')").await;
    catch_up(&cluster).await;
    cluster
}

/// The nodes that do not lead.
async fn followers(cluster: &Cluster) -> Vec<usize> {
    let leader = cluster.leader().await;
    (0..cluster.nodes.len()).filter(|number| *number != leader).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_changed_on_a_follower_is_found() {
    let cluster =
        cluster_with_rows(Settings { compare_interval: OFTEN, ..Settings::default() }).await;
    let [ill, well] = followers(&cluster).await[..] else { panic!() };
    let name = cluster.nodes[ill].name.clone();
    damage(&cluster, &name, "UPDATE \"ns::app::t\" SET a = 'other' WHERE id = 2");
    let database = Arc::clone(&cluster.nodes[ill].database);
    let need = copy_need(&database).await;
    assert_eq!(need.reason, CopyReason::DataDiffers, "{need:?}");
    assert!(need.message.contains("\"app\""), "{need:?}");
    let found = database.status().differences;
    assert_eq!((found.len(), found[0].leader_differs), (1, false), "{found:?}");
    // The others are compared as often, and serve.
    for number in [well, cluster.leader().await] {
        let database = &cluster.nodes[number].database;
        assert_eq!((database.copy_need(), database.status().differences), (None, Vec::new()));
    }
    run(&cluster, well, "INSERT INTO t (a) VALUES ('three')").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_differs_from_the_others_is_reported_and_copied_by_nobody() {
    // Where others use the processors the lead may change meanwhile.
    for _ in 0..5 {
        if is_differing_leader_reported().await {
            return;
        }
    }
    panic!("no node keeps the lead");
}

/// False: another node took the lead, so that nothing was shown.
async fn is_differing_leader_reported() -> bool {
    let cluster =
        cluster_with_rows(Settings { compare_interval: OFTEN, ..Settings::default() }).await;
    let leader = cluster.leader().await;
    let database = Arc::clone(&cluster.nodes[leader].database);
    let term = database.status().term;
    let stays = || database.is_leader() && database.status().term == term;
    let name = cluster.nodes[leader].name.clone();
    let others = (0..3).filter(|number| *number != leader);
    let others: Vec<_> = others.map(|number| Arc::clone(&cluster.nodes[number].database)).collect();
    damage(&cluster, &name, "UPDATE \"ns::app::t\" SET a = 'other' WHERE id = 2");
    for other in &others {
        wait_for("the difference", || !other.status().differences.is_empty() || !stays()).await;
        let found = other.status().differences;
        if !stays() {
            return false;
        }
        assert!(found[0].leader_differs && found[0].namespace == "app", "{found:?}");
        assert_eq!(other.copy_need(), None);
    }
    assert_eq!(database.copy_need(), None);
    // What was found goes when it is mended.
    damage(&cluster, &name, "UPDATE \"ns::app::t\" SET a = 'two' WHERE id = 2");
    for other in &others {
        wait_for("the end of it", || other.status().differences.is_empty() || !stays()).await;
    }
    let stayed = stays();
    drop((database, others));
    cluster.stop().await;
    stayed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_does_not_fit_stops_its_node_alone() {
    let cluster = cluster_with_rows(Settings::default()).await;
    let [ill, well] = followers(&cluster).await[..] else { panic!() };
    let name = cluster.nodes[ill].name.clone();
    damage(&cluster, &name, "DROP TABLE \"ns::app::t\"");
    let leader = cluster.leader().await;
    run(&cluster, leader, "INSERT INTO t (a) VALUES ('three')").await;
    let need = copy_need(&cluster.nodes[ill].database).await;
    assert_eq!(need.reason, CopyReason::EntryMisfit, "{need:?}");
    // It does not read past it either.
    let deadline = Instant::now() + Duration::from_millis(200);
    let soon = debros_engine::CallOptions { deadline, ..options(Consistency::Weak) };
    let read = query(&*cluster.nodes[ill].engine(), "SELECT count(*) FROM t", soon).await;
    assert!(read.is_err(), "{read:?}");
    run(&cluster, well, "INSERT INTO t (a) VALUES ('four')").await;
    for number in [leader, well] {
        assert_eq!(cluster.nodes[number].database.copy_need(), None);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_until_the_log_was_cut_says_so_and_does_not_lead() {
    let mut cluster = cluster_with_rows(Settings { max_log: 4096, ..Settings::default() }).await;
    let away = followers(&cluster).await[0];
    let name = cluster.nodes[away].name.clone();
    cluster.kill(away).await;
    let leader = cluster.leader().await;
    run(&cluster, leader, "INSERT INTO t (a) VALUES (hex(zeroblob(8192)))").await;
    // It is not waited for any more, and what it lacks is deleted.
    let log = debros_rqlite::RqliteLog::new(cluster.nodes[leader].rqlited.client());
    let until = Instant::now() + LONG;
    loop {
        // An election may be under way.
        let first = log.first_entry(debros_rqlite::ReadLevel::Weak).await;
        let last = log.last_entry(debros_rqlite::ReadLevel::Weak).await;
        if let (Ok(first), Ok(last)) = (&first, &last)
            && first == last
            && *last > 2
        {
            break;
        }
        assert!(Instant::now() < until, "the log is not cut: {first:?} to {last:?}");
        run(&cluster, leader, "INSERT INTO t (a) VALUES ('more')").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let database = cluster.restart_unready(&name).await;
    let need = copy_need(&database).await;
    assert_eq!(need.reason, CopyReason::LogCut, "{need:?}");
    assert!(!database.is_leader());
    let leader = cluster.leader().await;
    assert_ne!(cluster.nodes[leader].name, name);
    cluster.stop().await;
}
