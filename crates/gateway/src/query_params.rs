//! Query strings, read strictly.

use crate::error::ApiError;
use debros_proto::ids::excerpt;
use std::borrow::Cow;

/// Every known parameter. A route that does not take one of them refuses it.
const NAMES: [&str; 12] = [
    "key",
    "ttl",
    "prefix",
    "limit",
    "cursor",
    "consistency",
    "topic",
    "token",
    "namespace",
    "callback",
    "state",
    "confirm",
];

/// The parameters of a request, each at most once.
#[derive(Debug, Default)]
pub(crate) struct QueryParams {
    pairs: Vec<(&'static str, String)>,
}

impl QueryParams {
    /// Reads a query string: `+` is a blank, `%xx` a byte, the whole must be UTF-8.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        let mut pairs: Vec<(&'static str, String)> = Vec::new();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = percent_decode(name)?;
            let Some(name) = NAMES.iter().find(|known| **known == name) else {
                return Err(ApiError::invalid(format!(
                    "there is no query parameter \"{}\"",
                    excerpt(&name)
                )));
            };
            if pairs.iter().any(|(other, _)| other == name) {
                return Err(ApiError::invalid(format!(
                    "the query parameter \"{name}\" appears twice"
                )));
            }
            pairs.push((name, percent_decode(value)?.into_owned()));
        }
        Ok(Self { pairs })
    }

    /// Takes one parameter out.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.pairs.iter().position(|(other, _)| *other == name)?;
        Some(self.pairs.swap_remove(index).1)
    }

    /// The parameters that a route takes, in the order asked for.
    pub(crate) fn take_only<const N: usize>(
        &mut self,
        names: [&str; N],
    ) -> Result<[Option<String>; N], ApiError> {
        let values = names.map(|name| self.take(name));
        match self.pairs.first() {
            None => Ok(values),
            Some((name, _)) => {
                Err(ApiError::invalid(format!("this path takes no query parameter \"{name}\"")))
            }
        }
    }
}

/// Undoes percent-encoding.
pub(crate) fn percent_decode(text: &str) -> Result<Cow<'_, str>, ApiError> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let digits =
                    (bytes.get(at + 1).and_then(hex_digit), bytes.get(at + 2).and_then(hex_digit));
                let (Some(high), Some(low)) = digits else {
                    return Err(ApiError::invalid(
                        "the query string holds a % without two hexadecimal digits after it: write %25 for the sign itself",
                    ));
                };
                decoded.push(high << 4 | low);
                at += 2;
            }
            other => decoded.push(other),
        }
        at += 1;
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| ApiError::invalid("a query parameter is not UTF-8 after percent-decoding"))
}

// A digit is below 16.
#[allow(clippy::cast_possible_truncation)]
fn hex_digit(byte: &u8) -> Option<u8> {
    char::from(*byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::{QueryParams, percent_decode};
    use debros_proto::Code;

    #[test]
    fn parameters_are_decoded() {
        let mut query =
            QueryParams::parse(Some("key=a%20b+c%2Fd%F0%9F%94%91&ttl=5&&prefix")).unwrap();
        let [key, ttl, prefix] = query.take_only(["key", "ttl", "prefix"]).unwrap();
        assert_eq!(
            (key.as_deref(), ttl.as_deref(), prefix.as_deref()),
            (Some("a b c/d🔑"), Some("5"), Some(""))
        );
        assert!(QueryParams::parse(None).unwrap().take_only([]).is_ok());
    }

    #[test]
    fn hostile_query_strings_are_refused() {
        for bad in [
            "key=%",
            "key=%2",
            "key=%zz",
            "key=%+1",
            "key=%ff",
            "key=%c0%80",
            "key=a&key=b",
            "key=a&k%65y=b",
            "nope=1",
            "%00=1",
        ] {
            assert_eq!(
                QueryParams::parse(Some(bad)).unwrap_err().error().code,
                Code::InvalidArgument,
                "{bad}"
            );
        }
        let error = QueryParams::parse(Some(&format!("{}=1", "x".repeat(60_000)))).unwrap_err();
        assert!(error.error().message.len() < 200);
    }

    #[test]
    fn a_parameter_of_another_route_is_refused() {
        let error =
            QueryParams::parse(Some("key=a&ttl=5")).unwrap().take_only(["key"]).unwrap_err();
        assert!(error.error().message.contains("\"ttl\""));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_decoded_or_refused_without_panic(text in "[%+a-f0-9A-Fé]{0,40}") {
            let _ = percent_decode(&text);
        }
    }
}
