//! Records what the open transaction changes.

use super::automatic_merges;
use super::change_set::{
    Change, ChangeKind, ChangeSet, RowDelete, RowInsert, RowUpdate, StoredValue,
};
use super::recorded_size::{RecordedSize, RecordingLimit, SizeMark};
use super::sequences::Sequences;
use super::table_shape::{NamelessRowid, TableShape};
use debros_proto::lock;
use debros_row_capture::{RowEvent, RowOperation, UnreadableRow, observe_changes};
use rusqlite::Connection;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// Tables of the engine's that each node has for itself.
pub(super) const LOCAL_TABLES: [&str; 4] =
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

/// A place in the open transaction's changes, to go back to.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::embedded) struct RecorderMark {
    changes: usize,
    size: SizeMark,
}

/// What the open transaction of a connection has changed.
#[derive(Default)]
pub(in crate::embedded) struct ChangeRecorder {
    recorded: Arc<Mutex<Recorded>>,
    /// The numbers that AUTOINCREMENT has given as of the last commit.
    sequences: Mutex<Sequences>,
    /// The same as of the transaction that was taken last.
    taken_sequences: Mutex<Sequences>,
}

#[derive(Default)]
struct Recorded {
    tables: Vec<String>,
    places: HashMap<String, u32>,
    /// One without a kind is a row that could not be read.
    changes: Vec<Change>,
    size: RecordedSize,
    /// The places of changes whose row has to be read when its statement is done.
    written_blobs: Vec<usize>,
    /// A user's statement has written the numbers of AUTOINCREMENT.
    writes_sequences: bool,
    /// The log has what was recorded before; a COMMIT that changes more is refused.
    is_taken: bool,
    /// Full-text indexes that may merge by themselves, those among them whose statement was taken
    /// back.
    merging: BTreeSet<String>,
    /// Tables from before the node was part of a cluster whose rows cannot be named.
    nameless: HashSet<String>,
}

