//! Small files, written so that a crash leaves the old one or the new one, never half of one, and
//! so that their names survive a power cut. Secrets are for their owner alone.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Which users may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileReaders {
    /// The owner alone (mode 0600).
    Owner,
    /// Whom the process's umask lets (mode 0666 without its bits).
    Umask,
}

/// Writes a file in one step, in place of the one that is there.
///
/// # Errors
/// What the system says. The old file is unchanged then, and nothing is left beside it.
pub fn replace(path: &Path, content: &[u8], readers: FileReaders) -> io::Result<()> {
    write_beside(path, content, readers, |temporary| fs::rename(temporary, path))
}

/// Writes a new file for its owner alone in one step.
///
/// # Errors
/// `AlreadyExists` when a file is there, which stays as it is; what else the system says.
pub fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write_beside(path, content, FileReaders::Owner, |temporary| {
        // A link, unlike a rename, fails when the file is there. Some file systems have none.
        match fs::hard_link(temporary, path) {
            Ok(()) => fs::remove_file(temporary),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            Err(_) if fs::symlink_metadata(path).is_ok() => {
                Err(io::ErrorKind::AlreadyExists.into())
            }
            Err(_) => fs::rename(temporary, path),
        }
    })
}

/// The mode bits of a file or folder that lets other users in; `None` where there are no modes.
pub fn exposed_mode(metadata: &Metadata) -> Option<u32> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        None
    }
}

fn write_beside(
    path: &Path,
    content: &[u8],
    readers: FileReaders,
    put_in_place: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let (temporary, mut file) = create_temporary(path, readers)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| put_in_place(&temporary));
    if written.is_err() {
        // What is left over must not pile up; the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // Without this the name could still be the old file's after a power cut. Only Unix opens a
    // folder as a file.
    if cfg!(unix) { File::open(folder_of(path))?.sync_all() } else { Ok(()) }
}

/// A new file beside `path`. Its name is of this process and this call, so that of two programs at
/// once neither puts the other's half in place; one that a crash left is passed over.
fn create_temporary(path: &Path, readers: FileReaders) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if readers == FileReaders::Owner {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = readers;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.{number}", std::process::id()));
        let temporary = folder_of(path).join(name);
        match options.open(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((temporary, opened?)),
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::{FileReaders, create_private, exposed_mode, replace};
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_its_owners_alone_also_where_others_read_the_file_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "old and longer").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(exposed_mode(&fs::metadata(&path).unwrap()), Some(0o644));
        replace(&path, b"new", FileReaders::Owner).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode, exposed_mode(&fs::metadata(&path).unwrap())), (0o600, None));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_new_file_never_takes_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_private(&path, b"first").unwrap();
        let error = create_private(&path, b"second").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(exposed_mode(&fs::metadata(&path).unwrap()), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_cannot_be_put_in_place_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), "").unwrap();
        replace(&path, b"new", FileReaders::Umask).unwrap_err();
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        replace(&dir.path().join("none/file"), b"", FileReaders::Umask).unwrap_err();
    }
}
