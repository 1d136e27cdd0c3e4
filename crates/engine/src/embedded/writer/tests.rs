//! The writer, with groups made by hand: the queue is filled before the writer runs.

use super::{FileLimits, WriterThread};
use crate::CallerKey;
use crate::embedded::config::CallLimits;
use crate::embedded::disk_reserve::DiskReserve;
use crate::embedded::execution;
use crate::embedded::fair_queue::{FairQueue, FlowId, QueueBudget};
use crate::embedded::job::{JobIsolation, WriteJob};
use crate::embedded::metrics::EngineMetrics;
use crate::embedded::result_budget::ResultBudget;
use crate::embedded::size_accounting::SizeAccounting;
use crate::embedded::statement_run::StatementRun;
use crate::embedded::time_limit::TimeLimit;
use crate::embedded::writer_conn::WriterConnection;
use debros_proto::rpc::{Statement, StatementResult};
use debros_proto::{Code, Error, Result};
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::oneshot::Receiver;

type Outcome = Receiver<Result<StatementResult>>;

/// One file, and the groups that are run on it.
struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
    sizes: Arc<SizeAccounting>,
    max_log: u64,
    conn: RefCell<Option<WriterConnection>>,
}

impl Bench {
    fn new(max_size: u64) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let conn = WriterConnection::open(&path, 1024).unwrap();
        conn.db
            .execute_batch(
                "CREATE TABLE t(a UNIQUE); CREATE TABLE big(b); INSERT INTO t VALUES (-1)",
            )
            .unwrap();
        let sizes = Arc::new(SizeAccounting::new(max_size, None, None));
        Bench { _folder: folder, path, sizes, max_log: u64::MAX, conn: RefCell::new(Some(conn)) }
    }

    /// Runs the jobs as one group, as far as they let it be one.
    fn run(&self, jobs: Vec<WriteJob>) {
        let queue = waiting(jobs);
        queue.close();
        self.run_queue(queue);
    }

    /// Runs what waits, until the queue is closed.
    fn run_queue(&self, queue: Arc<FairQueue<WriteJob>>) {
        let conn = self.conn.borrow_mut().take().unwrap();
        let readers =
            Arc::new(super::ReaderPool::new(&self.path, tracing::Span::none(), 1).unwrap());
        let room = FileLimits {
            sizes: Arc::clone(&self.sizes),
            reserve: Arc::new(DiskReserve::open(self._folder.path())),
            max_log: self.max_log,
        };
        let writer = WriterThread::new(
            conn,
            queue,
            Arc::new(EngineMetrics::new()),
            readers,
            &self.path,
            room,
            None,
        )
        .unwrap();
        *self.conn.borrow_mut() = Some(writer.run());
    }

    fn count(&self, sql: &str) -> i64 {
        rusqlite::Connection::open(&self.path)
            .unwrap()
            .query_row(sql, [], |row| row.get(0))
            .unwrap()
    }
}

/// A queue in which jobs wait.
fn waiting(jobs: Vec<WriteJob>) -> Arc<FairQueue<WriteJob>> {
    let queue = Arc::new(FairQueue::new(
        "writes",
        usize::MAX,
        usize::MAX,
        Arc::new(QueueBudget::new(usize::MAX)),
    ));
    for job in jobs {
        queue.push(job.flow, job, 1).unwrap();
    }
    queue
}

fn write(sql: &str, statement_time: Duration) -> (WriteJob, Outcome) {
    let statement = Statement::from(sql);
    let deadline = Instant::now() + Duration::from_secs(60);
    WriteJob::new(JobIsolation::Savepoint, deadline, move |conn| {
        let time = TimeLimit { statement: statement_time, by_processor: false, deadline };
        execution::run_in_transaction(
            conn,
            StatementRun::for_node(&statement),
            time,
            false,
            &mut ResultBudget::new(&CallLimits::default()),
        )
        .map(|wrote| wrote.result)
    })
}

/// Runs statements as one group and gives their outcomes.
fn group(bench: &Bench, statements: &[&str]) -> Vec<Result<StatementResult>> {
    let (jobs, outcomes): (Vec<_>, Vec<_>) =
        statements.iter().map(|sql| write(sql, Duration::from_millis(200))).unzip();
    bench.run(jobs);
    outcomes
        .into_iter()
        .map(|mut outcome| outcome.try_recv().expect("everyone is answered"))
        .collect()
}

fn codes(outcomes: &[Result<StatementResult>]) -> Vec<Option<Code>> {
    outcomes.iter().map(|outcome| outcome.as_ref().err().map(|error| error.code)).collect()
}

