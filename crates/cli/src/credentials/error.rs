//! Why the stored credentials cannot be used.

use std::io;
use std::path::{Path, PathBuf};

/// Why the stored credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialFileError {
    /// There is no home folder.
    #[error(
        "there is no home folder to keep credentials in: set HOME, or set DEBROS_API_KEY instead"
    )]
    NoHome,
    /// The file system refuses.
    #[error("{path} cannot be {action}: {source}")]
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
    #[error(
        "{path} is not a credentials file of this version ({reason}): move it away to start a new one"
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another program holds the lock for long.
    #[error("{path} is held by another network-cli or network-node: try again when that is done")]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
}

pub(super) fn io_error(
    path: &Path,
    action: &'static str,
    source: io::Error,
) -> CredentialFileError {
    CredentialFileError::Io { path: path.to_owned(), action, source }
}
