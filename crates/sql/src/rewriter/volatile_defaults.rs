//! Columns that an INSERT omits and whose default is volatile: the INSERT is extended with their
//! value, so that it gives the same result wherever the statement runs.

use super::StatementRewriter;
use super::evaluation::Evaluation;
use crate::catalogue::schema_cache::TableColumn;
use crate::execution_context::{Placeholder, STORED_NOW};
use crate::names::{is_same_name, quote};
use crate::parsed_source::not_understood_error;
use crate::splice::TextPiece;
use debros_proto::Result;
use std::rc::Rc;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{
    ExprList, InsertStmt, ResultColumnList, Select, ValuesClause, ValuesRowList,
};

impl<'w> StatementRewriter<'w> {
    pub(super) fn supply_volatile_defaults(
        &mut self,
        insert: InsertStmt<'w>,
        table: &str,
    ) -> Result<()> {
        self.splices.check_size()?;
        let columns = self.inner.schema.columns(&self.inner.db, table);
        if columns.iter().all(|column| column.volatile_default().is_none()) {
            return Ok(());
        }
        let mut given = Vec::new();
        for expression in insert.columns().iter().flat_map(ExprList::iter) {
            if let syntaqlite_syntax::nodes::Expr::ColumnRef(column) = expression {
                given.push(self.source.name_of(column.column())?);
            }
        }
        // Without a list of columns all are given, unless the values are the defaults.
        let lists = insert.columns().is_some() || insert.source().is_none();
        let omitted: Vec<&TableColumn> = columns
            .iter()
            .filter(|column| {
                lists
                    && column.volatile_default().is_some()
                    && !given.iter().any(|name| is_same_name(name, &column.name))
            })
            .collect();
        let omitted = self.without_random_rows(omitted, insert);
        self.replace_null(insert, &columns, &given)?;
        if omitted.is_empty() {
            return Ok(());
        }
        let names: String =
            omitted.iter().map(|column| format!(", {}", quote('"', &column.name))).collect();
        let mut values = Vec::new();
        for column in &omitted {
            values.push(TextPiece::from(", "));
            values.extend(self.volatile_value(column, insert)?);
        }
        match (insert.columns(), insert.source()) {
            (None, None) => {
                let table = self
                    .source
                    .token_range(insert.table().ok_or_else(not_understood_error)?.table_name())?;
                let words = self.source.tokens_after(table.end).iter();
                let word = words.clone().position(|token| {
                    self.source.text[token.clone()].eq_ignore_ascii_case("DEFAULT")
                });
                let start = words
                    .clone()
                    .nth(word.ok_or_else(not_understood_error)?)
                    .ok_or_else(not_understood_error)?
                    .start;
                let end = self.source.expect_token(start + "DEFAULT".len(), "VALUES")?.end;
                values.remove(0);
                self.splices.replace(start..end, format!("({}) VALUES (", &names[2..]));
                self.splices.insert_all(end, values);
                self.splices.insert(end, ")");
                Ok(())
            }
            (Some(list), Some(source)) => {
                let last =
                    list.get(list.len().saturating_sub(1)).ok_or_else(not_understood_error)?;
                let close = self
                    .source
                    .expect_token(self.source.extent(AnyNodeId::from(last.node_id()))?.end, ")")?;
                self.splices.insert(close.start, names);
                self.append_values(source, &Rc::from(values))
            }
            _ => Err(not_understood_error()),
        }
    }

    /// `INSERT OR REPLACE` puts the default in place of a NULL where the column is NOT NULL.
    fn replace_null(
        &mut self,
        insert: InsertStmt<'w>,
        columns: &[TableColumn],
        given: &[String],
    ) -> Result<()> {
        use syntaqlite_syntax::nodes::{ConflictAction, InsertKeyword};
        let replaces = insert.keyword() == InsertKeyword::Replace
            || insert.conflict_action() == ConflictAction::Replace;
        let Some(rows) = Self::values_rows(insert.source()).filter(|_| replaces) else {
            return Ok(());
        };
        let places: Vec<&TableColumn> =
            columns.iter().filter(|column| !column.hidden && !column.generated).collect();
        for column in
            columns.iter().filter(|column| column.volatile_default().is_some() && column.not_null)
        {
            let index = if insert.columns().is_some() {
                given.iter().position(|name| is_same_name(name, &column.name))
            } else {
                places.iter().position(|place| is_same_name(&place.name, &column.name))
            };
            let Some(index) = index else { continue };
            let mut after = vec![TextPiece::from(", ")];
            after.extend(self.volatile_value(column, insert)?);
            after.push(TextPiece::from(")"));
            let after: Rc<[TextPiece]> = Rc::from(after);
            for row in rows.iter() {
                let Some(expression) = row.get(index) else { continue };
                let extent = self.source.extent(AnyNodeId::from(expression.node_id()))?;
                self.splices.insert(extent.start, "coalesce(");
                self.splices.insert_all(extent.end, Rc::clone(&after));
            }
        }
        Ok(())
    }

