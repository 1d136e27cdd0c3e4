//! The numbers that AUTOINCREMENT gave last, which the log has as they are: SQLite does not report
//! what it writes there, and users may put anything there.

use super::change_set::{SequenceChange, SequenceRow, StoredValue};
use rusqlite::Connection;
use std::collections::BTreeMap;

/// The table that has them.
pub(super) const TABLE: &str = "sqlite_sequence";

/// The rows of the table, by rowid.
#[derive(Debug, Default)]
pub(super) struct Sequences(BTreeMap<i64, (StoredValue, StoredValue)>);

impl Sequences {
    /// As the connection sees them.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn read(db: &Connection) -> rusqlite::Result<Self> {
        let has_table = "/*debros*/ SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence')";
        if !db.prepare_cached(has_table)?.query_row([], |row| row.get(0))? {
            return Ok(Self::default());
        }
        let all = "/*debros*/ SELECT rowid, name, seq FROM main.sqlite_sequence";
        let mut select = db.prepare_cached(all)?;
        let mut rows = select.query([])?;
        let mut found = BTreeMap::new();
        while let Some(row) = rows.next()? {
            found.insert(row.get(0)?, (row.get_ref(1)?.into(), row.get_ref(2)?.into()));
        }
        Ok(Self(found))
    }

    /// What is another than before; `is_whole`: and all the rest. `None`: nothing.
    ///
    /// Another node gives numbers itself where rows are inserted. It never has one for a table that
    /// has none here, and its numbers are those of here where nobody else wrote them.
    pub(super) fn change_since(&self, before: &Self, is_whole: bool) -> Option<SequenceChange> {
        let is_new = |rowid: &i64, row: &(StoredValue, StoredValue)| {
            !before.0.get(rowid).is_some_and(|(name, number)| {
                name.is_identical(&row.0) && number.is_identical(&row.1)
            })
        };
        // A name may have several rows, of which the other node keeps none that is not told.
        let new: Vec<&StoredValue> = self
            .0
            .iter()
            .filter(|(rowid, row)| is_new(rowid, row))
            .map(|(_, row)| &row.0)
            .collect();
        let rows = self
            .0
            .iter()
            .filter(|(_, row)| is_whole || new.iter().any(|name| name.is_identical(&row.0)))
            .map(|(rowid, (name, number))| SequenceRow {
                rowid: *rowid,
                name: name.clone(),
                number: number.clone(),
            })
            .collect();
        let removed = before.0.keys().filter(|rowid| !self.0.contains_key(rowid)).copied();
        let change = SequenceChange { is_whole, removed: removed.collect(), rows };
        let is_empty = !is_whole && change.removed.is_empty() && change.rows.is_empty();
        (!is_empty).then_some(change)
    }
}
