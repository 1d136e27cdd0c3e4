//! Putting a backup back.
//!
//! Every file is replaced by its own writer thread in one transaction, so that each database is the old one or the new
//! one to whoever reads, and after a crash. Then the files go that the backup does not have. A marker with the backup's name lies in the folder until all are replaced:
//! the next start finishes what was begun. Who may act stays as it is (see `authority`).

use super::authority::SystemCopy;
use super::backup::is_name;
use super::manifest::{Copied, Manifest};
use super::{alone, copy, of_copy, of_io};
use crate::ProgressFn;
use crate::embedded::config::OpenError;
use crate::embedded::conn::Conn;
use crate::embedded::folder::sync_folder;
use crate::embedded::gate::Rights;
use crate::embedded::job::Undo;
use crate::embedded::queue::Flow;
use crate::embedded::store::{Store, Write};
use crate::embedded::stores::{FAR, Stores};
use crate::embedded::tenant;
use crate::migrations::MIGRATIONS;
use debros_proto::{Code, Error, Namespace, Result};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Verifies a backup and puts it in place of what is there. Blocks.
pub(in crate::embedded) fn restore(stores: &Stores, name: &str, progress: &ProgressFn) -> Result<()> {
    if !is_name(name) {
        return Err(Error::new(
            Code::NotFound,
            format!("there is no backup named \"{}\"", debros_proto::ids::excerpt(name)),
        ));
    }
    let _alone = alone(stores, "a restore")?;
    stores.check_open()?;
    // What is put back now would go when that deletion is finished.
    if let Some(namespace) = stores.doors.any_deleting() {
        return Err(Error::new(
            Code::Conflict,
            format!(
                "the namespace \"{namespace}\" is being deleted: restore when that is done; if it failed, delete it again or start \
                 the node again before"
            ),
        ));
    }
    let backup = Verified::new(stores, name, progress)?;
    let folder = &stores.folder;
    folder.begin_restore(name).map_err(|error| of_io(folder.path(), &error))?;
    backup.put_back(stores)?;
    folder.end_restore().map_err(|error| of_io(folder.path(), &error))
}

/// Finishes the restore that a crash or a stop interrupted, if there was one.
pub(in crate::embedded) fn finish_interrupted(stores: &Stores) -> Result<(), OpenError> {
    let folder = &stores.folder;
    let Some(name) = folder.restoring().map_err(|error| OpenError::io(folder.path(), error))? else {
        return Ok(());
    };
    tracing::warn!(backup = name, "a restore was interrupted; it is finished now");
    let finish = || {
        let nobody: ProgressFn = Box::new(|_, _| {});
        restore(stores, &name, &nobody).map_err(|error| OpenError::Restore {
            backup: name.clone(),
            message: format!(
                "{error}; to go on with the databases as they are, remove {} (those that were here before may lie in {})",
                folder.path().join("RESTORE").display(),
                folder.aside().display()
            ),
        })
    };
    // A thread of its own: the caller's may belong to a runtime, which must not be blocked.
    std::thread::scope(|scope| scope.spawn(finish).join()).unwrap_or_else(|_| {
        Err(OpenError::Restore { backup: name.clone(), message: "the node failed; its log has more".to_owned() })
    })
}

/// A backup whose checksums are right.
struct Verified<'a> {
    name: String,
    /// It was begun before, and broken off.
    again: bool,
    folder: PathBuf,
    manifest: Manifest,
    progress: &'a ProgressFn,
    all: u64,
}

