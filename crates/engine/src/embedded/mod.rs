//! The embedded engine: SQLite files in this process, one writer thread and a few readers for each.

mod config;
mod conn;
mod copies;
mod deadline;
mod disk_fault;
mod doors;
mod failure;
mod file_identity;
mod file_record;
mod folder;
mod functions;
mod gate;
mod guard;
mod hashed_map;
mod integrity;
mod job;
mod keys;
mod kv;
mod leaving;
mod ledger;
mod metrics;
mod owners;
mod process;
mod queue;
mod reserve;
mod size;
mod snapshots;
mod spill;
mod sql;
mod store;
mod stores;
mod system;
mod tenant;
mod threads;
mod verdict_cache;
mod writer;

pub use config::{EmbeddedConfig, Limits, OpenError};
pub use copies::is_backup_name;

use crate::{
    BackupInfo, CallOptions, Database, Engine, ExportFile, Guard, KeyPage, NamespaceFilter, NamespaceInfo, ProgressFn,
    Written,
};
use async_trait::async_trait;
use bytes::Bytes;
use debros_proto::rpc::{Condition, DeleteResponse, Entry, PutResponse, Statement, StatementResult, Table};
use debros_proto::{Code, Error, Key, Namespace, Result};
use doors::Admission;
use guard::Target;
use job::Undo;
use keys::{KeyGuard, Keys};
use queue::Flow;
use sql::Time;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use store::Write;
use stores::Stores;

/// What closing may take for the disk after its deadline.
const DISK_TIME: Duration = Duration::from_millis(300);
/// Bytes that a waiting job takes besides its statements and values.
const JOB_BYTES: usize = 256;

/// SQLite files in this process. See the crate's `DESIGN.md`.
pub struct Embedded {
    stores: Arc<Stores>,
    keys: Arc<Keys>,
}

impl Embedded {
    /// Opens the folder, makes what is missing, brings the system's tables up to date, and checks the databases if the
    /// program did not stop in order before. Blocks until that is done.
    ///
    /// # Errors
    /// [`OpenError`]: what is wrong, with which file, and what to do.
    pub fn open(config: EmbeddedConfig) -> Result<Embedded, OpenError> {
        // A catalogue runs users' questions too.
        debros_sql::catalogue::on_open(|db| {
            functions::install(db)?;
            // It has no watch over temporary files, and needs none for what a schema holds.
            db.pragma_update(None, "temp_store", "MEMORY")
        });
        let stores = Arc::new(Stores::open(config)?);
        tenant::finish_interrupted(&stores)?;
        copies::finish_interrupted(&stores)?;
        Ok(Embedded { stores, keys: Arc::default() })
    }

    fn limits(&self) -> Limits {
        self.stores.shared.config.limits
    }

    fn time(&self, options: &CallOptions) -> Time {
        Time { statement: self.stores.shared.config.statement_time, by_processor: false, deadline: options.deadline }
    }

    fn check_statement(&self, statement: &Statement) -> Result<()> {
        let limits = self.limits();
        if statement.sql.len() > limits.sql_bytes {
            return Err(Error::new(
                Code::SqlTooLong,
                format!("the SQL text has {} bytes: at most {} are allowed", statement.sql.len(), limits.sql_bytes),
            ));
        }
        if statement.args.len() > limits.args {
            return Err(Error::new(
                Code::TooManyArguments,
                format!("the statement has {} arguments: at most {} are allowed", statement.args.len(), limits.args),
            ));
        }
        Ok(())
    }

    /// The write of a key-value call: a single statement, and a savepoint only where a guard's record comes with it.
    fn kv_write(namespace: &Namespace, value_bytes: usize, removes: bool, options: &CallOptions) -> Result<Write> {
        if options.read_only {
            return Err(sql::forbidden());
        }
        let undo = if options.guard.is_some() { Undo::Savepoint } else { Undo::Statement };
        let flow = Flow::of(namespace, options.caller);
        Ok(Write { undo, removes, bytes: JOB_BYTES + value_bytes, deadline: options.deadline, flow })
    }
}

/// Sets what it holds when it is dropped: whoever waited has gone.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn statement_bytes(statement: &Statement) -> usize {
    let args: usize = statement.args.iter().map(|arg| 32 + arg.size()).sum();
    JOB_BYTES + statement.sql.len() + args
}

fn sql_write(facts_only_remove: bool, bytes: usize, options: &CallOptions) -> Write {
    let flow = Flow::of_caller(options.caller);
    Write { undo: Undo::Savepoint, removes: facts_only_remove, bytes, deadline: options.deadline, flow }
}

#[async_trait]
impl Engine for Embedded {
    async fn query(
        &self,
        database: &Database,
        statement: Statement,
        options: CallOptions,
    ) -> Result<Written<StatementResult>> {
        self.stores.check_open()?;
        self.check_statement(&statement)?;
        match database {
            Database::System => self.system_query(statement, options).await,
            Database::Namespace(namespace) => {
                let outcome = self.tenant_query(namespace, statement, options).await;
                self.stores.note_damage(namespace, &outcome);
                outcome
            }
        }
    }

