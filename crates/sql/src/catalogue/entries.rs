//! A schema as a list of rows: the engine stores it so, and a catalogue is recreated from it.
//!
//! The list is the whole of `sqlite_schema`, in the order in which its objects were created:
//! whatever a virtual table reads was there before it. So the texts run again in that order. SQLite
//! may not accept a text a second time (a full-text table whose content table was dropped since):
//! then its row is restored as it was, and the object is as broken as before, for its users alone.

use super::{Catalogue, CatalogueDb, broken_catalogue_error};
use crate::names::{is_same_name, starts_with_ignore_case};
use debros_proto::{Namespace, Result};
use rusqlite::config::DbConfig;
use std::collections::HashMap;

/// The kind of object that an entry creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryKind {
    /// A table or virtual table.
    Table,
    /// A view.
    View,
    /// An index.
    Index,
    /// A trigger.
    Trigger,
}

impl EntryKind {
    /// The name under which the engine stores it, which is SQLite's.
    pub const fn as_str(self) -> &'static str {
        match self {
            EntryKind::Table => "table",
            EntryKind::View => "view",
            EntryKind::Index => "index",
            EntryKind::Trigger => "trigger",
        }
    }

    /// The kind with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [EntryKind::Table, EntryKind::View, EntryKind::Index, EntryKind::Trigger]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// One row of a schema: an object of the user's, or one that SQLite or a virtual table created
/// along with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// Its position: unique, and greater than that of everything created before it.
    pub position: i64,
    /// What it creates.
    pub kind: EntryKind,
    /// The object's name, as the user gave it.
    pub name: String,
    /// The table, or view, that it belongs to; its own name if it is one.
    pub table: String,
    /// The CREATE text, as `sqlite_schema` shows it; none for the index of a constraint.
    pub sql: Option<String>,
}

/// The difference between two lists of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogueChanges {
    /// Entries that are new or changed: to be stored at their positions, replacing the entries
    /// there.
    pub put: Vec<CatalogueEntry>,
    /// Positions that are empty now.
    pub removed: Vec<i64>,
}

impl CatalogueChanges {
    /// The difference between two lists: the engine writes it beside a change of the schema.
    pub fn between(old: &[CatalogueEntry], new: &[CatalogueEntry]) -> Self {
        let mut known: HashMap<i64, &CatalogueEntry> =
            old.iter().map(|entry| (entry.position, entry)).collect();
        let put = new
            .iter()
            .filter(|entry| known.remove(&entry.position) != Some(entry))
            .cloned()
            .collect();
        let mut removed: Vec<i64> = known.into_keys().collect();
        removed.sort_unstable();
        Self { put, removed }
    }

    /// Whether nothing changed, as after `CREATE TABLE IF NOT EXISTS` of an existing table.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.removed.is_empty()
    }
}

impl Catalogue {
    /// Recreates a catalogue from the rows of [`entries`](Catalogue::entries). `broken` receives
    /// each entry that cannot be recreated, and why; all others are there.
    ///
    /// # Errors
    /// `internal` when SQLite cannot make a database in memory.
    pub fn load(
        namespace: &Namespace,
        entries: &[CatalogueEntry],
        broken: impl FnMut(&CatalogueEntry, &str),
    ) -> Result<Self> {
        let mut inner = CatalogueDb::open()?;
        let mut ordered: Vec<&CatalogueEntry> = entries.iter().collect();
        ordered.sort_by_key(|entry| entry.position);
        inner.recreate_objects(&ordered, broken).map_err(|_| super::broken_catalogue_error())?;
        Self::from_db(namespace, inner)
    }

    /// The schema as a list, in order of position.
    ///
    /// # Errors
    /// `internal` when the catalogue cannot be read.
    pub fn entries(&self) -> Result<Vec<CatalogueEntry>> {
        self.lock().read_entries().map_err(|_| broken_catalogue_error())
    }
}