    /// A random default of rows that a SELECT produces is left to SQLite, which evaluates it for
    /// each of them. As a column of the SELECT it would distinguish rows that DISTINCT and UNION
    /// treat as one.
    fn without_random_rows<'c>(
        &mut self,
        omitted: Vec<&'c TableColumn>,
        insert: InsertStmt<'w>,
    ) -> Vec<&'c TableColumn> {
        let selects = insert.source().is_some() && Self::values_rows(insert.source()).is_none();
        if !selects || self.evaluation != Evaluation::Literal {
            return omitted;
        }
        let is_random =
            |column: &TableColumn| column.volatile_default().is_some_and(|live| live.random);
        self.random_rows |= omitted.iter().any(|column| is_random(column));
        omitted.into_iter().filter(|column| !is_random(column)).collect()
    }

    /// The value of a default in this statement's execution context.
    fn volatile_value(
        &self,
        column: &TableColumn,
        insert: InsertStmt<'w>,
    ) -> Result<Vec<TextPiece>> {
        let live = column.volatile_default().ok_or_else(not_understood_error)?;
        let refused = |why: &str| {
            Err(self.refuse_node(insert.node_id(), &format!("the column {} {why}", column.name)))
        };
        match self.evaluation {
            Evaluation::Literal => Ok(live.to_pieces()),
            Evaluation::Trigger if live.random => refused(
                "has a random default, which a trigger cannot give it: give it a value in the INSERT",
            ),
            Evaluation::Trigger => Ok(live
                .to_pieces()
                .into_iter()
                .map(|piece| match piece {
                    TextPiece::Placeholder(Placeholder::CurrentTimestamp) => {
                        TextPiece::Text(format!("datetime({STORED_NOW})"))
                    }
                    TextPiece::Placeholder(Placeholder::CurrentDate) => {
                        TextPiece::Text(format!("date({STORED_NOW})"))
                    }
                    TextPiece::Placeholder(Placeholder::CurrentTime) => {
                        TextPiece::Text(format!("time({STORED_NOW})"))
                    }
                    TextPiece::Placeholder(_) => TextPiece::from(STORED_NOW),
                    text => text,
                })
                .collect()),
            _ => Err(not_understood_error()),
        }
    }

    /// Appends values to each row that a source produces.
    fn append_values(&mut self, source: Select<'w>, values: &Rc<[TextPiece]>) -> Result<()> {
        match source {
            Select::ValuesClause(rows) => self.append_to_rows(rows, values),
            Select::WithClause(with) => {
                self.append_values(with.select().ok_or_else(not_understood_error)?, values)
            }
            Select::CompoundSelect(mut compound) => loop {
                self.append_values(compound.right().ok_or_else(not_understood_error)?, values)?;
                match compound.left().ok_or_else(not_understood_error)? {
                    Select::CompoundSelect(left) => compound = left,
                    left => return self.append_values(left, values),
                }
            },
            Select::SelectStmt(select) => {
                let last = select.columns().iter().flat_map(ResultColumnList::iter).last();
                let last = last.ok_or_else(not_understood_error)?;
                let end = self.source.extent(AnyNodeId::from(last.node_id()))?.end;
                self.splices.insert_all(end, Rc::clone(values));
                Ok(())
            }
        }
    }

    fn append_to_rows(&mut self, rows: ValuesClause<'w>, values: &Rc<[TextPiece]>) -> Result<()> {
        for row in rows.rows().iter().flat_map(ValuesRowList::iter) {
            let last = row.get(row.len().saturating_sub(1)).ok_or_else(not_understood_error)?;
            let end = self.source.extent(AnyNodeId::from(last.node_id()))?.end;
            let close = self.source.expect_token(end, ")")?;
            self.splices.insert_all(close.start, Rc::clone(values));
        }
        Ok(())
    }
}
