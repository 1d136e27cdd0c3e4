//! Forms of ALTER TABLE that are newer than the parser's grammar. SQLite has compiled the statement
//! on the catalogue already; here its tokens are read one by one, and any unexpected one refuses
//! it.
//!
//! ```text
//! ALTER TABLE [main.]t DROP CONSTRAINT c
//! ALTER TABLE [main.]t ALTER [COLUMN] c DROP NOT NULL
//! ALTER TABLE [main.]t ALTER [COLUMN] c SET NOT NULL [ON CONFLICT action]
//! ALTER TABLE [main.]t ADD [CONSTRAINT c] CHECK (expression) [ON CONFLICT action]
//! ```

use super::StatementRewriter;
use crate::catalogue::CatalogueDb;
use crate::names::{NamespacePrefix, dequote, is_same_name};
use crate::parsed_source::{not_understood_error, with_statement};
use crate::statement_class::SystemTableGrants;
use crate::verify;
use debros_proto::Result;
use std::ops::Range;
use syntaqlite_syntax::nodes::{
    ColumnDefList, Stmt, TableConstraintGroup, TableConstraintItem, TableConstraintList,
};
use syntaqlite_syntax::{TokenType, Tokenizer};

/// The rewritten statement, and the table that it alters.
///
/// # Errors
/// `statement_not_allowed` when it is none of the forms above.
pub(super) fn rewrite_alter(
    sql: &str,
    prefix: &NamespacePrefix,
    inner: &CatalogueDb,
) -> Result<(String, String)> {
    let mut words = WordReader::of(sql);
    words.expect("ALTER")?;
    words.expect("TABLE")?;
    let mut name = words.next()?;
    if words.peek(".") {
        if !is_same_name(&dequote(&sql[name]), "main") {
            return Err(not_understood_error());
        }
        words.expect(".")?;
        name = words.next()?;
    }
    let table = dequote(&sql[name.clone()]).into_owned();
    let head = format!("{}{}", &sql[..name.start], prefix.qualify_quoted(&table));
    let tail = if words.peek("ADD") {
        let add = words.next()?;
        format!(
            "{} {}",
            &sql[name.end..add.end],
            rewrite_constraint(words.rest_text(sql)?, &table, prefix, inner)?
        )
    } else {
        words.without_expression()?;
        sql[name.end..].to_owned()
    };
    Ok((format!("{head}{tail}"), table))
}

/// Qualifies the names in a constraint, by way of a table that has nothing but it.
fn rewrite_constraint(
    text: &str,
    table: &str,
    prefix: &NamespacePrefix,
    inner: &CatalogueDb,
) -> Result<String> {
    const HEAD: &str = "CREATE TABLE x(y, ";
    let sql = format!("{HEAD}{text})");
    let moved = with_statement(&sql, |source, root| {
        let Stmt::CreateTableStmt(create) = root else {
            return Err(not_understood_error());
        };
        let mut rewriter = StatementRewriter::new(source, prefix, inner);
        rewriter.mark_visited(create.node_id());
        for column in create.columns().iter().flat_map(ColumnDefList::iter) {
            rewriter.visit_column_def(column, table)?;
        }
        let groups: Vec<TableConstraintGroup<'_>> =
            create.table_constraints().iter().flat_map(TableConstraintList::iter).collect();
        let [group] = groups.as_slice() else {
            return Err(not_understood_error());
        };
        for item in group.iter() {
            if let TableConstraintItem::TableConstraint(constraint) = item
                && constraint.check_expr().is_none()
            {
                return Err(not_understood_error());
            }
        }
        rewriter.visit_table_constraints(*group, table)?;
        rewriter.check_all_visited(source.tree().root_id())?;
        let moved = rewriter.splices.apply(source.text)?;
        if moved.has_placeholders() {
            Err(not_understood_error())
        } else {
            Ok(moved.with_stand_ins().into_owned())
        }
    })?;
    // The table's own name is unchanged in the stand-in, and is checked as the namespace's.
    let looked_at = moved.replacen("x(", &format!("{}(", prefix.qualify_quoted(table)), 1);
    verify::check_text(&looked_at, prefix, SystemTableGrants::default())?;
    moved
        .strip_prefix(HEAD)
        .and_then(|rest| rest.strip_suffix(')'))
        .map(str::to_owned)
        .ok_or_else(not_understood_error)
}

/// The statement's words in order, without blanks and comments, and without semicolons at its end.
struct WordReader<'s> {
    sql: &'s str,
    words: Vec<Range<usize>>,
    at: usize,
}

impl<'s> WordReader<'s> {
    fn of(sql: &'s str) -> Self {
        let mut words = Vec::new();
        let mut at = 0;
        for token in Tokenizer::new().tokenize(sql) {
            let range = at..at + token.text().len();
            at = range.end;
            if !matches!(token.token_type(), TokenType::Space | TokenType::Comment) {
                words.push(range);
            }
        }
        while words.last().is_some_and(|word| &sql[word.clone()] == ";") {
            words.pop();
        }
        Self { sql, words, at: 0 }
    }

    fn next(&mut self) -> Result<Range<usize>> {
        let word = self.words.get(self.at).cloned().ok_or_else(not_understood_error)?;
        self.at += 1;
        Ok(word)
    }

    fn peek(&self, word: &str) -> bool {
        self.words.get(self.at).is_some_and(|range| is_same_name(&self.sql[range.clone()], word))
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        if !self.peek(word) {
            return Err(not_understood_error());
        }
        self.at += 1;
        Ok(())
    }

    /// The forms in which there is no expression.
    fn without_expression(&mut self) -> Result<()> {
        if self.peek("DROP") {
            self.expect("DROP")?;
            self.expect("CONSTRAINT")?;
            self.next()?;
            return self.expect_end();
        }
        self.expect("ALTER")?;
        // A column may be called COLUMN.
        if self.peek("COLUMN") && self.words.len() > self.at + 4 {
            self.expect("COLUMN")?;
        }
        self.next()?;
        let sets = self.peek("SET");
        self.expect(if sets { "SET" } else { "DROP" })?;
        self.expect("NOT")?;
        self.expect("NULL")?;
        if sets && self.peek("ON") {
            self.expect("ON")?;
            self.expect("CONFLICT")?;
            self.next()?;
        }
        self.expect_end()
    }

    fn expect_end(&self) -> Result<()> {
        if self.at == self.words.len() { Ok(()) } else { Err(not_understood_error()) }
    }

    /// The text from the next word to the last.
    fn rest_text(&self, sql: &'s str) -> Result<&'s str> {
        match (self.words.get(self.at), self.words.last()) {
            (Some(first), Some(last)) => Ok(&sql[first.start..last.end]),
            _ => Err(not_understood_error()),
        }
    }
}
