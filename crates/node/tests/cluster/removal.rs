//! How a node gets out, and that it stays out.

use crate::proofs::hello_as;
use crate::support::{
    LONG, all_connected, cluster_key, connected, first_node, join, refused, roles, token,
};
use debros_client::{Code, rpc};
use debros_testkit::TestNode;
use std::fs;

#[tokio::test]
async fn a_removed_node_is_out_for_good_and_the_others_have_a_new_key() {
    let one = first_node("one").await;
    let two = join("two", &one).await;
    let three = join("three", &one).await;
    let away = join("away", &one).await;
    all_connected(&[&one, &two, &three, &away]).await;
    let old_key = cluster_key(&one);
    let (away_id, away_folder) = (away.node().peer_id(), away.folder().join("node"));
    // One that is away while the key is replaced.
    let away_address = away.address();
    let away_kept = away.stop().await;
    connected(&one, &[&two, &three]).await;

    let channel = three.node().members().channel(&one.node().peer_id()).unwrap();
    let removed = one.operator_client("").cluster().remove("three").await.unwrap();
    assert_eq!(removed.peer_id, three.node().peer_id().to_string());
    assert_eq!(removed.without_new_key, ["away"]);
    // What it had open is closed.
    tokio::time::timeout(LONG, channel.closed()).await.unwrap();
    connected(&one, &[&two]).await;
    connected(&two, &[&one]).await;
    connected(&three, &[]).await;
    assert_eq!(roles(&one).await, ["one voter", "two voter", "away replica"]);
    assert_eq!(roles(&one).await, roles(&two).await);
    assert_ne!(cluster_key(&one), old_key);
    assert_eq!(cluster_key(&one), cluster_key(&two));
    assert_eq!(cluster_key(&three), old_key);

    // With the old key it is refused, also after a restart, by its peer id.
    let three = three.restart_with(|config| config.node_id = "three".into()).await;
    for node in [&one, &two] {
        let folder = three.folder().join("node");
        let error = hello_as(&folder, node, "three").await.unwrap_err();
        assert_eq!(error.code, Code::Forbidden);
        assert!(error.message.contains("was removed from the cluster"), "{error}");
    }
    // With a new token too, whatever it still holds.
    let new_token = token(&one).await;
    let key = three.folder().join("node/cluster.key");
    let three = three.stop().await;
    fs::remove_file(&key).unwrap();
    let error = refused(three.folder(), |config| {
        config.node_id = "three".into();
        config.cluster.join = Some(new_token);
    })
    .await;
    assert!(error.contains("was removed from the cluster"), "{error}");

    // The one that was away comes back with the old key and gets the new one.
    assert!(fs::read_to_string(away_folder.join("cluster.key")).unwrap().contains(&old_key));
    let away = away_kept.start(|config| config.node_id = "away".into()).await;
    assert_eq!((away.node().peer_id(), away.address()), (away_id, away_address));
    all_connected(&[&one, &two, &away]).await;
    assert_eq!(cluster_key(&away), cluster_key(&one));
    assert_eq!(roles(&away).await, roles(&one).await);
}

#[tokio::test]
async fn a_node_removes_neither_itself_nor_what_is_not_there() {
    let one = first_node("one").await;
    let remove = async |name: &str| one.operator_client("").cluster().remove(name).await;
    let last = remove("one").await.unwrap_err();
    assert!(last.message.contains("last node"), "{last}");
    let two = join("two", &one).await;
    all_connected(&[&one, &two]).await;
    let own = remove(&one.node().peer_id().to_string()).await.unwrap_err();
    assert!(own.message.contains("does not remove itself"), "{own}");
    assert_eq!(remove("nobody").await.unwrap_err().code, Code::NotFound);
    assert_eq!(roles(&one).await, ["one voter", "two voter"]);
    // By its peer id, and again: what failed half-way is finished so.
    let peer = two.node().peer_id().to_string();
    remove(&peer).await.unwrap();
    remove(&peer).await.unwrap();
    assert_eq!(remove("two").await.unwrap_err().code, Code::NotFound);
    // The role is free again.
    let three = join("two", &one).await;
    all_connected(&[&one, &three]).await;
    assert_eq!(roles(&one).await, ["one voter", "two voter"]);
}

/// A backup knows nothing of what came after it.
#[tokio::test]
async fn a_restore_brings_no_removed_node_back() {
    let one = TestNode::start_with(|config| config.node_id = "one".into()).await;
    let before = backup(&one).await;
    one.operator_client("").cluster().init().await.unwrap();
    let two = join("two", &one).await;
    all_connected(&[&one, &two]).await;
    let with_two = backup(&one).await;
    one.operator_client("").cluster().remove("two").await.unwrap();
    for name in [with_two, before] {
        let client = one.operator_client("");
        let mut restore = client.operator().restore(name).await.unwrap();
        while let Some(event) = restore.next().await {
            event.unwrap();
        }
        assert_eq!(roles(&one).await, ["one voter"]);
        let folder = two.folder().join("node");
        let error = hello_as(&folder, &one, "two").await.unwrap_err();
        assert!(error.message.contains("was removed from the cluster"), "{error}");
    }
}

/// Makes a backup and returns its name.
async fn backup(node: &TestNode) -> String {
    let client = node.operator_client("");
    let mut events = client.operator().backup().await.unwrap();
    while let Some(event) = events.next().await {
        if let Some(rpc::event::Kind::Done(done)) = event.unwrap().kind {
            return done.backup.unwrap().name;
        }
    }
    panic!("the backup ended without a copy")
}
