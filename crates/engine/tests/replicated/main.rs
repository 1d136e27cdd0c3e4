//! The conformance suite on an engine whose writes go through a log. After each case another engine
//! applies the log, and must have the same rows then.

mod corners;
mod members;
mod random;
mod same_files;
mod test_log;

use debros_engine::conformance::Fixture;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use same_files::assert_same_files;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use test_log::TestLog;

fn config(folder: &Path) -> EmbeddedConfig {
    // Small, because a case fills it.
    EmbeddedConfig { max_namespace_size: Some(32 << 20), ..EmbeddedConfig::new(folder) }
}

/// What a case leaves; the comparison is made when it is dropped, after the engine.
struct Leader {
    folder: TempDir,
    log: Arc<TestLog>,
}

impl Drop for Leader {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let entries = self.log.entries();
        let compare = || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let follower = EmbeddedEngine::open_replicated(
                config(folder.path()),
                Arc::new(TestLog::follower()),
            )
            .unwrap();
            // In pieces, some of them twice, as after a crash.
            for (index, piece) in entries.chunks(7).enumerate() {
                runtime.block_on(follower.apply(piece.to_vec())).unwrap();
                if index % 3 == 0 {
                    runtime.block_on(follower.apply(piece.to_vec())).unwrap();
                }
            }
            follower.sync_files().unwrap();
            drop(follower);
        };
        std::thread::scope(|scope| scope.spawn(compare).join()).unwrap();
        assert_same_files(self.folder.path(), folder.path());
    }
}

async fn make() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(TestLog::leader());
    let engine =
        EmbeddedEngine::open_replicated(config(folder.path()), Arc::clone(&log) as _).unwrap();
    Fixture { engine: Arc::new(engine), keep: Box::new(Leader { folder, log }) }
}

debros_engine::conformance!(make);
