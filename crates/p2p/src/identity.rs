//! The key that makes this peer known to others, kept in one file.
//!
//! The file holds the libp2p protobuf encoding of a private key, as go-libp2p marshals it, so a key can move between
//! the two. A file that can not be used is an error: a new key would be a new peer id, and everyone who knows the old
//! one would lose this node.

use libp2p::identity::{KeyType, Keypair};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// The longest key file that is read: an Ed25519 key takes 68 bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is not a private key, or a damaged one.
    #[error(
        "the identity file {} is damaged ({reason}). It was left as it is. Put a backup of it in its place, or, if this \
         node may become a new peer with a new peer id, move the file away and start again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file holds a key of another kind.
    #[error(
        "the identity file {} holds a key of the type {found}: only Ed25519 keys are used. It was left as it is. Put an \
         Ed25519 key in its place, or move the file away to get a new one",
        path.display()
    )]
    OtherType {
        /// The file.
        path: PathBuf,
        /// The key's type.
        found: String,
    },
    /// Others on this machine can read the key.
    #[error(
        "the identity file {} can be read by others (mode {mode:04o}): run `chmod 600 {}`, and think about a new key if \
         somebody may have copied it",
        path.display(), path.display()
    )]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file can not be read or written.
    #[error("can not {action} the identity file {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Reads the key, or makes one when there is no file: Ed25519, mode 0600, whole on the disk before this returns.
///
/// # Errors
/// When the file is there and can not be used as it is, or can not be written. It is never replaced.
pub fn load_or_create(path: &Path) -> Result<Keypair, IdentityError> {
    match File::open(path) {
        Ok(file) => load(path, &file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        Err(error) => Err(IdentityError::Io { action: "read", path: path.into(), error }),
    }
}

fn load(path: &Path, file: &File) -> Result<Keypair, IdentityError> {
    let failed = |error| IdentityError::Io { action: "read", path: path.into(), error };
    check_mode(path, &file.metadata().map_err(failed)?)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    let damaged = |reason: &str| IdentityError::Damaged { path: path.into(), reason: reason.into() };
    if bytes.is_empty() {
        return Err(damaged("it is empty"));
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(damaged("it is far longer than a key"));
    }
    if let Some(found) = other_type(&bytes) {
        return Err(IdentityError::OtherType { path: path.into(), found: found.into() });
    }
    let key = Keypair::from_protobuf_encoding(&bytes)
        .map_err(|_| damaged(&format!("its {} bytes are not an encoded private key", bytes.len())))?;
    match key.key_type() {
        KeyType::Ed25519 => Ok(key),
        other => Err(IdentityError::OtherType { path: path.into(), found: format!("{other:?}") }),
    }
}

/// The name of another key type that the encoding announces in its first field.
fn other_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x08, 0, ..] => Some("RSA"),
        [0x08, 2, ..] => Some("Secp256k1"),
        [0x08, 3, ..] => Some("ECDSA"),
        _ => None,
    }
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(IdentityError::Readable { path: path.into(), mode }) }
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &fs::Metadata) -> Result<(), IdentityError> {
    Ok(())
}

fn create(path: &Path) -> Result<Keypair, IdentityError> {
    let key = Keypair::generate_ed25519();
    // An Ed25519 key can always be encoded; said anyway rather than assumed.
    let bytes = key.to_protobuf_encoding().map_err(|error| IdentityError::Io {
        action: "encode",
        path: path.into(),
        error: io::Error::other(error),
    })?;
    match publish(path, &bytes) {
        Ok(()) => Ok(key),
        // Somebody else was faster: theirs is the identity.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load_or_create(path),
        Err(error) => Err(IdentityError::Io { action: "write", path: path.into(), error }),
    }
}

/// Writes a new file in one step: never half there, never over a file that is there, gone after no crash.
fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = crate::files::folder_of(path);
    let temporary = crate::files::temporary_beside(path);
    let result = (|| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // A link, unlike a rename, fails when the file is there.
        match fs::hard_link(&temporary, path) {
            Ok(()) => fs::remove_file(&temporary),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // A file system without links. The folder's lock keeps other nodes away.
            Err(_) => fs::rename(&temporary, path),
        }
    })();
    if result.is_err() {
        // A key that nobody uses must not lie around; the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    result?;
    crate::files::sync_folder(folder)
}
