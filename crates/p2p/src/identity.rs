//! The key that makes this peer known to others, kept in one file.
//!
//! The file holds the libp2p protobuf encoding of a private key, as go-libp2p marshals it, so a key
//! can move between the two. A file that cannot be used is an error: a new key would be a new peer
//! id, and all peers that know the old one would lose this node.

use debros_proto::durable_file;
use libp2p::identity::{KeyType, Keypair};
use std::fs::{self, File};
use std::io::{self, Read as _};
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
    /// The file cannot be read or written.
    #[error("cannot {action} the identity file {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Reads the key, or makes one when there is no file: Ed25519, mode 0600, whole on the disk before
/// this returns.
///
/// # Errors
/// When the file is there and cannot be used as it is, or cannot be written. It is never replaced.
pub fn load_or_create(path: &Path) -> Result<Keypair, IdentityError> {
    match debros_proto::regular_file::open(path) {
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
    let damaged =
        |reason: &str| IdentityError::Damaged { path: path.into(), reason: reason.into() };
    if bytes.is_empty() {
        return Err(damaged("it is empty"));
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(damaged("it is far longer than a key"));
    }
    if let Some(found) = other_type(&bytes) {
        return Err(IdentityError::OtherType { path: path.into(), found: found.into() });
    }
    let key = Keypair::from_protobuf_encoding(&bytes).map_err(|_| {
        damaged(&format!("its {} bytes are not an encoded private key", bytes.len()))
    })?;
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

fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), IdentityError> {
    match durable_file::exposed_mode(metadata) {
        None => Ok(()),
        Some(mode) => Err(IdentityError::Readable { path: path.into(), mode }),
    }
}

fn create(path: &Path) -> Result<Keypair, IdentityError> {
    let key = Keypair::generate_ed25519();
    // An Ed25519 key can always be encoded; said anyway rather than assumed.
    let bytes = key.to_protobuf_encoding().map_err(|error| IdentityError::Io {
        action: "encode",
        path: path.into(),
        error: io::Error::other(error),
    })?;
    match durable_file::create_private(path, &bytes) {
        Ok(()) => Ok(key),
        // Somebody else was faster: theirs is the identity.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load_or_create(path),
        Err(error) => Err(IdentityError::Io { action: "write", path: path.into(), error }),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::{IdentityError, load_or_create};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    /// What go-libp2p's `crypto.MarshalPrivateKey` gives for the Ed25519 key of RFC 8032, section
    /// 7.1, test 1: field 1, the key's type (1 = Ed25519), field 2, the 32 bytes of the seed and
    /// the 32 bytes of the public key.
    const GO_FILE: &str = "08011240\
        9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\
        d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn file(folder: &Path, content: &[u8], mode: u32) -> PathBuf {
        let path = folder.join("identity.key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_go_libp2p_file_loads_and_is_what_would_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), &bytes(GO_FILE), 0o600);
        let key = load_or_create(&path).unwrap();
        assert_eq!(key.to_protobuf_encoding().unwrap(), bytes(GO_FILE));
        let public = key.public().try_into_ed25519().unwrap().to_bytes();
        assert_eq!(public[..], bytes(GO_FILE)[36..]);
        assert_eq!(
            key.public().to_peer_id().to_string(),
            "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV"
        );
    }

    #[test]
    fn a_new_identity_is_kept_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let made = load_or_create(&path).unwrap().public();
        assert_eq!(load_or_create(&path).unwrap().public(), made);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, 68));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn those_who_start_at_the_same_time_agree_on_one_identity() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || load_or_create(&path).unwrap().public().to_peer_id())
            })
            .collect();
        let ids: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }

    /// Lesson 34: a damaged key file was replaced by a new key, and the node was a stranger to all
    /// who knew it.
    #[test]
    fn lesson_34_a_damaged_file_is_an_error_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let good = bytes(GO_FILE);
        let mut flipped = good.clone();
        flipped[40] ^= 1;
        for bad in [
            &[][..],
            &good[..67],
            &good[..10],
            b"-----BEGIN PRIVATE KEY-----",
            &flipped,
            &[7; 5000],
        ] {
            let path = file(folder.path(), bad, 0o600);
            let error = load_or_create(&path).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error:?}");
            assert!(error.to_string().contains("identity.key"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
    }

    #[test]
    fn a_key_of_another_type_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (number, name) in [(0, "RSA"), (2, "Secp256k1"), (3, "ECDSA")] {
            let mut other = bytes(GO_FILE);
            other[1] = number;
            let path = file(folder.path(), &other, 0o600);
            match load_or_create(&path).unwrap_err() {
                IdentityError::OtherType { found, .. } => assert_eq!(found, name),
                error => panic!("{error:?}"),
            }
            assert_eq!(fs::read(&path).unwrap(), other);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o660, 0o777] {
            let path = file(folder.path(), &bytes(GO_FILE), mode);
            let error = load_or_create(&path).unwrap_err().to_string();
            assert!(
                error.contains("chmod 600") && error.contains(&format!("{mode:04o}")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/identity.key");
        let error = load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Io { .. }), "{error:?}");
        assert!(error.to_string().contains("none/identity.key"), "{error}");
        let error = load_or_create(folder.path()).unwrap_err();
        assert!(error.to_string().contains("read"), "{error}");
    }
}
