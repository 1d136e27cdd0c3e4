//! SQLite's errors, with their position in the user's text.

use crate::catalogue::recorder::AccessRecord;
use crate::parsed_source::multiple_statements_error;
use crate::position::line_and_column;
use debros_proto::words::counted;
use debros_proto::{Code, Error};
use rusqlite::ErrorCode;

/// Why the catalogue did not compile or run a user's statement.
pub(crate) fn map_compile_error(
    error: rusqlite::Error,
    mut record: AccessRecord,
    sql: &str,
) -> Error {
    if record.has_timed_out() {
        return Error::new(Code::StatementTimeout, "the statement takes too long to compile");
    }
    match error {
        rusqlite::Error::MultipleStatement => multiple_statements_error(),
        rusqlite::Error::SqlInputError { error, msg, offset, .. } => {
            match refusal_error(error.code, &mut record) {
                Some(refusal) => refusal,
                None => match usize::try_from(offset) {
                    Ok(offset) => map_error_code(
                        error.code,
                        format!("{msg} ({})", line_and_column(sql, offset)),
                    ),
                    Err(_) => map_error_code(error.code, msg),
                },
            }
        }
        rusqlite::Error::SqliteFailure(error, message) => {
            match refusal_error(error.code, &mut record) {
                Some(refusal) => refusal,
                None => map_error_code(error.code, message.unwrap_or_else(|| error.to_string())),
            }
        }
        rusqlite::Error::InvalidParameterCount(given, wanted) => {
            let takes = counted(wanted as u64, "argument");
            Error::new(Code::Sql, format!("the statement takes {takes}; given: {given}"))
        }
        _ => Error::internal("the namespace's catalogue failed"),
    }
}

fn refusal_error(code: ErrorCode, record: &mut AccessRecord) -> Option<Error> {
    let refusal = record.take_refusal();
    // The modules of virtual tables report in their own words that one of their statements was
    // refused.
    (code == ErrorCode::AuthorizationForStatementDenied || refusal.is_some()).then(|| {
        Error::new(
            Code::StatementNotAllowed,
            refusal.unwrap_or_else(|| "this kind of statement is not allowed".to_owned()),
        )
    })
}

fn map_error_code(code: ErrorCode, message: String) -> Error {
    match code {
        ErrorCode::OperationInterrupted => {
            Error::new(Code::StatementTimeout, "the statement ran too long")
        }
        ErrorCode::DiskFull => {
            Error::new(Code::ResultTooLarge, "the statement makes too much out of nothing")
        }
        ErrorCode::TooBig => Error::new(Code::TooLarge, message),
        ErrorCode::OutOfMemory => {
            Error::new(Code::Overloaded, "the node has no memory left for this statement")
        }
        ErrorCode::ConstraintViolation => Error::new(Code::Constraint, message),
        _ => Error::new(Code::Sql, message),
    }
}
