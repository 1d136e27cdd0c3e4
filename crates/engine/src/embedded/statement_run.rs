//! A statement on its way to a connection.

use super::authorizer::StatementRights;
use debros_proto::rpc::{Statement, Value};

/// A statement as a connection is to run it.
#[derive(Clone, Copy)]
pub(super) struct StatementRun<'a> {
    pub(super) sql: &'a str,
    pub(super) args: &'a [Value],
    pub(super) rights: StatementRights<'a>,
    /// The same text comes again, so that it is worth keeping compiled.
    pub(super) recurs: bool,
    /// Whether it writes; `None`: SQLite decides.
    pub(super) writes: Option<bool>,
    /// It reports on the schema without running: SQLite does not look by itself whether the schema
    /// is still the newest.
    pub(super) explains: bool,
    /// The names of the result's columns, where they are not those of the text.
    pub(super) columns: Option<&'a [String]>,
}

impl<'a> StatementRun<'a> {
    /// One of the node's own statements.
    pub(super) fn for_node(statement: &'a Statement) -> Self {
        Self {
            sql: &statement.sql,
            args: &statement.args,
            rights: StatementRights::Internal,
            recurs: true,
            writes: None,
            explains: false,
            columns: None,
        }
    }
}
