//! The PRAGMAs that are about the transaction they stand in: `foreign_keys`, `defer_foreign_keys`, and `writable_schema` as a
//! dump has it.
//!
//! SQLite obeys some PRAGMAs while it compiles them, so these never reach a connection as text: the engine is told what
//! they mean.

use crate::names::{dequote, same};
use crate::source::with_statement;
use debros_proto::{Code, Error, Result};
use syntaqlite_syntax::nodes::{PragmaForm, Stmt};

/// What a statement wants to know or to change of the transaction that it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Setting {
    /// Which of them.
    pub what: Which,
    /// What it is to be; `None`: the statement asks what it is.
    pub on: Option<bool>,
}

/// One of the PRAGMAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// `foreign_keys`: each statement is held to them. On, unless a transaction turned it off.
    Enforced,
    /// `defer_foreign_keys`: a statement may break them when the transaction mends them before its end. Off, unless a
    /// transaction turned it on.
    Deferred,
    /// `writable_schema`: the statements that follow are a dump's, see [`Dump`](crate::dump::Dump). It lets nobody write into
    /// the schema.
    WritableSchema,
}

impl Which {
    const ALL: [Self; 3] = [Self::Enforced, Self::Deferred, Self::WritableSchema];

    /// The PRAGMA's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforced => "foreign_keys",
            Self::Deferred => "defer_foreign_keys",
            Self::WritableSchema => "writable_schema",
        }
    }

    /// What holds where no transaction said otherwise.
    pub fn usual(self) -> bool {
        self == Self::Enforced
    }
}

impl Setting {
    /// Whether it changes nothing where no transaction said otherwise.
    pub fn is_usual(self) -> bool {
        self.on.is_none_or(|on| on == self.what.usual())
    }
}

/// Whether a text may hold one of them. Most do not, and need no look by the parser.
pub fn may_set(sql: &str) -> bool {
    let bytes = sql.as_bytes();
    let is = |range: std::ops::Range<usize>, word: &[u8]| {
        bytes.get(range).is_some_and(|found| found.eq_ignore_ascii_case(word))
    };
    // Two of the names end in `foreign_keys`. Underscores are found many bytes at a time.
    sql.match_indices('_').any(|(at, _)| {
        (at >= 7 && is(at - 7..at, b"foreign") && is(at + 1..at + 5, b"keys"))
            || (at >= 8 && is(at - 8..at, b"writable") && is(at + 1..at + 7, b"schema"))
    })
}

/// The setting that a statement is; `None` when it is anything else, also something that does not parse.
///
/// # Errors
/// `sql_error` for a value that is neither on nor off.
pub(crate) fn of(sql: &str) -> Result<Option<Setting>> {
    if !may_set(sql) {
        return Ok(None);
    }
    let found = with_statement(sql, |source, root| {
        let Stmt::PragmaStmt(pragma) = root else { return Ok(None) };
        let name = source.name(pragma.pragma_name())?;
        let Some(what) = Which::ALL.into_iter().find(|what| same(what.name(), &name)) else { return Ok(None) };
        let schema = pragma.schema();
        if !schema.is_empty() && !same(&source.name(schema)?, "main") {
            return Ok(None);
        }
        let value = (pragma.pragma_form() != PragmaForm::Bare).then(|| dequote(pragma.value()).into_owned());
        Ok(Some((what, value)))
    });
    // What does not parse is told by those who compile it.
    let Ok(Some((what, value))) = found else { return Ok(None) };
    let on = value.map(|value| truth(what, &value).ok_or_else(|| no_truth(what, &value))).transpose()?;
    Ok(Some(Setting { what, on }))
}

fn truth(what: Which, value: &str) -> Option<bool> {
    let is_one_of = |words: &[&str]| words.iter().any(|word| same(word, value));
    match () {
        () if is_one_of(&["on", "yes", "true", "1"]) => Some(true),
        () if is_one_of(&["off", "no", "false", "0"]) => Some(false),
        () if what == Which::WritableSchema && is_one_of(&["reset"]) => Some(false),
        () => None,
    }
}

fn no_truth(what: Which, value: &str) -> Error {
    Error::new(Code::Sql, format!("PRAGMA {} is ON or OFF, not {value}", what.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_understood_in_every_spelling() {
        use Which::{Deferred, Enforced, WritableSchema};
        for (sql, what, on) in [
            ("PRAGMA foreign_keys", Enforced, None),
            ("PRAGMA foreign_keys=OFF;", Enforced, Some(false)),
            ("pragma FOREIGN_KEYS = on", Enforced, Some(true)),
            ("/* a */ PRAGMA main.foreign_keys(0) -- b", Enforced, Some(false)),
            ("PRAGMA \"foreign_keys\" = 'yes'", Enforced, Some(true)),
            ("PRAGMA defer_foreign_keys = true", Deferred, Some(true)),
            ("PRAGMA defer_foreign_keys=no", Deferred, Some(false)),
            ("PRAGMA writable_schema=ON;", WritableSchema, Some(true)),
            ("PRAGMA main.Writable_Schema = reset", WritableSchema, Some(false)),
            ("PRAGMA writable_schema", WritableSchema, None),
        ] {
            assert_eq!(of(sql).unwrap(), Some(Setting { what, on }), "{sql}");
        }
    }

    #[test]
    fn most_texts_need_no_look() {
        assert!(may_set("PRAGMA Foreign_Keys = OFF") && may_set("_ foreign_keys") && may_set("defer_foreign_keys"));
        for sql in [
            "",
            "_",
            "writable_",
            "writable_schem",
            "ritable_schema",
            "foreign_",
            "foreign_key",
            "oreign_keys",
            "foreign keys",
            "é_foreign_keyß",
            "SELECT a_b FROM t",
        ] {
            assert!(!may_set(sql), "{sql}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for sql in [
            "SELECT 'PRAGMA foreign_keys = OFF'",
            "EXPLAIN PRAGMA foreign_keys = OFF",
            "PRAGMA temp.foreign_keys = OFF",
            "PRAGMA foreign_keys = OFF; PRAGMA foreign_keys = ON",
            "PRAGMA foreign_keys_ = OFF",
            "PRAGMA foreign_keys = ",
            "SELECT * FROM pragma_foreign_keys",
            "PRAGMA foreign_key_list(a)",
        ] {
            assert_eq!(of(sql).unwrap(), None, "{sql}");
        }
    }

    #[test]
    fn a_value_that_is_neither_is_refused() {
        for sql in [
            "PRAGMA foreign_keys = reset",
            "PRAGMA writable_schema = 2",
            "PRAGMA foreign_keys = 2",
            "PRAGMA foreign_keys = maybe",
            "PRAGMA defer_foreign_keys = -1",
        ] {
            assert_eq!(of(sql).unwrap_err().code, Code::Sql, "{sql}");
        }
    }
}
