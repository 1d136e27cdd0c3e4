//! What the system's database holds of each namespace, counted with every write of its thread.
//!
//! A change is noted when its statement is done, goes back with the savepoint or the transaction
//! that it was made in, and counts for others when it is committed. A stop in order writes the
//! counts down; after any other they are counted again, when the whole file is read anyway to be
//! checked.

use super::changed_owners::ChangedOwners;
use super::conn::SqliteConnection;
use super::size_accounting::{RESERVE, SizeAccounting, SystemUsage};
use super::{error_mapping, owners};
use debros_proto::{Namespace, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

const PAIRS: &str = "SELECT ns, octet_length(key), octet_length(value) FROM kv";
const RECORDS: &str = "SELECT ns, octet_length(key), octet_length(answer) FROM _debros_idempotency";
const SAVED: &str = "SELECT ns, pairs, pair_bytes, space FROM namespace_usage";
const FORGET: &str = "DELETE FROM namespace_usage";
const SAVE: &str =
    "INSERT INTO namespace_usage (ns, pairs, pair_bytes, space) VALUES (?1, ?2, ?3, ?4)";
/// Stands beside the saved counts to say that there are some. No namespace has this name.
const IS_SAVED: &str = "";

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bytes of a row beside its texts and its BLOB: numbers, lengths, its place in the page.
const ROW: usize = 48;
/// The same of an index's entry.
const ENTRY: usize = 16;
/// The hash of a request.
const HASH: usize = 32;

/// Bytes that a row takes which an index names by namespace and key. A page of the index is two
/// thirds full when keys come in no order. A large row has pages that it shares with no other.
fn row_space(namespace: usize, key: usize, content: usize) -> i64 {
    let row = namespace + key + content + ROW;
    let row = if row > PAGE / 2 { row.next_multiple_of(PAGE) } else { row };
    let entry = (namespace + key + ENTRY) * 3 / 2;
    i64::try_from(row + entry).unwrap_or(i64::MAX)
}

/// What a key-value pair counts for.
pub(super) fn pair_usage(namespace: &str, key: usize, value: usize) -> SystemUsage {
    let bytes = i64::try_from(key + value).unwrap_or(i64::MAX);
    SystemUsage { pairs: 1, pair_bytes: bytes, space: row_space(namespace.len(), key, value) }
}

/// What an idempotency record counts for.
pub(super) fn record_usage(namespace: &str, key: usize, answer: usize) -> SystemUsage {
    SystemUsage { pairs: 0, pair_bytes: 0, space: row_space(namespace.len(), key, answer + HASH) }
}

/// The counts, on the connection that writes the system's file.
#[derive(Debug)]
pub(super) struct UsageLedger {
    sizes: Arc<SizeAccounting>,
    changed_owners: Arc<ChangedOwners>,
    pending: RefCell<PendingUsage>,
}

/// What the open transaction has changed.
#[derive(Debug, Default)]
struct PendingUsage {
    sums: HashMap<Namespace, SystemUsage>,
    changes: Vec<(Namespace, SystemUsage)>,
}

impl UsageLedger {
    pub(super) fn new(sizes: Arc<SizeAccounting>, changed_owners: Arc<ChangedOwners>) -> Self {
        Self { sizes, changed_owners, pending: RefCell::default() }
    }

    /// Notes what a statement of the open transaction has added, or taken away. `may_pass`: it
    /// belongs to something that removes, which may use the reserve.
    ///
    /// # Errors
    /// `quota_exceeded` when the namespace may not take so much; then the call must fail, and
    /// nothing is noted.
    pub(super) fn record_change(
        &self,
        namespace: &Namespace,
        change: SystemUsage,
        may_pass: bool,
    ) -> Result<()> {
        let mut pending = self.pending.borrow_mut();
        if change.space > 0 && *namespace != Namespace::internal() {
            let pending = pending.sums.get(namespace).map_or(0, |held| held.space);
            let reserve = if may_pass { RESERVE } else { 0 };
            let (_, quotas) = self.sizes.quotas(namespace);
            for mut quota in quotas.into_iter().flatten() {
                quota.taken = quota.taken.saturating_add_signed(pending);
                if quota.taken.saturating_add_signed(change.space)
                    > quota.max.saturating_add(reserve)
                {
                    return Err(error_mapping::quota_exceeded_error(quota));
                }
            }
        }
        *pending.sums.entry(namespace.clone()).or_default() += change;
        pending.changes.push((namespace.clone(), change));
        Ok(())
    }

    /// Where the open transaction is, to come back to with a savepoint.
    pub(super) fn savepoint(&self) -> usize {
        self.pending.borrow().changes.len()
    }

    /// Forgets what was noted after the mark; 0 with the whole transaction.
    pub(super) fn rollback_to(&self, mark: usize) {
        let mut pending = self.pending.borrow_mut();
        if mark == 0 {
            pending.changes.clear();
            pending.sums.clear();
        }
        while pending.changes.len() > mark
            && let Some((namespace, change)) = pending.changes.pop()
        {
            if let Some(sum) = pending.sums.get_mut(&namespace) {
                *sum += -change;
            }
        }
    }

    /// Forgets all that was noted: the transaction is gone.
    pub(super) fn discard_changes(&self) {
        self.rollback_to(0);
        self.changed_owners.clear();
    }

    /// What the open transaction has changed, by namespace.
    pub(super) fn pending_sums(&self) -> Vec<(Namespace, SystemUsage)> {
        self.pending.borrow().sums.iter().map(|(name, usage)| (name.clone(), *usage)).collect()
    }

    /// Counts what another node's transaction has changed, which is in the file by now.
    pub(super) fn note_applied(
        &self,
        conn: &SqliteConnection,
        sums: impl Iterator<Item = (Namespace, SystemUsage)>,
    ) {
        self.sizes.add_system_usage(sums);
        self.read_changed_owners(conn);
    }

    /// The transaction is committed.
    pub(super) fn commit_changes(&self, conn: &SqliteConnection) {
        let mut pending = self.pending.borrow_mut();
        pending.changes.clear();
        if !pending.sums.is_empty() {
            self.sizes.add_system_usage(pending.sums.drain());
        }
        drop(pending);
        self.read_changed_owners(conn);
    }

    fn read_changed_owners(&self, conn: &SqliteConnection) {
        if let Err(error) = owners::follow(conn, &self.changed_owners, &self.sizes) {
            tracing::warn!(%error, "the owner of a namespace could not be read; the next start reads it");
        }
    }

    /// Takes the counts that a stop in order has written down, when `is_clean`, or counts. What was
    /// written down goes: a copy of the running database must not say later what was so before.
    pub(super) fn load_counts(
        &self,
        conn: &SqliteConnection,
        is_clean: bool,
    ) -> rusqlite::Result<()> {
        let held = match if is_clean { read_saved_counts(conn)? } else { None } {
            Some(held) => held,
            None => count_usage(conn)?,
        };
        self.sizes.replace_system_usage(held);
        owners::load(conn, &self.changed_owners, &self.sizes)?;
        // Where nothing can be written, on a full disk, say, the counts are right all the same.
        if let Err(error) = conn.db.execute(FORGET, []) {
            tracing::warn!(%error, "the saved counts of what namespaces hold could not be deleted");
        }
        Ok(())
    }

    /// Writes the counts down.
    pub(super) fn save_counts(&self, conn: &SqliteConnection) -> rusqlite::Result<()> {
        let transaction = conn.db.unchecked_transaction()?;
        transaction.execute(FORGET, [])?;
        let mut save = transaction.prepare(SAVE)?;
        save.execute((IS_SAVED, 0, 0, 0))?;
        for (namespace, held) in self.sizes.all_system_usage() {
            save.execute((namespace.as_str(), held.pairs, held.pair_bytes, held.space))?;
        }
        drop(save);
        transaction.commit()
    }
}

/// Counts what the system's file holds of each namespace.
pub(super) fn count_usage(
    conn: &SqliteConnection,
) -> rusqlite::Result<HashMap<Namespace, SystemUsage>> {
    let mut all = HashMap::new();
    for (sql, of) in
        [(PAIRS, pair_usage as fn(&str, usize, usize) -> SystemUsage), (RECORDS, record_usage)]
    {
        let mut select = conn.db.prepare(sql)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(0)?.as_str()?;
            let Some(namespace) = parse_namespace(name) else { continue };
            let held: &mut SystemUsage = all.entry(namespace).or_default();
            *held += of(name, column_length(row, 1)?, column_length(row, 2)?);
        }
    }
    Ok(all)
}

fn read_saved_counts(
    conn: &SqliteConnection,
) -> rusqlite::Result<Option<HashMap<Namespace, SystemUsage>>> {
    let (mut all, mut is_saved) = (HashMap::new(), false);
    let mut select = conn.db.prepare(SAVED)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let name = row.get_ref(0)?.as_str()?;
        is_saved |= name == IS_SAVED;
        if let Some(namespace) = parse_namespace(name) {
            all.insert(
                namespace,
                SystemUsage { pairs: row.get(1)?, pair_bytes: row.get(2)?, space: row.get(3)? },
            );
        }
    }
    Ok(is_saved.then_some(all))
}

/// The bytes that a column counts.
pub(super) fn column_length(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<usize> {
    row.get::<_, u32>(column).map(|bytes| bytes as usize)
}

/// The namespace that a row of the system's tables names.
pub(super) fn parse_namespace(name: &str) -> Option<Namespace> {
    let internal = Namespace::internal();
    if name == internal.as_str() { Some(internal) } else { Namespace::new(name).ok() }
}