    async fn transaction(
        &self,
        database: &Database,
        statements: Vec<Statement>,
        options: CallOptions,
    ) -> Result<Written<Vec<StatementResult>>> {
        self.stores.check_open()?;
        let limits = self.limits();
        if statements.is_empty() && options.guard.is_none() {
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
            Database::System => self.system_transaction(statements, options).await,
            Database::Namespace(namespace) => {
                let outcome = self.tenant_transaction(namespace, statements, options).await;
                self.stores.note_damage(namespace, &outcome);
                outcome
            }
        }
    }

    async fn schema(&self, namespace: &Namespace, options: CallOptions) -> Result<Vec<Table>> {
        self.stores.check_open()?;
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
    ) -> Result<Written<u64>> {
        let admission = self.stores.admit(namespace)?;
        let (size, max) = (value.len(), self.limits().value_bytes);
        if size > max {
            return Err(Error::new(Code::TooLarge, format!("the value has {size} bytes: at most {max} are allowed")));
        }
        if ttl_seconds == Some(0) {
            return Err(Error::invalid("the time to live is 0 s: it must be at least 1"));
        }
        let write = Self::kv_write(namespace, size, false, &options)?;
        let held = self.hold_key(options.guard.as_ref(), Target::System, options.deadline).await?;
        let put = kv::Put { namespace: namespace.clone(), key: key.clone(), value, condition, ttl_seconds };
        let act = kv_once(
            options.guard.zip(held),
            put,
            self.entry(|put: &kv::Put| &put.namespace, admission),
            kv::put,
            move |version| PutResponse { version: *version, size: size as u64 },
            |response| response.version,
        );
        self.write_pair(write, act).await
    }

    async fn kv_delete(
        &self,
        namespace: &Namespace,
        key: &Key,
        condition: Condition,
        options: CallOptions,
    ) -> Result<Written<bool>> {
        let admission = self.stores.admit(namespace)?;
        let write = Self::kv_write(namespace, 0, true, &options)?;
        let held = self.hold_key(options.guard.as_ref(), Target::System, options.deadline).await?;
        let act = kv_once(
            options.guard.zip(held),
            (namespace.clone(), key.clone(), condition),
            self.entry(|(namespace, ..): &(Namespace, Key, Condition)| namespace, admission),
            |conn, (namespace, key, condition)| kv::delete(conn, namespace, key, condition),
            |deleted| DeleteResponse { deleted: *deleted },
            |response| response.deleted,
        );
        self.write_pair(write, act).await
    }

    async fn kv_get(&self, namespace: &Namespace, key: &Key, _options: CallOptions) -> Result<Option<Entry>> {
        self.kv_read(namespace, |conn| kv::get(conn, namespace, key))
    }

    async fn kv_exists(&self, namespace: &Namespace, key: &Key, _options: CallOptions) -> Result<bool> {
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
        self.stores.check_open()?;
        self.stores.sweep(now_ms).await
    }

    async fn namespaces(&self, filter: NamespaceFilter, options: CallOptions) -> Result<Vec<Namespace>> {
        self.list_namespaces(filter, options).await
    }

    async fn namespace_info(&self, namespace: &Namespace, options: CallOptions) -> Result<NamespaceInfo> {
        self.describe_namespace(namespace, options).await
    }

    async fn delete_namespace(&self, namespace: &Namespace, also: Vec<Statement>, deadline: Instant) -> Result<()> {
        let namespace = namespace.clone();
        self.copying(move |stores| tenant::delete(stores, &namespace, also, deadline)).await
    }

    fn lost_namespaces(&self) -> Vec<Namespace> {
        self.stores.lost().into_iter().collect()
    }

    fn size(&self) -> u64 {
        self.stores.shared.sizes.total()
    }

    async fn backup(&self, progress: ProgressFn) -> Result<BackupInfo> {
        self.copying(move |stores| copies::take(stores, &progress)).await
    }

    async fn backups(&self) -> Result<Vec<BackupInfo>> {
        self.copying(|stores| copies::list(&stores.shared.config.backup_dir)).await
    }

    async fn restore(&self, name: &str, progress: ProgressFn) -> Result<()> {
        let name = name.to_owned();
        self.copying(move |stores| copies::restore(stores, &name, &progress)).await
    }

    async fn export(&self, namespace: &Namespace) -> Result<ExportFile> {
        let namespace = namespace.clone();
        let has_left = Arc::<AtomicBool>::default();
        // Half a file serves nobody.
        let _caller = SetOnDrop(Arc::clone(&has_left));
        self.copying(move |stores| copies::export(stores, &namespace, &has_left)).await
    }

    async fn close_by(&self, deadline: Instant) {
        let stores = Arc::clone(&self.stores);
        let closing = tokio::task::spawn_blocking(move || stores.close(deadline));
        // A little longer, for the disk.
        match tokio::time::timeout_at((deadline + DISK_TIME).into(), closing).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("closing the databases broke off; the next start checks them"),
            Err(_) => tracing::error!("the databases could not be closed in time; the next start checks them"),
        }
    }
}

