//! Giving all objects of an exported file the names that their user gave them, by writing into its
//! schema: rows, pages and rowids stay what they are, and full-text tables keep what they cannot
//! give back.
//!
//! Only ever on a file that is not open elsewhere.

use super::format;
use debros_proto::Namespace;
use debros_sql::INTERNAL_PREFIX;
use rusqlite::Connection;
use std::collections::HashMap;

/// The texts of the objects under their new names, by their old names. Kinds have names of their
/// own: an index and a table of one name cannot be, but a trigger and a table can.
type RenamedTexts = HashMap<(String, String), String>;

/// Turns the objects of a namespace's file into what the user made, in the user's names and words.
pub(in crate::embedded) fn restore_user_names(
    db: &Connection,
    namespace: &Namespace,
) -> rusqlite::Result<()> {
    let prefix = namespace.prefix();
    let texts = format::read_entries(db)?
        .into_iter()
        .filter_map(|entry| {
            Some(((entry.kind.as_str().to_owned(), format!("{prefix}{}", entry.name)), entry.sql?))
        })
        .collect();
    rename_objects(db, &texts, &|name| name.strip_prefix(&prefix).unwrap_or(name).to_owned())
}

/// Renames everything but SQLite's own tables and the engine's.
fn rename_objects(
    db: &Connection,
    texts: &RenamedTexts,
    new: &dyn Fn(&str) -> String,
) -> rusqlite::Result<()> {
    db.execute_batch("PRAGMA writable_schema = ON; BEGIN IMMEDIATE")?;
    let mut list = db.prepare("SELECT rowid, type, name, tbl_name, sql FROM sqlite_schema")?;
    let rows = list
        .query_map([], |row| {
            Ok(SchemaObject {
                rowid: row.get(0)?,
                kind: row.get(1)?,
                name: row.get(2)?,
                table: row.get(3)?,
                sql: row.get(4)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<SchemaObject>>>()?;
    drop(list);
    let mut change =
        db.prepare("UPDATE sqlite_schema SET name = ?2, tbl_name = ?3, sql = ?4 WHERE rowid = ?1")?;
    let mut sequence = false;
    let mut statistics = Vec::new();
    for object in rows.into_iter().filter(|object| !object.table.starts_with(INTERNAL_PREFIX)) {
        match object.table.as_str() {
            "sqlite_sequence" => sequence = true,
            table if table.starts_with("sqlite_stat") => statistics.push(table.to_owned()),
            _ => {
                let sql = object.new_text(texts, new)?;
                change.execute((object.rowid, object.new_name(new), new(&object.table), sql))?;
            }
        }
    }
    drop(change);
    if sequence {
        rename_column(db, "sqlite_sequence", "name", new)?;
    }
    for table in statistics {
        rename_column(db, &table, "tbl", new)?;
        rename_column(db, &table, "idx", new)?;
    }
    // The next connection that opens the file reads the schema again.
    let version: i64 = db.query_row("PRAGMA schema_version", [], |row| row.get(0))?;
    db.execute_batch(&format!(
        "PRAGMA schema_version = {}; COMMIT; PRAGMA writable_schema = OFF",
        version + 1
    ))
}

struct SchemaObject {
    rowid: i64,
    kind: String,
    name: String,
    table: String,
    sql: Option<String>,
}

impl SchemaObject {
    fn new_name(&self, new: &dyn Fn(&str) -> String) -> String {
        autoindex_name(&self.name, new).unwrap_or_else(|| new(&self.name))
    }

    /// What virtual tables keep their content in has no text of the user's: its own begins with its
    /// name.
    fn new_text(
        &self,
        texts: &RenamedTexts,
        new: &dyn Fn(&str) -> String,
    ) -> rusqlite::Result<Option<String>> {
        let Some(sql) = &self.sql else { return Ok(None) };
        if let Some(text) = texts.get(&(self.kind.clone(), self.name.clone())) {
            return Ok(Some(text.clone()));
        }
        let rest = sql.strip_prefix("CREATE TABLE ").and_then(|rest| {
            // As the module quotes it.
            ['\'', '"'].into_iter().find_map(|mark| {
                let rest = rest.strip_prefix(&quote_name(mark, &self.name))?;
                Some((mark, rest))
            })
        });
        match rest {
            Some((mark, rest)) => {
                Ok(Some(format!("CREATE TABLE {}{rest}", quote_name(mark, &new(&self.name)))))
            }
            None => Err(rusqlite::Error::InvalidParameterName(format!(
                "the {} {} is not one that is known",
                self.kind, self.name
            ))),
        }
    }
}

fn quote_name(mark: char, name: &str) -> String {
    format!("{mark}{}{mark}", name.replace(mark, &format!("{mark}{mark}")))
}

/// The indexes of constraints are named after their table, with a number behind.
fn autoindex_name(name: &str, new: &dyn Fn(&str) -> String) -> Option<String> {
    const AUTOMATIC: &str = "sqlite_autoindex_";
    let (table, number) = name.strip_prefix(AUTOMATIC)?.rsplit_once('_')?;
    Some(format!("{AUTOMATIC}{}_{number}", new(table)))
}

fn rename_column(
    db: &Connection,
    table: &str,
    column: &str,
    new: &dyn Fn(&str) -> String,
) -> rusqlite::Result<()> {
    let rows = db
        .prepare(&format!(
            "SELECT DISTINCT \"{column}\" FROM \"{table}\" WHERE \"{column}\" IS NOT NULL"
        ))?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    let mut change =
        db.prepare(&format!("UPDATE \"{table}\" SET \"{column}\" = ?2 WHERE \"{column}\" = ?1"))?;
    for old in rows {
        change.execute((&old, autoindex_name(&old, new).unwrap_or_else(|| new(&old))))?;
    }
    Ok(())
}
