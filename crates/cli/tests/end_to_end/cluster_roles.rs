//! The roles of a cluster's nodes, which change by themselves.

use crate::cluster::{Cluster, Member, insert, rows};
use crate::support::PATIENCE;
use crate::support::http::Http;
use crate::support::socket::{Frame, Socket};
use crate::support::wallet::Wallet;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The nodes of Raft's cluster, as the rqlited of a node has them: peer ids, and whether they vote.
async fn raft_nodes(member: &Member) -> Option<HashMap<String, bool>> {
    let users = std::fs::read_to_string(member.data.join("rqlite/auth.json")).ok()?;
    let users: Value = serde_json::from_str(&users).ok()?;
    let [user, password] = ["username", "password"].map(|name| users[0][name].as_str().unwrap());
    let url = format!("http://127.0.0.1:{}/nodes?ver=2&nonvoters&timeout=1s", member.ports[2]);
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let answer = client.get(url).basic_auth(user, Some(password)).send().await.ok()?;
    let nodes: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    let nodes = nodes["nodes"].as_array()?.iter();
    Some(
        nodes
            .map(|node| (node["id"].as_str().unwrap().to_owned(), node["voter"] == true))
            .collect(),
    )
}

/// Waits until a node says of each of these what its role is, and Raft counts them so.
async fn wait_for_roles(asked: &Member, wanted: &[(&str, &str)]) {
    let began = Instant::now();
    loop {
        let status = asked.try_cli(&["cluster", "status"]).unwrap_or_default();
        let raft = raft_nodes(asked).await.unwrap_or_default();
        let as_wanted = |(name, role): &(&str, &str)| {
            let mut nodes = status["nodes"].as_array().into_iter().flatten();
            nodes.find(|node| node["name"] == *name).is_some_and(|node| {
                let votes = raft.get(node["peer_id"].as_str().unwrap());
                // One that is lost is in neither place until it returns.
                let is_there = *role != "relay" && node["connected"] == true;
                node["role"] == *role && votes.copied() == is_there.then_some(*role == "voter")
            })
        };
        if wanted.iter().all(as_wanted) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{wanted:?} in\n{status}\n{raft:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a node is connected to another one.
async fn wait_for_connection(asked: &Member, name: &str) {
    let began = Instant::now();
    loop {
        let status = asked.try_cli(&["cluster", "status"]).unwrap_or_default();
        let mut nodes = status["nodes"].as_array().into_iter().flatten();
        if nodes.any(|node| node["name"] == *name && node["connected"] == true) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{name} in\n{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
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
    // Else the one that returns now takes the place of this one.
    for (asked, other) in [(others[0], others[1]), (others[1], others[0])] {
        let name = &cluster.members[other].name;
        wait_for_connection(&cluster.members[asked], name).await;
    }
    wait_for_connection(&cluster.members[3], &cluster.members[others[0]].name).await;

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

/// A voter that stands still is replaced like one that is lost. It does not know when it goes on:
/// what it missed is the log, which it gets when Raft has it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_stood_still_finds_itself_replaced() {
    let cluster = Cluster::start_with(&["one", "two", "three", "four"], &settings(3, 7));
    let key = cluster.members[0].node().api_key("default");
    let https: Vec<Http> = (0..4).map(|index| cluster.http(index, &key)).collect();
    https[0].create("CREATE TABLE rows (id TEXT NOT NULL)").await;
    let start = [("one", "voter"), ("two", "voter"), ("three", "voter"), ("four", "replica")];
    wait_for_roles(&cluster.members[0], &start).await;

    let still = cluster.leader();
    let (name, other) = (cluster.members[still].name.clone(), (still + 1) % 3);
    let signal = |name: &str| {
        let member = &cluster.members[still];
        for pid in [member.rqlited_pid(), member.node().program.pid()] {
            let sent = Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
            assert!(sent.success());
        }
    };
    signal("-STOP");
    wait_for_roles(&cluster.members[other], &[("four", "voter")]).await;
    insert(&https[3..], 0, "a").await;
    signal("-CONT");
    let end = [(name.as_str(), "replica"), ("four", "voter")];
    wait_for_roles(&cluster.members[other], &end).await;
    wait_for_roles(&cluster.members[still], &end).await;
    insert(&https, still, "b").await;
    for http in &https {
        assert_eq!(rows(http).await, ["a", "b"]);
    }
}

/// Whether a file below a folder holds these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        std::fs::read(&path).unwrap().windows(bytes.len()).any(|part| part == bytes)
    })
}

/// Everything works through a node that has none of the data, also while one of the others is lost.
/// When a place is free, it takes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_too_many_passes_calls_on_until_a_place_is_free() {
    const SECRET: &str = "what-only-holders-hold";
    let mut cluster = Cluster::start_with(&["one", "two", "three", "relay"], &settings(3, 3));
    let relay = &cluster.members[3];
    wait_for_roles(&cluster.members[0], &[("relay", "relay")]).await;
    // Its own operator runs it, and through it the cluster.
    let status = relay.try_cli(&["cluster", "status"]).expect("a status");
    let own = status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "relay");
    assert_eq!(own.unwrap()["connected"], true, "{status}");
    let key = relay.node().api_key("default");
    let http = cluster.http(3, &key);
    assert_eq!(http.get("/ready").await.status, 200);

    http.create("CREATE TABLE rows (id TEXT NOT NULL)").await;
    let only_relay = [http.clone()];
    insert(&only_relay, 0, SECRET).await;
    http.put_value("key", SECRET).await.ok();
    assert_eq!(http.get_value("key").await.ok().text(), SECRET);
    assert_eq!(rows(&cluster.http(0, &key)).await, [SECRET]);
    let wallet = Wallet::numbered(1);
    let session = wallet.signed_in(&http, "of-a-wallet").await;
    session.put_value("key", SECRET).await.ok();
    assert_eq!(http.with_key("ak_wrong:default").get_value("key").await.status, 401);
    assert_eq!(http.get_value("no-such-key").await.status, 404);

    // The nodes that pass calls on have a place for messages: the same for all.
    let mut socket = Socket::open(relay.node().address, &key, "news").await;
    let message = json!({ "topic": "news", "data_base64": "aGVsbG8=" });
    http.post("/v1/pubsub/publish", &message).await.ok();
    assert!(matches!(socket.next().await, Frame::Binary(_)));

    let backup = relay.try_cli(&["db", "backup"]);
    assert!(backup.is_none(), "{backup:?}");
    for folder in ["db", "rqlite"] {
        assert!(!relay.data.join(folder).exists(), "{folder}");
    }
    assert!(!holds(&relay.data, SECRET.as_bytes()));
    assert!(holds(&cluster.members[0].data, SECRET.as_bytes()));

    // Whichever node it uses is lost.
    let mut expected = vec![SECRET.to_owned()];
    for lost in 0..3 {
        cluster.members[lost].kill();
        let id = format!("b{lost}");
        insert(&only_relay, 0, &id).await;
        expected.push(id);
        expected.sort();
        assert_eq!(rows(&http).await, expected);
        cluster.members[lost].start(&[]);
    }
    // It is one after another start as well.
    cluster.members[3].kill();
    cluster.members[3].start(&[]);
    assert_eq!(rows(&http).await, expected);
    assert!(!cluster.members[3].data.join("db").exists());

    let removed = cluster.members[0].try_cli(&["cluster", "remove", "three"]);
    assert!(removed.is_some());
    cluster.members[2].kill();
    wait_for_roles(&cluster.members[0], &[("one", "voter"), ("two", "voter"), ("relay", "voter")])
        .await;
    insert(&only_relay, 0, "c").await;
    expected.push("c".to_owned());
    expected.sort();
    assert_eq!(rows(&http).await, expected);
    assert!(holds(&cluster.members[3].data.join("db"), SECRET.as_bytes()));
}
