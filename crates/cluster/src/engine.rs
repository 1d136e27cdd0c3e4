//! The engine of a node that is part of a cluster: writes happen on the leader, reads wait until
//! this node knows enough.

use crate::database_name::name_of;
use crate::progress::Progress;
use crate::read_barrier::ReadBarrier;
use crate::write_route::{WriteRoute, leader_request};
use async_trait::async_trait;
use bytes::Bytes;
use debros_engine::embedded::EmbeddedEngine;
use debros_engine::{
    BackupInfo, CallOptions, Engine, ExportFile, KeyPage, NamespaceFilter, NamespaceInfo,
    ProgressFn, StorageReport, TargetDatabase, WriteOutcome,
};
use debros_proto::rpc::leader_write_request::Write;
use debros_proto::rpc::leader_write_response::Result as Answer;
use debros_proto::rpc::{
    Condition, Consistency, DeleteRequest, Entry, PutRequest, QueryRequest, Statement,
    StatementResult, Table, TransactionRequest,
};
use debros_proto::{Code, Error, Key, Namespace, Result};
use std::sync::Arc;
use std::time::Instant;

/// The engine of a node of a cluster.
pub struct ClusterEngine {
    embedded: Arc<EmbeddedEngine>,
    progress: Arc<Progress>,
    barrier: Arc<ReadBarrier>,
    route: WriteRoute,
}

/// All namespaces' key-value pairs are in the system's file.
const PAIRS: Option<&TargetDatabase> = Some(&TargetDatabase::System);
/// How often a read is made again when the node lost its lease meanwhile.
const READ_ATTEMPTS: usize = 5;

impl ClusterEngine {
    pub(crate) fn new(
        embedded: Arc<EmbeddedEngine>,
        progress: Arc<Progress>,
        barrier: Arc<ReadBarrier>,
        route: WriteRoute,
    ) -> Self {
        Self { embedded, progress, barrier, route }
    }

    /// The engine on the files here, without the cluster.
    pub fn local(&self) -> &Arc<EmbeddedEngine> {
        &self.embedded
    }

    /// One statement that writes, or may, of a call that came at `came`.
    async fn write_query(
        &self,
        came: Instant,
        database: &TargetDatabase,
        statement: Statement,
        options: CallOptions,
    ) -> Result<WriteOutcome<StatementResult>> {
        self.route
            .write(
                came,
                Some(database),
                &options,
                || self.embedded.query(database, statement.clone(), options.clone()),
                || {
                    let statement = Some(statement.clone());
                    let query = QueryRequest { statement, ..QueryRequest::default() };
                    leader_request(name_of(database), &options, Write::Query(query))
                },
                |answer| match answer {
                    Answer::Query(done) => Some(done),
                    _ => None,
                },
            )
            .await
    }

    async fn before_read(&self, database: &TargetDatabase, options: &CallOptions) -> Result<()> {
        match database {
            TargetDatabase::System if options.consistency == Consistency::None => Ok(()),
            TargetDatabase::System => self.barrier.wait_for_system(options.deadline).await,
            TargetDatabase::Namespace(_) => {
                self.barrier.wait(Some(database), options.consistency, options.deadline).await
            }
        }
    }

    /// Reads in a database, or any, and again if this node led before and its lease ran out
    /// meanwhile: the process may have been stopped between the look at the lease and the read.
    async fn read<T, F: Future<Output = Result<T>>>(
        &self,
        database: Option<&TargetDatabase>,
        options: &CallOptions,
        act: impl Fn() -> F,
    ) -> Result<T> {
        for _ in 0..READ_ATTEMPTS {
            let came = Instant::now();
            self.barrier.wait(database, options.consistency, options.deadline).await?;
            let led = self.progress.is_leader();
            let outcome = act().await;
            if !led || self.is_recent(options.consistency, came) {
                return outcome;
            }
        }
        Err(lost_contact_error())
    }

    /// Whether what this node has read as the leader is what the leader has: it was that at some
    /// moment after `came`.
    fn is_recent(&self, consistency: Consistency, came: Instant) -> bool {
        consistency == Consistency::None
            || self.progress.has_lease()
            || self.progress.is_confirmed_since(came)
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
        let call_came = Instant::now();
        if !self.progress.is_leader() && surely_writes(&statement.sql) {
            return self.write_query(call_came, database, statement, options).await;
        }
        for _ in 0..READ_ATTEMPTS {
            let came = Instant::now();
            self.before_read(database, &options).await?;
            let led = self.progress.is_leader();
            // What it is shows only when it runs: the thread that writes refuses it here.
            let found = self.embedded.query(database, statement.clone(), options.clone()).await;
            match found {
                Err(error) if error.code == Code::NotLeader => {
                    return self.write_query(call_came, database, statement, options).await;
                }
                // What was just made may not be here yet: a key, say, that is used at once.
                Ok(found) if *database == TargetDatabase::System => {
                    if !found.value.rows.is_empty() || self.progress.is_leader() {
                        return Ok(found);
                    }
                    self.barrier.wait(Some(database), Consistency::Weak, options.deadline).await?;
                    return self.embedded.query(database, statement, options).await;
                }
                // A write is in the log, whoever leads by now.
                Ok(found)
                    if led
                        && found.value.rows_affected.is_none()
                        && !self.is_recent(options.consistency, came) => {}
                found => return found,
            }
        }
        Err(lost_contact_error())
    }

