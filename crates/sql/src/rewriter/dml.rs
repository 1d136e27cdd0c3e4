//! INSERT, UPDATE and DELETE, alone and in a trigger's body.

use super::StatementRewriter;
use super::scope::ScopeItem;
use super::table::table_item;
use crate::catalogue::schema_cache::ObjectKind;
use crate::names::{dequote, is_same_name, quote, starts_with_ignore_case};
use crate::parsed_source::not_understood_error;
use crate::reserved_names::check_new_name;
use debros_proto::Result;
use syntaqlite_syntax::nodes::{
    BinaryOp, DeleteStmt, Expr, ExprList, InExprSource, IndexHint, InsertStmt, LiteralType,
    ResultColumnList, Select, SetClauseList, TableRef, TableSource, UpdateStmt, UpsertClauseList,
    ValuesRowList,
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

    /// A change of `sqlite_sequence`, by which tools restart a table's numbers: allowed for one
    /// table by its name, or for all of the namespace's. Returns the error for other forms; `None`
    /// for other tables.
    fn rewrite_sequence_change(
        &mut self,
        table: TableRef<'w>,
        condition: Option<Expr<'w>>,
    ) -> Result<Option<debros_proto::Error>> {
        if !self.is_sequence(table)? {
            return Ok(None);
        }
        let refused = self.refuse_at(
            &self.source.token_range(table.table_name())?,
            "sqlite_sequence can be changed for tables by name, WHERE name = 't' or WHERE name IN ('t', 'u'), or without a WHERE",
        );
        self.mark_visited(table.node_id());
        self.check_schema(table.schema())?;
        if table.alias().is_some() || table.has_parens() {
            return Err(refused);
        }
        self.grants.sequence = true;
        let (own, length) = (quote('\'', self.prefix.as_str()), self.prefix.as_str().len());
        match condition {
            None => {
                let end = self
                    .source
                    .tokens_after(0)
                    .iter()
                    .rev()
                    .find(|token| &self.source.text[(*token).clone()] != ";");
                let end = end.map_or(self.source.text.len(), |token| token.end);
                self.splices.insert(end, format!(" WHERE substr(name, 1, {length}) = {own}"));
            }
            Some(Expr::BinaryExpr(binary))
                if matches!(binary.op(), BinaryOp::Eq | BinaryOp::EqDouble) =>
            {
                self.mark_visited(binary.node_id());
                if !self.is_sequence_name(binary.left())?
                    || !self.qualify_sequence_literal(binary.right())?
                {
                    return Err(refused);
                }
            }
            Some(Expr::InExpr(within)) if !within.negated() => {
                self.mark_visited(within.node_id());
                let Some(InExprSource::ExprList(list)) = within.source() else {
                    return Err(refused);
                };
                if !self.is_sequence_name(within.operand())? {
                    return Err(refused);
                }
                for name in list.iter() {
                    if !self.qualify_sequence_literal(Some(name))? {
                        return Err(refused);
                    }
                }
            }
            Some(_) => return Err(refused),
        }
        Ok(Some(refused))
    }

    /// `INSERT INTO sqlite_sequence VALUES ('t', 7)`, as a dump has it: literal names of the
    /// namespace's own tables.
    fn rewrite_sequence_insert(
        &mut self,
        insert: InsertStmt<'w>,
        table: TableRef<'w>,
    ) -> Result<bool> {
        if !self.is_sequence(table)? {
            return Ok(false);
        }
        let refused = self.refuse_at(
            &self.source.token_range(table.table_name())?,
            "rows of sqlite_sequence are given as INSERT INTO sqlite_sequence VALUES ('name of a table', number)",
        );
        self.mark_visited(table.node_id());
        self.check_schema(table.schema())?;
        let plain = insert.with_ctes().is_none()
            && insert.upsert().is_none()
            && insert.returning().is_none();
        let Some(Select::ValuesClause(values)) =
            insert.source().filter(|_| plain && table.alias().is_none())
        else {
            return Err(refused);
        };
        self.mark_visited(values.node_id());
        let mut columns = Vec::new();
        for column in insert.columns().iter().flat_map(ExprList::iter) {
            let Expr::ColumnRef(column) = column else { return Err(refused) };
            self.mark_visited(column.node_id());
            columns.push((
                self.source.name_of(column.column())?,
                self.source.token_range(column.column())?,
            ));
        }
        // `.dump --preserve-rowids` gives the rows' rowids: here they are among those of others.
        let has_place = columns.first().is_some_and(|(column, _)| is_same_name(column, "rowid"));
        if let (true, [(_, place), (_, next), ..]) = (has_place, columns.as_slice()) {
            self.splices.replace(place.start..next.start, "");
        }
        let skipped = usize::from(has_place);
        let is_named = |wanted: &[&str]| {
            let given = columns.iter().skip(skipped).map(|(column, _)| column);
            given.zip(wanted).all(|(column, wanted)| is_same_name(column, wanted))
        };
        if !is_named(&["name", "seq"]) || has_place && columns.len() != 3 {
            return Err(refused);
        }
        for row in values.rows().iter().flat_map(ValuesRowList::iter) {
            // A name that no table has would be reported unchanged.
            let is_free = |name: &str| {
                check_new_name(name).is_ok() && !starts_with_ignore_case(name, "sqlite_")
            };
            let name = row.get(skipped);
            let is_own =
                matches!(name, Some(Expr::Literal(name)) if is_free(&dequote(name.source())));
            if row.len() != 2 + skipped || !is_own {
                return Err(refused);
            }
            if has_place {
                let (Some(Expr::Literal(place)), Some(name)) = (row.get(0), name) else {
                    return Err(refused);
                };
                self.mark_visited(place.node_id());
                let start = self.source.range_of(place.source())?.start;
                self.splices.replace(start..self.source.extent(name.node_id())?.start, "");
            }
            if !self.qualify_sequence_literal(name)? {
                return Err(refused);
            }
            self.visit_optional_expr(row.get(1 + skipped))?;
        }
        self.grants.sequence = true;
        Ok(true)
    }

    /// Whether a table is `sqlite_sequence`, and may be changed as such.
    fn is_sequence(&self, table: TableRef<'w>) -> Result<bool> {
        Ok(!self.stored
            && is_same_name(&self.source.name_of(table.table_name())?, "sqlite_sequence"))
    }

    fn is_sequence_name(&mut self, column: Option<Expr<'w>>) -> Result<bool> {
        let Some(Expr::ColumnRef(column)) = column else { return Ok(false) };
        self.mark_visited(column.node_id());
        Ok(column.table().is_empty()
            && is_same_name(&self.source.name_of(column.column())?, "name"))
    }

    /// Qualifies a literal table name.
    fn qualify_sequence_literal(&mut self, name: Option<Expr<'w>>) -> Result<bool> {
        let Some(Expr::Literal(name)) = name else { return Ok(false) };
        if name.literal_type() != LiteralType::String {
            return Ok(false);
        }
        self.mark_visited(name.node_id());
        let range = self.source.range_of(name.source())?;
        let full = self.prefix.qualify_literal(&dequote(name.source()));
        self.splices.replace(range, full);
        Ok(true)
    }

    /// How many rows a VALUES has.
    pub(super) fn values_rows(source: Option<Select<'w>>) -> Option<ValuesRowList<'w>> {
        match source {
            Some(Select::ValuesClause(values)) => values.rows(),
            _ => None,
        }
    }
}
