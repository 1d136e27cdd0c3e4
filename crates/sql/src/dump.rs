//! The output of `.dump` of sqlite3 shells: its forms that write into the schema, or into the
//! tables behind a virtual table, become statements with the same meaning that any namespace may
//! run.
//!
//! ```text
//! PRAGMA writable_schema=ON;
//! CREATE TABLE IF NOT EXISTS sqlite_sequence(name,seq);
//! INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d','d',0,'CREATE VIRTUAL TABLE d USING fts5(a)');
//! CREATE TABLE IF NOT EXISTS 'd_content'(id INTEGER PRIMARY KEY, c0);
//! INSERT INTO d_content VALUES(1,'a text');
//! ANALYZE sqlite_schema;
//! INSERT INTO sqlite_stat1 VALUES('t','t_a','5 1');
//! PRAGMA writable_schema=OFF;
//! ```
//!
//! These statements write into no schema and no index. The virtual table is created by its own
//! CREATE; its rows are INSERTs into it, which rebuild the index; statistics are gathered again.
//! Each resulting statement goes the way of every statement, so it may do nothing that the user
//! could not do without a dump.

mod form;
mod rtree;

use crate::allowed::{SCHEMA_TABLES, is_statistics, shadow_endings};
use crate::catalogue::Catalogue;
use crate::catalogue::schema_cache::ObjectKind;
use crate::names::{is_one_of, is_same_name, quote, starts_with_ignore_case};
use crate::parsed_source::{ParsedSource, with_statement};
use debros_proto::{Code, Error, Result};
use form::{PlainInsert, PlainRow, VirtualTableInsert, string_literal};
use rtree::RTreeRows;
use syntaqlite_syntax::nodes::{CreateTableStmt, Expr, InsertStmt, Stmt};

/// As a dump writes it, in words without the blanks between.
const SEQUENCE: &str = "CREATE TABLE IF NOT EXISTS sqlite_sequence ( name , seq )";

/// SQLite creates `sqlite_sequence` with the first AUTOINCREMENT, and keeps it.
const MAKE_SEQUENCE: [&str; 2] = [
    "CREATE TABLE \"the first AUTOINCREMENT\"(id INTEGER PRIMARY KEY AUTOINCREMENT)",
    "DROP TABLE \"the first AUTOINCREMENT\"",
];

/// A dump under way, in one transaction call.
#[derive(Debug, Default)]
pub struct DumpTranslator {
    tables: Vec<DumpedTable>,
    /// Tables with statistics in the dump.
    analyzed: Vec<String>,
}

/// A virtual table that the dump has created.
#[derive(Debug)]
struct DumpedTable {
    name: String,
    module: String,
    /// The option `content`: the table that the index is about; empty: it keeps no text.
    content: Option<String>,
    /// Its index had rows, which are rebuilt from its content.
    indexed: bool,
    rtree_rows: RTreeRows,
}

/// Whether a statement begins a dump by itself, without `PRAGMA writable_schema` before it. Only
/// its first words are read.
pub fn begins_dump(sql: &str) -> bool {
    let mut words = sql.split_ascii_whitespace();
    words.next().is_some_and(|word| is_same_name(word, "ANALYZE"))
        && words.next().is_some_and(|word| is_schema_table(word.trim_end_matches(';')))
}

impl DumpTranslator {
    /// The statements that replace one of a dump, in order; `None`: it stays as it is.
    ///
    /// # Errors
    /// `statement_not_allowed` for a form that no shell writes, and for an index that cannot be
    /// rebuilt.
    pub fn translate(&mut self, sql: &str, catalogue: &Catalogue) -> Result<Option<Vec<String>>> {
        let mut refused = None;
        let translated = with_statement(sql, |source, root| {
            let translated = match root {
                Stmt::CreateTableStmt(create) => {
                    self.translate_create_table(source, create, catalogue)
                }
                Stmt::InsertStmt(insert) => self.translate_insert(source, insert, catalogue),
                Stmt::AnalyzeOrReindexStmt(_) if begins_dump(source.text) => Ok(Some(Vec::new())),
                _ => Ok(None),
            };
            Ok(translated.unwrap_or_else(|error| {
                refused = Some(error);
                None
            }))
        });
        match refused {
            Some(error) => Err(error),
            // Compiling the statement reports a text that does not parse.
            None => Ok(translated.unwrap_or_default()),
        }
    }

