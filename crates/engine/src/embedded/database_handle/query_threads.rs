//! The threads that query one file, and which of them a read has.

use super::{DatabaseHandle, ReadJob, ReaderPool, lock};
use crate::CallerKey;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::deadline::{self, RunningStatement};
use crate::embedded::error_mapping;
use crate::embedded::fair_queue::{FairQueue, FlowId, ThreadShare};
use crate::embedded::thread_count;
use crate::embedded::verdict_cache::BRIEF_TIME;
use debros_proto::{Code, Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What each of many has at least that wait to be tried for a moment.
pub(in crate::embedded) const LEAST_BRIEF_TIME: Duration = Duration::from_millis(1);

impl DatabaseHandle {
    /// Has one of the query threads do something, which takes so many bytes of memory while it
    /// waits. A caller has all that are shared but one at most, and where others have them, one of
    /// those that are kept for callers with nothing running. What runs is interrupted when what is
    /// returned is dropped.
    pub(in crate::embedded) async fn read<T, F>(
        &self,
        caller: CallerKey,
        bytes: usize,
        deadline: Instant,
        act: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&SqliteConnection) -> Result<T> + Send + 'static,
    {
        let (read, outcome, _caller) = new_read_job(deadline, act);
        if !self.reads.push(FlowId::of_caller(caller), read, bytes)? {
            self.start_reader(caller)?;
        }
        outcome.await.unwrap_or_else(|_| Err(read_aborted_error()))
    }

    /// As [`read`](DatabaseHandle::read), for what is done, or ends by itself, in the time that
    /// `act` gets, of the thread's processor: on a thread that does nothing else. The more wait for
    /// it, the less time each has.
    pub(in crate::embedded) async fn read_briefly<T, F>(
        &self,
        caller: CallerKey,
        bytes: usize,
        deadline: Instant,
        act: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&SqliteConnection, Duration) -> Result<T> + Send + 'static,
    {
        let waiting = Arc::downgrade(&self.brief_reads);
        let act = move |conn: &SqliteConnection| {
            let others = waiting.upgrade().map_or(0, |waiting| waiting.len());
            act(
                conn,
                (BRIEF_TIME / u32::try_from(others + 1).unwrap_or(u32::MAX)).max(LEAST_BRIEF_TIME),
            )
        };
        let (read, outcome, _caller) = new_read_job(deadline, act);
        self.brief_reads.push(FlowId::of_caller(caller), read, bytes)?;
        self.start_brief_reader()?;
        outcome.await.unwrap_or_else(|_| Err(read_aborted_error()))
    }

    /// As [`read`](DatabaseHandle::read), for what most often takes little. Where it would wait for
    /// others, it is done as [`read_briefly`](DatabaseHandle::read_briefly) does; `act` gets the
    /// time that it has, and ends by itself then.
    pub(in crate::embedded) async fn read_or_try_briefly<T, F>(
        &self,
        caller: CallerKey,
        bytes: usize,
        deadline: Instant,
        act: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&SqliteConnection, Option<Duration>) -> Result<T> + Send + 'static,
    {
        if self.would_wait(caller) {
            self.read_briefly(caller, bytes, deadline, |conn, time| act(conn, Some(time))).await
        } else {
            self.read(caller, bytes, deadline, |conn| act(conn, None)).await
        }
    }

    /// Whether a read of a caller would wait for others, or take a thread that is for callers with
    /// nothing running.
    pub(in crate::embedded) fn would_wait(&self, caller: CallerKey) -> bool {
        self.reads.would_wait(caller, self.share)
    }

    /// All query threads are busy: one more, unless there are enough for this caller.
    fn start_reader(&self, caller: CallerKey) -> Result<()> {
        let mut readers = lock(&self.readers);
        let enough = if self.reads.is_running(caller) {
            self.share.shared_threads
        } else {
            self.max_threads
        };
        if readers.len() >= enough {
            return Ok(());
        }
        match self.spawn_reader(&self.reads, self.share, self.tenant.is_some()) {
            Ok(thread) => {
                readers.push(thread);
                Ok(())
            }
            // The threads there are will come to it.
            Err(_) if !readers.is_empty() => Ok(()),
            Err(error) => {
                tracing::error!(%error, "no thread for queries can be started");
                Err(Error::new(Code::Overloaded, "the node cannot start another thread; try again"))
            }
        }
    }

    fn start_brief_reader(&self) -> Result<()> {
        let mut reader = lock(&self.brief_reader);
        if reader.is_none() {
            *reader = Some(self.spawn_reader(&self.brief_reads, ThreadShare::ALL, false).map_err(
                |error| {
                    tracing::error!(%error, "no thread for queries can be started");
                    Error::new(Code::Overloaded, "the node cannot start another thread; try again")
                },
            )?);
        }
        Ok(())
    }

    /// Starts a thread for a queue, of which each caller has its share. Where it `yields`, the
    /// node's other threads come first.
    fn spawn_reader(
        &self,
        reads: &Arc<FairQueue<ReadJob>>,
        share: ThreadShare,
        yields: bool,
    ) -> std::io::Result<JoinHandle<()>> {
        let (reads, pool) = (Arc::clone(reads), Arc::clone(&self.pool));
        let (span, running) = (self.span.clone(), self.threads.add_thread());
        std::thread::Builder::new().name("db-reader".to_owned()).spawn(move || {
            let _running = running;
            if yields {
                thread_count::lower_priority();
            }
            let _within = span.enter();
            while let Some((caller, read)) = reads.take_one(share) {
                run_read(&pool, read);
                reads.finish_one(caller);
            }
        })
    }
}

/// A read as it waits, what comes of it, and what stands for the caller meanwhile.
fn new_read_job<T, F>(
    deadline: Instant,
    act: F,
) -> (ReadJob, oneshot::Receiver<Result<T>>, deadline::CallerGuard)
where
    T: Send + 'static,
    F: FnOnce(&SqliteConnection) -> Result<T> + Send + 'static,
{
    let (reply, outcome) = oneshot::channel();
    let running = RunningStatement::default();
    let caller = running.caller_guard();
    let read: ReadJob = Box::new(move |conn| {
        if reply.is_closed() {
            return;
        }
        let result = if Instant::now() >= deadline {
            Err(Error::new(Code::DeadlineExceeded, "the query waited past its deadline"))
        } else {
            conn.and_then(|conn| {
                let _running = conn.interrupt_with_caller(&running);
                act(conn)
            })
        };
        let _ = reply.send(result);
    });
    (read, outcome, caller)
}

fn read_aborted_error() -> Error {
    Error::internal("the query failed in the node; the node's log has more")
}

fn run_read(pool: &ReaderPool, read: ReadJob) {
    // A long query keeps nothing: it reads what is newest when it begins.
    let taken = pool.acquire().and_then(|conn| {
        conn.refresh_snapshot(None).map(|()| conn).map_err(error_mapping::map_sqlite_error)
    });
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
        Ok(conn) => pool.release(conn),
        Err(_) => tracing::error!("a query broke off"),
    }
}
