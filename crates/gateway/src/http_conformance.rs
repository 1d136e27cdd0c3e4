//! HTTP's own rules for every request and answer, whatever the path. The library below reads
//! requests more leniently than RFC 9110 and 9112.

use crate::error::ApiError;
use axum::body::Body;
use axum::response::Response;
use debros_proto::Code;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};

/// Passes a request whose length and name are certain. From then on its Host header is the name
/// that it was sent to, wherever that was: HTTP/2 has it in a field of its own, and a target in
/// absolute form goes before the header.
pub(crate) fn check_request<B>(request: &mut Request<B>) -> Result<(), ApiError> {
    check_length(request.headers())?;
    check_expectation(request.headers())?;
    check_host(request)
}

/// If two programs see a body's end in different places, the body can carry another request.
fn check_length(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
    {
        let message = "this Transfer-Encoding is not understood here: send the body chunked, or with Content-Length";
        return Err(ApiError::new(Code::Unimplemented, message).with_close());
    }
    if headers.contains_key(CONTENT_LENGTH) {
        let message = "the request has both Transfer-Encoding and Content-Length: send one of them";
        return Err(ApiError::new(Code::Malformed, message).with_close());
    }
    Ok(())
}

fn check_expectation(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_known =
        |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).iter().all(is_known) {
        Ok(())
    } else {
        Err(ApiError::expectation_failed())
    }
}

fn check_host<B>(request: &mut Request<B>) -> Result<(), ApiError> {
    let bad = |message: &str| Err(ApiError::new(Code::Malformed, message).with_close());
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return bad("the request has two Host headers: send one");
    }
    if let Some(authority) = request.uri().authority() {
        // HTTP/1.1 wants the header even where the target has the name.
        if first.is_none() && request.version() == Version::HTTP_11 {
            return bad("the request has no Host header");
        }
        let Ok(host) = HeaderValue::from_str(authority.as_str()) else {
            return bad("the request's target names no host");
        };
        request.headers_mut().insert(HOST, host);
        return Ok(());
    }
    match first {
        // A proxy that speaks HTTP/1.0 need not send it.
        None if request.version() < Version::HTTP_11 => Ok(()),
        None => bad("the request has no Host header"),
        Some(host) if is_host(host.as_bytes()) => Ok(()),
        Some(_) => bad("the Host header is not a host, or a host and a port"),
    }
}

/// Whether it can be `host[:port]`; empty if the target has no authority. Other code decides which
/// names are valid.
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| IN_HOST[usize::from(*byte)])
}

/// The bytes that a host may hold, as a table: every request looks each byte up.
const IN_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        table[byte as usize] = !matches!(
            byte,
            b'/' | b'?'
                | b'#'
                | b'@'
                | b'\\'
                | b','
                | b'"'
                | b'<'
                | b'>'
                | b'^'
                | b'`'
                | b'{'
                | b'|'
                | b'}'
        );
        byte += 1;
    }
    table
};

/// These two end with their head: a length other than the value's would be wrong, and none is
/// known.
pub(crate) fn strip_body(response: &mut Response) {
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::empty();
    }
}

#[cfg(test)]
mod tests {
    use super::check_request;
    use http::header::HOST;
    use http::{Request, Version};

    fn status(version: Version, target: &str, headers: &[(&str, &str)]) -> Result<String, u16> {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        check_request(&mut request).map_err(|error| error.status().as_u16())?;
        Ok(request
            .headers()
            .get(HOST)
            .map(|host| host.to_str().unwrap().to_owned())
            .unwrap_or_default())
    }

    #[test]
    fn a_request_names_one_host() {
        let at = |target, headers: &[(&str, &str)]| status(Version::HTTP_11, target, headers);
        assert_eq!(at("/", &[("host", "a.example:80")]), Ok("a.example:80".into()));
        assert_eq!(at("/", &[("host", "[::1]:80")]), Ok("[::1]:80".into()));
        assert_eq!(at("/", &[]), Err(400));
        assert_eq!(at("/", &[("host", "a"), ("host", "a")]), Err(400));
        for bad in ["a/b", "u@a", "a b", "a,b", "a?b", "a#b"] {
            assert_eq!(at("/", &[("host", bad)]), Err(400), "{bad}");
        }
        // The target goes before the header, and does not replace it.
        assert_eq!(at("http://b.example/x", &[("host", "localhost")]), Ok("b.example".into()));
        assert_eq!(at("http://b.example/x", &[]), Err(400));
        assert_eq!(status(Version::HTTP_10, "/", &[]), Ok(String::new()));
        assert_eq!(status(Version::HTTP_2, "https://b.example/x", &[]), Ok("b.example".into()));
        assert_eq!(status(Version::HTTP_2, "/x", &[]), Err(400));
    }

    #[test]
    fn a_body_has_one_length() {
        let with = |headers: &[(&str, &str)]| {
            let mut all = vec![("host", "a")];
            all.extend_from_slice(headers);
            status(Version::HTTP_11, "/", &all).err()
        };
        for good in ["chunked", "Chunked", " chunked "] {
            assert_eq!(with(&[("transfer-encoding", good)]), None, "{good}");
        }
        for other in ["gzip, chunked", "gzip", "chunked, chunked", "identity", "", "xchunked"] {
            assert_eq!(with(&[("transfer-encoding", other)]), Some(501), "{other}");
        }
        assert_eq!(
            with(&[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")]),
            Some(501)
        );
        assert_eq!(with(&[("transfer-encoding", "chunked"), ("content-length", "3")]), Some(400));
        assert_eq!(with(&[("content-length", "3")]), None);
    }

    #[test]
    fn an_expectation_is_known_or_refused() {
        let with = |value| status(Version::HTTP_11, "/", &[("host", "a"), ("expect", value)]).err();
        assert_eq!(with("100-continue"), None);
        assert_eq!(with("100-Continue"), None);
        for other in ["200-ok", "100-continue, x", ""] {
            assert_eq!(with(other), Some(417), "{other}");
        }
    }
}
