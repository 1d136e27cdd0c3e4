//! Taking a backup.

use super::manifest::{Manifest, ManifestEntry, SYSTEM_FILE};
use super::{checksum_file, copy_pages, exclusive_maintenance};
use crate::embedded::conn::SqliteConnection;
use crate::embedded::copy_error::{map_copy_error, map_io_error};
use crate::embedded::data_folder::{create_private_folder, sync_folder};
use crate::embedded::database_manager::DatabaseManager;
use crate::embedded::export_limiter::check_disk_space;
use crate::embedded::integrity::{self, CheckDepth};
use crate::{BackupInfo, ProgressFn};
use debros_proto::time::Utc;
use debros_proto::{Code, Error, Namespace, Result, now_ms};
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File};
use std::path::Path;

const PARTIAL: &str = ".partial";

/// Copies every database into a new folder, verifies the copies, and removes the oldest backups
/// over the number kept. Blocks.
pub(in crate::embedded) fn create_backup(
    databases: &DatabaseManager,
    progress: &ProgressFn,
) -> Result<BackupInfo> {
    let _alone = exclusive_maintenance(databases, "a backup")?;
    databases.check_open()?;
    // It would be of a half state, and in time take the place of the very backup that is to be put
    // back.
    if let Some(begun) = databases
        .folder
        .interrupted_restore()
        .map_err(|error| map_io_error(databases.folder.path(), &error))?
    {
        return Err(Error::new(
            Code::Conflict,
            format!(
                "the restore of {begun} was begun and is not finished: restore again, or start the node again, before"
            ),
        ));
    }
    let backup_dir = &databases.shared.config.backup_dir;
    create_private_folder(backup_dir).map_err(|error| map_io_error(backup_dir, &error))?;
    remove_partial(backup_dir);
    check_disk_space(backup_dir, databases.shared.sizes.total(), "the backup")?;
    let created_at = now_ms();
    let name = new_name(backup_dir, created_at);
    let partial = backup_dir.join(format!("{name}{PARTIAL}"));
    match copy_databases(databases, &partial, created_at, progress) {
        Ok(()) => {}
        Err(error) => {
            // The error is more interesting than what stays behind, which the next backup removes.
            let _ = fs::remove_dir_all(&partial);
            return Err(error);
        }
    }
    let folder = backup_dir.join(&name);
    fs::rename(&partial, &folder)
        .and_then(|()| sync_folder(backup_dir))
        .map_err(|error| map_io_error(&folder, &error))?;
    let (_, info) = Manifest::read(backup_dir, &name)?;
    prune_backups(backup_dir, databases.shared.config.backups_kept.max(1), info.missing.is_empty());
    Ok(info)
}

/// The backups that are whole, newest first.
pub(in crate::embedded) fn list_backups(backup_dir: &Path) -> Result<Vec<BackupInfo>> {
    let mut backups = Vec::new();
    for name in backup_names(backup_dir)? {
        match Manifest::read(backup_dir, &name) {
            Ok((_, info)) => backups.push(info),
            Err(error) => tracing::warn!(backup = name, %error, "a backup cannot be read"),
        }
    }
    Ok(backups)
}

/// The copies of all databases, and their manifest, on the disk.
fn copy_databases(
    databases: &DatabaseManager,
    partial: &Path,
    created_at: i64,
    progress: &ProgressFn,
) -> Result<()> {
    let ns = partial.join("ns");
    create_private_folder(&ns).map_err(|error| map_io_error(&ns, &error))?;
    let namespaces = databases
        .list_namespaces()
        .map_err(|error| map_io_error(databases.folder.path(), &error))?;
    // Each byte is copied and then read again; the databases may grow meanwhile.
    let all = 2 * databases.shared.sizes.total().max(1);
    let mut done = 0;
    let mut on_bytes = |bytes: u64| {
        done += bytes;
        progress(done.min(all - 1), all);
    };
    // Copies are made of what is under the names.
    databases.system.check_in_place()?;
    let system = SqliteConnection::reader(databases.system.path()).map_err(map_copy_error)?;
    let mut files =
        vec![copy_database(databases, &system, partial, SYSTEM_FILE.to_owned(), &mut on_bytes)?];
    drop(system);
    let mut missing = Vec::new();
    for namespace in namespaces {
        match copy_namespace(databases, partial, &namespace, &mut on_bytes) {
            Ok(copied) => files.push(copied),
            Err(error) if is_node_failure(error.code) => return Err(error),
            Err(error) => {
                databases.check_open()?;
                tracing::error!(%namespace, error = %error.message, "a namespace cannot be backed up: the backup is without it");
                let _ = fs::remove_file(partial.join(namespace_file(&namespace)));
                databases.note_damage(&namespace, &Err::<(), _>(error));
                missing.push(namespace);
            }
        }
    }
    Manifest::new(created_at, files, &missing).write(partial)?;
    sync_folder(&ns)
        .and_then(|()| sync_folder(partial))
        .map_err(|error| map_io_error(partial, &error))?;
    progress(all, all);
    Ok(())
}

