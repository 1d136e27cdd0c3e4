//! One SQLite file in use: a thread that writes, threads that query, and connections to read with.
//!
//! Each namespace has a file of its own today. Whatever comes in its place stays behind this type and
//! [`Stores`](super::stores::Stores).

use super::config::EmbeddedConfig;
use super::conn::Conn;
use super::deadline::{self, Running};
use super::failure;
use super::file_identity::{self, FileIdentity};
use super::gate::Rights;
use super::job::{Job, Undo};
use super::metrics::Metrics;
use super::queue::{Budget, Flow, Queue, Share, closed};
use super::reserve::Reserve;
use super::size::Sizes;
use super::snapshots::Snapshots;
use super::stores::FAR;
use super::tenant::Tenant;
use super::threads::Threads;
use super::verdict_cache::{BRIEF_TIME, VerdictCache};
use super::writer::{Room, Writer};
use crate::CallerKey;
use crate::migrations::MigrationError;
use debros_proto::{Code, Error, Result};
use debros_sql::Rewriter;
use rusqlite::config::DbConfig;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::Span;

/// What each of many has at least that wait to be tried for a moment.
const LEAST_BRIEF_TIME: Duration = Duration::from_millis(1);

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

    /// Has one of the query threads do something, which takes so many bytes of memory while it waits. A caller has all that
    /// are shared but one at most, and where others have them, one of those that are kept for callers with nothing running.
    /// What runs is interrupted when what is returned is dropped.
    pub(super) async fn read<T, F>(&self, caller: CallerKey, bytes: usize, deadline: Instant, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Conn) -> Result<T> + Send + 'static,
    {
        let (read, outcome, _caller) = job_of_read(deadline, act);
        if !self.reads.push(Flow::of_caller(caller), read, bytes)? {
            self.start_reader(caller)?;
        }
        outcome.await.unwrap_or_else(|_| Err(read_broken_off()))
    }

    /// As [`read`](Store::read), for what is done, or ends by itself, in the time that `act` is told, of the thread's processor: on
    /// a thread that does nothing else. The more wait for it, the less time each has.
    pub(super) async fn read_briefly<T, F>(
        &self,
        caller: CallerKey,
        bytes: usize,
        deadline: Instant,
        act: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Conn, Duration) -> Result<T> + Send + 'static,
    {
        let waiting = Arc::downgrade(&self.brief_reads);
        let act = move |conn: &Conn| {
            let others = waiting.upgrade().map_or(0, |waiting| waiting.len());
            act(conn, (BRIEF_TIME / u32::try_from(others + 1).unwrap_or(u32::MAX)).max(LEAST_BRIEF_TIME))
        };
        let (read, outcome, _caller) = job_of_read(deadline, act);
        self.brief_reads.push(Flow::of_caller(caller), read, bytes)?;
        self.start_brief_reader()?;
        outcome.await.unwrap_or_else(|_| Err(read_broken_off()))
    }

    /// As [`read`](Store::read), for what most often takes little. Where it would wait for others, it is done as
    /// [`read_briefly`](Store::read_briefly) does; `act` is told for how long, and ends by itself then.
    pub(super) async fn read_soon<T, F>(&self, caller: CallerKey, bytes: usize, deadline: Instant, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Conn, Option<Duration>) -> Result<T> + Send + 'static,
    {
        if self.would_wait(caller) {
            self.read_briefly(caller, bytes, deadline, |conn, time| act(conn, Some(time))).await
        } else {
            self.read(caller, bytes, deadline, |conn| act(conn, None)).await
        }
    }

    /// Whether a read of a caller would wait for others, or take a thread that is for callers with nothing running.
    pub(super) fn would_wait(&self, caller: CallerKey) -> bool {
        self.reads.would_wait(caller, self.share)
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

    /// All query threads are busy: one more, unless there are enough for this caller.
    fn start_reader(&self, caller: CallerKey) -> Result<()> {
        let mut readers = lock(&self.readers);
        let enough = if self.reads.runs(caller) { self.share.shared } else { self.max_threads };
        if readers.len() >= enough {
            return Ok(());
        }
        match self.spawn_reader(&self.reads, self.share) {
            Ok(thread) => {
                readers.push(thread);
                Ok(())
            }
            // The threads there are will come to it.
            Err(_) if !readers.is_empty() => Ok(()),
            Err(error) => {
                tracing::error!(%error, "no thread for queries can be started");
                Err(Error::new(Code::Overloaded, "the node can not start another thread; try again"))
            }
        }
    }

    fn start_brief_reader(&self) -> Result<()> {
        let mut reader = lock(&self.brief_reader);
        if reader.is_none() {
            *reader = Some(self.spawn_reader(&self.brief_reads, Share::ALL).map_err(|error| {
                tracing::error!(%error, "no thread for queries can be started");
                Error::new(Code::Overloaded, "the node can not start another thread; try again")
            })?);
        }
        Ok(())
    }

    /// Starts a thread for a queue, of which each caller has his share.
    fn spawn_reader(&self, reads: &Arc<Queue<Read>>, share: Share) -> std::io::Result<JoinHandle<()>> {
        let (reads, pool) = (Arc::clone(reads), Arc::clone(&self.pool));
        let (span, running) = (self.span.clone(), self.threads.enter());
        std::thread::Builder::new().name("db-reader".to_owned()).spawn(move || {
            let _running = running;
            let _within = span.enter();
            while let Some((caller, read)) = reads.take_one(share) {
                run_read(&pool, read);
                reads.done(caller);
            }
        })
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

    /// Whether new work is refused: it is closed, or being closed.
    pub(super) fn is_refusing(&self) -> bool {
        self.writes.is_closed()
    }

    /// Refuses new work; what was accepted is still finished.
    pub(super) fn refuse(&self) {
        self.writes.close();
        self.reads.close();
        self.brief_reads.close();
    }

    /// After [`refuse`](Store::refuse), waits until everything is finished, at the latest until `deadline`. Whether it is, so that
    /// [`close`](Store::close) takes no longer than the disk.
    pub(super) fn ends_by(&self, deadline: Instant) -> bool {
        self.threads.end_by(deadline)
    }

    /// Closes without waiting for a thread that is in the middle of a step which does not end. What was acknowledged is on
    /// the disk.
    pub(super) fn give_up(&self) {
        tracing::error!(path = %self.path.display(), "a statement does not end; the database is left without waiting for it");
        self.pool.closed.store(true, Relaxed);
        lock(&self.readers).clear();
        lock(&self.brief_reader).take();
        lock(&self.writer).take();
    }

    /// Finishes what was accepted, writes the log back and closes the file. Blocks. False when something went wrong, so
    /// that the file should be checked when it is opened again.
    pub(super) fn close(&self) -> bool {
        self.refuse();
        let mut readers = std::mem::take(&mut *lock(&self.readers));
        readers.extend(lock(&self.brief_reader).take());
        let mut well = readers.into_iter().all(|thread| thread.join().is_ok());
        self.pool.closed.store(true, Relaxed);
        lock(&self.pool.idle).clear();
        let writer = lock(&self.writer).take();
        if let Some(thread) = writer {
            match thread.join() {
                Ok(conn) => {
                    well &= close_conn(conn, &self.path, self.pool.check_in_place().is_ok(), &self.reserve);
                }
                Err(_) => well = false,
            }
        }
        well
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// A read as it waits, what comes of it, and what stands for the caller meanwhile.
fn job_of_read<T, F>(deadline: Instant, act: F) -> (Read, oneshot::Receiver<Result<T>>, deadline::Caller)
where
    T: Send + 'static,
    F: FnOnce(&Conn) -> Result<T> + Send + 'static,
{
    let (reply, outcome) = oneshot::channel();
    let running = Running::default();
    let caller = running.caller();
    let read: Read = Box::new(move |conn| {
        if reply.is_closed() {
            return;
        }
        let result = if Instant::now() >= deadline {
            Err(Error::new(Code::DeadlineExceeded, "the query waited past its deadline"))
        } else {
            conn.and_then(|conn| {
                let _running = conn.run_for(&running);
                act(conn)
            })
        };
        let _ = reply.send(result);
    });
    (read, outcome, caller)
}

fn read_broken_off() -> Error {
    Error::internal("the query failed in the node; the node's log has more")
}

fn queue<T>(shared: &Shared, what: &'static str) -> Queue<T> {
    Queue::new(what, shared.config.queue_count, shared.config.queue_bytes, Arc::clone(&shared.waiting))
}

fn close_conn(conn: Conn, path: &Path, is_in_place: bool, reserve: &Reserve) -> bool {
    if !is_in_place {
        // What lies under the name now may be somebody's database with its log, which SQLite would delete by its name.
        let kept = conn.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        tracing::error!(path = %path.display(), ?kept, "the database's file was removed or replaced: what was written to it since is in no file with a name");
        return false;
    }
    conn.gate.enter(Rights::Own);
    if !save_counts(&conn, reserve) {
        return false;
    }
    let checkpoint: rusqlite::Result<i64> = conn.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    let closed = conn.db.close().map_err(|(_, error)| error);
    match checkpoint.and_then(|busy| closed.map(|()| busy)) {
        Ok(_) => true,
        Err(error) => {
            // Nothing is lost: the log is read again when the file is opened.
            tracing::warn!(path = %path.display(), %error, "the database could not be closed cleanly");
            false
        }
    }
}

/// Writes down what namespaces have. False: the next start has to count.
fn save_counts(conn: &Conn, reserve: &Reserve) -> bool {
    let Some(ledger) = &conn.ledger else { return true };
    // The limit is for what others write.
    let save =
        || conn.db.query_row("PRAGMA max_page_count = 4294967294", [], |_| Ok(())).and_then(|()| ledger.save(conn));
    let saved = save().or_else(|error| if reserve.release_if_full() { save() } else { Err(error) });
    if let Err(error) = &saved {
        tracing::warn!(%error, "what namespaces have can not be written down; the next start counts it");
    }
    saved.is_ok()
}

fn run_read(pool: &Pool, read: Read) {
    // A long query keeps nothing: it reads what is newest when it begins.
    let taken = pool.take().and_then(|conn| conn.read_at(None).map(|()| conn).map_err(failure::of));
    let conn = match taken {
        Ok(conn) => conn,
        Err(error) => return read(Err(error)),
    };
    // A connection that a panic went through is not used again.
    let ran = catch_unwind(AssertUnwindSafe(move || {
        read(Ok(&conn));
        conn
    }));
    match ran {
        Ok(conn) => pool.give_back(conn),
        Err(_) => tracing::error!("a query broke off"),
    }
}

/// The thread broke off with the job in its hands.
fn broken_off() -> Error {
    Error::new(Code::UnknownOutcome, "the node's writer stopped: the write may be there or not")
}

/// Connections that only read.
pub(super) struct Pool {
    path: PathBuf,
    span: Span,
    idle: Mutex<Vec<Conn>>,
    keep: usize,
    /// No connection is opened any more: the file may be gone.
    closed: AtomicBool,
    pub(super) snapshots: Snapshots,
    identity: FileIdentity,
    /// The files are not in their places, as of the last look.
    is_displaced: AtomicBool,
}

impl Pool {
    /// Connections to a file, of which so many are kept when nobody uses them.
    pub(super) fn new(path: &Path, span: Span, keep: usize) -> std::io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            span,
            idle: Mutex::default(),
            keep,
            closed: AtomicBool::new(false),
            snapshots: Snapshots::default(),
            identity: FileIdentity::of(path)?,
            is_displaced: AtomicBool::new(false),
        })
    }

    /// Passes while the file and its log are the ones under their names. That they are not is logged once.
    pub(super) fn check_in_place(&self) -> Result<()> {
        match self.identity.check() {
            Ok(()) => {
                if self.is_displaced.swap(false, Relaxed) {
                    tracing::info!(path = %self.path.display(), "the database's file is in its place again");
                }
                Ok(())
            }
            Err(what) => {
                if !self.is_displaced.swap(true, Relaxed) {
                    tracing::error!(path = %self.path.display(), what, "the database's file is not in its place any more: nothing is written");
                }
                Err(file_identity::displaced())
            }
        }
    }

    /// Whether the file was not in its place when somebody looked last.
    pub(super) fn is_displaced(&self) -> bool {
        self.is_displaced.load(Relaxed)
    }

    fn take(&self) -> Result<Conn> {
        let idle = lock(&self.idle).pop();
        match idle {
            Some(conn) => Ok(conn),
            None if self.closed.load(Relaxed) => Err(closed()),
            // By its name, under which there may be another file.
            None => self
                .check_in_place()
                .and_then(|()| self.span.in_scope(|| Conn::reader(&self.path).map_err(failure::of))),
        }
    }

    fn give_back(&self, conn: Conn) {
        if conn.kept().is_none() && !conn.db.is_autocommit() {
            // Whoever gets it would read what was there when that transaction began.
            tracing::error!(path = %self.path.display(), "a reader left a transaction open");
            return;
        }
        let mut idle = lock(&self.idle);
        // Asked under the lock, so that the writer either finds the connection here or is found by it.
        if conn.kept().is_some() && conn.kept() != self.snapshots.newest() && conn.let_go().is_err() {
            return;
        }
        if idle.len() < self.keep {
            idle.push(conn);
        }
    }

    /// Takes kept moments away and lets none be kept until [`Snapshots::resume`].
    pub(super) fn suspend(&self) {
        self.snapshots.suspend();
        lock(&self.idle).retain(|conn| conn.let_go().is_ok());
    }
}

/// Nothing that panics runs while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
