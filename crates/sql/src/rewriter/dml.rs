//! INSERT, UPDATE and DELETE, alone and in a trigger's body.

use super::StatementRewriter;
use super::scope::ScopeItem;
use super::table::table_item;
use crate::catalogue::schema_cache::ObjectKind;
use crate::names::{is_same_name, starts_with_ignore_case};
use crate::parsed_source::not_understood_error;
use debros_proto::Result;
use syntaqlite_syntax::nodes::{
    DeleteStmt, IndexHint, InsertStmt, ResultColumnList, Select, SetClauseList, TableRef,
    TableSource, UpdateStmt, UpsertClauseList, ValuesRowList,
};

/// Whether the target of a change may be given an alias. SQLite before 3.53 takes none in a
/// trigger's body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TargetAlias {
    Given,
    None,
}

impl<'w> StatementRewriter<'w> {
    pub(super) fn visit_insert(&mut self, insert: InsertStmt<'w>, in_trigger: bool) -> Result<()> {
        self.mark_visited(insert.node_id());
        self.visit_ctes(insert.with_ctes())?;
        let table = insert.table().ok_or_else(not_understood_error)?;
        if self.rewrite_sequence_insert(insert, table)? {
            return Ok(());
        }
        let target = self.qualify_target(
            table,
            if in_trigger { TargetAlias::None } else { TargetAlias::Given },
        )?;
        self.visit_target_columns(insert.columns(), &target)?;
        let per_row = self.per_row;
        let one_row = match insert.source() {
            Some(Select::ValuesClause(values)) => values.rows().is_none_or(|rows| rows.len() == 1),
            Some(_) => false,
            None => true,
        };
        if let Some(source) = insert.source() {
            self.visit_select(source)?;
        }
        let name = target.table.clone().unwrap_or_default();
        if let Some(upserts) = insert.upsert() {
            self.per_row = !one_row;
            self.scopes.push_frame(vec![
                target,
                ScopeItem::without_table("excluded".to_owned(), Vec::new()),
            ]);
            self.visit_upserts(upserts)?;
            self.scopes.pop_frame();
        }
        self.per_row = true;
        self.visit_returning(insert.returning(), table)?;
        self.per_row = per_row;
        self.scopes.pop_ctes();
        self.supply_volatile_defaults(insert, &name)
    }

    fn visit_upserts(&mut self, upserts: UpsertClauseList<'w>) -> Result<()> {
        for upsert in upserts.iter() {
            self.mark_visited(upsert.node_id());
            self.visit_order_by(upsert.columns())?;
            self.visit_optional_expr(upsert.target_where())?;
            self.visit_set_clauses(upsert.setlist())?;
            self.visit_optional_expr(upsert.update_where())?;
        }
        Ok(())
    }

    pub(super) fn visit_update(&mut self, update: UpdateStmt<'w>, in_trigger: bool) -> Result<()> {
        self.mark_visited(update.node_id());
        self.visit_ctes(update.with_ctes())?;
        let table = update.table().ok_or_else(not_understood_error)?;
        let per_row = std::mem::replace(&mut self.per_row, true);
        if let Some(refused) = self.rewrite_sequence_change(table, update.where_clause())? {
            // The numbers alone: a changed name would be another namespace's.
            for clause in update.setlist().iter().flat_map(SetClauseList::iter) {
                if clause.columns().is_some()
                    || !is_same_name(&self.source.name_of(clause.column())?, "seq")
                {
                    return Err(refused);
                }
            }
            self.visit_set_clauses(update.setlist())?;
            return if update.from_clause().is_some() || update.returning().is_some() {
                Err(refused)
            } else {
                Ok(())
            };
        }
        // `UPDATE t SET … FROM u AS t`: there the name is the other one's.
        let taken = update.from_clause().is_some_and(|from| self.is_made_visible(from, table));
        let target = self.qualify_target(
            table,
            if in_trigger || taken { TargetAlias::None } else { TargetAlias::Given },
        )?;
        if update.index_hint() == IndexHint::Indexed {
            self.qualify_index(update.index_name())?;
        }
        self.scopes.push_frame(vec![target]);
        if let Some(from) = update.from_clause() {
            self.visit_from(from)?;
        }
        self.visit_set_clauses(update.setlist())?;
        self.visit_condition(update.where_clause())?;
        self.visit_order_by(update.orderby())?;
        self.visit_limit(update.limit_clause())?;
        self.scopes.pop_frame();
        self.visit_returning(update.returning(), table)?;
        self.per_row = per_row;
        self.scopes.pop_ctes();
        Ok(())
    }

