//! The walk over a statement: every node is understood and its names are moved into the namespace, or the statement is
//! refused.
//!
//! Two nets lie under it. Each node that a method here has understood is marked, and at the end every node of the tree
//! must be marked. And `match` has no catch-all arm over statements, expressions and sources, so that a kind which a newer
//! parser adds does not compile.

mod clock;
mod column;
mod ddl;
mod default;
mod dml;
mod expr;
mod live;
mod newer_alter;
pub(crate) mod outcome;
mod scope;
mod select;
mod special;
pub(crate) mod statement;
mod table;
mod time;
mod virtual_table;

use crate::catalogue::Inner;
use crate::class::{Class, Grants, Place};
use crate::edit::{Edits, Template};
use crate::gate::MAX_NESTING;
use crate::header::HeaderField;
use crate::names::{Prefix, quote, same, starts_with};
use crate::place::at;
use crate::source::{Source, not_understood};
use clock::Clock;
use debros_proto::{Code, Error, Result};
use outcome::Outcome;
use scope::Scopes;
use std::collections::HashSet;
use std::ops::Range;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{ExplainMode, PragmaForm, Stmt};

/// One statement under way.
pub(crate) struct Walk<'w> {
    source: &'w Source<'w>,
    prefix: &'w Prefix,
    inner: &'w Inner,
    edits: Edits,
    scopes: Scopes,
    clock: Clock,
    /// What is walked runs once for each of several rows.
    per_row: bool,
    /// Rows get random values that the database makes.
    random_rows: bool,
    /// What is walked is kept in the schema: a view's or trigger's body.
    stored: bool,
    /// The statement is answered by the catalogue: nothing is moved, everything is checked.
    in_catalogue: bool,
    depth: usize,
    /// References that may mean a full-text table's hidden column: where it stands for the table, not for its value.
    hidden_allowed: HashSet<AnyNodeId>,
    understood: HashSet<AnyNodeId>,
    objects: Vec<String>,
    /// Aliases: SQLite tells of a subquery's columns under its alias.
    visible: Vec<String>,
    grants: Grants,
}

impl<'w> Walk<'w> {
    fn new(source: &'w Source<'w>, prefix: &'w Prefix, inner: &'w Inner) -> Self {
        Self {
            source,
            prefix,
            inner,
            edits: Edits::default(),
            scopes: Scopes::default(),
            clock: Clock::Live,
            per_row: false,
            random_rows: false,
            stored: false,
            in_catalogue: false,
            depth: 0,
            hidden_allowed: HashSet::new(),
            understood: HashSet::new(),
            objects: Vec::new(),
            visible: Vec::new(),
            grants: Grants::default(),
        }
    }

