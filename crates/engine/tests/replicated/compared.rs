//! A leader whose files are compared with those of a follower when its engine is gone.

use crate::same_files::assert_same_files;
use crate::test_log::TestLog;
use bytes::Bytes;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_engine::{AppendError, Engine, ReplicatedLog, TargetDatabase};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Another engine applies the log, and must have the same rows then.
pub(crate) fn compare_with_follower(
    leader: &Path,
    log: &TestLog,
    config: impl FnOnce(&Path) -> EmbeddedConfig + Send,
) {
    let folder = tempfile::tempdir().unwrap();
    let entries = log.entries();
    let apply = || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let log = Arc::new(TestLog::follower());
        let follower = EmbeddedEngine::open_replicated(config(folder.path()), log).unwrap();
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
    std::thread::scope(|scope| scope.spawn(apply).join()).unwrap();
    assert_same_files(leader, folder.path());
}

/// The log of a leader, which goes with its engine.
struct ComparingLog {
    folder: PathBuf,
    log: Arc<TestLog>,
}

impl ReplicatedLog for ComparingLog {
    fn is_leader(&self) -> bool {
        self.log.is_leader()
    }

    fn append(&self, database: &TargetDatabase, changes: Bytes) -> Result<u64, AppendError> {
        self.log.append(database, changes)
    }

    fn committed(&self, number: u64) {
        self.log.committed(number);
    }

    fn fell_behind(&self, number: u64) {
        self.log.fell_behind(number);
    }
}

impl Drop for ComparingLog {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let compare =
            || compare_with_follower(&self.folder, &self.log, |folder| EmbeddedConfig::new(folder));
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).is_err() {
            // It may be the thread of nobody's test.
            std::process::abort();
        }
    }
}

/// An engine that leads. One that is opened on the same folder again goes on with the same log.
pub(crate) fn open_engine(config: EmbeddedConfig) -> Arc<dyn Engine> {
    static LOGS: Mutex<Option<HashMap<PathBuf, Arc<TestLog>>>> = Mutex::new(None);
    let folder = config.data_dir.clone();
    let log = {
        let mut logs = LOGS.lock().unwrap();
        let log = logs.get_or_insert_default().entry(folder.clone());
        Arc::clone(log.or_insert_with(|| Arc::new(TestLog::leader())))
    };
    let log = Arc::new(ComparingLog { folder, log });
    Arc::new(EmbeddedEngine::open_replicated(config, log).unwrap())
}