impl ChangeRecorder {
    /// Records what the connection changes from now on.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::embedded) fn install(db: &mut Connection) -> rusqlite::Result<Self> {
        let recorder = Self::default();
        let recorded = Arc::clone(&recorder.recorded);
        observe_changes(db, move |event| lock(&recorded).note(event))?;
        let recorded = Arc::clone(&recorder.recorded);
        db.commit_hook(Some(move || {
            let recorded = lock(&recorded);
            recorded.is_taken && !recorded.changes.is_empty()
        }))?;
        recorder.reload(db)?;
        Ok(recorder)
    }

    /// Where the open transaction is, to go back to with a savepoint.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::embedded) fn savepoint(&self, db: &Connection) -> rusqlite::Result<RecorderMark> {
        // What comes before the mark must not be written after it.
        flush_full_text(db)?;
        self.read_written_blobs(db)?;
        let recorded = lock(&self.recorded);
        Ok(RecorderMark { changes: recorded.changes.len(), size: recorded.size.mark() })
    }

    /// Reads the rows that were written in place. Before the schema changes, by which they might
    /// have another name.
    fn read_written_blobs(&self, db: &Connection) -> rusqlite::Result<()> {
        let written = std::mem::take(&mut lock(&self.recorded).written_blobs);
        for place in written {
            let (table, rowid, name) = {
                let recorded = lock(&self.recorded);
                let change = recorded.changes.get(place).and_then(|change| change.kind.as_ref());
                let Some(ChangeKind::Update(row)) = change else { continue };
                let name = recorded.tables.get(usize::try_from(row.table).unwrap_or(usize::MAX));
                (row.table, row.new_rowid, name.cloned().unwrap_or_default())
            };
            // It may be gone since, which is recorded after it.
            if let Some((columns, values)) = read_row(db, &name, rowid)? {
                let (old_rowid, new_rowid, old_values) = (rowid, rowid, Vec::new());
                let row = RowUpdate { table, old_rowid, new_rowid, old_values, columns, values };
                lock(&self.recorded).complete(place, ChangeKind::Update(row));
            }
        }
        Ok(())
    }

    /// Why the transaction's changes are not recorded any more, if that is so.
    pub(in crate::embedded) fn limit_passed(&self) -> Option<RecordingLimit> {
        lock(&self.recorded).size.over()
    }

    /// Forgets what was recorded after the mark; the default one: with the whole transaction.
    pub(in crate::embedded) fn rollback_to(&self, mark: RecorderMark) {
        self.rollback_to_mark(mark);
        let mut recorded = lock(&self.recorded);
        if mark.changes == 0 && recorded.size.over().is_none() {
            recorded.tables.clear();
            recorded.places.clear();
            recorded.writes_sequences = false;
            recorded.is_taken = false;
        }
    }

    /// A statement on the schema has run, which began at `mark`.
    ///
    /// # Errors
    /// SQLite's, when a new table cannot be read.
    pub(in crate::embedded) fn record_ddl(
        &self,
        db: &Connection,
        mark: RecorderMark,
        text: &str,
        how: RecordedDdl,
    ) -> rusqlite::Result<()> {
        self.check_rowid_names(db)?;
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

    /// Refuses a new table whose rows could not be named in the log.
    fn check_rowid_names(&self, db: &Connection) -> rusqlite::Result<()> {
        let nameless = read_nameless_tables(db)?;
        if nameless.is_subset(&lock(&self.recorded).nameless) {
            Ok(())
        } else {
            Err(nameless_error())
        }
    }

    /// A statement of another kind has run that changes no rows.
    pub(in crate::embedded) fn record_statement(&self, text: String) {
        lock(&self.recorded).push(ChangeKind::Statement(text));
    }

    /// As [`rollback_to`](ChangeRecorder::rollback_to), within the transaction: its beginning is a
    /// mark like any other.
    fn rollback_to_mark(&self, mark: RecorderMark) {
        let mut recorded = lock(&self.recorded);
        recorded.changes.truncate(mark.changes);
        recorded.written_blobs.retain(|place| *place < mark.changes);
        recorded.size.rollback_to(mark.size);
    }

    fn record_new_table(&self, db: &Connection) -> rusqlite::Result<()> {
        let newest = "SELECT name, sql FROM main.sqlite_schema
            WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid DESC LIMIT 1";
        let (name, sql): (String, String) =
            db.query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        lock(&self.recorded).push(ChangeKind::Statement(sql));
        let Some(TableShape { name: quoted, rowid: Some(rowid), columns }) =
            TableShape::read(db, &name)?
        else {
            return Ok(());
        };
        // Only CREATE TABLE … AS makes a table with rows, and such a table has a rowid, and no
        // column that is generated.
        let has_rows = format!("SELECT EXISTS (SELECT 1 FROM main.{quoted})");
        if !db.query_row(&has_rows, [], |row| row.get(0))? {
            return Ok(());
        }
        let mut select = db.prepare(&format!("SELECT {rowid}, * FROM main.{quoted}"))?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let values = (1..=columns.len())
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
        flush_full_text(db)?;
        self.turn_merges_off(db)?;
        self.read_written_blobs(db)?;
        self.record_sequences(db)?;
        let mut recorded = lock(&self.recorded);
        recorded.writes_sequences = false;
        recorded.is_taken = true;
        recorded.places.clear();
        let (tables, changes) =
            (std::mem::take(&mut recorded.tables), std::mem::take(&mut recorded.changes));
        if tables.iter().any(|table| recorded.nameless.contains(table)) {
            return Err(nameless_error());
        }
        if changes.iter().any(|change| change.kind.is_none()) {
            return Err(rusqlite::Error::ToSqlConversionFailure(Box::new(UnreadableRow)));
        }
        let changes_schema =
            changes.iter().any(|change| matches!(change.kind, Some(ChangeKind::Statement(_))));
        Ok(ChangeSet { tables, changes, changes_schema, ..ChangeSet::default() })
    }

    fn turn_merges_off(&self, db: &Connection) -> rusqlite::Result<()> {
        let merging = std::mem::take(&mut lock(&self.recorded).merging);
        for index in &merging {
            if let Err(error) = automatic_merges::turn_off(db, index) {
                lock(&self.recorded).merging.extend(merging);
                return Err(error);
            }
        }
        // That was reported too.
        lock(&self.recorded).merging.clear();
        Ok(())
    }

    /// SQLite does not report what it writes into `sqlite_sequence`.
    fn record_sequences(&self, db: &Connection) -> rusqlite::Result<()> {
        let now = Sequences::read(db)?;
        let mut recorded = lock(&self.recorded);
        let is_whole = recorded.writes_sequences;
        if let Some(change) = now.change_since(&lock(&self.sequences), is_whole) {
            recorded.push(ChangeKind::Sequences(change));
        }
        *lock(&self.taken_sequences) = now;
        Ok(())
    }

    /// The transaction whose changes were taken is committed.
    pub(in crate::embedded) fn note_commit(&self) {
        {
            let mut recorded = lock(&self.recorded);
            recorded.is_taken = false;
            recorded.size.rollback_to(SizeMark::default());
        }
        *lock(&self.sequences) = std::mem::take(&mut *lock(&self.taken_sequences));
    }

    /// The file is another one.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::embedded) fn reload(&self, db: &Connection) -> rusqlite::Result<()> {
        let nameless = read_nameless_tables(db)?;
        let merging = automatic_merges::indexes_with_setting(db)?;
        {
            let mut recorded = lock(&self.recorded);
            recorded.nameless = nameless;
            recorded.merging.extend(merging);
        }
        self.reload_sequences(db)
    }

    /// The file was changed by another connection.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::embedded) fn reload_sequences(&self, db: &Connection) -> rusqlite::Result<()> {
        *lock(&self.sequences) = Sequences::read(db)?;
        Ok(())
    }
}

