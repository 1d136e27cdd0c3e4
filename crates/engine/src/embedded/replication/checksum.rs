//! What two nodes' files are compared by.

use super::position::read_position;
use super::recorder::LOCAL_TABLES;
use super::table_shape::TableShape;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Which migrations a node has run on its system's file is the node's own.
const MIGRATIONS: &str = "schema_migrations";

/// SQLite's steps between two looks at whether a hash is still wanted.
const STEPS_PER_LOOK: i32 = 100_000;

/// A file as it is at one moment, on a connection of its own: what is written afterwards waits for
/// nothing, and is not seen.
pub(in crate::embedded) struct FileSnapshot {
    db: Connection,
    position: u64,
}

impl FileSnapshot {
    /// Keeps the present moment of a file. It reads next to nothing.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::embedded) fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.execute_batch("PRAGMA cache_size = -2048; BEGIN")?;
        // The moment is that of the first read.
        let position = read_position(&db)?;
        Ok(Self { db, position })
    }

    /// The last entry of the log that the file holds.
    pub(in crate::embedded) fn position(&self) -> u64 {
        self.position
    }

    /// A hash of the schema and all rows. Two files of the same entry have the same one. It reads
    /// the whole file, row by row; what SQLite computes from the rows (indexes, generated columns)
    /// is left out. It ends when `is_unwanted` says so.
    ///
    /// # Errors
    /// SQLite's; `OperationInterrupted` when it is not wanted any more.
    pub(in crate::embedded) fn hash(
        mut self,
        is_unwanted: impl FnMut() -> bool + Send + 'static,
    ) -> rusqlite::Result<[u8; 32]> {
        self.db.progress_handler(STEPS_PER_LOOK, Some(is_unwanted))?;
        let mut hash = Sha256::new();
        let schema =
            "SELECT type, name, coalesce(sql, '') FROM main.sqlite_schema ORDER BY name, type";
        let mut objects = self.db.prepare(schema)?;
        let mut objects = objects.query([])?;
        while let Some(object) = objects.next()? {
            let (kind, name, sql): (String, String, String) =
                (object.get(0)?, object.get(1)?, object.get(2)?);
            let is_local =
                LOCAL_TABLES.iter().chain([&MIGRATIONS]).any(|local| name.contains(local));
            if is_local {
                continue;
            }
            for text in [&kind, &name, &sql] {
                add(&mut hash, 3, text.as_bytes());
            }
            if kind == "table" && !sql.starts_with("CREATE VIRTUAL") {
                add_rows(&mut hash, &self.db, &name)?;
            }
        }
        Ok(hash.finalize().into())
    }
}

/// Rows in the order of the table, which is that of its rowids or its primary key.
fn add_rows(hash: &mut Sha256, db: &Connection, table: &str) -> rusqlite::Result<()> {
    let Some(shape) = TableShape::read(db, table)? else { return Ok(()) };
    let columns = shape.columns.iter().filter(|column| !column.is_generated);
    let columns: Vec<&str> =
        shape.rowid.as_deref().into_iter().chain(columns.map(|column| &*column.name)).collect();
    let all = format!("SELECT {} FROM main.{} NOT INDEXED", columns.join(", "), shape.name);
    let mut select = db.prepare(&all)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        for column in 0..columns.len() {
            match row.get_ref(column)? {
                ValueRef::Null => add(hash, 0, &[]),
                ValueRef::Integer(number) => add(hash, 1, &number.to_le_bytes()),
                ValueRef::Real(number) => add(hash, 2, &number.to_bits().to_le_bytes()),
                ValueRef::Text(text) => add(hash, 3, text),
                ValueRef::Blob(bytes) => add(hash, 4, bytes),
            }
        }
    }
    Ok(())
}

fn add(hash: &mut Sha256, kind: u8, bytes: &[u8]) {
    hash.update([kind]);
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
