//! References (foreign keys) while a transaction has turned them off or deferred them.
//!
//! This is how a table is made anew that others refer to: off, DROP TABLE, ALTER TABLE … RENAME, on. What is off is not
//! broken: before such a transaction commits, every reference of the namespace is looked at.

use crate::embedded::conn::Conn;
use crate::embedded::failure;
use crate::embedded::gate::Rights;
use debros_proto::rpc::{Row, Statement, StatementResult, Value, value::Kind};
use debros_proto::{Code, Error, Result};
use debros_sql::setting::{Setting, Which};
use rusqlite::config::DbConfig;

/// How references are looked at on the writer's connection, in one call. Afterwards it is as always.
pub(super) struct References<'c> {
    conn: &'c Conn,
    enforced: bool,
    deferred: bool,
    lapsed: bool,
}

impl<'c> References<'c> {
    pub(super) fn new(conn: &'c Conn) -> Self {
        Self { conn, enforced: Which::Enforced.usual(), deferred: Which::Deferred.usual(), lapsed: false }
    }

    /// Does or tells what a statement wants.
    pub(super) fn set(&mut self, setting: Setting) -> Result<StatementResult> {
        let Setting { what, on } = setting;
        match (what, on) {
            (Which::Enforced, None) => return Ok(told(what, self.enforced)),
            (Which::Deferred, None) => return Ok(told(what, self.deferred)),
            // A dump's, which is no matter of references.
            (Which::WritableSchema, _) => return Ok(StatementResult::default()),
            (Which::Enforced, Some(on)) => self.enforce(on)?,
            (Which::Deferred, Some(on)) => {
                self.conn.gate.enter(Rights::Own);
                self.conn.db.pragma_update(None, what.name(), on).map_err(failure::of)?;
                self.deferred = on;
            }
        }
        Ok(StatementResult::default())
    }

    /// Whether statements are held to them now.
    pub(super) fn enforced(&self) -> bool {
        self.enforced
    }

    /// Has references looked at again. True: for some time they were not.
    pub(super) fn restore(&mut self) -> Result<bool> {
        self.enforce(true)?;
        Ok(self.lapsed)
    }

    /// The PRAGMA itself does nothing in a transaction.
    fn enforce(&mut self, on: bool) -> Result<()> {
        if on != self.enforced {
            self.conn.db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, on).map_err(failure::of)?;
            self.enforced = on;
            self.lapsed |= !on;
        }
        Ok(())
    }
}

impl Drop for References<'_> {
    fn drop(&mut self) {
        // The end of the transaction takes the deferral with it.
        if let Err(error) = self.enforce(true) {
            tracing::error!(%error, "foreign keys could not be turned on again");
        }
    }
}

/// What a call of a single statement gets.
pub(super) fn outside(setting: Setting) -> Result<StatementResult> {
    let Setting { what, on } = setting;
    match on {
        None => Ok(told(what, what.usual())),
        Some(_) if setting.is_usual() => Ok(StatementResult::default()),
        Some(_) => Err(Error::new(
            Code::StatementNotAllowed,
            format!(
                "PRAGMA {} holds for the transaction that it stands in: send it in one transaction call with the statements \
                 that need it",
                what.name()
            ),
        )),
    }
}

/// Asks for a row whose reference leads nowhere.
pub(super) fn question() -> Statement {
    Statement { sql: "SELECT * FROM pragma_foreign_key_check LIMIT 1".to_owned(), ..Statement::default() }
}

/// Says why the question was asked, where there is no answer: a parent's columns have no unique index, or it takes too long.
pub(super) fn not_judged(error: Error) -> Error {
    let advice = match error.code {
        Code::Sql if error.message.starts_with("foreign key mismatch") => {
            "give the parent's columns a PRIMARY KEY or a UNIQUE index in it"
        }
        Code::StatementTimeout => "the namespace has too many for that: drop some of the references first",
        _ => return error,
    };
    let message = format!(
        "{} (PRAGMA foreign_keys was OFF, so all references were looked at, at the end of the transaction: {advice}); nothing \
         was changed",
        error.message
    );
    Error { message, ..error }
}

/// Refuses a transaction that left such a row.
pub(super) fn judge(found: &StatementResult) -> Result<()> {
    let Some(row) = found.rows.first() else { return Ok(()) };
    let text = |index: usize| match row.values.get(index).and_then(|value| value.kind.as_ref()) {
        Some(Kind::Text(text)) => text.clone(),
        Some(Kind::Integer(integer)) => integer.to_string(),
        _ => "?".to_owned(),
    };
    let row = match text(1).as_str() {
        "?" => "a row".to_owned(),
        rowid => format!("the row with rowid {rowid}"),
    };
    Err(Error::new(
        Code::Constraint,
        format!(
            "FOREIGN KEY constraint failed: PRAGMA foreign_keys was OFF, and at the end of the transaction {row} of {} refers \
             to no row of {}; nothing was changed",
            text(0),
            text(2)
        ),
    ))
}

pub(super) fn told(what: Which, on: bool) -> StatementResult {
    let values = vec![Value { kind: Some(Kind::Integer(on.into())) }];
    StatementResult { columns: vec![what.name().to_owned()], rows: vec![Row { values }], ..StatementResult::default() }
}
