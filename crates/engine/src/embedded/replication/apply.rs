//! Writes into a file what another node's transaction has changed.

use super::change_set::{
    ChangeKind, ChangeSet, RowDelete, RowInsert, RowUpdate, SequenceChange, StoredValue,
};
use super::position::{read_position, write_position};
use super::table_shape::TableShape;
use crate::embedded::connection_limits::{BUSY_TIME, MAX_LENGTH};
use crate::embedded::functions;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, ToSql, TransactionBehavior, params_from_iter};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// A connection that only applies entries. It is not the one that runs users' statements: a
/// full-text index keeps parts of its tables in memory, and learns of changes to them only when
/// another connection makes them.
pub(in crate::embedded) struct EntryApplier {
    db: Connection,
    shapes: HashMap<String, Arc<TableShape>>,
    /// The schema that the shapes are of. This node changes it itself while it leads.
    schema_version: i64,
}

impl EntryApplier {
    /// Opens the connection. The file is there.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::embedded) fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY_TIME)?;
        db.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::try_from(MAX_LENGTH).unwrap_or(i32::MAX))?;
        functions::register_linear_functions(&db)?;
        // What triggers, references and checks did is in the entry, or was done before it.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
        db.execute_batch(
            "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;
             PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON; PRAGMA cache_size = -2048;
             PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 33554432;",
        )?;
        db.set_prepared_statement_cache_capacity(256);
        Ok(Self { db, shapes: HashMap::new(), schema_version: 0 })
    }

    /// Applies entries, in order and in one transaction. Those that the file holds already are left
    /// out. Returns the last entry that it held before.
    ///
    /// # Errors
    /// SQLite's; nothing was changed then.
    pub(in crate::embedded) fn apply<'e>(
        &mut self,
        entries: impl IntoIterator<Item = (u64, &'e ChangeSet)>,
    ) -> rusqlite::Result<u64> {
        let held = read_position(&self.db)?;
        let Self { db, shapes, schema_version } = self;
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = read_schema_version(&transaction)?;
        if *schema_version != version {
            shapes.clear();
        }
        let mut newest = held;
        for (number, changes) in entries {
            if number <= newest {
                continue;
            }
            let mut file = OpenFile { db: &transaction, shapes };
            file.apply(changes)?;
            newest = number;
        }
        if newest > held {
            write_position(&transaction, newest)?;
            *schema_version = read_schema_version(&transaction)?;
            transaction.commit()?;
        }
        Ok(held)
    }
}

/// The file within the open transaction.
struct OpenFile<'t> {
    db: &'t Connection,
    shapes: &'t mut HashMap<String, Arc<TableShape>>,
}

