//! References (foreign keys) while a transaction has turned them off or deferred them.
//!
//! This is how a table is recreated that others refer to: off, DROP TABLE, ALTER TABLE … RENAME,
//! on. What is off is not broken: before such a transaction commits, every reference of the
//! namespace is looked at.

use crate::embedded::authorizer::StatementRights;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::error_mapping;
use debros_proto::rpc::{Row, Statement, StatementResult, Value, value::Kind};
use debros_proto::{Code, Error, Result};
use debros_sql::transaction_pragma::{PragmaName, TransactionPragma};
use rusqlite::config::DbConfig;

/// How references are looked at on the writer's connection, in one call. Afterwards it is as
/// always.
pub(super) struct ForeignKeyMode<'c> {
    conn: &'c SqliteConnection,
    enforced: bool,
    deferred: bool,
    was_disabled: bool,
}

impl<'c> ForeignKeyMode<'c> {
    pub(super) fn new(conn: &'c SqliteConnection) -> Self {
        Self {
            conn,
            enforced: PragmaName::ForeignKeys.default_value(),
            deferred: PragmaName::DeferForeignKeys.default_value(),
            was_disabled: false,
        }
    }

    /// Does what a statement wants, or answers it.
    pub(super) fn apply_pragma(&mut self, setting: TransactionPragma) -> Result<StatementResult> {
        let TransactionPragma { name: what, on } = setting;
        match (what, on) {
            (PragmaName::ForeignKeys, None) => return Ok(pragma_result(what, self.enforced)),
            (PragmaName::DeferForeignKeys, None) => return Ok(pragma_result(what, self.deferred)),
            // A dump's, which is no matter of references.
            (PragmaName::WritableSchema, _) => return Ok(StatementResult::default()),
            (PragmaName::ForeignKeys, Some(on)) => self.set_enforcement(on)?,
            (PragmaName::DeferForeignKeys, Some(on)) => {
                self.conn.authorizer.set_rights(StatementRights::Internal);
                self.conn
                    .db
                    .pragma_update(None, what.name(), on)
                    .map_err(error_mapping::map_sqlite_error)?;
                self.deferred = on;
            }
        }
        Ok(StatementResult::default())
    }

    /// Whether statements are held to them now.
    pub(super) fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// Has references looked at again. True: for some time they were not.
    pub(super) fn restore_default(&mut self) -> Result<bool> {
        self.set_enforcement(true)?;
        Ok(self.was_disabled)
    }

    /// The PRAGMA itself does nothing in a transaction.
    fn set_enforcement(&mut self, on: bool) -> Result<()> {
        if on != self.enforced {
            self.conn
                .db
                .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, on)
                .map_err(error_mapping::map_sqlite_error)?;
            self.enforced = on;
            self.was_disabled |= !on;
        }
        Ok(())
    }
}

impl Drop for ForeignKeyMode<'_> {
    fn drop(&mut self) {
        // The end of the transaction takes the deferral with it.
        if let Err(error) = self.set_enforcement(true) {
            tracing::error!(%error, "foreign keys could not be turned on again");
        }
    }
}

/// What a call of a single statement gets.
pub(super) fn answer_outside_transaction(setting: TransactionPragma) -> Result<StatementResult> {
    let TransactionPragma { name: what, on } = setting;
    match on {
        None => Ok(pragma_result(what, what.default_value())),
        Some(_) if setting.is_default() => Ok(StatementResult::default()),
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
pub(super) fn violation_query() -> Statement {
    Statement {
        sql: "SELECT * FROM pragma_foreign_key_check LIMIT 1".to_owned(),
        ..Statement::default()
    }
}

/// Says why the question was asked, where there is no answer: a parent's columns have no unique
/// index, or it takes too long.
pub(super) fn check_failed_error(error: Error) -> Error {
    let advice = match error.code {
        Code::Sql if error.message.starts_with("foreign key mismatch") => {
            "give the parent's columns a PRIMARY KEY or a UNIQUE index in it"
        }
        Code::StatementTimeout => {
            "the namespace has too many for that: drop some of the references first"
        }
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
pub(super) fn check_no_violation(found: &StatementResult) -> Result<()> {
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

pub(super) fn pragma_result(what: PragmaName, on: bool) -> StatementResult {
    let values = vec![Value { kind: Some(Kind::Integer(on.into())) }];
    StatementResult {
        columns: vec![what.name().to_owned()],
        rows: vec![Row { values }],
        ..StatementResult::default()
    }
}
