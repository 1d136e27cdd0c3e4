//! The embedded engine: SQLite files in this process, one writer thread and a few readers for each.

mod authorizer;
mod autoincrement;
mod backup;
mod changed_owners;
mod closing_set;
mod config;
mod conn;
mod connection_limits;
mod copy_error;
mod counted_rows;
mod data_folder;
mod database_handle;
mod database_manager;
mod deadline;
mod disk_fault;
mod disk_reserve;
mod engine_open_error;
mod error_mapping;
mod execution;
mod export_limiter;
mod fair_queue;
mod file_identity;
mod file_names;
mod file_record;
mod functions;
mod hashed_map;
mod idempotency;
mod integrity;
mod job;
mod key_locks;
mod kv;
mod kv_calls;
mod last_insert;
mod metrics;
mod namespace_locks;
mod open_failure;
mod owners;
mod prepared_statement;
mod process_limits;
mod read_snapshots;
mod reader_pool;
mod replicated;
mod replication;
mod reserve_use;
mod result_budget;
mod size_accounting;
mod sql_write_options;
mod statement_run;
mod system;
mod temp_file_watch;
mod tenant;
mod tenant_schema;
mod thread_count;
mod time_limit;
mod usage_ledger;
mod verdict_cache;
mod writer;
mod writer_conn;

pub use backup::is_backup_name;
pub use config::{CallLimits, EmbeddedConfig};
pub use data_folder::available_space;
pub use engine_open_error::EngineOpenError;
pub use replicated::DatabaseSnapshot;

use crate::{
    BackupInfo, CallOptions, Engine, ExportFile, KeyPage, NamespaceFilter, NamespaceInfo,
    ProgressFn, ReplicatedLog, StorageReport, TargetDatabase, WriteOutcome,
};
use async_trait::async_trait;
use bytes::Bytes;
use database_manager::DatabaseManager;
use debros_proto::rpc::{
    Condition, DeleteResponse, Entry, PutResponse, Statement, StatementResult, Table,
};
use debros_proto::{Code, Error, Key, Namespace, Result};
use idempotency::RecordFile;
use key_locks::{KeyGuard, KeyLocks};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use time_limit::TimeLimit;

/// What closing may take for the disk after its deadline.
const CLOSE_DISK_TIME: Duration = Duration::from_millis(300);
/// SQLite files in this process. See the crate's `DESIGN.md`.
pub struct EmbeddedEngine {
    databases: Arc<DatabaseManager>,
    key_locks: Arc<KeyLocks>,
}

impl EmbeddedEngine {
    /// Opens the folder, makes what is missing, brings the system's tables up to date, and checks
    /// the databases if the program did not stop in order before. Blocks until that is done.
    ///
    /// # Errors
    /// [`EngineOpenError`]: what is wrong, with which file, and what to do.
    pub fn open(config: EmbeddedConfig) -> Result<EmbeddedEngine, EngineOpenError> {
        let engine = Self::open_with(config, None)?;
        tenant::finish_interrupted_deletions(&engine.databases)?;
        backup::finish_interrupted_restore(&engine.databases)?;
        Ok(engine)
    }

    fn open_with(
        config: EmbeddedConfig,
        log: Option<Arc<dyn ReplicatedLog>>,
    ) -> Result<EmbeddedEngine, EngineOpenError> {
        // A catalogue runs users' questions too.
        debros_sql::catalogue::on_open(|db| {
            functions::register_linear_functions(db)?;
            // It has no watch over temporary files, and needs none for what a schema holds.
            db.pragma_update(None, "temp_store", "MEMORY")
        });
        let databases = Arc::new(DatabaseManager::open(config, log)?);
        Ok(EmbeddedEngine { databases, key_locks: Arc::default() })
    }

    fn call_limits(&self) -> CallLimits {
        self.databases.shared.config.limits
    }

    fn time_limit(&self, options: &CallOptions) -> TimeLimit {
        TimeLimit {
            statement: self.databases.shared.config.statement_time,
            by_processor: false,
            deadline: options.deadline,
        }
    }

    fn check_statement(&self, statement: &Statement) -> Result<()> {
        let limits = self.call_limits();
        if statement.sql.len() > limits.sql_bytes {
            return Err(Error::new(
                Code::SqlTooLong,
                format!(
                    "the SQL text has {} bytes: at most {} are allowed",
                    statement.sql.len(),
                    limits.sql_bytes
                ),
            ));
        }
        if statement.args.len() > limits.args {
            return Err(Error::new(
                Code::TooManyArguments,
                format!(
                    "the statement has {} arguments: at most {} are allowed",
                    statement.args.len(),
                    limits.args
                ),
            ));
        }
        Ok(())
    }
}

