//! Requests as bytes that are prepared once: before each sending only the digits of two numbers
//! change, so that the generator costs the shared processors as little as possible.

use anyhow::{Context as _, Result, bail, ensure};

/// Numbers start here, so that all have ten digits, as text and as JSON numbers alike.
pub(crate) const FIRST: u64 = 1_000_000_000;
const DIGITS: usize = 10;
/// The placeholder in a template for the number of the key or row.
pub(crate) const KEY: &str = "{key-----}";
/// The placeholder in a template for a number that is new in every request.
pub(crate) const FRESH: &str = "{fresh---}";
/// Bytes in every value that is written.
pub(crate) const VALUE_BYTES: usize = 100;

/// A request, and the check of its answer.
#[derive(Clone, Debug)]
pub(crate) struct RequestTemplate {
    bytes: Vec<u8>,
    key_at: Vec<usize>,
    fresh_at: Vec<usize>,
    check: AnswerCheck,
}

/// The condition on an answer beside its 2xx status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerCheck {
    /// The status alone.
    Status,
    /// The body contains the number of the requested key.
    ContainsKey,
    /// The body is one prepared value, that of the requested key.
    ValueOfKey,
    /// The body reports no error (rqlite reports SQL errors with status 200).
    NoError,
}

impl RequestTemplate {
    /// An HTTP/1.1 request. `headers` are whole lines, each with its line end.
    pub(crate) fn http(
        method: &str,
        target: &str,
        headers: &str,
        body: &str,
        check: AnswerCheck,
    ) -> Self {
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let text =
            format!("{method} {target} HTTP/1.1\r\nHost: bench\r\n{headers}{length}\r\n{body}");
        let find = |pattern: &str| text.match_indices(pattern).map(|(at, _)| at).collect();
        Self { key_at: find(KEY), fresh_at: find(FRESH), bytes: text.into_bytes(), check }
    }

    /// The bytes to send for these numbers.
    pub(crate) fn fill_numbers(&mut self, key: u64, fresh: u64) -> &[u8] {
        for (places, number) in [(&self.key_at, key), (&self.fresh_at, fresh)] {
            let digits = digits(number);
            for &at in places {
                self.bytes[at..at + DIGITS].copy_from_slice(&digits);
            }
        }
        &self.bytes
    }

    /// Checks the answer to the request that was filled with `key`.
    pub(crate) fn check_answer(&self, status: u16, body: &[u8], key: u64) -> Result<()> {
        let shown = || String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        ensure!((200..300).contains(&status), "status {status}: {}", shown());
        let right = match self.check {
            AnswerCheck::Status => true,
            AnswerCheck::ContainsKey => contains(body, &digits(key)),
            AnswerCheck::ValueOfKey => body.len() == VALUE_BYTES && body.starts_with(&digits(key)),
            AnswerCheck::NoError => !contains(body, b"\"error\""),
        };
        ensure!(right, "wrong answer for number {key}: {}", shown());
        Ok(())
    }
}

/// A value of [`VALUE_BYTES`] bytes that starts with a number's place or digits.
pub(crate) fn value_starting_with(start: &str) -> String {
    let filler = "abcdefghijklmnopqrstuvwxyz-0123456789.ABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    let mut value = String::from(start);
    value.extend(filler.chars().cycle().take(VALUE_BYTES - start.len()));
    value
}

fn digits(mut number: u64) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    body.windows(wanted.len()).any(|window| window == wanted)
}

/// One parsed answer: its status, where the body starts, and where the answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParsedAnswer {
    pub(crate) status: u16,
    pub(crate) body_at: usize,
    pub(crate) end: usize,
}

/// Reads an answer from the start of `bytes`; `None` if it is incomplete.
///
/// Bodies must come with a `Content-Length`, as all four servers send it for answers of this size.
pub(crate) fn parse_answer(bytes: &[u8]) -> Result<Option<ParsedAnswer>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let body_at = match response.parse(bytes).context("the answer is not HTTP")? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.context("the answer has no status")?;
    let length = match response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
    {
        Some(header) => {
            std::str::from_utf8(header.value)?.trim().parse::<usize>().context("Content-Length")?
        }
        None if matches!(status, 204 | 304) => 0,
        None => bail!("an answer without Content-Length (status {status})"),
    };
    let end = body_at + length;
    Ok((bytes.len() >= end).then_some(ParsedAnswer { status, body_at, end }))
}

#[cfg(test)]
mod tests {
    use super::{
        AnswerCheck, FIRST, FRESH, KEY, ParsedAnswer, RequestTemplate, VALUE_BYTES, digits,
        parse_answer, value_starting_with,
    };

    #[test]
    fn numbers_fill_their_places_and_the_length_stays() {
        let body = value_starting_with(FRESH);
        assert_eq!(body.len(), VALUE_BYTES);
        let mut template = RequestTemplate::http(
            "PUT",
            &format!("/kv?key=k{KEY}"),
            "A: b\r\n",
            &body,
            AnswerCheck::Status,
        );
        let text = String::from_utf8(template.fill_numbers(FIRST + 7, FIRST + 8).to_vec()).unwrap();
        assert!(text.starts_with(
            "PUT /kv?key=k1000000007 HTTP/1.1\r\nHost: bench\r\nA: b\r\nContent-Length: 100\r\n\r\n1000000008"
        ));
        let again =
            String::from_utf8(template.fill_numbers(FIRST + 9, FIRST + 10).to_vec()).unwrap();
        assert!(again.contains("k1000000009") && again.contains("\r\n\r\n1000000010"));
    }

    #[test]
    fn wrong_answers_are_found() {
        let template = |check| RequestTemplate::http("GET", "/", "", "", check);
        let right = value_starting_with("1000000001");
        assert!(
            template(AnswerCheck::ValueOfKey)
                .check_answer(200, right.as_bytes(), FIRST + 1)
                .is_ok()
        );
        assert!(
            template(AnswerCheck::ValueOfKey)
                .check_answer(200, right.as_bytes(), FIRST + 2)
                .is_err()
        );
        assert!(
            template(AnswerCheck::ValueOfKey)
                .check_answer(404, right.as_bytes(), FIRST + 1)
                .is_err()
        );
        assert!(
            template(AnswerCheck::ContainsKey)
                .check_answer(200, b"[[1000000001]]", FIRST + 1)
                .is_ok()
        );
        assert!(
            template(AnswerCheck::NoError)
                .check_answer(200, br#"{"results":[{"error":"x"}]}"#, FIRST)
                .is_err()
        );
        assert_eq!(&digits(42), b"0000000042");
    }

    #[test]
    fn answers_are_read_piece_by_piece() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1";
        let end = whole.len() - 8;
        for cut in 0..end {
            assert_eq!(parse_answer(&whole[..cut]).unwrap(), None, "{cut}");
        }
        assert_eq!(
            parse_answer(whole).unwrap(),
            Some(ParsedAnswer { status: 200, body_at: end - 3, end })
        );
        assert!(parse_answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse_answer(b"nonsense\r\n\r\n").is_err());
    }
}
