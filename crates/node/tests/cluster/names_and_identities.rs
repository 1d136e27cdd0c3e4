//! Two nodes of one name or one identity.

use crate::proofs::hello_as;
use crate::support::{
    all_connected, connected, first_node, join, refused, refused_to_join, roles, token,
};
use std::fs;

#[tokio::test]
async fn a_name_that_is_taken_is_refused() {
    let one = first_node("one").await;
    let kept = token(&one).await;
    let (_folder, error) = refused_to_join("one", kept.clone()).await;
    assert!(error.contains("has the name \"one\"") && error.contains("node.id"), "{error}");
    assert_eq!(roles(&one).await, ["one voter"]);
    // The token is still good: nothing has changed.
    let two = crate::support::join_with("two", kept).await;
    all_connected(&[&one, &two]).await;
    // Nor can a node that is in take another's name later.
    let stopped = two.stop().await;
    let error = refused(stopped.folder(), |config| config.node_id = "one".into()).await;
    assert!(error.contains("has the name \"one\""), "{error}");
}

#[tokio::test]
async fn a_second_program_with_the_identity_of_a_node_is_no_node() {
    let one = first_node("one").await;
    let two = join("two", &one).await;
    all_connected(&[&one, &two]).await;
    // A copy of its folder.
    let error = hello_as(&two.folder().join("node"), &one, "two").await.unwrap_err();
    assert!(error.message.contains("copies of one identity.key"), "{error}");
    connected(&one, &[&two]).await;
    // A token of the copied node itself.
    let own = token(&two).await;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("node")).unwrap();
    fs::copy(two.folder().join("node/identity.key"), folder.path().join("node/identity.key"))
        .unwrap();
    let error = refused(folder.path(), |config| {
        config.node_id = "three".into();
        config.cluster.join = Some(own);
    })
    .await;
    assert!(error.contains("identity.key was copied"), "{error}");
    // And one that wants to join as a node that is connected.
    let good = token(&one).await;
    let error = refused(folder.path(), |config| {
        config.node_id = "three".into();
        config.cluster.join = Some(good);
    })
    .await;
    assert!(error.contains("copies of one identity.key"), "{error}");
    assert_eq!(roles(&one).await, ["one voter", "two voter"]);
}
