//! The engine's folder: its lock, its files' names, and the marker that says whether it was left in
//! order.

use super::engine_open_error::EngineOpenError;
use super::file_names::{ENDINGS, PARTIAL, RESTORE};
use debros_proto::Namespace;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The mode of folders that hold data.
const PRIVATE: u32 = 0o700;

/// The folder of an open engine.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    lock: File,
}

impl DataFolder {
    /// Makes what is missing, takes the lock, empties `tmp` and removes files that were not
    /// written to their end.
    pub(super) fn open(path: &Path) -> Result<DataFolder, EngineOpenError> {
        for folder in [path.to_owned(), path.join("ns"), path.join("tmp")] {
            create_private_folder(&folder).map_err(|error| EngineOpenError::io(&folder, error))?;
        }
        let lock = take_lock(&path.join("LOCK"))?;
        let folder = DataFolder { path: path.to_owned(), lock };
        let tmp = folder.temp_path();
        let entries = fs::read_dir(&tmp).map_err(|error| EngineOpenError::io(&tmp, error))?;
        for entry in entries.filter_map(Result::ok) {
            // What stays is only rubbish.
            let _ = fs::remove_file(entry.path());
        }
        for path in [path.to_owned(), path.join("ns")] {
            let entries = fs::read_dir(&path).map_err(|error| EngineOpenError::io(&path, error))?;
            let is_partial =
                |path: &PathBuf| path.extension().is_some_and(|ending| ending == PARTIAL);
            for partial in
                entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_partial)
            {
                let _ = fs::remove_file(partial);
            }
        }
        Ok(folder)
    }

    pub(super) fn system_path(&self) -> PathBuf {
        self.path.join("system.db")
    }

    pub(super) fn namespace_path(&self, namespace: &Namespace) -> PathBuf {
        self.path.join("ns").join(format!("{namespace}.db"))
    }

    pub(super) fn temp_path(&self) -> PathBuf {
        self.path.join("tmp")
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The namespaces that have a database, in order.
    pub(super) fn list_namespaces(&self) -> io::Result<BTreeSet<Namespace>> {
        self.names_with_ending(".db")
    }

    /// The namespaces of which any file is there, also one that was left when the others were taken
    /// away.
    pub(super) fn list_remnants(&self) -> io::Result<BTreeSet<Namespace>> {
        let mut names = BTreeSet::new();
        for ending in ENDINGS {
            names.append(&mut self.names_with_ending(&format!(".{ending}"))?);
        }
        Ok(names)
    }

    fn names_with_ending(&self, ending: &str) -> io::Result<BTreeSet<Namespace>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(self.path.join("ns"))? {
            let name = entry?.file_name();
            let namespace =
                name.to_str().and_then(|name| name.strip_suffix(ending)).map(Namespace::new);
            if let Some(Ok(namespace)) = namespace {
                names.insert(namespace);
            }
        }
        Ok(names)
    }

    /// The namespaces whose deletion was begun and not finished.
    pub(super) fn interrupted_deletions(&self) -> io::Result<BTreeSet<Namespace>> {
        self.names_with_ending(".delete")
    }

    /// Notes that the deletion of a namespace begins, and what belongs to it.
    pub(super) fn begin_deletion(&self, namespace: &Namespace, what: &[u8]) -> io::Result<()> {
        write_synced(&self.deletion_marker(namespace), what)
    }

    /// What [`begin_deletion`](DataFolder::begin_deletion) noted.
    pub(super) fn read_deletion(&self, namespace: &Namespace) -> io::Result<Vec<u8>> {
        debros_proto::regular_file::read(&self.deletion_marker(namespace))
    }

    /// Whether the deletion of a namespace was begun and not finished.
    pub(super) fn is_deleting(&self, namespace: &Namespace) -> io::Result<bool> {
        self.deletion_marker(namespace).try_exists()
    }

    /// Notes that it is finished.
    pub(super) fn end_deletion(&self, namespace: &Namespace) -> io::Result<()> {
        fs::remove_file(self.deletion_marker(namespace)).and_then(|()| self.sync_namespaces())
    }

    fn deletion_marker(&self, namespace: &Namespace) -> PathBuf {
        self.path.join("ns").join(format!("{namespace}.delete"))
    }

    /// Notes that an entry of the cluster's log removes a namespace's database, so that what the log
    /// has of it before is not done again.
    pub(super) fn record_removal(&self, namespace: &Namespace, entry: u64) -> io::Result<()> {
        write_synced(&self.removal_marker(namespace), entry.to_string().as_bytes())
    }

    /// The entry that removed a namespace's database last; 0: none that is remembered.
    pub(super) fn removed_at(&self, namespace: &Namespace) -> io::Result<u64> {
        match debros_proto::regular_file::read_to_string(&self.removal_marker(namespace)) {
            Ok(entry) => entry.trim().parse().map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Forgets the removals by entries up to this one, which are not read again.
    pub(super) fn forget_removals(&self, through: u64) -> io::Result<()> {
        for namespace in self.names_with_ending(".removed")? {
            if self.removed_at(&namespace)? <= through {
                fs::remove_file(self.removal_marker(&namespace))?;
            }
        }
        Ok(())
    }

    /// Copies what is remembered of removals into a copy of the folder.
    pub(super) fn copy_removals(&self, target: &Path) -> io::Result<()> {
        for namespace in self.names_with_ending(".removed")? {
            let marker = self.removal_marker(&namespace);
            let name = marker.file_name().unwrap_or_default();
            fs::copy(&marker, target.join("ns").join(name))?;
        }
        Ok(())
    }

    fn removal_marker(&self, namespace: &Namespace) -> PathBuf {
        self.path.join("ns").join(format!("{namespace}.removed"))
    }

    /// Makes new and removed databases of namespaces durable.
    pub(super) fn sync_namespaces(&self) -> io::Result<()> {
        sync_folder(&self.path.join("ns"))
    }

    /// Takes the marker of a clean stop away. `None`: there was none. Else the databases that were
    /// not checked since an unclean stop before.
    pub(super) fn take_clean_marker(&self) -> Result<Option<BTreeSet<Namespace>>, EngineOpenError> {
        let path = self.clean_marker();
        let text = match debros_proto::regular_file::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(EngineOpenError::io(&path, error)),
        };
        fs::remove_file(&path)
            .and_then(|()| sync_folder(&self.path))
            .map_err(|error| EngineOpenError::io(&path, error))?;
        Ok(Some(text.lines().filter_map(|line| Namespace::new(line).ok()).collect()))
    }

    /// Puts the marker of a clean stop.
    pub(super) fn write_clean_marker(&self, unchecked: &BTreeSet<Namespace>) -> io::Result<()> {
        let text: String = unchecked.iter().map(|namespace| format!("{namespace}\n")).collect();
        write_synced(&self.clean_marker(), text.as_bytes())
    }

    /// The name of the backup whose restore was begun and not finished.
    pub(super) fn interrupted_restore(&self) -> io::Result<Option<String>> {
        match debros_proto::regular_file::read_to_string(&self.restore_marker()) {
            Ok(name) => Ok(Some(name.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the folder for what makes room for a backup of another network. One that is restored
    /// `again` after it was broken off goes on with the one that it had.
    pub(super) fn create_aside_folder(&self, backup: &str, again: bool) -> io::Result<PathBuf> {
        let aside = self.aside_path();
        create_private_folder(&aside)?;
        let (mut folder, mut before, mut number) = (aside.join(backup), None, 1);
        while folder.exists() {
            number += 1;
            before = Some(std::mem::replace(&mut folder, aside.join(format!("{backup}-{number}"))));
        }
        let folder = before.filter(|_| again).unwrap_or(folder);
        create_private_folder(&folder)?;
        sync_folder(&aside)?;
        sync_folder(&self.path)?;
        Ok(folder)
    }

    /// Notes that a restore begins.
    pub(super) fn begin_restore(&self, name: &str) -> io::Result<()> {
        write_synced(&self.restore_marker(), name.as_bytes())
    }

    /// Notes that it is finished.
    pub(super) fn end_restore(&self) -> io::Result<()> {
        ignore_missing(fs::remove_file(self.restore_marker()))
            .and_then(|()| sync_folder(&self.path))
    }

    /// Lets others in, when all files are closed. What still holds this does not need the lock.
    pub(super) fn release_lock(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the folder's lock could not be given up; it goes with the process");
        }
    }

    /// Where what makes room for a backup of another network is kept.
    pub(super) fn aside_path(&self) -> PathBuf {
        self.path.join("set-aside")
    }

    fn clean_marker(&self) -> PathBuf {
        self.path.join("CLEAN")
    }

    fn restore_marker(&self) -> PathBuf {
        self.path.join(RESTORE)
    }
}

/// What was to be removed or renamed need not be there.
pub(super) fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes a folder that only its owner may look into, with those above it. One that is there and
/// open to others is closed to them: databases and their copies hold what no other user of the
/// machine may read.
pub(super) fn create_private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(PRIVATE).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE))?;
        tracing::warn!(folder = %path.display(), mode = format!("{mode:03o}"), "the folder was open to other users, and is closed to them now");
    }
    Ok(())
}