    async fn transaction(
        &self,
        database: &TargetDatabase,
        statements: Vec<Statement>,
        options: CallOptions,
    ) -> Result<WriteOutcome<Vec<StatementResult>>> {
        self.route
            .write(
                Instant::now(),
                Some(database),
                &options,
                || self.embedded.transaction(database, statements.clone(), options.clone()),
                || {
                    let statements = statements.clone();
                    let write = Write::Transaction(TransactionRequest { statements });
                    leader_request(name_of(database), &options, write)
                },
                |answer| match answer {
                    Answer::Transaction(done) => Some(done.results),
                    _ => None,
                },
            )
            .await
    }

    async fn schema(&self, namespace: &Namespace, options: CallOptions) -> Result<Vec<Table>> {
        let database = TargetDatabase::Namespace(namespace.clone());
        self.read(Some(&database), &options, || self.embedded.schema(namespace, options.clone()))
            .await
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
        self.route
            .write(
                Instant::now(),
                PAIRS,
                &options,
                || {
                    let (value, options) = (value.clone(), options.clone());
                    self.embedded.kv_put(namespace, key, value, condition, ttl_seconds, options)
                },
                || {
                    let write = Write::Put(PutRequest {
                        key: key.as_str().to_owned(),
                        value: value.clone(),
                        condition: Some(condition),
                        ttl_seconds,
                    });
                    leader_request(namespace.as_str(), &options, write)
                },
                |answer| match answer {
                    Answer::Put(done) => Some(done.version),
                    _ => None,
                },
            )
            .await
    }

    async fn kv_delete(
        &self,
        namespace: &Namespace,
        key: &Key,
        condition: Condition,
        options: CallOptions,
    ) -> Result<WriteOutcome<bool>> {
        self.route
            .write(
                Instant::now(),
                PAIRS,
                &options,
                || self.embedded.kv_delete(namespace, key, condition, options.clone()),
                || {
                    let write = Write::Delete(DeleteRequest {
                        key: key.as_str().to_owned(),
                        condition: Some(condition),
                    });
                    leader_request(namespace.as_str(), &options, write)
                },
                |answer| match answer {
                    Answer::Delete(done) => Some(done.deleted),
                    _ => None,
                },
            )
            .await
    }

    async fn kv_get(
        &self,
        namespace: &Namespace,
        key: &Key,
        options: CallOptions,
    ) -> Result<Option<Entry>> {
        self.read(PAIRS, &options, || self.embedded.kv_get(namespace, key, options.clone())).await
    }

    async fn kv_exists(
        &self,
        namespace: &Namespace,
        key: &Key,
        options: CallOptions,
    ) -> Result<bool> {
        self.read(PAIRS, &options, || self.embedded.kv_exists(namespace, key, options.clone()))
            .await
    }

    async fn kv_list(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        options: CallOptions,
    ) -> Result<KeyPage> {
        self.read(PAIRS, &options, || {
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
        self.read(None, &options, || self.embedded.namespaces(filter.clone(), options.clone()))
            .await
    }

    async fn namespace_info(
        &self,
        namespace: &Namespace,
        options: CallOptions,
    ) -> Result<NamespaceInfo> {
        // What it has is counted in both files.
        self.barrier.wait(PAIRS, options.consistency, options.deadline).await?;
        let database = TargetDatabase::Namespace(namespace.clone());
        let info = || self.embedded.namespace_info(namespace, options.clone());
        self.read(Some(&database), &options, info).await
    }

    async fn delete_namespace(
        &self,
        namespace: &Namespace,
        also: Vec<Statement>,
        deadline: Instant,
    ) -> Result<()> {
        let options = CallOptions {
            consistency: Consistency::Weak,
            deadline,
            idempotency_key: None,
            caller: debros_engine::CallerKey::default(),
            read_only: false,
        };
        self.route
            .write(
                Instant::now(),
                None,
                &options,
                || async {
                    let also = also.clone();
                    self.embedded.delete_namespace(namespace, also, deadline).await?;
                    Ok(WriteOutcome { value: (), replayed: false })
                },
                || {
                    let also = TransactionRequest { statements: also.clone() };
                    leader_request(namespace.as_str(), &options, Write::DeleteNamespace(also))
                },
                |answer| matches!(answer, Answer::DeletedNamespace(true)).then_some(()),
            )
            .await
            .map(|outcome| outcome.value)
    }

    fn lost_namespaces(&self) -> Vec<Namespace> {
        self.embedded.lost_namespaces()
    }

    fn size(&self) -> u64 {
        self.embedded.size()
    }

    fn storage_report(&self) -> StorageReport {
        self.embedded.storage_report()
    }

    async fn backup(&self, progress: ProgressFn) -> Result<BackupInfo> {
        self.embedded.backup(progress).await
    }

    async fn backups(&self) -> Result<Vec<BackupInfo>> {
        self.embedded.backups().await
    }

    async fn restore(&self, name: &str, progress: ProgressFn) -> Result<()> {
        if !self.progress.is_leader() {
            return Err(Error::new(
                Code::Conflict,
                "a backup is restored on the node that leads (network-cli cluster status names it), from a backup of that node; \
                 nothing was changed",
            ));
        }
        self.embedded.restore(name, progress).await
    }

    async fn export(&self, namespace: &Namespace) -> Result<ExportFile> {
        self.embedded.export(namespace).await
    }

    async fn close_by(&self, deadline: Instant) {
        self.route.close();
        self.embedded.close_by(deadline).await;
    }
}

fn lost_contact_error() -> Error {
    Error::new(Code::Unavailable, "the node loses contact to its cluster again and again")
}

/// Whether a text writes for sure, so that it need not be tried here.
fn surely_writes(sql: &str) -> bool {
    const WRITING: [&str; 7] = ["INSERT", "REPLACE", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER"];
    let is_writing = |word: &str| WRITING.iter().any(|other| word.eq_ignore_ascii_case(other));
    debros_proto::sql::tokens(sql).next().is_some_and(is_writing)
}