/// Sets what it holds when it is dropped: the caller that waited has gone.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[async_trait]
impl Engine for EmbeddedEngine {
    async fn query(
        &self,
        database: &TargetDatabase,
        statement: Statement,
        options: CallOptions,
    ) -> Result<WriteOutcome<StatementResult>> {
        self.databases.check_open()?;
        self.check_statement(&statement)?;
        match database {
            TargetDatabase::System => self.system_query(statement, options).await,
            TargetDatabase::Namespace(namespace) => {
                let outcome = self.tenant_query(namespace, statement, options).await;
                self.databases.note_damage(namespace, &outcome);
                outcome
            }
        }
    }

    async fn transaction(
        &self,
        database: &TargetDatabase,
        statements: Vec<Statement>,
        options: CallOptions,
    ) -> Result<WriteOutcome<Vec<StatementResult>>> {
        self.databases.check_open()?;
        let limits = self.call_limits();
        if statements.is_empty() && options.idempotency_key.is_none() {
            return Err(Error::invalid("the transaction holds no statement"));
        }
        if statements.len() > limits.statements {
            return Err(Error::new(
                Code::TooManyStatements,
                format!(
                    "the transaction has {} statements: at most {} are allowed",
                    statements.len(),
                    limits.statements
                ),
            ));
        }
        for (index, statement) in statements.iter().enumerate() {
            self.check_statement(statement).map_err(|error| error.at_statement(index))?;
        }
        match database {
            TargetDatabase::System => self.system_transaction(statements, options).await,
            TargetDatabase::Namespace(namespace) => {
                let outcome = self.tenant_transaction(namespace, statements, options).await;
                self.databases.note_damage(namespace, &outcome);
                outcome
            }
        }
    }

    async fn schema(&self, namespace: &Namespace, options: CallOptions) -> Result<Vec<Table>> {
        self.databases.check_open()?;
        self.tenant_schema(namespace, &options).await
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
        let admission = self.databases.admit_write(namespace)?;
        let (size, max) = (value.len(), self.call_limits().value_bytes);
        if size > max {
            return Err(Error::new(
                Code::TooLarge,
                format!("the value has {size} bytes: at most {max} are allowed"),
            ));
        }
        if ttl_seconds == Some(0) {
            return Err(Error::invalid("the time to live is 0 s: it must be at least 1"));
        }
        let write = Self::kv_write_options(namespace, size, false, &options)?;
        let key_guard = self.lock_idempotency_key(&options, RecordFile::System).await?;
        let put = kv::PairWrite {
            namespace: namespace.clone(),
            key: key.clone(),
            value,
            condition,
            ttl_seconds,
        };
        let act = Self::kv_run_once(
            options.idempotency_key.zip(key_guard),
            put,
            self.admission_check(|put: &kv::PairWrite| &put.namespace, admission),
            kv::put,
            move |version| PutResponse { version: *version, size: size as u64 },
            |response| response.version,
        );
        self.write_kv(write, act).await
    }

    async fn kv_delete(
        &self,
        namespace: &Namespace,
        key: &Key,
        condition: Condition,
        options: CallOptions,
    ) -> Result<WriteOutcome<bool>> {
        let admission = self.databases.admit_write(namespace)?;
        let write = Self::kv_write_options(namespace, 0, true, &options)?;
        let key_guard = self.lock_idempotency_key(&options, RecordFile::System).await?;
        let act = Self::kv_run_once(
            options.idempotency_key.zip(key_guard),
            (namespace.clone(), key.clone(), condition),
            self.admission_check(
                |(namespace, ..): &(Namespace, Key, Condition)| namespace,
                admission,
            ),
            |conn, (namespace, key, condition)| kv::delete(conn, namespace, key, condition),
            |deleted| DeleteResponse { deleted: *deleted },
            |response| response.deleted,
        );
        self.write_kv(write, act).await
    }

    async fn kv_get(
        &self,
        namespace: &Namespace,
        key: &Key,
        _options: CallOptions,
    ) -> Result<Option<Entry>> {
        self.kv_read(namespace, |conn| kv::get(conn, namespace, key))
    }

    async fn kv_exists(
        &self,
        namespace: &Namespace,
        key: &Key,
        _options: CallOptions,
    ) -> Result<bool> {
        self.kv_read(namespace, |conn| kv::exists(conn, namespace, key))
    }

    async fn kv_list(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        _options: CallOptions,
    ) -> Result<KeyPage> {
        self.kv_read(namespace, |conn| kv::list(conn, namespace, prefix, after, limit))
    }

    async fn sweep(&self, now_ms: i64) -> Result<u64> {
        self.databases.check_open()?;
        self.databases.sweep_expired(now_ms).await
    }

    async fn namespaces(
        &self,
        filter: NamespaceFilter,
        options: CallOptions,
    ) -> Result<Vec<Namespace>> {
        self.list_namespaces(filter, options).await
    }

