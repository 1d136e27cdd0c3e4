//! A file that is only there when it is complete.

use crate::cli_error::CliError;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file that is being received, `<target>.part`. It goes away unless it is finished. Its lock
/// distinguishes a file that another export is writing from one that a killed export left behind.
pub(super) struct PartialFile {
    path: PathBuf,
    file: File,
    hash: Sha256,
    pub(super) written: u64,
    finished: bool,
}

impl PartialFile {
    pub(super) fn create(target: &Path) -> Result<Self, CliError> {
        let mut name = target
            .file_name()
            .ok_or_else(|| CliError::usage(format!("{} names no file", target.display())))?
            .to_owned();
        name.push(".part");
        let path = target.with_file_name(name);
        let unusable =
            |error| CliError::usage(format!("{} cannot be written: {error}", path.display()));
        loop {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) if try_lock_named_file(&file, &path).map_err(unusable)? => {
                    return Ok(Self {
                        path,
                        file,
                        hash: Sha256::new(),
                        written: 0,
                        finished: false,
                    });
                }
                Ok(_) => return Err(in_use_error(target)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(unusable(error)),
            }
            match debros_proto::regular_file::open(&path) {
                // Never written to, whatever it is: only its name goes.
                Ok(left) if try_lock_named_file(&left, &path).map_err(unusable)? => {
                    fs::remove_file(&path).map_err(unusable)?
                }
                Ok(_) => return Err(in_use_error(target)),
                // It was finished or given up just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unusable(error)),
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn checksum(&self) -> String {
        debros_proto::hex::encode(&self.hash.clone().finalize())
    }

    /// Why it cannot be written.
    pub(super) fn write_error(&self, error: &io::Error) -> CliError {
        CliError::new(format!("{} cannot be written: {error}", self.path.display()))
    }

    pub(super) fn commit_to(mut self, target: &Path, replace: bool) -> Result<(), CliError> {
        self.file.sync_all().map_err(|error| self.write_error(&error))?;
        let unnamed = |error: io::Error| {
            CliError::new(format!("{} cannot be made: {error}", target.display()))
        };
        if replace {
            fs::rename(&self.path, target).map_err(unnamed)?;
            self.finished = true;
            return Ok(());
        }
        // A link, unlike a rename, never replaces what appeared meanwhile. Some file systems have
        // none.
        match fs::hard_link(&self.path, target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !target.exists() => {
                fs::rename(&self.path, target).map_err(unnamed)?;
                self.finished = true;
                Ok(())
            }
            linked => linked.map_err(unnamed),
        }
    }
}

/// Takes the lock of the file with this name. False: somebody else has it, or the name belongs to
/// another file by now.
fn try_lock_named_file(file: &File, path: &Path) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match fs::metadata(path) {
        Ok(named) => Ok(identity(named) == identity(file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn in_use_error(target: &Path) -> CliError {
    CliError::new(format!("another export to {} is running", target.display()))
        .with_hint("wait until it is done")
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing can be done about a failure here.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PartialFile;

    #[test]
    fn only_a_finished_file_stays_and_it_replaces_nothing_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x.db");
        let mut partial = PartialFile::create(&target).unwrap();
        partial.write(b"abc").unwrap();
        assert_eq!(
            partial.checksum(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        drop(partial);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let mut partial = PartialFile::create(&target).unwrap();
        partial.write(b"new").unwrap();
        std::fs::write(&target, "came meanwhile").unwrap();
        partial.commit_to(&target, false).unwrap_err();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "came meanwhile");

        let partial = PartialFile::create(&target).unwrap();
        partial.commit_to(&target, true).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
    /// A process that is killed takes nothing away.
    #[test]
    fn what_a_killed_export_left_is_removed_by_the_next_and_a_running_one_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x.db");
        let left = dir.path().join("x.db.part");
        std::fs::write(&left, "half").unwrap();
        let partial = PartialFile::create(&target).unwrap();
        assert_eq!(std::fs::read(&left).unwrap(), b"");
        let refused = PartialFile::create(&target).err().unwrap();
        assert!(refused.message.contains("another export"), "{refused}");
        assert!(left.exists());
        drop(partial);
        assert!(!left.exists());

        // Somebody else's file behind the name is not written to.
        let other = dir.path().join("other");
        std::fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, &left).unwrap();
        let mut partial = PartialFile::create(&target).unwrap();
        partial.write(b"new").unwrap();
        partial.commit_to(&target, false).unwrap();
        assert_eq!(
            (std::fs::read(&other).unwrap(), std::fs::read(&target).unwrap()),
            (b"kept".to_vec(), b"new".to_vec())
        );
        assert!(!left.exists());
    }
}
