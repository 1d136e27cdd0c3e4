//! The virtual tables that a file makes, and the tables behind them, in which SQLite keeps their
//! rows: a shell writes those too, though they are made along with the virtual one.

use super::revert_check::unquote_name;
use debros_proto::sql::{ScriptStatement, tokens};

/// A virtual table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VirtualTable {
    /// In lower case, as all names here.
    pub(super) name: String,
    module: String,
    /// Options of its module, `content=''` as (`content`, ``).
    options: Vec<(String, String)>,
    /// A dump writes it into the schema, so that its rows stand in the tables behind it.
    pub(super) is_dumped: bool,
}

/// The virtual tables that these statements make.
pub(super) fn virtual_tables(pieces: &[ScriptStatement<'_>]) -> Vec<VirtualTable> {
    pieces.iter().filter_map(|piece| VirtualTable::of(piece.text)).collect()
}

impl VirtualTable {
    /// The virtual table that a statement makes, or writes into the schema as a dump does.
    pub(super) fn of(statement: &str) -> Option<Self> {
        let mut words = tokens(statement);
        let first = words.next()?;
        if first.eq_ignore_ascii_case("CREATE") {
            return Self::created(statement);
        }
        if !first.eq_ignore_ascii_case("INSERT") {
            return None;
        }
        let table = words.nth(1)?;
        if !["sqlite_schema", "sqlite_master"].contains(&unquote_name(table).as_str()) {
            return None;
        }
        let sql = unquote_name(words.filter(|word| word.starts_with('\'')).last()?);
        Self::created(&sql).map(|table| Self { is_dumped: true, ..table })
    }

    /// `CREATE VIRTUAL TABLE name USING module(…)`.
    fn created(statement: &str) -> Option<Self> {
        let mut words = tokens(statement);
        let mut is = |word: &str| words.next().is_some_and(|next| next.eq_ignore_ascii_case(word));
        if !(is("CREATE") && is("VIRTUAL") && is("TABLE")) {
            return None;
        }
        let rest: Vec<&str> = words.collect();
        let using = rest.iter().position(|word| word.eq_ignore_ascii_case("USING"))?;
        let name = unquote_name(rest.get(using.checked_sub(1)?)?);
        let module = unquote_name(rest.get(using + 1)?);
        let arguments = using + 3;
        let mut options = Vec::new();
        for (at, word) in rest.iter().enumerate().skip(arguments) {
            let begins = at == arguments || rest[at - 1] == ",";
            if begins && rest.get(at + 1) == Some(&"=") {
                // `content=` with nothing behind it is the same as `content=''`.
                let value = rest.get(at + 2).filter(|value| ![",", ")"].contains(*value));
                let value = value.map(|value| unquote_name(value)).unwrap_or_default();
                options.push((word.to_ascii_lowercase(), value));
            }
        }
        Some(Self { name, module, options, is_dumped: false })
    }

    fn option(&self, name: &str) -> Option<&str> {
        let found = self.options.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The other table that a full-text index is about; empty: it keeps no text.
    pub(super) fn content(&self) -> Option<&str> {
        // FTS3 knows no options.
        if self.module == "fts3" { None } else { self.option("content") }
    }

    pub(super) fn is_rtree(&self) -> bool {
        self.module.starts_with("rtree")
    }

    /// The tables behind it, and no others: an index over another table makes no table for texts,
    /// so one that is named so is the user's own.
    pub(super) fn shadow_tables(&self) -> Vec<String> {
        let mut endings = match self.module.as_str() {
            "fts5" => vec!["_data", "_idx", "_config"],
            "fts4" => vec!["_segments", "_segdir", "_stat"],
            "fts3" => vec!["_segments", "_segdir"],
            "rtree" | "rtree_i32" => return self.with_endings(&["_node", "_rowid", "_parent"]),
            _ => return Vec::new(),
        };
        let keeps_some = self.module == "fts5"
            && self.option("contentless_unindexed").is_some_and(|value| value != "0");
        if self.content().is_none() || keeps_some {
            endings.push("_content");
        }
        let has_sizes = match self.module.as_str() {
            "fts5" => self.option("columnsize") != Some("0"),
            "fts4" => self.option("matchinfo") != Some("fts3"),
            _ => false,
        };
        if has_sizes {
            endings.push("_docsize");
        }
        self.with_endings(&endings)
    }

    fn with_endings(&self, endings: &[&str]) -> Vec<String> {
        endings.iter().map(|ending| format!("{}{ending}", self.name)).collect()
    }
}

/// The table that a `CREATE TABLE` makes, whatever the quotes.
pub(super) fn created_table(statement: &str) -> Option<String> {
    let start: Vec<&str> = tokens(statement).take(6).collect();
    let is =
        |at: usize, word: &str| start.get(at).is_some_and(|found| found.eq_ignore_ascii_case(word));
    if !(is(0, "CREATE") && is(1, "TABLE")) {
        return None;
    }
    let at = if is(2, "IF") && is(3, "NOT") && is(4, "EXISTS") { 5 } else { 2 };
    start.get(at).map(|name| unquote_name(name))
}

#[cfg(test)]
mod tests {
    use super::{VirtualTable, created_table};

    #[test]
    fn a_virtual_table_is_read_with_the_tables_behind_it() {
        for (sql, name, behind) in [
            ("CREATE VIRTUAL TABLE ft USING fts5(a)", "ft", "_config _content _data _docsize _idx"),
            (
                "create virtual table if not exists \"it's [x]\" using FTS5(a, content='',columnsize = 1)",
                "it's [x]",
                "_config _data _docsize _idx",
            ),
            (
                "CREATE VIRTUAL TABLE [A b] USING fts5(a, columnsize=0)",
                "a b",
                "_config _content _data _idx",
            ),
            (
                "CREATE VIRTUAL TABLE f USING fts5(content, a)",
                "f",
                "_config _content _data _docsize _idx",
            ),
            ("CREATE VIRTUAL TABLE f USING fts5(a, content=)", "f", "_config _data _docsize _idx"),
            (
                "CREATE VIRTUAL TABLE f USING fts5(a, b UNINDEXED, content='', contentless_unindexed=1)",
                "f",
                "_config _content _data _docsize _idx",
            ),
            (
                "CREATE VIRTUAL TABLE f USING fts4(a)",
                "f",
                "_content _docsize _segdir _segments _stat",
            ),
            (
                "CREATE VIRTUAL TABLE f USING fts4(content=\"t\", matchinfo=fts3)",
                "f",
                "_segdir _segments _stat",
            ),
            ("CREATE VIRTUAL TABLE f USING fts3", "f", "_content _segdir _segments"),
            ("CREATE VIRTUAL TABLE g USING rtree_i32(id, a, b, +c)", "g", "_node _parent _rowid"),
            ("CREATE VIRTUAL TABLE v USING fts5vocab(f, row)", "v", ""),
            (
                "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d''d','d''d',0,'CREATE VIRTUAL TABLE \
                 \"d''d\" USING fts5(a, content=''d_content'')')",
                "d'd",
                "_config _data _docsize _idx",
            ),
        ] {
            let table = VirtualTable::of(sql).unwrap_or_else(|| panic!("{sql}"));
            assert_eq!(table.name, name, "{sql}");
            assert_eq!(table.is_dumped, sql.starts_with("INSERT"), "{sql}");
            let mut found = table.shadow_tables();
            found.sort();
            let endings: Vec<&str> =
                found.iter().map(|table| table.strip_prefix(name).unwrap()).collect();
            assert_eq!(endings.join(" "), behind, "{sql}");
        }
        for sql in [
            "CREATE TABLE t(a)",
            "INSERT INTO t VALUES('CREATE VIRTUAL TABLE x USING fts5(a)')",
            "",
        ] {
            assert_eq!(VirtualTable::of(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_table_is_known_in_all_quotes() {
        for quoted in ["'d_data'", "\"d_data\"", "[d_data]", "`d_data`", "D_Data"] {
            for start in ["CREATE TABLE", "create table if not exists"] {
                let sql = format!("{start} {quoted}(id INTEGER PRIMARY KEY, block BLOB)");
                assert_eq!(created_table(&sql).as_deref(), Some("d_data"), "{sql}");
            }
        }
        assert_eq!(created_table("CREATE INDEX i ON t(a)"), None);
    }
}
