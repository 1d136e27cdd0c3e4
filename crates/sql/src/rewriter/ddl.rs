//! Definitions: CREATE, DROP, ALTER, and ANALYZE and REINDEX of one thing.

use super::StatementRewriter;
use super::default_expression::parse_volatile_default;
use super::evaluation::Evaluation;
use super::scope::ScopeItem;
use super::table::table_item;
use crate::allowed::NO_TEMPORARY;
use crate::catalogue::schema_cache::ObjectKind;
use crate::catalogue::triggers::first_trigger_omitting;
use crate::names::{is_same_name, quote, starts_with_ignore_case};
use crate::parsed_source::not_understood_error;
use crate::reserved_names::{check_new_name, check_new_virtual_table};
use debros_proto::{Code, Error, Result};
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{
    AlterOp, AlterTableStmt, AnalyzeOrReindexOp, AnalyzeOrReindexStmt, ColumnConstraintItem,
    ColumnConstraintList, ColumnDef, ColumnDefList, CreateIndexStmt, CreateTableStmt,
    CreateTriggerStmt, CreateViewStmt, Expr, ForeignKeyClause, ForeignKeyOptionList, QualifiedName,
    Stmt, TableConstraint, TableConstraintGroup, TableConstraintItem, TableConstraintList,
    TemporaryQualifier, TriggerCmdList,
};

impl<'w> StatementRewriter<'w> {
    pub(super) fn visit_definition(&mut self, statement: Stmt<'w>) -> Result<()> {
        match statement {
            Stmt::CreateTableStmt(create) => self.visit_create_table(create),
            Stmt::CreateIndexStmt(create) => self.visit_create_index(create),
            Stmt::CreateViewStmt(create) => self.visit_create_view(create),
            Stmt::CreateTriggerStmt(create) => self.visit_create_trigger(create),
            Stmt::CreateVirtualTableStmt(create) => self.visit_create_virtual_table(create),
            Stmt::DropStmt(drop) => {
                self.mark_visited(drop.node_id());
                self.qualify_existing_name(drop.target()).map(|_| ())
            }
            Stmt::AlterTableStmt(alter) => self.visit_alter(alter),
            _ => Err(not_understood_error()),
        }
    }

    /// The name of a new object.
    fn qualify_new_name(
        &mut self,
        name: &'w str,
        schema: &'w str,
        temporary: TemporaryQualifier,
    ) -> Result<String> {
        self.check_schema(schema)?;
        if temporary != TemporaryQualifier::None {
            return Err(Error::new(Code::StatementNotAllowed, NO_TEMPORARY));
        }
        let text = self.source.name_of(name)?;
        check_new_name(&text)?;
        self.qualify_name(name)?;
        Ok(text)
    }

    /// The name of an existing object.
    fn qualify_existing_name(&mut self, name: Option<QualifiedName<'w>>) -> Result<String> {
        let name = name.ok_or_else(not_understood_error)?;
        self.mark_visited(name.node_id());
        if let Some(schema) = name.schema() {
            let schema = self.visit_name(schema)?;
            self.check_schema(schema)?;
        }
        let object = self.visit_name(name.object_name().ok_or_else(not_understood_error)?)?;
        self.qualify_name(object)?;
        self.source.name_of(object)
    }

    /// Visits an expression that belongs to a table, where only the table's columns can be named.
    fn visit_table_expression(
        &mut self,
        table: &str,
        evaluation: Evaluation,
        expression: Option<Expr<'w>>,
    ) -> Result<()> {
        let found = self.inner.schema.find_object(&self.inner.db, table);
        let mut item = table_item(table.to_owned(), table, found.as_ref());
        item.no_alias = true;
        self.with_scope(item, evaluation, |rewriter| rewriter.visit_optional_expr(expression))
    }

    fn with_scope(
        &mut self,
        item: ScopeItem,
        evaluation: Evaluation,
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let before = std::mem::replace(&mut self.evaluation, evaluation);
        self.scopes.push_frame(vec![item]);
        let result = work(self);
        self.scopes.pop_frame();
        self.evaluation = before;
        result
    }

    fn visit_create_table(&mut self, create: CreateTableStmt<'w>) -> Result<()> {
        self.mark_visited(create.node_id());
        let table =
            self.qualify_new_name(create.table_name(), create.schema(), create.temporary())?;
        let mut live = Vec::new();
        for column in create.columns().iter().flat_map(ColumnDefList::iter) {
            live.extend(self.visit_column_def(column, &table)?);
        }
        self.check_triggers(&table, &live)?;
        for group in create.table_constraints().iter().flat_map(TableConstraintList::iter) {
            self.visit_table_constraints(group, &table)?;
        }
        if let Some(select) = create.as_select() {
            self.evaluation = Evaluation::Literal;
            self.visit_select(select)?;
        }
        self.objects.push(table);
        Ok(())
    }

