//! What the road must know about single calls: which may change something, and which open a stream.

use debros_proto::rpc::{self, request::Call};
use debros_proto::words::span;
use debros_proto::{Code, Error};
use std::time::Duration;

/// How long after the deadline a call is ended for a handler that did not keep it. Late on purpose:
/// a handler's own answer ("nothing was done") says more than this one can.
pub(crate) const DEADLINE_GRACE: Duration = Duration::from_millis(50);

/// Whether a call may change something, so that losing its answer leaves the outcome unknown. A
/// call that this version does not know counts as one that does.
pub fn is_write(request: &rpc::Request) -> bool {
    match &request.call {
        None => false,
        Some(call) => match call {
            Call::Health(_)
            | Call::Status(_)
            | Call::Peers(_)
            | Call::WhoAmI(_)
            | Call::ListApiKeys(_)
            | Call::Challenge(_)
            | Call::Jwks(_)
            | Call::Token(_)
            | Call::ListMembers(_)
            | Call::ListNamespaces(_)
            | Call::GetNamespace(_)
            | Call::ListApps(_)
            | Call::GetApp(_)
            | Call::Schema(_)
            | Call::ListBackups(_)
            | Call::Export(_)
            | Call::Get(_)
            | Call::Exists(_)
            | Call::List(_)
            | Call::Subscribe(_)
            | Call::Topics(_) => false,
            Call::Query(query) => {
                query.statement.as_ref().is_some_and(|statement| may_write_sql(&statement.sql))
            }
            Call::ConnectPeer(_)
            | Call::DisconnectPeer(_)
            | Call::CreateApiKey(_)
            | Call::RevokeApiKey(_)
            | Call::SignIn(_)
            | Call::RegisterApp(_)
            | Call::CreateApiKeyByProof(_)
            | Call::Refresh(_)
            | Call::Logout(_)
            | Call::SetMember(_)
            | Call::RemoveMember(_)
            | Call::RotateSigningKey(_)
            | Call::RemoveSigningKey(_)
            | Call::DeleteNamespace(_)
            | Call::CreateApp(_)
            | Call::UpdateApp(_)
            | Call::DeleteApp(_)
            | Call::Transaction(_)
            | Call::CreateTable(_)
            | Call::DropTable(_)
            | Call::Backup(_)
            | Call::Restore(_)
            | Call::Put(_)
            | Call::Delete(_)
            | Call::Publish(_) => true,
        },
    }
}

/// Whether a statement may write, by its first word: only these can not. `WITH` may go either way.
fn may_write_sql(sql: &str) -> bool {
    let plain = sql.trim_ascii_start();
    // Looked at first because it is what nearly all reads begin with, and costs no allocation.
    if plain.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("SELECT")) {
        return false;
    }
    let first = debros_proto::sql::leading_words(plain, 1);
    !matches!(first.first().map(String::as_str), Some("SELECT" | "VALUES" | "EXPLAIN"))
}

/// Whether the answer to a call is a stream of events.
pub fn opens_stream(request: &rpc::Request) -> bool {
    matches!(
        request.call,
        Some(Call::Subscribe(_) | Call::Backup(_) | Call::Restore(_) | Call::Export(_))
    )
}

/// The error of opening what is no stream.
pub(crate) fn no_stream_error() -> Error {
    Error::invalid("this call opens no stream: it has a plain answer")
}

/// The error of a call that got no answer in time after it was handed over.
pub(crate) fn timeout_error(is_write: bool, timeout: Duration) -> Error {
    let waited = span(timeout);
    if is_write {
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
pub(crate) fn connection_lost_error(is_write: bool) -> Error {
    if is_write {
        Error::new(
            Code::UnknownOutcome,
            "the connection to the node broke before its answer came: the write may have happened or not. \
             Read before writing again.",
        )
    } else {
        Error::new(Code::Unavailable, "the connection to the node broke before its answer came")
    }
}

#[cfg(test)]
mod tests {
    use super::{is_write, opens_stream, timeout_error};
    use debros_proto::rpc::{self, request::Call};
    use std::time::Duration;

    fn request(call: Call) -> rpc::Request {
        rpc::Request { call: Some(call), ..Default::default() }
    }

    fn query(sql: &str) -> rpc::Request {
        request(Call::Query(rpc::QueryRequest {
            statement: Some(sql.into()),
            ..Default::default()
        }))
    }

    #[test]
    fn a_statement_that_can_only_read_is_no_write() {
        for sql in [
            "SELECT 1",
            " \n select a from t",
            "VALUES (1)",
            "EXPLAIN DELETE FROM t",
            "-- hi\nSELECT 1",
        ] {
            assert!(!is_write(&query(sql)), "{sql}");
        }
        for sql in [
            "INSERT INTO t VALUES (1)",
            "WITH x AS (SELECT 1) DELETE FROM t",
            "PRAGMA user_version = 1",
            "",
            "é",
        ] {
            assert!(is_write(&query(sql)), "{sql}");
        }
    }

    #[test]
    fn a_time_that_is_over_is_told_rounded() {
        let almost = Duration::from_nanos(29_999_997_426);
        assert!(
            timeout_error(true, almost).message.starts_with("no answer within 30 s: "),
            "{}",
            timeout_error(true, almost)
        );
        assert_eq!(timeout_error(false, almost).message, "no answer within 30 s");
    }

    #[test]
    fn puts_write_and_gets_do_not() {
        assert!(is_write(&request(Call::Put(rpc::PutRequest::default()))));
        assert!(!is_write(&request(Call::Get(rpc::GetRequest::default()))));
        assert!(opens_stream(&request(Call::Subscribe(rpc::SubscribeRequest::default()))));
        assert!(!opens_stream(&request(Call::Health(rpc::HealthRequest {}))));
    }
}
