//! What a table looks like to somebody who writes its rows.

use rusqlite::Connection;

/// A table, as far as its rows are written by their values.
#[derive(Debug)]
pub(super) struct TableShape {
    /// The name, quoted.
    pub(super) name: String,
    /// A name of the rowid that no column has; `None` in a table without rowid.
    pub(super) rowid: Option<&'static str>,
    pub(super) columns: Vec<ColumnShape>,
}

#[derive(Debug)]
pub(super) struct ColumnShape {
    /// The name, quoted.
    pub(super) name: String,
    /// SQLite computes its values.
    pub(super) is_generated: bool,
    /// It is a part of the primary key.
    pub(super) is_key: bool,
}

/// The names of a rowid.
const ROWID_NAMES: [&str; 3] = ["_rowid_", "rowid", "oid"];

impl TableShape {
    /// The table of that name; `None` when there is none.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn read(db: &Connection, table: &str) -> rusqlite::Result<Option<Self>> {
        // `pragma_table_list` says so too, and looks at all views for it, which can take forever.
        let without_rowid: bool = db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM pragma_index_info(?1))")?
            .query_row([table], |row| row.get(0))?;
        let mut columns = Vec::new();
        let mut names = Vec::<String>::new();
        let mut select =
            db.prepare_cached("SELECT name, hidden, pk FROM pragma_table_xinfo(?1)")?;
        let mut rows = select.query([table])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            columns.push(ColumnShape {
                name: quote(&name),
                is_generated: row.get::<_, i64>(1)? >= 2,
                is_key: row.get::<_, i64>(2)? > 0,
            });
            names.push(name);
        }
        if columns.is_empty() {
            return Ok(None);
        }
        let is_free = |alias: &&&str| !names.iter().any(|name| name.eq_ignore_ascii_case(alias));
        let rowid = if without_rowid { None } else { ROWID_NAMES.iter().find(is_free).copied() };
        if rowid.is_none() && !without_rowid {
            return Err(rusqlite::Error::InvalidColumnName(format!(
                "{table}: its columns have all names of the rowid"
            )));
        }
        Ok(Some(Self { name: quote(table), rowid, columns }))
    }

    /// Whether rows are told apart by their keys alone.
    pub(super) fn is_without_rowid(&self) -> bool {
        self.rowid.is_none()
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
