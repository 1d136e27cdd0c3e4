//! The file with the key that this node signs access tokens with.

use debros_auth::token::SigningKey;
use debros_proto::durable_file::{self, FileReaders};
use std::io;
use std::path::{Path, PathBuf};

/// The file's name in the data folder.
const FILE_NAME: &str = "token.key";

/// Why there is no key to sign access tokens with.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The file cannot be read or made.
    #[error("the token key {path} cannot be {action}: {source}")]
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
        "the token key {path} may be read by other users (mode {mode:o}): whoever read it can sign in as anybody. Run \
         chmod 600 {path}, and network-node rotate-key once the node runs"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "the token key {path} is damaged: it has to hold 64 hex digits. Put the file back, or move it away: the node \
         then makes a new key, and tokens signed with the old one stay valid"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
}

/// Where the key is.
pub(super) fn key_path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE_NAME)
}

/// Reads the key; `None` when there is no file. A damaged file is never replaced silently.
pub(super) fn load_key(path: &Path) -> Result<Option<SigningKey>, TokenKeyError> {
    let failed = |source| TokenKeyError::Io { path: path.to_owned(), action: "read", source };
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(failed)?,
    };
    if let Some(mode) = durable_file::exposed_mode(&metadata) {
        return Err(TokenKeyError::Exposed { path: path.to_owned(), mode });
    }
    let damaged = || TokenKeyError::Damaged { path: path.to_owned() };
    let text = match debros_proto::regular_file::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged()),
        text => text.map_err(failed)?,
    };
    SigningKey::from_hex(text.trim()).map(Some).map_err(|_| damaged())
}

/// Puts a key into the file.
pub(super) fn store_key(path: &Path, key: &SigningKey) -> Result<(), TokenKeyError> {
    durable_file::replace(path, key.to_hex().as_bytes(), FileReaders::Owner)
        .map_err(|source| TokenKeyError::Io { path: path.to_owned(), action: "written", source })
}

#[cfg(test)]
mod tests {
    use super::{TokenKeyError, key_path, load_key, store_key};
    use debros_auth::token::SigningKey;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_kept_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = key_path(dir.path());
        assert!(load_key(&file).unwrap().is_none());
        let key = SigningKey::from_seed([7; 32]).unwrap();
        store_key(&file, &key).unwrap();
        assert_eq!(load_key(&file).unwrap().unwrap().public_key(), key.public_key());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_or_exposed_key_is_an_error_that_says_what_to_do_and_tells_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let file = key_path(dir.path());
        store_key(&file, &SigningKey::from_seed([7; 32]).unwrap()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let exposed = load_key(&file).unwrap_err();
        assert!(matches!(exposed, TokenKeyError::Exposed { mode: 0o640, .. }));
        assert!(exposed.to_string().contains("chmod 600"));
        for content in ["", "0707", &"g".repeat(64)] {
            std::fs::write(&file, content).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            let damaged = load_key(&file).unwrap_err();
            assert!(matches!(damaged, TokenKeyError::Damaged { .. }));
            assert!(content.is_empty() || !damaged.to_string().contains(content));
            assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
        }
    }
}
