//! Hexadecimal digits.

use std::fmt::Write as _;

/// Two lower-case digits for each byte.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Exactly `N` bytes from two digits each, of either case; `None` for anything else.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: &[u8] = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn every_byte_has_two_digits() {
        assert_eq!(encode(&[0x00, 0x0f, 0x10, 0xff]), "000f10ff");
        assert_eq!(encode(&[]), "");
    }

    #[test]
    fn only_the_digits_of_so_many_bytes_are_read() {
        assert_eq!(decode("000F10ff"), Some([0x00, 0x0f, 0x10, 0xff]));
        assert_eq!(decode::<0>(""), Some([]));
        for wrong in ["", "0", "000", "00000", "0g00", "+100", "é0"] {
            assert_eq!(decode::<2>(wrong), None, "{wrong}");
        }
    }
}
