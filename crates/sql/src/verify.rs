//! Looking at the result with other eyes, before it goes anywhere: a defence against mistakes of the walk.

use crate::allowed::TABLE_FUNCTIONS;
use crate::catalogue::schema::Kind;
use crate::catalogue::{Compiled, Inner};
use crate::class::{Class, Grants};
use crate::moment::MOMENT_TABLE;
use crate::names::{Prefix, dequote, is_one_of, same, starts_with};
use crate::source::{Source, with_statement};
use crate::walk::outcome::Outcome;
use debros_proto::{Code, Error, Result};
use syntaqlite_syntax::nodes::{Name, Node};
use syntaqlite_syntax::typed::GrammarNodeType;

/// The rewriter and SQLite do not agree. Nothing is run then.
fn disagreement() -> Error {
    Error::new(Code::StatementNotAllowed, "the statement could not be moved into the namespace safely")
}

/// Holds what SQLite touched, when it compiled the user's statement, against what the walk moved: a table that SQLite
/// read and the walk took for something else is a mistake.
///
/// # Errors
/// `statement_not_allowed`.
pub(crate) fn record(compiled: &Compiled, outcome: &Outcome, inner: &Inner) -> Result<()> {
    if outcome.class != Class::Read {
        // Foreign keys reach tables that no text names.
        return Ok(());
    }
    let accesses = &compiled.record.accesses;
    let kind = |name: &str| inner.schema.find(&inner.db, name).map(|(kind, _)| kind);
    // Of a view's tables SQLite does not always tell that they are the view's.
    let views = outcome.objects.iter().any(|object| kind(object) == Some(Kind::View));
    if views {
        return Ok(());
    }
    for access in accesses {
        let known = kind(&access.table).filter(|kind| *kind != Kind::Shadow && !starts_with(&access.table, "sqlite_"));
        let named = || outcome.objects.iter().chain(&outcome.aliases).any(|name| same(name, &access.table));
        if known.is_some() && !access.unused && !named() {
            return Err(disagreement());
        }
    }
    Ok(())
}

/// Parses the rewritten text again, and looks at every name in the place of a table, index, view or trigger: it must be
/// the namespace's, a CTE's, or one of the few that are granted.
///
/// # Errors
/// `statement_not_allowed`.
pub(crate) fn text(sql: &str, prefix: &Prefix, grants: Grants) -> Result<()> {
    with_statement(sql, |source, _| {
        let mut look = Look { source, prefix, ctes: Vec::new(), reads: Vec::new() };
        look.tree()?;
        for name in &look.reads {
            let allowed = prefix.owns(name)
                || look.ctes.iter().any(|cte| same(cte, name))
                || is_one_of(TABLE_FUNCTIONS, name)
                || same(name, MOMENT_TABLE)
                || same(name, "pragma_foreign_key_check")
                || (grants.sequence && same(name, "sqlite_sequence"))
                || (grants.statistics && same(name, "sqlite_stat1"));
            if !allowed {
                return Err(disagreement());
            }
        }
        Ok(())
    })
    // What does not parse here was broken by the rewriter, not by the user.
    .map_err(|_| disagreement())
}

struct Look<'l> {
    source: &'l Source<'l>,
    prefix: &'l Prefix,
    ctes: Vec<String>,
    reads: Vec<String>,
}

impl<'l> Look<'l> {
    fn tree(&mut self) -> Result<()> {
        let tree = self.source.tree();
        let mut waiting = vec![tree.root_id()];
        while let Some(id) = waiting.pop() {
            if let Some(children) = tree.list_children(id) {
                waiting.extend(children.iter().copied().filter(|child| !child.is_null()));
                continue;
            }
            let node = Node::from_result(tree, id).ok_or_else(disagreement)?;
            self.node(node)?;
            waiting.extend(tree.child_node_ids(id));
        }
        Ok(())
    }

    fn node(&mut self, node: Node<'l>) -> Result<()> {
        match node {
            Node::TableRef(table) => {
                self.reads.push(self.source.name(table.table_name())?);
                self.index(table.index_name())
            }
            Node::CteDefinition(cte) => {
                let name = self.source.name(cte.cte_name())?;
                // A CTE of such a name could hide a table's.
                if starts_with(&name, "ns::") || starts_with(&name, "_debros_") || starts_with(&name, "sqlite_") {
                    return Err(disagreement());
                }
                self.ctes.push(name);
                Ok(())
            }
            Node::UpdateStmt(update) => self.index(update.index_name()),
            Node::DeleteStmt(delete) => self.index(delete.index_name()),
            Node::CreateTableStmt(create) => self.own(create.table_name()),
            Node::CreateIndexStmt(create) => {
                self.own(create.index_name())?;
                self.own(create.table_name())
            }
            Node::CreateViewStmt(create) => self.own(create.view_name()),
            Node::CreateTriggerStmt(create) => self.own(create.trigger_name()),
            // Here the parser gives the name with its quotes.
            Node::CreateVirtualTableStmt(create) if self.prefix.owns(&dequote(create.table_name())) => Ok(()),
            Node::CreateVirtualTableStmt(_) => Err(disagreement()),
            Node::ForeignKeyClause(clause) => self.own(clause.ref_table()),
            Node::QualifiedName(name) => match name.object_name() {
                Some(Name::IdentName(ident)) => self.own(ident.source()),
                _ => Err(disagreement()),
            },
            Node::AlterTableStmt(alter) => {
                let renames = alter.op() == syntaqlite_syntax::nodes::AlterOp::RenameTable;
                match alter.new_name() {
                    Some(Name::IdentName(ident)) if renames => self.own(ident.source()),
                    _ => Ok(()),
                }
            }
            Node::AnalyzeOrReindexStmt(statement) if statement.target_name().is_empty() => Err(disagreement()),
            Node::AnalyzeOrReindexStmt(statement) => self.own(statement.target_name()),
            Node::PragmaStmt(_)
            | Node::AttachStmt(_)
            | Node::DetachStmt(_)
            | Node::VacuumStmt(_)
            | Node::TransactionStmt(_)
            | Node::SavepointStmt(_)
            | Node::Error(_) => Err(disagreement()),
            _ => Ok(()),
        }
    }

    /// Automatic indexes are named after their table.
    fn index(&self, name: &str) -> Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let text = self.source.name(name)?;
        if self.prefix.owns(text.strip_prefix("sqlite_autoindex_").unwrap_or(&text)) {
            return Ok(());
        }
        Err(disagreement())
    }

    fn own(&self, name: &str) -> Result<()> {
        if name.is_empty() || self.prefix.owns(&self.source.name(name)?) {
            return Ok(());
        }
        Err(disagreement())
    }
}
