//! Records what the open transaction changes.

use super::change_set::{
    Change, ChangeKind, ChangeSet, RowDelete, RowInsert, RowUpdate, SequenceChange, StoredValue,
};
use debros_proto::lock;
use debros_row_capture::{RowEvent, RowOperation, UnreadableRow, observe_changes};
use rusqlite::Connection;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

/// Tables of the engine's that each node has for itself.
const LOCAL_TABLES: [&str; 4] =
    ["_debros_moment", "_debros_position", "_debros_about", "namespace_usage"];

/// How a statement on the schema goes into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::embedded) enum RecordedDdl {
    /// As its text; what it did to rows, it does there as well.
    Statement,
    /// A DROP TABLE: the rows that its references removed or changed, and then the text, which
    /// finds them gone.
    RowsAndStatement,
    /// A CREATE TABLE: the table as SQLite has it now, and the rows that a SELECT gave it, which
    /// another node might not find.
    NewTable,
}

impl RecordedDdl {
    /// How a statement on the schema is recorded.
    pub(in crate::embedded) fn of(text: &str) -> Self {
        let mut words = debros_proto::sql::tokens(text);
        let mut next_is = |word: &str| words.next().is_some_and(|w| w.eq_ignore_ascii_case(word));
        if next_is("CREATE") {
            return if next_is("TABLE") { Self::NewTable } else { Self::Statement };
        }
        let mut words = debros_proto::sql::tokens(text);
        let mut next_is = |word: &str| words.next().is_some_and(|w| w.eq_ignore_ascii_case(word));
        if next_is("DROP") && next_is("TABLE") { Self::RowsAndStatement } else { Self::Statement }
    }
}

/// What the open transaction of a connection has changed.
#[derive(Default)]
pub(in crate::embedded) struct ChangeRecorder {
    recorded: Arc<Mutex<Recorded>>,
    /// The numbers that AUTOINCREMENT has given as of the last commit.
    sequences: Mutex<BTreeMap<String, i64>>,
    /// The same as of the transaction that was taken last.
    taken_sequences: Mutex<BTreeMap<String, i64>>,
}

#[derive(Default)]
struct Recorded {
    tables: Vec<String>,
    places: HashMap<String, u32>,
    changes: Vec<Change>,
    failed: Option<UnreadableRow>,
}

impl ChangeRecorder {
    /// Records what the connection changes from now on.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::embedded) fn install(db: &Connection) -> rusqlite::Result<Self> {
        let recorder = Self::default();
        let recorded = Arc::clone(&recorder.recorded);
        observe_changes(db, move |event| lock(&recorded).note(event))?;
        *lock(&recorder.sequences) = read_sequences(db)?;
        Ok(recorder)
    }

    /// Where the open transaction is, to go back to with a savepoint.
    pub(in crate::embedded) fn savepoint(&self) -> usize {
        lock(&self.recorded).changes.len()
    }

    /// Forgets what was recorded after the mark; 0 with the whole transaction.
    pub(in crate::embedded) fn rollback_to(&self, mark: usize) {
        let mut recorded = lock(&self.recorded);
        recorded.changes.truncate(mark);
        if mark == 0 {
            recorded.tables.clear();
            recorded.places.clear();
            recorded.failed = None;
        }
    }

    /// A statement on the schema has run, which began at `mark`.
    ///
    /// # Errors
    /// SQLite's, when a new table cannot be read.
    pub(in crate::embedded) fn record_ddl(
        &self,
        db: &Connection,
        mark: usize,
        text: &str,
        how: RecordedDdl,
    ) -> rusqlite::Result<()> {
        match how {
            RecordedDdl::Statement => self.rollback_to_mark(mark),
            RecordedDdl::RowsAndStatement => {}
            RecordedDdl::NewTable => {
                self.rollback_to_mark(mark);
                return self.record_new_table(db);
            }
        }
        self.record_statement(text.to_owned());
        Ok(())
    }

    /// A statement of another kind has run that changes no rows.
    pub(in crate::embedded) fn record_statement(&self, text: String) {
        lock(&self.recorded).push(ChangeKind::Statement(text));
    }

    /// As [`rollback_to`](ChangeRecorder::rollback_to), within the transaction: 0 is a mark like
    /// any other.
    fn rollback_to_mark(&self, mark: usize) {
        lock(&self.recorded).changes.truncate(mark);
    }

    fn record_new_table(&self, db: &Connection) -> rusqlite::Result<()> {
        let newest = "SELECT name, sql FROM main.sqlite_schema
            WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid DESC LIMIT 1";
        let (name, sql): (String, String) =
            db.query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        lock(&self.recorded).push(ChangeKind::Statement(sql));
        let quoted = name.replace('"', "\"\"");
        let count = |of: &str| {
            db.query_row(&format!("SELECT EXISTS (SELECT 1 FROM {of})"), [], |row| row.get(0))
        };
        if !count(&format!("main.\"{quoted}\""))? {
            return Ok(());
        }
        // Only CREATE TABLE … AS makes a table with rows, and such a table has a rowid, and no
        // column that is generated.
        let mut select = db.prepare(&format!("SELECT _rowid_, * FROM main.\"{quoted}\""))?;
        let columns = select.column_count();
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let values = (1..columns)
                .map(|column| row.get_ref(column).map(StoredValue::from))
                .collect::<rusqlite::Result<_>>()?;
            let rowid = row.get(0)?;
            let mut recorded = lock(&self.recorded);
            let table = recorded.place_of(&name);
            recorded.push(ChangeKind::Insert(RowInsert { table, rowid, values }));
        }
        Ok(())
    }

    /// What the transaction has changed; it begins anew. To be called right before the COMMIT,
    /// when nothing that the transaction holds back is left to be written.
    ///
    /// # Errors
    /// SQLite's; one that says that a row could not be read.
    pub(in crate::embedded) fn take(&self, db: &Connection) -> rusqlite::Result<ChangeSet> {
        self.record_sequences(db)?;
        let mut recorded = lock(&self.recorded);
        let Recorded { tables, changes, failed, .. } = std::mem::take(&mut *recorded);
        if let Some(failed) = failed {
            return Err(rusqlite::Error::ToSqlConversionFailure(Box::new(failed)));
        }
        let changes_schema =
            changes.iter().any(|change| matches!(change.kind, Some(ChangeKind::Statement(_))));
        Ok(ChangeSet { tables, changes, changes_schema, ..ChangeSet::default() })
    }

    /// SQLite does not report what it writes into `sqlite_sequence`.
    fn record_sequences(&self, db: &Connection) -> rusqlite::Result<()> {
        let now = read_sequences(db)?;
        let known = lock(&self.sequences);
        let mut recorded = lock(&self.recorded);
        for (table, number) in &now {
            if known.get(table) != Some(number) {
                let change = SequenceChange { table: table.clone(), number: Some(*number) };
                recorded.push(ChangeKind::Sequence(change));
            }
        }
        for table in known.keys().filter(|table| !now.contains_key(*table)) {
            let change = SequenceChange { table: table.clone(), number: None };
            recorded.push(ChangeKind::Sequence(change));
        }
        *lock(&self.taken_sequences) = now;
        Ok(())
    }

    /// The transaction whose changes were taken is committed.
    pub(in crate::embedded) fn note_commit(&self) {
        *lock(&self.sequences) = std::mem::take(&mut *lock(&self.taken_sequences));
    }

    /// The file was changed by another connection.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::embedded) fn reload_sequences(&self, db: &Connection) -> rusqlite::Result<()> {
        *lock(&self.sequences) = read_sequences(db)?;
        Ok(())
    }
}

