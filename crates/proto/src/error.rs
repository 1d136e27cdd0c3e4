//! The one error of a call, and the catalogue of its codes.
//!
//! A code is a promise: its number goes over the wire, its name stands in HTTP answers and CLI
//! output, and neither is ever given another meaning. The message is for people and may change.

use crate::rpc;
use std::fmt;
use std::time::Duration;

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)+) => {
        /// What went wrong, as a program sees it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant = $number,)+
        }

        impl Code {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The name in HTTP answers and CLI output, `snake_case`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Code::$variant => $name,)+
                }
            }

            /// The code with this number on the wire. A number from a newer version reads as
            /// [`Code::Internal`].
            pub const fn from_number(number: u32) -> Code {
                match number {
                    $($number => Code::$variant,)+
                    _ => Code::Internal,
                }
            }
        }
    };
}

codes! {
    /// A field is missing, has the wrong form or is out of range.
    InvalidArgument = 1, "invalid_argument";
    /// The bytes are not what the protocol says: broken JSON, a broken frame.
    Malformed = 2, "malformed";
    /// No credential, or one that is not valid: unknown, damaged, mistyped.
    Unauthenticated = 3, "unauthenticated";
    /// The credential does not allow this.
    Forbidden = 4, "forbidden";
    /// The request names a namespace that is not the credential's.
    NamespaceMismatch = 5, "namespace_mismatch";
    /// The thing does not exist.
    NotFound = 6, "not_found";
    /// The HTTP method does not fit the path.
    MethodNotAllowed = 7, "method_not_allowed";
    /// It exists already, or someone else is changing it.
    Conflict = 8, "conflict";
    /// A constraint of the database refused the write.
    Constraint = 9, "constraint";
    /// `If-Match` or `If-None-Match` did not hold.
    PreconditionFailed = 10, "precondition_failed";
    /// The body, value, message or frame is over its size limit.
    TooLarge = 11, "too_large";
    /// The content type is not one that this path reads.
    UnsupportedMediaType = 12, "unsupported_media_type";
    /// The idempotency key was used before with another request.
    IdempotencyMismatch = 13, "idempotency_mismatch";
    /// Too many requests; come back later.
    RateLimited = 14, "rate_limited";
    /// The node does not know this call or option.
    Unimplemented = 15, "unimplemented";
    /// The token was good, and its time is over: refresh it, or sign in again.
    CredentialExpired = 16, "credential_expired";
    /// The API key was revoked, or the session of the token was ended: sign in again.
    CredentialRevoked = 17, "credential_revoked";

    /// SQLite refused the statement: syntax, an unknown table or column, a wrong number of
    /// arguments.
    Sql = 32, "sql_error";
    /// The statement is not allowed here (ATTACH, transaction control, most PRAGMAs, …).
    StatementNotAllowed = 33, "statement_not_allowed";
    /// The SQL text is over its size limit.
    SqlTooLong = 34, "sql_too_long";
    /// The statement has more arguments than allowed.
    TooManyArguments = 35, "too_many_arguments";
    /// The transaction has more statements than allowed.
    TooManyStatements = 36, "too_many_statements";
    /// The result has more rows or bytes than allowed.
    ResultTooLarge = 37, "result_too_large";
    /// The statement ran longer than allowed and was interrupted.
    StatementTimeout = 38, "statement_timeout";
    /// All databases together reached `max_database_size`. Reads and deletes go on.
    DatabaseFull = 39, "database_full";
    /// The namespace reached `max_namespace_size`, or all of its owner's together `max_owner_size`.
    /// Reads and deletes go on there, and so do the namespaces of others.
    QuotaExceeded = 40, "quota_exceeded";

    /// No node can answer now; nothing was done. Try again.
    Unavailable = 64, "unavailable";
    /// Too much is waiting already; nothing was done. Try again later.
    Overloaded = 65, "overloaded";
    /// No answer in time. Nothing was done.
    DeadlineExceeded = 66, "deadline_exceeded";
    /// No answer in time or the connection broke, after the write was handed over: it may have
    /// happened or not.
    UnknownOutcome = 67, "unknown_outcome";
    /// The caller cancelled.
    Cancelled = 68, "cancelled";
    /// The machine's disk has no room for the write, or for the temporary files of the statement.
    /// Nothing was done; deletes go on.
    DiskFull = 69, "disk_full";
    /// The database cannot be written (read-only file system, I/O error). Nothing was done.
    ReadOnly = 70, "read_only";
    /// The database file is damaged.
    Corrupt = 71, "database_corrupt";
    /// A defect of the system; its log has more.
    Internal = 72, "internal";
    /// Another node of the cluster is the leader, or none is at the moment. Nothing was done. Nodes
    /// pass the call on; a caller sees it only when that was not possible in time.
    NotLeader = 73, "not_leader";
}

