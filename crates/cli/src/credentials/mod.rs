//! The credentials that the CLI keeps: `~/.debros/credentials.json`, mode 0600 in a folder of mode
//! 0700.
//!
//! One file, one format, one entry for each wallet in each namespace of each node; one entry of a
//! node is the current one. A file that cannot be read as such is an error and is never written
//! over.

mod error;
mod stored_credential;

pub use error::CredentialFileError;
pub use stored_credential::{OPERATOR, StoredCredential};

use debros_proto::durable_file::{self, FileReaders};
use error::io_error;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The format's version.
const VERSION: u32 = 2;
/// How often a lock that another program holds is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
struct CredentialDocument {
    version: u32,
    credentials: Vec<StoredCredential>,
}

#[derive(Serialize)]
struct CredentialDocumentRef<'a> {
    version: u32,
    credentials: &'a [StoredCredential],
}

/// The file of the stored credentials.
#[derive(Clone, Debug)]
pub struct CredentialFile {
    folder: PathBuf,
}

/// The stored credentials while no other program changes them.
#[derive(Debug)]
pub struct LockedCredentialFile<'a> {
    file: &'a CredentialFile,
    _lock: fs::File,
}

impl CredentialFile {
    /// The file in the user's home folder.
    ///
    /// # Errors
    /// When there is no home folder.
    pub fn in_home() -> Result<Self, CredentialFileError> {
        let home = std::env::var_os("HOME")
            .filter(|home| !home.is_empty())
            .ok_or(CredentialFileError::NoHome)?;
        Ok(Self { folder: Path::new(&home).join(".debros") })
    }

    /// The file in a folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where the file is.
    pub fn path(&self) -> PathBuf {
        self.folder.join("credentials.json")
    }

    /// The folder of the file.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All entries.
    ///
    /// # Errors
    /// When the file is there and cannot be used.
    pub fn entries(&self) -> Result<Vec<StoredCredential>, CredentialFileError> {
        self.read()
    }

    /// The entry that commands for a node use: one in the namespace and of the wallet, where they
    /// are named.
    ///
    /// - A wallet is named: the node's current entry if it fits, else the newest that fits.
    /// - No wallet is named: the node's current entry if it fits, else one of the current wallet,
    ///   else the only one in the namespace. A node without a current entry, because that was
    ///   signed out, has none to use.
    ///
    /// # Errors
    /// When the file is there and cannot be used.
    pub fn find(
        &self,
        peer_id: &str,
        namespace: Option<&str>,
        wallet: Option<&str>,
    ) -> Result<Option<StoredCredential>, CredentialFileError> {
        Ok(stored_credential::choose_credential(&self.read()?, peer_id, namespace, wallet).cloned())
    }

    /// Waits until no other program changes the credentials, and keeps others out until the result
    /// is dropped.
    ///
    /// # Errors
    /// When another program still holds them at the end of the time, or the folder cannot be used.
    pub async fn lock(
        &self,
        at_most: Duration,
    ) -> Result<LockedCredentialFile<'_>, CredentialFileError> {
        let path = self.folder.join("credentials.lock");
        let lock = self.open_lock(&path)?;
        let until = Instant::now() + at_most;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(LockedCredentialFile { file: self, _lock: lock }),
                Err(fs::TryLockError::WouldBlock) if Instant::now() < until => {
                    tokio::time::sleep(TRY_AGAIN).await
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(CredentialFileError::Busy { path });
                }
                Err(fs::TryLockError::Error(source)) => {
                    return Err(io_error(&path, "locked", source));
                }
            }
        }
    }

    fn open_lock(&self, path: &Path) -> Result<fs::File, CredentialFileError> {
        self.make_folder()?;
        open_lock_file(path).map_err(|source| io_error(path, "written", source))
    }

    fn read(&self) -> Result<Vec<StoredCredential>, CredentialFileError> {
        let path = self.path();
        let text = match debros_proto::regular_file::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io_error(&path, "read", source)),
        };
        check_mode(&self.folder, 0o700)?;
        check_mode(&path, 0o600)?;
        let format = |reason: String| CredentialFileError::Format { path: path.clone(), reason };
        // serde's own message could repeat a piece of the file.
        let content: CredentialDocument = serde_json::from_str(&text)
            .map_err(|error| format(format!("line {}, column {}", error.line(), error.column())))?;
        if content.version != VERSION {
            return Err(format(format!(
                "it has version {}, this program reads version {VERSION}",
                content.version
            )));
        }
        Ok(content.credentials)
    }

    fn make_folder(&self) -> Result<(), CredentialFileError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|source| io_error(&self.folder, "made", source))?;
        check_mode(&self.folder, 0o700)
    }

    fn write(&self, credentials: &[StoredCredential]) -> Result<(), CredentialFileError> {
        let path = self.path();
        let document = CredentialDocumentRef { version: VERSION, credentials };
        let write = || -> io::Result<()> {
            let text = serde_json::to_string_pretty(&document)? + "\n";
            durable_file::replace(&path, text.as_bytes(), FileReaders::Owner)
        };
        write().map_err(|source| io_error(&path, "written", source))
    }
}