impl Embedded {
    /// Does something long on a thread of its own, which goes on when the caller does not wait for it.
    async fn copying<T: Send + 'static>(&self, act: impl FnOnce(&Stores) -> Result<T> + Send + 'static) -> Result<T> {
        self.stores.check_open()?;
        let (reply, outcome) = tokio::sync::oneshot::channel();
        let stores = Arc::clone(&self.stores);
        let thread = std::thread::Builder::new().name("db-copy".to_owned()).spawn(move || {
            // The caller may have gone away; then nobody wants to know.
            let _ = reply.send(act(&stores));
        });
        if let Err(error) = thread {
            tracing::error!(%error, "no thread for a copy can be started");
            return Err(Error::new(Code::Overloaded, "the node can not start another thread; try again"));
        }
        outcome.await.unwrap_or_else(|_| Err(Error::internal("the copy broke off; the node's log has more")))
    }

    /// Refuses a write into the namespace that `owner` tells, when that was shut since the caller was let in.
    fn entry<W>(&self, owner: fn(&W) -> &Namespace, admission: Admission) -> impl Fn(&W) -> Result<()> + Send + use<W> {
        let doors = Arc::clone(&self.stores.doors);
        move |write| doors.check_still(owner(write), admission)
    }

    /// Gives this call the guard's key, unless it came with a write of the other file before. What is returned goes with the
    /// write.
    async fn hold_key(&self, guard: Option<&Guard>, target: Target, deadline: Instant) -> Result<Option<KeyGuard>> {
        let Some(guard) = guard else { return Ok(None) };
        let held = self.keys.hold(guard, deadline).await?;
        let (namespace, stores) = (&guard.namespace, &self.stores);
        match target {
            Target::Namespace => {
                stores.system.read_here(|conn| guard::check_unused(conn, Target::System, guard))??;
            }
            // A file that is not there yet is made by nobody with this key while it is held here. One that is lost has the
            // records of who knows what, so nothing is done with a key.
            Target::System if stores.has_database(namespace) => {
                let store = stores.namespace(namespace).await?;
                store.read_here(|conn| guard::check_unused(conn, Target::Namespace, guard))??;
            }
            Target::System => {}
        }
        // It may have waited for long.
        stores.check_there(namespace)?;
        Ok(Some(held))
    }

    /// A key-value write. A system's database that is found damaged takes none; what the node itself writes goes on, or nobody
    /// could sign in to restore it.
    async fn write_pair<T: Send + 'static>(
        &self,
        write: Write,
        act: impl FnMut(&mut conn::Conn) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let system = &self.stores.system;
        system.check_sound()?;
        let outcome = system.write(write, act).await;
        self.note_damage_of_system(&outcome);
        outcome
    }

    fn note_damage_of_system<T>(&self, outcome: &Result<T>) {
        if outcome.as_ref().is_err_and(|error| error.code == Code::Corrupt) && self.stores.system.mark_damaged(true) {
            tracing::error!("the system's database is damaged: it takes no key-value pairs until it is restored");
        }
    }

    fn kv_read<T>(&self, namespace: &Namespace, act: impl FnOnce(&conn::Conn) -> rusqlite::Result<T>) -> Result<T> {
        self.stores.check_there(namespace)?;
        let started = Instant::now();
        let system = &self.stores.system;
        let outcome = system
            .read_here(act)
            .and_then(|outcome| outcome.map_err(|error| system.span().in_scope(|| failure::of(error))));
        self.stores.shared.metrics.kv_read.record(started.elapsed().as_secs_f64());
        self.note_damage_of_system(&outcome);
        outcome
    }
}

/// A key-value write of who is still let in, made to happen once when there is a guard.
fn kv_once<W, M, T>(
    guard: Option<(Guard, KeyGuard)>,
    what: W,
    check_still: impl Fn(&W) -> Result<()> + Send + 'static,
    act: fn(&conn::Conn, &W) -> Result<T>,
    to_message: impl Fn(&T) -> M + Send + 'static,
    from_message: fn(M) -> T,
) -> impl FnMut(&mut conn::Conn) -> Result<Written<T>> + Send + 'static
where
    W: Send + 'static,
    M: prost::Message + Default + 'static,
    T: 'static,
{
    move |conn| {
        // Before any answer that is kept: it may be another owner's by now.
        check_still(&what)?;
        let guard = guard.as_ref().map(|(guard, _)| guard);
        guard::once(conn, Target::System, guard, |conn| act(conn, &what), &to_message, from_message)
    }
}

impl Drop for Embedded {
    /// Closes what [`close`](Engine::close) did not. Blocks.
    fn drop(&mut self) {
        self.stores.close(Instant::now() + crate::CLOSE_TIME);
    }
}

#[cfg(test)]
mod tests;
