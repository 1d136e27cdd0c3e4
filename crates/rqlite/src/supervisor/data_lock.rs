//! The child's folder, for one process at a time.
//!
//! A second `rqlited` on the same folder says nothing and hangs, so the folder is locked before.

use super::StartError;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Databases and passwords are what no other user of the machine may read.
const PRIVATE: u32 = 0o700;

/// The folder, locked as long as this lives.
#[derive(Debug)]
pub(super) struct DataLock {
    folder: PathBuf,
    _file: File,
}

impl DataLock {
    pub(super) fn take(folder: &Path) -> Result<Self, StartError> {
        let failed = |source| StartError::file(folder, source);
        DirBuilder::new().recursive(true).mode(PRIVATE).create(folder).map_err(failed)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(PRIVATE)).map_err(failed)?;
        // The child's arguments are compared with it later, maybe from another current folder.
        let folder = fs::canonicalize(folder).map_err(failed)?;
        let path = folder.join("rqlited.lock");
        let failed = |source| StartError::file(&path, source);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim().parse::<u32>() {
                    Ok(pid) => format!("process {pid}"),
                    Err(_) => "another process".to_owned(),
                };
                return Err(StartError::Locked { path: folder, holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self { folder, _file: file })
    }

    /// What is rqlited's own.
    pub(super) fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// Where the child's process id is kept for the next start.
    pub(super) fn pid_file(&self) -> PathBuf {
        self.folder.join("rqlited.pid")
    }

    pub(super) fn auth_file(&self) -> PathBuf {
        self.folder.join("auth.json")
    }
}

#[cfg(test)]
mod tests {
    use super::super::StartError;
    use super::DataLock;

    #[test]
    fn a_folder_has_one_holder_and_the_error_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataLock::take(dir.path()).unwrap();
        let error = DataLock::take(dir.path()).unwrap_err();
        assert!(matches!(error, StartError::Locked { .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        DataLock::take(dir.path()).unwrap();
    }
}
