//! The id of a request, for logs and answers.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::cell::Cell;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// The header that carries it.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_ID_BYTES: usize = 128;

/// The caller's own id if it is valid, else a new one.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        match headers.get(&X_REQUEST_ID) {
            Some(value) if is_valid_id(value.as_bytes()) => Self(value.clone()),
            _ => Self::generate(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        // Only visible ASCII passes.
        self.0.to_str().unwrap_or_default()
    }

    pub(crate) fn into_header(self) -> HeaderValue {
        self.0
    }

    /// A random number for the thread, then a count: unique enough to find a request in logs, at no
    /// cost. It is not a secret.
    fn generate() -> Self {
        thread_local! {
            static THREAD: u64 = RandomState::new().build_hasher().finish();
            static COUNT: Cell<u32> = const { Cell::new(0) };
        }
        let thread = THREAD.with(|thread| *thread);
        let count = COUNT.with(|count| count.replace(count.get().wrapping_add(1)));
        let mut text = [b'-'; 25];
        write_hex(&mut text[..16], thread);
        write_hex(&mut text[17..], count.into());
        // Hex digits and a dash are a header value.
        Self(HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-")))
    }
}

fn is_valid_id(id: &[u8]) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn write_hex(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::{RequestId, X_REQUEST_ID};
    use http::{HeaderMap, HeaderValue};

    fn id_for(sent: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(sent).unwrap());
        RequestId::from_headers(&headers).as_str().to_owned()
    }

    #[test]
    fn a_good_id_is_taken_and_a_bad_one_replaced() {
        assert_eq!(id_for(b"abc-1"), "abc-1");
        assert_eq!(id_for(&[b'x'; 128]), "x".repeat(128));
        for bad in [&b""[..], &[b'x'; 129], b"a b", b"a\tb", "é".as_bytes()] {
            let made = id_for(bad);
            assert!(made.len() == 25 && made.as_bytes() != bad, "{made}");
        }
    }

    #[test]
    fn made_ids_differ() {
        let ids: std::collections::HashSet<String> = (0..1000)
            .map(|_| RequestId::from_headers(&HeaderMap::new()).as_str().to_owned())
            .collect();
        assert_eq!(ids.len(), 1000);
    }
}