    pub(super) fn visit_delete(&mut self, delete: DeleteStmt<'w>, in_trigger: bool) -> Result<()> {
        self.mark_visited(delete.node_id());
        self.visit_ctes(delete.with_ctes())?;
        let table = delete.table().ok_or_else(not_understood_error)?;
        let per_row = std::mem::replace(&mut self.per_row, true);
        if let Some(refused) = self.rewrite_sequence_change(table, delete.where_clause())? {
            return if delete.returning().is_some() { Err(refused) } else { Ok(()) };
        }
        let target = self.qualify_target(
            table,
            if in_trigger { TargetAlias::None } else { TargetAlias::Given },
        )?;
        if delete.index_hint() == IndexHint::Indexed {
            self.qualify_index(delete.index_name())?;
        }
        self.scopes.push_frame(vec![target]);
        self.visit_condition(delete.where_clause())?;
        self.visit_order_by(delete.orderby())?;
        self.visit_limit(delete.limit_clause())?;
        self.scopes.pop_frame();
        self.visit_returning(delete.returning(), table)?;
        self.per_row = per_row;
        self.scopes.pop_ctes();
        Ok(())
    }

    fn visit_set_clauses(&mut self, list: Option<SetClauseList<'w>>) -> Result<()> {
        for clause in list.iter().flat_map(SetClauseList::iter) {
            self.mark_visited(clause.node_id());
            let target = self.scopes.pop_frame();
            let result = match target.first() {
                Some(item) if clause.columns().is_none() => {
                    self.visit_target_column(clause.column(), item)
                }
                Some(item) => self.visit_target_columns(clause.columns(), item),
                None => self.visit_plain_columns(clause.columns()),
            };
            self.scopes.push_frame(target);
            result?;
            self.visit_optional_expr(clause.value())?;
        }
        Ok(())
    }

    /// Qualifies the changed table. CTEs are never changed, so they are not searched.
    fn qualify_target(&mut self, table: TableRef<'w>, alias: TargetAlias) -> Result<ScopeItem> {
        self.mark_visited(table.node_id());
        self.check_schema(table.schema())?;
        let token = self.source.token_range(table.table_name())?;
        let name = self.source.name_of(table.table_name())?;
        if starts_with_ignore_case(&name, "sqlite_") {
            return Err(self.refuse_at(&token, &format!("table {name} may not be modified")));
        }
        let found = self.inner.schema.find_object(&self.inner.db, &name);
        if (found.is_none() && !self.stored) || table.has_parens() {
            return Err(self.fail_at(&token, &format!("no such table: {name}")));
        }
        let given = self.visit_alias(table.alias())?;
        // SQLite forgets a view's alias on the way to its INSTEAD OF triggers.
        let alias =
            if matches!(found, Some((ObjectKind::View, _))) { TargetAlias::None } else { alias };
        let raw = self.source.text[token.clone()].to_owned();
        self.splices.replace(token.clone(), self.prefix.qualify_quoted(&name));
        if given.is_none() && alias == TargetAlias::Given {
            self.splices.insert(token.end, format!(" AS {raw}"));
        }
        if table.index_hint() == IndexHint::Indexed {
            self.qualify_index(table.index_name())?;
        }
        let mut item =
            table_item(given.clone().unwrap_or_else(|| name.clone()), &name, found.as_ref());
        item.no_alias = given.is_none() && alias == TargetAlias::None;
        self.objects.push(name);
        Ok(item)
    }

    /// RETURNING knows the target by its table's name alone, whatever its alias.
    fn visit_returning(
        &mut self,
        columns: Option<ResultColumnList<'w>>,
        table: TableRef<'w>,
    ) -> Result<()> {
        if columns.is_none() {
            return Ok(());
        }
        let name = self.source.name_of(table.table_name())?;
        let found = self.inner.schema.find_object(&self.inner.db, &name);
        let mut item = table_item(name.clone(), &name, found.as_ref());
        item.no_alias = true;
        self.scopes.push_frame(vec![item]);
        self.visit_result_columns(columns)?;
        self.scopes.pop_frame();
        Ok(())
    }

    /// Whether a FROM clause has an item with an alias that is the target's name.
    fn is_made_visible(&self, from: TableSource<'w>, target: TableRef<'w>) -> bool {
        let Ok(name) = self.source.name_of(target.table_name()) else {
            return false;
        };
        let is_target = |alias: Option<syntaqlite_syntax::nodes::Name<'w>>| {
            let alias = alias.and_then(|alias| self.source.name_text(alias).ok());
            alias
                .and_then(|alias| self.source.name_of(alias).ok())
                .is_some_and(|alias| is_same_name(&alias, &name))
        };
        match from {
            TableSource::TableRef(table) => is_target(table.alias()),
            TableSource::SubqueryTableSource(subquery) => is_target(subquery.alias()),
            TableSource::ParenTableSource(inner) => {
                is_target(inner.alias())
                    || inner.source().is_some_and(|source| self.is_made_visible(source, target))
            }
            TableSource::JoinClause(join) => [join.left(), join.right()]
                .into_iter()
                .flatten()
                .any(|side| self.is_made_visible(side, target)),
            TableSource::JoinPrefix(prefix) => {
                prefix.source().is_some_and(|source| self.is_made_visible(source, target))
            }
        }
    }

    /// How many rows a VALUES has.
    pub(super) fn values_rows(source: Option<Select<'w>>) -> Option<ValuesRowList<'w>> {
        match source {
            Some(Select::ValuesClause(values)) => values.rows(),
            _ => None,
        }
    }
}
