//! A schema as a list of texts: how the engine keeps it, and how a catalogue is made from it again.

use super::{Catalogue, Inner, broken};
use debros_proto::{Error, Namespace, Result};

/// What an entry makes.
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
    /// `ANALYZE` was run, so that `sqlite_stat1` exists.
    Statistics,
}

impl EntryKind {
    /// The name under which the engine keeps it.
    pub const fn as_str(self) -> &'static str {
        match self {
            EntryKind::Table => "table",
            EntryKind::View => "view",
            EntryKind::Index => "index",
            EntryKind::Trigger => "trigger",
            EntryKind::Statistics => "statistics",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [EntryKind::Table, EntryKind::View, EntryKind::Index, EntryKind::Trigger, EntryKind::Statistics]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// One object of a schema. Kind and name together are unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it makes.
    pub kind: EntryKind,
    /// The object's name, as the user gave it.
    pub name: String,
    /// The user's own CREATE text, as `sqlite_schema` shows it.
    pub sql: String,
}

/// What turned one list of entries into another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries that are new or have another text: to be inserted, or changed where kind and name are there.
    pub put: Vec<Entry>,
    /// Entries that are gone.
    pub removed: Vec<Entry>,
}

impl Changes {
    /// Whether nothing changed, as after `CREATE TABLE IF NOT EXISTS` of a table that is there.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.removed.is_empty()
    }
}

impl Catalogue {
    /// Makes a catalogue from what [`entries`](Catalogue::entries) gave. Entries of one kind must stand in the order in
    /// which they were first put; the order of kinds does not matter.
    ///
    /// # Errors
    /// `internal` when an entry is not one that SQLite accepts: the list is not what was kept.
    pub fn load(namespace: &Namespace, entries: &[Entry]) -> Result<Self> {
        let inner = Inner::open()?;
        let mut ordered: Vec<&Entry> = entries.iter().collect();
        ordered.sort_by_key(|entry| entry.kind);
        let run = |sql: &str| inner.db.execute_batch(sql);
        run("BEGIN").map_err(|_| broken())?;
        for entry in ordered {
            run(&entry.sql).map_err(|error| {
                Error::internal(format!("the {} {} of the catalogue: {error}", entry.kind.as_str(), entry.name))
            })?;
        }
        run("COMMIT").map_err(|_| broken())?;
        Self::over(namespace, inner)
    }

    /// The schema as a list, in the order in which [`load`](Catalogue::load) wants it.
    ///
    /// # Errors
    /// `internal` when the catalogue can not be read.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let inner = self.lock();
        read(&inner).map_err(|_| broken())
    }

    /// What makes another catalogue's list into this one's: what the engine writes beside a change of the schema.
    ///
    /// # Errors
    /// `internal` when a catalogue can not be read.
    pub fn changes_since(&self, before: &Catalogue) -> Result<Changes> {
        let (old, new) = (before.entries()?, self.entries()?);
        let key = |entry: &Entry| (entry.kind, entry.name.clone());
        let known: std::collections::HashMap<_, &Entry> = old.iter().map(|entry| (key(entry), entry)).collect();
        let kept: std::collections::HashSet<_> = new.iter().map(key).collect();
        Ok(Changes {
            put: new.iter().filter(|entry| known.get(&key(entry)) != Some(entry)).cloned().collect(),
            removed: old.iter().filter(|entry| !kept.contains(&key(entry))).cloned().collect(),
        })
    }
}

fn read(inner: &Inner) -> rusqlite::Result<Vec<Entry>> {
    use super::schema::Kind;
    let mut statement =
        inner.db.prepare_cached("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")?;
    let mut rows = statement.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let (kind, name, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if name.eq_ignore_ascii_case("sqlite_stat1") {
            entries.push(Entry { kind: EntryKind::Statistics, name: String::new(), sql: "ANALYZE".to_owned() });
            continue;
        }
        // What SQLite and the virtual tables make by themselves comes again by itself.
        let shadow = matches!(inner.schema.find(&inner.db, &name), Some((Kind::Shadow, _))) && kind == "table";
        if shadow || name.to_ascii_lowercase().starts_with("sqlite_") {
            continue;
        }
        if let Some(kind) = EntryKind::from_name(&kind) {
            entries.push(Entry { kind, name, sql });
        }
    }
    entries.sort_by_key(|entry| entry.kind);
    Ok(entries)
}
