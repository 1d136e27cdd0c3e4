//! The credentials that the CLI keeps: `~/.debros/credentials.json`, mode 0600 in a folder of mode 0700.
//!
//! One file, one format, one entry per node: an entry is found by the node's peer id or by its gateway's URL. A file that can
//! not be read as such is an error and is never written over.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The format's version.
const VERSION: u32 = 1;

/// Why the stored credentials can not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nobody's home.
    #[error("there is no home folder to keep credentials in: set HOME, or set DEBROS_API_KEY instead")]
    NoHome,
    /// The file system says no.
    #[error("{path} can not be {action}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// "read" or "written".
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Others could read the secrets.
    #[error("{path} may be read by other users (mode {mode:03o}): run chmod {wanted:03o} {path}")]
    Exposed {
        /// Which file or folder.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
        /// What they have to be.
        wanted: u32,
    },
    /// Another format.
    #[error("{path} is not a credentials file of this version ({reason}): move it away to start a new one")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A stored credential.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The node's identity.
    pub peer_id: String,
    /// The URL of the node's gateway, empty when it has none.
    #[serde(default)]
    pub gateway_url: String,
    /// The namespace that the credential belongs to.
    pub namespace: String,
    /// The API key. A secret.
    pub api_key: String,
    /// When it was stored, milliseconds since the Unix epoch.
    #[serde(default)]
    pub stored_at: i64,
}

/// The secret is left out.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("peer_id", &self.peer_id)
            .field("gateway_url", &self.gateway_url)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    credentials: Vec<Entry>,
}

/// The stored credentials.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The store in the user's home folder.
    ///
    /// # Errors
    /// When there is no home folder.
    pub fn in_home() -> Result<Self, StoreError> {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).ok_or(StoreError::NoHome)?;
        Ok(Self { folder: Path::new(&home).join(".debros") })
    }

    /// The store in a folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.folder.join("credentials.json")
    }

    /// The credential for a node, the newest if there are several namespaces.
    ///
    /// # Errors
    /// When the file is there and can not be used.
    pub fn find(&self, peer_id: &str, namespace: Option<&str>) -> Result<Option<Entry>, StoreError> {
        let mut entries = self.read()?;
        entries
            .retain(|entry| entry.peer_id == peer_id && namespace.is_none_or(|namespace| entry.namespace == namespace));
        Ok(entries.into_iter().max_by_key(|entry| entry.stored_at))
    }

    /// Stores a credential in place of the one for the same node and namespace. Entries of other nodes that were reached
    /// under the same URL go: another node listens there now.
    ///
    /// # Errors
    /// When the file is there and can not be used, or can not be written.
    pub fn put(&self, entry: Entry) -> Result<(), StoreError> {
        self.make_folder()?;
        // Held while the file is read and replaced, so that two programs do not lose each other's entries.
        let lock = self.folder.join("credentials.lock");
        let held = private_file(&lock)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|source| io_error(&lock, "written", source))?;
        let mut credentials = self.read()?;
        credentials.retain(|known| {
            let same_place = !entry.gateway_url.is_empty() && known.gateway_url == entry.gateway_url;
            if known.peer_id == entry.peer_id { known.namespace != entry.namespace } else { !same_place }
        });
        credentials.push(entry);
        self.write(&Content { version: VERSION, credentials })?;
        drop(held);
        Ok(())
    }

    fn read(&self) -> Result<Vec<Entry>, StoreError> {
        let path = self.path();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io_error(&path, "read", source)),
        };
        check_mode(&self.folder, 0o700)?;
        check_mode(&path, 0o600)?;
        let format = |reason: String| StoreError::Format { path: path.clone(), reason };
        // serde's own message could repeat a piece of the file.
        let content: Content = serde_json::from_str(&text)
            .map_err(|error| format(format!("line {}, column {}", error.line(), error.column())))?;
        if content.version != VERSION {
            return Err(format(format!("it has version {}, this program reads {VERSION}", content.version)));
        }
        Ok(content.credentials)
    }

    fn make_folder(&self) -> Result<(), StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|source| io_error(&self.folder, "made", source))?;
        check_mode(&self.folder, 0o700)
    }

    /// Writes beside and renames: a crash leaves the old file or the new one.
    fn write(&self, content: &Content) -> Result<(), StoreError> {
        let path = self.path();
        let beside = self.folder.join("credentials.json.new");
        let write = || -> io::Result<()> {
            let text = serde_json::to_string_pretty(content)?;
            let mut file = private_file(&beside)?;
            file.set_len(0)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        };
        write().map_err(|source| io_error(&path, "written", source))
    }
}

fn private_file(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), action, source }
}

fn check_mode(path: &Path, wanted: u32) -> Result<(), StoreError> {
    let mode = fs::metadata(path).map_err(|source| io_error(path, "read", source))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(StoreError::Exposed { path: path.to_owned(), mode, wanted }) }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Store, StoreError, fs};
    use std::os::unix::fs::PermissionsExt as _;

    fn entry(peer_id: &str, namespace: &str, url: &str) -> Entry {
        Entry {
            peer_id: peer_id.into(),
            gateway_url: url.into(),
            namespace: namespace.into(),
            api_key: format!("ak_{peer_id}:{namespace}"),
            stored_at: 1,
        }
    }

    /// Lesson 37: two formats overwrote one file. Entries of several nodes and namespaces live beside each other.
    #[test]
    fn lesson_37_credentials_of_several_nodes_and_namespaces_are_kept_together() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::in_folder(home.path().join(".debros"));
        assert_eq!(store.find("a", None).unwrap(), None);
        for (peer, namespace, url) in
            [("a", "one", "http://x"), ("a", "two", ""), ("b", "one", ""), ("a", "one", "http://x")]
        {
            store.put(entry(peer, namespace, url)).unwrap();
        }
        assert_eq!(store.read().unwrap().len(), 3);
        assert_eq!(store.find("a", Some("two")).unwrap().unwrap().api_key, "ak_a:two");
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store.path()), mode(&store.folder)), (0o600, 0o700));
        // Another node listens at the URL of the first: its entry there is of no use any more.
        store.put(entry("c", "one", "http://x")).unwrap();
        assert_eq!(store.find("a", Some("one")).unwrap(), None);
        assert!(store.find("a", Some("two")).unwrap().is_some());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_command_that_mends_it() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::in_folder(home.path().join(".debros"));
        store.put(entry("a", "one", "")).unwrap();
        fs::set_permissions(store.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let error = store.find("a", None).unwrap_err().to_string();
        assert!(error.contains("mode 644") && error.contains("chmod 600 "), "{error}");
        fs::set_permissions(store.path(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&store.folder, fs::Permissions::from_mode(0o755)).unwrap();
        let error = store.find("a", None).unwrap_err().to_string();
        assert!(error.contains("chmod 700 "), "{error}");
    }

    #[test]
    fn a_file_of_another_format_is_an_error_and_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::in_folder(home.path().join(".debros"));
        store.put(entry("a", "one", "")).unwrap();
        for bad in ["", "{", r#"{"gateways":{"x":"ak_secret"}}"#, r#"{"version":2,"credentials":[]}"#] {
            fs::write(store.path(), bad).unwrap();
            let error = store.put(entry("b", "one", "")).unwrap_err();
            assert!(matches!(error, StoreError::Format { .. }) && !error.to_string().contains("secret"), "{error}");
            assert_eq!(fs::read_to_string(store.path()).unwrap(), bad);
        }
    }
}
