//! One SQLite file in use: a thread that writes, threads that query, and connections to read with.
//!
//! Each namespace has a file of its own today. Whatever comes in its place stays behind this type and
//! [`Stores`](super::stores::Stores).

mod closing;
mod query_threads;
mod reader_pool;

#[cfg(test)]
pub(super) use query_threads::LEAST_BRIEF_TIME;
pub(super) use reader_pool::Pool;

use super::config::EmbeddedConfig;
use super::conn::Conn;
use super::failure;
use super::job::{Job, Undo};
use super::metrics::Metrics;
use super::queue::{Budget, Flow, Queue, Share};
use super::reserve::Reserve;
use super::size::Sizes;
use super::stores::FAR;
use super::tenant::Tenant;
use super::threads::Threads;
use super::verdict_cache::VerdictCache;
use super::writer::{Room, Writer};
use crate::migrations::MigrationError;
use debros_proto::{Code, Error, Result};
use debros_sql::Rewriter;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::oneshot;
use tracing::Span;

/// What all stores share.
pub(super) struct Shared {
    pub(super) config: EmbeddedConfig,
    pub(super) sizes: Arc<Sizes>,
    /// Disk space for deletes.
    pub(super) reserve: Arc<Reserve>,
    pub(super) metrics: Arc<Metrics>,
    /// Bytes that wait in the queues of all stores.
    pub(super) waiting: Arc<Budget>,
    /// Remembers the rewritten statements of all namespaces.
    pub(super) rewriter: Arc<Rewriter>,
}

/// One SQLite file in use.
pub(super) struct Store {
    path: PathBuf,
    span: Span,
    writes: Arc<Queue<Job>>,
    reads: Arc<Queue<Read>>,
    /// What is tried for a moment, on a thread of its own, because it would wait for the others.
    brief_reads: Arc<Queue<Read>>,
    pool: Arc<Pool>,
    share: Share,
    /// Query threads that there are at most.
    max_threads: usize,
    writer: Mutex<Option<JoinHandle<Conn>>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    brief_reader: Mutex<Option<JoinHandle<()>>>,
    threads: Arc<Threads>,
    verdicts: Arc<VerdictCache>,
    tenant: Option<Arc<Tenant>>,
    reserve: Arc<Reserve>,
    /// Damage was found in it: it can be read as far as it goes, and takes no writes.
    damaged: AtomicBool,
}

/// Why a file can not be used.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    Io(std::io::Error),
    /// What the integrity check found.
    Corrupt(String),
    Migration(MigrationError),
    /// What the file holds is not what it should be; told and logged already.
    Told(Error),
    /// It has the form of an earlier version.
    Old,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Sqlite(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Io(error)
    }
}

type Read = Box<dyn FnOnce(Result<&Conn>) + Send>;

/// What a write is to the queue.
pub(super) struct Write {
    pub(super) undo: Undo,
    pub(super) removes: bool,
    /// What it takes in memory while it waits.
    pub(super) bytes: usize,
    pub(super) deadline: Instant,
    /// Whose it is.
    pub(super) flow: Flow,
}

impl Write {
    /// The engine's own removals, for which no caller waits.
    pub(super) fn clearing(undo: Undo) -> Self {
        Self { undo, removes: true, bytes: 0, deadline: Instant::now() + FAR, flow: Flow::default() }
    }
}

