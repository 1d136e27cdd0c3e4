//! The walk over a statement: every node is understood and its names are moved into the namespace, or the statement is
//! refused.
//!
//! Two nets lie under it. Each node that a method here has understood is marked, and at the end every node of the tree
//! must be marked. And `match` has no catch-all arm over statements, expressions and sources, so that a kind which a newer
//! parser adds does not compile.

mod column;
mod ddl;
mod dml;
mod expr;
mod live;
mod newer_alter;
mod scope;
mod select;
mod special;
mod table;
mod time;
mod virtual_table;

use crate::catalogue::{Compiled, Inner};
use crate::edit::{Edits, Template};
use crate::gate::MAX_NESTING;
use crate::header::HeaderField;
use crate::names::{Prefix, quote, same, starts_with};
use crate::place::at;
use crate::rewrite::{Class, Grants, Place};
use crate::source::{Source, not_understood, with_statement};
use debros_proto::{Code, Error, Namespace, Result};
use scope::Scopes;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{ExplainMode, PragmaForm, Stmt};
use time::Clock;

/// What the walk found out about a statement.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) template: Template,
    pub(crate) class: Class,
    pub(crate) place: Place,
    /// Names in the place of a table that were moved, as the user wrote them.
    pub(crate) objects: Vec<String>,
    /// Aliases of tables and subqueries.
    pub(crate) aliases: Vec<String>,
    pub(crate) grants: Grants,
    pub(crate) returning: bool,
    /// It changes what the catalogue holds.
    pub(crate) changes_schema: bool,
    /// Its rows tell names of the database in running text.
    pub(crate) tells_names: bool,
    /// As in [`Rewritten`](crate::Rewritten::random_rows).
    pub(crate) random_rows: bool,
    /// It was looked at already, in parts, because the parser does not know the whole.
    pub(crate) verified: bool,
}

impl Default for Outcome {
    fn default() -> Self {
        Self {
            template: Template::default(),
            class: Class::Write,
            place: Place::Data,
            objects: Vec::new(),
            aliases: Vec::new(),
            grants: Grants::default(),
            returning: false,
            changes_schema: false,
            tells_names: false,
            random_rows: false,
            verified: false,
        }
    }
}

/// One statement under way.
pub(crate) struct Walk<'w> {
    pub(crate) source: &'w Source<'w>,
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

/// Walks a statement that SQLite has compiled on the catalogue.
///
/// # Errors
/// `statement_not_allowed` or `sql_error`, with the place in the user's text.
pub(crate) fn statement(sql: &str, prefix: &Prefix, inner: &Inner, compiled: &Compiled) -> Result<Outcome> {
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

/// Rewrites a column's default for the rows that omit the column; says too whether it is random.
pub(crate) fn default_expression(text: &str) -> Result<(Template, bool)> {
    // The prefix and the catalogue are of no importance: a default names no table.
    let sql = format!("SELECT {text}");
    static EMPTY: LazyLock<Option<Mutex<Inner>>> = LazyLock::new(|| Inner::open().ok().map(Mutex::new));
    let prefix = Prefix::new(&Namespace::internal());
    let inner = EMPTY.as_ref().ok_or_else(not_understood)?.lock().unwrap_or_else(PoisonError::into_inner);
    with_statement(&sql, |source, root| {
        let Stmt::SelectStmt(select) = root else {
            return Err(not_understood());
        };
        let mut walk = Walk::new(source, &prefix, &inner);
        walk.clock = Clock::Slots;
        walk.bare_expressions(select)?;
        walk.check_understood(source.tree().root_id())?;
        let random = walk.edits.any(|piece| {
            use crate::edit::Piece;
            use crate::moment::Slot;
            matches!(piece, Piece::Slot(Slot::Random | Slot::RandomBlob(_)))
        });
        // The word SELECT goes again.
        walk.edits.replace(0.."SELECT ".len(), "");
        Ok((walk.edits.apply(source.text)?, random))
    })
}

/// Whether a statement asks about the schema and about nothing else.
fn asks_catalogue_alone(inner: &Inner, compiled: &Compiled) -> bool {
    use crate::allowed::{SCHEMA_TABLES, TABLE_FUNCTIONS};
    use crate::names::is_one_of;
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
