//! Describing the tables of a namespace.

use super::conn::Conn;
use super::gate::{INTERNAL_PREFIX, Trust};
use debros_proto::rpc::{Column, Index, Table};
use rusqlite::Result;

/// The shadow tables of full-text and R-tree tables are left out, as are SQLite's own and the engine's.
const TABLES: &str = "/*debros*/ SELECT l.name, l.type, coalesce(s.sql, '') FROM pragma_table_list AS l
    JOIN sqlite_schema AS s ON s.name = l.name AND s.type IN ('table', 'view')
    WHERE l.schema = 'main' AND l.type IN ('table', 'view', 'virtual') AND l.name NOT LIKE 'sqlite~_%' ESCAPE '~'
    ORDER BY l.name";
const COLUMNS: &str = "/*debros*/ SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_xinfo(?1)
    WHERE hidden <> 1 ORDER BY cid";
const INDEXES: &str = "/*debros*/ SELECT l.name, l.\"unique\", s.sql FROM pragma_index_list(?1) AS l
    LEFT JOIN sqlite_schema AS s ON s.type = 'index' AND s.name = l.name ORDER BY l.name";
const INDEX_COLUMNS: &str = "/*debros*/ SELECT coalesce(name, '') FROM pragma_index_info(?1) ORDER BY seqno";

/// All tables, views and virtual tables, in order of name.
pub(super) fn read(conn: &Conn) -> Result<Vec<Table>> {
    // One transaction, so that all of it is of one moment.
    conn.gate.enter(Trust::Full);
    conn.gate.reset();
    let snapshot = conn.db.unchecked_transaction()?;
    let mut tables = conn
        .own(TABLES)?
        .query_map([], |row| Ok(Table { name: row.get(0)?, kind: row.get(1)?, sql: row.get(2)?, ..Table::default() }))?
        .collect::<Result<Vec<_>>>()?;
    tables.retain(|table| !table.name.starts_with(INTERNAL_PREFIX));
    for table in &mut tables {
        table.columns = columns(conn, &table.name)?;
        table.indexes = indexes(conn, &table.name)?;
    }
    snapshot.finish()?;
    Ok(tables)
}

fn columns(conn: &Conn, table: &str) -> Result<Vec<Column>> {
    let mut columns = conn
        .own(COLUMNS)?
        .query_map([table], |row| {
            Ok(Column {
                name: row.get(0)?,
                r#type: row.get(1)?,
                nullable: !row.get::<_, bool>(2)?,
                default: row.get(3)?,
                primary_key: row.get::<_, i64>(4)? > 0,
            })
        })?
        .collect::<Result<Vec<_>>>()?;
    // An INTEGER PRIMARY KEY is the rowid, which is never NULL though nobody declared it so.
    let mut keys = columns.iter_mut().filter(|column| column.primary_key);
    if let (Some(key), None) = (keys.next(), keys.next())
        && key.r#type.eq_ignore_ascii_case("INTEGER")
    {
        key.nullable = false;
    }
    Ok(columns)
}

fn indexes(conn: &Conn, table: &str) -> Result<Vec<Index>> {
    let mut indexes = conn
        .own(INDEXES)?
        .query_map([table], |row| {
            Ok(Index { name: row.get(0)?, unique: row.get(1)?, sql: row.get(2)?, columns: Vec::new() })
        })?
        .collect::<Result<Vec<_>>>()?;
    for index in &mut indexes {
        index.columns =
            conn.own(INDEX_COLUMNS)?.query_map([&index.name], |row| row.get(0))?.collect::<Result<Vec<_>>>()?;
    }
    Ok(indexes)
}