    async fn namespace_info(
        &self,
        namespace: &Namespace,
        options: CallOptions,
    ) -> Result<NamespaceInfo> {
        self.describe_namespace(namespace, options).await
    }

    async fn delete_namespace(
        &self,
        namespace: &Namespace,
        also: Vec<Statement>,
        deadline: Instant,
    ) -> Result<()> {
        let namespace = namespace.clone();
        self.run_maintenance(move |databases| {
            tenant::delete_namespace(databases, &namespace, also, deadline)
        })
        .await
    }

    fn lost_namespaces(&self) -> Vec<Namespace> {
        self.databases.lost_namespaces().into_iter().collect()
    }

    fn size(&self) -> u64 {
        self.databases.shared.sizes.total()
    }

    fn storage_report(&self) -> StorageReport {
        self.databases.storage_report()
    }

    async fn backup(&self, progress: ProgressFn) -> Result<BackupInfo> {
        self.run_maintenance(move |databases| backup::create_backup(databases, &progress)).await
    }

    async fn backups(&self) -> Result<Vec<BackupInfo>> {
        self.run_maintenance(|databases| backup::list_backups(&databases.shared.config.backup_dir))
            .await
    }

    async fn restore(&self, name: &str, progress: ProgressFn) -> Result<()> {
        let name = name.to_owned();
        self.run_maintenance(move |databases| backup::restore_backup(databases, &name, &progress))
            .await
    }

    async fn export(&self, namespace: &Namespace) -> Result<ExportFile> {
        let namespace = namespace.clone();
        let has_left = Arc::<AtomicBool>::default();
        // Half a file is of no use.
        let _caller = SetOnDrop(Arc::clone(&has_left));
        self.run_maintenance(move |databases| {
            backup::export_namespace(databases, &namespace, &has_left)
        })
        .await
    }

    async fn close_by(&self, deadline: Instant) {
        let databases = Arc::clone(&self.databases);
        let closing = tokio::task::spawn_blocking(move || databases.close_all(deadline));
        // A little longer, for the disk.
        match tokio::time::timeout_at((deadline + CLOSE_DISK_TIME).into(), closing).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                tracing::error!("closing the databases broke off; the next start checks them")
            }
            Err(_) => tracing::error!(
                "the databases could not be closed in time; the next start checks them"
            ),
        }
    }
}

impl EmbeddedEngine {
    /// Does something long on a thread of its own, which goes on when the caller does not wait for
    /// it: a backup, a restore, an export, a list of backups, or the deletion of a namespace. The
    /// thread is called `db-copy` in all of these cases.
    async fn run_maintenance<T: Send + 'static>(
        &self,
        act: impl FnOnce(&DatabaseManager) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.databases.check_open()?;
        let (reply, outcome) = tokio::sync::oneshot::channel();
        let databases = Arc::clone(&self.databases);
        let thread = std::thread::Builder::new().name("db-copy".to_owned()).spawn(move || {
            // The caller may have gone away; then the outcome is dropped.
            let _ = reply.send(act(&databases));
        });
        if let Err(error) = thread {
            tracing::error!(%error, "no thread for a copy or a deletion can be started");
            return Err(Error::new(
                Code::Overloaded,
                "the node cannot start another thread; try again",
            ));
        }
        outcome.await.unwrap_or_else(|_| {
            Err(Error::internal("the operation broke off; the node's log has more"))
        })
    }

    /// Locks the idempotency key for this call, unless a write of the other file came with it
    /// before. What is returned goes with the write.
    async fn lock_idempotency_key(
        &self,
        options: &CallOptions,
        target: RecordFile,
    ) -> Result<Option<KeyGuard>> {
        let Some(idempotency_key) = &options.idempotency_key else { return Ok(None) };
        let key_guard = self.key_locks.lock_key(idempotency_key, options.deadline).await?;
        let (namespace, databases) = (&idempotency_key.namespace, &self.databases);
        match target {
            RecordFile::Namespace => {
                databases.system.read_on_this_thread(|conn| {
                    idempotency::check_key_unused(conn, RecordFile::System, idempotency_key)
                })??;
            }
            // No call with this key makes a missing file while the key is held here. One that is
            // lost has unknown records, so nothing is done with a key.
            RecordFile::System if databases.has_database(namespace) => {
                let database = databases.open_or_create(namespace).await?;
                database.read_on_this_thread(|conn| {
                    idempotency::check_key_unused(conn, RecordFile::Namespace, idempotency_key)
                })??;
            }
            RecordFile::System => {}
        }
        // It may have waited for long.
        databases.check_not_deleting(namespace)?;
        Ok(Some(key_guard))
    }
}

impl Drop for EmbeddedEngine {
    /// Closes what [`close`](Engine::close) did not. Blocks.
    fn drop(&mut self) {
        self.databases.close_all(Instant::now() + crate::CLOSE_TIME);
    }
}

#[cfg(test)]
mod tests;