const ENDLESS: &str = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";

#[test]
fn who_takes_the_transaction_down_takes_nobody_along() {
    let bench = Bench::new(1 << 30);
    let outcomes = group(
        &bench,
        &[
            "INSERT INTO t VALUES (1)",
            "INSERT OR ROLLBACK INTO t VALUES (-1)",
            "INSERT INTO t VALUES (2)",
            "INSERT INTO t VALUES (1)",
            ENDLESS,
            "INSERT OR FAIL INTO t VALUES (50), (-1)",
            "INSERT INTO t VALUES (3)",
            "INSERT OR ROLLBACK INTO t VALUES (3)",
        ],
    );
    let (well, constraint) = (None, Some(Code::Constraint));
    let expected = [
        well,
        constraint,
        well,
        constraint,
        Some(Code::StatementTimeout),
        constraint,
        well,
        constraint,
    ];
    assert_eq!(codes(&outcomes), expected);
    assert_eq!(bench.count("SELECT group_concat(a, ',') = '-1,1,2,3' FROM t"), 1);
}

#[test]
fn a_panic_fails_its_own_job() {
    let bench = Bench::new(1 << 30);
    let (first, mut first_outcome) = write("INSERT INTO t VALUES (1)", Duration::from_secs(10));
    let deadline = Instant::now() + Duration::from_secs(60);
    let (bad, mut bad_outcome) = WriteJob::new(
        JobIsolation::Savepoint,
        deadline,
        |conn: &mut WriterConnection| -> Result<()> {
            conn.db.execute_batch("INSERT INTO t VALUES (99)").unwrap();
            panic!("made to panic");
        },
    );
    let (last, mut last_outcome) = write("INSERT INTO t VALUES (2)", Duration::from_secs(10));
    bench.run(vec![first, bad, last]);
    assert!(first_outcome.try_recv().unwrap().is_ok() && last_outcome.try_recv().unwrap().is_ok());
    assert_eq!(bad_outcome.try_recv().unwrap().unwrap_err().code, Code::Internal);
    assert_eq!(bench.count("SELECT count(*) FROM t WHERE a IN (1, 2)"), 2);
    assert_eq!(bench.count("SELECT count(*) FROM t WHERE a = 99"), 0);
}

/// What is committed is what others see.
#[test]
fn a_job_with_a_group_of_its_own_shares_its_transaction_with_nobody() {
    let bench = Bench::new(1 << 30);
    let deadline = Instant::now() + Duration::from_secs(60);
    let seen = |isolation, a: i64| {
        let path = bench.path.clone();
        WriteJob::new(isolation, deadline, move |conn: &mut WriterConnection| {
            conn.db.execute("INSERT INTO t VALUES (?1)", [a]).unwrap();
            let other = rusqlite::Connection::open(&path).unwrap();
            let seen =
                other.query_row("SELECT group_concat(a, ',') FROM t WHERE a > 0", [], |row| {
                    row.get(0)
                });
            Ok(seen.unwrap())
        })
    };
    let (jobs, outcomes): (Vec<_>, Vec<Receiver<Result<Option<String>>>>) = [
        seen(JobIsolation::Savepoint, 1),
        seen(JobIsolation::Savepoint, 2),
        seen(JobIsolation::OwnTransaction, 3),
        seen(JobIsolation::OwnTransaction, 4),
        seen(JobIsolation::Savepoint, 5),
        seen(JobIsolation::Savepoint, 6),
    ]
    .into_iter()
    .unzip();
    bench.run(jobs);
    let seen: Vec<_> =
        outcomes.into_iter().map(|mut outcome| outcome.try_recv().unwrap().unwrap()).collect();
    let seen: Vec<_> = seen.iter().map(Option::as_deref).collect();
    let all = Some("1,2,3,4");
    assert_eq!(seen, [None, None, Some("1,2"), Some("1,2,3"), all, all]);
    assert_eq!(bench.count("SELECT count(*) FROM t WHERE a > 0"), 6);
}

#[test]
fn too_late_and_abandoned_jobs_are_not_run() {
    let bench = Bench::new(1 << 30);
    let ran = Arc::new(AtomicUsize::new(0));
    let job = |deadline| {
        let ran = Arc::clone(&ran);
        WriteJob::new(JobIsolation::StatementAtomic, deadline, move |_: &mut WriterConnection| {
            ran.fetch_add(1, Relaxed);
            Ok(())
        })
    };
    let far = Instant::now() + Duration::from_secs(60);
    let (late, mut late_outcome) = job(Instant::now());
    let (abandoned, abandoned_outcome) = job(far);
    let (good, mut good_outcome) = job(far);
    drop(abandoned_outcome);
    bench.run(vec![late, abandoned, good]);
    assert_eq!(late_outcome.try_recv().unwrap().unwrap_err().code, Code::DeadlineExceeded);
    assert_eq!(good_outcome.try_recv().unwrap(), Ok(()));
    assert_eq!(ran.load(Relaxed), 1);
}

