//! The conformance suite on an engine whose writes go through a log. After each case another engine
//! applies the log, and must have the same rows then.

mod compared;
mod corners;
#[path = "../suites/corpora.rs"]
mod corpora;
#[path = "../suites/dump.rs"]
mod dump;
mod members;
mod random;
mod recovery;
#[path = "../suites/references.rs"]
mod references;
mod same_files;
mod test_log;

use compared::compare_with_follower;
pub(crate) use compared::open_engine;
use debros_engine::conformance::Fixture;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
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
        if !std::thread::panicking() {
            compare_with_follower(self.folder.path(), &self.log, config);
        }
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
