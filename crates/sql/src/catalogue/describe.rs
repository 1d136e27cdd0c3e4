//! The `schema` call: a namespace's tables, for people and tools.

use super::schema_cache::ObjectKind;
use super::{Catalogue, CatalogueDb, broken_catalogue_error};
use debros_proto::rpc::{Column, Index, Table};

const TABLES: &str = "SELECT l.name, l.type, coalesce(s.sql, '') FROM pragma_table_list AS l
    JOIN sqlite_schema AS s ON s.name = l.name AND s.type IN ('table', 'view')
    WHERE l.schema = 'main' AND l.type IN ('table', 'view', 'virtual') AND l.name NOT LIKE 'sqlite~_%' ESCAPE '~'
    ORDER BY l.name";
const COLUMNS: &str = "SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_xinfo(?1)
    WHERE hidden <> 1 ORDER BY cid";
const INDEXES: &str = "SELECT l.name, l.\"unique\", s.sql FROM pragma_index_list(?1) AS l
    LEFT JOIN sqlite_schema AS s ON s.type = 'index' AND s.name = l.name ORDER BY l.name";
const KEY_INDEX: &str = "SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk'";
const INDEX_COLUMNS: &str = "SELECT coalesce(name, '') FROM pragma_index_info(?1) ORDER BY seqno";

impl Catalogue {
    /// All tables, views and virtual tables, in order of name, in the user's names. The tables
    /// behind full-text and R-tree tables are left out, as are SQLite's own.
    ///
    /// # Errors
    /// `internal` when the catalogue cannot be read.
    pub fn tables(&self) -> debros_proto::Result<Vec<Table>> {
        read_tables(&self.lock()).map_err(|_| broken_catalogue_error())
    }
}

fn read_tables(inner: &CatalogueDb) -> rusqlite::Result<Vec<Table>> {
    let mut tables = inner
        .db
        .prepare_cached(TABLES)?
        .query_map([], |row| {
            Ok(Table { name: row.get(0)?, kind: row.get(1)?, sql: row.get(2)?, ..Table::default() })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    tables.retain(|table| {
        !matches!(inner.schema.find_object(&inner.db, &table.name), Some((ObjectKind::Shadow, _)))
    });
    for table in &mut tables {
        // A view over a missing table has no columns to describe.
        table.columns = read_columns(inner, &table.name).unwrap_or_default();
        table.indexes = read_indexes(inner, &table.name)?;
    }
    Ok(tables)
}

fn read_columns(inner: &CatalogueDb, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut columns = inner
        .db
        .prepare_cached(COLUMNS)?
        .query_map([table], |row| {
            Ok(Column {
                name: row.get(0)?,
                r#type: row.get(1)?,
                nullable: !row.get::<_, bool>(2)?,
                default: row.get(3)?,
                primary_key: row.get::<_, i64>(4)? > 0,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    // An INTEGER PRIMARY KEY that is the rowid is never NULL even if not declared so. Any other key
    // has an index.
    let mut keys = columns.iter_mut().filter(|column| column.primary_key);
    if let (Some(key), None) = (keys.next(), keys.next())
        && !inner.db.prepare_cached(KEY_INDEX)?.exists([table])?
    {
        key.nullable = false;
    }
    Ok(columns)
}

fn read_indexes(inner: &CatalogueDb, table: &str) -> rusqlite::Result<Vec<Index>> {
    let mut indexes = inner
        .db
        .prepare_cached(INDEXES)?
        .query_map([table], |row| {
            Ok(Index {
                name: row.get(0)?,
                unique: row.get(1)?,
                sql: row.get(2)?,
                columns: Vec::new(),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for index in &mut indexes {
        index.columns = inner
            .db
            .prepare_cached(INDEX_COLUMNS)?
            .query_map([&index.name], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
    }
    Ok(indexes)
}
