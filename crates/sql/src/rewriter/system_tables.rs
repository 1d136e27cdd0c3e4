//! SQLite's own tables and PRAGMAs beside the namespace's tables. The catalogue cannot answer a
//! statement that reads data too, so its answer is put into the statement.

use super::StatementRewriter;
use super::table::TablePosition;
use crate::allowed::{PRAGMAS, SCHEMA_TABLES, pragma_not_allowed_message};
use crate::names::{dequote, is_one_of, is_same_name, quote};
use crate::splice::{MAX_REWRITTEN, too_long_error};
use debros_proto::{Code, Error, Result};
use rusqlite::types::ValueRef;
use std::fmt::Write as _;
use std::ops::Range;
use syntaqlite_syntax::nodes::{Expr, ExprList, IndexHint, LiteralType, TableRef};

impl<'w> StatementRewriter<'w> {
    /// A table that begins with `sqlite_` or `pragma_`, in a FROM clause. Returns its columns.
    pub(super) fn rewrite_system_table(
        &mut self,
        table: TableRef<'w>,
        name: &str,
        position: TablePosition,
        has_alias: bool,
    ) -> Result<Vec<String>> {
        // The whole schema may be inserted here.
        self.splices.check_size()?;
        let token = self.source.token_range(table.table_name())?;
        let pragma =
            name.get(7..).filter(|_| crate::names::starts_with_ignore_case(name, "pragma_"));
        if let Some(pragma) = pragma
            && !is_one_of(PRAGMAS, pragma)
        {
            return Err(self.refuse_at(&token, &pragma_not_allowed_message(pragma)));
        }
        if self.in_catalogue && (is_one_of(SCHEMA_TABLES, name) || pragma.is_some()) {
            return Ok(Vec::new());
        }
        if self.stored {
            return Err(
                self.refuse_at(&token, &format!("{name} cannot be read by a view or trigger"))
            );
        }
        if table.index_hint() != IndexHint::Default {
            return Err(self.refuse_at(&token, "INDEXED BY and NOT INDEXED are not allowed here"));
        }
        if position == TablePosition::In {
            return Err(self.refuse_at(
                &token,
                &format!("write IN (SELECT … FROM {name}) instead of IN {name}"),
            ));
        }
        let content = match name {
            name if is_one_of(&SCHEMA_TABLES[..2], name) => self.catalogue_subquery(
                "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema",
                &[],
            )?,
            name if is_same_name(name, "sqlite_sequence") => {
                self.grants.sequence = true;
                self.own_rows_subquery("name", "seq", "sqlite_sequence")
            }
            name if is_same_name(name, "sqlite_stat1") => {
                self.grants.statistics = true;
                let idx =
                    format!("replace(idx, {}, '') AS idx, stat", quote('\'', self.prefix.as_str()));
                self.own_rows_subquery("tbl", &idx, "sqlite_stat1")
            }
            _ => match pragma {
                Some(pragma) => self.rewrite_pragma_table(table, pragma, &token)?,
                None => {
                    return Err(self.refuse_at(&token, &format!("the table {name} is not allowed")));
                }
            },
        };
        let start = if table.schema().is_empty() {
            token.start
        } else {
            self.source.token_range(table.schema())?.start
        };
        let end = if table.has_parens() {
            self.source.closing_parenthesis(token.end)?
        } else {
            token.end
        };
        let alias =
            if has_alias { String::new() } else { format!(" AS {}", &self.source.text[token]) };
        self.splices.replace(start..end, format!("{content}{alias}"));
        Ok(Vec::new())
    }

    /// The rows of one of SQLite's tables that are about this namespace's objects.
    fn own_rows_subquery(&self, key: &str, rest: &str, table: &str) -> String {
        let prefix = self.prefix.as_str();
        format!(
            "(SELECT substr({key}, {}) AS {key}, {rest} FROM {table} WHERE substr({key}, 1, {}) = {})",
            prefix.len() + 1,
            prefix.len(),
            quote('\'', prefix)
        )
    }

    fn rewrite_pragma_table(
        &mut self,
        table: TableRef<'w>,
        pragma: &str,
        token: &Range<usize>,
    ) -> Result<String> {
        let mut args = Vec::new();
        for arg in table.args().iter().flat_map(ExprList::iter) {
            match arg {
                Expr::Literal(literal) if literal.literal_type() == LiteralType::String => {
                    args.push(dequote(literal.source()).into_owned());
                }
                _ => {
                    return Err(self.refuse_at(
                        token,
                        &format!("pragma_{pragma} needs its arguments as strings where tables are read beside it"),
                    ));
                }
            }
        }
        if is_same_name(pragma, "foreign_key_check") {
            return Ok(format!("({})", self.foreign_key_check(args.first().map(String::as_str))?));
        }
        let marks = vec!["?"; args.len()].join(", ");
        self.catalogue_subquery(&format!("SELECT * FROM pragma_{pragma}({marks})"), &args)
    }

