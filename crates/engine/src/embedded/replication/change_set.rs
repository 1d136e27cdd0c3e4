//! The form in which changes are in the log.

use crate::embedded::size_accounting::SystemUsage;
use crate::embedded::usage_ledger::parse_namespace;
use debros_proto::Namespace;
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

/// What one transaction has changed in one file, in the order in which it did.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::embedded) struct ChangeSet {
    /// The names of the tables that rows are of.
    #[prost(string, repeated, tag = "1")]
    pub(super) tables: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    pub(super) changes: Vec<Change>,
    /// In the system's file: what namespaces have more of now, or less.
    #[prost(message, repeated, tag = "3")]
    pub(in crate::embedded) usage: Vec<UsageChange>,
    /// In the system's file: the newest version that a key-value pair was given.
    #[prost(uint64, tag = "4")]
    pub(in crate::embedded) last_version: u64,
    /// The file is deleted with all that is in it; then there are no changes.
    #[prost(bool, tag = "5")]
    pub(in crate::embedded) deletes_file: bool,
    /// The schema is another one afterwards.
    #[prost(bool, tag = "6")]
    pub(in crate::embedded) changes_schema: bool,
    /// A whole file that takes the place of this one; then there are no changes.
    #[prost(bytes = "vec", optional, tag = "7")]
    pub(in crate::embedded) image: Option<Vec<u8>>,
}

/// One change.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Change {
    #[prost(oneof = "ChangeKind", tags = "1, 2, 3, 4, 5")]
    pub(super) kind: Option<ChangeKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum ChangeKind {
    #[prost(message, tag = "1")]
    Insert(RowInsert),
    #[prost(message, tag = "2")]
    Update(RowUpdate),
    #[prost(message, tag = "3")]
    Delete(RowDelete),
    /// A statement on the schema.
    #[prost(string, tag = "4")]
    Statement(String),
    /// The numbers that AUTOINCREMENT gave last.
    #[prost(message, tag = "5")]
    Sequences(SequenceChange),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RowInsert {
    /// The place in `tables`.
    #[prost(uint32, tag = "1")]
    pub(super) table: u32,
    /// 0 in a table without rowid.
    #[prost(int64, tag = "2")]
    pub(super) rowid: i64,
    /// Of all columns in order; NULL where a generated column is not stored.
    #[prost(message, repeated, tag = "3")]
    pub(super) values: Vec<StoredValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RowUpdate {
    #[prost(uint32, tag = "1")]
    pub(super) table: u32,
    #[prost(int64, tag = "2")]
    pub(super) old_rowid: i64,
    #[prost(int64, tag = "3")]
    pub(super) new_rowid: i64,
    /// The row before, in a table without rowid.
    #[prost(message, repeated, tag = "4")]
    pub(super) old_values: Vec<StoredValue>,
    /// The places of the columns that change, in order.
    #[prost(uint32, repeated, tag = "5")]
    pub(super) columns: Vec<u32>,
    /// Their values afterwards.
    #[prost(message, repeated, tag = "6")]
    pub(super) values: Vec<StoredValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RowDelete {
    #[prost(uint32, tag = "1")]
    pub(super) table: u32,
    #[prost(int64, tag = "2")]
    pub(super) rowid: i64,
    /// The row before, in a table without rowid.
    #[prost(message, repeated, tag = "3")]
    pub(super) old_values: Vec<StoredValue>,
}

/// What is another in `sqlite_sequence`, which SQLite writes by itself, and users may.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SequenceChange {
    /// There are no other rows.
    #[prost(bool, tag = "1")]
    pub(super) is_whole: bool,
    /// Rowids of rows that are gone.
    #[prost(int64, repeated, tag = "2")]
    pub(super) removed: Vec<i64>,
    /// Rows that are new or have changed.
    #[prost(message, repeated, tag = "3")]
    pub(super) rows: Vec<SequenceRow>,
}

/// A row of `sqlite_sequence`. SQLite does not say what a user may put there.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SequenceRow {
    #[prost(int64, tag = "1")]
    pub(super) rowid: i64,
    #[prost(message, required, tag = "2")]
    pub(super) name: StoredValue,
    #[prost(message, required, tag = "3")]
    pub(super) number: StoredValue,
}

/// What a namespace has more of, or less.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::embedded) struct UsageChange {
    #[prost(string, tag = "1")]
    pub(in crate::embedded) namespace: String,
    #[prost(sint64, tag = "2")]
    pub(in crate::embedded) pairs: i64,
    #[prost(sint64, tag = "3")]
    pub(in crate::embedded) pair_bytes: i64,
    #[prost(sint64, tag = "4")]
    pub(in crate::embedded) space: i64,
}

