//! The errors of calls that get no answer. What they say depends on whether the call may write:
//! after a lost answer a read is an error, and a write has an unknown outcome.

use debros_proto::words::span;
use debros_proto::{Code, Error};
use std::time::Duration;

/// How long after the deadline a call is ended for a handler that did not keep it. Late on purpose:
/// a handler's own answer ("nothing was done") says more than this one can.
pub(crate) const DEADLINE_GRACE: Duration = Duration::from_millis(50);

/// The error of opening what is no stream.
pub(crate) fn no_stream_error() -> Error {
    Error::invalid("this call opens no stream: it has a plain answer")
}

/// The error of a call that got no answer in time after it was handed over.
pub(crate) fn timeout_error(may_write: bool, timeout: Duration) -> Error {
    let waited = span(timeout);
    if may_write {
        Error::new(
            Code::UnknownOutcome,
            format!(
                "no answer within {waited}: the write may have happened or not. Read before writing again."
            ),
        )
    } else {
        Error::new(Code::DeadlineExceeded, format!("no answer within {waited}"))
    }
}

/// The error of a call whose connection broke after it was handed over.
pub(crate) fn connection_lost_error(may_write: bool) -> Error {
    if may_write {
        Error::new(
            Code::UnknownOutcome,
            "the connection to the node broke before its answer came: the write may have happened or not. \
             Read before writing again.",
        )
    } else {
        Error::new(Code::Unavailable, "the connection to the node broke before its answer came")
    }
}

/// The error in place of an answer that is over the frame limit.
pub(crate) fn answer_too_large_error(may_write: bool, error: &Error) -> Error {
    let message = &error.message;
    if may_write {
        Error::new(
            Code::UnknownOutcome,
            format!("the write was done, but its answer cannot be sent: {message}"),
        )
    } else {
        Error::new(Code::ResultTooLarge, format!("the answer cannot be sent: {message}"))
    }
}

/// The error in place of an answer that found no room.
pub(crate) fn answer_unread_error(may_write: bool) -> Error {
    if may_write {
        Error::new(
            Code::UnknownOutcome,
            "the write was done, but its answer was dropped: too many answers wait unread",
        )
    } else {
        Error::new(
            Code::Overloaded,
            "the answer was dropped: too many answers to this peer wait unread",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::timeout_error;
    use std::time::Duration;

    #[test]
    fn a_time_that_is_over_is_rounded_in_the_message() {
        let almost = Duration::from_nanos(29_999_997_426);
        assert!(
            timeout_error(true, almost).message.starts_with("no answer within 30 s: "),
            "{}",
            timeout_error(true, almost)
        );
        assert_eq!(timeout_error(false, almost).message, "no answer within 30 s");
    }
}
