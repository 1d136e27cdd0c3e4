//! A whole file that takes the place of a database: how a restore goes through the log.

use super::position::{prepare_position, write_position};
use crate::embedded::copy_error::{map_copy_error, map_io_error};
use debros_proto::Result;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A file in the folder of temporary files; removed when this is dropped.
pub(in crate::embedded) struct FileImage {
    path: PathBuf,
    number: u64,
}

impl FileImage {
    /// Writes the file.
    ///
    /// # Errors
    /// What the disk says.
    pub(in crate::embedded) fn create(temp: &Path, content: &[u8]) -> Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let path = temp.join(format!("image-{}.db", MADE.fetch_add(1, Relaxed)));
        let image = Self { path, number: 0 };
        std::fs::write(&image.path, content).map_err(|error| map_io_error(&image.path, &error))?;
        Ok(image)
    }

    /// Writes into the file which entry of the log it is, so that the database knows it in the very
    /// transaction that replaces it.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::embedded) fn set_position(&mut self, number: u64) -> Result<()> {
        self.number = number;
        let db = Connection::open(&self.path).map_err(map_copy_error)?;
        prepare_position(&db)
            .and_then(|()| write_position(&db, number))
            .and_then(|()| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
            .map_err(map_copy_error)?;
        db.close().map_err(|(_, error)| map_copy_error(error))
    }

    /// The entry that [`set_position`](FileImage::set_position) named.
    pub(in crate::embedded) fn number(&self) -> u64 {
        self.number
    }

    pub(in crate::embedded) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FileImage {
    fn drop(&mut self) {
        for ending in ["db", "db-wal", "db-shm"] {
            // Nothing can be done about a failure here; the next start empties the folder.
            let _ = std::fs::remove_file(self.path.with_extension(ending));
        }
    }
}
