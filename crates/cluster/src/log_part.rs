//! The form of an entry's body. What is too large for one entry is several, of which the last one
//! counts: those before it change nothing by themselves.

use crate::database_name::{database_of, name_of};
use crate::pending_entries::EntryEffect;
use bytes::Bytes;
use debros_engine::{EntryKind, LogEntry, TargetDatabase};
use debros_rqlite::Entry;
use prost::Message;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of changes in one entry.
pub(crate) const PART_BYTES: usize = 4 << 20;

#[derive(Clone, PartialEq, Message)]
struct LogPart {
    /// The namespace whose database it is; empty: the system's.
    #[prost(string, tag = "1")]
    namespace: String,
    /// How many parts come after this one.
    #[prost(uint32, tag = "2")]
    more: u32,
    #[prost(bytes = "bytes", tag = "3")]
    changes: Bytes,
    /// Tells the parts of one transaction from those of another.
    #[prost(fixed64, tag = "4")]
    transaction: u64,
    /// How many parts come before this one.
    #[prost(uint32, tag = "5")]
    before: u32,
    /// All that the database has goes.
    #[prost(bool, tag = "6")]
    replaces: bool,
}

/// The bodies of the entries that changes become.
pub(crate) fn encode(database: &TargetDatabase, changes: &Bytes, kind: EntryKind) -> Vec<Bytes> {
    let namespace = name_of(database).to_owned();
    let transaction = if changes.len() > PART_BYTES { new_transaction_id() } else { 0 };
    let count = changes.len().div_ceil(PART_BYTES).max(1);
    (0..count)
        .map(|index| {
            let start = index * PART_BYTES;
            let end = changes.len().min(start + PART_BYTES);
            let changes = changes.slice(start..end);
            let part = LogPart {
                namespace: namespace.clone(),
                more: u32::try_from(count - 1 - index).unwrap_or(u32::MAX),
                changes,
                transaction,
                before: u32::try_from(index).unwrap_or(u32::MAX),
                replaces: kind == EntryKind::Replacement,
            };
            part.encode_to_vec().into()
        })
        .collect()
}

fn new_transaction_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    // Two leaders do not make the same one, nor one leader twice.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let before = LAST.fetch_max(now, SeqCst);
    if before < now { now } else { LAST.fetch_add(1, SeqCst) + 1 }
}

/// Puts parts together again. Parts of several transactions may stand between each other.
#[derive(Debug, Default)]
pub(crate) struct PartAssembler {
    open: HashMap<u64, OpenTransaction>,
    /// The term of the last entry.
    term: u64,
}

#[derive(Debug)]
struct OpenTransaction {
    /// `more` of the part that comes next.
    next: u32,
    changes: Vec<u8>,
    entries: Vec<u64>,
}

/// What an entry of the log is.
#[derive(Debug)]
pub(crate) struct TakenEntry {
    database: TargetDatabase,
    replaces: bool,
    /// The transaction that it completes.
    pub(crate) whole: Option<WholeTransaction>,
    /// Earlier entries that change nothing, because the rest of their transactions cannot come any
    /// more.
    pub(crate) broken_off: Vec<u64>,
}

impl TakenEntry {
    pub(crate) fn effect(&self) -> EntryEffect<'_> {
        match (&self.whole, self.replaces) {
            (None, _) => EntryEffect::Nothing,
            (Some(_), false) => EntryEffect::Changes(&self.database),
            (Some(_), true) => EntryEffect::Replaces(&self.database),
        }
    }
}

/// A transaction whose parts are all there.
#[derive(Debug, PartialEq)]
pub(crate) struct WholeTransaction {
    pub(crate) entry: LogEntry,
    /// The entries that its parts are.
    pub(crate) entries: Vec<u64>,
}

/// An entry that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error(
    "entry {0} of the cluster's log cannot be read: a newer version of the node may have written it"
)]
pub(crate) struct UnreadableEntry(pub(crate) u64);