    /// Triggers that are older than a table cannot give its columns non-deterministic values.
    fn check_triggers(&self, table: &str, live: &[String]) -> Result<()> {
        if live.is_empty() {
            return Ok(());
        }
        match first_trigger_omitting(&self.inner.db, table, live) {
            None => Ok(()),
            Some(trigger) => Err(Error::new(
                Code::StatementNotAllowed,
                format!(
                    "the trigger {trigger} inserts into {table} without its columns {}, whose defaults are volatile: \
                     drop the trigger, and make it again after the table",
                    live.join(", ")
                ),
            )),
        }
    }

    /// Returns the column's name if its default is volatile.
    pub(super) fn visit_column_def(
        &mut self,
        column: ColumnDef<'w>,
        table: &str,
    ) -> Result<Option<String>> {
        self.mark_visited(column.node_id());
        let mut name = None;
        if let Some(node) = column.column_name() {
            let text = self.visit_name(node)?;
            // A name may be empty here, `""`: then no token identifies it.
            name = self.source.name_of(text).ok();
        }
        let mut live = false;
        let mut named = false;
        for constraint in column.constraints().iter().flat_map(ColumnConstraintList::iter) {
            match constraint {
                ColumnConstraintItem::ConstraintNameDeclaration(name) => {
                    self.mark_visited(name.node_id());
                    named = true;
                }
                ColumnConstraintItem::ColumnConstraint(constraint) => {
                    self.mark_visited(constraint.node_id());
                    self.visit_table_expression(
                        table,
                        Evaluation::Default,
                        constraint.default_expr(),
                    )?;
                    if let Some(default) = constraint.default_expr() {
                        let extent = self.source.extent(AnyNodeId::from(default.node_id()))?;
                        live |= parse_volatile_default(&self.source.text[extent]).is_some();
                    }
                    self.visit_table_expression(
                        table,
                        Evaluation::Forbidden("a generated column"),
                        constraint.generated_expr(),
                    )?;
                    self.visit_check(table, constraint.check_expr(), named)?;
                    self.visit_foreign_key(constraint.fk_clause())?;
                    named = false;
                }
            }
        }
        Ok(name.filter(|_| live))
    }

    pub(super) fn visit_table_constraints(
        &mut self,
        group: TableConstraintGroup<'w>,
        table: &str,
    ) -> Result<()> {
        let mut named = false;
        for item in group.iter() {
            match item {
                TableConstraintItem::ConstraintNameDeclaration(name) => {
                    self.mark_visited(name.node_id());
                    named = true;
                }
                TableConstraintItem::TableConstraint(constraint) => {
                    self.visit_table_constraint(constraint, table, named)?;
                    named = false;
                }
            }
        }
        Ok(())
    }

    fn visit_table_constraint(
        &mut self,
        constraint: TableConstraint<'w>,
        table: &str,
        named: bool,
    ) -> Result<()> {
        self.mark_visited(constraint.node_id());
        self.visit_order_by(constraint.pk_columns())?;
        self.visit_plain_columns(constraint.fk_columns())?;
        self.visit_check(table, constraint.check_expr(), named)?;
        self.visit_foreign_key(constraint.fk_clause())
    }

    /// SQLite reports a constraint without a name by its text: when the text changes, the old one
    /// becomes its name.
    fn visit_check(
        &mut self,
        table: &str,
        expression: Option<Expr<'w>>,
        named: bool,
    ) -> Result<()> {
        let Some(inner) = expression else {
            return Ok(());
        };
        let before = self.splices.len();
        self.visit_table_expression(
            table,
            Evaluation::Forbidden("a CHECK constraint"),
            expression,
        )?;
        if self.splices.len() == before || named {
            return Ok(());
        }
        let extent = self.source.extent(AnyNodeId::from(inner.node_id()))?;
        let word = self.source.word_before_parentheses(extent.start, "CHECK")?;
        let open = self.source.expect_token(word.end, "(")?;
        let text =
            self.source.text[open.end..self.source.closing_parenthesis(open.start)? - 1].trim();
        self.splices.insert(word.start, format!("CONSTRAINT {} ", quote('"', text)));
        Ok(())
    }

    fn visit_foreign_key(&mut self, clause: Option<ForeignKeyClause<'w>>) -> Result<()> {
        let Some(clause) = clause else {
            return Ok(());
        };
        self.mark_visited(clause.node_id());
        if starts_with_ignore_case(&self.source.name_of(clause.ref_table())?, "sqlite_") {
            let token = self.source.token_range(clause.ref_table())?;
            return Err(self.refuse_at(
                &token,
                "REFERENCES needs a table of the namespace's own, not one of SQLite's",
            ));
        }
        self.qualify_name(clause.ref_table())?;
        self.visit_plain_columns(clause.ref_columns())?;
        for option in clause.options().iter().flat_map(ForeignKeyOptionList::iter) {
            self.mark_visited(option.node_id());
        }
        Ok(())
    }

