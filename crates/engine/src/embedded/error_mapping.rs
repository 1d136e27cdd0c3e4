//! SQLite's errors as the caller sees them.

use super::disk_fault;
use super::disk_reserve::disk_full_error;
use super::replication::NamelessRowid;
use super::size_accounting::{Quota, QuotaOf, SpaceExhausted};
use debros_proto::{Code, Error};
use rusqlite::ErrorCode;
use std::fs::File;
use std::io;
use std::time::Duration;

/// This process has as many files open as it may.
const EMFILE: i32 = 24;
/// The machine has.
const ENFILE: i32 = 23;

const LOCKED_VTAB: i32 = rusqlite::ffi::SQLITE_LOCKED_VTAB;
const IOERR_NOMEM: i32 = rusqlite::ffi::SQLITE_IOERR_NOMEM;

const CORRUPT_VTAB: i32 = rusqlite::ffi::SQLITE_CORRUPT_VTAB;
const IOERR_FSYNC: i32 = rusqlite::ffi::SQLITE_IOERR_FSYNC;
const IOERR_DIR_FSYNC: i32 = rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC;

/// What went wrong in a statement. A full database and an interruption get their exact meaning from
/// the writer, which knows the limits: they come out of here as `database_full` and
/// `statement_timeout`. Whether the caller made it or the node decides between the codes that HTTP
/// shows as 4xx and as 5xx.
pub(super) fn map_sqlite_error(error: rusqlite::Error) -> Error {
    match error {
        rusqlite::Error::SqliteFailure(inner, message) => {
            let message = message.unwrap_or_else(|| inner.to_string());
            map_error_code(inner.code, inner.extended_code, message)
        }
        rusqlite::Error::SqlInputError { error, msg, offset, .. } => map_error_code(
            error.code,
            error.extended_code,
            format!("{msg} (at byte {offset} of the statement)"),
        ),
        rusqlite::Error::MultipleStatement => multiple_statements_error(),
        rusqlite::Error::ToSqlConversionFailure(why) if why.is::<NamelessRowid>() => {
            Error::new(Code::StatementNotAllowed, why.to_string())
        }
        other => {
            tracing::error!(error = %other, "unexpected database error");
            Error::internal("the database driver failed; the node's log has more")
        }
    }
}

/// The database file is damaged.
pub(super) fn database_damaged_error() -> Error {
    Error::new(
        Code::Corrupt,
        "the database is damaged: an operator must restore a backup; it takes no writes until then",
    )
}

/// All databases together are as large as they may be.
pub(super) fn node_full_error(what: &str, total: u64, max: u64) -> Error {
    Error::new(
        Code::DatabaseFull,
        format!(
            "{what} does not fit: the databases take {total} of {max} bytes (database.max_database_size); delete something or \
             raise the limit"
        ),
    )
}

/// `what` finds no room in what is full.
pub(super) fn space_exhausted_error(what: &str, full: SpaceExhausted) -> Error {
    match full {
        SpaceExhausted::Node { total, max } => node_full_error(what, total, max),
        SpaceExhausted::Quota(quota) => quota_exceeded_error(quota),
    }
}

/// A namespace, or all of its owner's, have as much as they may have.
pub(super) fn quota_exceeded_error(quota: Quota) -> Error {
    let Quota { of, taken, max } = quota;
    let message = match of {
        QuotaOf::Namespace => format!(
            "the write does not fit: the namespace takes {taken} of {max} bytes (database.max_namespace_size), its tables, \
             key-value pairs and idempotency records together; delete something or have the node's operator raise the limit"
        ),
        QuotaOf::Owner => format!(
            "the write does not fit: all namespaces of this one's owner take {taken} of {max} bytes together \
             (database.max_owner_size); delete something in one of them, or have the node's operator raise the limit"
        ),
    };
    Error::new(Code::QuotaExceeded, message)
}

/// Whether there are no file descriptors left, in this process or on the machine.
pub(super) fn is_descriptor_shortage(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| code == EMFILE || code == ENFILE)
}

fn has_descriptor_shortage() -> bool {
    File::open("/").is_err_and(|error| is_descriptor_shortage(&error))
}

/// The process has as many files open as it may.
pub(super) fn too_many_files_error() -> Error {
    tracing::warn!(
        "the limit on open files is reached: raise it (ulimit -Hn, LimitNOFILE=, --ulimit nofile=)"
    );
    Error::new(
        Code::Overloaded,
        "the node has as many files open as it may (the limit on open files, RLIMIT_NOFILE); try again, and if that goes on \
         have its operator raise the limit",
    )
    .retry_after(Duration::from_secs(1))
}

