//! What a table looks like to somebody who writes its rows.

use rusqlite::Connection;

/// A table, as far as its rows are written by their values.
#[derive(Debug)]
pub(super) struct TableShape {
    /// The name, quoted.
    pub(super) name: String,
    /// A name of the rowid, quoted; `None` in a table without rowid, and where columns have all
    /// of its names.
    pub(super) rowid: Option<String>,
    pub(super) columns: Vec<ColumnShape>,
}

#[derive(Debug)]
pub(super) struct ColumnShape {
    /// The name, quoted.
    pub(super) name: String,
    /// SQLite computes its values.
    pub(super) is_generated: bool,
    /// In a table without rowid, how its primary key compares the column, if that is a part of it:
    /// as the key tells two rows apart, which the column itself may not.
    pub(super) key_collation: Option<String>,
}

/// The names of a rowid.
const ROWID_NAMES: [&str; 3] = ["_rowid_", "rowid", "oid"];

impl TableShape {
    /// The table of that name; `None` when there is none.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn read(db: &Connection, table: &str) -> rusqlite::Result<Option<Self>> {
        let keys = read_keys(db, table)?;
        let mut columns = Vec::new();
        let mut names = Vec::<String>::new();
        let mut primary = Vec::new();
        let mut select =
            db.prepare_cached("SELECT name, hidden, pk FROM pragma_table_xinfo(?1)")?;
        let mut rows = select.query([table])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let key = keys.iter().find(|(place, _)| usize::try_from(*place) == Ok(columns.len()));
            columns.push(ColumnShape {
                name: quote(&name),
                is_generated: row.get::<_, i64>(1)? >= 2,
                key_collation: key.map(|(_, collation)| quote(collation)),
            });
            if row.get::<_, i64>(2)? > 0 {
                primary.push(columns.len() - 1);
            }
            names.push(name);
        }
        if columns.is_empty() {
            return Ok(None);
        }
        let mut shape = Self { name: quote(table), rowid: None, columns };
        if keys.is_empty() {
            let is_free =
                |alias: &&&str| !names.iter().any(|name| name.eq_ignore_ascii_case(alias));
            shape.rowid = ROWID_NAMES.iter().find(is_free).map(|name| (*name).to_owned());
            // A primary key without an index of its own is the rowid.
            if shape.rowid.is_none()
                && let [place] = primary[..]
                && !has_primary_index(db, table)?
            {
                shape.rowid = Some(shape.columns[place].name.clone());
            }
        }
        Ok(Some(shape))
    }

    /// Whether a row can be told from the others.
    pub(super) fn can_name_rows(&self) -> bool {
        self.rowid.is_some() || self.is_without_rowid()
    }

    /// Whether rows are told apart by their keys alone.
    pub(super) fn is_without_rowid(&self) -> bool {
        self.columns.iter().any(|column| column.key_collation.is_some())
    }
}

/// The places of the columns of the primary key of a table without rowid, and how they are compared
/// there. Empty where there is a rowid.
fn read_keys(db: &Connection, table: &str) -> rusqlite::Result<Vec<(i64, String)>> {
    // `pragma_table_list` says so too, and looks at all views for it, which can take forever.
    db.prepare_cached("SELECT cid, coll FROM pragma_index_xinfo(?1) WHERE key")?
        .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn has_primary_index(db: &Connection, table: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT EXISTS (SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk')")?
        .query_row([table], |row| row.get(0))
}

/// The rowid of a table cannot be written, because columns have all of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::embedded) struct NamelessRowid;

impl std::fmt::Display for NamelessRowid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "in a cluster a table may not have columns called rowid, _rowid_ and oid all at once, unless one of its columns is \
             an INTEGER PRIMARY KEY: call one of them otherwise, or make the table WITHOUT ROWID",
        )
    }
}

impl std::error::Error for NamelessRowid {}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