impl Code {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether the caller is not authenticated: no credential, or one that is not valid, expired or
    /// revoked.
    pub const fn is_unauthenticated(self) -> bool {
        matches!(self, Code::Unauthenticated | Code::CredentialExpired | Code::CredentialRevoked)
    }

    /// Whether the same call may be sent again without harm, because it surely did nothing.
    pub const fn is_safe_to_retry(self) -> bool {
        matches!(self, Code::Unavailable | Code::Overloaded | Code::RateLimited | Code::NotLeader)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a call failed: a code for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{}", if detail.is_some() { ": " } else { "" }, detail.as_deref().unwrap_or_default())]
pub struct Error {
    /// What went wrong, as a program sees it.
    pub code: Code,
    /// What went wrong, where, and what to do, as a person reads it. Never a secret, never an inner
    /// error's debris.
    pub message: String,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// Index of the statement that failed, in a transaction.
    pub statement: Option<usize>,
    /// What only the operator of this program may see: addresses, peer ids, the system's own
    /// reasons. It stays in this process: no frame carries it and a gateway shows it to no caller.
    /// Logs and command lines show it.
    pub detail: Option<Box<str>>,
}

impl Error {
    /// An error with a code and a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, statement: None, detail: None }
    }

    /// [`Code::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// [`Code::Internal`]. The message must not hold inner details: log those.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// Whether the call did nothing. Where it was sent several times, each answer says that of its
    /// own attempt alone.
    pub fn says_nothing_was_done(&self) -> bool {
        matches!(
            self.code,
            Code::Unavailable | Code::Overloaded | Code::DeadlineExceeded | Code::NotLeader
        )
    }

    /// Adds when trying again makes sense.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds what is not for callers elsewhere: see [`Error::detail`].
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds which statement of a transaction failed.
    #[must_use]
    pub fn at_statement(mut self, index: usize) -> Self {
        self.statement = Some(index);
        self
    }
}

impl From<Error> for rpc::Error {
    fn from(error: Error) -> Self {
        Self {
            code: error.code.number(),
            message: error.message,
            retry_after_ms: error
                .retry_after
                .map(|after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX)),
            statement: error.statement.and_then(|index| u32::try_from(index).ok()),
        }
    }
}

impl From<rpc::Error> for Error {
    fn from(error: rpc::Error) -> Self {
        Self {
            code: Code::from_number(error.code),
            message: error.message,
            retry_after: error.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
            statement: error.statement.map(|index| index as usize),
            detail: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, Error};
    use crate::rpc;
    use std::time::Duration;

    /// The catalogue as other languages know it: a changed line here breaks them.
    #[test]
    fn codes_keep_their_numbers_and_names() {
        let listed: Vec<String> =
            Code::ALL.iter().map(|code| format!("{} {}", code.number(), code.name())).collect();
        let expected = "1 invalid_argument|2 malformed|3 unauthenticated|4 forbidden|5 namespace_mismatch|6 not_found|\
            7 method_not_allowed|8 conflict|9 constraint|10 precondition_failed|11 too_large|12 unsupported_media_type|\
            13 idempotency_mismatch|14 rate_limited|15 unimplemented|\
            16 credential_expired|17 credential_revoked|32 sql_error|33 statement_not_allowed|\
            34 sql_too_long|35 too_many_arguments|36 too_many_statements|37 result_too_large|38 statement_timeout|\
            39 database_full|40 quota_exceeded|64 unavailable|65 overloaded|66 deadline_exceeded|67 unknown_outcome|68 cancelled|\
            69 disk_full|70 read_only|71 database_corrupt|72 internal|73 not_leader";
        assert_eq!(listed.join("|"), expected);
    }

    #[test]
    fn an_error_survives_the_wire() {
        let error = Error::new(Code::Constraint, "UNIQUE constraint failed: t.a")
            .at_statement(3)
            .retry_after(Duration::from_secs(1));
        assert_eq!(Error::from(rpc::Error::from(error.clone())), error);
    }

    #[test]
    fn a_detail_is_shown_here_and_stays_here() {
        let error = Error::new(Code::Unavailable, "no node can be reached")
            .with_detail("/ip4/10.0.0.7/tcp/4001: refused");
        assert_eq!(error.to_string(), "no node can be reached: /ip4/10.0.0.7/tcp/4001: refused");
        let sent = rpc::Error::from(error);
        assert_eq!(sent.message, "no node can be reached");
        assert_eq!(Error::from(sent).detail, None);
    }

    #[test]
    fn a_code_of_a_newer_version_reads_as_internal() {
        assert_eq!(Code::from_number(9999), Code::Internal);
    }
}
