//! What the walk finds out about a statement.

use crate::class::{Class, Grants, Place};
use crate::edit::Template;

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