/// Bytes that a program of an ordinary user may still write on the disk of a path.
///
/// # Errors
/// When the system does not say.
pub fn available_space(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_frsize.saturating_mul(disk.f_bavail))
}

fn take_lock(path: &Path) -> Result<File, EngineOpenError> {
    let io_error = |error| EngineOpenError::io(path, error);
    // A pipe would keep us waiting.
    match debros_proto::regular_file::metadata(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim().parse::<u32>() {
                Ok(id) => format!("process {id}"),
                Err(_) => "another process".to_owned(),
            };
            return Err(EngineOpenError::Locked { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(io_error(error)),
    }
    let named = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    match named {
        // Held it is all the same. On a full disk the node has to start, so that what is there can
        // be read and deleted.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) =>
        {
            tracing::warn!(path = %path.display(), %error, "the lock does not name its holder");
        }
        named => named.map_err(io_error)?,
    }
    Ok(file)
}

/// Writes a small file so that it is whole on the disk, or not there. Of a failure nothing stays
/// but, where the disk does not say whether it keeps the name, the whole file.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // After the whole name: files that differ in their endings are written at the same time.
    let mut partial = path.as_os_str().to_owned();
    partial.push(".");
    partial.push(PARTIAL);
    let partial = PathBuf::from(partial);
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, path));
    if let Err(error) = written {
        // On a full disk it would take room until the next start, which removes what stays here.
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes new, renamed and removed names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
