//! Nodes that change between voting and not voting.

use super::common::{Cluster, KEY, LONG, entry, member, soon};
use debros_rqlite::{RqliteLog, Rqlited};
use std::time::Duration;
use tokio::time::Instant;

/// Waits until a node is in the cluster as one that votes, or does not.
async fn wait_for_suffrage(asked: &Rqlited, name: &str, votes: bool) {
    let until = Instant::now() + LONG;
    loop {
        let nodes = asked.client().nodes().await.unwrap_or_default();
        if nodes.iter().any(|node| node.id == name && node.voter == votes) {
            return;
        }
        assert!(Instant::now() < until, "{nodes:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn leave(asked: &Rqlited, name: &str) {
    let until = Instant::now() + LONG;
    while let Err(error) = asked.client().remove(name).await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_a_lost_voters_place_and_the_lost_one_returns_without_a_vote() {
    let mut cluster = Cluster::start(3).await;
    let mut join: Vec<String> = cluster.raft.iter().map(ToString::to_string).collect();
    let mut replica = member(cluster.folder.path(), "replica", &KEY);
    replica.join.clone_from(&join);
    replica.non_voter = true;
    let replica = Rqlited::start(replica).await.unwrap();
    assert!(replica.wait_serving(LONG).await, "{:?}", replica.state().borrow());
    join.push(replica.raft_addr().to_string());
    let log = RqliteLog::new(replica.client());
    log.create_tables().await.unwrap();
    assert_eq!(log.claim("a", 0).await, Ok(Some(1)));
    log.append(1, &[entry(1, "one")], soon()).await.unwrap();

    // The one that leads is lost.
    let lost = cluster.leader().await;
    cluster.nodes.remove(lost).stop(Duration::from_secs(10)).await;
    let [one, other] = &cluster.nodes[..] else { panic!("two are left") };
    let lost_name = format!("n{lost}");
    leave(one, &lost_name).await;
    leave(&replica, "replica").await;
    replica.join_again(join.clone(), false, LONG).await;
    wait_for_suffrage(one, "replica", true).await;
    wait_for_suffrage(other, "replica", true).await;

    join.remove(lost);
    let mut back = member(cluster.folder.path(), &lost_name, &KEY);
    back.raft = cluster.raft[lost];
    back.join.clone_from(&join);
    let back = Rqlited::start(back).await.unwrap();
    wait_for_suffrage(one, &lost_name, true).await;
    leave(&back, &lost_name).await;
    back.join_again(join.clone(), true, LONG).await;
    wait_for_suffrage(one, &lost_name, false).await;

    // Two of the three that vote now are enough.
    let gone = cluster.nodes.remove(0);
    gone.stop(Duration::from_secs(10)).await;
    let until = Instant::now() + LONG;
    while log.append(1, &[entry(2, "two")], soon()).await.is_err() {
        assert!(Instant::now() < until);
    }
    back.stop(Duration::from_secs(10)).await;
    replica.stop(Duration::from_secs(10)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_voter_starts_though_those_that_it_joins_through_are_away() {
    let mut cluster = Cluster::start(1).await;
    let mut replica = member(cluster.folder.path(), "replica", &KEY);
    replica.join = vec![cluster.raft[0].to_string()];
    replica.non_voter = true;
    let replica = Rqlited::start(replica).await.unwrap();
    let join = vec![replica.raft_addr().to_string()];
    assert!(replica.wait_serving(LONG).await, "{:?}", replica.state().borrow());
    replica.stop(Duration::from_secs(10)).await;
    cluster.nodes.remove(0).stop(Duration::from_secs(10)).await;

    let mut voter = member(cluster.folder.path(), "n0", &KEY);
    voter.raft = cluster.raft[0];
    voter.join = join;
    let voter = Rqlited::start(voter).await.unwrap();
    assert!(voter.wait_serving(LONG).await, "{:?}", voter.state().borrow());
    assert_eq!(voter.restarts(), 0);
    voter.stop(Duration::from_secs(10)).await;
}
