//! Databases with a statement that does not end: the others, and the end of the program, do not
//! wait for it.

use super::DatabaseManager;
use crate::CallerKey;
use crate::embedded::authorizer::StatementRights;
use crate::embedded::config::EmbeddedConfig;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::database_handle::{DatabaseHandle, LEAST_BRIEF_TIME, WriteOptions};
use crate::embedded::deadline::NO_DEADLINE;
use crate::embedded::fair_queue::FlowId;
use crate::embedded::job::JobIsolation;
use crate::embedded::verdict_cache::BRIEF_TIME;
use crate::embedded::writer_conn::WriterConnection;
use crate::embedded::{backup, error_mapping, tenant};
use debros_proto::{Code, Namespace, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

fn open(path: &Path, open_databases: usize) -> Arc<DatabaseManager> {
    let config = EmbeddedConfig { open_databases, ..EmbeddedConfig::new(path) };
    Arc::new(DatabaseManager::open(config, None).unwrap_or_else(|error| panic!("{error}")))
}

fn named(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

/// A step that goes on until what is returned is dropped, in a database whose caller goes away once
/// it has begun.
async fn stuck(
    act: impl AsyncFnOnce(Box<dyn FnOnce() -> Result<()> + Send>) -> Result<()>,
) -> Sender<()> {
    let (release, released) = channel::<()>();
    let (begin, begun) = oneshot::channel();
    let step = Box::new(move || {
        let _ = begin.send(());
        let _ = released.recv();
        Ok(())
    });
    tokio::select! {
        outcome = act(step) => panic!("it ended: {outcome:?}"),
        _ = begun => {}
    }
    release
}

async fn stuck_read(database: &Arc<DatabaseHandle>) -> Sender<()> {
    stuck(async |step| {
        database.read(CallerKey::default(), 0, Instant::now() + NO_DEADLINE, move |_| step()).await
    })
    .await
}

/// A read that does not end, of a caller that stays.
async fn endless_read(database: &Arc<DatabaseHandle>, caller: u64) -> Sender<()> {
    let ((release, released), (begin, begun)) = (channel::<()>(), oneshot::channel());
    let database = Arc::clone(database);
    tokio::spawn(async move {
        let act = move |_: &SqliteConnection| {
            let _ = begin.send(());
            let _ = released.recv();
            Ok(())
        };
        database.read(CallerKey(caller), 0, Instant::now() + NO_DEADLINE, act).await
    });
    begun.await.unwrap();
    release
}

async fn stuck_write(database: &Arc<DatabaseHandle>) -> Sender<()> {
    let write = WriteOptions {
        isolation: JobIsolation::Savepoint,
        removes: false,
        bytes: 1,
        deadline: Instant::now() + NO_DEADLINE,
        flow: FlowId::default(),
    };
    stuck(async |step| {
        let mut step = Some(step);
        database.write(write, move |_| step.take().map_or(Ok(()), |step| step())).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_statement_runs_on_without_its_caller_is_not_closed_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), 1);
    let mut running = Vec::new();
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        let database = databases.open_or_create(&named(name)).await.unwrap();
        running.push(if index == 0 {
            stuck_read(&database).await
        } else {
            stuck_write(&database).await
        });
    }
    for name in ["c", "d", "e"] {
        databases.open_or_create(&named(name)).await.unwrap();
    }
    for name in ["a", "b"] {
        assert!(
            super::lock(&databases.open_databases).contains_key(&named(name)),
            "{name} was chosen"
        );
        let database = databases.open_or_create(&named(name)).await.unwrap();
        database
            .read(CallerKey::default(), 0, Instant::now() + NO_DEADLINE, |_| Ok(()))
            .await
            .unwrap();
    }
    drop(running);
    databases.close_all(Instant::now() + NO_DEADLINE);
}

/// Two have all threads that are shared.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_nothing_running_is_served_beside_the_endless_reads_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), 10);
    let database = databases.open_or_create(&named("a")).await.unwrap();
    let shared = databases.shared.config.readers as u64;
    let mut running = Vec::new();
    for caller in (1..shared).map(|_| 1).chain([2]) {
        running.push(endless_read(&database, caller).await);
    }
    let far = || Instant::now() + NO_DEADLINE;
    assert!(database.would_wait(CallerKey(3)));
    database.read(CallerKey(3), 0, far(), |_| Ok(())).await.unwrap();
    // Others of these two have none of the threads for that; the next two have one each.
    let (greedy, again) = (Arc::clone(&database), far());
    let waits = tokio::spawn(async move { greedy.read(CallerKey(2), 0, again, |_| Ok(())).await });
    running.push(endless_read(&database, 4).await);
    running.push(endless_read(&database, 5).await);
    database.read(CallerKey(3), 0, far(), |_| Ok(())).await.unwrap();
    assert!(!waits.is_finished());
    // However many there are, what is quick has a thread of its own.
    running.push(endless_read(&database, 6).await);
    assert!(
        database
            .read_or_try_briefly(CallerKey(3), 0, far(), |_, time| Ok(time))
            .await
            .unwrap()
            .is_some()
    );
    running.clear();
    waits.await.unwrap().unwrap();
    databases.close_all(far());
}

