//! `trim`, `ltrim` and `rtrim` with a set of characters, in linear time.

use super::{TextBytes, as_text};
use rusqlite::functions::Context;
use rusqlite::types::ValueRef;
use rusqlite::{Error, Result};

/// Which ends are trimmed.
#[derive(Clone, Copy)]
pub(super) struct TrimEnds {
    pub(super) left: bool,
    pub(super) right: bool,
}

/// The text without the characters of the set (or without spaces) at its ends.
pub(super) fn sql_trim(context: &Context<'_>, ends: TrimEnds) -> Result<Option<TextBytes>> {
    let text = context.get_raw(0);
    let set = if context.len() > 1 { context.get_raw(1) } else { ValueRef::Text(b" ") };
    if text == ValueRef::Null || set == ValueRef::Null {
        return Ok(None);
    }
    let (text, set) = (as_text(text)?, as_text(set)?);
    let set = CharacterSet::new(&set)?;
    let mut rest = &text[..];
    if ends.left {
        rest = set.trim_left(rest);
    }
    if ends.right {
        rest = set.trim_right(rest);
    }
    Ok(Some(TextBytes(rest.to_vec())))
}

/// Characters as SQLite takes them: a byte from 0xc0 with all the bytes from 0x80 to 0xbf behind
/// it, or a single byte. Where several of them match, the first counts.
struct CharacterSet<'a> {
    text: &'a [u8],
    /// Where each character of one byte stands first in the text.
    single: [u32; 256],
    /// The longer ones, in the order of their lengths, then of their bytes.
    long: Vec<MultibyteCharacter>,
}

struct MultibyteCharacter {
    length: u32,
    start: u32,
}

const NONE: u32 = u32::MAX;

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

impl<'a> CharacterSet<'a> {
    fn new(text: &'a [u8]) -> Result<Self> {
        if u32::try_from(text.len()).is_err() {
            return Err(Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_TOOBIG),
                None,
            ));
        }
        let mut set = Self { text, single: [NONE; 256], long: Vec::new() };
        let mut start = 0;
        // A NUL is the end.
        while let Some(first) = text.get(start).copied().filter(|first| *first != 0) {
            let behind = if first >= 0xc0 { count_continuations(&text[start + 1..]) } else { 0 };
            if behind == 0 {
                let place = &mut set.single[usize::from(first)];
                *place = (*place).min(start as u32);
            } else {
                set.long
                    .push(MultibyteCharacter { length: behind as u32 + 1, start: start as u32 });
            }
            start += behind + 1;
        }
        let bytes =
            |one: &MultibyteCharacter| &text[one.start as usize..(one.start + one.length) as usize];
        set.long.sort_unstable_by(|one, other| {
            one.length
                .cmp(&other.length)
                .then_with(|| bytes(one).cmp(bytes(other)))
                .then(one.start.cmp(&other.start))
        });
        set.long.dedup_by(|later, first| bytes(later) == bytes(first));
        set.long.shrink_to_fit();
        Ok(set)
    }

    fn position_of_single(&self, byte: u8) -> u32 {
        self.single[usize::from(byte)]
    }

    /// Where a longer character stands first in the set.
    fn position_of(&self, char: &[u8]) -> u32 {
        let found = self.long.binary_search_by(|one| {
            let (start, end) = (one.start as usize, (one.start + one.length) as usize);
            (end - start).cmp(&char.len()).then_with(|| self.text[start..end].cmp(char))
        });
        found.map_or(NONE, |index| self.long[index].start)
    }

    /// The lengths of the longer characters, each once, up to `most`.
    fn lengths(&self, most: usize) -> impl Iterator<Item = usize> {
        let mut index = 0;
        std::iter::from_fn(move || {
            let length = self.long.get(index)?.length;
            index += self.long[index..].partition_point(|one| one.length == length);
            Some(length as usize)
        })
        .take_while(move |length| *length <= most)
    }

    fn trim_left<'t>(&self, mut text: &'t [u8]) -> &'t [u8] {
        while let Some(first) = text.first().copied() {
            let mut best = (self.position_of_single(first), 1);
            // Each run of bytes behind a first one is looked through once: a character of the set
            // begins with a first one.
            if first >= 0xc0 && !self.long.is_empty() {
                let most = count_continuations(&text[1..]) + 1;
                for length in self.lengths(most) {
                    best = best.min((self.position_of(&text[..length]), length));
                }
            }
            if best.0 == NONE {
                break;
            }
            text = &text[best.1..];
        }
        text
    }

    fn trim_right<'t>(&self, mut text: &'t [u8]) -> &'t [u8] {
        // Where the run at the end begins that was looked through last.
        let mut run = text.len();
        while let Some(last) = text.last().copied() {
            let mut best = (self.position_of_single(last), 1);
            if is_continuation(last) && !self.long.is_empty() {
                if run >= text.len() {
                    run = text.iter().rposition(|byte| !is_continuation(*byte)).unwrap_or(0);
                }
                best = best.min((self.position_of(&text[run..]), text.len() - run));
            }
            if best.0 == NONE {
                break;
            }
            text = &text[..text.len() - best.1];
        }
        text
    }
}

fn count_continuations(text: &[u8]) -> usize {
    text.iter().take_while(|byte| is_continuation(**byte)).count()
}
