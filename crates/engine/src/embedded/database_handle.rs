//! One SQLite file in use: a thread that writes, threads that query, and connections to read with.
//!
//! Each namespace has a file of its own today. Whatever comes in its place stays behind this type
//! and [`DatabaseManager`](super::database_manager::DatabaseManager).

mod closing;
mod query_threads;

#[cfg(test)]
pub(super) use query_threads::LEAST_BRIEF_TIME;

use super::config::EmbeddedConfig;
use super::conn::SqliteConnection;
use super::deadline::NO_DEADLINE;
use super::disk_reserve::DiskReserve;
use super::error_mapping;
use super::fair_queue::{FairQueue, FlowId, QueueBudget, ThreadShare};
use super::job::{JobIsolation, WriteJob};
use super::metrics::EngineMetrics;
use super::open_failure::OpenFailure;
use super::reader_pool::ReaderPool;
use super::size_accounting::SizeAccounting;
use super::tenant_schema::Tenant;
use super::thread_count::ThreadCount;
use super::verdict_cache::VerdictCache;
use super::writer::{FileLimits, WriterThread};
use super::writer_conn::WriterConnection;
use crate::ReplicatedLog;
use debros_proto::{Code, Error, Result, lock};
use debros_sql::RewriteCache;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::oneshot;
use tracing::Span;

/// What all databases share.
pub(super) struct SharedResources {
    pub(super) config: EmbeddedConfig,
    pub(super) sizes: Arc<SizeAccounting>,
    /// Disk space for deletes.
    pub(super) reserve: Arc<DiskReserve>,
    pub(super) metrics: Arc<EngineMetrics>,
    /// Bytes that wait in the queues of all databases.
    pub(super) waiting: Arc<QueueBudget>,
    /// Remembers the rewritten statements of all namespaces.
    pub(super) rewriter: Arc<RewriteCache>,
    /// The cluster's log; `None`: the node keeps its data alone.
    pub(super) log: Option<Arc<dyn ReplicatedLog>>,
}

/// One SQLite file in use.
pub(super) struct DatabaseHandle {
    path: PathBuf,
    span: Span,
    writes: Arc<FairQueue<WriteJob>>,
    reads: Arc<FairQueue<ReadJob>>,
    /// What is tried for a moment, on a thread of its own, because it would wait for the others.
    brief_reads: Arc<FairQueue<ReadJob>>,
    pool: Arc<ReaderPool>,
    share: ThreadShare,
    /// Query threads that there are at most.
    max_threads: usize,
    writer: Mutex<Option<JoinHandle<WriterConnection>>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    brief_reader: Mutex<Option<JoinHandle<()>>>,
    threads: Arc<ThreadCount>,
    verdicts: Arc<VerdictCache>,
    tenant: Option<Arc<Tenant>>,
    reserve: Arc<DiskReserve>,
    /// Damage was found in it: it can be read as far as it goes, and takes no writes.
    damaged: AtomicBool,
    log: Option<Arc<dyn ReplicatedLog>>,
}

type ReadJob = Box<dyn FnOnce(Result<&SqliteConnection>) + Send>;

/// What a write is to the queue.
pub(super) struct WriteOptions {
    pub(super) isolation: JobIsolation,
    pub(super) removes: bool,
    /// What it takes in memory while it waits.
    pub(super) bytes: usize,
    pub(super) deadline: Instant,
    /// Whose it is.
    pub(super) flow: FlowId,
}

impl WriteOptions {
    /// The engine's own removals, for which no caller waits.
    pub(super) fn for_removal(isolation: JobIsolation) -> Self {
        Self {
            isolation,
            removes: true,
            bytes: 0,
            deadline: Instant::now() + NO_DEADLINE,
            flow: FlowId::default(),
        }
    }
}

impl DatabaseHandle {
    /// Opens a file, making it when it is missing, and starts its writer with a cache of so many
    /// KiB. `prepare` runs first, on the writing connection.
    pub(super) fn open(
        path: &Path,
        cache: u32,
        shared: &SharedResources,
        prepare: impl FnOnce(&mut WriterConnection) -> Result<(), OpenFailure>,
    ) -> Result<DatabaseHandle, OpenFailure> {
        let mut conn = WriterConnection::open(path, cache)?;
        prepare(&mut conn)?;
        if shared.log.is_some() {
            conn.start_recording()?;
        }
        let config = &shared.config;
        let writes = Arc::new(new_queue(shared, "writes"));
        let metrics = Arc::clone(&shared.metrics);
        let verdicts = Arc::new(VerdictCache::new(path, Arc::clone(conn.schema_changes())));
        let quota = conn.writer_schema.as_ref().and(config.max_namespace_size);
        let file_limits = FileLimits {
            sizes: Arc::clone(&shared.sizes),
            reserve: Arc::clone(&shared.reserve),
            max_log: config.max_log(quota),
        };
        let tenant = conn.writer_schema.as_ref().map(|schema| Arc::clone(schema.tenant()));
        // Made once, because making one for each statement would cost more than many a read.
        let span = tracing::error_span!("database", file = %path.display());
        let pool = Arc::new(ReaderPool::new(path, span.clone(), config.idle_readers())?);
        let writer = WriterThread::new(
            conn,
            Arc::clone(&writes),
            metrics,
            Arc::clone(&pool),
            path,
            file_limits,
            shared.log.clone(),
        )?;
        let writing = span.clone();
        let threads = Arc::<ThreadCount>::default();
        let running = threads.add_thread();
        let thread = std::thread::Builder::new().name("db-writer".to_owned()).spawn(move || {
            let _running = running;
            writing.in_scope(|| writer.run())
        })?;
        Ok(DatabaseHandle {
            path: path.to_owned(),
            span,
            writes,
            reads: Arc::new(new_queue(shared, "queries")),
            brief_reads: Arc::new(new_queue(shared, "queries")),
            pool,
            share: config.thread_share(),
            max_threads: config.max_readers(),
            writer: Mutex::new(Some(thread)),
            readers: Mutex::default(),
            brief_reader: Mutex::default(),
            threads,
            verdicts,
            tenant,
            reserve: Arc::clone(&shared.reserve),
            damaged: AtomicBool::new(false),
            log: shared.log.clone(),
        })
    }

