//! The operator's credential: a file in the data folder. Whoever may read it runs the node.

use debros_proto::durable_file;
use std::path::{Path, PathBuf};

/// The file's name in the data folder.
pub const FILE_NAME: &str = "operator.key";
const PREFIX: &str = "op_";
/// 256 bits in hex.
const SECRET_CHARS: usize = 64;

/// Why there is no operator credential.
#[derive(Debug, thiserror::Error)]
pub enum OperatorKeyError {
    /// The file cannot be read or made.
    #[error("the operator key {path} cannot be {action}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// "read" or "made".
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Others may read the file.
    #[error(
        "the operator key {path} may be read by other users (mode {mode:o}): run chmod 600 {path}"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "the operator key {path} is damaged: it has to hold op_ and {SECRET_CHARS} hex digits. Put the file back, or move it away to get a new key"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
}

/// Reads the operator's credential, or makes one at first start.
///
/// # Errors
/// When the file cannot be read or made, may be read by others, or holds something else: a damaged
/// file is never replaced silently.
pub fn load_or_create(data_dir: &Path) -> Result<String, OperatorKeyError> {
    let path = data_dir.join(FILE_NAME);
    match load(&path) {
        Err(OperatorKeyError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            create(&path)
        }
        loaded => loaded,
    }
}

/// Reads an operator's credential.
///
/// # Errors
/// When the file cannot be read, may be read by others, or holds something else.
pub fn load(path: &Path) -> Result<String, OperatorKeyError> {
    let io = |source| OperatorKeyError::Io { path: path.to_owned(), action: "read", source };
    let metadata = std::fs::metadata(path).map_err(io)?;
    if let Some(mode) = durable_file::exposed_mode(&metadata) {
        return Err(OperatorKeyError::Exposed { path: path.to_owned(), mode });
    }
    let text = debros_proto::regular_file::read_to_string(path).map_err(io)?;
    let credential = text.trim();
    let fits = credential.strip_prefix(PREFIX).is_some_and(|secret| {
        secret.len() == SECRET_CHARS && secret.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if !fits {
        return Err(OperatorKeyError::Damaged { path: path.to_owned() });
    }
    Ok(credential.to_owned())
}

fn create(path: &Path) -> Result<String, OperatorKeyError> {
    let io = |source| OperatorKeyError::Io { path: path.to_owned(), action: "made", source };
    let mut secret = [0_u8; SECRET_CHARS / 2];
    getrandom::fill(&mut secret).map_err(|error| io(std::io::Error::other(error.to_string())))?;
    let credential = format!("{PREFIX}{}", crate::hex::encode(&secret));
    durable_file::create_private(path, credential.as_bytes()).map_err(io)?;
    Ok(credential)
}

#[cfg(test)]
mod tests {
    use super::{FILE_NAME, OperatorKeyError, load_or_create};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path()).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap(), first);
        let mode = std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_or_exposed_key_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load_or_create(dir.path()), Err(OperatorKeyError::Exposed { .. })));
        std::fs::write(&path, "op_short").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(load_or_create(dir.path()), Err(OperatorKeyError::Damaged { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "op_short");
    }
}
