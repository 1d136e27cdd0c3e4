//! References to columns. Most need no change, because each table keeps its name as an alias. Two
//! kinds do: qualifiers where no alias is possible, and the hidden column of a full-text table,
//! which is named after the table itself.

use super::StatementRewriter;
use super::scope::ScopeItem;
use crate::names::is_same_name;
use debros_proto::Result;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{BinaryOp, ColumnRef, Expr, ExprList};

impl<'w> StatementRewriter<'w> {
    pub(super) fn visit_column_ref(&mut self, column: ColumnRef<'w>) -> Result<()> {
        self.mark_visited(column.node_id());
        self.check_schema(column.schema())?;
        let qualifier = column.table();
        if qualifier.is_empty() {
            if let Some(table) = self.hidden_column(column)? {
                self.qualify_hidden_column(column, &table)?;
            }
            return Ok(());
        }
        let name = self.source.name_of(qualifier)?;
        let items = self.scopes.items_named(&name);
        let item = match items.as_slice() {
            [] => return Ok(()),
            [item] => *item,
            // If an UPDATE's target and an item of its FROM have the same name, SQLite takes the
            // one with the column.
            [target, others @ ..] => {
                let column = self.source.name_of(column.column())?;
                let other = others.iter().find(|item| self.has_column(item, &column)).copied();
                // Not all columns of a subquery are known here.
                let unknown = || if self.has_column(target, &column) { *target } else { others[0] };
                other.unwrap_or_else(unknown)
            }
        };
        let Some(table) = item.table.clone() else {
            return Ok(());
        };
        let (bare, full_text) = (item.no_alias, item.full_text);
        if bare {
            let token = self.source.token_range(qualifier)?;
            self.splices.replace(token, self.prefix.qualify_backticked(&table));
        }
        if full_text && is_same_name(&self.source.name_of(column.column())?, &table) {
            self.qualify_hidden_column(column, &table)?;
        }
        Ok(())
    }

    /// The value of the hidden column is a number that counts the connection's queries, including
    /// those of other callers. It stands for the table in a search and in the functions of full
    /// text, and is never returned.
    fn qualify_hidden_column(&mut self, column: ColumnRef<'w>, table: &str) -> Result<()> {
        let token = self.source.token_range(column.column())?;
        if !self.hidden_allowed.contains(&AnyNodeId::from(column.node_id())) {
            return Err(self.refuse_at(
                &token,
                "the column with a full-text table's own name can only be searched, or given to its functions",
            ));
        }
        self.splices.replace(token, self.prefix.qualify_backticked(table));
        Ok(())
    }

    /// Allows a reference to mean a hidden column.
    pub(super) fn allow_hidden_column(&mut self, expression: Option<Expr<'w>>) {
        if let Some(Expr::ColumnRef(column)) = expression {
            self.hidden_allowed.insert(column.node_id().into());
        }
    }

    /// Visits a WHERE or ON. `docs = 'words'` searches there, if the condition must hold and its
    /// other side is available: then the table itself is always asked. Otherwise the column's value
    /// would be compared.
    pub(super) fn visit_condition(&mut self, condition: Option<Expr<'w>>) -> Result<()> {
        let mut waiting: Vec<Expr<'w>> = condition.into_iter().collect();
        while let Some(expression) = waiting.pop() {
            let Some(Expr::BinaryExpr(binary)) = strip_parentheses(Some(expression)) else {
                continue;
            };
            match binary.op() {
                BinaryOp::And => {
                    waiting.extend([binary.left(), binary.right()].into_iter().flatten())
                }
                BinaryOp::Eq | BinaryOp::EqDouble => {
                    let (left, right) =
                        (strip_parentheses(binary.left()), strip_parentheses(binary.right()));
                    if right.is_some_and(is_known_before_rows) {
                        self.allow_hidden_column(left);
                    } else if left.is_some_and(is_known_before_rows) {
                        self.allow_hidden_column(right);
                    }
                }
                _ => {}
            }
        }
        self.visit_optional_expr(condition)
    }

