//! Which wallet owns each namespace, read from the system's table for the sizes: all namespaces of
//! one owner have a limit together. The operator's have none, and a namespace that is being deleted
//! has no owner.

use super::conn::SqliteConnection;
use super::size_accounting::SizeAccounting;
use debros_proto::Namespace;
use rusqlite::OptionalExtension as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

const TABLE: &str = "namespaces";
const OWNERS: &str = "/*debros*/ SELECT name, owner FROM namespaces";
const OWNER: &str = "/*debros*/ SELECT name, owner FROM namespaces WHERE rowid = ?1";

/// Rows of the table that the open transaction has changed. The update hook reports them.
#[derive(Debug, Default)]
pub(super) struct ChangedOwners {
    /// Only the connection that writes the system's file looks: in any other file the table is a
    /// user's.
    is_watched: AtomicBool,
    rowids: Mutex<Vec<i64>>,
}

impl ChangedOwners {
    /// A row has changed.
    pub(super) fn note(&self, table: &str, rowid: i64) {
        if self.is_watched.load(Relaxed) && table == TABLE {
            self.rowids().push(rowid);
        }
    }

    /// The transaction is gone, and its changes with it.
    pub(super) fn clear(&self) {
        self.rowids().clear();
    }

    fn take(&self) -> Vec<i64> {
        std::mem::take(&mut *self.rowids())
    }

    /// Nothing that panics runs while the lock is held.
    fn rowids(&self) -> MutexGuard<'_, Vec<i64>> {
        self.rowids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the owners of all namespaces, and looks for changes from now on.
pub(super) fn load(conn: &SqliteConnection, sizes: &SizeAccounting) -> rusqlite::Result<()> {
    conn.changed_owners.is_watched.store(true, Relaxed);
    conn.changed_owners.clear();
    let mut owners = Vec::new();
    let mut listed = conn.prepare_internal(OWNERS)?;
    let mut rows = listed.query([])?;
    while let Some(row) = rows.next()? {
        owners.extend(read(row)?);
    }
    sizes.set_owners(owners);
    Ok(())
}

/// Reads the owners again that the committed transaction has changed. A deleted row had no owner
/// before.
pub(super) fn follow(conn: &SqliteConnection, sizes: &SizeAccounting) -> rusqlite::Result<()> {
    for rowid in conn.changed_owners.take() {
        let found = conn.prepare_internal(OWNER)?.query_row([rowid], read).optional()?;
        if let Some((namespace, owner)) = found.flatten() {
            sizes.set_owner(namespace, owner);
        }
    }
    Ok(())
}

/// `None`: the name is no namespace's.
fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<(Namespace, Option<String>)>> {
    let owner: String = row.get(1)?;
    let owner = Some(owner).filter(|owner| !owner.is_empty() && owner != "operator");
    Ok(Namespace::new(row.get_ref(0)?.as_str()?).ok().map(|namespace| (namespace, owner)))
}
