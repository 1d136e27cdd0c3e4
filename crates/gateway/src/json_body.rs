//! Reading a JSON body, and describing errors in it.

use crate::error::ApiError;
use debros_proto::Code;
use debros_proto::ids::excerpt;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;

/// Bytes of a body on the sign-in routes. The longest thing in one is an access token.
pub(crate) const MAX_BODY: usize = 64 << 10;

/// Reading or writing this much JSON takes milliseconds, for which other requests on the thread
/// would wait.
pub(crate) const BLOCKING_JSON_BYTES: usize = 1 << 20;

/// A raw value is stored as it comes and returned without its Content-Encoding.
pub(crate) fn check_content_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_plain =
        |encoding: &HeaderValue| encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Ok(());
    }
    Err(ApiError::new(
        Code::UnsupportedMediaType,
        "a compressed body is not read here: send it without Content-Encoding",
    ))
}

pub(crate) fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    check_content_encoding(headers)?;
    let wrong = |what: String| Err(ApiError::new(Code::UnsupportedMediaType, what));
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let media_type = value
        .to_str()
        .unwrap_or("?")
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if media_type.is_empty()
        || media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
    {
        return Ok(());
    }
    wrong(format!("this path reads application/json, not \"{}\"", excerpt(&media_type)))
}

/// Reads a JSON object; an error names its position.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let parsed = serde_json::from_slice(bytes).map_err(|error| json_error(&error))?;
    // The library accepts an array as an object, with its fields in the order of the source code.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::invalid("the JSON body does not fit: it must be an object"));
    }
    Ok(parsed)
}

fn json_error(error: &serde_json::Error) -> ApiError {
    // The parser's sentence ends with line and column, and may repeat a part of the body of any
    // length.
    let text = error.to_string();
    let sentence = text.rsplit_once(" at line ").map_or(text.as_str(), |(sentence, _)| sentence);
    let printable = |sign: char| if sign.is_control() { char::REPLACEMENT_CHARACTER } else { sign };
    let short: String = sentence.chars().take(200).map(printable).collect();
    let (line, column) = (error.line(), error.column());
    let (code, what) = match error.classify() {
        serde_json::error::Category::Data => (Code::InvalidArgument, "the JSON body does not fit"),
        _ => (Code::Malformed, "the body is not JSON"),
    };
    ApiError::new(code, format!("{what}: {short} (line {line}, column {column})"))
}