impl Recorded {
    fn push(&mut self, kind: ChangeKind) {
        self.changes.push(Change { kind: Some(kind) });
    }

    fn place_of(&mut self, table: &str) -> u32 {
        if let Some(place) = self.places.get(table) {
            return *place;
        }
        let place = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
        self.tables.push(table.to_owned());
        self.places.insert(table.to_owned(), place);
        place
    }

    fn note(&mut self, event: &RowEvent<'_>) {
        if LOCAL_TABLES.contains(&event.table) {
            return;
        }
        if let Err(failed) = self.record(event) {
            self.failed = Some(failed);
        }
    }

    fn record(&mut self, event: &RowEvent<'_>) -> Result<(), UnreadableRow> {
        let table = self.place_of(event.table);
        // A table without rowid reports 0 for both; so does a row with this number, which costs
        // only that its values are in the log as well.
        let has_no_rowid = event.old_rowid == 0 && event.new_rowid == 0;
        let kind = match event.operation {
            RowOperation::Insert => ChangeKind::Insert(RowInsert {
                table,
                rowid: event.new_rowid,
                values: new_values(event)?,
            }),
            RowOperation::Delete => ChangeKind::Delete(RowDelete {
                table,
                rowid: event.old_rowid,
                old_values: if has_no_rowid { old_values(event)? } else { Vec::new() },
            }),
            RowOperation::Update => {
                let (old, new) = (old_values(event)?, new_values(event)?);
                let mut update = RowUpdate {
                    table,
                    old_rowid: event.old_rowid,
                    new_rowid: event.new_rowid,
                    ..RowUpdate::default()
                };
                for (column, (before, after)) in (0..).zip(old.iter().zip(new)) {
                    if *before != after {
                        update.columns.push(column);
                        update.values.push(after);
                    }
                }
                if has_no_rowid {
                    update.old_values = old;
                }
                ChangeKind::Update(update)
            }
        };
        self.push(kind);
        Ok(())
    }
}

fn old_values(event: &RowEvent<'_>) -> Result<Vec<StoredValue>, UnreadableRow> {
    let mut values = Vec::new();
    event.old_values(&mut |value| values.push(value.into()))?;
    Ok(values)
}

fn new_values(event: &RowEvent<'_>) -> Result<Vec<StoredValue>, UnreadableRow> {
    let mut values = Vec::new();
    event.new_values(&mut |value| values.push(value.into()))?;
    Ok(values)
}

fn read_sequences(db: &Connection) -> rusqlite::Result<BTreeMap<String, i64>> {
    let has_table = "/*debros*/ SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence')";
    if !db.prepare_cached(has_table)?.query_row([], |row| row.get(0))? {
        return Ok(BTreeMap::new());
    }
    let mut select = db.prepare_cached("/*debros*/ SELECT name, seq FROM main.sqlite_sequence")?;
    // A user may put anything there; what is no number is not one that was given.
    let mut rows = select.query([])?;
    let mut all = BTreeMap::new();
    while let Some(row) = rows.next()? {
        if let (Ok(name), Ok(number)) = (row.get(0), row.get(1)) {
            all.insert(name, number);
        }
    }
    Ok(all)
}
