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
    remove_abandoned(path);
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
    sync_folder(folder_of(path))
}

/// Writes a folder's names to the disk: without this a name could still be the old file's after a
/// power cut. The file is in place already, so that a folder which cannot be opened or synced at
/// all (rights to write into it alone, file systems without that) is no failure: the caller would
/// take the file for unwritten.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // Only Unix opens a folder as a file.
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if is_not_offered(&error) => Ok(()),
        synced => synced,
    }
}

fn is_not_offered(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported)
}

/// Removes what programs left beside `path` that ended in the middle: it may hold a secret. The
/// files of programs that still run stay.
fn remove_abandoned(path: &Path) {
    // Linux tells which processes run; elsewhere nothing is removed.
    if !Path::new("/proc/self").exists() {
        return;
    }
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    let prefix = format!(".{name}.");
    let Ok(entries) = fs::read_dir(folder_of(path)) else { return };
    for entry in entries.filter_map(Result::ok) {
        let file_name = entry.file_name();
        let process = file_name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix)?.split_once('.'))
            .and_then(|(process, number)| number.parse::<u64>().and(process.parse::<u32>()).ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A new file beside `path`. Its name is of this process and this call, so that of two programs at
/// once neither puts the other's half in place.
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

    /// The secret of a program that was killed lay there for good.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_killed_program_left_is_removed_and_the_files_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let in_use = format!(".key.{}.7", std::process::id());
        // Above every process id.
        for name in [".key.4194305.0", in_use.as_str(), ".key.x.0", ".other.4194305.0"] {
            fs::write(dir.path().join(name), "secret").unwrap();
        }
        replace(&dir.path().join("key"), b"new", FileReaders::Owner).unwrap();
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        let mut expected = [".key.x.0", in_use.as_str(), ".other.4194305.0", "key"];
        expected.sort_unstable();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_folder_that_cannot_be_synced_is_no_failure_and_a_disk_that_fails_is() {
        use std::io::Error;
        for kind in [ErrorKind::PermissionDenied, ErrorKind::InvalidInput, ErrorKind::Unsupported] {
            assert!(super::is_not_offered(&Error::from(kind)), "{kind}");
        }
        assert!(!super::is_not_offered(&Error::other("EIO")));
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
