//! The one place where an error becomes an HTTP answer.
//!
//! Handlers return [`ApiError`]. Its response carries the error itself as an extension;
//! [`write_error_body`] writes the body when the request's id is at hand.

use crate::request_id::RequestId;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use debros_proto::{Code, Error, LogThrottle};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
    WWW_AUTHENTICATE,
};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use std::sync::LazyLock;
use std::time::Duration;

/// What a handler answers.
pub(crate) type HandlerResult = std::result::Result<Response, ApiError>;

/// An error with its HTTP status.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    error: Error,
    /// The rest of the request was not read: the connection cannot be used again.
    closes_connection: bool,
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Error::new(code, message).into()
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::invalid(message).into()
    }

    /// The caller was too slow with its request: its mistake, so no 5xx.
    pub(crate) fn slow_body() -> Self {
        let error = Error::new(
            Code::DeadlineExceeded,
            "the request's body did not arrive in time; nothing was done",
        );
        Self { status: StatusCode::REQUEST_TIMEOUT, error, closes_connection: true }
    }

    /// The caller has an expectation that the gateway does not know.
    pub(crate) fn expectation_failed() -> Self {
        let error = Error::invalid("of the Expect header only 100-continue is understood here");
        Self { status: StatusCode::EXPECTATION_FAILED, error, closes_connection: true }
    }

    /// The caller speaks another version of the WebSocket protocol; the answer names ours.
    pub(crate) fn other_websocket_version() -> Self {
        let error = Error::invalid("not a WebSocket handshake: Sec-WebSocket-Version must be 13");
        Self { status: StatusCode::UPGRADE_REQUIRED, error, closes_connection: false }
    }

    /// The same error; the connection ends after it.
    pub(crate) fn with_close(mut self) -> Self {
        self.closes_connection = true;
        self
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    #[cfg(test)]
    pub(crate) fn error(&self) -> &Error {
        &self.error
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self { status: status_of(error.code), error, closes_connection: false }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

/// The HTTP status of every code in the catalogue.
pub(crate) fn status_of(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument
        | Code::Malformed
        | Code::Sql
        | Code::StatementNotAllowed
        | Code::TooManyArguments
        | Code::TooManyStatements
        | Code::ResultTooLarge
        | Code::StatementTimeout => StatusCode::BAD_REQUEST,
        Code::Unauthenticated | Code::CredentialExpired | Code::CredentialRevoked => {
            StatusCode::UNAUTHORIZED
        }
        Code::Forbidden | Code::NamespaceMismatch => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Conflict | Code::Constraint => StatusCode::CONFLICT,
        Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Code::TooLarge | Code::SqlTooLong => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable
        | Code::Overloaded
        | Code::ReadOnly
        | Code::Cancelled
        | Code::NotLeader => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded | Code::UnknownOutcome => StatusCode::GATEWAY_TIMEOUT,
        Code::DatabaseFull | Code::QuotaExceeded | Code::DiskFull => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        // Internal, Corrupt, and codes of a newer catalogue.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The body of every error.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorBody<'a> {
    /// A sentence for people.
    error: &'a str,
    /// The kind of error, for programs: a stable name.
    #[schema(example = "invalid_argument")]
    code: &'static str,
    /// The request's id, also in the header X-Request-Id.
    request_id: &'a str,
    /// Index of the statement that failed, in a transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<usize>,
}

/// Writes the body and headers of an error, if the response is one.
pub(crate) fn write_error_body(response: &mut Response, request_id: &RequestId, head: bool) {
    let Some(ApiError { status, error, closes_connection: closes }) =
        response.extensions_mut().remove::<ApiError>()
    else {
        return;
    };
    if status.is_server_error() {
        log_error(&error, request_id);
    }
    let body = ErrorBody {
        error: &error.message,
        code: error.code.name(),
        request_id: request_id.as_str(),
        statement: error.statement,
    };
    // Strings and a number: this cannot fail.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, body.len().into());
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"debros\""));
    }
    if status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    // These two codes always carry it.
    let always = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if let Some(after) = error.retry_after.or(always.then_some(Duration::from_secs(1))) {
        let seconds = after.as_millis().div_ceil(1000).max(1);
        headers.insert(RETRY_AFTER, u64::try_from(seconds).unwrap_or(u64::MAX).into());
    }
    if closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    *response.body_mut() = if head { Body::empty() } else { Body::from(body) };
}

/// One throttle for each code: a node that is away, or a caller with impossible requests, makes as
/// many errors as there are requests. The metrics of the route count each.
static LOGGED: LazyLock<Vec<LogThrottle>> =
    LazyLock::new(|| Code::ALL.iter().map(|_| LogThrottle::default()).collect());

fn log_error(error: &Error, request_id: &RequestId) {
    let (code, request_id) = (error.code.name(), request_id.as_str());
    let throttle =
        Code::ALL.iter().position(|code| *code == error.code).map(|place| &LOGGED[place]);
    let Some(times) = throttle.and_then(LogThrottle::admit) else {
        tracing::debug!(code, %error, request_id, "a request was not served");
        return;
    };
    match error.code {
        Code::Internal | Code::Corrupt => {
            tracing::error!(code, %error, request_id, times, "a request failed")
        }
        _ => tracing::warn!(code, %error, request_id, times, "a request was not served"),
    }
}

#[cfg(test)]
mod tests {
    use super::status_of;
    use debros_proto::Code;

    /// Lesson 14: callers' mistakes were reported as 500.
    #[test]
    fn lesson_14_only_the_systems_own_faults_are_5xx() {
        for code in Code::ALL {
            let expected = matches!(
                code,
                Code::Unimplemented
                    | Code::DatabaseFull
                    | Code::QuotaExceeded
                    | Code::Unavailable
                    | Code::Overloaded
                    | Code::DeadlineExceeded
                    | Code::UnknownOutcome
                    | Code::Cancelled
                    | Code::DiskFull
                    | Code::ReadOnly
                    | Code::Corrupt
                    | Code::Internal
                    | Code::NotLeader
            );
            assert_eq!(status_of(*code).is_server_error(), expected, "{code}");
            assert!(status_of(*code).as_u16() >= 400);
        }
    }
}
