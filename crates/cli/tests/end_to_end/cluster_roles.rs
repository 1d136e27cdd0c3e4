//! The roles of a cluster's nodes, which change by themselves.

use crate::cluster::{Cluster, Member, insert, rows};
use crate::support::PATIENCE;
use crate::support::http::Http;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Who votes, as the rqlited of a node has it: peer ids.
async fn raft_voters(member: &Member) -> Option<Vec<String>> {
    let users = std::fs::read_to_string(member.data.join("rqlite/auth.json")).ok()?;
    let users: Value = serde_json::from_str(&users).ok()?;
    let [user, password] = ["username", "password"].map(|name| users[0][name].as_str().unwrap());
    let url = format!("http://127.0.0.1:{}/nodes?ver=2&nonvoters&timeout=1s", member.ports[2]);
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let answer = client.get(url).basic_auth(user, Some(password)).send().await.ok()?;
    let nodes: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    let voters = nodes["nodes"].as_array()?.iter().filter(|node| node["voter"] == true);
    Some(voters.map(|node| node["id"].as_str().unwrap().to_owned()).collect())
}

/// Waits until a node says of each of these what its role is, and Raft counts them so.
async fn wait_for_roles(asked: &Member, wanted: &[(&str, &str)]) {
    let began = Instant::now();
    loop {
        let status = asked.try_cli(&["cluster", "status"]).unwrap_or_default();
        let voters = raft_voters(asked).await.unwrap_or_default();
        let as_wanted = |(name, role): &(&str, &str)| {
            let mut nodes = status["nodes"].as_array().into_iter().flatten();
            nodes.find(|node| node["name"] == *name).is_some_and(|node| {
                let votes = voters.iter().any(|id| node["peer_id"] == **id);
                node["role"] == *role && votes == (*role == "voter")
            })
        };
        if wanted.iter().all(as_wanted) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{wanted:?} in\n{status}\n{voters:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn settings(voters: u32, holders: u32) -> [(&'static str, String); 3] {
    [
        ("DEBROS_DATABASE_REPLICATION_FACTOR", voters.to_string()),
        ("DEBROS_CLUSTER_MAX_REPLICAS", holders.to_string()),
        ("DEBROS_CLUSTER_REPLACE_AFTER", "3s".to_owned()),
    ]
}

/// A voter is killed, and a replica takes its place: so another one can be lost. The first one comes
/// back and finds that it votes no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_the_place_of_a_voter_that_is_gone() {
    let mut cluster = Cluster::start_with(&["one", "two", "three", "four"], &settings(3, 7));
    let key = cluster.members[0].node().api_key("default");
    let https: Vec<Http> = (0..4).map(|index| cluster.http(index, &key)).collect();
    https[0].create("CREATE TABLE rows (id TEXT NOT NULL)").await;
    let voters = [("one", "voter"), ("two", "voter"), ("three", "voter")];
    wait_for_roles(&cluster.members[0], &voters).await;
    wait_for_roles(&cluster.members[0], &[("four", "replica")]).await;
    let mut expected = Vec::new();
    let mut add = async |first: usize, id: &str| {
        insert(&https, first, id).await;
        expected.push(id.to_owned());
        expected.sort();
        expected.clone()
    };
    add(3, "a").await;

    // The one that leads, as the harder case.
    let lost = cluster.leader();
    let (name, others) = (cluster.members[lost].name.clone(), [(lost + 1) % 3, (lost + 2) % 3]);
    cluster.members[lost].kill();
    add(others[0], "b").await;
    let asked = &cluster.members[others[0]];
    wait_for_roles(asked, &[(&name, "replica"), ("four", "voter")]).await;
    let left = others.map(|index| (cluster.members[index].name.clone(), "voter"));
    let left: Vec<_> = left.iter().map(|(name, role)| (name.as_str(), *role)).collect();
    wait_for_roles(asked, &left).await;

    // Two of the three that vote are a majority, whichever is lost now.
    cluster.members[others[0]].kill();
    let all = add(others[1], "c").await;
    assert_eq!(rows(&https[others[1]]).await, all);
    cluster.members[others[0]].start(&[]);

    cluster.members[lost].start(&[]);
    wait_for_roles(&cluster.members[others[1]], &[(&name, "replica"), ("four", "voter")]).await;
    let all = add(lost, "d").await;
    for http in &https {
        assert_eq!(rows(http).await, all);
    }
    // It is one after another start as well.
    cluster.members[lost].kill();
    cluster.members[lost].start(&[]);
    wait_for_roles(&cluster.members[lost], &[(&name, "replica"), ("four", "voter")]).await;
    assert_eq!(rows(&https[lost]).await, all);
    for member in cluster.members {
        member.node.unwrap().stop();
    }
}
