//! SQL of a namespace's own: any SQLite statement that a namespace's user sends becomes a statement
//! on that namespace's objects, or is refused.
//!
//! - [`rewrite()`]: one statement, for one state of a schema; [`RewriteCache`] caches results.
//! - [`Catalogue`]: a namespace's schema in the user's own names.
//! - [`Policy`]: the second line of defence, SQLite's authorizer on the data database. It knows
//!   nothing of the rewriter.
//! - [`Demangler`]: errors and query plans in the user's names.
//! - [`transaction_pragma`]: the PRAGMAs of a transaction, which the engine applies itself.
//! - [`HeaderField`]: `PRAGMA user_version` and `application_id`, values of the namespace.
//! - [`ExecutionContext`]: time and randomness, one value for each statement.
//! - [`counters`]: `last_insert_rowid()` and `changes()`, as the caller's own statements leave
//!   them.
//! - [`dump`]: the output of sqlite3 shells, as statements that a namespace may run.
//!
//! The crate knows no engine, no thread and no clock: the engine calls it and passes the time.
//! `DESIGN.md` describes how the parts fit.

mod allowed;
pub mod catalogue;
pub mod counters;
mod demangler;
pub mod dump;
mod error_mapping;
mod execution_context;
mod header;
mod names;
mod parsed_source;
pub mod policy;
mod position;
mod precheck;
mod query_plan;
mod reserved_names;
pub mod rewrite;
mod rewrite_cache;
mod rewriter;
mod splice;
mod statement_class;
pub mod transaction_pragma;
mod verify;

pub use catalogue::Catalogue;
pub use demangler::Demangler;
pub use execution_context::{ExecutionContext, MOMENT_CLEAR, MOMENT_DDL, MOMENT_SET, MOMENT_TABLE};
pub use header::HeaderField;
pub use names::INTERNAL_PREFIX;
pub use policy::Policy;
pub use query_plan::remove_time_reads;
pub use rewrite::{ForeignKeys, RewrittenStatement, rewrite};
pub use rewrite_cache::RewriteCache;
pub use statement_class::{ExecutionTarget, StatementClass, SystemTableGrants};
