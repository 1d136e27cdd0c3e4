//! Guards an rqlite of version 8 against losing rows.
//!
//! There, a read transaction that is open for more than 5 s while a snapshot is made lets the next
//! snapshot lack pages, and after a restart acknowledged rows are gone. With an empty file
//! `FULL_NEEDED` every snapshot is a whole copy, which lacks nothing. A snapshot that succeeded
//! removes the file, so it is made again. What a whole copy costs is little: the database is small.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How soon the file is made again. Snapshots are at least five seconds apart.
const EVERY: Duration = Duration::from_millis(200);

/// Keeps the file there until it is dropped.
pub(super) async fn keep(store: &Path) {
    let path = store.join("rsnapshots").join("FULL_NEEDED");
    let mut failed = false;
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => failed = false,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if !failed => {
                failed = true;
                tracing::error!(target: "rqlited", path = %path.display(), %error, "the guard against incomplete snapshots cannot be set; a newer rqlite needs none");
            }
            Err(_) => {}
        }
    }
}
