//! `db schema`: the tables of the namespace.

use super::output::{Output, Shown, note, printable};
use super::session::Session;
use crate::fail::Failure;
use debros_client::rpc::{Index, Table};
use serde_json::json;

pub(super) async fn run(session: &Session, out: Output) -> Result<(), Failure> {
    let tables = session.user().await?.database().schema().await?;
    if out.is_json() {
        let tables: Vec<_> = tables.iter().map(table_json).collect();
        return out.json(&json!({ "tables": tables }));
    }
    if tables.is_empty() {
        note("the namespace has no tables");
        return Ok(());
    }
    for (position, table) in tables.iter().enumerate() {
        if position > 0 {
            out.line("")?;
        }
        show(out, table)?;
    }
    Ok(())
}

fn show(out: Output, table: &Table) -> Result<(), Failure> {
    out.line(&format!("{} ({})", printable(&table.name), printable(&table.kind)))?;
    let rows = table.columns.iter().map(|column| {
        vec![
            Shown::Text(format!("  {}", column.name)),
            column.r#type.as_str().into(),
            if column.primary_key {
                "primary key"
            } else if column.nullable {
                ""
            } else {
                "not null"
            }
            .into(),
            column.default.as_ref().map(|default| format!("default {default}")).unwrap_or_default().into(),
        ]
    });
    out.table(&["  COLUMN", "TYPE", "CONSTRAINT", "DEFAULT"], rows)?;
    for index in &table.indexes {
        let unique = if index.unique { "unique index" } else { "index" };
        let columns: Vec<String> = index.columns.iter().map(|name| column_name(name)).collect();
        out.line(&format!("  {unique} {} ({})", printable(&index.name), columns.join(", ")))?;
    }
    Ok(())
}

/// The node has no name for an expression.
fn column_name(name: &str) -> String {
    if name.is_empty() { "<expression>".to_owned() } else { printable(name) }
}

fn table_json(table: &Table) -> serde_json::Value {
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.r#type,
                "nullable": column.nullable,
                "default": column.default,
                "primary_key": column.primary_key,
            })
        })
        .collect();
    let indexes: Vec<_> = table.indexes.iter().map(index_json).collect();
    json!({ "name": table.name, "kind": table.kind, "sql": table.sql, "columns": columns, "indexes": indexes })
}

fn index_json(index: &Index) -> serde_json::Value {
    json!({ "name": index.name, "unique": index.unique, "columns": index.columns, "sql": index.sql })
}
