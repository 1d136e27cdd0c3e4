//! The rewriter visits every node of a statement: the node is understood and its names are
//! qualified with the namespace, or the statement is refused.
//!
//! Two safety nets support it. Each node that a method here has understood is marked, and at the
//! end every node of the tree must be marked. And `match` has no catch-all arm over statements,
//! expressions and sources, so that a kind which a newer parser adds does not compile.

mod column;
mod ddl;
mod default_expression;
mod dml;
mod evaluation;
mod expr;
mod newer_alter;
mod nondeterminism;
pub(crate) mod rewrite_outcome;
mod scope;
mod select;
mod sequence;
pub(crate) mod statement;
mod system_tables;
mod table;
mod virtual_table;
mod volatile_defaults;

use crate::catalogue::CatalogueDb;
use crate::header::HeaderField;
use crate::names::{NamespacePrefix, is_same_name, quote, starts_with_ignore_case};
use crate::parsed_source::{ParsedSource, not_understood_error};
use crate::position::line_and_column;
use crate::precheck::MAX_NESTING;
use crate::splice::{SpliceList, SqlTemplate};
use crate::statement_class::{ExecutionTarget, StatementClass, SystemTableGrants};
use debros_proto::{Code, Error, Result};
use evaluation::Evaluation;
use rewrite_outcome::RewriteOutcome;
use scope::NameScopes;
use std::collections::HashSet;
use std::ops::Range;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{ExplainMode, PragmaForm, Stmt};

/// The rewriting of one statement.
pub(crate) struct StatementRewriter<'w> {
    source: &'w ParsedSource<'w>,
    prefix: &'w NamespacePrefix,
    inner: &'w CatalogueDb,
    splices: SpliceList,
    scopes: NameScopes,
    evaluation: Evaluation,
    /// The visited expression runs once for each of several rows.
    per_row: bool,
    /// Rows get random values that the database makes.
    random_rows: bool,
    /// The visited text is stored in the schema: a view's or trigger's body.
    stored: bool,
    /// The statement is answered by the catalogue: no name is replaced, every node is checked.
    in_catalogue: bool,
    depth: usize,
    /// References that may mean a full-text table's hidden column, where it stands for the table
    /// and not for its value.
    hidden_allowed: HashSet<AnyNodeId>,
    visited: HashSet<AnyNodeId>,
    objects: Vec<String>,
    /// Aliases: SQLite reports a subquery's columns under its alias.
    visible: Vec<String>,
    grants: SystemTableGrants,
}

impl<'w> StatementRewriter<'w> {
    fn new(
        source: &'w ParsedSource<'w>,
        prefix: &'w NamespacePrefix,
        inner: &'w CatalogueDb,
    ) -> Self {
        Self {
            source,
            prefix,
            inner,
            splices: SpliceList::default(),
            scopes: NameScopes::default(),
            evaluation: Evaluation::Runtime,
            per_row: false,
            random_rows: false,
            stored: false,
            in_catalogue: false,
            depth: 0,
            hidden_allowed: HashSet::new(),
            visited: HashSet::new(),
            objects: Vec::new(),
            visible: Vec::new(),
            grants: SystemTableGrants::default(),
        }
    }

    fn visit_root(&mut self, statement: Stmt<'w>) -> Result<RewriteOutcome> {
        let mut outcome = RewriteOutcome::default();
        match statement {
            Stmt::SelectStmt(_)
            | Stmt::CompoundSelect(_)
            | Stmt::ValuesClause(_)
            | Stmt::WithClause(_) => {
                outcome.class = StatementClass::Read;
                self.evaluation = Evaluation::Runtime;
                self.visit_statement_select(statement)?;
                if self.in_catalogue {
                    outcome.target = ExecutionTarget::Catalogue;
                    outcome.template = SqlTemplate::from_text(self.source.text.to_owned());
                }
            }
            Stmt::InsertStmt(insert) => {
                self.evaluation = Evaluation::Literal;
                outcome.returning = insert.returning().is_some();
                self.visit_insert(insert, false)?;
            }
            Stmt::UpdateStmt(update) => {
                self.evaluation = Evaluation::Literal;
                outcome.returning = update.returning().is_some();
                self.visit_update(update, false)?;
            }
            Stmt::DeleteStmt(delete) => {
                self.evaluation = Evaluation::Literal;
                outcome.returning = delete.returning().is_some();
                self.visit_delete(delete, false)?;
            }
            Stmt::CreateTableStmt(_)
            | Stmt::CreateIndexStmt(_)
            | Stmt::CreateViewStmt(_)
            | Stmt::CreateTriggerStmt(_)
            | Stmt::CreateVirtualTableStmt(_)
            | Stmt::DropStmt(_)
            | Stmt::AlterTableStmt(_) => {
                outcome.class = StatementClass::Ddl;
                outcome.changes_schema = true;
                self.visit_definition(statement)?;
            }
            Stmt::AnalyzeOrReindexStmt(statement) => {
                outcome.class = StatementClass::Ddl;
                outcome.changes_schema = self.visit_analyze_or_reindex(statement)?;
            }
            Stmt::PragmaStmt(pragma) => {
                self.mark_visited(pragma.node_id());
                outcome.class = StatementClass::Read;
                let value = pragma.pragma_form() != PragmaForm::Bare;
                let name = self.source.name_of(pragma.pragma_name())?;
                self.check_schema(pragma.schema())?;
                if let (true, Some(field)) = (value, HeaderField::from_name(&name)) {
                    outcome.class = StatementClass::Ddl;
                    outcome.changes_schema = true;
                    outcome.target = ExecutionTarget::Header(field);
                    return Ok(outcome);
                }
                match self.rewrite_pragma(&name, value.then(|| pragma.value()))? {
                    Some(text) => outcome.template = SqlTemplate::from_text(text),
                    None => {
                        outcome.target = ExecutionTarget::Catalogue;
                        outcome.template = SqlTemplate::from_text(self.source.text.to_owned());
                    }
                }
            }
            Stmt::ExplainStmt(explain) => {
                self.mark_visited(explain.node_id());
                let inner = self.visit_root(explain.stmt().ok_or_else(not_understood_error)?)?;
                outcome.class = inner.class;
                outcome.tells_names = true;
                // Bytecode contains page numbers, which are the data database's; a plan of a
                // definition contains nothing.
                let here = inner.target == ExecutionTarget::Data
                    && inner.class != StatementClass::Ddl
                    && explain.explain_mode() == ExplainMode::QueryPlan;
                if !here {
                    outcome.class = StatementClass::Read;
                    outcome.target = ExecutionTarget::Catalogue;
                    outcome.template = SqlTemplate::from_text(self.source.text.to_owned());
                }
            }
            Stmt::TransactionStmt(statement) => {
                return Err(self.refuse_node(statement.node_id(), crate::allowed::NO_TRANSACTIONS));
            }
            Stmt::SavepointStmt(statement) => {
                return Err(self.refuse_node(statement.node_id(), crate::allowed::NO_TRANSACTIONS));
            }
            Stmt::AttachStmt(statement) => {
                return Err(self.refuse_node(statement.node_id(), crate::allowed::NO_ATTACH));
            }
            Stmt::DetachStmt(statement) => {
                return Err(self.refuse_node(statement.node_id(), crate::allowed::NO_ATTACH));
            }
            Stmt::VacuumStmt(statement) => {
                return Err(self.refuse_node(statement.node_id(), crate::allowed::NO_ATTACH));
            }
        }
        Ok(outcome)
    }