    /// The statements at its end: those that need the whole dump.
    ///
    /// # Errors
    /// `statement_not_allowed` when the rows of an R-Tree do not fit together.
    pub fn finish(self, catalogue: &Catalogue) -> Result<Vec<String>> {
        let mut statements = Vec::new();
        for table in self.tables {
            let quoted = quote('"', &table.name);
            if table.indexed {
                statements.push(format!("INSERT INTO {quoted}({quoted}) VALUES ('rebuild')"));
            }
            let columns = shown_columns(catalogue, &table.name).len();
            statements.extend(table.rtree_rows.into_inserts(
                &table.name,
                columns,
                is_same_name(&table.module, "rtree_i32"),
            )?);
        }
        let is_own =
            |name: &String| matches!(object_kind(catalogue, name), Some(ObjectKind::Table));
        statements.extend(
            self.analyzed
                .iter()
                .filter(|name| is_own(name))
                .map(|name| format!("ANALYZE main.{}", quote('"', name))),
        );
        Ok(statements)
    }

    fn translate_create_table(
        &mut self,
        source: &ParsedSource<'_>,
        create: CreateTableStmt<'_>,
        catalogue: &Catalogue,
    ) -> Result<Option<Vec<String>>> {
        let name = source.name_of(create.table_name())?;
        if is_same_name(&name, "sqlite_sequence") {
            if !source.has_exact_words(SEQUENCE) {
                return Err(refused_error(
                    "sqlite_sequence is made as CREATE TABLE IF NOT EXISTS sqlite_sequence(name,seq)",
                ));
            }
            let is_there = catalogue.lock().has_sequence();
            return Ok(Some(if is_there {
                Vec::new()
            } else {
                MAKE_SEQUENCE.map(str::to_owned).to_vec()
            }));
        }
        // Created along with the virtual table.
        Ok(self.find_shadow_owner(&name).map(|_| Vec::new()))
    }

    fn translate_insert(
        &mut self,
        source: &ParsedSource<'_>,
        insert: InsertStmt<'_>,
        catalogue: &Catalogue,
    ) -> Result<Option<Vec<String>>> {
        let Some(target) = insert.table() else { return Ok(None) };
        let name = source.name_of(target.table_name())?;
        if is_schema_table(&name) {
            let Some(made) = VirtualTableInsert::of(source, insert)? else {
                return Err(refused_error(
                    "a row of sqlite_schema is taken for a virtual table alone, as sqlite3's .dump writes it: ('table', name, \
                     name, 0, 'CREATE VIRTUAL TABLE …')",
                ));
            };
            let VirtualTableInsert { name, module, content, sql } = made;
            self.tables.push(DumpedTable {
                name,
                module,
                content,
                indexed: false,
                rtree_rows: RTreeRows::default(),
            });
            return Ok(Some(vec![sql]));
        }
        let is_statistics = is_statistics(&name);
        let Some((index, ending)) = self.find_shadow_owner(&name) else {
            if !is_statistics {
                return Ok(None);
            }
            // `.dump --preserve-rowids` gives the rows' rowids.
            let has_place = match insert.columns().and_then(|columns| columns.get(0)) {
                Some(Expr::ColumnRef(first)) => {
                    is_same_name(&source.name_of(first.column())?, "rowid")
                }
                _ => false,
            };
            let plain = if has_place {
                PlainInsert::with_columns(source, insert)
            } else {
                PlainInsert::of(source, insert)
            };
            let plain = plain.ok_or_else(|| refused_error("rows of statistics are written out"))?;
            for row in plain.rows() {
                if let Some(table) = row.value_at(usize::from(has_place)).and_then(string_literal)
                    && !self.analyzed.iter().any(|known| is_same_name(known, &table))
                {
                    self.analyzed.push(table);
                }
            }
            return Ok(Some(Vec::new()));
        };
        let plain = PlainInsert::of(source, insert).ok_or_else(|| {
            refused_error(&format!(
                "{name} is behind the virtual table {}: only rows that are written out are taken",
                self.tables[index].name
            ))
        })?;
        self.tables[index].translate_rows(&plain, ending, catalogue)
    }

