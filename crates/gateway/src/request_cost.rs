//! The memory that a request is charged for while it is under way.

use http::Request;

/// The charge of a request with a small head and a small body. An answer up to this size always
/// fits.
pub(crate) const BASE_REQUEST_BYTES: usize = 8 << 10;
/// A head or a body up to this size is small: most are, and each change of a charge costs some
/// shared counters.
const SMALL_PART_BYTES: usize = 2 << 10;

/// The memory of a header beside its name and value. Over HTTP/2 a thousand come in as many bytes.
const HEADER: usize = 112;

/// The charge of a request before its body is read.
pub(crate) fn head_cost<B>(request: &Request<B>) -> usize {
    let headers =
        request.headers().iter().map(|(name, value)| HEADER + name.as_str().len() + value.len());
    let target = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    BASE_REQUEST_BYTES + beyond_small(headers.sum::<usize>() + target)
}

/// The charge of a part of a request beyond [`BASE_REQUEST_BYTES`].
pub(crate) fn beyond_small(bytes: usize) -> usize {
    if bytes <= SMALL_PART_BYTES { 0 } else { bytes }
}

#[cfg(test)]
mod tests {
    use super::{BASE_REQUEST_BYTES, HEADER, SMALL_PART_BYTES, head_cost};
    use http::Request;

    #[test]
    fn a_large_head_is_charged_and_a_small_one_is_not() {
        let cost = |bytes: usize| {
            head_cost(&Request::get("/").header("x", "x".repeat(bytes)).body(()).unwrap())
        };
        assert_eq!(cost(100), BASE_REQUEST_BYTES);
        assert_eq!(cost(SMALL_PART_BYTES), BASE_REQUEST_BYTES + SMALL_PART_BYTES + HEADER + 2);
        assert_eq!(cost(60 << 10), BASE_REQUEST_BYTES + (60 << 10) + HEADER + 2);
    }
}
