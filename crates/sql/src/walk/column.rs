//! References to columns. Most need nothing, because each table keeps its name as an alias. Two kinds do: qualifiers
//! where no alias can stand, and the hidden column of a full-text table, which is named after the table itself.

use super::Walk;
use super::scope::Item;
use crate::names::same;
use debros_proto::Result;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{BinaryOp, ColumnRef, Expr, ExprList};

impl<'w> Walk<'w> {
    pub(super) fn column_ref(&mut self, column: ColumnRef<'w>) -> Result<()> {
        self.understand(column.node_id());
        self.check_schema(column.schema())?;
        let qualifier = column.table();
        if qualifier.is_empty() {
            if let Some(table) = self.hidden_column(column)? {
                self.move_hidden(column, &table)?;
            }
            return Ok(());
        }
        let name = self.source.name(qualifier)?;
        let items = self.scopes.qualified(&name);
        let item = match items.as_slice() {
            [] => return Ok(()),
            [item] => *item,
            // Of an UPDATE's target and something in its FROM with the same name, SQLite takes the one with the column.
            [target, others @ ..] => {
                let column = self.source.name(column.column())?;
                let other = others.iter().find(|item| self.has_column(item, &column)).copied();
                // Of a subquery's columns not all are known here.
                let unknown = || if self.has_column(target, &column) { *target } else { others[0] };
                other.unwrap_or_else(unknown)
            }
        };
        let Some(table) = item.table.clone() else {
            return Ok(());
        };
        let (bare, full_text) = (item.bare, item.full_text);
        if bare {
            let token = self.source.token(qualifier)?;
            self.edits.replace(token, self.prefix.ticked(&table));
        }
        if full_text && same(&self.source.name(column.column())?, &table) {
            self.move_hidden(column, &table)?;
        }
        Ok(())
    }

    /// The value of the hidden column is a number that counts the connection's queries, other people's among them: it
    /// stands for the table in a search and in the functions of full text, and is not told otherwise.
    fn move_hidden(&mut self, column: ColumnRef<'w>, table: &str) -> Result<()> {
        let token = self.source.token(column.column())?;
        if !self.hidden_allowed.contains(&AnyNodeId::from(column.node_id())) {
            return Err(self.refuse_at(
                &token,
                "the column with a full-text table's own name can only be searched, or given to its functions",
            ));
        }
        self.edits.replace(token, self.prefix.ticked(table));
        Ok(())
    }

    /// Lets a reference mean a hidden column.
    pub(super) fn allow_hidden(&mut self, expression: Option<Expr<'w>>) {
        if let Some(Expr::ColumnRef(column)) = expression {
            self.hidden_allowed.insert(column.node_id().into());
        }
    }

    /// Walks a WHERE or ON. `docs = 'words'` searches there, when it must hold and its other side is at hand: the table is
    /// then always asked. Otherwise the column's value would be compared.
    pub(super) fn condition(&mut self, condition: Option<Expr<'w>>) -> Result<()> {
        let mut waiting: Vec<Expr<'w>> = condition.into_iter().collect();
        while let Some(expression) = waiting.pop() {
            let Some(Expr::BinaryExpr(binary)) = bare(Some(expression)) else { continue };
            match binary.op() {
                BinaryOp::And => waiting.extend([binary.left(), binary.right()].into_iter().flatten()),
                BinaryOp::Eq | BinaryOp::EqDouble => {
                    let (left, right) = (bare(binary.left()), bare(binary.right()));
                    if right.is_some_and(is_at_hand) {
                        self.allow_hidden(left);
                    } else if left.is_some_and(is_at_hand) {
                        self.allow_hidden(right);
                    }
                }
                _ => {}
            }
        }
        self.maybe(condition)
    }

    /// The full-text table whose hidden column a reference without a qualifier means.
    pub(super) fn hidden_column(&self, column: ColumnRef<'w>) -> Result<Option<String>> {
        if column.column().is_empty() || !self.inner.schema.has_full_text(&self.inner.db) {
            return Ok(None);
        }
        let name = self.source.name(column.column())?;
        for frame in self.scopes.outwards() {
            if frame.iter().any(|item| self.has_column(item, &name)) {
                return Ok(None);
            }
            let mut full_text = frame.iter().filter(|item| item.full_text).filter_map(|item| item.table.as_deref());
            let hidden = full_text.find(|table| same(table, &name)).map(str::to_owned);
            if hidden.is_some() {
                return Ok(hidden);
            }
        }
        Ok(None)
    }

    /// Whether an item has a column of that name that is no hidden one.
    fn has_column(&self, item: &Item, name: &str) -> bool {
        match &item.table {
            Some(table) => {
                let columns = self.inner.schema.columns(&self.inner.db, table);
                columns.iter().any(|column| !column.hidden && same(&column.name, name))
            }
            None => item.columns.iter().any(|column| same(column, name)),
        }
    }

    /// Names of the target's columns: where a change lists what it sets.
    pub(super) fn target_columns(&mut self, columns: Option<ExprList<'w>>, target: &Item) -> Result<()> {
        for expression in columns.iter().flat_map(ExprList::iter) {
            let Expr::ColumnRef(column) = expression else {
                return Err(crate::source::not_understood());
            };
            self.understand(column.node_id());
            self.target_column(column.column(), target)?;
        }
        Ok(())
    }

    /// The name of one column of the target.
    pub(super) fn target_column(&mut self, name: &'w str, target: &Item) -> Result<()> {
        if let Some(table) = target.table.as_ref().filter(|_| target.full_text)
            && same(&self.source.name(name)?, table)
        {
            let full = self.prefix.ticked(table);
            self.edits.replace(self.source.token(name)?, full);
        }
        Ok(())
    }

    /// Names of columns that stay as they are.
    pub(super) fn plain_columns(&mut self, columns: Option<ExprList<'w>>) -> Result<()> {
        for expression in columns.iter().flat_map(ExprList::iter) {
            let mut expression = expression;
            // An index or a key may give a column an order of its own.
            while let Expr::CollateExpr(collate) = expression {
                self.understand(collate.node_id());
                expression = collate.expr().ok_or_else(crate::source::not_understood)?;
            }
            let Expr::ColumnRef(column) = expression else {
                return Err(crate::source::not_understood());
            };
            self.understand(column.node_id());
        }
        Ok(())
    }
}

/// An expression without the parentheses around it.
fn bare(mut expression: Option<Expr<'_>>) -> Option<Expr<'_>> {
    while let Some(Expr::ParenExpr(inner)) = expression {
        expression = inner.expr();
    }
    expression
}

/// Whether an expression has its value before any table is read.
fn is_at_hand(expression: Expr<'_>) -> bool {
    let mut waiting = vec![expression];
    while let Some(expression) = waiting.pop() {
        match expression {
            Expr::Literal(_) | Expr::Variable(_) => {}
            Expr::ParenExpr(inner) => waiting.extend(inner.expr()),
            Expr::BinaryExpr(binary) => waiting.extend([binary.left(), binary.right()].into_iter().flatten()),
            Expr::FunctionCall(call) if call.filter_clause().is_none() && call.over_clause().is_none() => {
                waiting.extend(call.args().iter().flat_map(ExprList::iter));
            }
            _ => return false,
        }
    }
    true
}
