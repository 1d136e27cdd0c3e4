//! The conformance suite on three nodes, through one that does not lead. What another engine promises
//! that a cluster does not is left out here, with its reason.

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

async fn make() -> Fixture {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let engine: Arc<dyn Engine> = cluster.nodes[(leader + 1) % 3].engine();
    Fixture { engine, keep: Box::new(Running(Some(cluster))) }
}

debros_engine::conformance!(make);
