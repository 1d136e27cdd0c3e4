//! How a node gets in.

use crate::support::{
    LONG, all_connected, clock, cluster_key, first_node, join, join_with, refused, refused_to_join,
    roles, status, token, token_text,
};
use debros_client::Code;
use debros_node::JoinToken;
use debros_testkit::TestNode;
use std::time::Duration;

#[tokio::test]
async fn nodes_that_join_know_each_other_and_have_roles_by_their_number() {
    let small = |config: &mut debros_node::NodeConfig| {
        config.node_id = "one".into();
        config.cluster.replication_factor = 1;
        config.cluster.max_replicas = 2;
    };
    let one = TestNode::start_with(small).await;
    let id = one.operator_client("").cluster().init().await.unwrap();
    let two = join("two", &one).await;
    // With a token of a node that has joined.
    let three = join("three", &one).await;
    all_connected(&[&one, &two, &three]).await;
    for node in [&one, &two, &three] {
        assert_eq!(roles(node).await, ["one voter", "two replica", "three relay"]);
        let status = status(node).await;
        assert_eq!(status.cluster_id, id);
        assert!(status.nodes.iter().all(|node| node.connected && node.last_seen > 0));
        let own: Vec<_> = status.nodes.iter().filter(|node| node.is_self).collect();
        assert_eq!(own[0].node.as_ref().unwrap().peer_id, node.node().peer_id().to_string());
        assert_eq!(cluster_key(node), cluster_key(&one));
    }
    // The connection carries any call.
    let channel = one.node().members().channel(&three.node().peer_id()).unwrap();
    let call = debros_client::rpc::request::Call::Status(debros_client::rpc::StatusRequest {});
    let request = debros_client::rpc::Request { call: Some(call), ..Default::default() };
    channel.call(request, LONG).await.unwrap();
}

#[tokio::test]
async fn a_node_alone_has_no_key_and_makes_no_token() {
    let node = TestNode::start().await;
    let refused = node.operator_client("").cluster().create_join_token().await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    assert!(refused.message.contains("network-cli cluster init"), "{refused}");
    let step_down = node.operator_client("").cluster().step_down().await.unwrap_err();
    assert_eq!(step_down.code, Code::Unavailable);
    assert!(status(&node).await.cluster_id.is_empty());
    assert!(!node.folder().join("node/cluster.key").exists());
    node.operator_client("").cluster().init().await.unwrap();
    let again = node.operator_client("").cluster().init().await.unwrap_err();
    assert!(again.message.contains("already"), "{again}");
    // A restart keeps it.
    let id = status(&node).await.cluster_id;
    let node = node.restart().await;
    assert_eq!(status(&node).await.cluster_id, id);
}

#[tokio::test]
async fn a_token_lets_one_node_in_and_the_same_one_again() {
    let one = first_node("one").await;
    let text = token_text(&one).await;
    let parse = || text.parse::<JoinToken>().unwrap();
    let two = join_with("two", parse()).await;
    let (folder, error) = refused_to_join("three", parse()).await;
    assert!(error.contains("let another node in already"), "{error}");
    assert!(!folder.path().join("node/cluster.key").exists());
    assert_eq!(roles(&one).await, ["one voter", "two voter"]);
    // With the flags of the first start.
    let restarted = two
        .restart_with(|config| {
            config.node_id = "two".into();
            config.cluster.join = Some(parse());
        })
        .await;
    all_connected(&[&one, &restarted]).await;
    // As after a crash before the key was kept.
    let key = restarted.folder().join("node/cluster.key");
    let lost = restarted.restart_after(|| std::fs::remove_file(&key).unwrap()).await;
    assert!(status(&lost).await.cluster_id.is_empty());
    let again = lost
        .restart_with(|config| {
            config.node_id = "two".into();
            config.cluster.join = Some(parse());
        })
        .await;
    all_connected(&[&one, &again]).await;
}

