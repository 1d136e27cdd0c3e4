//! What the walk over a statement asks about the namespace's objects.

use super::default::LiveDefault;
use crate::allowed::shadow_endings;
use crate::names::{same, starts_with};
use rusqlite::{Connection, Result};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// What kind of thing a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Table,
    View,
    /// A full-text table, which has a hidden column of its own name.
    FullText,
    /// Another virtual table.
    Virtual,
    /// A table that a virtual table keeps its content in.
    Shadow,
}

/// A column of a table.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) not_null: bool,
    pub(crate) hidden: bool,
    pub(crate) generated: bool,
    /// Its default, as the schema has it.
    pub(crate) default: Option<String>,
    /// What the walk reads in the default, once it was asked for.
    pub(crate) live: OnceLock<Option<LiveDefault>>,
}

/// The objects of a namespace, by name. Read from the catalogue's connection when first asked for.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    objects: OnceCell<HashMap<String, (Kind, String)>>,
    full_text: OnceCell<bool>,
    columns: RefCell<HashMap<String, Arc<Vec<Column>>>>,
}

impl Schema {
    fn objects(&self, db: &Connection) -> &HashMap<String, (Kind, String)> {
        self.objects.get_or_init(|| read_objects(db).unwrap_or_default())
    }

    /// The kind of the table or view of that name, and its name as it was declared.
    pub(crate) fn find(&self, db: &Connection, name: &str) -> Option<(Kind, String)> {
        self.objects(db).get(&name.to_ascii_lowercase()).cloned()
    }

    /// Whether there is any full-text table.
    pub(crate) fn has_full_text(&self, db: &Connection) -> bool {
        *self.full_text.get_or_init(|| self.objects(db).values().any(|(kind, _)| *kind == Kind::FullText))
    }

    /// The columns of a table or view; none when there is no such thing.
    pub(crate) fn columns(&self, db: &Connection, table: &str) -> Arc<Vec<Column>> {
        // What is not there is not remembered: names can be any, and as long as a statement.
        if self.find(db, table).is_none() {
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

fn read_objects(db: &Connection) -> Result<HashMap<String, (Kind, String)>> {
    let mut objects = HashMap::new();
    let mut shadows = Vec::new();
    let mut statement =
        db.prepare_cached("SELECT name, type, coalesce(sql, '') FROM sqlite_schema WHERE type IN ('table', 'view')")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, kind, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let key = name.to_ascii_lowercase();
        let kind = match kind.as_str() {
            "view" => Kind::View,
            _ if starts_with(&sql, "CREATE VIRTUAL") => {
                let module = module_of(&sql).unwrap_or_default();
                shadows.extend(shadow_endings(&module).iter().map(|ending| format!("{key}{ending}")));
                let is_full_text = ["fts3", "fts4", "fts5"].iter().any(|full_text| same(full_text, &module));
                if is_full_text { Kind::FullText } else { Kind::Virtual }
            }
            _ => Kind::Table,
        };
        objects.insert(key, (kind, name));
    }
    for name in shadows {
        if let Some((kind @ Kind::Table, _)) = objects.get_mut(&name) {
            *kind = Kind::Shadow;
        }
    }
    Ok(objects)
}

/// The module of a virtual table. SQLite keeps `CREATE VIRTUAL TABLE` and the text after it as it was written.
fn module_of(sql: &str) -> debros_proto::Result<String> {
    crate::source::with_statement(sql, |source, statement| match statement {
        syntaqlite_syntax::nodes::Stmt::CreateVirtualTableStmt(create) => source.name(create.module_name()),
        _ => Err(crate::source::not_understood()),
    })
}

fn read_columns(db: &Connection, table: &str) -> Result<Vec<Column>> {
    let mut statement =
        db.prepare_cached("SELECT name, \"notnull\", dflt_value, hidden FROM pragma_table_xinfo(?1) ORDER BY cid")?;
    let mut rows = statement.query([table])?;
    let mut columns = Vec::new();
    while let Some(row) = rows.next()? {
        let hidden: i64 = row.get(3)?;
        columns.push(Column {
            name: row.get(0)?,
            not_null: row.get(1)?,
            hidden: hidden == 1,
            generated: hidden >= 2,
            default: row.get(2)?,
            live: OnceLock::new(),
        });
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::Schema;
    use rusqlite::Connection;

    #[test]
    fn what_is_remembered_is_of_tables_that_are_there() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t(a, b); CREATE VIEW v AS SELECT a FROM t").unwrap();
        let schema = Schema::default();
        for n in 0..1000 {
            assert!(schema.columns(&db, &format!("nothing{n}")).is_empty());
        }
        assert_eq!((schema.columns(&db, "T").len(), schema.columns(&db, "v").len()), (2, 1));
        assert_eq!(schema.columns.borrow().len(), 2);
    }
}
