//! Parsers of values on the command line that several commands or programs share.

use crate::config::parse_duration;
use std::time::Duration;

/// A time span that is not zero.
pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|span| !span.is_zero())
        .ok_or_else(|| "write a time span such as 30s, 500ms or 2m".to_owned())
}

/// One of a list of scopes; a blank after the comma is no part of it.
pub(crate) fn parse_scope(text: &str) -> Result<String, String> {
    let scope = text.trim();
    if scope.is_empty() { Err("a scope is empty".to_owned()) } else { Ok(scope.to_owned()) }
}