/// A value as SQLite stores it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredValue {
    /// `None`: NULL.
    #[prost(oneof = "StoredKind", tags = "1, 2, 3, 4")]
    pub(super) kind: Option<StoredKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum StoredKind {
    #[prost(sint64, tag = "1")]
    Integer(i64),
    #[prost(double, tag = "2")]
    Real(f64),
    /// Bytes, because SQLite does not demand that a text is UTF-8.
    #[prost(bytes, tag = "3")]
    Text(Vec<u8>),
    #[prost(bytes, tag = "4")]
    Blob(Vec<u8>),
}

impl StoredValue {
    /// Whether it is the same to the bit, as a negative zero is not the other one.
    pub(super) fn is_identical(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Some(StoredKind::Real(one)), Some(StoredKind::Real(other))) => {
                one.to_bits() == other.to_bits()
            }
            (one, other) => one == other,
        }
    }
}

impl From<ValueRef<'_>> for StoredValue {
    fn from(value: ValueRef<'_>) -> Self {
        let kind = match value {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(StoredKind::Integer(number)),
            ValueRef::Real(number) => Some(StoredKind::Real(number)),
            ValueRef::Text(text) => Some(StoredKind::Text(text.to_vec())),
            ValueRef::Blob(bytes) => Some(StoredKind::Blob(bytes.to_vec())),
        };
        Self { kind }
    }
}

impl ToSql for StoredValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match &self.kind {
            None => ValueRef::Null,
            Some(StoredKind::Integer(number)) => ValueRef::Integer(*number),
            Some(StoredKind::Real(number)) => ValueRef::Real(*number),
            Some(StoredKind::Text(text)) => ValueRef::Text(text),
            Some(StoredKind::Blob(bytes)) => ValueRef::Blob(bytes),
        }))
    }
}

impl ChangeSet {
    /// The file is deleted.
    pub(in crate::embedded) fn removal() -> Self {
        Self { deletes_file: true, ..Self::default() }
    }

    /// The file is replaced by this one.
    pub(in crate::embedded) fn of_image(image: Vec<u8>) -> Self {
        Self { image: Some(image), ..Self::default() }
    }

    /// Whether there is nothing in it.
    pub(in crate::embedded) fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.deletes_file && self.image.is_none()
    }
}

impl ChangeSet {
    /// The rowids of the rows of a table that change, before and afterwards.
    pub(in crate::embedded) fn rowids_of<'c>(
        &'c self,
        table: &'c str,
    ) -> impl Iterator<Item = i64> + 'c {
        let is_of = move |place: &u32| {
            let place = usize::try_from(*place).unwrap_or(usize::MAX);
            self.tables.get(place).is_some_and(|name| name == table)
        };
        self.changes.iter().filter_map(move |change| match change.kind.as_ref()? {
            ChangeKind::Insert(row) => is_of(&row.table).then_some(row.rowid),
            ChangeKind::Update(row) => is_of(&row.table).then_some(row.new_rowid),
            ChangeKind::Delete(row) => is_of(&row.table).then_some(row.rowid),
            ChangeKind::Statement(_) | ChangeKind::Sequences(_) => None,
        })
    }
}

impl From<(Namespace, SystemUsage)> for UsageChange {
    fn from((namespace, usage): (Namespace, SystemUsage)) -> Self {
        let SystemUsage { pairs, pair_bytes, space } = usage;
        Self { namespace: namespace.as_str().to_owned(), pairs, pair_bytes, space }
    }
}

impl UsageChange {
    /// Whose usage changes, and by how much.
    pub(in crate::embedded) fn parts(&self) -> Option<(Namespace, SystemUsage)> {
        let Self { pairs, pair_bytes, space, .. } = *self;
        parse_namespace(&self.namespace)
            .map(|namespace| (namespace, SystemUsage { pairs, pair_bytes, space }))
    }
}