/// The text holds more than one statement.
pub(super) fn multiple_statements_error() -> Error {
    Error::new(
        Code::StatementNotAllowed,
        "the text holds more than one statement: send one, or several in a transaction call",
    )
}

fn map_error_code(code: ErrorCode, extended: i32, message: String) -> Error {
    match code {
        // The last thing that SQLite asked of the system in this thread is what failed; and if not,
        // it still fails.
        ErrorCode::CannotOpen
            if is_descriptor_shortage(&io::Error::last_os_error()) || has_descriptor_shortage() =>
        {
            too_many_files_error()
        }
        ErrorCode::ConstraintViolation => Error::new(Code::Constraint, message),
        ErrorCode::OperationInterrupted => {
            Error::new(Code::StatementTimeout, "the statement ran too long")
        }
        // The name misleads: SQLite has one code for its own limit on the file (`max_page_count`)
        // and for a full disk. The limit is assumed here. The writer (`map_full_error`), reads
        // (`execution.rs`) and copies (`copy_error.rs`) replace the error where it is the disk.
        ErrorCode::DiskFull => Error::new(Code::DatabaseFull, "the database is full"),
        // Files that SQLite makes beside the database, and what some file systems call full.
        ErrorCode::CannotOpen | ErrorCode::SystemIoFailure
            if is_no_space(&io::Error::last_os_error()) =>
        {
            disk_full_error()
        }
        ErrorCode::SystemIoFailure if extended == IOERR_NOMEM => out_of_memory_error(),
        ErrorCode::ReadOnly
        | ErrorCode::CannotOpen
        | ErrorCode::SystemIoFailure
        | ErrorCode::PermissionDenied => {
            tracing::error!(extended, message, "the database cannot be read or written");
            Error::new(
                Code::ReadOnly,
                "the database cannot be written or read (a read-only file system or a disk error); the node's log has \
                 more",
            )
        }
        // What a module keeps in its tables is not as it left it, by an index that was not kept in
        // step, say.
        ErrorCode::DatabaseCorrupt if extended == CORRUPT_VTAB => Error::new(
            Code::Sql,
            format!(
                "{message} (a full-text index or an R-Tree does not match its content; one for full-text search is made again by \
                 INSERT INTO its_name(its_name) VALUES ('rebuild'))"
            ),
        ),
        // SQLite says so too of what the disk does not give.
        ErrorCode::DatabaseCorrupt if disk_fault::is_read_fault(&io::Error::last_os_error()) => {
            tracing::error!(extended, message, "the database's disk cannot be read");
            disk_fault::disk_fault_error()
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            tracing::error!(extended, message, "the database is damaged");
            database_damaged_error()
        }
        // No other program's doing: an R-Tree is written while the same statement reads it.
        ErrorCode::DatabaseLocked if extended == LOCKED_VTAB => Error::new(
            Code::Sql,
            format!(
                "{message}: the statement writes a virtual table that it reads from; do it in two statements"
            ),
        ),
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => Error::new(
            Code::Unavailable,
            "the database is locked by another program or a running restore; try again",
        )
        .retry_after(Duration::from_secs(1)),
        ErrorCode::OutOfMemory => out_of_memory_error(),
        ErrorCode::SchemaChanged => Error::new(
            Code::Unavailable,
            "the schema changed each time while the statement was compiled; try again",
        )
        .retry_after(Duration::from_secs(1)),
        ErrorCode::TooBig => {
            Error::new(Code::TooLarge, format!("a value or row is too large: {message}"))
        }
        ErrorCode::AuthorizationForStatementDenied => {
            Error::new(Code::StatementNotAllowed, "the statement is not allowed")
        }
        _ if message == "cannot VACUUM from within a transaction" => {
            Error::new(Code::StatementNotAllowed, "ATTACH, DETACH and VACUUM are not allowed")
        }
        _ => Error::new(Code::Sql, message),
    }
}

fn out_of_memory_error() -> Error {
    Error::new(
        Code::Overloaded,
        "the statement needs more memory than the databases have left (database.max_memory); nothing was changed: try \
         again, or ask for less at once",
    )
    .retry_after(Duration::from_secs(1))
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a failed COMMIT may turn out to be in the database after a crash: its frames were
/// written, but the disk did not confirm them, or there was no memory to note them in the log's
/// index.
pub(super) fn is_unconfirmed_commit(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(inner, _)
        if inner.extended_code == IOERR_FSYNC || inner.extended_code == IOERR_DIR_FSYNC
            || inner.code == ErrorCode::OutOfMemory)
}

/// Whether these are SQLite's words for a damaged file, where its code was not kept.
pub(super) fn mentions_damage(message: &str) -> bool {
    message.contains("malformed") || message.contains("file is not a database")
}
