//! How a program ends when it could not do what was asked: one sentence, a hint what to do, an exit
//! code.

use crate::config::ConfigErrors;
use crate::credentials::CredentialFileError;
use debros_client::{Code, Error};
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Something failed.
pub const FAILED: u8 = 1;
/// The command line or the configuration cannot be used.
pub const USAGE: u8 = 2;
/// There is no valid credential.
pub const NOT_AUTHENTICATED: u8 = 3;
/// The thing asked for does not exist.
pub const NOT_FOUND: u8 = 4;
/// No node can be reached, or no answer came in time.
pub const UNREACHABLE: u8 = 5;

/// Why a program ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// For programs: a code of the catalogue, or `usage` or `failed`.
    pub code: &'static str,
    /// The process's exit code.
    pub exit: u8,
    /// Set when no credential was found: what to ask somebody at a terminal before a sign-in, after
    /// which the command can run again.
    pub sign_in_question: Option<String>,
}

impl CliError {
    fn with_code(message: impl Into<String>, code: &'static str, exit: u8) -> Self {
        Self { message: message.into(), hint: None, code, exit, sign_in_question: None }
    }

    /// Something failed on this side.
    pub fn new(message: impl Into<String>) -> Self {
        Self::with_code(message, "failed", FAILED)
    }

    /// The command line asks for what cannot be done.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::with_code(message, "usage", USAGE)
    }

    /// There is no credential.
    pub fn no_credential(message: impl Into<String>) -> Self {
        Self::with_code(message, Code::Unauthenticated.name(), NOT_AUTHENTICATED)
    }

    /// The thing asked for does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::with_code(message, Code::NotFound.name(), NOT_FOUND)
    }

    /// No node can be reached.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::with_code(message, Code::Unavailable.name(), UNREACHABLE)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what to ask somebody at a terminal before a sign-in.
    #[must_use]
    pub fn with_sign_in_question(mut self, question: String) -> Self {
        self.sign_in_question = Some(question);
        self
    }

    /// Writes it to stderr: `error: …` and `hint: …`, or one JSON object.
    pub fn report(&self, json: bool) -> ExitCode {
        // When stderr is gone nobody reads the error.
        let _ = if json {
            writeln!(io::stderr(), "{}", self.to_json())
        } else {
            writeln!(io::stderr(), "{self}")
        };
        ExitCode::from(self.exit)
    }

    fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::json!({ "error": without_os_error_number(&self.message), "code": self.code });
        if let Some(hint) = &self.hint {
            object["hint"] = hint.as_str().into();
        }
        object
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", without_os_error_number(&self.message))?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let exit = match error.code {
            Code::InvalidArgument => USAGE,
            Code::Unauthenticated | Code::CredentialExpired | Code::CredentialRevoked => {
                NOT_AUTHENTICATED
            }
            Code::NotFound => NOT_FOUND,
            Code::Unavailable | Code::NotLeader | Code::DeadlineExceeded | Code::UnknownOutcome => {
                UNREACHABLE
            }
            _ => FAILED,
        };
        let hint = match error.code {
            Code::UnknownOutcome => Some("the write may have happened or not: look before trying again".to_owned()),
            Code::Unauthenticated | Code::CredentialExpired | Code::CredentialRevoked => Some(
                "set DEBROS_API_KEY to a valid key; or sign in with `network-cli auth login` (in a browser) or `network-cli \
                 auth login --keystore FILE --password-file FILE` (without one)"
                    .to_owned(),
            ),
            Code::DeadlineExceeded => Some("allow more time with --timeout".to_owned()),
            _ => None,
        };
        let message = match error.statement {
            Some(index) => format!("statement {}: {error}", index + 1),
            None => error.to_string(),
        };
        Self { hint, ..Self::with_code(message, error.code.name(), exit) }
    }
}

/// A message with the system's errors in words alone: `no such file or directory` for
/// `No such file or directory (os error 2)`.
pub(crate) fn without_os_error_number(message: &str) -> String {
    const NUMBER: &str = " (os error ";
    let mut words = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(NUMBER) {
        let Some((_, left)) =
            after.split_once(')').filter(|(number, _)| number.parse::<i32>().is_ok())
        else {
            words.push_str(before);
            words.push_str(NUMBER);
            rest = after;
            continue;
        };
        // The system's own words begin after the last sign that parts sentences; they go on a
        // sentence here.
        let start = before.rfind([':', '(', ';']).map_or(0, |sign| sign + 1);
        let start = start + (before.len() - start - before[start..].trim_start().len());
        let (said, system) = before.split_at(start);
        words.push_str(said);
        let mut signs = system.chars();
        if let Some(first) = signs.next() {
            let is_word = signs.clone().next().is_some_and(char::is_lowercase);
            words.push(if is_word && !said.is_empty() {
                first.to_ascii_lowercase()
            } else {
                first
            });
        }
        words.push_str(signs.as_str());
        rest = left;
    }
    words.push_str(rest);
    words
}

/// A configuration that cannot be used.
impl From<ConfigErrors> for CliError {
    fn from(problems: ConfigErrors) -> Self {
        Self::usage(problems.to_string())
    }
}

/// The stored credentials cannot be used, which leaves the user without one.
impl From<CredentialFileError> for CliError {
    fn from(error: CredentialFileError) -> Self {
        Self::no_credential(error.to_string())
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::{CliError, Code, Error};

    #[test]
    fn exit_codes_are_those_of_the_specification() {
        for (code, exit) in [
            (Code::Internal, 1),
            (Code::Forbidden, 1),
            (Code::Sql, 1),
            (Code::InvalidArgument, 2),
            (Code::Unauthenticated, 3),
            (Code::CredentialExpired, 3),
            (Code::CredentialRevoked, 3),
            (Code::NotFound, 4),
            (Code::Unavailable, 5),
            (Code::DeadlineExceeded, 5),
            (Code::UnknownOutcome, 5),
        ] {
            assert_eq!(CliError::from(Error::new(code, "x")).exit, exit, "{code}");
        }
        assert_eq!(CliError::usage("x").exit, 2);
        assert_eq!(CliError::no_credential("x").exit, 3);
        assert_eq!(CliError::unreachable("x").exit, 5);
    }

    #[test]
    fn errors_of_the_system_are_written_in_words() {
        let missing = std::io::Error::from_raw_os_error(2);
        let cli_error = CliError::usage(format!("x cannot be read: {missing}")).to_string();
        assert_eq!(cli_error, "error: x cannot be read: no such file or directory");
        let twice =
            CliError::new(format!("a: {missing}; b ({missing})")).to_json()["error"].to_string();
        assert_eq!(twice, "\"a: no such file or directory; b (no such file or directory)\"");
        for same in ["plain", "(os error x)", "a (os error 2", " (os error -) b"] {
            assert_eq!(CliError::new(same).to_string(), format!("error: {same}"));
        }
    }

    #[test]
    fn a_failure_reads_the_same_for_people_and_programs() {
        let cli_error = CliError::no_credential("no credential").with_hint("set DEBROS_API_KEY");
        assert_eq!(cli_error.to_string(), "error: no credential\nhint: set DEBROS_API_KEY");
        let json = cli_error.to_json().to_string();
        assert_eq!(
            json,
            r#"{"code":"unauthenticated","error":"no credential","hint":"set DEBROS_API_KEY"}"#
        );
        assert_eq!(
            CliError::from(Error::new(Code::Sql, "no such table: t").at_statement(2)).message,
            "statement 3: no such table: t"
        );
    }
}
