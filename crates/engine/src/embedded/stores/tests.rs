//! Databases with a statement that does not end: the others, and the end of the program, do not wait for it.

use super::{FAR, Stores};
use crate::embedded::config::EmbeddedConfig;
use crate::embedded::job::Undo;
use crate::embedded::store::{Store, Write};
use debros_proto::{Namespace, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

fn open(path: &Path, open_databases: usize) -> Arc<Stores> {
    let config = EmbeddedConfig { open_databases, ..EmbeddedConfig::new(path) };
    Arc::new(Stores::open(config).unwrap_or_else(|error| panic!("{error}")))
}

fn named(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

/// A step that goes on until what is returned is dropped, in a database whose caller goes away once it has begun.
async fn stuck(act: impl AsyncFnOnce(Box<dyn FnOnce() -> Result<()> + Send>) -> Result<()>) -> Sender<()> {
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

async fn stuck_read(store: &Arc<Store>) -> Sender<()> {
    stuck(async |step| store.read(0, Instant::now() + FAR, move |_| step()).await).await
}

async fn stuck_write(store: &Arc<Store>) -> Sender<()> {
    let write = Write { undo: Undo::Savepoint, removes: false, bytes: 1, deadline: Instant::now() + FAR };
    stuck(async |step| {
        let mut step = Some(step);
        store.write(write, move |_| step.take().map_or(Ok(()), |step| step())).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_statement_runs_on_without_its_caller_is_not_closed_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let stores = open(folder.path(), 1);
    let mut running = Vec::new();
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        let store = stores.namespace(&named(name)).await.unwrap();
        running.push(if index == 0 { stuck_read(&store).await } else { stuck_write(&store).await });
    }
    for name in ["c", "d", "e"] {
        stores.namespace(&named(name)).await.unwrap();
    }
    for name in ["a", "b"] {
        assert!(super::lock(&stores.open).contains_key(&named(name)), "{name} was chosen");
        let store = stores.namespace(&named(name)).await.unwrap();
        store.read(0, Instant::now() + FAR, |_| Ok(())).await.unwrap();
    }
    drop(running);
    stores.close(Instant::now() + FAR);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_does_not_wait_for_a_statement_that_does_not_end() {
    let folder = tempfile::tempdir().unwrap();
    let stores = open(folder.path(), 10);
    let mut running = Vec::new();
    for (index, name) in ["a", "b", "well"].into_iter().enumerate() {
        let store = stores.namespace(&named(name)).await.unwrap();
        match index {
            0 => running.push(stuck_read(&store).await),
            1 => running.push(stuck_write(&store).await),
            _ => {}
        }
    }
    stores.close(Instant::now() + Duration::from_millis(1500));
    let marker = std::fs::read_to_string(folder.path().join("CLEAN")).unwrap();
    assert_eq!(marker, "a\nb\n", "these are looked at when they are opened again");
    // Their threads still have the files.
    assert!(Stores::open(EmbeddedConfig::new(folder.path())).is_err());
    drop(running);
}