    /// The catalogue's answer, as a subquery of literals.
    fn catalogue_subquery(&self, sql: &str, args: &[String]) -> Result<String> {
        let rows = (|| {
            let mut statement = self.inner.db.prepare(sql)?;
            let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let mut rows = statement.query(rusqlite::params_from_iter(args))?;
            let mut values = String::new();
            while let Some(row) = rows.next()? {
                if values.len() > MAX_REWRITTEN {
                    break;
                }
                values.push_str(if values.is_empty() { "(" } else { ", (" });
                for index in 0..columns.len() {
                    if index > 0 {
                        values.push_str(", ");
                    }
                    push_literal(&mut values, row.get_ref(index)?);
                }
                values.push(')');
            }
            Ok((columns, values))
        })();
        let (columns, values) = rows.map_err(|error: rusqlite::Error| match error {
            rusqlite::Error::SqliteFailure(_, Some(message)) => Error::new(Code::Sql, message),
            _ => Error::internal("the namespace's catalogue failed"),
        })?;
        if values.len() > MAX_REWRITTEN {
            return Err(too_long_error());
        }
        let mut text = String::from("(SELECT ");
        for (index, column) in columns.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let from =
                if values.is_empty() { "NULL".to_owned() } else { format!("column{}", index + 1) };
            let _ = write!(text, "{comma}{from} AS {}", quote('"', column));
        }
        text.push_str(&if values.is_empty() {
            " WHERE 0)".to_owned()
        } else {
            format!(" FROM (VALUES {values}))")
        });
        Ok(text)
    }

    /// A PRAGMA by itself: a text for the data database, or `None` when the catalogue answers.
    pub(super) fn rewrite_pragma(
        &mut self,
        name: &str,
        value: Option<&'w str>,
    ) -> Result<Option<String>> {
        if !is_one_of(PRAGMAS, name) {
            return Err(Error::new(Code::StatementNotAllowed, pragma_not_allowed_message(name)));
        }
        if !is_same_name(name, "foreign_key_check") {
            return Ok(None);
        }
        let table = value.map(|value| dequote(value).into_owned());
        self.foreign_key_check(table.as_deref()).map(Some)
    }

    /// A check of the data for rows without their parents: of one table, or of all that have
    /// parents.
    fn foreign_key_check(&mut self, table: Option<&str>) -> Result<String> {
        let tables = match table {
            Some(table) => vec![table.to_owned()],
            None => self.tables_with_parents()?,
        };
        let from = self.prefix.as_str().len() + 1;
        let columns = format!(
            "substr(c.\"table\", {from}) AS \"table\", c.rowid AS rowid, substr(c.parent, {from}) AS parent, \
             c.fkid AS fkid"
        );
        let mut names = String::new();
        for table in &tables {
            names.push_str(if names.is_empty() { "(" } else { ", (" });
            names.push_str(&self.prefix.qualify_literal(table));
            names.push(')');
            if names.len() > MAX_REWRITTEN {
                return Err(too_long_error());
            }
            self.objects.push(table.clone());
        }
        Ok(if names.is_empty() {
            "SELECT NULL AS \"table\", NULL AS rowid, NULL AS parent, NULL AS fkid WHERE 0"
                .to_owned()
        } else {
            format!(
                "SELECT {columns} FROM (VALUES {names}) AS t, pragma_foreign_key_check(t.column1) AS c"
            )
        })
    }

    fn tables_with_parents(&self) -> Result<Vec<String>> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table'
            AND EXISTS (SELECT 1 FROM pragma_foreign_key_list(name)) ORDER BY rowid";
        let read = || -> rusqlite::Result<Vec<String>> {
            self.inner.db.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        read().map_err(|_| Error::internal("the namespace's catalogue failed"))
    }
}

fn push_literal(text: &mut String, value: ValueRef<'_>) {
    // Writing to a String cannot fail.
    let _ = match value {
        ValueRef::Null => text.write_str("NULL"),
        ValueRef::Integer(integer) => write!(text, "{integer}"),
        ValueRef::Real(real) => write!(text, "{real:?}"),
        ValueRef::Text(bytes) => text.write_str(&quote('\'', &String::from_utf8_lossy(bytes))),
        ValueRef::Blob(_) => text.write_str("NULL"),
    };
}
