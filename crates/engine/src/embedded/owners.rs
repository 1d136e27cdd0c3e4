//! Which wallet owns each namespace, read from the system's table for the sizes: all namespaces of
//! one owner have a limit together. The operator's have none, and a namespace that is being deleted
//! has no owner.

use super::changed_owners::ChangedOwners;
use super::conn::SqliteConnection;
use super::size_accounting::SizeAccounting;
use debros_proto::Namespace;
use rusqlite::OptionalExtension as _;

const OWNERS: &str = "/*debros*/ SELECT name, owner FROM namespaces";
const OWNER: &str = "/*debros*/ SELECT name, owner FROM namespaces WHERE rowid = ?1";

/// Reads the owners of all namespaces, and looks for changes from now on.
pub(super) fn load(
    conn: &SqliteConnection,
    changed: &ChangedOwners,
    sizes: &SizeAccounting,
) -> rusqlite::Result<()> {
    changed.start_watching();
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
pub(super) fn follow(
    conn: &SqliteConnection,
    changed: &ChangedOwners,
    sizes: &SizeAccounting,
) -> rusqlite::Result<()> {
    for rowid in changed.take() {
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
