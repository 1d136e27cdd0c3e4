//! `unhex` with characters that it passes over, in linear time.

use super::as_text;
use rusqlite::Result;
use rusqlite::functions::Context;
use rusqlite::types::ValueRef;
use std::collections::HashSet;

/// The bytes that pairs of digits stand for, with characters of the second argument between the
/// pairs.
pub(super) fn sql_unhex(context: &Context<'_>) -> Result<Option<Vec<u8>>> {
    let (digits, pass) = (context.get_raw(0), context.get_raw(1));
    if digits == ValueRef::Null || pass == ValueRef::Null {
        return Ok(None);
    }
    let (digits, pass) = (as_text(digits)?, as_text(pass)?);
    Ok(decode_hex(&digits, &pass))
}

fn decode_hex(digits: &[u8], mut pass: &[u8]) -> Option<Vec<u8>> {
    let mut passed = HashSet::new();
    while !pass.is_empty() {
        passed.insert(take_character(&mut pass));
    }
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    let mut rest = digits;
    // A NUL is the end.
    while let Some(first) = rest.first().copied().filter(|first| *first != 0) {
        match hex_digit(first) {
            Some(high) => {
                let low = hex_digit(*rest.get(1)?)?;
                bytes.push(high << 4 | low);
                rest = &rest[2..];
            }
            None if passed.contains(&take_character(&mut rest)) => {}
            None => return None,
        }
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// Takes the next character, of whatever bytes, and gives the number that SQLite has for it. There
/// must be one.
fn take_character(text: &mut &[u8]) -> u32 {
    let Some((first, behind)) = text.split_first() else { return 0 };
    let behind = &behind[..if *first >= 0xc0 {
        behind.iter().take_while(|byte| **byte & 0xc0 == 0x80).count()
    } else {
        0
    }];
    *text = &text[1 + behind.len()..];
    if *first < 0xc0 {
        return u32::from(*first);
    }
    let start = match *first {
        0xc0..=0xdf => *first & 0x1f,
        0xe0..=0xef => *first & 0x0f,
        0xf0..=0xf7 => *first & 0x07,
        0xf8..=0xfb => *first & 0x03,
        0xfd => 1,
        _ => 0,
    };
    let number = behind
        .iter()
        .fold(u32::from(start), |number, byte| (number << 6).wrapping_add(u32::from(*byte & 0x3f)));
    if number < 0x80 || number & 0xffff_f800 == 0xd800 { 0xfffd } else { number }
}
