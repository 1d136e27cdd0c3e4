//! The class of a statement, where it runs, and what it may read beside its namespace.

use crate::header::HeaderField;
use crate::transaction_pragma::TransactionPragma;

/// The class of a statement: what it needs of the database, and what the policy allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatementClass {
    /// It changes nothing.
    Read,
    /// It changes rows.
    Write,
    /// It changes the schema, or what is derived from the data (ANALYZE, REINDEX).
    Ddl,
}

/// Where a statement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecutionTarget {
    /// In the database that holds the namespace's data.
    Data,
    /// In the catalogue: [`Catalogue::query`](crate::Catalogue::query).
    Catalogue,
    /// Nowhere as a text: it is about the transaction that it stands in, and the engine applies it
    /// itself.
    Transaction(TransactionPragma),
    /// It sets a field of the namespace's header: the engine applies it to a fork of the catalogue,
    /// as a change of the schema, and stores the field's value with the data.
    Header(HeaderField),
}

/// Tables beside the namespace's own objects that the rewritten text reads, and that the policy
/// refuses otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SystemTableGrants {
    /// `sqlite_sequence`, for this namespace's rows.
    pub sequence: bool,
    /// `sqlite_stat1`, for this namespace's rows; in an ANALYZE, the rows of the table that it
    /// analyzes.
    pub statistics: bool,
}