#[tokio::test]
async fn of_many_nodes_with_one_token_one_gets_in() {
    let one = first_node("one").await;
    let text = token_text(&one).await;
    let joins = (0..5).map(|number| {
        let token: JoinToken = text.parse().unwrap();
        async move {
            let folder = tempfile::tempdir().unwrap();
            let mut config = debros_node::NodeConfig::new(folder.path().join("node"));
            config.listen_addresses = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
            config.cluster.is_wanted = false;
            config.node_id = format!("new {number}");
            config.cluster.join = Some(token);
            (debros_node::Node::start(config).await.is_ok(), folder)
        }
    });
    let joined = futures::future::join_all(joins).await;
    assert_eq!(joined.iter().filter(|(joined, _)| *joined).count(), 1);
    assert_eq!(roles(&one).await.len(), 2);
}

#[tokio::test]
async fn an_expired_or_unknown_token_lets_nobody_in() {
    let clock = clock();
    let one = TestNode::start_with(|config| config.clock = clock.clone()).await;
    one.operator_client("").cluster().init().await.unwrap();
    let old = token(&one).await;
    clock.advance(Duration::from_secs(3601));
    let (_folder, error) = refused_to_join("two", old).await;
    assert!(error.contains("expired"), "{error}");
    // A token of the same node, from before its database was replaced.
    let known = token(&one).await;
    let key = one.folder().join("node/cluster.key");
    let kept = std::fs::read_to_string(&key).unwrap();
    let db = one.folder().join("node/db");
    let known_files = one.folder().join("node/database.files");
    let remove = || {
        std::fs::remove_dir_all(&db).unwrap();
        std::fs::remove_file(&known_files).unwrap();
    };
    let one = one.restart_after(remove).await;
    assert_eq!(std::fs::read_to_string(&key).unwrap(), kept);
    let (_folder, error) = refused_to_join("two", known).await;
    assert!(error.contains("knows no such join token"), "{error}");
    assert_eq!(roles(&one).await.len(), 1);
}

#[tokio::test]
async fn a_token_of_another_cluster_is_refused_on_both_sides() {
    let (one, other) = (first_node("one").await, first_node("other").await);
    let stranger = token(&other).await;
    // A node that is in a cluster does not change to another one.
    let key = cluster_key(&one);
    let stopped = one.stop().await;
    let error = refused(stopped.folder(), |config| {
        config.node_id = "one".into();
        config.cluster.join = Some(stranger);
    })
    .await;
    assert!(error.contains("this node is of the cluster"), "{error}");
    let text = std::fs::read_to_string(stopped.folder().join("node/cluster.key")).unwrap();
    assert!(text.contains(&key));
}

/// Each closed the other's connection, and nothing was left.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_dial_each_other_at_once_keep_one_connection() {
    let one = first_node("one").await;
    let two = join("two", &one).await;
    all_connected(&[&one, &two]).await;
    let (one, two) = (one.stop().await, two.stop().await);
    // Neither is there when the other one starts: both dial.
    let (one, two) = tokio::join!(
        one.start(|config| config.node_id = "one".into()),
        two.start(|config| config.node_id = "two".into())
    );
    // And once more, on the operator's word, whether or not they have dialled themselves.
    for (from, to) in [(&one, &two), (&two, &one)] {
        from.operator_client("").operator().connect_peer(to.address()).await.unwrap();
    }
    // One may be lost to the better one a moment after it was there; a call then goes over that.
    let call = debros_client::rpc::request::Call::Status(debros_client::rpc::StatusRequest {});
    let answers = async {
        for (from, to) in [(&one, &two), (&two, &one)] {
            loop {
                all_connected(&[&one, &two]).await;
                let Some(channel) = from.node().members().channel(&to.node().peer_id()) else {
                    continue;
                };
                let call = Some(call.clone());
                let request = debros_client::rpc::Request { call, ..Default::default() };
                if channel.call(request, LONG).await.is_ok() {
                    break;
                }
            }
        }
    };
    tokio::time::timeout(LONG, answers).await.unwrap();
}