impl<'a> Verified<'a> {
    fn new(stores: &Stores, name: &str, progress: &'a ProgressFn) -> Result<Self> {
        let backup_dir = &stores.shared.config.backup_dir;
        let (manifest, _) = Manifest::read(backup_dir, name)?;
        let folder = backup_dir.join(name);
        let bytes: u64 = manifest.files.iter().map(|file| file.size).sum();
        // Each byte is read to verify it, and then written.
        let all = 2 * bytes.max(1);
        let mut done = 0;
        for file in &manifest.files {
            file.verify(&folder, |bytes| {
                done += bytes;
                progress(done.min(all), all);
            })?;
        }
        // What is put back goes through the log first.
        let room = super::super::folder::available_space(stores.folder.path())
            .map_err(|error| of_io(stores.folder.path(), &error))?;
        // The system's database is changed in a copy before.
        let system = manifest.files.iter().filter(|file| file.namespace().is_none());
        let needed = bytes + system.map(|file| file.size).sum::<u64>();
        if room < needed {
            return Err(Error::new(
                Code::DiskFull,
                format!("the disk has {room} bytes left, putting the backup back takes {needed}; nothing was changed"),
            ));
        }
        for file in manifest.files.iter().filter(|file| file.namespace().is_none()) {
            check_age(&file.within(&folder))?;
        }
        let again = stores.folder.restoring().is_ok_and(|begun| begun.as_deref() == Some(name));
        Ok(Self { name: name.to_owned(), again, folder, manifest, progress, all })
    }

    fn put_back(&self, stores: &Stores) -> Result<()> {
        let mut done = self.all / 2;
        let mut restored: BTreeSet<Namespace> = self.manifest.files.iter().filter_map(Copied::namespace).collect();
        // The system's first: it tells which namespaces are not the backup's any more.
        for system in self.manifest.files.iter().filter(|file| file.namespace().is_none()) {
            stores.check_open()?;
            let copy = SystemCopy::of(&system.within(&self.folder), &stores.folder)?;
            if copy.is_of_this_network(&stores.folder.system())? {
                // What could not be copied stays as it is: its file is the only one.
                restored.extend(self.manifest.missing().filter(|missing| stores.has_database(missing)));
            } else {
                make_room(stores, &self.name, self.again)?;
            }
            let others = replace_system(stores, copy, &restored)?;
            restored.retain(|namespace| !others.contains(namespace));
            done += system.size;
            (self.progress)(done.min(self.all), self.all);
        }
        for file in &self.manifest.files {
            let Some(namespace) = file.namespace() else { continue };
            stores.check_open()?;
            if restored.contains(&namespace) {
                replace_namespace(stores, file.within(&self.folder), &namespace)?;
            }
            done += file.size;
            (self.progress)(done.min(self.all), self.all);
        }
        let namespaces = stores.remnants().map_err(|error| of_io(stores.folder.path(), &error))?;
        for namespace in namespaces.difference(&restored) {
            stores.remove(namespace)?;
        }
        stores.folder.sync_namespaces().map_err(|error| of_io(stores.folder.path(), &error))?;
        stores.doors.change_hands(false);
        (self.progress)(self.all, self.all);
        Ok(())
    }
}

/// Takes the present namespaces' files out of the way of another network's owners, whose backup is put back: a file under one
/// of their names is somebody else's. It may also be the only one there is, where `system.db` was lost and this is the same
/// operator's; so nothing is deleted, and `system.db` is copied. Nobody is served until the whole is done.
fn make_room(stores: &Stores, backup: &str, again: bool) -> Result<()> {
    let of_folder = |error| of_io(stores.folder.path(), &error);
    let aside = stores.folder.make_aside(backup, again).map_err(of_folder)?;
    stores.doors.change_hands(true);
    tracing::warn!(
        folder = %aside.display(),
        "the backup is of another network than the databases here: they are kept in this folder, and nobody uses them"
    );
    let system = aside.join("system.db");
    // Whole or not there.
    let partial = aside.join("system.partial");
    if !system.exists() {
        let _ = std::fs::remove_file(&partial);
        copy(&Conn::reader(&stores.folder.system()).map_err(of_copy)?, &partial, || stores.check_open(), |_| {})?;
        File::open(&partial)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&partial, &system))
            .map_err(of_folder)?;
    }
    let present = stores.remnants().map_err(of_folder)?;
    present.iter().try_for_each(|namespace| stores.set_aside(namespace, &aside))?;
    sync_folder(&aside).and_then(|()| stores.folder.sync_namespaces()).map_err(of_folder)
}

