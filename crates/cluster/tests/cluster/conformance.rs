//! The conformance suite on three nodes, through one that does not lead. Only restoring a backup and
//! sweeping what has expired are asked of the node that leads: a backup is the file of one node, and
//! one node sweeps for all.

use crate::harness::Cluster;
use debros_engine::Engine;
use debros_engine::conformance::Fixture;
use std::sync::Arc;

/// Ends the nodes when the case is over.
struct Running(Option<Cluster>);

impl Drop for Running {
    fn drop(&mut self) {
        let Some(cluster) = self.0.take() else { return };
        // The runtime of the case is busy with dropping this.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(cluster.stop());
            });
        });
    }
}

async fn make_node(places_after_leader: usize) -> Fixture {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let engine: Arc<dyn Engine> = cluster.nodes[(leader + places_after_leader) % 3].engine();
    Fixture { engine, keep: Box::new(Running(Some(cluster))) }
}

async fn make() -> Fixture {
    make_node(1).await
}

async fn make_leading() -> Fixture {
    make_node(0).await
}

debros_engine::conformance!(make, make_leading);