/// Each of many that wait to be tried for a moment would make the others wait for as long.
#[tokio::test(flavor = "multi_thread")]
async fn the_more_wait_to_be_tried_for_a_moment_the_shorter_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), 10);
    let database = databases.open_or_create(&named("a")).await.unwrap();
    let far = Instant::now() + NO_DEADLINE;
    let release =
        stuck(async |step| database.read_briefly(CallerKey(0), 0, far, move |_, _| step()).await)
            .await;
    let mut waiting: Vec<_> = (1..=100)
        .map(|caller| {
            Box::pin(database.read_briefly(CallerKey(caller), 0, far, |_, time| Ok(time)))
        })
        .collect();
    for read in &mut waiting {
        assert!(poll_once(read).await.is_none());
    }
    drop(release);
    let mut times = Vec::new();
    for read in waiting {
        times.push(read.await.unwrap());
    }
    assert_eq!((times[0], times[98], times[99]), (LEAST_BRIEF_TIME, BRIEF_TIME / 2, BRIEF_TIME));
    assert!(times.is_sorted(), "{times:?}");
    databases.close_all(far);
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_does_not_wait_for_a_statement_that_does_not_end() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), 10);
    let mut running = Vec::new();
    for (index, name) in ["a", "b", "well"].into_iter().enumerate() {
        let database = databases.open_or_create(&named(name)).await.unwrap();
        match index {
            0 => running.push(stuck_read(&database).await),
            1 => running.push(stuck_write(&database).await),
            _ => {}
        }
    }
    // The one that is well has a few seconds to be written back.
    databases.close_all(Instant::now() + Duration::from_secs(6));
    let marker = std::fs::read_to_string(folder.path().join("CLEAN")).unwrap();
    assert_eq!(marker, "a\nb\n", "these are looked at when they are opened again");
    // Their threads still have the files.
    assert!(DatabaseManager::open(EmbeddedConfig::new(folder.path()), None).is_err());
    drop(running);
}

/// Waits on a thread of its own until something is so.
async fn until(
    databases: &Arc<DatabaseManager>,
    is_so: impl Fn(&DatabaseManager) -> bool + Send + 'static,
) {
    let databases = Arc::clone(databases);
    let waiting = tokio::task::spawn_blocking(move || {
        let give_up = Instant::now() + Duration::from_secs(60);
        while !is_so(&databases) {
            assert!(Instant::now() < give_up, "it does not come to that");
            std::thread::yield_now();
        }
    });
    waiting.await.unwrap();
}

/// It kept others from backups and restores for as long as the statement ran.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_what_runs_before_it_keeps_others_from_copying() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), 10);
    let app = named("app");
    let running = stuck_write(&databases.open_or_create(&app).await.unwrap()).await;
    let deletion = {
        let (databases, app) = (Arc::clone(&databases), app.clone());
        tokio::task::spawn_blocking(move || {
            tenant::delete_namespace(&databases, &app, Vec::new(), Instant::now() + NO_DEADLINE)
        })
    };
    until(&databases, |databases| {
        databases.namespace_locks.find_deleting().is_some()
            && backup::exclusive_maintenance(databases, "a test").is_ok()
    })
    .await;
    assert_eq!(
        databases.open_or_create(&app).await.err().map(|error| error.code),
        Some(Code::Unavailable)
    );
    // Held for a backup it is opened all the same.
    databases.open_namespace(&app).unwrap();
    drop(running);
    deletion.await.unwrap().unwrap();
    assert!(
        !folder.path().join("ns/app.db").exists()
            && databases.namespace_locks.find_deleting().is_none()
    );
    databases.close_all(Instant::now() + NO_DEADLINE);
}

/// Its caller's answer was that it did not happen in time, and it happened later.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_can_not_begin_by_its_deadline_does_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), 10);
    let app = named("app");
    let database = databases.open_or_create(&app).await.unwrap();
    let running = stuck_read(&database).await;
    let late = {
        let (databases, app) = (Arc::clone(&databases), app.clone());
        tokio::task::spawn_blocking(move || {
            tenant::delete_namespace(&databases, &app, Vec::new(), Instant::now())
        })
    };
    let late = tokio::time::timeout(Duration::from_secs(60), late)
        .await
        .expect("it waits on")
        .unwrap()
        .unwrap_err();
    assert_eq!(late.code, Code::DeadlineExceeded);
    assert!(late.message.contains("nothing was deleted"), "{}", late.message);
    assert!(!folder.path().join("ns/app.delete").exists());
    // The next caller is served, by the same database.
    drop(running);
    let same = databases.open_or_create(&app).await.unwrap();
    assert!(Arc::ptr_eq(&same, &database));
    same.read(CallerKey::default(), 0, Instant::now() + NO_DEADLINE, |_| Ok(())).await.unwrap();
    databases.close_all(Instant::now() + NO_DEADLINE);
}

/// One that was being closed made the sweep fail for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_goes_past_databases_that_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), 20);
    let names: Vec<Namespace> = (0..8).map(|index| named(&format!("n{index}"))).collect();
    for name in &names {
        let database = databases.open_or_create(name).await.unwrap();
        let write = WriteOptions {
            isolation: JobIsolation::Savepoint,
            removes: false,
            bytes: 1,
            deadline: Instant::now() + NO_DEADLINE,
            flow: FlowId::default(),
        };
        let expired = |conn: &mut WriterConnection| {
            let sql = "/*debros*/ INSERT INTO _debros_idempotency VALUES ('', 'k', x'', x'', 1)";
            conn.authorizer.set_rights(StatementRights::Internal);
            conn.prepare_internal(sql)
                .and_then(|mut insert| insert.execute([]))
                .map(|_| ())
                .map_err(error_mapping::map_sqlite_error)
        };
        database.write(write, expired).await.unwrap();
    }
    let closed = databases.open_or_create(&names[3]).await.unwrap();
    tokio::task::spawn_blocking(move || closed.close()).await.unwrap();
    assert_eq!(databases.sweep_expired(2).await.unwrap(), 7);
    databases.close_all(Instant::now() + NO_DEADLINE);
    assert_eq!(databases.sweep_expired(2).await.unwrap_err().code, Code::Unavailable);
}
