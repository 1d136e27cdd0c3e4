//! The wallet of a development node: a private key in the data folder, made at the first start and
//! kept. Only `--dev` makes one; it is worth as much as what stands on the node.

use debros_auth::PrivateKey;
use debros_proto::durable_file;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const FILE: &str = "dev-wallet.key";

/// Why there is no development wallet.
#[derive(Debug, thiserror::Error)]
pub(super) enum DevWalletError {
    #[error("the development wallet {path} cannot be {action}: {source}")]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    #[error(
        "the development wallet {path} may be read by other users (mode {mode:03o}): run chmod 600 {path}"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error(
        "the development wallet {path} is damaged: it has to hold 64 hex digits. Move it away to get a new one"
    )]
    Damaged { path: PathBuf },
}

/// Reads the wallet, or makes one. A damaged file is never replaced.
pub(super) fn load_or_create(data_dir: &Path) -> Result<PrivateKey, DevWalletError> {
    let path = data_dir.join(FILE);
    let io = |action| {
        let path = path.clone();
        move |source| DevWalletError::Io { path, action, source }
    };
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return create(&path).map_err(io("made"));
        }
        Err(error) => return Err(io("read")(error)),
    };
    if let Some(mode) = durable_file::exposed_mode(&metadata) {
        return Err(DevWalletError::Exposed { path, mode });
    }
    let text =
        Zeroizing::new(debros_proto::regular_file::read_to_string(&path).map_err(io("read"))?);
    PrivateKey::from_hex(text.trim()).map_err(|_| DevWalletError::Damaged { path: path.clone() })
}

fn create(path: &Path) -> io::Result<PrivateKey> {
    let key = PrivateKey::generate().map_err(|error| io::Error::other(error.to_string()))?;
    let text = Zeroizing::new(format!("{}\n", key.to_hex().as_str()));
    durable_file::create_private(path, text.as_bytes())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::{DevWalletError, FILE, fs, load_or_create};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_wallet_is_made_once_kept_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let wallet = load_or_create(dir.path()).unwrap().wallet();
        assert_eq!(load_or_create(dir.path()).unwrap().wallet(), wallet);
        let path = dir.path().join(FILE);
        let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        set_mode(0o640);
        let error = load_or_create(dir.path()).unwrap_err();
        assert!(
            matches!(error, DevWalletError::Exposed { .. })
                && error.to_string().contains("chmod 600"),
            "{error}"
        );
        set_mode(0o600);
        fs::write(&path, "secret").unwrap();
        let error = load_or_create(dir.path()).unwrap_err();
        assert!(
            matches!(error, DevWalletError::Damaged { .. })
                && !error.to_string().contains("secret"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
    }
}