impl Recorded {
    fn push(&mut self, kind: ChangeKind) {
        if self.size.add(&kind) {
            self.changes.push(Change { kind: Some(kind) });
        }
    }

    /// Gives a change the row that could not be read when it was made.
    fn complete(&mut self, place: usize, kind: ChangeKind) {
        if self.size.add(&kind)
            && let Some(change) = self.changes.get_mut(place)
        {
            change.kind = Some(kind);
        }
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
        if let Some(index) = automatic_merges::index_of_setting(event) {
            self.merging.insert(index.to_owned());
        }
        if event.table == super::sequences::TABLE {
            self.writes_sequences = true;
            return;
        }
        if self.size.over().is_none() && self.record(event).is_err() {
            self.changes.push(Change { kind: None });
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
            RowOperation::WriteBlob => {
                self.written_blobs.push(self.changes.len());
                let (old_rowid, new_rowid) = (event.old_rowid, event.new_rowid);
                let row = RowUpdate { table, old_rowid, new_rowid, ..RowUpdate::default() };
                ChangeKind::Update(row)
            }
            RowOperation::Update => {
                let (old, new) = (old_values(event)?, new_values(event)?);
                let mut update = RowUpdate {
                    table,
                    old_rowid: event.old_rowid,
                    new_rowid: event.new_rowid,
                    ..RowUpdate::default()
                };
                for (column, (before, after)) in (0..).zip(old.iter().zip(new)) {
                    if !before.is_identical(&after) {
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

/// A full-text index keeps what was written in memory until the COMMIT, which would be too late for
/// the log. It writes it when a savepoint begins.
fn flush_full_text(db: &Connection) -> rusqlite::Result<()> {
    for sql in ["/*debros*/ SAVEPOINT flush", "/*debros*/ RELEASE flush"] {
        db.prepare_cached(sql)?.raw_execute()?;
    }
    Ok(())
}

/// The places and values of the columns of a row of a full-text index's tables.
fn read_row(
    db: &Connection,
    table: &str,
    rowid: i64,
) -> rusqlite::Result<Option<(Vec<u32>, Vec<StoredValue>)>> {
    let Some(TableShape { name, rowid: Some(alias), columns }) = TableShape::read(db, table)?
    else {
        return Ok(None);
    };
    let mut select = db.prepare(&format!("SELECT * FROM main.{name} WHERE {alias} = ?1"))?;
    let mut rows = select.query([rowid])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let values = (0..columns.len())
        .map(|column| row.get_ref(column).map(StoredValue::from))
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Some(((0..).take(values.len()).collect(), values)))
}

/// Tables whose rows cannot be named.
fn read_nameless_tables(db: &Connection) -> rusqlite::Result<HashSet<String>> {
    let suspects = "/*debros*/ SELECT name FROM main.sqlite_schema
        WHERE type = 'table' AND sql LIKE '%\\_rowid\\_%' ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%'";
    let mut select = db.prepare_cached(suspects)?;
    let mut names = select.query([])?;
    let mut nameless = HashSet::new();
    while let Some(row) = names.next()? {
        let name: String = row.get(0)?;
        if TableShape::read(db, &name)?.is_some_and(|shape| !shape.can_name_rows()) {
            nameless.insert(name);
        }
    }
    Ok(nameless)
}

fn nameless_error() -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(NamelessRowid))
}
