//! The list of a backup's files with their checksums, `manifest.json`.

use super::checksum_file;
use crate::BackupInfo;
use crate::embedded::copy_error::map_io_error;
use debros_proto::{Code, Error, Namespace, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The version of this form.
const FORMAT: u32 = 1;
const MANIFEST_FILE: &str = "manifest.json";
/// The name of the system's database in a backup.
pub(super) const SYSTEM_FILE: &str = "system.db";

/// What a backup consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// Milliseconds since the Unix epoch.
    pub(super) created_at: i64,
    pub(super) files: Vec<ManifestEntry>,
    /// Namespaces that were there and could not be copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) missing: Vec<String>,
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ManifestEntry {
    /// `system.db` or `ns/<namespace>.db`.
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) sha256: String,
}

impl Manifest {
    pub(super) fn new(created_at: i64, files: Vec<ManifestEntry>, missing: &[Namespace]) -> Self {
        Self {
            format: FORMAT,
            created_at,
            files,
            missing: missing.iter().map(Namespace::to_string).collect(),
        }
    }

    /// The namespaces that were there and could not be copied.
    pub(super) fn missing_namespaces(&self) -> impl Iterator<Item = Namespace> {
        self.missing.iter().filter_map(|name| Namespace::new(name).ok())
    }

    /// Writes it into a backup's folder, durable.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST_FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|error| {
            tracing::error!(%error, "a manifest cannot be written");
            Error::internal("the backup's manifest cannot be written")
        })?;
        crate::embedded::data_folder::write_synced(&path, &text)
            .map_err(|error| map_io_error(&path, &error))
    }

    /// Reads the manifest of a backup, and describes the backup.
    ///
    /// # Errors
    /// `not_found` when there is none, `database_corrupt` when it cannot be understood.
    pub(super) fn read(backup_dir: &Path, name: &str) -> Result<(Manifest, BackupInfo)> {
        let path = backup_dir.join(name).join(MANIFEST_FILE);
        let text = match debros_proto::regular_file::read(&path) {
            Ok(text) => text,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(Error::new(
                    Code::NotFound,
                    format!("there is no backup named \"{name}\""),
                ));
            }
            Err(error) => return Err(map_io_error(&path, &error)),
        };
        let damaged = |why: &str| {
            Err(Error::new(
                Code::Corrupt,
                format!("backup {name}, {MANIFEST_FILE}: {why}; nothing was changed"),
            ))
        };
        let manifest: Manifest = match serde_json::from_slice(&text) {
            Ok(manifest) => manifest,
            Err(_) => return damaged("it cannot be read"),
        };
        if manifest.format != FORMAT {
            return damaged("it is of a form that this version does not know");
        }
        let has_system = manifest.files.iter().filter(|file| file.path == SYSTEM_FILE).count() == 1;
        if !has_system
            || !manifest
                .files
                .iter()
                .all(|file| file.path == SYSTEM_FILE || file.namespace().is_some())
        {
            return damaged("it names files that are not databases of a node");
        }
        let info = BackupInfo {
            name: name.to_owned(),
            created_at: manifest.created_at,
            size: text.len() as u64 + manifest.files.iter().map(|file| file.size).sum::<u64>(),
            checksum: debros_proto::hex::encode(&Sha256::digest(&text)),
            missing: manifest.missing_namespaces().collect(),
        };
        Ok((manifest, info))
    }
}

impl ManifestEntry {
    /// The namespace whose database this is; `None` for the system's, and for a path that is no
    /// database's.
    pub(super) fn namespace(&self) -> Option<Namespace> {
        Namespace::new(self.path.strip_prefix("ns/")?.strip_suffix(".db")?).ok()
    }

    /// Where it is in a backup's folder.
    pub(super) fn path_in(&self, folder: &Path) -> PathBuf {
        folder.join(&self.path)
    }

    /// Compares the file with its checksum. `on_bytes` gets each part's bytes.
    ///
    /// # Errors
    /// `database_corrupt`, naming the file.
    pub(super) fn verify_checksum(&self, folder: &Path, on_bytes: impl FnMut(u64)) -> Result<()> {
        let path = self.path_in(folder);
        match checksum_file(&path, on_bytes) {
            Ok((sum, size)) if sum == self.sha256 && size == self.size => Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(map_io_error(&path, &error))
            }
            _ => {
                let name = folder.file_name().unwrap_or_default().to_string_lossy();
                Err(Error::new(
                    Code::Corrupt,
                    format!(
                        "backup {name}: {} does not have the checksum of the manifest; nothing was changed",
                        self.path
                    ),
                ))
            }
        }
    }
}
