//! The engine of a node that is part of a cluster: writes happen on the leader, reads wait until
//! this node knows enough.

use crate::progress::Progress;
use crate::read_barrier::ReadBarrier;
use async_trait::async_trait;
use bytes::Bytes;
use debros_engine::embedded::EmbeddedEngine;
use debros_engine::{
    BackupInfo, CallOptions, Engine, ExportFile, KeyPage, NamespaceFilter, NamespaceInfo,
    ProgressFn, TargetDatabase, WriteOutcome,
};
use debros_proto::rpc::{Condition, Consistency, Entry, Statement, StatementResult, Table};
use debros_proto::{Code, Error, Key, Namespace, Result};
use std::sync::Arc;
use std::time::Instant;

/// The engine of a node of a cluster. A write on a node that does not lead fails with `not_leader`
/// and changes nothing; the node passes the call on.
pub struct ClusterEngine {
    embedded: Arc<EmbeddedEngine>,
    progress: Arc<Progress>,
    barrier: Arc<ReadBarrier>,
}

/// How often a read is made again when the node lost its lease meanwhile.
const READ_ATTEMPTS: usize = 5;

impl ClusterEngine {
    pub(crate) fn new(
        embedded: Arc<EmbeddedEngine>,
        progress: Arc<Progress>,
        barrier: Arc<ReadBarrier>,
    ) -> Self {
        Self { embedded, progress, barrier }
    }

    /// The engine on the files here, without the cluster.
    pub fn local(&self) -> &Arc<EmbeddedEngine> {
        &self.embedded
    }

    fn check_leader(&self) -> Result<()> {
        if self.progress.is_leader() {
            return Ok(());
        }
        Err(Error::new(Code::NotLeader, "another node of the cluster leads; nothing was changed"))
    }

    async fn before_read(&self, database: &TargetDatabase, options: &CallOptions) -> Result<()> {
        match database {
            TargetDatabase::System => self.barrier.wait_for_system(options.deadline).await,
            TargetDatabase::Namespace(_) => {
                self.barrier.wait(options.consistency, options.deadline).await
            }
        }
    }

    /// Reads, and again if this node led before and its lease ran out meanwhile: the process may
    /// have been stopped between the look at the lease and the read.
    async fn read<T, F: Future<Output = Result<T>>>(
        &self,
        options: &CallOptions,
        act: impl Fn() -> F,
    ) -> Result<T> {
        for _ in 0..READ_ATTEMPTS {
            let came = Instant::now();
            self.barrier.wait(options.consistency, options.deadline).await?;
            let leads = self.progress.is_leader();
            let outcome = act().await;
            if options.consistency == Consistency::None
                || !leads
                || self.progress.has_lease()
                || self.progress.is_confirmed_since(came)
            {
                return outcome;
            }
        }
        Err(Error::new(Code::Unavailable, "the node loses contact to its cluster again and again"))
    }
}

#[async_trait]
impl Engine for ClusterEngine {
    async fn query(
        &self,
        database: &TargetDatabase,
        statement: Statement,
        options: CallOptions,
    ) -> Result<WriteOutcome<StatementResult>> {
        // What it is shows only when it runs; a write is refused by the thread that writes.
        self.before_read(database, &options).await?;
        self.embedded.query(database, statement, options).await
    }

    async fn transaction(
        &self,
        database: &TargetDatabase,
        statements: Vec<Statement>,
        options: CallOptions,
    ) -> Result<WriteOutcome<Vec<StatementResult>>> {
        self.check_leader()?;
        self.embedded.transaction(database, statements, options).await
    }

    async fn schema(&self, namespace: &Namespace, options: CallOptions) -> Result<Vec<Table>> {
        self.read(&options, || self.embedded.schema(namespace, options.clone())).await
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
        self.check_leader()?;
        self.embedded.kv_put(namespace, key, value, condition, ttl_seconds, options).await
    }

    async fn kv_delete(
        &self,
        namespace: &Namespace,
        key: &Key,
        condition: Condition,
        options: CallOptions,
    ) -> Result<WriteOutcome<bool>> {
        self.check_leader()?;
        self.embedded.kv_delete(namespace, key, condition, options).await
    }

    async fn kv_get(
        &self,
        namespace: &Namespace,
        key: &Key,
        options: CallOptions,
    ) -> Result<Option<Entry>> {
        self.read(&options, || self.embedded.kv_get(namespace, key, options.clone())).await
    }

    async fn kv_exists(
        &self,
        namespace: &Namespace,
        key: &Key,
        options: CallOptions,
    ) -> Result<bool> {
        self.read(&options, || self.embedded.kv_exists(namespace, key, options.clone())).await
    }

    async fn kv_list(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        options: CallOptions,
    ) -> Result<KeyPage> {
        self.read(&options, || {
            self.embedded.kv_list(namespace, prefix, after, limit, options.clone())
        })
        .await
    }

    async fn sweep(&self, now_ms: i64) -> Result<u64> {
        // The leader does it for all.
        if self.progress.is_leader() { self.embedded.sweep(now_ms).await } else { Ok(0) }
    }

    async fn namespaces(
        &self,
        filter: NamespaceFilter,
        options: CallOptions,
    ) -> Result<Vec<Namespace>> {
        self.barrier.wait(options.consistency, options.deadline).await?;
        self.embedded.namespaces(filter, options).await
    }

    async fn namespace_info(
        &self,
        namespace: &Namespace,
        options: CallOptions,
    ) -> Result<NamespaceInfo> {
        self.barrier.wait(options.consistency, options.deadline).await?;
        self.embedded.namespace_info(namespace, options).await
    }

    async fn delete_namespace(
        &self,
        namespace: &Namespace,
        also: Vec<Statement>,
        deadline: Instant,
    ) -> Result<()> {
        self.check_leader()?;
        self.embedded.delete_namespace(namespace, also, deadline).await
    }

    fn lost_namespaces(&self) -> Vec<Namespace> {
        self.embedded.lost_namespaces()
    }

    fn size(&self) -> u64 {
        self.embedded.size()
    }

    async fn backup(&self, progress: ProgressFn) -> Result<BackupInfo> {
        self.embedded.backup(progress).await
    }

    async fn backups(&self) -> Result<Vec<BackupInfo>> {
        self.embedded.backups().await
    }

    async fn restore(&self, name: &str, progress: ProgressFn) -> Result<()> {
        self.check_leader()?;
        self.embedded.restore(name, progress).await
    }

    async fn export(&self, namespace: &Namespace) -> Result<ExportFile> {
        self.embedded.export(namespace).await
    }

    async fn close_by(&self, deadline: Instant) {
        self.embedded.close_by(deadline).await;
    }
}
