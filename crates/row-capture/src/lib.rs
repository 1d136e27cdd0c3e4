//! Tells which rows a SQLite connection changes, with all their values, while it changes them.
//!
//! SQLite's update hook names only the rowid, and leaves out what `REPLACE` removes, tables without
//! rowid and whole tables that are emptied. Its preupdate hook reports every row. `rusqlite` offers
//! that hook only where bindings are generated at build time, which needs libclang on every
//! machine that builds. So this crate declares the five functions by itself. SQLite has to be
//! compiled with `SQLITE_ENABLE_PREUPDATE_HOOK`; otherwise a program that uses this crate does not
//! link.
//!
//! All unsafe code of the workspace is in `hook.rs`.

mod hook;

pub use hook::{has_broken_references, observe_changes};

use rusqlite::types::ValueRef;

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOperation {
    /// It is added.
    Insert,
    /// It gets other values, and another rowid where the two rowids differ.
    Update,
    /// It is removed.
    Delete,
    /// A part of one of its values is written in place, as a full-text index does. SQLite does not
    /// tell what is written: the row has to be read afterwards.
    WriteBlob,
}

/// A row that is about to change.
pub struct RowEvent<'e> {
    /// What happens to it.
    pub operation: RowOperation,
    /// The table's name. Tables of full-text indexes and R-Trees come with their own names.
    pub table: &'e str,
    /// Its rowid before; 0 in a table without rowid, and before an insert.
    pub old_rowid: i64,
    /// Its rowid afterwards; 0 in a table without rowid, and after a delete.
    pub new_rowid: i64,
    values: &'e dyn RowValues,
}

/// A row's values could not be read: memory ran out, or there are none, as after a DELETE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadableRow;

impl std::fmt::Display for UnreadableRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SQLite does not tell the values of a row that changes")
    }
}

impl std::error::Error for UnreadableRow {}

impl RowEvent<'_> {
    /// Gives the values that the row has before, in order of the table's columns. Generated columns
    /// that are not stored are NULL.
    ///
    /// # Errors
    /// [`UnreadableRow`].
    pub fn old_values(&self, each: &mut dyn FnMut(ValueRef<'_>)) -> Result<(), UnreadableRow> {
        self.values.read(RowVersion::Old, each)
    }

    /// As [`old_values`](RowEvent::old_values), of the row as it will be.
    ///
    /// # Errors
    /// [`UnreadableRow`].
    pub fn new_values(&self, each: &mut dyn FnMut(ValueRef<'_>)) -> Result<(), UnreadableRow> {
        self.values.read(RowVersion::New, each)
    }
}

/// Which of a row's two states.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RowVersion {
    Old,
    New,
}

trait RowValues {
    fn read(
        &self,
        version: RowVersion,
        each: &mut dyn FnMut(ValueRef<'_>),
    ) -> Result<(), UnreadableRow>;
}
