//! A leader whose files are compared with those of a follower when it is closed.

use crate::same_files::assert_same_files;
use crate::test_log::TestLog;
use async_trait::async_trait;
use bytes::Bytes;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_engine::{
    BackupInfo, CallOptions, Engine, ExportFile, KeyPage, NamespaceFilter, NamespaceInfo,
    ProgressFn, TargetDatabase, WriteOutcome,
};
use debros_proto::rpc::{Condition, Entry, Statement, StatementResult, Table};
use debros_proto::{Key, Namespace, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

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

/// A leader. When it is closed, a follower is made of its log.
struct ComparedEngine {
    folder: PathBuf,
    log: Arc<TestLog>,
    inner: EmbeddedEngine,
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
    let inner = EmbeddedEngine::open_replicated(config, Arc::clone(&log) as _).unwrap();
    Arc::new(ComparedEngine { folder, log, inner })
}

#[async_trait]
impl Engine for ComparedEngine {
    async fn query(
        &self,
        database: &TargetDatabase,
        statement: Statement,
        options: CallOptions,
    ) -> Result<WriteOutcome<StatementResult>> {
        self.inner.query(database, statement, options).await
    }

    async fn transaction(
        &self,
        database: &TargetDatabase,
        statements: Vec<Statement>,
        options: CallOptions,
    ) -> Result<WriteOutcome<Vec<StatementResult>>> {
        self.inner.transaction(database, statements, options).await
    }

    async fn schema(&self, namespace: &Namespace, options: CallOptions) -> Result<Vec<Table>> {
        self.inner.schema(namespace, options).await
    }

    async fn kv_put(
        &self,
        namespace: &Namespace,
        key: &Key,
        value: Bytes,
        condition: Condition,
        ttl_seconds: Option<u64>,
        options: CallOptions,
    ) -> Result<WriteOutcome<u64>> {
        self.inner.kv_put(namespace, key, value, condition, ttl_seconds, options).await
    }

    async fn kv_delete(
        &self,
        namespace: &Namespace,
        key: &Key,
        condition: Condition,
        options: CallOptions,
    ) -> Result<WriteOutcome<bool>> {
        self.inner.kv_delete(namespace, key, condition, options).await
    }

    async fn kv_get(
        &self,
        namespace: &Namespace,
        key: &Key,
        options: CallOptions,
    ) -> Result<Option<Entry>> {
        self.inner.kv_get(namespace, key, options).await
    }

    async fn kv_exists(
        &self,
        namespace: &Namespace,
        key: &Key,
        options: CallOptions,
    ) -> Result<bool> {
        self.inner.kv_exists(namespace, key, options).await
    }

    async fn kv_list(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        options: CallOptions,
    ) -> Result<KeyPage> {
        self.inner.kv_list(namespace, prefix, after, limit, options).await
    }

    async fn sweep(&self, now_ms: i64) -> Result<u64> {
        self.inner.sweep(now_ms).await
    }

    async fn namespaces(
        &self,
        filter: NamespaceFilter,
        options: CallOptions,
    ) -> Result<Vec<Namespace>> {
        self.inner.namespaces(filter, options).await
    }

    async fn namespace_info(
        &self,
        namespace: &Namespace,
        options: CallOptions,
    ) -> Result<NamespaceInfo> {
        self.inner.namespace_info(namespace, options).await
    }

    async fn delete_namespace(
        &self,
        namespace: &Namespace,
        also: Vec<Statement>,
        deadline: Instant,
    ) -> Result<()> {
        self.inner.delete_namespace(namespace, also, deadline).await
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    async fn backup(&self, progress: ProgressFn) -> Result<BackupInfo> {
        self.inner.backup(progress).await
    }

    async fn backups(&self) -> Result<Vec<BackupInfo>> {
        self.inner.backups().await
    }

    async fn restore(&self, name: &str, progress: ProgressFn) -> Result<()> {
        self.inner.restore(name, progress).await
    }

    async fn export(&self, namespace: &Namespace) -> Result<ExportFile> {
        self.inner.export(namespace).await
    }

    async fn close_by(&self, deadline: Instant) {
        self.inner.close_by(deadline).await;
        compare_with_follower(&self.folder, &self.log, |folder| EmbeddedConfig::new(folder));
    }
}