impl OpenFile<'_> {
    fn apply(&mut self, changes: &ChangeSet) -> rusqlite::Result<()> {
        for change in &changes.changes {
            match &change.kind {
                Some(ChangeKind::Insert(row)) => {
                    let shape = self.shape_of(changes, row.table)?;
                    self.insert(&shape, row)?;
                }
                Some(ChangeKind::Update(row)) => {
                    let shape = self.shape_of(changes, row.table)?;
                    self.update(&shape, row)?;
                }
                Some(ChangeKind::Delete(row)) => {
                    let shape = self.shape_of(changes, row.table)?;
                    self.delete(&shape, row)?;
                }
                Some(ChangeKind::Statement(sql)) => {
                    self.db.execute_batch(sql)?;
                    self.shapes.clear();
                }
                Some(ChangeKind::Sequences(change)) => self.set_sequences(change)?,
                None => return Err(unknown_change_error()),
            }
        }
        Ok(())
    }

    fn shape_of(&mut self, changes: &ChangeSet, table: u32) -> rusqlite::Result<Arc<TableShape>> {
        let place = usize::try_from(table).unwrap_or(usize::MAX);
        let name = changes.tables.get(place).ok_or_else(unknown_change_error)?;
        if let Some(shape) = self.shapes.get(name) {
            return Ok(Arc::clone(shape));
        }
        let shape = TableShape::read(self.db, name)?
            .ok_or_else(|| rusqlite::Error::InvalidColumnName(format!("no table {name}")))?;
        let shape = Arc::new(shape);
        self.shapes.insert(name.clone(), Arc::clone(&shape));
        Ok(shape)
    }

    fn insert(&self, shape: &TableShape, row: &RowInsert) -> rusqlite::Result<()> {
        let mut names = Vec::new();
        let mut values: Vec<&dyn ToSql> = Vec::new();
        for (column, value) in shape.columns.iter().zip(&row.values) {
            if !column.is_generated {
                names.push(column.name.as_str());
                values.push(value);
            }
        }
        // The last one counts where a column is the rowid by another name.
        if let Some(rowid) = &shape.rowid {
            names.push(rowid);
            values.push(&row.rowid);
        }
        let marks = vec!["?"; names.len()].join(", ");
        let sql =
            format!("INSERT INTO main.{} ({}) VALUES ({marks})", shape.name, names.join(", "));
        self.run_on_one_row(&sql, &values)
    }

    fn update(&self, shape: &TableShape, row: &RowUpdate) -> rusqlite::Result<()> {
        let mut sets = Vec::new();
        let mut values: Vec<&dyn ToSql> = Vec::new();
        for (place, value) in row.columns.iter().zip(&row.values) {
            let place = usize::try_from(*place).unwrap_or(usize::MAX);
            let column = shape.columns.get(place).ok_or_else(unknown_change_error)?;
            if !column.is_generated {
                sets.push(format!("{} = ?", column.name));
                values.push(value);
            }
        }
        if let Some(rowid) = &shape.rowid
            && row.old_rowid != row.new_rowid
        {
            sets.push(format!("{rowid} = ?"));
            values.push(&row.new_rowid);
        }
        if sets.is_empty() {
            return Ok(());
        }
        let found = self.condition(shape, &row.old_rowid, &row.old_values, &mut values);
        let sql = format!("UPDATE main.{} SET {} WHERE {found}", shape.name, sets.join(", "));
        self.run_on_one_row(&sql, &values)
    }

    fn delete(&self, shape: &TableShape, row: &RowDelete) -> rusqlite::Result<()> {
        let mut values: Vec<&dyn ToSql> = Vec::new();
        let found = self.condition(shape, &row.rowid, &row.old_values, &mut values);
        let sql = format!("DELETE FROM main.{} WHERE {found}", shape.name);
        self.run_on_one_row(&sql, &values)
    }

    /// What finds a row.
    fn condition<'v>(
        &self,
        shape: &TableShape,
        rowid: &'v i64,
        old: &'v [StoredValue],
        values: &mut Vec<&'v dyn ToSql>,
    ) -> String {
        if let Some(name) = &shape.rowid {
            values.push(rowid);
            return format!("{name} = ?");
        }
        debug_assert!(shape.is_without_rowid());
        let mut parts = Vec::new();
        for (column, value) in shape.columns.iter().zip(old) {
            if let Some(collation) = &column.key_collation {
                parts.push(format!("{} = ? COLLATE {collation}", column.name));
                values.push(value);
            }
        }
        parts.join(" AND ")
    }

    /// A file that is what the leader's was has the row exactly once.
    fn run_on_one_row(&self, sql: &str, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
        let rows = self.db.prepare_cached(sql)?.execute(params_from_iter(values))?;
        if rows == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(rows)) }
    }

    /// What SQLite wrote there by itself, for rows that were inserted here, is the same or goes.
    fn set_sequences(&self, change: &SequenceChange) -> rusqlite::Result<()> {
        if change.is_whole {
            self.db.execute("DELETE FROM main.sqlite_sequence", [])?;
        }
        for rowid in &change.removed {
            self.db
                .prepare_cached("DELETE FROM main.sqlite_sequence WHERE rowid = ?1")?
                .execute([rowid])?;
        }
        for row in &change.rows {
            self.db
                .prepare_cached("DELETE FROM main.sqlite_sequence WHERE rowid = ?1 OR name IS ?2")?
                .execute((row.rowid, &row.name))?;
        }
        for row in &change.rows {
            self.db
                .prepare_cached(
                    "INSERT INTO main.sqlite_sequence (rowid, name, seq) VALUES (?1, ?2, ?3)",
                )?
                .execute((row.rowid, &row.name, &row.number))?;
        }
        Ok(())
    }
}

fn read_schema_version(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("PRAGMA main.schema_version")?.query_row([], |row| row.get(0))
}

fn unknown_change_error() -> rusqlite::Error {
    rusqlite::Error::InvalidColumnName(
        "a change that this version of the node does not know".to_owned(),
    )
}
