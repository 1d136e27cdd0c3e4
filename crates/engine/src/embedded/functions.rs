//! Functions whose time grows with the product of their arguments' lengths in SQLite: `instr`,
//! `replace`, `trim` and its kin, and `unhex` in linear time, `json_patch` with a
//! limit.
//!
//! A single call cannot be interrupted: one statement of a hostile user would keep a thread busy
//! for hours. These give the same results.

mod patch;
mod trim;
mod unhex;

use super::connection_limits::MAX_LENGTH;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, Result, ToSql};
use std::borrow::Cow;
use trim::TrimEnds;

/// Bytes of a LIKE or GLOB pattern: matching takes time with its length times the text's, a third
/// of a second for a text of 1 MiB. A LIKE of one's own would use no index.
const MAX_PATTERN: i32 = 256;
/// Arguments of one call: the JSON functions look a whole document through for each path.
const MAX_ARGUMENTS: i32 = 127;

/// Puts the functions on a connection in place of SQLite's own, and limits what the others are
/// given.
pub(super) fn register_linear_functions(db: &Connection) -> Result<()> {
    db.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN)?;
    db.set_limit(Limit::SQLITE_LIMIT_FUNCTION_ARG, MAX_ARGUMENTS)?;
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    db.create_scalar_function("instr", 2, flags, sql_instr)?;
    db.create_scalar_function("replace", 3, flags, sql_replace)?;
    db.create_scalar_function("unhex", 2, flags, unhex::sql_unhex)?;
    for (name, left, right) in
        [("trim", true, true), ("ltrim", true, false), ("rtrim", false, true)]
    {
        for arguments in [1, 2] {
            db.create_scalar_function(name, arguments, flags, move |context: &Context<'_>| {
                trim::sql_trim(context, TrimEnds { left, right })
            })?;
        }
    }
    let tells_json = flags | FunctionFlags::SQLITE_RESULT_SUBTYPE;
    db.create_scalar_function("json_patch", 2, tells_json, patch::patch_as_text)?;
    db.create_scalar_function("jsonb_patch", 2, flags, patch::patch_as_binary)
}

/// Text as SQLite has it, of whatever bytes.
struct TextBytes(Vec<u8>);

impl ToSql for TextBytes {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// The position of the first occurrence, from 1: in bytes when both are BLOBs, else in characters.
fn sql_instr(context: &Context<'_>) -> Result<Option<i64>> {
    let (text, part) = (context.get_raw(0), context.get_raw(1));
    if text == ValueRef::Null || part == ValueRef::Null {
        return Ok(None);
    }
    if let (ValueRef::Blob(text), ValueRef::Blob(part)) = (text, part) {
        return Ok(Some(
            SubstringFinder::new(part).find(text, 0).map_or(0, |at| count_to_i64(at + 1)),
        ));
    }
    let (text, part) = (as_text(text)?, as_text(part)?);
    // SQLite looks at the first byte, whatever it is, and then only where a character begins.
    let begins = |byte: &u8| byte & 0xc0 != 0x80;
    let at = match part.first() {
        Some(first) if !begins(first) => text.starts_with(&part).then_some(0),
        _ => SubstringFinder::new(&part).find(&text, 0),
    };
    Ok(Some(at.map_or(0, |at| {
        1 + count_to_i64(
            text.get(1..=at).unwrap_or_default().iter().filter(|byte| begins(byte)).count(),
        )
    })))
}

/// The first text with each occurrence of the second replaced by the third.
fn sql_replace(context: &Context<'_>) -> Result<Option<TextBytes>> {
    let [text, part, by] = [0, 1, 2].map(|index| context.get_raw(index));
    if text == ValueRef::Null || part == ValueRef::Null {
        return Ok(None);
    }
    let (text, part) = (as_text(text)?, as_text(part)?);
    // So does SQLite, which takes a NUL for the end and looks at the third only then.
    if part.first().is_none_or(|first| *first == 0) {
        return Ok(Some(TextBytes(text.into_owned())));
    }
    if by == ValueRef::Null {
        return Ok(None);
    }
    let (by, finder) = (as_text(by)?, SubstringFinder::new(&part));
    let (mut replaced, mut from) = (Vec::new(), 0);
    while let Some(at) = finder.find(&text, from) {
        replaced.extend_from_slice(&text[from..at]);
        replaced.extend_from_slice(&by);
        from = at + part.len();
        if replaced.len() > MAX_LENGTH {
            return Err(Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_TOOBIG),
                None,
            ));
        }
    }
    replaced.extend_from_slice(&text[from..]);
    Ok(Some(TextBytes(replaced)))
}

fn count_to_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The bytes of what SQLite would make of it as text.
fn as_text(value: ValueRef<'_>) -> Result<Cow<'_, [u8]>> {
    Ok(match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.into(),
        ValueRef::Integer(integer) => integer.to_string().into_bytes().into(),
        ValueRef::Real(real) => real_text(real)?.into_bytes().into(),
        ValueRef::Null => Vec::new().into(),
    })
}

/// How SQLite writes a number with a fraction is its own affair, so it is asked.
fn real_text(real: f64) -> Result<String> {
    with_plain_sqlite(|sqlite| {
        sqlite.prepare_cached("SELECT CAST(?1 AS TEXT)")?.query_row([real], |row| row.get(0))
    })
}

/// Asks an SQLite that has its own functions.
fn with_plain_sqlite<T>(ask: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    thread_local!(static SQLITE: Result<Connection> = Connection::open_in_memory());
    SQLITE.with(|sqlite| match sqlite {
        Ok(sqlite) => ask(sqlite),
        Err(error) => Err(Error::UserFunctionError(error.to_string().into())),
    })
}

/// Finds a part in linear time, after Knuth, Morris and Pratt.
struct SubstringFinder<'a> {
    part: &'a [u8],
    /// For each length of the part's start: how long its longest border is, an end of it that is a
    /// start of it too.
    borders: Vec<usize>,
}

impl<'a> SubstringFinder<'a> {
    fn new(part: &'a [u8]) -> Self {
        let mut borders = vec![0; part.len() + 1];
        let mut border = 0;
        for (index, byte) in part.iter().enumerate().skip(1) {
            while border > 0 && part[border] != *byte {
                border = borders[border];
            }
            border += usize::from(part[border] == *byte);
            borders[index + 1] = border;
        }
        Self { part, borders }
    }

    /// Where the part begins first, at `from` or after it.
    fn find(&self, text: &[u8], from: usize) -> Option<usize> {
        let mut matched = 0;
        if self.part.is_empty() {
            return Some(from);
        }
        for (index, byte) in text.iter().enumerate().skip(from) {
            while matched > 0 && self.part[matched] != *byte {
                matched = self.borders[matched];
            }
            matched += usize::from(self.part[matched] == *byte);
            if matched == self.part.len() {
                return Some(index + 1 - matched);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
