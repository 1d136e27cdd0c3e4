//! `db schema`: the tables of the namespace.

use super::output::{Output, Shown, note, printable};
use super::session::Session;
use crate::fail::Failure;
use debros_client::rpc::Table;
use debros_gateway::answers::SchemaAnswer;

pub(super) async fn run(session: &Session, out: Output) -> Result<(), Failure> {
    let tables = session.user().await?.database().schema().await?;
    if out.is_json() {
        return out.json(&SchemaAnswer::from(tables));
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
