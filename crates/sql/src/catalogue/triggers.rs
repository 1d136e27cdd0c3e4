//! The tables that the bodies of triggers insert into.

use crate::names::is_same_name;
use crate::parsed_source::{ParsedSource, not_understood_error, with_statement};
use debros_proto::Result;
use rusqlite::Connection;
use syntaqlite_syntax::nodes::{
    CreateTriggerStmt, Expr, ExprList, InsertStmt, Stmt, TriggerCmdList,
};

/// The first trigger that inserts into a table without giving a value to one of these columns.
///
/// Triggers that are created after a table give such columns their values; older ones cannot.
pub(crate) fn first_trigger_omitting(
    db: &Connection,
    table: &str,
    columns: &[String],
) -> Option<String> {
    let read = || -> rusqlite::Result<Vec<(String, String)>> {
        db.prepare_cached(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' ORDER BY rowid",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
    };
    let triggers = read().unwrap_or_default();
    triggers.into_iter().find(|(_, sql)| trigger_omits(sql, table, columns)).map(|(name, _)| name)
}

/// A trigger that cannot be read counts as one that omits.
fn trigger_omits(sql: &str, table: &str, columns: &[String]) -> bool {
    with_statement(sql, |source, statement| {
        let Stmt::CreateTriggerStmt(trigger) = statement else {
            return Err(not_understood_error());
        };
        body_omits(source, trigger, table, columns)
    })
    .unwrap_or(true)
}

fn body_omits(
    source: &ParsedSource<'_>,
    trigger: CreateTriggerStmt<'_>,
    table: &str,
    columns: &[String],
) -> Result<bool> {
    for command in trigger.body().iter().flat_map(TriggerCmdList::iter) {
        if let Stmt::InsertStmt(insert) = command
            && insert_omits(source, insert, table, columns)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn insert_omits(
    source: &ParsedSource<'_>,
    insert: InsertStmt<'_>,
    table: &str,
    columns: &[String],
) -> Result<bool> {
    let target = insert.table().ok_or_else(not_understood_error)?;
    if !is_same_name(&source.name_of(target.table_name())?, table) {
        return Ok(false);
    }
    let Some(list) = insert.columns() else {
        // All columns are given, unless the values are the defaults.
        return Ok(insert.source().is_none());
    };
    let mut given = Vec::new();
    for expression in Some(list).iter().flat_map(ExprList::iter) {
        if let Expr::ColumnRef(column) = expression {
            given.push(source.name_of(column.column())?);
        }
    }
    Ok(columns.iter().any(|column| !given.iter().any(|name| is_same_name(name, column))))
}
