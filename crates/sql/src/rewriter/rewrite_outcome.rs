//! The rewriter's findings about a statement.

use crate::splice::SqlTemplate;
use crate::statement_class::{ExecutionTarget, StatementClass, SystemTableGrants};

/// The rewriter's findings about a statement.
#[derive(Debug)]
pub(crate) struct RewriteOutcome {
    pub(crate) template: SqlTemplate,
    pub(crate) class: StatementClass,
    pub(crate) target: ExecutionTarget,
    /// Qualified names of tables, as the user wrote them.
    pub(crate) objects: Vec<String>,
    /// Aliases of tables and subqueries.
    pub(crate) aliases: Vec<String>,
    pub(crate) grants: SystemTableGrants,
    pub(crate) returning: bool,
    /// It changes the catalogue.
    pub(crate) changes_schema: bool,
    /// Its rows contain names of the database in running text.
    pub(crate) tells_names: bool,
    /// As in [`RewrittenStatement`](crate::RewrittenStatement::random_rows).
    pub(crate) random_rows: bool,
    /// It was checked already, in parts, because the parser does not know the whole.
    pub(crate) verified: bool,
}

impl Default for RewriteOutcome {
    fn default() -> Self {
        Self {
            template: SqlTemplate::default(),
            class: StatementClass::Write,
            target: ExecutionTarget::Data,
            objects: Vec::new(),
            aliases: Vec::new(),
            grants: SystemTableGrants::default(),
            returning: false,
            changes_schema: false,
            tells_names: false,
            random_rows: false,
            verified: false,
        }
    }
}