impl LockedCredentialFile<'_> {
    /// As [`CredentialFile::find`].
    ///
    /// # Errors
    /// When the file is there and cannot be used.
    pub fn find(
        &self,
        peer_id: &str,
        namespace: Option<&str>,
        wallet: Option<&str>,
    ) -> Result<Option<StoredCredential>, CredentialFileError> {
        self.file.find(peer_id, namespace, wallet)
    }

    /// Stores the entry that a sign-in made, in place of the one of the same wallet, namespace and
    /// node. It becomes the node's current entry unless another one is.
    ///
    /// # Errors
    /// When the file is there and cannot be used, or cannot be written.
    pub fn put(&self, mut entry: StoredCredential) -> Result<(), CredentialFileError> {
        let mut entries = self.file.read()?;
        let has_current = entries.iter().any(|known| {
            known.peer_id == entry.peer_id && known.current && !known.has_same_identity(&entry)
        });
        entry.current = !has_current;
        entries.retain(|known| !known.has_same_identity(&entry) && !is_superseded(known, &entry));
        entries.push(entry);
        self.file.write(&entries)
    }

    /// Stores new tokens of an entry that is there. Whether it is current stays as it was.
    ///
    /// # Errors
    /// When the file is there and cannot be used, or cannot be written.
    pub fn update(&self, entry: StoredCredential) -> Result<(), CredentialFileError> {
        let mut entries = self.file.read()?;
        if let Some(known) = entries.iter_mut().find(|known| known.has_same_identity(&entry)) {
            *known = StoredCredential { current: known.current, ..entry };
        }
        self.file.write(&entries)
    }

    /// Stores an entry as [`put`](LockedCredentialFile::put) does, and makes it the node's current
    /// one.
    ///
    /// # Errors
    /// When the file is there and cannot be used, or cannot be written.
    pub fn put_current(&self, entry: StoredCredential) -> Result<(), CredentialFileError> {
        let mut entries = self.file.read()?;
        entries.retain(|known| !known.has_same_identity(&entry) && !is_superseded(known, &entry));
        for known in entries.iter_mut().filter(|known| known.peer_id == entry.peer_id) {
            known.current = false;
        }
        entries.push(StoredCredential { current: true, ..entry });
        self.file.write(&entries)
    }

    /// Removes the entry of the same wallet, namespace and node.
    ///
    /// # Errors
    /// When the file is there and cannot be used, or cannot be written.
    pub fn remove(&self, entry: &StoredCredential) -> Result<(), CredentialFileError> {
        let mut entries = self.file.read()?;
        entries.retain(|known| !known.has_same_identity(entry));
        self.file.write(&entries)
    }
}

/// Whether the entry `by` shows that the entry `known` is useless: they are of different nodes at
/// one URL on this machine, and `by`, which is newer, is of the node that listens there now. A URL
/// elsewhere may be that of a gateway in front of several nodes: both entries stay.
fn is_superseded(known: &StoredCredential, by: &StoredCredential) -> bool {
    known.peer_id != by.peer_id
        && known.gateway_url == by.gateway_url
        && crate::gateway_url::is_loopback(&by.gateway_url)
}

fn open_lock_file(path: &Path) -> io::Result<fs::File> {
    // A pipe would block the open.
    match debros_proto::regular_file::metadata(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn check_mode(path: &Path, wanted: u32) -> Result<(), CredentialFileError> {
    let metadata = fs::metadata(path).map_err(|source| io_error(path, "read", source))?;
    match durable_file::exposed_mode(&metadata) {
        None => Ok(()),
        Some(mode) => Err(CredentialFileError::Exposed { path: path.to_owned(), mode, wanted }),
    }
}

#[cfg(test)]
mod tests;