    fn root(&mut self, statement: Stmt<'w>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        match statement {
            Stmt::SelectStmt(_) | Stmt::CompoundSelect(_) | Stmt::ValuesClause(_) | Stmt::WithClause(_) => {
                outcome.class = Class::Read;
                self.clock = Clock::Live;
                self.statement_select(statement)?;
                if self.in_catalogue {
                    outcome.place = Place::Catalogue;
                    outcome.template = Template::fixed(self.source.text.to_owned());
                }
            }
            Stmt::InsertStmt(insert) => {
                self.clock = Clock::Slots;
                outcome.returning = insert.returning().is_some();
                self.insert(insert, false)?;
            }
            Stmt::UpdateStmt(update) => {
                self.clock = Clock::Slots;
                outcome.returning = update.returning().is_some();
                self.update(update, false)?;
            }
            Stmt::DeleteStmt(delete) => {
                self.clock = Clock::Slots;
                outcome.returning = delete.returning().is_some();
                self.delete(delete, false)?;
            }
            Stmt::CreateTableStmt(_)
            | Stmt::CreateIndexStmt(_)
            | Stmt::CreateViewStmt(_)
            | Stmt::CreateTriggerStmt(_)
            | Stmt::CreateVirtualTableStmt(_)
            | Stmt::DropStmt(_)
            | Stmt::AlterTableStmt(_) => {
                outcome.class = Class::Ddl;
                outcome.changes_schema = true;
                self.definition(statement)?;
            }
            Stmt::AnalyzeOrReindexStmt(statement) => {
                outcome.class = Class::Ddl;
                outcome.changes_schema = self.analyze_or_reindex(statement)?;
            }
            Stmt::PragmaStmt(pragma) => {
                self.understand(pragma.node_id());
                outcome.class = Class::Read;
                let value = pragma.pragma_form() != PragmaForm::Bare;
                let name = self.source.name(pragma.pragma_name())?;
                self.check_schema(pragma.schema())?;
                if let (true, Some(field)) = (value, HeaderField::from_name(&name)) {
                    outcome.class = Class::Ddl;
                    outcome.changes_schema = true;
                    outcome.place = Place::Header(field);
                    return Ok(outcome);
                }
                match self.pragma(&name, value.then(|| pragma.value()))? {
                    Some(text) => outcome.template = Template::fixed(text),
                    None => {
                        outcome.place = Place::Catalogue;
                        outcome.template = Template::fixed(self.source.text.to_owned());
                    }
                }
            }
            Stmt::ExplainStmt(explain) => {
                self.understand(explain.node_id());
                let inner = self.root(explain.stmt().ok_or_else(not_understood)?)?;
                outcome.class = inner.class;
                outcome.tells_names = true;
                // Bytecode tells page numbers, which are the data database's; a plan of a definition says nothing.
                let here = inner.place == Place::Data
                    && inner.class != Class::Ddl
                    && explain.explain_mode() == ExplainMode::QueryPlan;
                if !here {
                    outcome.class = Class::Read;
                    outcome.place = Place::Catalogue;
                    outcome.template = Template::fixed(self.source.text.to_owned());
                }
            }
            Stmt::TransactionStmt(statement) => {
                return Err(self.refuse(statement.node_id(), crate::allowed::NO_TRANSACTIONS));
            }
            Stmt::SavepointStmt(statement) => {
                return Err(self.refuse(statement.node_id(), crate::allowed::NO_TRANSACTIONS));
            }
            Stmt::AttachStmt(statement) => {
                return Err(self.refuse(statement.node_id(), crate::allowed::NO_ATTACH));
            }
            Stmt::DetachStmt(statement) => {
                return Err(self.refuse(statement.node_id(), crate::allowed::NO_ATTACH));
            }
            Stmt::VacuumStmt(statement) => {
                return Err(self.refuse(statement.node_id(), crate::allowed::NO_ATTACH));
            }
        }
        Ok(outcome)
    }

    /// Marks a node as one whose meaning is dealt with.
    fn understand(&mut self, id: impl Into<AnyNodeId>) {
        self.understood.insert(id.into());
    }

    /// Every node below the root must be marked. A list is understood when its members are.
    fn check_understood(&self, root: AnyNodeId) -> Result<()> {
        let tree = self.source.tree();
        let mut waiting = vec![root];
        while let Some(id) = waiting.pop() {
            match tree.list_children(id) {
                Some(children) => waiting.extend(children.iter().copied().filter(|child| !child.is_null())),
                None if self.understood.contains(&id) => waiting.extend(tree.child_node_ids(id)),
                None => return Err(not_understood()),
            }
        }
        Ok(())
    }

    /// One level deeper; to be left by `self.depth -= 1`. A walk that fails is not walked on.
    fn enter(&mut self) -> Result<()> {
        self.edits.check()?;
        self.depth += 1;
        if self.depth > MAX_NESTING + 50 {
            return Err(Error::new(Code::Sql, format!("the statement is nested deeper than {MAX_NESTING} levels")));
        }
        Ok(())
    }

    /// Refuses the statement, with the place of a node.
    fn refuse(&self, id: impl Into<AnyNodeId>, why: &str) -> Error {
        match self.source.extent(id) {
            Ok(range) => self.refuse_at(&range, why),
            Err(_) => Error::new(Code::StatementNotAllowed, why),
        }
    }

    /// Refuses the statement, with a place.
    fn refuse_at(&self, range: &Range<usize>, why: &str) -> Error {
        Error::new(Code::StatementNotAllowed, format!("{why} ({})", at(self.source.text, range.start)))
    }

    /// An error of SQLite's own kind, with a place.
    fn fail_at(&self, range: &Range<usize>, why: &str) -> Error {
        Error::new(Code::Sql, format!("{why} ({})", at(self.source.text, range.start)))
    }

    /// The schema before a name may be `main` alone.
    fn check_schema(&self, schema: &str) -> Result<()> {
        if schema.is_empty() {
            return Ok(());
        }
        let token = self.source.token(schema)?;
        match self.source.name(schema)?.as_str() {
            name if same(name, "main") => Ok(()),
            name if same(name, "temp") => Err(self.refuse_at(&token, crate::allowed::NO_TEMPORARY)),
            name => Err(self.fail_at(&token, &format!("unknown database {name}"))),
        }
    }

    /// Moves the name of an index that a statement wants to be used. SQLite names those of constraints after the table.
    fn move_index(&mut self, name: &str) -> Result<()> {
        const AUTOMATIC: &str = "sqlite_autoindex_";
        let text = self.source.name(name)?;
        if !starts_with(&text, AUTOMATIC) {
            return self.move_name(name);
        }
        let (start, table) = text.split_at(AUTOMATIC.len());
        let full = quote('"', &format!("{start}{}", self.prefix.full(table)));
        self.edits.replace(self.source.token(name)?, full);
        Ok(())
    }

    /// Moves the name of an index, view, trigger or table where SQL wants nothing but the name.
    fn move_name(&mut self, name: &str) -> Result<()> {
        let token = self.source.token(name)?;
        let full = self.prefix.quoted(&self.source.name(name)?);
        self.edits.replace(token, full);
        Ok(())
    }
}
