//! Time spans and sizes, as users write them.

use std::fmt::Write as _;
use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads `15s`, `24h`, `1h30m`, `500ms` or `0`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (_, factor) = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters])?;
        rest = &rest[letters..];
        total = total.checked_add(number.checked_mul(*factor)?)?;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// Writes what [`parse_duration`] reads, to the millisecond.
pub fn duration_text(span: Duration) -> String {
    let mut left = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0".into();
    }
    let mut text = String::new();
    for (unit, factor) in UNITS {
        if left >= factor {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{unit}", left / factor);
            left %= factor;
        }
    }
    text
}

const SIZES: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads `1073741824`, `1GiB` or `512MB`. At most what a signed 64-bit number holds.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start();
    let factor = if unit.is_empty() { 1 } else { SIZES.iter().find(|(name, _)| *name == unit)?.1 };
    number.checked_mul(factor).filter(|size| i64::try_from(*size).is_ok())
}

/// Writes what [`parse_size`] reads, in the largest binary unit that divides it.
pub(super) fn size_text(size: u64) -> String {
    let unit =
        SIZES[..4].iter().rev().find(|(_, factor)| size >= *factor && size.is_multiple_of(*factor));
    unit.map_or_else(|| size.to_string(), |(name, factor)| format!("{}{name}", size / factor))
}

#[cfg(test)]
mod tests {
    use super::{Duration, duration_text, parse_duration, parse_size, size_text};

    #[test]
    fn durations_and_sizes_read_as_documented_and_are_written_back() {
        for (text, millis) in
            [("15s", 15_000), ("24h", 86_400_000), ("500ms", 500), ("0", 0), ("1h30m", 5_400_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
            assert_eq!(duration_text(Duration::from_millis(millis)), text);
        }
        for bad in [
            "",
            "15",
            "s",
            "15 s",
            "-1s",
            "1.5s",
            "1d",
            "99999999999999999999h",
            "18446744073709551615h",
            "1s1",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        for (text, bytes) in
            [("1073741824", 1 << 30), ("1GiB", 1 << 30), ("512MB", 512_000_000), ("4 KiB", 4096)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "GiB", "1gib", "1.5GiB", "-1", "1 G", "99999999TiB", "18446744073709551615"]
        {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        assert_eq!([size_text(1 << 30), size_text(1500), size_text(0)], ["1GiB", "1500", "0"]);
    }
}
