//! The file with the cluster's key: the present one, those before it, and the cluster's identity.
//!
//! Keys that were replaced are kept so that a node which was away meanwhile can be recognised once
//! and given the present one. They prove nothing else.

use super::cluster_key::{ClusterKey, KeyId, random_bytes};
use debros_proto::durable_file::{self, FileReaders};
use debros_proto::{Error, Result, hex, regular_file};
use sha2::{Digest as _, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The file's name in the data folder.
pub const CLUSTER_KEY_FILE: &str = "cluster.key";
/// Replaced keys that are kept. A node that was away for more has to join again.
const MAX_PREVIOUS: usize = 8;
const ORIGIN_BYTES: usize = 16;
const HEADER: &str =
    "# The key of a cluster: whoever reads this file can act as one of its nodes.\n";

/// Why there is no key of the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterKeyError {
    /// The file cannot be read or written.
    #[error("the cluster's key {path} cannot be {action}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// "read" or "written".
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Others may read the file.
    #[error(
        "the cluster's key {path} may be read by other users (mode {mode:03o}): run chmod 600 {path}. If somebody may have read it, \
         remove a node and let it join again: that changes the key"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "the cluster's key {path} is damaged, in line {line}: put the file back from another copy of this node's, or move it away \
         and let the node join again with a token of another node"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Keyring {
    cluster_id: String,
    current: ClusterKey,
    /// Newest first.
    previous: Vec<ClusterKey>,
}

impl Keyring {
    /// A new cluster.
    pub(crate) fn generate() -> Result<Self> {
        // Hashed, so that nobody can choose the id of another cluster.
        let origin = Zeroizing::new(random_bytes::<ORIGIN_BYTES>()?);
        let hash = Sha256::new().chain_update(b"debros cluster id v1").chain_update(*origin);
        let cluster_id = hex::encode(&hash.finalize()[..ORIGIN_BYTES]);
        Ok(Self { cluster_id, current: ClusterKey::generate(1)?, previous: Vec::new() })
    }

    /// What a new node was given.
    pub(crate) fn joined(cluster_id: &str, key: ClusterKey) -> Result<Self> {
        hex::decode::<ORIGIN_BYTES>(cluster_id)
            .ok_or_else(|| Error::invalid("what should be a cluster's id is none"))?;
        Ok(Self { cluster_id: cluster_id.to_owned(), current: key, previous: Vec::new() })
    }

    /// The cluster's public id. It stays when the key changes.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub(crate) fn current(&self) -> &ClusterKey {
        &self.current
    }

    /// The public ids of all keys, the present one first.
    pub(crate) fn key_ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys().map(ClusterKey::id)
    }

    /// All keys, the present one first.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &ClusterKey> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    /// With another key in place of the present one; `None` when it does not replace that.
    pub(crate) fn with_key(&self, key: ClusterKey) -> Option<Self> {
        if !key.replaces(&self.current) {
            return None;
        }
        let previous = self.keys().take(MAX_PREVIOUS).cloned().collect();
        Some(Self { cluster_id: self.cluster_id.clone(), current: key, previous })
    }

    /// With a new key.
    pub(crate) fn with_new_key(&self) -> Result<Self> {
        let key = ClusterKey::generate(self.current.epoch().saturating_add(1))?;
        self.with_key(key).ok_or_else(|| Error::internal("the next key has no higher number"))
    }

    /// With a new key, and none of those before: who holds only them is not recognised any more.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn renewed(&self) -> Result<Self> {
        Ok(Self { previous: Vec::new(), ..self.with_new_key()? })
    }

    /// Reads the file; `None` when there is none: the node is part of no cluster.
    ///
    /// # Errors
    /// When it cannot be read, may be read by others, or holds something else.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, ClusterKeyError> {
        let io = |source| ClusterKeyError::Io { path: path.to_owned(), action: "read", source };
        let metadata = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.map_err(io)?,
        };
        if let Some(mode) = durable_file::exposed_mode(&metadata) {
            return Err(ClusterKeyError::Exposed { path: path.to_owned(), mode });
        }
        let text = Zeroizing::new(regular_file::read_to_string(path).map_err(io)?);
        let damaged = |line| ClusterKeyError::Damaged { path: path.to_owned(), line };
        Self::parse(&text).map(Some).map_err(damaged)
    }

    /// Writes the file of a new cluster or of a new node; never in place of another.
    ///
    /// # Errors
    /// When there is one, or it cannot be written.
    pub(crate) fn create(&self, path: &Path) -> Result<(), ClusterKeyError> {
        durable_file::create_private(path, self.to_text().as_bytes())
            .map_err(|source| ClusterKeyError::write_failed(path, source))
    }

    /// Writes the file in place of the one before.
    ///
    /// # Errors
    /// When it cannot be written; then the one before stays.
    pub(crate) fn replace(&self, path: &Path) -> Result<(), ClusterKeyError> {
        durable_file::replace(path, self.to_text().as_bytes(), FileReaders::Owner)
            .map_err(|source| ClusterKeyError::write_failed(path, source))
    }

    fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(format!("{HEADER}cluster {}\n", self.cluster_id));
        for (word, key) in
            std::iter::once("key").chain(std::iter::repeat("previous")).zip(self.keys())
        {
            let secret = Zeroizing::new(hex::encode(key.secret()));
            text.push_str(&format!("{word} {} {}\n", key.epoch(), *secret));
        }
        text
    }

    /// Reads the file's text; else the number of the line that is wrong.
    fn parse(text: &str) -> Result<Self, usize> {
        let (mut cluster_id, mut current, mut previous) = (None, None, Vec::new());
        for (index, line) in text.lines().enumerate() {
            let wrong = index + 1;
            let words: Vec<&str> = line.split_whitespace().collect();
            let key = |epoch: &str, secret: &str| {
                let secret = hex::decode(secret).ok_or(wrong)?;
                Ok::<_, usize>(ClusterKey::from_parts(epoch.parse().map_err(|_| wrong)?, secret))
            };
            match words[..] {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["cluster", id] if hex::decode::<ORIGIN_BYTES>(id).is_some() => {
                    cluster_id = Some(id.to_owned());
                }
                ["key", epoch, secret] => current = Some(key(epoch, secret)?),
                ["previous", epoch, secret] => previous.push(key(epoch, secret)?),
                _ => return Err(wrong),
            }
        }
        match (cluster_id, current) {
            (Some(cluster_id), Some(current)) => Ok(Self { cluster_id, current, previous }),
            _ => Err(text.lines().count() + 1),
        }
    }
}

