//! SQL of a namespace's own: any SQLite statement that a namespace's user sends becomes a statement on that namespace's
//! objects, or is refused.
//!
//! - [`rewrite()`]: one statement, for one state of a schema; [`Rewriter`] remembers.
//! - [`Catalogue`]: a namespace's schema in the user's own names.
//! - [`Policy`]: the second line, SQLite's authorizer on the data database. It knows nothing of the rewriter.
//! - [`Demangler`]: errors and query plans in the user's names.
//! - [`setting`]: what a transaction's PRAGMAs want of foreign keys, for the engine to obey.
//! - [`Moment`]: time and randomness, given one value for each statement.
//!
//! The crate knows no engine, no thread and no clock: the engine calls it, and says what time it is. How the parts fit is
//! in `DESIGN.md`.

mod allowed;
mod cache;
pub mod catalogue;
mod demangle;
mod edit;
mod failure;
mod gate;
mod moment;
mod names;
mod place;
pub mod policy;
pub mod rewrite;
pub mod setting;
mod source;
mod verify;
mod walk;

pub use cache::Rewriter;
pub use catalogue::Catalogue;
pub use demangle::Demangler;
pub use moment::{MOMENT_CLEAR, MOMENT_DDL, MOMENT_SET, MOMENT_TABLE, Moment};
pub use names::INTERNAL_PREFIX;
pub use policy::Policy;
pub use rewrite::{Class, Grants, Place, Rewritten, rewrite, rewrite_under};
