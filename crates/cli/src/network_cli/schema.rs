//! `db schema`: the tables of the namespace.

use super::node_connection::NodeConnection;
use super::output::{Output, TableCell, print_note, printable};
use crate::cli_error::CliError;
use debros_client::rpc::Table;
use debros_gateway::answers::SchemaAnswer;

pub(super) async fn run(connection: &NodeConnection, out: Output) -> Result<(), CliError> {
    let tables = connection.user_client().await?.database().schema().await?;
    if out.is_json() {
        return out.write_json(&SchemaAnswer::from(tables));
    }
    if tables.is_empty() {
        print_note("the namespace has no tables");
        return Ok(());
    }
    for (position, table) in tables.iter().enumerate() {
        if position > 0 {
            out.write_line("")?;
        }
        show_table(out, table)?;
    }
    Ok(())
}

fn show_table(out: Output, table: &Table) -> Result<(), CliError> {
    out.write_line(&format!("{} ({})", printable(&table.name), printable(&table.kind)))?;
    let rows = table.columns.iter().map(|column| {
        vec![
            TableCell::Text(format!("  {}", column.name)),
            column.r#type.as_str().into(),
            if column.primary_key {
                "primary key"
            } else if column.nullable {
                ""
            } else {
                "not null"
            }
            .into(),
            column
                .default
                .as_ref()
                .map(|default| format!("default {default}"))
                .unwrap_or_default()
                .into(),
        ]
    });
    out.write_table(&["  COLUMN", "TYPE", "CONSTRAINT", "DEFAULT"], rows)?;
    for index in &table.indexes {
        let unique = if index.unique { "unique index" } else { "index" };
        let columns: Vec<String> = index.columns.iter().map(|name| column_name(name)).collect();
        out.write_line(&format!("  {unique} {} ({})", printable(&index.name), columns.join(", ")))?;
    }
    Ok(())
}

/// The node has no name for an expression.
fn column_name(name: &str) -> String {
    if name.is_empty() { "<expression>".to_owned() } else { printable(name) }
}
