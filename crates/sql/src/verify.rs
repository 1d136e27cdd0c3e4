//! Checking the result independently, before it goes anywhere: a defence against mistakes of the
//! rewriter.

use crate::allowed::TABLE_FUNCTIONS;
use crate::catalogue::schema_cache::ObjectKind;
use crate::catalogue::{CatalogueDb, CompiledStatement};
use crate::execution_context::MOMENT_TABLE;
use crate::names::{NamespacePrefix, dequote, is_one_of, is_same_name, starts_with_ignore_case};
use crate::parsed_source::{ParsedSource, with_statement};
use crate::rewriter::rewrite_outcome::RewriteOutcome;
use crate::statement_class::{StatementClass, SystemTableGrants};
use debros_proto::{Code, Error, Result};
use syntaqlite_syntax::nodes::{Name, Node};
use syntaqlite_syntax::typed::GrammarNodeType;

/// The rewriter and SQLite disagree. Nothing runs then.
fn disagreement_error() -> Error {
    Error::new(
        Code::StatementNotAllowed,
        "the statement could not be rewritten for the namespace safely",
    )
}

/// Compares the objects that SQLite touched, when it compiled the user's statement, with the names
/// that the rewriter qualified: a table that SQLite read and the rewriter took for something else
/// is a mistake.
///
/// # Errors
/// `statement_not_allowed`.
pub(crate) fn check_record(
    compiled: &CompiledStatement,
    outcome: &RewriteOutcome,
    inner: &CatalogueDb,
) -> Result<()> {
    if outcome.class != StatementClass::Read {
        // Foreign keys reach tables that no text names.
        return Ok(());
    }
    let accesses = &compiled.record.accesses;
    let kind = |name: &str| inner.schema.find_object(&inner.db, name).map(|(kind, _)| kind);
    // SQLite does not always report that a view's tables are the view's.
    let views = outcome.objects.iter().any(|object| kind(object) == Some(ObjectKind::View));
    if views {
        return Ok(());
    }
    for access in accesses {
        let known = kind(&access.table).filter(|kind| {
            *kind != ObjectKind::Shadow && !starts_with_ignore_case(&access.table, "sqlite_")
        });
        let named = || {
            outcome
                .objects
                .iter()
                .chain(&outcome.aliases)
                .any(|name| is_same_name(name, &access.table))
        };
        if known.is_some() && !access.unused && !named() {
            return Err(disagreement_error());
        }
    }
    Ok(())
}

/// Parses the rewritten text again, and checks every name in the position of a table, index, view
/// or trigger: it must be the namespace's, a CTE's, or one of the few that are granted.
///
/// # Errors
/// `statement_not_allowed`.
pub(crate) fn check_text(
    sql: &str,
    prefix: &NamespacePrefix,
    grants: SystemTableGrants,
) -> Result<()> {
    with_statement(sql, |source, _| {
        let mut look = NameAudit { source, prefix, ctes: Vec::new(), reads: Vec::new() };
        look.check_tree()?;
        for name in &look.reads {
            let allowed = prefix.owns(name)
                || look.ctes.iter().any(|cte| is_same_name(cte, name))
                || is_one_of(TABLE_FUNCTIONS, name)
                || is_same_name(name, MOMENT_TABLE)
                || is_same_name(name, "pragma_foreign_key_check")
                || (grants.sequence && is_same_name(name, "sqlite_sequence"))
                || (grants.statistics && is_same_name(name, "sqlite_stat1"));
            if !allowed {
                return Err(disagreement_error());
            }
        }
        Ok(())
    })
    // A text that does not parse here was broken by the rewriter, not by the user.
    .map_err(|_| disagreement_error())
}

struct NameAudit<'l> {
    source: &'l ParsedSource<'l>,
    prefix: &'l NamespacePrefix,
    ctes: Vec<String>,
    reads: Vec<String>,
}

impl<'l> NameAudit<'l> {
    fn check_tree(&mut self) -> Result<()> {
        let tree = self.source.tree();
        let mut waiting = vec![tree.root_id()];
        while let Some(id) = waiting.pop() {
            if let Some(children) = tree.list_children(id) {
                waiting.extend(children.iter().copied().filter(|child| !child.is_null()));
                continue;
            }
            let node = Node::from_result(tree, id).ok_or_else(disagreement_error)?;
            self.check_node(node)?;
            waiting.extend(tree.child_node_ids(id));
        }
        Ok(())
    }

    fn check_node(&mut self, node: Node<'l>) -> Result<()> {
        match node {
            Node::TableRef(table) => {
                self.reads.push(self.source.name_of(table.table_name())?);
                self.check_index(table.index_name())
            }
            Node::CteDefinition(cte) => {
                let name = self.source.name_of(cte.cte_name())?;
                // A CTE of such a name could hide a table's.
                if starts_with_ignore_case(&name, "ns::")
                    || starts_with_ignore_case(&name, "_debros_")
                    || starts_with_ignore_case(&name, "sqlite_")
                {
                    return Err(disagreement_error());
                }
                self.ctes.push(name);
                Ok(())
            }
            Node::UpdateStmt(update) => self.check_index(update.index_name()),
            Node::DeleteStmt(delete) => self.check_index(delete.index_name()),
            Node::CreateTableStmt(create) => self.check_own_name(create.table_name()),
            Node::CreateIndexStmt(create) => {
                self.check_own_name(create.index_name())?;
                self.check_own_name(create.table_name())
            }
            Node::CreateViewStmt(create) => self.check_own_name(create.view_name()),
            Node::CreateTriggerStmt(create) => self.check_own_name(create.trigger_name()),
            // Here the parser gives the name with its quotes.
            Node::CreateVirtualTableStmt(create)
                if self.prefix.owns(&dequote(create.table_name())) =>
            {
                Ok(())
            }
            Node::CreateVirtualTableStmt(_) => Err(disagreement_error()),
            Node::ForeignKeyClause(clause) => self.check_own_name(clause.ref_table()),
            Node::QualifiedName(name) => match name.object_name() {
                Some(Name::IdentName(ident)) => self.check_own_name(ident.source()),
                _ => Err(disagreement_error()),
            },
            Node::AlterTableStmt(alter) => {
                let renames = alter.op() == syntaqlite_syntax::nodes::AlterOp::RenameTable;
                match alter.new_name() {
                    Some(Name::IdentName(ident)) if renames => self.check_own_name(ident.source()),
                    _ => Ok(()),
                }
            }
            Node::AnalyzeOrReindexStmt(statement) if statement.target_name().is_empty() => {
                Err(disagreement_error())
            }
            Node::AnalyzeOrReindexStmt(statement) => self.check_own_name(statement.target_name()),
            Node::PragmaStmt(_)
            | Node::AttachStmt(_)
            | Node::DetachStmt(_)
            | Node::VacuumStmt(_)
            | Node::TransactionStmt(_)
            | Node::SavepointStmt(_)
            | Node::Error(_) => Err(disagreement_error()),
            _ => Ok(()),
        }
    }

    /// Automatic indexes are named after their table.
    fn check_index(&self, name: &str) -> Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let text = self.source.name_of(name)?;
        if self.prefix.owns(text.strip_prefix("sqlite_autoindex_").unwrap_or(&text)) {
            return Ok(());
        }
        Err(disagreement_error())
    }

    fn check_own_name(&self, name: &str) -> Result<()> {
        if name.is_empty() || self.prefix.owns(&self.source.name_of(name)?) {
            return Ok(());
        }
        Err(disagreement_error())
    }
}