impl PartAssembler {
    /// Adds the next entry.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<TakenEntry, UnreadableEntry> {
        let number = entry.entry;
        let part = LogPart::decode(entry.body.clone()).map_err(|_| UnreadableEntry(number))?;
        let database = database_of(&part.namespace).map_err(|_| UnreadableEntry(number))?;
        let replaces = part.replaces;
        let broken_off = self.end_terms_before(entry.term);
        let (changes, entries) = match self.open.remove(&part.transaction) {
            Some(mut open) if open.next == part.more => {
                open.changes.extend_from_slice(&part.changes);
                open.entries.push(number);
                (open.changes, open.entries)
            }
            // A copy: what it is a slice of may be much larger, and stay as long as it does.
            None if part.before == 0 => (part.changes.to_vec(), vec![number]),
            _ => return Err(UnreadableEntry(number)),
        };
        let whole = match part.more.checked_sub(1) {
            Some(next) => {
                self.open.insert(part.transaction, OpenTransaction { next, changes, entries });
                None
            }
            None => {
                let (database, changes) = (database.clone(), changes.into());
                Some(WholeTransaction { entry: LogEntry { number, database, changes }, entries })
            }
        };
        Ok(TakenEntry { database, replaces, whole, broken_off })
    }

    /// No entry of an earlier term comes any more. Returns the entries of transactions that stay
    /// without their last part: nobody was told that they count.
    pub(crate) fn end_terms_before(&mut self, term: u64) -> Vec<u64> {
        if term <= self.term {
            return Vec::new();
        }
        self.term = term;
        self.open.drain().flat_map(|(_, open)| open.entries).collect()
    }

    /// Whether a transaction is begun and not complete.
    pub(crate) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{PART_BYTES, PartAssembler, TakenEntry, encode};
    use bytes::Bytes;
    use debros_engine::{EntryKind, TargetDatabase};
    use debros_proto::Namespace;
    use debros_rqlite::Entry;

    fn add(assembler: &mut PartAssembler, entry: u64, term: u64, body: &Bytes) -> TakenEntry {
        assembler.add(&Entry { entry, term, body: body.clone() }).unwrap()
    }

    fn large(seed: u8) -> Bytes {
        let bytes = (0..PART_BYTES * 2 + 5).map(|byte| (byte as u8).wrapping_add(seed));
        bytes.collect::<Vec<_>>().into()
    }

    #[test]
    fn what_is_large_comes_back_whole_and_what_was_broken_off_does_not() {
        let app = TargetDatabase::Namespace(Namespace::new("app").unwrap());
        let parts = encode(&app, &large(0), EntryKind::Changes);
        assert_eq!(parts.len(), 3);
        let small = encode(&TargetDatabase::System, &Bytes::from_static(b"x"), EntryKind::Changes);
        assert_eq!(small.len(), 1);

        let mut assembler = PartAssembler::default();
        assert_eq!(add(&mut assembler, 1, 1, &parts[0]).whole, None);
        let taken = add(&mut assembler, 2, 1, &parts[1]);
        assert!(taken.whole.is_none() && taken.database == app && assembler.is_open());
        // Its leader lost its place here.
        let taken = add(&mut assembler, 3, 2, &small[0]);
        let mut broken_off = taken.broken_off;
        broken_off.sort_unstable();
        assert_eq!(broken_off, [1, 2]);
        let whole = taken.whole.unwrap();
        assert_eq!((whole.entry.number, whole.entry.changes), (3, Bytes::from_static(b"x")));
        assert!(!assembler.is_open());
        // What is left of it continues nothing.
        for part in &parts[1..] {
            let rest = Entry { entry: 4, term: 2, body: part.clone() };
            assert!(assembler.add(&rest).is_err());
        }
        let garbage = Entry { entry: 5, term: 2, body: Bytes::from_static(b"\xff\xff") };
        assert!(assembler.add(&garbage).is_err());
    }

    #[test]
    fn parts_of_several_transactions_and_others_between_them_do_not_mix() {
        let [one, two] =
            ["one", "two"].map(|name| TargetDatabase::Namespace(Namespace::new(name).unwrap()));
        let (of_one, of_two) = (
            encode(&one, &large(1), EntryKind::Changes),
            encode(&two, &large(2), EntryKind::Changes),
        );
        let small = encode(&one, &Bytes::from_static(b"x"), EntryKind::Replacement);
        let mut assembler = PartAssembler::default();
        let order = [&of_one[0], &of_two[0], &small[0], &of_two[1], &of_one[1], &of_two[2]];
        let mut whole = Vec::new();
        for (entry, body) in (1..).zip(order) {
            whole.extend(add(&mut assembler, entry, 1, body).whole);
        }
        assert_eq!(whole.len(), 2);
        assert_eq!((whole[0].entry.number, &whole[0].entries[..]), (3, &[3][..]));
        assert_eq!((whole[1].entry.number, &whole[1].entries[..]), (6, &[2, 4, 6][..]));
        assert!(whole[1].entry.database == two && whole[1].entry.changes == large(2));
        let last = add(&mut assembler, 7, 1, &of_one[2]).whole.unwrap();
        assert!(last.entry.changes == large(1) && last.entries == [1, 5, 7]);
        assert!(!assembler.is_open());
    }
}