impl Store {
    /// Opens a file, making it when it is missing, and starts its writer with a cache of so many KiB. `prepare` runs
    /// first, on the writing connection.
    pub(super) fn open(
        path: &Path,
        cache: u32,
        shared: &Shared,
        prepare: impl FnOnce(&mut Conn) -> Result<(), Failure>,
    ) -> Result<Store, Failure> {
        let mut conn = Conn::writer(path, cache)?;
        prepare(&mut conn)?;
        let config = &shared.config;
        let writes = Arc::new(queue(shared, "writes"));
        let metrics = Arc::clone(&shared.metrics);
        let verdicts = Arc::new(VerdictCache::new(path, Arc::clone(conn.schema_changes())));
        let quota = conn.seat.as_ref().and(config.max_namespace_size);
        let room = Room {
            sizes: Arc::clone(&shared.sizes),
            reserve: Arc::clone(&shared.reserve),
            max_log: config.max_log(quota),
        };
        let tenant = conn.seat.as_ref().map(|seat| Arc::clone(seat.tenant()));
        // Made once, because making one for each statement would cost more than many a read.
        let span = tracing::error_span!("database", file = %path.display());
        let pool = Arc::new(Pool::new(path, span.clone(), config.kept_readers())?);
        let writer = Writer::new(conn, Arc::clone(&writes), metrics, Arc::clone(&pool), path, room)?;
        let writing = span.clone();
        let threads = Arc::<Threads>::default();
        let running = threads.enter();
        let thread = std::thread::Builder::new().name("db-writer".to_owned()).spawn(move || {
            let _running = running;
            writing.in_scope(|| writer.run())
        })?;
        Ok(Store {
            path: path.to_owned(),
            span,
            writes,
            reads: Arc::new(queue(shared, "queries")),
            brief_reads: Arc::new(queue(shared, "queries")),
            pool,
            share: config.share(),
            max_threads: config.max_readers(),
            writer: Mutex::new(Some(thread)),
            readers: Mutex::default(),
            brief_reader: Mutex::default(),
            threads,
            verdicts,
            tenant,
            reserve: Arc::clone(&shared.reserve),
            damaged: AtomicBool::new(false),
        })
    }

    /// The namespace whose file it is; `None` for the system's.
    pub(super) fn tenant(&self) -> Option<&Arc<Tenant>> {
        self.tenant.as_ref()
    }

    /// Refuses writes to a file that is known to be damaged: each could damage more, and a restore takes it away.
    ///
    /// # Errors
    /// `database_corrupt`.
    pub(super) fn check_sound(&self) -> Result<()> {
        if self.damaged.load(Relaxed) { Err(failure::damaged()) } else { Ok(()) }
    }

    /// Says whether the file is damaged. True: that was not known before.
    pub(super) fn mark_damaged(&self, damaged: bool) -> bool {
        self.damaged.swap(damaged, Relaxed) != damaged
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where what is logged names the file. The store's own threads are in it; who reads on a thread of his own enters it
    /// where something may fail.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Has the writer thread do something, and waits until it is committed. `act` may run more than once.
    pub(super) async fn write<T, F>(&self, write: Write, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Conn) -> Result<T> + Send + 'static,
    {
        self.push(write, act)?.await.unwrap_or_else(|_| Err(broken_off()))
    }

    /// As [`write`](Store::write), for a thread that may block.
    pub(super) fn write_blocking<T, F>(&self, write: Write, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Conn) -> Result<T> + Send + 'static,
    {
        self.push(write, act)?.blocking_recv().unwrap_or_else(|_| Err(broken_off()))
    }

    fn push<T, F>(&self, write: Write, act: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: FnMut(&mut Conn) -> Result<T> + Send + 'static,
    {
        let (mut job, outcome) = Job::new(write.undo, write.deadline, act);
        (job.removes, job.flow, job.bytes) = (write.removes, write.flow, write.bytes);
        self.writes.push(write.flow, job, write.bytes)?;
        Ok(outcome)
    }

    /// Reads on this thread: only for what is surely done in microseconds.
    pub(super) fn read_here<T>(&self, act: impl FnOnce(&Conn) -> T) -> Result<T> {
        let conn = self.pool.take()?;
        conn.read_at(self.pool.snapshots.newest()).map_err(failure::of)?;
        let outcome = act(&conn);
        self.pool.give_back(conn);
        Ok(outcome)
    }

    /// What is known of the texts that ran here.
    pub(super) fn verdicts(&self) -> &Arc<VerdictCache> {
        &self.verdicts
    }

    /// Whether nothing runs and nothing waits. A caller may be gone whose statement still runs.
    pub(super) fn is_quiet(&self) -> bool {
        self.writes.is_quiet(1)
            && self.reads.is_quiet(lock(&self.readers).len())
            && self.brief_reads.is_quiet(usize::from(lock(&self.brief_reader).is_some()))
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

fn queue<T>(shared: &Shared, what: &'static str) -> Queue<T> {
    Queue::new(what, shared.config.queue_count, shared.config.queue_bytes, Arc::clone(&shared.waiting))
}

/// The thread broke off with the job in its hands.
fn broken_off() -> Error {
    Error::new(Code::UnknownOutcome, "the node's writer stopped: the write may be there or not")
}

/// Nothing that panics runs while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
