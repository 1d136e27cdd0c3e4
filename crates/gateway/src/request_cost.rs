//! What a request is charged for in memory, while it is under way.

use http::Request;

/// What a request takes, with a small head and a small body. An answer up to this size always fits.
pub(crate) const REQUEST: usize = 8 << 10;
/// A head or a body up to this size is small: most are, and each change of a charge costs some shared counters.
const SMALL: usize = 2 << 10;

/// What a header takes beside its name and value. Over HTTP/2 a thousand come in as many bytes.
const HEADER: usize = 112;

/// What a request takes before its body is read.
pub(crate) fn of_head<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter().map(|(name, value)| HEADER + name.as_str().len() + value.len());
    let target = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    REQUEST + beyond_small(headers.sum::<usize>() + target)
}

/// What a part of a request takes beside [`REQUEST`].
pub(crate) fn beyond_small(bytes: usize) -> usize {
    if bytes <= SMALL { 0 } else { bytes }
}

#[cfg(test)]
mod tests {
    use super::{HEADER, REQUEST, SMALL, of_head};
    use http::Request;

    #[test]
    fn a_large_head_is_charged_and_a_small_one_is_not() {
        let cost = |bytes: usize| of_head(&Request::get("/").header("x", "x".repeat(bytes)).body(()).unwrap());
        assert_eq!(cost(100), REQUEST);
        assert_eq!(cost(SMALL), REQUEST + SMALL + HEADER + 2);
        assert_eq!(cost(60 << 10), REQUEST + (60 << 10) + HEADER + 2);
    }
}
