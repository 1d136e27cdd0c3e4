//! Whether the files that a database writes are still the ones under their names.
//!
//! A file that was removed or replaced takes what is written until it is closed, and then it is
//! gone with all of it. So the writer looks before each group, and again between its COMMIT and the
//! answers. SQLite has the files open, so that the system gives their numbers to no other.

use debros_proto::{Code, Error};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file's device and number there.
type InodeId = (u64, u64);

/// A database's file and its log, as they were when they were opened.
#[derive(Debug)]
pub(super) struct FileIdentity {
    files: [(PathBuf, InodeId); 2],
}

impl FileIdentity {
    /// Of a database that a connection has open, which has read from it.
    ///
    /// # Errors
    /// When one of the files is not there.
    pub(super) fn read(database: &Path) -> io::Result<Self> {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        let with_identity = |path: PathBuf| inode_id(&path).map(|identity| (path, identity));
        Ok(Self { files: [with_identity(database.to_owned())?, with_identity(log.into())?] })
    }

    /// Looks whether both are there under their names. Some two microseconds.
    ///
    /// # Errors
    /// What is wrong, for the log.
    pub(super) fn check_in_place(&self) -> Result<(), String> {
        for (path, opened) in &self.files {
            match inode_id(path) {
                Ok(now) if now == *opened => {}
                Ok(_) => return Err(format!("{} was replaced", path.display())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(format!("{} was removed", path.display()));
                }
                Err(error) => return Err(format!("{}: {error}", path.display())),
            }
        }
        Ok(())
    }
}

/// Asks for the number alone: a file whose times were asked for gets new ones with the next write,
/// which the next fdatasync writes too.
#[cfg(target_os = "linux")]
fn inode_id(path: &Path) -> io::Result<InodeId> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(file) => {
            Ok((u64::from(file.stx_dev_major) << 32 | u64::from(file.stx_dev_minor), file.stx_ino))
        }
        Err(rustix::io::Errno::NOSYS) => inode_id_of_metadata(path),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn identity(path: &Path) -> io::Result<InodeId> {
    inode_id_of_metadata(path)
}

fn inode_id_of_metadata(path: &Path) -> io::Result<InodeId> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// The error of a write to a file that is gone.
pub(super) fn displaced_error() -> Error {
    Error::new(
        Code::Unavailable,
        "the database's file was removed or replaced while the node runs: nothing is written until its operator has put the \
         file back, or started the node again; nothing was changed",
    )
    .retry_after(Duration::from_secs(10))
}

/// As [`displaced_error`], when the write had been made already.
pub(super) fn displaced_meanwhile_error() -> Error {
    Error::new(
        Code::UnknownOutcome,
        "the database's file was removed or replaced while the write was made: the write may be there or not",
    )
}