impl ClusterKeyError {
    fn write_failed(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action: "written", source }
    }

    /// As the error of a call. The path is the operator's affair.
    pub(crate) fn into_call_error(self) -> Error {
        tracing::error!(error = %self, "the cluster's key could not be kept");
        Error::internal("the cluster's key could not be kept on this node; its log says more")
    }
}

#[cfg(test)]
mod tests {
    use super::{ClusterKeyError, Keyring, MAX_PREVIOUS};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_file_is_the_owners_alone_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        assert_eq!(Keyring::load(&path).unwrap(), None);
        let made = Keyring::generate().unwrap();
        made.create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Keyring::load(&path).unwrap().as_ref(), Some(&made));
        assert!(Keyring::generate().unwrap().create(&path).is_err(), "never in place of another");
        let next = made.with_new_key().unwrap();
        next.replace(&path).unwrap();
        let read = Keyring::load(&path).unwrap().unwrap();
        assert_eq!(read, next);
        assert_eq!(read.cluster_id(), made.cluster_id(), "the cluster is the same");
        assert_eq!(read.keys().nth(1), Some(made.current()));
    }

    #[test]
    fn a_damaged_or_exposed_file_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        Keyring::generate().unwrap().create(&path).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keyring::load(&path).unwrap_err();
        assert!(matches!(error, ClusterKeyError::Exposed { mode: 0o640, .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let cut = &whole[..whole.len() - 5];
        for (text, line) in [(cut, 3), ("", 1), ("cluster x\n", 1), ("key 1\n", 1)] {
            fs::write(&path, text).unwrap();
            let error = Keyring::load(&path).unwrap_err();
            assert!(
                matches!(error, ClusterKeyError::Damaged { line: at, .. } if at == line),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn replaced_keys_are_kept_up_to_a_number() {
        let mut ring = Keyring::generate().unwrap();
        let first = ring.current().clone();
        for _ in 0..20 {
            ring = ring.with_new_key().unwrap();
        }
        assert_eq!(ring.keys().count(), MAX_PREVIOUS + 1);
        assert_eq!(ring.current().epoch(), 21);
        assert!(ring.with_key(first).is_none(), "an old key replaces nothing");
        let renewed = ring.renewed().unwrap();
        assert_eq!((renewed.keys().count(), renewed.current().epoch()), (1, 22));
        assert_eq!(renewed.cluster_id(), ring.cluster_id());
    }
}
