//! `ETag`, `If-Match` and `If-None-Match`: versions of values as HTTP expresses them.

use crate::error::ApiError;
use debros_client::rpc::Condition;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};

/// A version that no value has. It stands for foreign tags, which nothing can match.
const NO_VERSION: u64 = i64::MAX as u64;

/// The tag of a version: `"<version>"`.
pub(crate) fn etag(version: u64) -> HeaderValue {
    // Digits in quotes are a header value.
    HeaderValue::from_str(&format!("\"{version}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The condition of a put or delete.
///
/// A header may hold several tags, but a put can depend on one version only: a list of several of
/// our tags is refused.
pub(crate) fn write_condition(headers: &HeaderMap) -> Result<Condition, ApiError> {
    let mut condition = Condition::default();
    match parse_tags(headers, IF_MATCH)? {
        None => {}
        Some(EntityTags::Any) => condition.if_exists = Some(true),
        Some(EntityTags::Listed(tags)) => {
            // If-Match compares strongly: a weak tag matches nothing.
            let strong: Vec<u64> =
                tags.into_iter().filter(|tag| !tag.weak).map(|tag| tag.version).collect();
            condition.if_version = Some(single_version(&strong, IF_MATCH)?.unwrap_or(NO_VERSION));
        }
    }
    match parse_tags(headers, IF_NONE_MATCH)? {
        None => {}
        Some(EntityTags::Any) if condition.if_exists == Some(true) => {
            return Err(ApiError::invalid("If-Match and If-None-Match contradict each other"));
        }
        Some(EntityTags::Any) => condition.if_exists = Some(false),
        Some(EntityTags::Listed(tags)) => {
            let versions: Vec<u64> = tags.into_iter().map(|tag| tag.version).collect();
            condition.if_not_version = single_version(&versions, IF_NONE_MATCH)?;
        }
    }
    Ok(condition)
}

/// The one version among the tags that is ours.
fn single_version(versions: &[u64], header: HeaderName) -> Result<Option<u64>, ApiError> {
    let mut ours = versions.iter().copied().filter(|version| *version != NO_VERSION);
    let first = ours.next();
    if ours.any(|other| Some(other) != first) {
        return Err(ApiError::invalid(format!(
            "{header} names several versions: a write can depend on one only"
        )));
    }
    Ok(first)
}

/// The outcome of a read under its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    Send,
    NotModified,
    Failed,
}

/// Applies a read's conditions to the version that was found.
pub(crate) fn read_outcome(headers: &HeaderMap, version: u64) -> Result<ReadOutcome, ApiError> {
    if let Some(EntityTags::Listed(tags)) = parse_tags(headers, IF_MATCH)?
        && !tags.iter().any(|tag| !tag.weak && tag.version == version)
    {
        return Ok(ReadOutcome::Failed);
    }
    Ok(match parse_tags(headers, IF_NONE_MATCH)? {
        Some(EntityTags::Any) => ReadOutcome::NotModified,
        Some(EntityTags::Listed(tags)) if tags.iter().any(|tag| tag.version == version) => {
            ReadOutcome::NotModified
        }
        _ => ReadOutcome::Send,
    })
}

enum EntityTags {
    Any,
    Listed(Vec<EntityTag>),
}

struct EntityTag {
    weak: bool,
    version: u64,
}

/// Reads a header of tags; `None` if it is missing.
fn parse_tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<EntityTags>, ApiError> {
    if !headers.contains_key(&name) {
        return Ok(None);
    }
    let mut listed = Vec::new();
    let mut any = false;
    for value in headers.get_all(&name) {
        let text = value.to_str().map_err(|_| invalid_tags(&name))?;
        let mut rest = text.trim();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('*') {
                any = true;
                rest = after;
            } else {
                let (tag, after) = parse_tag(rest).ok_or_else(|| invalid_tags(&name))?;
                listed.push(tag);
                rest = after;
            }
            rest = rest.trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after.trim_start(),
                None if rest.is_empty() => {}
                None => return Err(invalid_tags(&name)),
            }
        }
    }
    match (any, listed.is_empty()) {
        (true, true) => Ok(Some(EntityTags::Any)),
        (false, false) => Ok(Some(EntityTags::Listed(listed))),
        _ => Err(invalid_tags(&name)),
    }
}

