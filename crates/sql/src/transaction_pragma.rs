//! The PRAGMAs about the transaction they stand in: `foreign_keys`, `defer_foreign_keys`, and
//! `writable_schema` as a dump has it.
//!
//! SQLite applies some PRAGMAs while it compiles them, so these never reach a connection as text:
//! the engine gets their meaning.

use crate::names::{dequote, is_same_name};
use crate::parsed_source::with_statement;
use debros_proto::{Code, Error, Result};
use syntaqlite_syntax::nodes::{PragmaForm, Stmt};

/// A query or change of a setting of the transaction that the statement stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionPragma {
    /// The setting.
    pub name: PragmaName,
    /// The new value; `None`: the statement reads it.
    pub on: Option<bool>,
}

/// One of the PRAGMAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PragmaName {
    /// `foreign_keys`: each statement has to keep them. On, unless a transaction turned it off.
    ForeignKeys,
    /// `defer_foreign_keys`: a statement may violate them if the transaction repairs that before
    /// its end. Off, unless a transaction turned it on.
    DeferForeignKeys,
    /// `writable_schema`: the statements that follow are a dump's, see
    /// [`DumpTranslator`](crate::dump::DumpTranslator). It lets nobody write into the schema.
    WritableSchema,
}

impl PragmaName {
    const ALL: [Self; 3] = [Self::ForeignKeys, Self::DeferForeignKeys, Self::WritableSchema];

    /// The PRAGMA's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ForeignKeys => "foreign_keys",
            Self::DeferForeignKeys => "defer_foreign_keys",
            Self::WritableSchema => "writable_schema",
        }
    }

    /// The value if no transaction changed it.
    pub fn default_value(self) -> bool {
        self == Self::ForeignKeys
    }
}

impl TransactionPragma {
    /// Whether it changes nothing if no transaction changed it before.
    pub fn is_default(self) -> bool {
        self.on.is_none_or(|on| on == self.name.default_value())
    }
}

/// Whether a text may contain one of them. Most do not, and need no parsing.
pub fn may_hold_pragma(sql: &str) -> bool {
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

/// The setting in a statement; `None` for any other text, also one that does not parse.
///
/// # Errors
/// `sql_error` for a value that is neither on nor off.
pub(crate) fn parse_pragma(sql: &str) -> Result<Option<TransactionPragma>> {
    let found = with_statement(sql, |source, root| {
        let Stmt::PragmaStmt(pragma) = root else { return Ok(None) };
        let name = source.name_of(pragma.pragma_name())?;
        let Some(what) = PragmaName::ALL.into_iter().find(|what| is_same_name(what.name(), &name))
        else {
            return Ok(None);
        };
        let schema = pragma.schema();
        if !schema.is_empty() && !is_same_name(&source.name_of(schema)?, "main") {
            return Ok(None);
        }
        let value = (pragma.pragma_form() != PragmaForm::Bare)
            .then(|| dequote(pragma.value()).into_owned());
        Ok(Some((what, value)))
    });
    // Compiling the statement reports a text that does not parse.
    let Ok(Some((what, value))) = found else { return Ok(None) };
    let on = value
        .map(|value| parse_bool(what, &value).ok_or_else(|| not_bool_error(what, &value)))
        .transpose()?;
    Ok(Some(TransactionPragma { name: what, on }))
}

fn parse_bool(what: PragmaName, value: &str) -> Option<bool> {
    let is_one_of = |words: &[&str]| words.iter().any(|word| is_same_name(word, value));
    match () {
        () if is_one_of(&["on", "yes", "true", "1"]) => Some(true),
        () if is_one_of(&["off", "no", "false", "0"]) => Some(false),
        () if what == PragmaName::WritableSchema && is_one_of(&["reset"]) => Some(false),
        () => None,
    }
}

fn not_bool_error(what: PragmaName, value: &str) -> Error {
    Error::new(Code::Sql, format!("PRAGMA {} is ON or OFF, not {value}", what.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_understood_in_every_spelling() {
        use PragmaName::{DeferForeignKeys, ForeignKeys, WritableSchema};
        for (sql, name, on) in [
            ("PRAGMA foreign_keys", ForeignKeys, None),
            ("PRAGMA foreign_keys=OFF;", ForeignKeys, Some(false)),
            ("pragma FOREIGN_KEYS = on", ForeignKeys, Some(true)),
            ("/* a */ PRAGMA main.foreign_keys(0) -- b", ForeignKeys, Some(false)),
            ("PRAGMA \"foreign_keys\" = 'yes'", ForeignKeys, Some(true)),
            ("PRAGMA defer_foreign_keys = true", DeferForeignKeys, Some(true)),
            ("PRAGMA defer_foreign_keys=no", DeferForeignKeys, Some(false)),
            ("PRAGMA writable_schema=ON;", WritableSchema, Some(true)),
            ("PRAGMA main.Writable_Schema = reset", WritableSchema, Some(false)),
            ("PRAGMA writable_schema", WritableSchema, None),
        ] {
            assert_eq!(parse_pragma(sql).unwrap(), Some(TransactionPragma { name, on }), "{sql}");
        }
    }

    #[test]
    fn most_texts_need_no_look() {
        assert!(
            may_hold_pragma("PRAGMA Foreign_Keys = OFF")
                && may_hold_pragma("_ foreign_keys")
                && may_hold_pragma("defer_foreign_keys")
        );
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
            assert!(!may_hold_pragma(sql), "{sql}");
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
            assert_eq!(parse_pragma(sql).unwrap(), None, "{sql}");
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
            assert_eq!(parse_pragma(sql).unwrap_err().code, Code::Sql, "{sql}");
        }
    }
}
