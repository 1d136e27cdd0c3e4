//! SELECT in all its forms, and the sources of FROM.

use super::StatementRewriter;
use super::scope::ScopeItem;
use super::table::TablePosition;
use crate::names::{INTERNAL_PREFIX, quote, starts_with_ignore_case};
use crate::parsed_source::not_understood_error;
use crate::reserved_names::check_new_name;
use debros_proto::Result;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{
    CompoundSelect, CteList, Expr, ExprList, JoinModifierList, LimitClause, Name, OrderByList,
    ResultColumn, ResultColumnList, Select, SelectStmt, Stmt, TableRef, TableSource, ValuesClause,
};
use syntaqlite_syntax::typed::GrammarNodeType;

impl<'w> StatementRewriter<'w> {
    pub(super) fn visit_statement_select(&mut self, statement: Stmt<'w>) -> Result<()> {
        self.visit_select(match statement {
            Stmt::SelectStmt(select) => Select::SelectStmt(select),
            Stmt::CompoundSelect(select) => Select::CompoundSelect(select),
            Stmt::ValuesClause(select) => Select::ValuesClause(select),
            Stmt::WithClause(select) => Select::WithClause(select),
            _ => return Err(not_understood_error()),
        })
    }

    pub(super) fn visit_select(&mut self, select: Select<'w>) -> Result<()> {
        self.descend()?;
        match select {
            Select::SelectStmt(select) => self.visit_select_core(select)?,
            Select::CompoundSelect(compound) => self.visit_compound(compound)?,
            Select::ValuesClause(values) => self.visit_values(values)?,
            Select::WithClause(with) => {
                self.mark_visited(with.node_id());
                self.visit_ctes(with.ctes())?;
                self.visit_select(with.select().ok_or_else(not_understood_error)?)?;
                self.scopes.pop_ctes();
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Visits the CTEs of one WITH and leaves their names visible, until `pop_ctes`.
    pub(super) fn visit_ctes(&mut self, ctes: Option<CteList<'w>>) -> Result<()> {
        let mut names = Vec::new();
        for cte in ctes.iter().flat_map(CteList::iter) {
            let name = self.source.name_of(cte.cte_name())?;
            check_new_name(&name)?;
            if starts_with_ignore_case(&name, "sqlite_") {
                let token = self.source.token_range(cte.cte_name())?;
                return Err(self.refuse_at(&token, "names that start with sqlite_ are reserved"));
            }
            names.push(name);
        }
        self.scopes.push_ctes(names);
        for cte in ctes.iter().flat_map(CteList::iter) {
            self.mark_visited(cte.node_id());
            self.visit_plain_columns(cte.columns())?;
            self.visit_select(cte.select().ok_or_else(not_understood_error)?)?;
        }
        Ok(())
    }

    /// The members of a compound lean to the left: visited in a loop, because there may be
    /// hundreds.
    fn visit_compound(&mut self, mut compound: CompoundSelect<'w>) -> Result<()> {
        loop {
            self.mark_visited(compound.node_id());
            self.visit_select(compound.right().ok_or_else(not_understood_error)?)?;
            self.visit_order_by(compound.orderby())?;
            self.visit_limit(compound.limit_clause())?;
            match compound.left().ok_or_else(not_understood_error)? {
                Select::CompoundSelect(left) => compound = left,
                left => return self.visit_select(left),
            }
        }
    }

    fn visit_values(&mut self, values: ValuesClause<'w>) -> Result<()> {
        self.mark_visited(values.node_id());
        for row in values.rows().iter().flat_map(syntaqlite_syntax::nodes::ValuesRowList::iter) {
            self.visit_expressions(Some(row))?;
        }
        Ok(())
    }

    fn visit_select_core(&mut self, select: SelectStmt<'w>) -> Result<()> {
        self.mark_visited(select.node_id());
        self.scopes.push_frame(Vec::new());
        let per_row = self.per_row;
        if let Some(from) = select.from_clause() {
            self.visit_from(from)?;
            self.per_row = true;
        }
        self.visit_result_columns(select.columns())?;
        self.visit_condition(select.where_clause())?;
        self.visit_expressions(select.groupby())?;
        self.visit_optional_expr(select.having())?;
        self.visit_windows(select.window_clause())?;
        self.visit_order_by(select.orderby())?;
        self.visit_limit(select.limit_clause())?;
        self.per_row = per_row;
        self.scopes.pop_frame();
        Ok(())
    }

    /// The one expression of a SELECT that wraps a default.
    pub(super) fn visit_bare_expressions(&mut self, select: SelectStmt<'w>) -> Result<()> {
        self.mark_visited(select.node_id());
        for column in select.columns().iter().flat_map(ResultColumnList::iter) {
            self.mark_visited(column.node_id());
            if column.alias().is_some() || column.flags().star() {
                return Err(not_understood_error());
            }
            self.visit_optional_expr(column.expr())?;
        }
        if select.from_clause().is_some() || select.where_clause().is_some() {
            return Err(not_understood_error());
        }
        Ok(())
    }

    pub(super) fn visit_result_columns(
        &mut self,
        columns: Option<ResultColumnList<'w>>,
    ) -> Result<()> {
        columns
            .iter()
            .flat_map(ResultColumnList::iter)
            .try_for_each(|column| self.visit_result_column(column))
    }

    /// SQLite names a column without an alias after its text: when the text changes, the old one
    /// becomes its alias.
    fn visit_result_column(&mut self, column: ResultColumn<'w>) -> Result<()> {
        self.mark_visited(column.node_id());
        if let Some(alias) = column.alias() {
            self.visit_name(alias)?;
        }
        if column.flags().star() {
            return self.visit_star(column);
        }
        let Some(expression) = column.expr() else {
            return Err(not_understood_error());
        };
        let before = self.splices.len();
        self.visit_expr(expression)?;
        if self.splices.len() == before || column.alias().is_some() {
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
                let next = self
                    .source
                    .tokens_after(extent.end)
                    .first()
                    .map_or(self.source.text.len(), |next| next.start);
                self.source.text[extent.start..next].trim().to_owned()
            }
        };
        self.splices.insert(extent.end, format!(" AS {}", quote('"', &name)));
        Ok(())
    }

    /// `*` and `t.*`, where `t` is no expression but a name.
    fn visit_star(&mut self, column: ResultColumn<'w>) -> Result<()> {
        let tree = self.source.tree();
        for child in tree.child_node_ids(AnyNodeId::from(column.node_id())) {
            let name = Name::from_result(tree, child).ok_or_else(not_understood_error)?;
            self.visit_name(name)?;
        }
        Ok(())
    }

    /// The names of a SELECT's columns, as far as the text has them.
    pub(super) fn select_names(&self, select: Select<'w>) -> Vec<String> {
        match select {
            Select::SelectStmt(select) => {
                let columns = select.columns();
                columns
                    .iter()
                    .flat_map(ResultColumnList::iter)
                    .filter_map(|column| self.column_name(column))
                    .collect()
            }
            Select::CompoundSelect(compound) => {
                let mut left = compound.left();
                while let Some(Select::CompoundSelect(inner)) = left {
                    left = inner.left();
                }
                left.map(|left| self.select_names(left)).unwrap_or_default()
            }
            Select::WithClause(with) => {
                with.select().map(|select| self.select_names(select)).unwrap_or_default()
            }
            Select::ValuesClause(_) => Vec::new(),
        }
    }

    fn column_name(&self, column: ResultColumn<'w>) -> Option<String> {
        match (column.alias(), column.expr()) {
            (Some(Name::IdentName(alias)), _) => self.source.name_of(alias.source()).ok(),
            (None, Some(Expr::ColumnRef(reference))) => {
                self.source.name_of(reference.column()).ok()
            }
            _ => None,
        }
    }

    pub(super) fn visit_from(&mut self, source: TableSource<'w>) -> Result<()> {
        self.visit_source_item(source, true)
    }

    /// An item of a FROM clause, first in it or in its parentheses or not.
    fn visit_source_item(&mut self, source: TableSource<'w>, is_first: bool) -> Result<()> {
        self.descend()?;
        match source {
            TableSource::TableRef(table) => self.visit_table_ref(table, TablePosition::From)?,
            TableSource::SubqueryTableSource(subquery) => {
                self.mark_visited(subquery.node_id());
                let select = subquery.select().ok_or_else(not_understood_error)?;
                self.visit_select(select)?;
                let visible = self.visit_alias(subquery.alias())?.unwrap_or_default();
                let columns = self.select_names(select);
                self.visible.push(visible.clone());
                self.scopes.add_item(ScopeItem::without_table(visible, columns));
            }
            TableSource::ParenTableSource(inner) => {
                self.mark_visited(inner.node_id());
                let splices = self.splices.len();
                let source = inner.source().ok_or_else(not_understood_error)?;
                self.visit_from(source)?;
                if let Some(alias) = self.visit_alias(inner.alias())? {
                    self.visible.push(alias.clone());
                    self.scopes.add_item(ScopeItem::without_table(alias, Vec::new()));
                } else if !is_first && let Some((table, depth)) = alone_in_parentheses(source, 1) {
                    self.restore_table_name(table, depth, splices)?;
                }
            }
            TableSource::JoinClause(join) => {
                self.mark_visited(join.node_id());
                self.visit_join_modifiers(join.modifiers());
                self.visit_source_item(join.left().ok_or_else(not_understood_error)?, is_first)?;
                self.visit_source_item(join.right().ok_or_else(not_understood_error)?, false)?;
                let per_row = std::mem::replace(&mut self.per_row, true);
                self.visit_condition(join.on_expr())?;
                self.per_row = per_row;
                self.visit_plain_columns(join.using_columns())?;
            }
            TableSource::JoinPrefix(prefix) => {
                self.mark_visited(prefix.node_id());
                self.visit_join_modifiers(prefix.modifiers());
                self.visit_source_item(
                    prefix.source().ok_or_else(not_understood_error)?,
                    is_first,
                )?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// A single table in parentheses that do not come first has its own name: SQLite forgets an
    /// alias within them, and with it the one that the rewriter has added.
    fn restore_table_name(
        &mut self,
        table: TableRef<'w>,
        depth: usize,
        splices: usize,
    ) -> Result<()> {
        let token = self.source.token_range(table.table_name())?;
        self.scopes.rename_last(self.source.name_of(table.table_name())?);
        if self.splices.len() > splices {
            let first = if table.schema().is_empty() {
                token.start
            } else {
                self.source.token_range(table.schema())?.start
            };
            let end =
                self.source.closing_parenthesis(self.source.opening_parenthesis(first, depth)?)?;
            self.splices.insert(end, format!(" AS {}", &self.source.text[token]));
        }
        Ok(())
    }

    fn visit_join_modifiers(&mut self, modifiers: Option<JoinModifierList<'w>>) {
        for modifier in modifiers.iter().flat_map(JoinModifierList::iter) {
            self.mark_visited(modifier.node_id());
        }
    }

    /// A name that stays unchanged.
    pub(super) fn visit_name(&mut self, name: Name<'w>) -> Result<&'w str> {
        self.mark_visited(AnyNodeId::from(name.node_id()));
        self.source.name_text(name)
    }

    pub(super) fn visit_alias(&mut self, alias: Option<Name<'w>>) -> Result<Option<String>> {
        let Some(alias) = alias else {
            return Ok(None);
        };
        let text = self.visit_name(alias)?;
        let name = self.source.name_of(text)?;
        // To a check of the accesses such an alias would look like another namespace's table.
        if starts_with_ignore_case(&name, "ns::") || starts_with_ignore_case(&name, INTERNAL_PREFIX)
        {
            let token = self.source.token_range(text)?;
            return Err(
                self.refuse_at(&token, "aliases that start with ns:: or _debros_ are reserved")
            );
        }
        Ok(Some(name))
    }

    pub(super) fn visit_order_by(&mut self, terms: Option<OrderByList<'w>>) -> Result<()> {
        for term in terms.iter().flat_map(OrderByList::iter) {
            self.mark_visited(term.node_id());
            self.visit_optional_expr(term.expr())?;
        }
        Ok(())
    }

    pub(super) fn visit_limit(&mut self, limit: Option<LimitClause<'w>>) -> Result<()> {
        if let Some(limit) = limit {
            self.mark_visited(limit.node_id());
            self.visit_optional_expr(limit.limit())?;
            self.visit_optional_expr(limit.offset())?;
        }
        Ok(())
    }

    pub(super) fn visit_expressions(&mut self, list: Option<ExprList<'w>>) -> Result<()> {
        list.iter().flat_map(ExprList::iter).try_for_each(|expression| self.visit_expr(expression))
    }
}

/// The table inside parentheses that hold nothing else, but perhaps more parentheses; and their
/// number.
fn alone_in_parentheses(source: TableSource<'_>, depth: usize) -> Option<(TableRef<'_>, usize)> {
    match source {
        TableSource::TableRef(table) => Some((table, depth)),
        TableSource::ParenTableSource(inner) => alone_in_parentheses(inner.source()?, depth + 1),
        TableSource::SubqueryTableSource(_)
        | TableSource::JoinClause(_)
        | TableSource::JoinPrefix(_) => None,
    }
}
