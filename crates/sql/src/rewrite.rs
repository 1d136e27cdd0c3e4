//! From a user's statement to one on the namespace's own objects.

use crate::catalogue::Catalogue;
use crate::execution_context::ExecutionContext;
use crate::policy::Policy;
use crate::rewriter::statement::rewrite_statement;
use crate::splice::SqlTemplate;
use crate::statement_class::{ExecutionTarget, StatementClass, SystemTableGrants};
use crate::transaction_pragma::{self, TransactionPragma};
use crate::{precheck, verify};
use debros_proto::{Namespace, Result};
use std::borrow::Cow;

/// A rewritten statement. It is valid for one state of the schema: [`Catalogue::generation`].
#[derive(Debug)]
pub struct RewrittenStatement {
    pub(crate) template: SqlTemplate,
    /// What kind of statement it is.
    pub class: StatementClass,
    /// Where it is run.
    pub target: ExecutionTarget,
    /// The tables and views that the text itself names, as the user wrote them, each once.
    pub objects: Vec<String>,
    /// The names of the result's columns, as SQLite gives them for the user's own text; none if it
    /// returns no rows. They replace the column names of the rewritten statement.
    pub columns: Vec<String>,
    /// How many arguments it takes.
    pub parameters: usize,
    /// It changes rows and returns some.
    pub returning: bool,
    /// It changes the catalogue: [`Catalogue::apply`] on a fork, published after the commit.
    pub changes_schema: bool,
    /// Views or triggers that it reaches read the time: run [`MOMENT_SET`](crate::MOMENT_SET)
    /// before it, in the same transaction.
    pub needs_moment: bool,
    /// It, or what it reaches, reads `last_insert_rowid()` or `changes()`: run
    /// [`restore_counters`](crate::counters::restore_counters) right before it.
    pub reads_counters: bool,
    /// It writes random values that the database makes, row by row: run again it writes others. An
    /// engine that sends statements to several databases must not send it as it is.
    pub random_rows: bool,
    /// Text values of its rows may contain names of the database:
    /// [`Demangler::demangle_text`](crate::Demangler::demangle_text) them.
    pub tells_names: bool,
    /// The policy's exceptions beside the namespace's own objects.
    pub grants: SystemTableGrants,
    /// The names that SQLite asked about when it compiled the user's text, for the policy.
    pub(crate) result_names: Vec<String>,
}

impl RewrittenStatement {
    fn for_pragma(pragma: TransactionPragma) -> Self {
        Self {
            template: SqlTemplate::default(),
            class: if pragma.is_default() { StatementClass::Read } else { StatementClass::Write },
            target: ExecutionTarget::Transaction(pragma),
            objects: Vec::new(),
            columns: pragma
                .on
                .is_none()
                .then(|| pragma.name.name().to_owned())
                .into_iter()
                .collect(),
            parameters: 0,
            returning: false,
            changes_schema: false,
            needs_moment: false,
            reads_counters: false,
            random_rows: false,
            tells_names: false,
            grants: SystemTableGrants::default(),
            result_names: Vec::new(),
        }
    }

    /// The text to run. It is the same each time unless
    /// [`is_nondeterministic`](RewrittenStatement::is_nondeterministic).
    pub fn fill_sql(&self, context: &mut ExecutionContext<'_>) -> Cow<'_, str> {
        self.template.render(|placeholder, text| placeholder.fill(context, text))
    }

    /// Whether the text contains values of its execution context.
    pub fn is_nondeterministic(&self) -> bool {
        self.template.has_placeholders()
    }

    /// The policy for this statement.
    pub fn policy(&self, namespace: &Namespace) -> Policy {
        Policy::new(namespace, self.class, self.grants).with_results(&self.result_names)
    }

    /// Bytes that it takes, roughly, for the cache.
    pub(crate) fn memory_size(&self) -> usize {
        let names: usize = self
            .objects
            .iter()
            .chain(&self.columns)
            .chain(&self.result_names)
            .map(|name| name.len() + 24)
            .sum();
        size_of::<Self>() + self.template.memory_size() + names
    }
}

/// Whether statements have to keep foreign keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignKeys {
    /// They have to, as everywhere outside of a transaction that turned foreign keys off.
    Enforced,
    /// A transaction turned foreign keys off: SQLite reads neither parents nor their indexes, and
    /// changes of parents do not affect their children.
    Off,
}

/// Rewrites a statement for a namespace, or refuses it.
///
/// # Errors
/// `sql_error` when SQLite does not accept it, in the user's words and with the position in the
/// user's text; `statement_not_allowed` when it is not among the known and allowed forms;
/// `sql_too_long`; `statement_timeout` when it takes too long to compile.
pub fn rewrite(
    sql: &str,
    catalogue: &Catalogue,
    foreign_keys: ForeignKeys,
) -> Result<RewrittenStatement> {
    precheck::check_text(sql)?;
    if transaction_pragma::may_hold_pragma(sql)
        && let Some(pragma) = transaction_pragma::parse_pragma(sql)?
    {
        return Ok(RewrittenStatement::for_pragma(pragma));
    }
    let inner = catalogue.lock();
    let _foreign_keys_off = match foreign_keys {
        ForeignKeys::Enforced => None,
        ForeignKeys::Off => Some(inner.disable_foreign_keys()?),
    };
    let compiled = inner.compile(sql)?;
    let outcome = rewrite_statement(sql, &catalogue.prefix, &inner, &compiled)?;
    if outcome.target == ExecutionTarget::Data && !outcome.verified {
        // The first compilation that meets a virtual table also records what that table reads as it
        // is set up, which may not fit the statement. The second records the statement alone.
        verify::check_record(&compiled, &outcome, &inner)
            .or_else(|_| verify::check_record(&inner.compile(sql)?, &outcome, &inner))?;
        verify::check_text(&outcome.template.with_stand_ins(), &catalogue.prefix, outcome.grants)?;
    }
    let mut objects: Vec<String> = Vec::new();
    for object in outcome.objects {
        if !objects.iter().any(|known| known.eq_ignore_ascii_case(&object)) {
            objects.push(object);
        }
    }
    // The names of subqueries and CTEs are among them, also of those inside views and triggers:
    // SQLite asks the policy about these too. Tables have other names in the database.
    let read = compiled.record.accesses.iter().filter(|access| !access.writes && !access.unused);
    let mut results: Vec<String> = read.map(|access| access.table.clone()).collect();
    results.dedup();
    Ok(RewrittenStatement {
        template: outcome.template,
        class: outcome.class,
        target: outcome.target,
        objects,
        // SQLite's checks inside some forms of ALTER TABLE show as a column, which no row ever has.
        columns: if outcome.class == StatementClass::Ddl { Vec::new() } else { compiled.columns },
        parameters: compiled.parameters,
        returning: outcome.returning,
        changes_schema: outcome.changes_schema,
        needs_moment: outcome.class != StatementClass::Read && compiled.record.reads_time_inside,
        reads_counters: compiled.record.reads_counters,
        random_rows: outcome.random_rows,
        tells_names: outcome.tells_names,
        grants: outcome.grants,
        result_names: results,
    })
}