    /// Marks a node as one that is fully handled.
    fn mark_visited(&mut self, id: impl Into<AnyNodeId>) {
        self.visited.insert(id.into());
    }

    /// Every node below the root must be marked. A list counts as marked when its members are.
    fn check_all_visited(&self, root: AnyNodeId) -> Result<()> {
        let tree = self.source.tree();
        let mut waiting = vec![root];
        while let Some(id) = waiting.pop() {
            match tree.list_children(id) {
                Some(children) => {
                    waiting.extend(children.iter().copied().filter(|child| !child.is_null()))
                }
                None if self.visited.contains(&id) => waiting.extend(tree.child_node_ids(id)),
                None => return Err(not_understood_error()),
            }
        }
        Ok(())
    }

    /// One level deeper; to be left by `self.depth -= 1`. After an error the visit ends.
    fn descend(&mut self) -> Result<()> {
        self.splices.check_size()?;
        self.depth += 1;
        if self.depth > MAX_NESTING + 50 {
            return Err(Error::new(
                Code::Sql,
                format!("the statement is nested deeper than {MAX_NESTING} levels"),
            ));
        }
        Ok(())
    }

    /// Refuses the statement, with the position of a node.
    fn refuse_node(&self, id: impl Into<AnyNodeId>, why: &str) -> Error {
        match self.source.extent(id) {
            Ok(range) => self.refuse_at(&range, why),
            Err(_) => Error::new(Code::StatementNotAllowed, why),
        }
    }

    /// Refuses the statement, with a position.
    fn refuse_at(&self, range: &Range<usize>, why: &str) -> Error {
        Error::new(
            Code::StatementNotAllowed,
            format!("{why} ({})", line_and_column(self.source.text, range.start)),
        )
    }

    /// An error of SQLite's own kind, with a position.
    fn fail_at(&self, range: &Range<usize>, why: &str) -> Error {
        Error::new(Code::Sql, format!("{why} ({})", line_and_column(self.source.text, range.start)))
    }

    /// The schema before a name may be `main` alone.
    fn check_schema(&self, schema: &str) -> Result<()> {
        if schema.is_empty() {
            return Ok(());
        }
        let token = self.source.token_range(schema)?;
        match self.source.name_of(schema)?.as_str() {
            name if is_same_name(name, "main") => Ok(()),
            name if is_same_name(name, "temp") => {
                Err(self.refuse_at(&token, crate::allowed::NO_TEMPORARY))
            }
            name => Err(self.fail_at(&token, &format!("unknown database {name}"))),
        }
    }

    /// Qualifies the name of an index that a statement names after INDEXED BY. SQLite names those
    /// of constraints after the table.
    fn qualify_index(&mut self, name: &str) -> Result<()> {
        const AUTOMATIC: &str = "sqlite_autoindex_";
        let text = self.source.name_of(name)?;
        if !starts_with_ignore_case(&text, AUTOMATIC) {
            return self.qualify_name(name);
        }
        let (start, table) = text.split_at(AUTOMATIC.len());
        let full = quote('"', &format!("{start}{}", self.prefix.qualify(table)));
        self.splices.replace(self.source.token_range(name)?, full);
        Ok(())
    }

    /// Qualifies the name of an index, view, trigger or table where SQL takes nothing but the name.
    fn qualify_name(&mut self, name: &str) -> Result<()> {
        let token = self.source.token_range(name)?;
        let full = self.prefix.qualify_quoted(&self.source.name_of(name)?);
        self.splices.replace(token, full);
        Ok(())
    }
}
