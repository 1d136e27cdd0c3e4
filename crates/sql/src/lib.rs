//! SQL of a namespace's own: any SQLite statement that a namespace's user sends becomes a statement on that namespace's
//! objects, or is refused.
//!
//! - [`rewrite()`]: one statement, for one state of a schema; [`Rewriter`] remembers.
//! - [`Catalogue`]: a namespace's schema in the user's own names.
//! - [`Policy`]: the second line, SQLite's authorizer on the data database. It knows nothing of the rewriter.
//! - [`Demangler`]: errors and query plans in the user's names.
//! - [`setting`]: what a transaction's PRAGMAs want, for the engine to obey.
//! - [`HeaderField`]: `PRAGMA user_version` and `application_id`, values of the namespace.
//! - [`Moment`]: time and randomness, given one value for each statement.
//! - [`counters`]: `last_insert_rowid()` and `changes()`, as the caller's own statements leave them.
//! - [`dump`]: what sqlite3 shells write, as statements that a namespace may run.
//!
//! The crate knows no engine, no thread and no clock: the engine calls it, and says what time it is. How the parts fit is
//! in `DESIGN.md`.

mod allowed;
mod cache;
pub mod catalogue;
mod class;
pub mod counters;
mod demangle;
pub mod dump;
mod edit;
mod failure;
mod gate;
mod header;
mod moment;
mod names;
mod place;
mod plan;
pub mod policy;
mod reserved_names;
pub mod rewrite;
pub mod setting;
mod source;
mod verify;
mod walk;

pub use cache::Rewriter;
pub use catalogue::Catalogue;
pub use class::{Class, Grants, Place};
pub use demangle::Demangler;
pub use header::HeaderField;
pub use moment::{MOMENT_CLEAR, MOMENT_DDL, MOMENT_SET, MOMENT_TABLE, Moment};
pub use names::INTERNAL_PREFIX;
pub use plan::without_moment;
pub use policy::Policy;
pub use rewrite::{Rewritten, rewrite, rewrite_under};