    /// The virtual table behind which a table of this name is, and the name's ending.
    fn find_shadow_owner(&self, name: &str) -> Option<(usize, &'static str)> {
        self.tables.iter().enumerate().find_map(|(index, table)| {
            let ending = shadow_endings(&table.module).iter().find(|ending| {
                name.len() == table.name.len() + ending.len()
                    && starts_with_ignore_case(name, &table.name)
                    && name.get(table.name.len()..).is_some_and(|end| is_same_name(end, ending))
            });
            ending.map(|ending| (index, *ending))
        })
    }
}

impl DumpedTable {
    /// Rows of one of the tables behind it.
    fn translate_rows(
        &mut self,
        insert: &PlainInsert<'_>,
        ending: &str,
        catalogue: &Catalogue,
    ) -> Result<Option<Vec<String>>> {
        if starts_with_ignore_case(&self.module, "rtree") {
            for row in insert.rows() {
                self.rtree_rows.add_row(*row, ending).ok_or_else(|| {
                    let name = &self.name;
                    refused_error(&format!("a row of {name}{ending} is not that of an R-Tree"))
                })?;
            }
            return Ok(Some(Vec::new()));
        }
        let keeps_text = self.content.is_none();
        match ending {
            "_content" if keeps_text => self.translate_content_rows(insert, catalogue).map(Some),
            "_config" => {
                let settings = insert.rows().iter();
                Ok(Some(settings.filter_map(|row| self.translate_config_row(*row)).collect()))
            }
            // Records of the index that are there without any row as well.
            "_data" | "_stat" => Ok(Some(Vec::new())),
            _ if keeps_text => Ok(Some(Vec::new())),
            _ if self.content.as_deref() == Some("") => Err(refused_error(&format!(
                "the full-text table {} keeps no text (content=''), so its index cannot be rebuilt from a dump: leave its rows \
                 out of the dump, and insert its texts anew",
                self.name
            ))),
            _ => {
                self.indexed = true;
                Ok(Some(Vec::new()))
            }
        }
    }

    /// The indexed content is inserted again.
    fn translate_content_rows(
        &self,
        insert: &PlainInsert<'_>,
        catalogue: &Catalogue,
    ) -> Result<Vec<String>> {
        let columns = shown_columns(catalogue, &self.name);
        if let Some(row) = insert.rows().iter().find(|row| row.len() != columns.len() + 1) {
            return Err(refused_error(&format!(
                "a row of {}_content has {} values beside its key, and {} has {} columns: languages and locales of single rows can \
                 not be taken from a dump",
                self.name,
                row.len().saturating_sub(1),
                self.name,
                columns.len()
            )));
        }
        let list: String =
            columns.iter().map(|column| format!(", {}", quote('"', column))).collect();
        Ok(vec![insert.for_table(&format!("{}(rowid{list})", quote('"', &self.name)))])
    }

    /// A setting of the index: its version is SQLite's own.
    fn translate_config_row(&self, row: PlainRow<'_>) -> Option<String> {
        let quoted = quote('"', &self.name);
        let is_version = row
            .value_at(0)
            .and_then(string_literal)
            .is_some_and(|key| is_same_name(&key, "version"));
        // Its values: the first without the comma before it.
        let values = row.values_text(0)?;
        let values = values.trim_start_matches([',', ' ']);
        (!is_version).then(|| format!("INSERT INTO {quoted}({quoted}, rank) VALUES ({values})"))
    }
}

fn is_schema_table(name: &str) -> bool {
    is_one_of(&SCHEMA_TABLES[..2], name)
}

fn object_kind(catalogue: &Catalogue, name: &str) -> Option<ObjectKind> {
    let inner = catalogue.lock();
    inner.schema.find_object(&inner.db, name).map(|(kind, _)| kind)
}

/// The columns of a table that `SELECT *` shows.
fn shown_columns(catalogue: &Catalogue, table: &str) -> Vec<String> {
    let inner = catalogue.lock();
    let columns = inner.schema.columns(&inner.db, table);
    columns.iter().filter(|column| !column.hidden).map(|column| column.name.clone()).collect()
}

fn refused_error(why: &str) -> Error {
    Error::new(Code::StatementNotAllowed, why)
}

/// The text of an expression that is a number, with its sign.
fn number_text(source: &ParsedSource<'_>, expression: Expr<'_>) -> Option<i64> {
    form::expression_text(source, expression)?.parse().ok()
}
