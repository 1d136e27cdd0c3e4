//! The form of an entry's body. What is too large for one entry is several, of which the last one
//! counts: those before it change nothing by themselves.

use crate::database_name::{database_of, name_of};
use bytes::Bytes;
use debros_engine::{LogEntry, TargetDatabase};
use prost::Message;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of changes in one entry.
pub(crate) const PART_BYTES: usize = 4 << 20;
/// Bytes of changes that one transaction may make.
pub(crate) const MAX_CHANGES: usize = 256 << 20;

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
}

/// The bodies of the entries that changes become.
pub(crate) fn encode(database: &TargetDatabase, changes: &Bytes) -> Vec<Bytes> {
    let namespace = name_of(database).to_owned();
    let transaction = if changes.len() > PART_BYTES { new_transaction_id() } else { 0 };
    let count = changes.len().div_ceil(PART_BYTES).max(1);
    (0..count)
        .map(|index| {
            let start = index * PART_BYTES;
            let end = changes.len().min(start + PART_BYTES);
            let more = u32::try_from(count - 1 - index).unwrap_or(u32::MAX);
            let changes = changes.slice(start..end);
            let part = LogPart { namespace: namespace.clone(), more, changes, transaction };
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

/// Puts parts together again.
#[derive(Debug, Default)]
pub(crate) struct PartAssembler {
    open: Option<OpenTransaction>,
}

#[derive(Debug)]
struct OpenTransaction {
    id: u64,
    /// `more` of the part that comes next.
    next: u32,
    changes: Vec<u8>,
}

/// An entry that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error(
    "entry {0} of the cluster's log cannot be read: a newer version of the node may have written it"
)]
pub(crate) struct UnreadableEntry(pub(crate) u64);

impl PartAssembler {
    /// Adds the next entry. `Some`: it completes a transaction. Parts whose last one does not come
    /// are those of a leader that lost its place; nobody was told that they count.
    pub(crate) fn add(
        &mut self,
        number: u64,
        body: Bytes,
    ) -> Result<Option<LogEntry>, UnreadableEntry> {
        let part = LogPart::decode(body).map_err(|_| UnreadableEntry(number))?;
        let changes = match self.open.take() {
            Some(mut open) if open.id == part.transaction && open.next == part.more => {
                open.changes.extend_from_slice(&part.changes);
                open.changes.into()
            }
            _ => part.changes,
        };
        if let Some(next) = part.more.checked_sub(1) {
            self.open =
                Some(OpenTransaction { id: part.transaction, next, changes: changes.into() });
            return Ok(None);
        }
        let database = database_of(&part.namespace).map_err(|_| UnreadableEntry(number))?;
        Ok(Some(LogEntry { number, database, changes }))
    }

    /// Whether a transaction is begun and not complete.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::{PART_BYTES, PartAssembler, encode};
    use bytes::Bytes;
    use debros_engine::TargetDatabase;
    use debros_proto::Namespace;

    #[test]
    fn what_is_large_comes_back_whole_and_what_was_broken_off_does_not() {
        let app = TargetDatabase::Namespace(Namespace::new("app").unwrap());
        let large: Bytes =
            (0..PART_BYTES * 2 + 5).map(|byte| byte as u8).collect::<Vec<_>>().into();
        let parts = encode(&app, &large);
        assert_eq!(parts.len(), 3);
        let small = encode(&TargetDatabase::System, &Bytes::from_static(b"x"));
        assert_eq!(small.len(), 1);

        let mut assembler = PartAssembler::default();
        assert_eq!(assembler.add(1, parts[0].clone()).unwrap(), None);
        assert_eq!(assembler.add(2, parts[1].clone()).unwrap(), None);
        assert!(assembler.is_open());
        // Its leader lost its place here.
        let entry = assembler.add(3, small[0].clone()).unwrap().unwrap();
        assert_eq!((entry.number, entry.changes), (3, Bytes::from_static(b"x")));
        // Parts of another transaction of the same database continue nothing.
        let other = encode(&app, &large);
        assert_eq!(assembler.add(4, other[0].clone()).unwrap(), None);
        let stray = assembler.add(5, parts[2].clone()).unwrap();
        assert!(stray.is_some_and(|entry| entry.changes.len() == 5));
        for (number, part) in (6..).zip(&parts[..2]) {
            assert_eq!(assembler.add(number, part.clone()).unwrap(), None);
        }
        let entry = assembler.add(8, parts[2].clone()).unwrap().unwrap();
        assert!(entry.number == 8 && entry.database == app && entry.changes == large);
        assert!(!assembler.is_open());
        assert!(assembler.add(9, Bytes::from_static(b"\xff\xff")).is_err());
    }
}
