//! `instr` and `replace` in linear time.
//!
//! SQLite's own take time in proportion to the product of both lengths, and a single call can not be interrupted: one
//! statement of a hostile user would keep a thread busy for hours. These give the same results.

use super::conn::MAX_LENGTH;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, Result};
use std::borrow::Cow;

/// Puts the functions on a connection in place of SQLite's own.
pub(super) fn install(db: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    db.create_scalar_function("instr", 2, flags, instr)?;
    db.create_scalar_function("replace", 3, flags, replace)
}

/// The position of the first occurrence, from 1: in bytes when both are BLOBs, else in characters.
fn instr(context: &Context<'_>) -> Result<Option<i64>> {
    let (text, part) = (context.get_raw(0), context.get_raw(1));
    if text == ValueRef::Null || part == ValueRef::Null {
        return Ok(None);
    }
    if let (ValueRef::Blob(text), ValueRef::Blob(part)) = (text, part) {
        return Ok(Some(Finder::new(part).find(text, 0).map_or(0, |at| count(at + 1))));
    }
    let (text, part) = (as_text(text)?, as_text(part)?);
    let at = Finder::new(&part).find(&text, 0);
    Ok(Some(at.map_or(0, |at| count(text[..at].iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1))))
}

/// The first text with each occurrence of the second replaced by the third.
fn replace(context: &Context<'_>) -> Result<Value> {
    let [text, part, by] = [0, 1, 2].map(|index| context.get_raw(index));
    if text == ValueRef::Null || part == ValueRef::Null {
        return Ok(Value::Null);
    }
    let (text, part) = (as_text(text)?, as_text(part)?);
    // So does SQLite, which takes a NUL for the end and looks at the third only then.
    if part.first().is_none_or(|first| *first == 0) {
        return as_value(text.into_owned());
    }
    if by == ValueRef::Null {
        return Ok(Value::Null);
    }
    let (by, finder) = (as_text(by)?, Finder::new(&part));
    let (mut replaced, mut from) = (Vec::new(), 0);
    while let Some(at) = finder.find(&text, from) {
        replaced.extend_from_slice(&text[from..at]);
        replaced.extend_from_slice(&by);
        from = at + part.len();
        if replaced.len() > MAX_LENGTH {
            return Err(Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_TOOBIG), None));
        }
    }
    replaced.extend_from_slice(&text[from..]);
    as_value(replaced)
}

fn as_value(bytes: Vec<u8>) -> Result<Value> {
    String::from_utf8(bytes)
        .map(Value::Text)
        .map_err(|_| Error::UserFunctionError("replace() needs text that is UTF-8".into()))
}

fn count(number: usize) -> i64 {
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
    thread_local!(static SQLITE: Result<Connection> = Connection::open_in_memory());
    SQLITE.with(|sqlite| match sqlite {
        Ok(sqlite) => sqlite.prepare_cached("SELECT CAST(?1 AS TEXT)")?.query_row([real], |row| row.get(0)),
        Err(error) => Err(Error::UserFunctionError(error.to_string().into())),
    })
}

/// Finds a part in linear time, after Knuth, Morris and Pratt.
struct Finder<'a> {
    part: &'a [u8],
    /// For each length of the part's start: how long its longest border is, an end of it that is a start of it too.
    borders: Vec<usize>,
}

impl<'a> Finder<'a> {
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
mod tests {
    use super::install;
    use proptest::prelude::*;
    use rusqlite::Connection;
    use rusqlite::types::Value;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            "[abé]{0,8}".prop_map(Value::Text),
            proptest::collection::vec(0u8..3, 0..6).prop_map(Value::Blob),
            (-200i64..200).prop_map(Value::Integer),
            (-5.0..5.0f64).prop_map(Value::Real),
            Just(Value::Null),
        ]
    }

    proptest! {
        #[test]
        fn they_do_what_sqlites_own_do(text in any_value(), part in any_value(), by in any_value()) {
            let plain = Connection::open_in_memory().unwrap();
            let ours = Connection::open_in_memory().unwrap();
            install(&ours).unwrap();
            let ask = |db: &Connection, sql: &str| {
                db.query_row(sql, (&text, &part, &by), |row| row.get::<_, Value>(0)).ok()
            };
            for sql in ["SELECT instr(?1, ?2), ?3", "SELECT replace(?1, ?2, ?3)"] {
                prop_assert_eq!(ask(&plain, sql), ask(&ours, sql), "{}", sql);
            }
        }
    }

    #[test]
    fn hostile_arguments_take_linear_time() {
        let db = Connection::open_in_memory().unwrap();
        install(&db).unwrap();
        let sql = "SELECT instr(zeroblob(8000000), CAST(zeroblob(4000000) || x'01' AS BLOB)),
            length(replace(hex(zeroblob(4000000)), hex(zeroblob(2000000)) || '1', 'x'))";
        let found: (i64, i64) = db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(found, (0, 8_000_000));
    }
}
