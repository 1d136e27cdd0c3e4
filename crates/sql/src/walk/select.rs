//! SELECT in all its forms, and the sources of FROM.

use super::Walk;
use super::scope::Item;
use super::table::Position;
use crate::names::{INTERNAL_PREFIX, quote, starts_with};
use crate::reserved_names::check_new;
use crate::source::not_understood;
use debros_proto::Result;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{
    CompoundSelect, CteList, Expr, ExprList, JoinModifierList, LimitClause, Name, OrderByList, ResultColumn,
    ResultColumnList, Select, SelectStmt, Stmt, TableRef, TableSource, ValuesClause,
};
use syntaqlite_syntax::typed::GrammarNodeType;

impl<'w> Walk<'w> {
    pub(super) fn statement_select(&mut self, statement: Stmt<'w>) -> Result<()> {
        self.select(match statement {
            Stmt::SelectStmt(select) => Select::SelectStmt(select),
            Stmt::CompoundSelect(select) => Select::CompoundSelect(select),
            Stmt::ValuesClause(select) => Select::ValuesClause(select),
            Stmt::WithClause(select) => Select::WithClause(select),
            _ => return Err(not_understood()),
        })
    }

    pub(super) fn select(&mut self, select: Select<'w>) -> Result<()> {
        self.enter()?;
        match select {
            Select::SelectStmt(select) => self.select_core(select)?,
            Select::CompoundSelect(compound) => self.compound(compound)?,
            Select::ValuesClause(values) => self.values(values)?,
            Select::WithClause(with) => {
                self.understand(with.node_id());
                self.ctes(with.ctes())?;
                self.select(with.select().ok_or_else(not_understood)?)?;
                self.scopes.pop_ctes();
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Walks the CTEs of one WITH and leaves their names visible, until `pop_ctes`.
    pub(super) fn ctes(&mut self, ctes: Option<CteList<'w>>) -> Result<()> {
        let mut names = Vec::new();
        for cte in ctes.iter().flat_map(CteList::iter) {
            let name = self.source.name(cte.cte_name())?;
            check_new(&name)?;
            if starts_with(&name, "sqlite_") {
                let token = self.source.token(cte.cte_name())?;
                return Err(self.refuse_at(&token, "names that start with sqlite_ are reserved"));
            }
            names.push(name);
        }
        self.scopes.push_ctes(names);
        for cte in ctes.iter().flat_map(CteList::iter) {
            self.understand(cte.node_id());
            self.plain_columns(cte.columns())?;
            self.select(cte.select().ok_or_else(not_understood)?)?;
        }
        Ok(())
    }

    /// The members of a compound lean to the left: walked in a loop, because there may be hundreds.
    fn compound(&mut self, mut compound: CompoundSelect<'w>) -> Result<()> {
        loop {
            self.understand(compound.node_id());
            self.select(compound.right().ok_or_else(not_understood)?)?;
            self.order_by(compound.orderby())?;
            self.limit(compound.limit_clause())?;
            match compound.left().ok_or_else(not_understood)? {
                Select::CompoundSelect(left) => compound = left,
                left => return self.select(left),
            }
        }
    }

    fn values(&mut self, values: ValuesClause<'w>) -> Result<()> {
        self.understand(values.node_id());
        for row in values.rows().iter().flat_map(syntaqlite_syntax::nodes::ValuesRowList::iter) {
            self.expressions(Some(row))?;
        }
        Ok(())
    }

    fn select_core(&mut self, select: SelectStmt<'w>) -> Result<()> {
        self.understand(select.node_id());
        self.scopes.push(Vec::new());
        let per_row = self.per_row;
        if let Some(from) = select.from_clause() {
            self.from(from)?;
            self.per_row = true;
        }
        self.result_columns(select.columns())?;
        self.condition(select.where_clause())?;
        self.expressions(select.groupby())?;
        self.maybe(select.having())?;
        self.windows(select.window_clause())?;
        self.order_by(select.orderby())?;
        self.limit(select.limit_clause())?;
        self.per_row = per_row;
        self.scopes.pop();
        Ok(())
    }

    /// The one expression of a SELECT that stands around a default.
    pub(super) fn bare_expressions(&mut self, select: SelectStmt<'w>) -> Result<()> {
        self.understand(select.node_id());
        for column in select.columns().iter().flat_map(ResultColumnList::iter) {
            self.understand(column.node_id());
            if column.alias().is_some() || column.flags().star() {
                return Err(not_understood());
            }
            self.maybe(column.expr())?;
        }
        if select.from_clause().is_some() || select.where_clause().is_some() {
            return Err(not_understood());
        }
        Ok(())
    }

    pub(super) fn result_columns(&mut self, columns: Option<ResultColumnList<'w>>) -> Result<()> {
        columns.iter().flat_map(ResultColumnList::iter).try_for_each(|column| self.result_column(column))
    }

    /// SQLite names a column without an alias after its text: when the text changes, the old one becomes its alias.
    fn result_column(&mut self, column: ResultColumn<'w>) -> Result<()> {
        self.understand(column.node_id());
        if let Some(alias) = column.alias() {
            self.name_node(alias)?;
        }
        if column.flags().star() {
            return self.star(column);
        }
        let Some(expression) = column.expr() else {
            return Err(not_understood());
        };
        let before = self.edits.len();
        self.expr(expression)?;
        if self.edits.len() == before || column.alias().is_some() {
            return Ok(());
        }
        let extent = self.source.extent(AnyNodeId::from(expression.node_id()))?;
        let name = match expression {
            Expr::ColumnRef(reference) => {
                // A column keeps its name, whatever qualifies it.
                match self.hidden_column(reference)? {
                    Some(table) if reference.table().is_empty() => table,
                    _ => return Ok(()),
                }
            }
            // Up to the next word: SQLite takes a comment that follows for a part of the name.
            _ => {
                let next =
                    self.source.tokens_after(extent.end).first().map_or(self.source.text.len(), |next| next.start);
                self.source.text[extent.start..next].trim().to_owned()
            }
        };
        self.edits.insert(extent.end, format!(" AS {}", quote('"', &name)));
        Ok(())
    }

    /// `*` and `t.*`, where `t` is no expression but a name.
    fn star(&mut self, column: ResultColumn<'w>) -> Result<()> {
        let tree = self.source.tree();
        for child in tree.child_node_ids(AnyNodeId::from(column.node_id())) {
            let name = Name::from_result(tree, child).ok_or_else(not_understood)?;
            self.name_node(name)?;
        }
        Ok(())
    }

    /// The names of a SELECT's columns, as far as they are written there.
    pub(super) fn select_names(&self, select: Select<'w>) -> Vec<String> {
        match select {
            Select::SelectStmt(select) => {
                let columns = select.columns();
                columns.iter().flat_map(ResultColumnList::iter).filter_map(|column| self.column_name(column)).collect()
            }
            Select::CompoundSelect(compound) => {
                let mut left = compound.left();
                while let Some(Select::CompoundSelect(inner)) = left {
                    left = inner.left();
                }
                left.map(|left| self.select_names(left)).unwrap_or_default()
            }
            Select::WithClause(with) => with.select().map(|select| self.select_names(select)).unwrap_or_default(),
            Select::ValuesClause(_) => Vec::new(),
        }
    }

    fn column_name(&self, column: ResultColumn<'w>) -> Option<String> {
        match (column.alias(), column.expr()) {
            (Some(Name::IdentName(alias)), _) => self.source.name(alias.source()).ok(),
            (None, Some(Expr::ColumnRef(reference))) => self.source.name(reference.column()).ok(),
            _ => None,
        }
    }

    pub(super) fn from(&mut self, source: TableSource<'w>) -> Result<()> {
        self.source_item(source, true)
    }

    /// What stands in a FROM clause, first in it or in its parentheses or not.
    fn source_item(&mut self, source: TableSource<'w>, is_first: bool) -> Result<()> {
        self.enter()?;
        match source {
            TableSource::TableRef(table) => self.table_ref(table, Position::From)?,
            TableSource::SubqueryTableSource(subquery) => {
                self.understand(subquery.node_id());
                let select = subquery.select().ok_or_else(not_understood)?;
                self.select(select)?;
                let visible = self.alias(subquery.alias())?.unwrap_or_default();
                let columns = self.select_names(select);
                self.visible.push(visible.clone());
                self.scopes.add(Item::other(visible, columns));
            }
            TableSource::ParenTableSource(inner) => {
                self.understand(inner.node_id());
                let edits = self.edits.len();
                let source = inner.source().ok_or_else(not_understood)?;
                self.from(source)?;
                if let Some(alias) = self.alias(inner.alias())? {
                    self.visible.push(alias.clone());
                    self.scopes.add(Item::other(alias, Vec::new()));
                } else if !is_first && let Some((table, depth)) = alone_in_parentheses(source, 1) {
                    self.name_again(table, depth, edits)?;
                }
            }
            TableSource::JoinClause(join) => {
                self.understand(join.node_id());
                self.join_modifiers(join.modifiers());
                self.source_item(join.left().ok_or_else(not_understood)?, is_first)?;
                self.source_item(join.right().ok_or_else(not_understood)?, false)?;
                let per_row = std::mem::replace(&mut self.per_row, true);
                self.condition(join.on_expr())?;
                self.per_row = per_row;
                self.plain_columns(join.using_columns())?;
            }
            TableSource::JoinPrefix(prefix) => {
                self.understand(prefix.node_id());
                self.join_modifiers(prefix.modifiers());
                self.source_item(prefix.source().ok_or_else(not_understood)?, is_first)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// A table alone in parentheses that do not come first has its own name: SQLite forgets an alias within them, and with it
    /// the one that a moved table has been given.
    fn name_again(&mut self, table: TableRef<'w>, depth: usize, edits: usize) -> Result<()> {
        let token = self.source.token(table.table_name())?;
        self.scopes.rename_last(self.source.name(table.table_name())?);
        if self.edits.len() > edits {
            let first = if table.schema().is_empty() { token.start } else { self.source.token(table.schema())?.start };
            let end = self.source.closing(self.source.opening(first, depth)?)?;
            self.edits.insert(end, format!(" AS {}", &self.source.text[token]));
        }
        Ok(())
    }

    fn join_modifiers(&mut self, modifiers: Option<JoinModifierList<'w>>) {
        for modifier in modifiers.iter().flat_map(JoinModifierList::iter) {
            self.understand(modifier.node_id());
        }
    }

    /// A name that stays as it is.
    pub(super) fn name_node(&mut self, name: Name<'w>) -> Result<&'w str> {
        self.understand(AnyNodeId::from(name.node_id()));
        self.source.name_text(name)
    }

    pub(super) fn alias(&mut self, alias: Option<Name<'w>>) -> Result<Option<String>> {
        let Some(alias) = alias else {
            return Ok(None);
        };
        let text = self.name_node(alias)?;
        let name = self.source.name(text)?;
        // Such an alias would look like another's table to whoever checks what is read.
        if starts_with(&name, "ns::") || starts_with(&name, INTERNAL_PREFIX) {
            let token = self.source.token(text)?;
            return Err(self.refuse_at(&token, "aliases that start with ns:: or _debros_ are reserved"));
        }
        Ok(Some(name))
    }

    pub(super) fn order_by(&mut self, terms: Option<OrderByList<'w>>) -> Result<()> {
        for term in terms.iter().flat_map(OrderByList::iter) {
            self.understand(term.node_id());
            self.maybe(term.expr())?;
        }
        Ok(())
    }

    pub(super) fn limit(&mut self, limit: Option<LimitClause<'w>>) -> Result<()> {
        if let Some(limit) = limit {
            self.understand(limit.node_id());
            self.maybe(limit.limit())?;
            self.maybe(limit.offset())?;
        }
        Ok(())
    }

    pub(super) fn expressions(&mut self, list: Option<ExprList<'w>>) -> Result<()> {
        list.iter().flat_map(ExprList::iter).try_for_each(|expression| self.expr(expression))
    }
}

/// The table of parentheses that hold nothing else, but perhaps more parentheses; and how many they are.
fn alone_in_parentheses(source: TableSource<'_>, depth: usize) -> Option<(TableRef<'_>, usize)> {
    match source {
        TableSource::TableRef(table) => Some((table, depth)),
        TableSource::ParenTableSource(inner) => alone_in_parentheses(inner.source()?, depth + 1),
        TableSource::SubqueryTableSource(_) | TableSource::JoinClause(_) | TableSource::JoinPrefix(_) => None,
    }
}