/// Whether what kept a namespace from being copied is the node's, and not the namespace's.
fn is_node_failure(code: Code) -> bool {
    matches!(code, Code::DiskFull | Code::Overloaded)
}

fn namespace_file(namespace: &Namespace) -> String {
    format!("ns/{namespace}.db")
}

fn copy_namespace(
    databases: &DatabaseManager,
    partial: &Path,
    namespace: &Namespace,
    on_bytes: impl FnMut(u64),
) -> Result<ManifestEntry> {
    // Held open, so that it is not closed under the copy. One that does not open, because its
    // schema cannot be loaded, say, is copied all the same: the copy shows whether the file is
    // whole.
    let open = databases.open_namespace(namespace);
    databases.check_not_lost(namespace)?;
    if let Ok(database) = &open {
        database.check_in_place()?;
    }
    let source = SqliteConnection::reader(&databases.folder.namespace_path(namespace))
        .map_err(map_copy_error)?;
    copy_database(databases, &source, partial, namespace_file(namespace), on_bytes)
}

fn copy_database(
    databases: &DatabaseManager,
    source: &SqliteConnection,
    partial: &Path,
    path: String,
    mut on_bytes: impl FnMut(u64),
) -> Result<ManifestEntry> {
    let target = partial.join(&path);
    copy_pages(source, &target, || databases.check_open(), &mut on_bytes)?;
    let db = Connection::open_with_flags(&target, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(map_copy_error)?;
    if let Some(findings) =
        integrity::check_integrity(&db, CheckDepth::Full).map_err(map_copy_error)?
    {
        tracing::error!(path, findings, "a database is damaged, as the copy of it shows");
        return Err(Error::new(
            Code::Corrupt,
            format!(
                "{path} is damaged and cannot be backed up; older backups were kept, restore one of them"
            ),
        ));
    }
    drop(db);
    File::open(&target)
        .and_then(|file| file.sync_all())
        .map_err(|error| map_io_error(&target, &error))?;
    let (sha256, size) =
        checksum_file(&target, on_bytes).map_err(|error| map_io_error(&target, &error))?;
    Ok(ManifestEntry { path, size, sha256 })
}

/// The names of finished backups, newest first.
fn backup_names(backup_dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(backup_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(map_io_error(backup_dir, &error)),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_backup_name(name))
        .collect();
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names)
}

/// Removes the oldest backups over the number kept. What is missing in a new one may be in the old
/// ones only: a backup that `is_whole` counts all, another only those that are not whole either.
fn prune_backups(backup_dir: &Path, kept: usize, is_whole: bool) {
    let Ok(mut names) = backup_names(backup_dir) else { return };
    if !is_whole {
        names.retain(|name| {
            Manifest::read(backup_dir, name).is_ok_and(|(_, info)| !info.missing.is_empty())
        });
    }
    for name in names.iter().skip(kept) {
        if let Err(error) = fs::remove_dir_all(backup_dir.join(name)) {
            tracing::warn!(backup = name, %error, "an old backup cannot be removed");
        }
    }
}

/// What an interrupted backup left.
fn remove_partial(backup_dir: &Path) {
    let Ok(entries) = fs::read_dir(backup_dir) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let is_partial =
            name.to_str().and_then(|name| name.strip_suffix(PARTIAL)).is_some_and(is_backup_name);
        if is_partial && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "a broken-off backup cannot be removed");
        }
    }
}

/// Whether this is the form of a backup's name, `YYYYMMDDTHHMMSSmmmZ`.
pub fn is_backup_name(name: &str) -> bool {
    name.len() == 19
        && name.bytes().enumerate().all(|(index, byte)| match index {
            8 => byte == b'T',
            18 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        })
}

/// The name of a backup made now; a millisecond later when there is one already.
fn new_name(backup_dir: &Path, mut at_ms: i64) -> String {
    loop {
        let name = format_name(at_ms);
        if !backup_dir.join(&name).exists() {
            return name;
        }
        at_ms += 1;
    }
}

/// `YYYYMMDDTHHMMSSmmmZ`, so that names sort by time.
fn format_name(at_ms: i64) -> String {
    let Utc { year, month, day, hour, minute, second, millisecond } = Utc::from_ms(at_ms);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}{millisecond:03}Z")
}

#[cfg(test)]
mod tests {
    use super::{format_name, is_backup_name};

    #[test]
    fn names_are_utc_times() {
        for (at_ms, name) in
            [(0, "19700101T000000000Z"), (1_767_225_599_123, "20251231T235959123Z")]
        {
            assert_eq!(format_name(at_ms), name);
            assert!(is_backup_name(name));
        }
        for name in [
            "",
            ".",
            "..",
            "19700101T000000000Z/",
            "19700101T0000000000",
            "19700101T00000000éZ",
            "../../../../etc/pass",
        ] {
            assert!(!is_backup_name(name), "{name}");
        }
    }
}