/// As [`replace`] for the file of a namespace. What can not be used of it, because a newer version made it, say, is nobody's
/// trouble but that namespace's: it comes back as it was copied, and whoever uses it is told why he can not.
fn replace_namespace(stores: &Stores, source: PathBuf, namespace: &Namespace) -> Result<()> {
    // A backup of an earlier version is brought up to date before it is put back.
    let copy = tenant::current_copy(&source, namespace, &stores.folder.tmp()).unwrap_or_else(|error| {
        tracing::error!(%namespace, error = %error.message, "a namespace of the backup is put back as it is");
        None
    });
    let source = copy.as_ref().map_or(source, |copy| copy.path().to_owned());
    let store = open_or_renew(stores, namespace)?;
    let (is_usable, ()) = replace(&store, move || Ok((source.clone(), ())))?;
    if is_usable {
        store.mark_damaged(false);
        return Ok(());
    }
    drop(store);
    stores.close_one(namespace)
}

/// A namespace's store. A file that does not open, for whatever reason, is no reason against replacing it: it is put aside.
fn open_or_renew(stores: &Stores, namespace: &Namespace) -> Result<std::sync::Arc<Store>> {
    match stores.open_in_place(namespace) {
        // What stops the node, and not the file alone.
        Err(error) if !matches!(error.code, Code::Overloaded | Code::DiskFull | Code::Unavailable) => {
            tracing::warn!(%namespace, error = %error.message, "a database that can not be opened is put aside");
            stores.put_aside(namespace).map_err(|error| of_io(stores.folder.path(), &error))?;
            stores.open_for_restore(namespace)
        }
        opened => opened,
    }
}

/// As [`replace`] for the system's database, where those who may act stay who they are. Returns the namespaces that are not
/// the backup's of their names, whose databases are not put back.
fn replace_system(
    stores: &Stores,
    mut copy: SystemCopy,
    restored: &BTreeSet<Namespace>,
) -> Result<BTreeSet<Namespace>> {
    let (present, restored) = (stores.folder.system(), restored.clone());
    // On the writer's thread: between the look at what is revoked and the replacement nobody revokes anything.
    replace(&stores.system, move || {
        let others = copy.keep_authority(&present, &restored)?;
        Ok((copy.path().to_owned(), others))
    })
    .map(|(_, others)| {
        stores.system.mark_damaged(false);
        others
    })
}

/// Has the store's writer replace everything in one transaction by the file that `source` gives. Returns whether it can be
/// used, for it is replaced also when it can not, and what `source` gives besides.
fn replace<T: Send + 'static>(
    store: &Store,
    mut source: impl FnMut() -> Result<(PathBuf, T)> + Send + 'static,
) -> Result<(bool, T)> {
    let write =
        Write { undo: Undo::Alone, removes: false, bytes: 0, deadline: Instant::now() + FAR, flow: Flow::default() };
    store.write_blocking(write, move |conn| {
        conn.gate.enter(Rights::Own);
        let (source, besides) = source()?;
        let is_usable = tenant::replaced(conn, |conn| {
            overwrite(conn, &source)?;
            conn.forget_statements();
            conn.ledger.as_ref().map_or(Ok(()), |ledger| ledger.load(conn, false)).map_err(of_copy)
        })?;
        // The log now holds the whole database; it is written back when readers let it.
        if let Err(error) = conn.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "the log can not be written back now");
        }
        Ok((is_usable, besides))
    })
}

fn overwrite(conn: &mut Conn, source: &Path) -> Result<()> {
    let from = Connection::open_with_flags(source, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(of_copy)?;
    // A backup from before the limit was lowered still goes in.
    conn.db.query_row("PRAGMA max_page_count = 4294967294", [], |_| Ok(())).map_err(of_copy)?;
    let backup = Backup::new(&from, &mut conn.db).map_err(of_copy)?;
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        match backup.step(-1).map_err(of_copy)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                return Err(Error::new(
                    Code::Unavailable,
                    "the database is locked by another program; nothing was changed",
                ));
            }
        }
    }
}

/// Refuses the tables of a newer program before anything is changed.
fn check_age(system: &Path) -> Result<()> {
    let db = Connection::open_with_flags(system, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(of_copy)?;
    let newest: u32 = db
        .query_row("SELECT coalesce(max(version), 0) FROM schema_migrations", [], |row| row.get(0))
        .map_err(of_copy)?;
    if newest as usize > MIGRATIONS.len() {
        return Err(Error::new(
            Code::Conflict,
            "the backup was made by a newer version of the node: start that one to restore it; nothing was changed",
        ));
    }
    Ok(())
}
