//! The forms of INSERT that a dump has.

use super::refused_error;
use crate::names::{dequote, is_same_name};
use crate::parsed_source::{ParsedSource, with_statement};
use debros_proto::Result;
use std::ops::Range;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{
    ConflictAction, CreateVirtualTableStmt, Expr, ExprList, InsertKeyword, InsertStmt, LiteralType,
    Select, Stmt, ValuesRowList,
};

/// `INSERT INTO t VALUES(…), (…)`, and nothing else. A shell writes a row each; `db migrate` puts
/// many into one statement.
pub(super) struct PlainInsert<'s> {
    source: &'s ParsedSource<'s>,
    target: Range<usize>,
    rows: Vec<PlainRow<'s>>,
}

/// A row of it.
#[derive(Clone, Copy)]
pub(super) struct PlainRow<'s> {
    source: &'s ParsedSource<'s>,
    values: ExprList<'s>,
}

impl<'s> PlainInsert<'s> {
    /// `None` for any other form.
    pub(super) fn of(source: &'s ParsedSource<'s>, insert: InsertStmt<'s>) -> Option<Self> {
        if insert.columns().is_some() { None } else { Self::with_columns(source, insert) }
    }

    /// The same with columns named.
    pub(super) fn with_columns(
        source: &'s ParsedSource<'s>,
        insert: InsertStmt<'s>,
    ) -> Option<Self> {
        let target = insert.table()?;
        let is_plain = insert.with_ctes().is_none()
            && insert.upsert().is_none()
            && insert.returning().is_none()
            && insert.keyword() == InsertKeyword::Insert
            && insert.conflict_action() == ConflictAction::Default
            && target.alias().is_none()
            && target.schema().is_empty()
            && !target.has_parens();
        let Some(Select::ValuesClause(values)) = insert.source().filter(|_| is_plain) else {
            return None;
        };
        let rows = values
            .rows()
            .iter()
            .flat_map(ValuesRowList::iter)
            .map(|values| PlainRow { source, values })
            .collect();
        Some(Self { source, target: source.token_range(target.table_name()).ok()?, rows })
    }

    pub(super) fn rows(&self) -> &[PlainRow<'s>] {
        &self.rows
    }

    /// The same rows for another table, or for some of its columns.
    pub(super) fn for_table(&self, target: &str) -> String {
        format!(
            "{}{target}{}",
            &self.source.text[..self.target.start],
            &self.source.text[self.target.end..]
        )
    }
}

impl<'s> PlainRow<'s> {
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn value_at(&self, index: usize) -> Option<Expr<'s>> {
        self.values.get(index)
    }

    pub(super) fn number_at(&self, index: usize) -> Option<i64> {
        super::number_text(self.source, self.value_at(index)?)
    }

    /// The text of the values from one on, each with a comma before.
    pub(super) fn values_text(&self, from: usize) -> Option<String> {
        let mut rest = String::new();
        for index in from..self.len() {
            rest.push_str(", ");
            rest.push_str(expression_text(self.source, self.value_at(index)?)?);
        }
        Some(rest)
    }
}

/// `INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) VALUES('table', name, name, 0,
/// 'CREATE VIRTUAL TABLE …')`.
pub(super) struct VirtualTableInsert {
    pub(super) name: String,
    pub(super) module: String,
    pub(super) content: Option<String>,
    pub(super) sql: String,
}

impl VirtualTableInsert {
    /// `None` for any other form.
    pub(super) fn of(source: &ParsedSource<'_>, insert: InsertStmt<'_>) -> Result<Option<Self>> {
        let Some(made) = PlainInsert::with_columns(source, insert) else { return Ok(None) };
        let [row] = made.rows() else { return Ok(None) };
        let mut columns = Vec::new();
        for column in insert.columns().iter().flat_map(ExprList::iter) {
            let Expr::ColumnRef(column) = column else { return Ok(None) };
            columns.push(source.name_of(column.column())?.to_ascii_lowercase());
        }
        let values: Vec<Option<String>> =
            (0..row.len()).map(|index| row.value_at(index).and_then(string_literal)).collect();
        let is_row = columns == ["type", "name", "tbl_name", "rootpage", "sql"]
            && row.number_at(3) == Some(0);
        let [Some(kind), Some(name), Some(table), None, Some(sql)] = values.as_slice() else {
            return Ok(None);
        };
        if !is_row || kind != "table" || name != table {
            return Ok(None);
        }
        with_statement(sql, |source, root| {
            let Stmt::CreateVirtualTableStmt(create) = root else { return Ok(None) };
            let is_plain = create.schema().is_empty() && !create.if_not_exists();
            if !is_plain || *name != dequote(create.table_name()) {
                return Ok(None);
            }
            let module = dequote(create.module_name()).into_owned();
            let content = content_option(source, create);
            Ok(Some(Self { name: name.clone(), module, content, sql: sql.clone() }))
        })
        .map_err(|error| {
            refused_error(&format!("the virtual table {name} of the dump: {}", error.message))
        })
    }
}

/// The table of the option `content`, which every module with this option writes as `content=…`.
fn content_option(source: &ParsedSource<'_>, create: CreateVirtualTableStmt<'_>) -> Option<String> {
    let arguments =
        source.range_of(create.module_args()).ok().filter(|arguments| !arguments.is_empty())?;
    let words: Vec<&str> = source
        .tokens_after(arguments.start)
        .iter()
        .take_while(|token| token.end <= arguments.end)
        .map(|token| &source.text[token.clone()])
        .collect();
    let at = (0..words.len()).find(|at| {
        let begins = *at == 0 || words[at - 1] == ",";
        begins && is_same_name(words[*at], "content") && words.get(at + 1) == Some(&"=")
    })?;
    // `content=` with nothing behind it is no content too.
    Some(
        words
            .get(at + 2)
            .filter(|word| **word != ",")
            .map_or_else(String::new, |word| dequote(word).into_owned()),
    )
}

/// The text of an expression.
pub(super) fn expression_text<'s>(
    source: &ParsedSource<'s>,
    expression: Expr<'_>,
) -> Option<&'s str> {
    let extent = source.extent(AnyNodeId::from(expression.node_id())).ok()?;
    Some(&source.text[extent])
}

/// A literal string.
pub(super) fn string_literal(expression: Expr<'_>) -> Option<String> {
    match expression {
        Expr::Literal(literal) if literal.literal_type() == LiteralType::String => {
            Some(dequote(literal.source()).into_owned())
        }
        _ => None,
    }
}

/// A literal BLOB, `X'…'`.
pub(super) fn blob_literal(expression: Expr<'_>) -> Option<Vec<u8>> {
    match expression {
        Expr::Literal(literal) if literal.literal_type() == LiteralType::Blob => {
            let source = literal.source();
            // The parser gives it with or without its mark.
            let digits = source.trim_start_matches(['x', 'X']).trim_matches('\'');
            let pairs = digits.as_bytes().chunks_exact(2);
            if !pairs.remainder().is_empty() {
                return None;
            }
            pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
        }
        _ => None,
    }
}
