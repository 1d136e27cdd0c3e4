//! Columns that an INSERT omits and whose default is of the moment: the INSERT is made to give them their value, so that
//! it is the same wherever the statement is run.

use super::Walk;
use super::clock::Clock;
use crate::catalogue::schema::Column;
use crate::edit::Piece;
use crate::moment::{STORED_NOW, Slot};
use crate::names::{quote, same};
use crate::source::not_understood;
use debros_proto::Result;
use std::rc::Rc;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{ExprList, InsertStmt, ResultColumnList, Select, ValuesClause, ValuesRowList};

impl<'w> Walk<'w> {
    pub(super) fn give_live_defaults(&mut self, insert: InsertStmt<'w>, table: &str) -> Result<()> {
        self.edits.check()?;
        let columns = self.inner.schema.columns(&self.inner.db, table);
        if columns.iter().all(|column| column.live_default().is_none()) {
            return Ok(());
        }
        let mut given = Vec::new();
        for expression in insert.columns().iter().flat_map(ExprList::iter) {
            if let syntaqlite_syntax::nodes::Expr::ColumnRef(column) = expression {
                given.push(self.source.name(column.column())?);
            }
        }
        // Without a list of columns all are given, unless the values are the defaults.
        let lists = insert.columns().is_some() || insert.source().is_none();
        let omitted: Vec<&Column> = columns
            .iter()
            .filter(|column| {
                lists && column.live_default().is_some() && !given.iter().any(|name| same(name, &column.name))
            })
            .collect();
        let omitted = self.without_random_rows(omitted, insert);
        self.replace_null(insert, &columns, &given)?;
        if omitted.is_empty() {
            return Ok(());
        }
        let names: String = omitted.iter().map(|column| format!(", {}", quote('"', &column.name))).collect();
        let mut values = Vec::new();
        for column in &omitted {
            values.push(Piece::from(", "));
            values.extend(self.live_value(column, insert)?);
        }
        match (insert.columns(), insert.source()) {
            (None, None) => {
                let table = self.source.token(insert.table().ok_or_else(not_understood)?.table_name())?;
                let words = self.source.tokens_after(table.end).iter();
                let word =
                    words.clone().position(|token| self.source.text[token.clone()].eq_ignore_ascii_case("DEFAULT"));
                let start = words.clone().nth(word.ok_or_else(not_understood)?).ok_or_else(not_understood)?.start;
                let end = self.source.expect(start + "DEFAULT".len(), "VALUES")?.end;
                values.remove(0);
                self.edits.replace(start..end, format!("({}) VALUES (", &names[2..]));
                self.edits.insert_all(end, values);
                self.edits.insert(end, ")");
                Ok(())
            }
            (Some(list), Some(source)) => {
                let last = list.get(list.len().saturating_sub(1)).ok_or_else(not_understood)?;
                let close = self.source.expect(self.source.extent(AnyNodeId::from(last.node_id()))?.end, ")")?;
                self.edits.insert(close.start, names);
                self.append(source, &Rc::from(values))
            }
            _ => Err(not_understood()),
        }
    }

    /// `INSERT OR REPLACE` puts the default in place of a NULL where the column takes none.
    fn replace_null(&mut self, insert: InsertStmt<'w>, columns: &[Column], given: &[String]) -> Result<()> {
        use syntaqlite_syntax::nodes::{ConflictAction, InsertKeyword};
        let replaces =
            insert.keyword() == InsertKeyword::Replace || insert.conflict_action() == ConflictAction::Replace;
        let Some(rows) = Self::rows_of(insert.source()).filter(|_| replaces) else {
            return Ok(());
        };
        let places: Vec<&Column> = columns.iter().filter(|column| !column.hidden && !column.generated).collect();
        for column in columns.iter().filter(|column| column.live_default().is_some() && column.not_null) {
            let index = if insert.columns().is_some() {
                given.iter().position(|name| same(name, &column.name))
            } else {
                places.iter().position(|place| same(&place.name, &column.name))
            };
            let Some(index) = index else { continue };
            let mut after = vec![Piece::from(", ")];
            after.extend(self.live_value(column, insert)?);
            after.push(Piece::from(")"));
            let after: Rc<[Piece]> = Rc::from(after);
            for row in rows.iter() {
                let Some(expression) = row.get(index) else { continue };
                let extent = self.source.extent(AnyNodeId::from(expression.node_id()))?;
                self.edits.insert(extent.start, "coalesce(");
                self.edits.insert_all(extent.end, Rc::clone(&after));
            }
        }
        Ok(())
    }

