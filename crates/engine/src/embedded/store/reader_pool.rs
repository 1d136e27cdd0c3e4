//! The connections that read one file, kept for the next who reads.

use super::lock;
use crate::embedded::conn::Conn;
use crate::embedded::failure;
use crate::embedded::file_identity::{self, FileIdentity};
use crate::embedded::queue::closed;
use crate::embedded::snapshots::Snapshots;
use debros_proto::Result;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tracing::Span;

/// Connections that only read.
pub(in crate::embedded) struct Pool {
    path: PathBuf,
    span: Span,
    pub(super) idle: Mutex<Vec<Conn>>,
    keep: usize,
    /// No connection is opened any more: the file may be gone.
    pub(super) closed: AtomicBool,
    pub(in crate::embedded) snapshots: Snapshots,
    identity: FileIdentity,
    /// The files are not in their places, as of the last look.
    is_displaced: AtomicBool,
}

impl Pool {
    /// Connections to a file, of which so many are kept when nobody uses them.
    pub(in crate::embedded) fn new(path: &Path, span: Span, keep: usize) -> std::io::Result<Self> {
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
    pub(in crate::embedded) fn check_in_place(&self) -> Result<()> {
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
    pub(in crate::embedded) fn is_displaced(&self) -> bool {
        self.is_displaced.load(Relaxed)
    }

    pub(super) fn take(&self) -> Result<Conn> {
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

    pub(super) fn give_back(&self, conn: Conn) {
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
    pub(in crate::embedded) fn suspend(&self) {
        self.snapshots.suspend();
        lock(&self.idle).retain(|conn| conn.let_go().is_ok());
    }
}