    /// The full-text table whose hidden column an unqualified reference means.
    pub(super) fn hidden_column(&self, column: ColumnRef<'w>) -> Result<Option<String>> {
        if column.column().is_empty() || !self.inner.schema.has_full_text(&self.inner.db) {
            return Ok(None);
        }
        let name = self.source.name_of(column.column())?;
        for frame in self.scopes.frames_outwards() {
            if frame.iter().any(|item| self.has_column(item, &name)) {
                return Ok(None);
            }
            let mut full_text =
                frame.iter().filter(|item| item.full_text).filter_map(|item| item.table.as_deref());
            let hidden = full_text.find(|table| is_same_name(table, &name)).map(str::to_owned);
            if hidden.is_some() {
                return Ok(hidden);
            }
        }
        Ok(None)
    }

    /// Whether an item has a column of that name that is not hidden.
    fn has_column(&self, item: &ScopeItem, name: &str) -> bool {
        match &item.table {
            Some(table) => {
                let columns = self.inner.schema.columns(&self.inner.db, table);
                columns.iter().any(|column| !column.hidden && is_same_name(&column.name, name))
            }
            None => item.columns.iter().any(|column| is_same_name(column, name)),
        }
    }

    /// Names of the target's columns, in the list of a change.
    pub(super) fn visit_target_columns(
        &mut self,
        columns: Option<ExprList<'w>>,
        target: &ScopeItem,
    ) -> Result<()> {
        for expression in columns.iter().flat_map(ExprList::iter) {
            let Expr::ColumnRef(column) = expression else {
                return Err(crate::parsed_source::not_understood_error());
            };
            self.mark_visited(column.node_id());
            self.visit_target_column(column.column(), target)?;
        }
        Ok(())
    }

    /// The name of one column of the target.
    pub(super) fn visit_target_column(&mut self, name: &'w str, target: &ScopeItem) -> Result<()> {
        if let Some(table) = target.table.as_ref().filter(|_| target.full_text)
            && is_same_name(&self.source.name_of(name)?, table)
        {
            let full = self.prefix.qualify_backticked(table);
            self.splices.replace(self.source.token_range(name)?, full);
        }
        Ok(())
    }

    /// Names of columns that stay unchanged.
    pub(super) fn visit_plain_columns(&mut self, columns: Option<ExprList<'w>>) -> Result<()> {
        for expression in columns.iter().flat_map(ExprList::iter) {
            let mut expression = expression;
            // An index or a key may give a column an order of its own.
            while let Expr::CollateExpr(collate) = expression {
                self.mark_visited(collate.node_id());
                expression =
                    collate.expr().ok_or_else(crate::parsed_source::not_understood_error)?;
            }
            let Expr::ColumnRef(column) = expression else {
                return Err(crate::parsed_source::not_understood_error());
            };
            self.mark_visited(column.node_id());
        }
        Ok(())
    }
}

/// An expression without the parentheses around it.
fn strip_parentheses(mut expression: Option<Expr<'_>>) -> Option<Expr<'_>> {
    while let Some(Expr::ParenExpr(inner)) = expression {
        expression = inner.expr();
    }
    expression
}

/// Whether an expression has its value before any table is read.
fn is_known_before_rows(expression: Expr<'_>) -> bool {
    let mut waiting = vec![expression];
    while let Some(expression) = waiting.pop() {
        match expression {
            Expr::Literal(_) | Expr::Variable(_) => {}
            Expr::ParenExpr(inner) => waiting.extend(inner.expr()),
            Expr::BinaryExpr(binary) => {
                waiting.extend([binary.left(), binary.right()].into_iter().flatten())
            }
            Expr::FunctionCall(call)
                if call.filter_clause().is_none() && call.over_clause().is_none() =>
            {
                waiting.extend(call.args().iter().flat_map(ExprList::iter));
            }
            _ => return false,
        }
    }
    true
}