impl CatalogueDb {
    fn read_entries(&self) -> rusqlite::Result<Vec<CatalogueEntry>> {
        let mut statement = self.db.prepare_cached(
            "SELECT rowid, type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid",
        )?;
        let mut rows = statement.query([])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            let kind: String = row.get(1)?;
            if let Some(kind) = EntryKind::from_name(&kind) {
                let (name, table) = (row.get(2)?, row.get(3)?);
                entries.push(CatalogueEntry {
                    position: row.get(0)?,
                    kind,
                    name,
                    table,
                    sql: row.get(4)?,
                });
            }
        }
        Ok(entries)
    }

    fn recreate_objects(
        &mut self,
        ordered: &[&CatalogueEntry],
        mut report: impl FnMut(&CatalogueEntry, &str),
    ) -> rusqlite::Result<()> {
        // The tables behind a full-text table that is not recreated are created by their names.
        self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
        self.db.execute_batch("BEGIN")?;
        let mut broken = Vec::new();
        for entry in ordered {
            let Some(sql) = &entry.sql else { continue };
            let made = if starts_with_ignore_case(&entry.name, "sqlite_stat") {
                self.db.execute_batch("ANALYZE")
            } else if is_same_name(&entry.name, "sqlite_sequence") {
                self.create_sequence_table()
            } else {
                self.db.execute_batch(sql)
            };
            // The objects that virtual tables create come with them.
            if let Err(error) = made
                && !self.has_entry(entry)?
            {
                report(entry, &error.to_string());
                broken.push(*entry);
            }
        }
        self.restore_rows(ordered, &broken)?;
        self.db.execute_batch("COMMIT")?;
        self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        Ok(())
    }

    /// It is there from the first AUTOINCREMENT on, and stays when that table is dropped.
    fn create_sequence_table(&self) -> rusqlite::Result<()> {
        self.db
            .execute_batch("CREATE TABLE _debros_first(id INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE _debros_first")
    }

    fn has_entry(&self, entry: &CatalogueEntry) -> rusqlite::Result<bool> {
        self.db
            .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = ?1 AND name = ?2")?
            .exists((entry.kind.as_str(), &entry.name))
    }

    /// Gives every row its position, and restores the rows of objects that could not be recreated.
    fn restore_rows(
        &mut self,
        ordered: &[&CatalogueEntry],
        broken: &[&CatalogueEntry],
    ) -> rusqlite::Result<()> {
        let made = self.read_entries()?;
        if broken.is_empty() && made.iter().eq(ordered.iter().copied()) {
            return Ok(());
        }
        let mut wanted: HashMap<(EntryKind, &str), &CatalogueEntry> =
            ordered.iter().map(|entry| ((entry.kind, entry.name.as_str()), *entry)).collect();
        let mut behind = ordered.last().map_or(0, |entry| entry.position);
        // No other code may write here.
        self.db.authorizer(
            None::<fn(rusqlite::hooks::AuthContext<'_>) -> rusqlite::hooks::Authorization>,
        )?;
        self.db.execute_batch("PRAGMA writable_schema = ON")?;
        // By way of unused numbers. A virtual table that was renamed writes its tables' texts in
        // another way.
        let mut update =
            self.db.prepare("UPDATE sqlite_schema SET rowid = ?2, sql = ?3 WHERE rowid = ?1")?;
        for entry in &made {
            let known = wanted.remove(&(entry.kind, entry.name.as_str()));
            let position = match known {
                Some(known) => known.position,
                None => {
                    behind += 1;
                    behind
                }
            };
            let sql = known
                .filter(|known| !starts_with_ignore_case(&known.name, "sqlite_"))
                .map_or(&entry.sql, |known| &known.sql);
            update.execute((entry.position, -position, sql))?;
        }
        drop(update);
        self.db.execute_batch("UPDATE sqlite_schema SET rowid = -rowid")?;
        for entry in broken {
            // An ordinary table and an index have pages, which cannot be made up.
            let is_text = matches!(entry.kind, EntryKind::View | EntryKind::Trigger)
                || entry
                    .sql
                    .as_deref()
                    .is_some_and(|sql| starts_with_ignore_case(sql, "CREATE VIRTUAL"));
            if is_text {
                self.db.execute(
                    "INSERT INTO sqlite_schema (rowid, type, name, tbl_name, rootpage, sql) VALUES (?1, ?2, ?3, ?4, 0, ?5)",
                    (entry.position, entry.kind.as_str(), &entry.name, &entry.table, &entry.sql),
                )?;
            }
        }
        // The schema is read again.
        self.db.execute_batch("PRAGMA writable_schema = RESET")?;
        self.install_authorizer()
    }
}