    /// A random default of rows that a SELECT makes is left to SQLite, which evaluates it for each of them. As a column of the
    /// SELECT it would make rows differ that DISTINCT and UNION take for one.
    fn without_random_rows<'c>(&mut self, omitted: Vec<&'c Column>, insert: InsertStmt<'w>) -> Vec<&'c Column> {
        let selects = insert.source().is_some() && Self::rows_of(insert.source()).is_none();
        if !selects || self.clock != Clock::Slots {
            return omitted;
        }
        let is_random = |column: &Column| column.live_default().is_some_and(|live| live.random);
        self.random_rows |= omitted.iter().any(|column| is_random(column));
        omitted.into_iter().filter(|column| !is_random(column)).collect()
    }

    /// The value of a default at this statement's moment.
    fn live_value(&self, column: &Column, insert: InsertStmt<'w>) -> Result<Vec<Piece>> {
        let live = column.live_default().ok_or_else(not_understood)?;
        let refused = |why: &str| Err(self.refuse(insert.node_id(), &format!("the column {} {why}", column.name)));
        match self.clock {
            Clock::Slots => Ok(live.pieces()),
            Clock::Trigger if live.random => {
                refused("has a random default, which a trigger can not give it: give it a value in the INSERT")
            }
            Clock::Trigger => Ok(live
                .pieces()
                .into_iter()
                .map(|piece| match piece {
                    Piece::Slot(Slot::CurrentTimestamp) => Piece::Text(format!("datetime({STORED_NOW})")),
                    Piece::Slot(Slot::CurrentDate) => Piece::Text(format!("date({STORED_NOW})")),
                    Piece::Slot(Slot::CurrentTime) => Piece::Text(format!("time({STORED_NOW})")),
                    Piece::Slot(_) => Piece::from(STORED_NOW),
                    text => text,
                })
                .collect()),
            _ => Err(not_understood()),
        }
    }

    /// Appends values to each row that a source makes.
    fn append(&mut self, source: Select<'w>, values: &Rc<[Piece]>) -> Result<()> {
        match source {
            Select::ValuesClause(rows) => self.append_to_rows(rows, values),
            Select::WithClause(with) => self.append(with.select().ok_or_else(not_understood)?, values),
            Select::CompoundSelect(mut compound) => loop {
                self.append(compound.right().ok_or_else(not_understood)?, values)?;
                match compound.left().ok_or_else(not_understood)? {
                    Select::CompoundSelect(left) => compound = left,
                    left => return self.append(left, values),
                }
            },
            Select::SelectStmt(select) => {
                let last = select.columns().iter().flat_map(ResultColumnList::iter).last();
                let last = last.ok_or_else(not_understood)?;
                let end = self.source.extent(AnyNodeId::from(last.node_id()))?.end;
                self.edits.insert_all(end, Rc::clone(values));
                Ok(())
            }
        }
    }

    fn append_to_rows(&mut self, rows: ValuesClause<'w>, values: &Rc<[Piece]>) -> Result<()> {
        for row in rows.rows().iter().flat_map(ValuesRowList::iter) {
            let last = row.get(row.len().saturating_sub(1)).ok_or_else(not_understood)?;
            let end = self.source.extent(AnyNodeId::from(last.node_id()))?.end;
            let close = self.source.expect(end, ")")?;
            self.edits.insert_all(close.start, Rc::clone(values));
        }
        Ok(())
    }
}
