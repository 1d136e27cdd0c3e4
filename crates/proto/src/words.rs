//! How counts and spans of time read in messages.

use std::time::Duration;

/// `1 argument`, `2 arguments`: a count with its noun, whose plural ends in s.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// `250 ms`, `2.5 s`, `30 s`: a span of time, rounded to what a reader needs.
pub fn span(span: Duration) -> String {
    let ms = (span.as_micros() + 500) / 1000;
    let tenths = (ms + 50) / 100;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..9_950 if !tenths.is_multiple_of(10) => format!("{}.{} s", tenths / 10, tenths % 10),
        _ => format!("{} s", (ms + 500) / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::{counted, span};
    use std::time::Duration;

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "row")), ["0 rows", "1 row", "2 rows"]);
    }

    #[test]
    fn spans_are_rounded() {
        for (span_of, text) in [
            (Duration::ZERO, "0 ms"),
            (Duration::from_millis(250), "250 ms"),
            (Duration::from_micros(999_600), "1 s"),
            (Duration::from_millis(2500), "2.5 s"),
            (Duration::from_millis(9_960), "10 s"),
            (Duration::from_nanos(29_999_997_426), "30 s"),
            (Duration::from_secs(600), "600 s"),
        ] {
            assert_eq!(span(span_of), text);
        }
    }
}