/// Takes one tag off the front of a text.
fn parse_tag(text: &str) -> Option<(EntityTag, &str)> {
    let (weak, text) = match text.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (tag, rest) = text.strip_prefix('"')?.split_once('"')?;
    // Only the form that `etag` writes is ours.
    let ours =
        tag.bytes().all(|byte| byte.is_ascii_digit()) && !(tag.len() > 1 && tag.starts_with('0'));
    let version = tag.parse().ok().filter(|_| ours).unwrap_or(NO_VERSION);
    Some((EntityTag { weak, version }, rest))
}

fn invalid_tags(name: &HeaderName) -> ApiError {
    ApiError::invalid(format!(
        "the {name} header is neither * nor a list of entity tags such as \"5\""
    ))
}

#[cfg(test)]
mod tests {
    use super::{NO_VERSION, ReadOutcome, etag, read_outcome, write_condition};
    use debros_client::rpc::Condition;
    use http::{HeaderMap, HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    fn of(pairs: &[(&'static str, &str)]) -> Condition {
        write_condition(&headers(pairs)).unwrap()
    }

    #[test]
    fn headers_become_conditions() {
        assert_eq!(of(&[]), Condition::default());
        assert_eq!(of(&[("if-match", "*")]).if_exists, Some(true));
        assert_eq!(of(&[("if-none-match", "*")]).if_exists, Some(false));
        assert_eq!(of(&[("if-match", "\"5\"")]).if_version, Some(5));
        assert_eq!(of(&[("if-none-match", "\"5\"")]).if_not_version, Some(5));
        assert_eq!(etag(5), "\"5\"");
    }

    #[test]
    fn weak_and_foreign_tags() {
        assert_eq!(of(&[("if-match", "W/\"5\"")]).if_version, Some(NO_VERSION));
        assert_eq!(of(&[("if-none-match", "W/\"5\"")]).if_not_version, Some(5));
        assert_eq!(of(&[("if-match", "\"abc\"")]).if_version, Some(NO_VERSION));
        assert_eq!(of(&[("if-match", "\"05\"")]).if_version, Some(NO_VERSION));
        assert_eq!(of(&[("if-none-match", "\"abc\"")]), Condition::default());
        assert_eq!(of(&[("if-match", "\"a,b\", \"5\" ,W/\"6\",\"5\"")]).if_version, Some(5));
    }

    #[test]
    fn what_can_not_be_done_or_read_is_refused() {
        for bad in
            ["", "5", "\"5", "\"5\" \"6\"", "\"5\",\"6\"", "*, \"5\"", "w/\"5\"", "W/", "\"5\"x"]
        {
            assert!(write_condition(&headers(&[("if-match", bad)])).is_err(), "{bad}");
        }
        assert!(write_condition(&headers(&[("if-match", "*"), ("if-none-match", "*")])).is_err());
    }

    #[test]
    fn reads_are_conditional_too() {
        let outcome = |name, value| read_outcome(&headers(&[(name, value)]), 5).unwrap();
        assert_eq!(outcome("if-none-match", "\"4\", W/\"5\""), ReadOutcome::NotModified);
        assert_eq!(outcome("if-none-match", "*"), ReadOutcome::NotModified);
        assert_eq!(outcome("if-none-match", "\"6\""), ReadOutcome::Send);
        assert_eq!(outcome("if-match", "\"5\""), ReadOutcome::Send);
        assert_eq!(outcome("if-match", "*"), ReadOutcome::Send);
        assert_eq!(outcome("if-match", "W/\"5\""), ReadOutcome::Failed);
    }
}
