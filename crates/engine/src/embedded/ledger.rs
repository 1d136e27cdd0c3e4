//! What the system's database holds of each namespace, counted with every write of its thread.
//!
//! A change is noted when its statement is done, goes back with the savepoint or the transaction that it was made in, and
//! counts for others when it is committed. A stop in order writes the counts down; after any other they are counted anew,
//! when the whole file is read anyway to be checked.

use super::conn::Conn;
use super::size::{Held, RESERVE, Sizes};
use super::{failure, owners};
use debros_proto::{Namespace, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

const PAIRS: &str = "SELECT ns, octet_length(key), octet_length(value) FROM kv";
const RECORDS: &str = "SELECT ns, octet_length(key), octet_length(answer) FROM _debros_idempotency";
const SAVED: &str = "SELECT ns, pairs, pair_bytes, space FROM namespace_usage";
const FORGET: &str = "DELETE FROM namespace_usage";
const SAVE: &str = "INSERT INTO namespace_usage (ns, pairs, pair_bytes, space) VALUES (?1, ?2, ?3, ?4)";
/// Stands beside the saved counts to say that there are some. No namespace has this name.
const IS_SAVED: &str = "";

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bytes of a row beside its texts and its BLOB: numbers, lengths, its place in the page.
const ROW: usize = 48;
/// The same of an index's entry.
const ENTRY: usize = 16;
/// Bytes that are deleted in one commit, with one row more.
const AT_ONCE: usize = 8 << 20;
/// The hash of a request.
const HASH: usize = 32;

/// Bytes that a row takes which an index names by namespace and key. A page of the index is two thirds full when keys come in
/// no order. A large row has pages that it shares with nobody.
fn space_of(namespace: usize, key: usize, content: usize) -> i64 {
    let row = namespace + key + content + ROW;
    let row = if row > PAGE / 2 { row.next_multiple_of(PAGE) } else { row };
    let entry = (namespace + key + ENTRY) * 3 / 2;
    i64::try_from(row + entry).unwrap_or(i64::MAX)
}

/// What a key-value pair counts for.
pub(super) fn pair(namespace: &str, key: usize, value: usize) -> Held {
    let bytes = i64::try_from(key + value).unwrap_or(i64::MAX);
    Held { pairs: 1, pair_bytes: bytes, space: space_of(namespace.len(), key, value) }
}

/// What an idempotency record counts for.
pub(super) fn record(namespace: &str, key: usize, answer: usize) -> Held {
    Held { pairs: 0, pair_bytes: 0, space: space_of(namespace.len(), key, answer + HASH) }
}

/// The counts, on the connection that writes the system's file.
#[derive(Debug)]
pub(super) struct Ledger {
    sizes: Arc<Sizes>,
    pending: RefCell<Pending>,
}

/// What the open transaction has changed.
#[derive(Debug, Default)]
struct Pending {
    sums: HashMap<Namespace, Held>,
    changes: Vec<(Namespace, Held)>,
}

impl Ledger {
    pub(super) fn new(sizes: Arc<Sizes>) -> Self {
        Self { sizes, pending: RefCell::default() }
    }

    /// Notes what a statement of the open transaction has added, or taken away. `may_pass`: it belongs to something that
    /// removes, which may use the reserve.
    ///
    /// # Errors
    /// `quota_exceeded` when the namespace may not take so much; then the call must fail, and nothing is noted.
    pub(super) fn note(&self, namespace: &Namespace, change: Held, may_pass: bool) -> Result<()> {
        let mut pending = self.pending.borrow_mut();
        if change.space > 0 && *namespace != Namespace::internal() {
            let pending = pending.sums.get(namespace).map_or(0, |held| held.space);
            let reserve = if may_pass { RESERVE } else { 0 };
            let (_, quotas) = self.sizes.quotas(namespace);
            for mut quota in quotas.into_iter().flatten() {
                quota.taken = quota.taken.saturating_add_signed(pending);
                if quota.taken.saturating_add_signed(change.space) > quota.max.saturating_add(reserve) {
                    return Err(failure::quota_exceeded(quota));
                }
            }
        }
        *pending.sums.entry(namespace.clone()).or_default() += change;
        pending.changes.push((namespace.clone(), change));
        Ok(())
    }

    /// Where the open transaction is, to come back to with a savepoint.
    pub(super) fn mark(&self) -> usize {
        self.pending.borrow().changes.len()
    }

    /// Forgets what was noted after the mark; 0 with the whole transaction.
    pub(super) fn go_back(&self, mark: usize) {
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

    /// The transaction is committed.
    pub(super) fn settle(&self, conn: &Conn) {
        let mut pending = self.pending.borrow_mut();
        pending.changes.clear();
        if !pending.sums.is_empty() {
            self.sizes.hold(pending.sums.drain());
        }
        if let Err(error) = owners::follow(conn, &self.sizes) {
            tracing::warn!(%error, "who owns a namespace could not be read; the next start reads it");
        }
    }

    /// Takes the counts that a stop in order has written down, when `is_clean`, or counts. What was written down goes: a
    /// copy of the running database must not say later what was so before.
    pub(super) fn load(&self, conn: &Conn, is_clean: bool) -> rusqlite::Result<()> {
        let held = match if is_clean { saved(conn)? } else { None } {
            Some(held) => held,
            None => count(conn)?,
        };
        self.sizes.hold_exactly(held);
        owners::load(conn, &self.sizes)?;
        // Where nothing can be written, on a full disk, say, the counts are right all the same.
        if let Err(error) = conn.db.execute(FORGET, []) {
            tracing::warn!(%error, "the saved counts of what namespaces hold could not be deleted");
        }
        Ok(())
    }

    /// Writes the counts down.
    pub(super) fn save(&self, conn: &Conn) -> rusqlite::Result<()> {
        let transaction = conn.db.unchecked_transaction()?;
        transaction.execute(FORGET, [])?;
        let mut save = transaction.prepare(SAVE)?;
        save.execute((IS_SAVED, 0, 0, 0))?;
        for (namespace, held) in self.sizes.all_held() {
            save.execute((namespace.as_str(), held.pairs, held.pair_bytes, held.space))?;
        }
        drop(save);
        transaction.commit()
    }
}

/// Deletes rows that `list` gives (rowid, namespace, bytes of the key and of the content), each with `delete`: as many as one
/// commit should hold, because what they had is overwritten. Returns how many.
pub(super) fn remove(
    conn: &Conn,
    list: &'static str,
    of: impl rusqlite::Params,
    delete: &'static str,
    counted: fn(&str, usize, usize) -> Held,
) -> Result<usize> {
    let mut gone = HashMap::<Namespace, Held>::new();
    let act = || {
        let mut listed = conn.own(list)?;
        let mut rows = listed.query(of)?;
        let (mut rowids, mut bytes) = (Vec::new(), 0);
        while bytes < AT_ONCE
            && let Some(row) = rows.next()?
        {
            bytes += length(row, 3)?;
            let name = row.get_ref(1)?.as_str()?;
            if let Some(namespace) = named(name) {
                *gone.entry(namespace).or_default() += -counted(name, length(row, 2)?, length(row, 3)?);
            }
            rowids.push(row.get::<_, i64>(0)?);
        }
        drop(rows);
        let mut delete = conn.own(delete)?;
        rowids.iter().try_for_each(|rowid| delete.execute([rowid]).map(|_| ()))?;
        Ok(rowids.len())
    };
    let count = act().map_err(failure::of)?;
    if let Some(ledger) = &conn.ledger {
        for (namespace, change) in &gone {
            ledger.note(namespace, *change, true)?;
        }
    }
    Ok(count)
}

/// Counts what the system's file holds of each namespace.
pub(super) fn count(conn: &Conn) -> rusqlite::Result<HashMap<Namespace, Held>> {
    let mut all = HashMap::new();
    for (sql, of) in [(PAIRS, pair as fn(&str, usize, usize) -> Held), (RECORDS, record)] {
        let mut select = conn.db.prepare(sql)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(0)?.as_str()?;
            let Some(namespace) = named(name) else { continue };
            let held: &mut Held = all.entry(namespace).or_default();
            *held += of(name, length(row, 1)?, length(row, 2)?);
        }
    }
    Ok(all)
}

fn saved(conn: &Conn) -> rusqlite::Result<Option<HashMap<Namespace, Held>>> {
    let (mut all, mut is_saved) = (HashMap::new(), false);
    let mut select = conn.db.prepare(SAVED)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let name = row.get_ref(0)?.as_str()?;
        is_saved |= name == IS_SAVED;
        if let Some(namespace) = named(name) {
            all.insert(namespace, Held { pairs: row.get(1)?, pair_bytes: row.get(2)?, space: row.get(3)? });
        }
    }
    Ok(is_saved.then_some(all))
}

/// The bytes that a column tells.
pub(super) fn length(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<usize> {
    row.get::<_, u32>(column).map(|bytes| bytes as usize)
}

fn named(name: &str) -> Option<Namespace> {
    let internal = Namespace::internal();
    if name == internal.as_str() { Some(internal) } else { Namespace::new(name).ok() }
}