    fn visit_create_index(&mut self, create: CreateIndexStmt<'w>) -> Result<()> {
        self.mark_visited(create.node_id());
        self.qualify_new_name(create.index_name(), create.schema(), TemporaryQualifier::None)?;
        let table = self.source.name_of(create.table_name())?;
        self.qualify_name(create.table_name())?;
        let found = self.inner.schema.find_object(&self.inner.db, &table);
        let mut item = table_item(table.clone(), &table, found.as_ref());
        item.no_alias = true;
        self.with_scope(item, Evaluation::Forbidden("an index"), |rewriter| {
            rewriter.visit_order_by(create.columns())?;
            rewriter.visit_optional_expr(create.where_clause())
        })?;
        self.objects.push(table);
        Ok(())
    }

    fn visit_create_view(&mut self, create: CreateViewStmt<'w>) -> Result<()> {
        self.mark_visited(create.node_id());
        self.qualify_new_name(create.view_name(), create.schema(), create.temporary())?;
        self.visit_plain_columns(create.column_names())?;
        self.stored = true;
        self.evaluation = Evaluation::View;
        self.visit_select(create.select().ok_or_else(not_understood_error)?)
    }

    fn visit_create_trigger(&mut self, create: CreateTriggerStmt<'w>) -> Result<()> {
        self.mark_visited(create.node_id());
        self.qualify_new_name(create.trigger_name(), create.schema(), create.temporary())?;
        let table = self.qualify_existing_name(create.table())?;
        self.objects.push(table);
        if let Some(event) = create.event() {
            self.mark_visited(event.node_id());
            self.visit_plain_columns(event.columns())?;
        }
        self.stored = true;
        self.evaluation = Evaluation::Trigger;
        self.visit_optional_expr(create.when_expr())?;
        for command in create.body().iter().flat_map(TriggerCmdList::iter) {
            match command {
                Stmt::InsertStmt(insert) => self.visit_insert(insert, true)?,
                Stmt::UpdateStmt(update) => self.visit_update(update, true)?,
                Stmt::DeleteStmt(delete) => self.visit_delete(delete, true)?,
                Stmt::SelectStmt(_)
                | Stmt::CompoundSelect(_)
                | Stmt::ValuesClause(_)
                | Stmt::WithClause(_) => {
                    self.visit_statement_select(command)?;
                }
                _ => return Err(not_understood_error()),
            }
        }
        Ok(())
    }

    fn visit_alter(&mut self, alter: AlterTableStmt<'w>) -> Result<()> {
        self.mark_visited(alter.node_id());
        let table = self.qualify_existing_name(alter.target())?;
        self.objects.push(table.clone());
        if let Some(old) = alter.old_name() {
            self.visit_name(old)?;
        }
        let new = alter.new_name().map(|name| self.visit_name(name)).transpose()?;
        match alter.op() {
            AlterOp::RenameTable => {
                let new = new.ok_or_else(not_understood_error)?;
                let name = self.source.name_of(new)?;
                // The tables in which a virtual table stores its content are renamed with it.
                match self.inner.schema.find_object(&self.inner.db, &table) {
                    Some((ObjectKind::FullText | ObjectKind::Virtual, _)) => {
                        check_new_virtual_table(&name)?
                    }
                    _ => check_new_name(&name)?,
                }
                let columns = self.inner.schema.columns(&self.inner.db, &table);
                let live = columns
                    .iter()
                    .filter(|column| column.volatile_default().is_some())
                    .map(|column| column.name.clone());
                self.check_triggers(&name, &live.collect::<Vec<_>>())?;
                self.qualify_name(new)
            }
            AlterOp::RenameColumn | AlterOp::DropColumn => Ok(()),
            AlterOp::AddColumn => {
                let live = self
                    .visit_column_def(alter.column().ok_or_else(not_understood_error)?, &table)?;
                self.check_triggers(&table, live.as_slice())
            }
        }
    }

    /// Returns whether it changes the catalogue.
    pub(super) fn visit_analyze_or_reindex(
        &mut self,
        statement: AnalyzeOrReindexStmt<'w>,
    ) -> Result<bool> {
        self.mark_visited(statement.node_id());
        let analyze = statement.kind() == AnalyzeOrReindexOp::Analyze;
        let word = if analyze { "ANALYZE" } else { "REINDEX" };
        let name = statement.target_name();
        if name.is_empty() {
            return Err(self.refuse_node(
                statement.node_id(),
                &format!("{word} of everything is not allowed: name a table or an index, as in {word} my_table"),
            ));
        }
        self.check_schema(statement.schema())?;
        let text = self.source.name_of(name)?;
        // ANALYZE takes such a name alone for all of a database.
        let is_database = analyze
            && statement.schema().is_empty()
            && (is_same_name(&text, "main") || is_same_name(&text, "temp"));
        if is_database || !self.is_table_or_index(&text) {
            let token = self.source.token_range(name)?;
            return Err(
                self.refuse_at(&token, &format!("{word} needs the name of a table or an index"))
            );
        }
        self.qualify_name(name)?;
        self.objects.push(text);
        self.grants.statistics = analyze;
        Ok(analyze)
    }

    fn is_table_or_index(&self, name: &str) -> bool {
        let known = self.inner.db.query_row(
            "SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'index') AND lower(name) = lower(?1)
                AND sql IS NOT NULL",
            [name],
            |_| Ok(()),
        );
        known.is_ok()
    }
}