#[test]
fn a_full_database_refuses_growth_and_nothing_else() {
    let bench = Bench::new(200 << 10);
    let outcomes = group(
        &bench,
        &[
            "INSERT INTO t VALUES (1)",
            "INSERT INTO big VALUES (zeroblob(50000))",
            "INSERT INTO big VALUES (zeroblob(500000))",
            "INSERT INTO t VALUES (2)",
            "INSERT INTO big SELECT zeroblob(50000) FROM (VALUES (1), (2), (3), (4), (5))",
            "SELECT count(*) FROM t",
            "DELETE FROM big",
            "INSERT INTO big VALUES (zeroblob(50000))",
        ],
    );
    let (well, full) = (None, Some(Code::DatabaseFull));
    assert_eq!(codes(&outcomes), [well, well, full, well, full, well, well, well]);
    let error = outcomes[2].as_ref().unwrap_err();
    assert!(error.message.contains("max_database_size"), "{error}");
    assert_eq!(bench.count("SELECT count(*) FROM big"), 1);
    assert!(bench.sizes.total() <= 200 << 10, "{}", bench.sizes.total());
}

#[test]
fn what_removes_may_use_the_reserve() {
    let bench = Bench::new(100 << 10);
    // Stands for a delete whose idempotency record needs a page that the database does not have any
    // more.
    let needs_room = || {
        WriteJob::new(
            JobIsolation::Savepoint,
            Instant::now() + Duration::from_secs(60),
            |conn: &mut WriterConnection| {
                conn.db
                    .execute_batch("INSERT INTO big VALUES (zeroblob(150000))")
                    .map_err(crate::embedded::error_mapping::map_sqlite_error)
            },
        )
    };
    let (plain, mut plain_outcome) = needs_room();
    let (mut removing, mut removing_outcome) = needs_room();
    removing.removes = true;
    let (other, mut other_outcome) = write("INSERT INTO t VALUES (1)", Duration::from_secs(10));
    bench.run(vec![plain, removing, other]);
    assert_eq!(plain_outcome.try_recv().unwrap().unwrap_err().code, Code::DatabaseFull);
    assert_eq!(removing_outcome.try_recv().unwrap(), Ok(()));
    assert!(other_outcome.try_recv().unwrap().is_ok());
    // The reserve is there once: what is over the limit does not grow again and again.
    for _ in 0..20 {
        let (mut again, _outcome) = needs_room();
        again.removes = true;
        bench.run(vec![again]);
    }
    assert!(bench.sizes.total() <= (100 << 10) + (1 << 20), "{}", bench.sizes.total());
}

#[test]
fn a_deferred_key_fails_the_job_that_broke_it() {
    let bench = Bench::new(1 << 30);
    group(
        &bench,
        &[
            "CREATE TABLE p(id INTEGER PRIMARY KEY)",
            "CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)",
        ],
    );
    let outcomes = group(
        &bench,
        &["INSERT INTO t VALUES (1)", "INSERT INTO c VALUES (9)", "INSERT INTO t VALUES (2)"],
    );
    assert_eq!(codes(&outcomes), [None, Some(Code::Constraint), None]);
    assert_eq!(bench.count("SELECT count(*) FROM t"), 3);
}

