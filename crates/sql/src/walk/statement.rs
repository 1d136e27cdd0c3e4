//! The walk over a statement, from its text to what is found out about it.

use super::outcome::Outcome;
use super::{Walk, newer_alter};
use crate::allowed::{SCHEMA_TABLES, TABLE_FUNCTIONS};
use crate::catalogue::{Compiled, Inner};
use crate::class::{Class, Place};
use crate::edit::Template;
use crate::names::{Prefix, is_one_of, same, starts_with};
use crate::source::with_statement;
use debros_proto::{Code, Error, Result};

/// Walks a statement that SQLite has compiled on the catalogue.
///
/// # Errors
/// `statement_not_allowed` or `sql_error`, with the place in the user's text.
pub(crate) fn walk_statement(sql: &str, prefix: &Prefix, inner: &Inner, compiled: &Compiled) -> Result<Outcome> {
    with_statement(sql, |source, root| {
        let mut walk = Walk::new(source, prefix, inner);
        walk.in_catalogue = asks_catalogue_alone(inner, compiled);
        let mut outcome = walk.root(root)?;
        walk.check_understood(source.tree().root_id())?;
        outcome.objects = std::mem::take(&mut walk.objects);
        outcome.aliases = std::mem::take(&mut walk.visible);
        outcome.grants = walk.grants;
        outcome.random_rows = walk.random_rows;
        if outcome.place == Place::Data && outcome.template == Template::default() {
            outcome.template = walk.edits.apply(source.text)?;
        }
        Ok(outcome)
    })
    .or_else(|error| match error.code {
        // SQLite itself has taken it: what the parser does not know is new in SQLite, and not the user's mistake.
        Code::Sql if compiled.record.alters() => {
            let (text, table) = newer_alter::rewrite(sql, prefix, inner)?;
            Ok(Outcome {
                template: Template::fixed(text),
                class: Class::Ddl,
                objects: vec![table],
                changes_schema: true,
                verified: true,
                ..Outcome::default()
            })
        }
        Code::Sql if error.message.contains("syntax error") || error.message.contains("incomplete SQL") => {
            Err(Error::new(
                Code::StatementNotAllowed,
                format!("this form of statement is not supported: {}", error.message),
            ))
        }
        _ => Err(error),
    })
}

/// Whether a statement asks about the schema and about nothing else.
fn asks_catalogue_alone(inner: &Inner, compiled: &Compiled) -> bool {
    let about_schema = |table: &str| {
        is_one_of(SCHEMA_TABLES, table) || (starts_with(table, "pragma_") && !same(table, "pragma_foreign_key_check"))
    };
    let accesses = &compiled.record.accesses;
    compiled.reads_only
        && accesses.iter().any(|access| about_schema(&access.table))
        && accesses.iter().all(|access| {
            // A CTE of which no column is used tells its own name; the walk looks whether it is one.
            let cte = access.unused && inner.schema.find(&inner.db, &access.table).is_none();
            !access.writes && (about_schema(&access.table) || is_one_of(TABLE_FUNCTIONS, &access.table) || cte)
        })
}
