//! The namespace's objects, as the rewriter needs them.

use super::volatile_default::VolatileDefault;
use crate::allowed::shadow_endings;
use crate::names::{is_same_name, starts_with_ignore_case};
use rusqlite::{Connection, Result};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// The kind of object behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Table,
    View,
    /// A full-text table, which has a hidden column of its own name.
    FullText,
    /// Another virtual table.
    Virtual,
    /// A table in which a virtual table stores its content.
    Shadow,
}

/// A column of a table.
#[derive(Debug)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    pub(crate) not_null: bool,
    pub(crate) hidden: bool,
    pub(crate) generated: bool,
    /// Its default, as the schema has it.
    pub(crate) default: Option<String>,
    /// The rewriter's reading of the default, after its first use.
    pub(crate) volatile_default: OnceLock<Option<VolatileDefault>>,
}

/// The objects of a namespace, by name. Read from the catalogue's connection on first use.
#[derive(Debug, Default)]
pub(crate) struct SchemaCache {
    objects: OnceCell<HashMap<String, (ObjectKind, String)>>,
    full_text: OnceCell<bool>,
    columns: RefCell<HashMap<String, Arc<Vec<TableColumn>>>>,
}

impl SchemaCache {
    fn objects(&self, db: &Connection) -> &HashMap<String, (ObjectKind, String)> {
        self.objects.get_or_init(|| read_objects(db).unwrap_or_default())
    }

    /// The kind of the table or view of that name, and its declared name.
    pub(crate) fn find_object(&self, db: &Connection, name: &str) -> Option<(ObjectKind, String)> {
        self.objects(db).get(&name.to_ascii_lowercase()).cloned()
    }

    /// Whether there is any full-text table.
    pub(crate) fn has_full_text(&self, db: &Connection) -> bool {
        *self.full_text.get_or_init(|| {
            self.objects(db).values().any(|(kind, _)| *kind == ObjectKind::FullText)
        })
    }

    /// The columns of a table or view; none if it does not exist.
    pub(crate) fn columns(&self, db: &Connection, table: &str) -> Arc<Vec<TableColumn>> {
        // Missing objects are not cached: names can be any, and as long as a statement.
        if self.find_object(db, table).is_none() {
            return Arc::default();
        }
        let key = table.to_ascii_lowercase();
        if let Some(known) = self.columns.borrow().get(&key) {
            return Arc::clone(known);
        }
        let read = Arc::new(read_columns(db, table).unwrap_or_default());
        self.columns.borrow_mut().insert(key, Arc::clone(&read));
        read
    }
}

fn read_objects(db: &Connection) -> Result<HashMap<String, (ObjectKind, String)>> {
    let mut objects = HashMap::new();
    let mut shadows = Vec::new();
    let mut statement = db.prepare_cached(
        "SELECT name, type, coalesce(sql, '') FROM sqlite_schema WHERE type IN ('table', 'view')",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, kind, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let key = name.to_ascii_lowercase();
        let kind = match kind.as_str() {
            "view" => ObjectKind::View,
            _ if starts_with_ignore_case(&sql, "CREATE VIRTUAL") => {
                let module = module_of(&sql).unwrap_or_default();
                shadows
                    .extend(shadow_endings(&module).iter().map(|ending| format!("{key}{ending}")));
                let is_full_text = ["fts3", "fts4", "fts5"]
                    .iter()
                    .any(|full_text| is_same_name(full_text, &module));
                if is_full_text { ObjectKind::FullText } else { ObjectKind::Virtual }
            }
            _ => ObjectKind::Table,
        };
        objects.insert(key, (kind, name));
    }
    for name in shadows {
        if let Some((kind @ ObjectKind::Table, _)) = objects.get_mut(&name) {
            *kind = ObjectKind::Shadow;
        }
    }
    Ok(objects)
}

/// The module of a virtual table. SQLite stores `CREATE VIRTUAL TABLE` and the text after it
/// unchanged.
fn module_of(sql: &str) -> debros_proto::Result<String> {
    crate::parsed_source::with_statement(sql, |source, statement| match statement {
        syntaqlite_syntax::nodes::Stmt::CreateVirtualTableStmt(create) => {
            source.name_of(create.module_name())
        }
        _ => Err(crate::parsed_source::not_understood_error()),
    })
}

fn read_columns(db: &Connection, table: &str) -> Result<Vec<TableColumn>> {
    let mut statement = db.prepare_cached(
        "SELECT name, \"notnull\", dflt_value, hidden FROM pragma_table_xinfo(?1) ORDER BY cid",
    )?;
    let mut rows = statement.query([table])?;
    let mut columns = Vec::new();
    while let Some(row) = rows.next()? {
        let hidden: i64 = row.get(3)?;
        columns.push(TableColumn {
            name: row.get(0)?,
            not_null: row.get(1)?,
            hidden: hidden == 1,
            generated: hidden >= 2,
            default: row.get(2)?,
            volatile_default: OnceLock::new(),
        });
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::SchemaCache;
    use rusqlite::Connection;

    #[test]
    fn what_is_remembered_is_of_tables_that_are_there() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t(a, b); CREATE VIEW v AS SELECT a FROM t").unwrap();
        let schema = SchemaCache::default();
        for n in 0..1000 {
            assert!(schema.columns(&db, &format!("nothing{n}")).is_empty());
        }
        assert_eq!((schema.columns(&db, "T").len(), schema.columns(&db, "v").len()), (2, 1));
        assert_eq!(schema.columns.borrow().len(), 2);
    }
}
