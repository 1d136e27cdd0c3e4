//! SQLite's errors, with their place in the user's text.

use crate::catalogue::recorder::Record;
use crate::place::at;
use crate::source::several;
use debros_proto::words::counted;
use debros_proto::{Code, Error};
use rusqlite::ErrorCode;

/// Why the catalogue did not compile or run a user's statement.
pub(crate) fn of_compiling(error: rusqlite::Error, mut record: Record, sql: &str) -> Error {
    if record.is_late() {
        return Error::new(Code::StatementTimeout, "the statement takes too long to compile");
    }
    match error {
        rusqlite::Error::MultipleStatement => several(),
        rusqlite::Error::SqlInputError { error, msg, offset, .. } => match denied(error.code, &mut record) {
            Some(refusal) => refusal,
            None => match usize::try_from(offset) {
                Ok(offset) => of_code(error.code, format!("{msg} ({})", at(sql, offset))),
                Err(_) => of_code(error.code, msg),
            },
        },
        rusqlite::Error::SqliteFailure(error, message) => match denied(error.code, &mut record) {
            Some(refusal) => refusal,
            None => of_code(error.code, message.unwrap_or_else(|| error.to_string())),
        },
        rusqlite::Error::InvalidParameterCount(given, wanted) => {
            let takes = counted(wanted as u64, "argument");
            Error::new(Code::Sql, format!("the statement takes {takes}; given: {given}"))
        }
        _ => Error::internal("the namespace's catalogue failed"),
    }
}

fn denied(code: ErrorCode, record: &mut Record) -> Option<Error> {
    let refusal = record.refusal();
    // The modules of virtual tables tell in their own words that one of their statements was refused.
    (code == ErrorCode::AuthorizationForStatementDenied || refusal.is_some()).then(|| {
        Error::new(
            Code::StatementNotAllowed,
            refusal.unwrap_or_else(|| "this kind of statement is not allowed".to_owned()),
        )
    })
}

fn of_code(code: ErrorCode, message: String) -> Error {
    match code {
        ErrorCode::OperationInterrupted => Error::new(Code::StatementTimeout, "the statement ran too long"),
        ErrorCode::DiskFull => Error::new(Code::ResultTooLarge, "the statement makes too much out of nothing"),
        ErrorCode::TooBig => Error::new(Code::TooLarge, message),
        ErrorCode::OutOfMemory => Error::new(Code::Overloaded, "the node has no memory left for this statement"),
        ErrorCode::ConstraintViolation => Error::new(Code::Constraint, message),
        _ => Error::new(Code::Sql, message),
    }
}