/// No answer says that a write is there which is not, and the writer goes on when the cause is
/// gone.
#[test]
fn when_nothing_can_be_written_everyone_is_told_and_the_writer_lives() {
    let bench = Bench::new(1 << 30);
    let set = |sql: &str| bench.conn.borrow().as_ref().unwrap().db.execute_batch(sql).unwrap();
    let two = ["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"];
    set("PRAGMA query_only = ON");
    assert_eq!(codes(&group(&bench, &two)), [Some(Code::ReadOnly); 2]);
    set("PRAGMA query_only = OFF");
    set("PRAGMA busy_timeout = 0");
    let other = rusqlite::Connection::open(&bench.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let outcomes = group(&bench, &two);
    assert_eq!(codes(&outcomes), [Some(Code::Unavailable); 2]);
    assert!(outcomes[0].as_ref().is_err_and(|error: &Error| error.retry_after.is_some()));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(codes(&group(&bench, &two)), [None; 2]);
    assert_eq!(bench.count("SELECT count(*) FROM t"), 3);
}

impl Bench {
    /// A connection of another's that reads what is there now, until it is dropped.
    fn reads(&self) -> rusqlite::Connection {
        let reader = rusqlite::Connection::open(&self.path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        reader
    }

    fn log(&self) -> u64 {
        std::fs::metadata(self.path.with_extension("db-wal")).unwrap().len()
    }

    /// Writes 200 KB again and again, until that is refused.
    fn fill_log(&self) -> Error {
        for _ in 0..100 {
            if let Some(Err(error)) = group(self, &["UPDATE big SET b = randomblob(200000)"]).pop()
            {
                return error;
            }
        }
        panic!("100 times 200 KB, and the log has {} bytes", self.log());
    }
}

#[test]
fn a_log_that_readers_hold_does_not_grow_on_and_is_cut_when_they_are_done() {
    let bench = Bench { max_log: 1 << 20, ..Bench::new(1 << 30) };
    group(&bench, &["INSERT INTO big VALUES (zeroblob(200000))"]);
    let reader = bench.reads();
    let error = bench.fill_log();
    assert_eq!(error.code, Code::Overloaded, "{error}");
    assert!(error.retry_after.is_some(), "{error}");
    let held = bench.log();
    assert!(held > 1 << 20 && held < 3 << 19, "{held}");
    // Others of the same group may remove.
    let (adds, mut added) = write("INSERT INTO t VALUES (1)", Duration::from_secs(10));
    let (mut removes, mut removed) = write("DELETE FROM t", Duration::from_secs(10));
    removes.removes = true;
    bench.run(vec![adds, removes]);
    assert_eq!(added.try_recv().unwrap().unwrap_err().code, Code::Overloaded);
    assert!(removed.try_recv().unwrap().is_ok());
    drop(reader);
    assert_eq!(codes(&group(&bench, &["INSERT INTO t VALUES (2)"])), [None]);
    assert!(bench.log() < 100_000, "{}", bench.log());
    assert_eq!(bench.count("SELECT count(*) FROM t"), 1);
}

#[test]
fn readers_who_overlap_without_end_do_not_hold_the_log_without_end() {
    let bench = Bench { max_log: 1 << 20, ..Bench::new(1 << 30) };
    group(&bench, &["INSERT INTO big VALUES (zeroblob(200000))"]);
    let first = bench.reads();
    bench.fill_log();
    let second = bench.reads();
    drop(first);
    // The whole log is written back now; the second still reads from it.
    assert_eq!(codes(&group(&bench, &["INSERT INTO t VALUES (1)"])), [Some(Code::Overloaded)]);
    let third = bench.reads();
    drop(second);
    assert_eq!(codes(&group(&bench, &["INSERT INTO t VALUES (2)"])), [None]);
    assert!(bench.log() < 100_000, "{}", bench.log());
    drop(third);
}

/// However many transactions one take of the queue is, its last one does not find a log of all of
/// them.
#[test]
fn transactions_of_their_own_do_not_outrun_the_bound_of_the_log() {
    let bench = Bench { max_log: 1 << 20, ..Bench::new(1 << 30) };
    let reads = bench.reads();
    let deadline = Instant::now() + Duration::from_secs(60);
    let (jobs, outcomes): (Vec<_>, Vec<Receiver<Result<()>>>) = (0..200)
        .map(|_| {
            WriteJob::new(JobIsolation::OwnTransaction, deadline, |conn: &mut WriterConnection| {
                conn.db.execute("INSERT INTO big VALUES (zeroblob(300000))", []).unwrap();
                // Longer than the time between two looks at the log.
                std::thread::sleep(Duration::from_millis(11));
                Ok(())
            })
        })
        .unzip();
    bench.run(jobs);
    let outcomes: Vec<_> =
        outcomes.into_iter().map(|mut outcome| outcome.try_recv().unwrap()).collect();
    let done = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert!((3..6).contains(&done), "{done}");
    assert!(
        outcomes[done..]
            .iter()
            .all(|outcome| outcome.as_ref().is_err_and(|error| error.code == Code::Overloaded))
    );
    drop(reads);
    assert_eq!(codes(&group(&bench, &["INSERT INTO t VALUES (2)"])), [None]);
}

#[test]
fn a_long_group_is_answered_in_order_and_once() {
    let bench = Bench::new(1 << 30);
    let statements: Vec<String> =
        (0..2500).map(|index| format!("INSERT INTO t VALUES ({})", index % 2400)).collect();
    let outcomes = group(&bench, &statements.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        outcomes[..2400].iter().all(Result::is_ok) && outcomes[2400..].iter().all(Result::is_err)
    );
    assert_eq!(bench.count("SELECT count(*) FROM t"), 2401);
}

/// A caller's insert that takes longer than a group and reports what others see when it runs;
/// `also` is done then.
fn slow(
    bench: &Bench,
    caller: u64,
    a: i64,
    also: impl FnMut() + Send + 'static,
) -> (WriteJob, Receiver<Result<String>>) {
    let (path, mut also) = (bench.path.clone(), also);
    let (mut job, outcome) = WriteJob::new(
        JobIsolation::Savepoint,
        Instant::now() + Duration::from_secs(60),
        move |conn: &mut WriterConnection| {
            conn.db.execute("INSERT INTO t VALUES (?1)", [a]).unwrap();
            also();
            std::thread::sleep(super::MOST_GROUP_TIME);
            let other = rusqlite::Connection::open(&path).unwrap();
            let sql = "SELECT ifnull(group_concat(a, ','), '') FROM t WHERE a > 0";
            Ok(other.query_row(sql, [], |row| row.get(0)).unwrap())
        },
    );
    job.flow = FlowId::of_caller(CallerKey(caller));
    (job, outcome)
}

fn seen(outcomes: Vec<Receiver<Result<String>>>) -> Vec<String> {
    outcomes
        .into_iter()
        .map(|mut outcome| outcome.try_recv().expect("everyone is answered").unwrap())
        .collect()
}

#[test]
fn who_comes_while_a_long_group_runs_waits_for_one_job_of_it() {
    let bench = Bench::new(1 << 30);
    let queue = waiting(Vec::new());
    let (other, others) = slow(&bench, 2, 9, || ());
    let (to, mut other) = (Arc::clone(&queue), Some(other));
    let (first, first_outcome) = slow(&bench, 1, 1, move || {
        // It is accepted, and so runs in a closed queue.
        if let Some(other) = other.take() {
            to.push(other.flow, other, 1).unwrap();
            to.close();
        }
    });
    let (second, second_outcome) = slow(&bench, 1, 2, || ());
    let (third, third_outcome) = slow(&bench, 1, 3, || ());
    for job in [first, second, third] {
        queue.push(job.flow, job, 1).unwrap();
    }
    bench.run_queue(queue);
    // It ran second, when the first was committed; one that waits alone has one group.
    assert_eq!(
        seen(vec![first_outcome, others, second_outcome, third_outcome]),
        ["", "1", "1,9", "1,9"]
    );
}

#[test]
fn nobody_waits_for_the_long_jobs_behind_his_own() {
    let bench = Bench::new(1 << 30);
    let (jobs, outcomes): (Vec<_>, Vec<_>) = [(1, 1), (2, 2), (3, 3)]
        .map(|(caller, a)| slow(&bench, caller, a, || ()))
        .into_iter()
        .unzip();
    bench.run(jobs);
    assert_eq!(seen(outcomes), ["", "1", "1,2"]);
}

/// A job that takes the transaction down ends a group as well.
#[test]
fn after_a_job_that_does_not_end_who_came_meanwhile_is_the_next() {
    let bench = Bench::new(1 << 30);
    let queue = waiting(Vec::new());
    let (other, others) = slow(&bench, 2, 9, || ());
    let (second, second_outcome) = slow(&bench, 1, 2, || ());
    let (to, mut other) = (Arc::clone(&queue), Some(other));
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut endless, mut ended) =
        WriteJob::new(JobIsolation::Savepoint, deadline, move |conn: &mut WriterConnection| {
            if let Some(other) = other.take() {
                to.push(other.flow, other, 1).unwrap();
                to.close();
            }
            let time =
                TimeLimit { statement: super::MOST_GROUP_TIME, by_processor: false, deadline };
            let statement = Statement::from(ENDLESS);
            execution::run_in_transaction(
                conn,
                StatementRun::for_node(&statement),
                time,
                false,
                &mut ResultBudget::new(&CallLimits::default()),
            )
            .map(|_| ())
        });
    endless.flow = second.flow;
    for job in [endless, second] {
        queue.push(job.flow, job, 1).unwrap();
    }
    bench.run_queue(queue);
    assert_eq!(ended.try_recv().unwrap().unwrap_err().code, Code::StatementTimeout);
    assert_eq!(seen(vec![others, second_outcome]), ["", "9"]);
}
