//! Rewriting a statement, from its text to the rewriter's findings.

use super::rewrite_outcome::RewriteOutcome;
use super::{StatementRewriter, newer_alter};
use crate::allowed::{SCHEMA_TABLES, TABLE_FUNCTIONS};
use crate::catalogue::{CatalogueDb, CompiledStatement};
use crate::names::{NamespacePrefix, is_one_of, is_same_name, starts_with_ignore_case};
use crate::parsed_source::with_statement;
use crate::splice::SqlTemplate;
use crate::statement_class::{ExecutionTarget, StatementClass};
use debros_proto::{Code, Error, Result};

/// Rewrites a statement that SQLite has compiled on the catalogue.
///
/// # Errors
/// `statement_not_allowed` or `sql_error`, with the place in the user's text.
pub(crate) fn rewrite_statement(
    sql: &str,
    prefix: &NamespacePrefix,
    inner: &CatalogueDb,
    compiled: &CompiledStatement,
) -> Result<RewriteOutcome> {
    with_statement(sql, |source, root| {
        let mut rewriter = StatementRewriter::new(source, prefix, inner);
        rewriter.in_catalogue = is_catalogue_only(inner, compiled);
        let mut outcome = rewriter.visit_root(root)?;
        rewriter.check_all_visited(source.tree().root_id())?;
        outcome.objects = std::mem::take(&mut rewriter.objects);
        outcome.aliases = std::mem::take(&mut rewriter.visible);
        outcome.grants = rewriter.grants;
        outcome.random_rows = rewriter.random_rows;
        if outcome.target == ExecutionTarget::Data && outcome.template == SqlTemplate::default() {
            outcome.template = rewriter.splices.apply(source.text)?;
        }
        Ok(outcome)
    })
    .or_else(|error| match error.code {
        // SQLite itself has accepted it: a form that the parser does not know is new in SQLite, and
        // not the user's mistake.
        Code::Sql if compiled.record.alters_table() => {
            let (text, table) = newer_alter::rewrite_alter(sql, prefix, inner)?;
            Ok(RewriteOutcome {
                template: SqlTemplate::from_text(text),
                class: StatementClass::Ddl,
                objects: vec![table],
                changes_schema: true,
                verified: true,
                ..RewriteOutcome::default()
            })
        }
        Code::Sql
            if error.message.contains("syntax error")
                || error.message.contains("incomplete SQL") =>
        {
            Err(Error::new(
                Code::StatementNotAllowed,
                format!("this form of statement is not supported: {}", error.message),
            ))
        }
        _ => Err(error),
    })
}

/// Whether a statement reads the schema and nothing else.
fn is_catalogue_only(inner: &CatalogueDb, compiled: &CompiledStatement) -> bool {
    let about_schema = |table: &str| {
        is_one_of(SCHEMA_TABLES, table)
            || (starts_with_ignore_case(table, "pragma_")
                && !is_same_name(table, "pragma_foreign_key_check"))
    };
    let accesses = &compiled.record.accesses;
    compiled.reads_only
        && accesses.iter().any(|access| about_schema(&access.table))
        && accesses.iter().all(|access| {
            // A CTE of which no column is used gives its own name; the rewriter checks whether it
            // is one.
            let cte = access.unused && inner.schema.find_object(&inner.db, &access.table).is_none();
            !access.writes
                && (about_schema(&access.table) || is_one_of(TABLE_FUNCTIONS, &access.table) || cte)
        })
}