    /// The cluster's log; `None`: the node keeps its data alone.
    pub(super) fn replicated_log(&self) -> Option<Arc<dyn ReplicatedLog>> {
        self.log.clone()
    }

    /// The namespace whose file it is; `None` for the system's.
    pub(super) fn tenant(&self) -> Option<&Arc<Tenant>> {
        self.tenant.as_ref()
    }

    /// Refuses writes to a file that is known to be damaged: each could damage more, and a restore
    /// takes it away.
    ///
    /// # Errors
    /// `database_corrupt`.
    pub(super) fn check_undamaged(&self) -> Result<()> {
        if self.damaged.load(Relaxed) {
            Err(error_mapping::database_damaged_error())
        } else {
            Ok(())
        }
    }

    /// Says whether the file is damaged. True: that was not known before.
    pub(super) fn set_damaged(&self, damaged: bool) -> bool {
        self.damaged.swap(damaged, Relaxed) != damaged
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where what is logged names the file. The database's own threads are in it; a read on a
    /// calling thread enters it where something may fail.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Has the writer thread do something, and waits until it is committed. `act` may run more than
    /// once.
    pub(super) async fn write<T, F>(&self, write: WriteOptions, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut WriterConnection) -> Result<T> + Send + 'static,
    {
        self.push(write, act)?.await.unwrap_or_else(|_| Err(thread_lost_error()))
    }

    /// As [`write`](DatabaseHandle::write), for a thread that may block.
    pub(super) fn write_blocking<T, F>(&self, write: WriteOptions, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut WriterConnection) -> Result<T> + Send + 'static,
    {
        self.push(write, act)?.blocking_recv().unwrap_or_else(|_| Err(thread_lost_error()))
    }

    fn push<T, F>(&self, write: WriteOptions, act: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnMut(&mut WriterConnection) -> Result<T> + Send + 'static,
    {
        let (mut job, outcome) = WriteJob::new(write.isolation, write.deadline, act);
        (job.removes, job.flow, job.bytes) = (write.removes, write.flow, write.bytes);
        self.writes.push(write.flow, job, write.bytes)?;
        Ok(outcome)
    }

    /// Reads on this thread: only for what is surely done in microseconds.
    pub(super) fn read_on_this_thread<T>(
        &self,
        act: impl FnOnce(&SqliteConnection) -> T,
    ) -> Result<T> {
        let conn = self.pool.acquire()?;
        conn.refresh_snapshot(self.pool.snapshots.newest_commit())
            .map_err(error_mapping::map_sqlite_error)?;
        let outcome = act(&conn);
        self.pool.release(conn);
        Ok(outcome)
    }

    /// What is known of the texts that ran here.
    pub(super) fn verdicts(&self) -> &Arc<VerdictCache> {
        &self.verdicts
    }

    /// How many threads the database has.
    #[cfg(test)]
    pub(super) fn thread_count(&self) -> usize {
        self.threads.running()
    }

    /// Whether nothing runs and nothing waits. A caller may be gone whose statement still runs.
    pub(super) fn is_idle(&self) -> bool {
        self.writes.is_idle(1)
            && self.reads.is_idle(lock(&self.readers).len())
            && self.brief_reads.is_idle(usize::from(lock(&self.brief_reader).is_some()))
    }

    /// Whether the file was removed or replaced, as of the last look.
    pub(super) fn is_displaced(&self) -> bool {
        self.pool.is_displaced()
    }

    /// Passes while the files are the ones under their names.
    pub(super) fn check_in_place(&self) -> Result<()> {
        self.pool.check_in_place()
    }
}

fn new_queue<T>(shared: &SharedResources, what: &'static str) -> FairQueue<T> {
    FairQueue::new(
        what,
        shared.config.queue_count,
        shared.config.queue_bytes,
        Arc::clone(&shared.waiting),
    )
}

/// The thread broke off with the job in its hands.
fn thread_lost_error() -> Error {
    Error::new(Code::UnknownOutcome, "the node's writer stopped: the write may be there or not")
}
