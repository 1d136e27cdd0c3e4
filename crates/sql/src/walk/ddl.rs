//! Definitions: CREATE, DROP, ALTER, and ANALYZE and REINDEX of one thing.

use super::Walk;
use super::clock::Clock;
use super::default::live_default;
use super::scope::Item;
use super::table::own_item;
use crate::allowed::NO_TEMPORARY;
use crate::catalogue::schema::Kind;
use crate::catalogue::triggers::omitting;
use crate::names::{quote, same, starts_with};
use crate::reserved_names::{check_new, check_new_virtual};
use crate::source::not_understood;
use debros_proto::{Code, Error, Result};
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{
    AlterOp, AlterTableStmt, AnalyzeOrReindexOp, AnalyzeOrReindexStmt, ColumnConstraintItem, ColumnConstraintList,
    ColumnDef, ColumnDefList, CreateIndexStmt, CreateTableStmt, CreateTriggerStmt, CreateViewStmt, Expr,
    ForeignKeyClause, ForeignKeyOptionList, QualifiedName, Stmt, TableConstraint, TableConstraintGroup,
    TableConstraintItem, TableConstraintList, TemporaryQualifier, TriggerCmdList,
};

impl<'w> Walk<'w> {
    pub(super) fn definition(&mut self, statement: Stmt<'w>) -> Result<()> {
        match statement {
            Stmt::CreateTableStmt(create) => self.create_table(create),
            Stmt::CreateIndexStmt(create) => self.create_index(create),
            Stmt::CreateViewStmt(create) => self.create_view(create),
            Stmt::CreateTriggerStmt(create) => self.create_trigger(create),
            Stmt::CreateVirtualTableStmt(create) => self.create_virtual_table(create),
            Stmt::DropStmt(drop) => {
                self.understand(drop.node_id());
                self.qualified(drop.target()).map(|_| ())
            }
            Stmt::AlterTableStmt(alter) => self.alter(alter),
            _ => Err(not_understood()),
        }
    }

    /// The name of something that is made.
    fn new_name(&mut self, name: &'w str, schema: &'w str, temporary: TemporaryQualifier) -> Result<String> {
        self.check_schema(schema)?;
        if temporary != TemporaryQualifier::None {
            return Err(Error::new(Code::StatementNotAllowed, NO_TEMPORARY));
        }
        let text = self.source.name(name)?;
        check_new(&text)?;
        self.move_name(name)?;
        Ok(text)
    }

    /// The name of something that is there.
    fn qualified(&mut self, name: Option<QualifiedName<'w>>) -> Result<String> {
        let name = name.ok_or_else(not_understood)?;
        self.understand(name.node_id());
        if let Some(schema) = name.schema() {
            let schema = self.name_node(schema)?;
            self.check_schema(schema)?;
        }
        let object = self.name_node(name.object_name().ok_or_else(not_understood)?)?;
        self.move_name(object)?;
        self.source.name(object)
    }

    /// Walks an expression that belongs to a table, where nothing but the table's columns can be named.
    fn of_table(&mut self, table: &str, clock: Clock, expression: Option<Expr<'w>>) -> Result<()> {
        let found = self.inner.schema.find(&self.inner.db, table);
        let mut item = own_item(table.to_owned(), table, found.as_ref());
        item.bare = true;
        self.in_frame(item, clock, |walk| walk.maybe(expression))
    }

    fn in_frame(&mut self, item: Item, clock: Clock, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let before = std::mem::replace(&mut self.clock, clock);
        self.scopes.push(vec![item]);
        let result = work(self);
        self.scopes.pop();
        self.clock = before;
        result
    }

    fn create_table(&mut self, create: CreateTableStmt<'w>) -> Result<()> {
        self.understand(create.node_id());
        let table = self.new_name(create.table_name(), create.schema(), create.temporary())?;
        let mut live = Vec::new();
        for column in create.columns().iter().flat_map(ColumnDefList::iter) {
            live.extend(self.column_def(column, &table)?);
        }
        self.check_triggers(&table, &live)?;
        for group in create.table_constraints().iter().flat_map(TableConstraintList::iter) {
            self.table_constraints(group, &table)?;
        }
        if let Some(select) = create.as_select() {
            self.clock = Clock::Slots;
            self.select(select)?;
        }
        self.objects.push(table);
        Ok(())
    }

    /// Triggers that were there before a table can not give its columns the value of the moment.
    fn check_triggers(&self, table: &str, live: &[String]) -> Result<()> {
        if live.is_empty() {
            return Ok(());
        }
        match omitting(&self.inner.db, table, live) {
            None => Ok(()),
            Some(trigger) => Err(Error::new(
                Code::StatementNotAllowed,
                format!(
                    "the trigger {trigger} inserts into {table} without its columns {}, whose defaults are of the moment: \
                     drop the trigger, and make it again after the table",
                    live.join(", ")
                ),
            )),
        }
    }

    /// Returns the column's name when its default is of the moment.
    pub(super) fn column_def(&mut self, column: ColumnDef<'w>, table: &str) -> Result<Option<String>> {
        self.understand(column.node_id());
        let mut name = None;
        if let Some(node) = column.column_name() {
            let text = self.name_node(node)?;
            // A name may be empty here, `""`: then it has no token to be found by.
            name = self.source.name(text).ok();
        }
        let mut live = false;
        let mut named = false;
        for constraint in column.constraints().iter().flat_map(ColumnConstraintList::iter) {
            match constraint {
                ColumnConstraintItem::ConstraintNameDeclaration(name) => {
                    self.understand(name.node_id());
                    named = true;
                }
                ColumnConstraintItem::ColumnConstraint(constraint) => {
                    self.understand(constraint.node_id());
                    self.of_table(table, Clock::Default, constraint.default_expr())?;
                    if let Some(default) = constraint.default_expr() {
                        let extent = self.source.extent(AnyNodeId::from(default.node_id()))?;
                        live |= live_default(&self.source.text[extent]).is_some();
                    }
                    self.of_table(table, Clock::Never("a generated column"), constraint.generated_expr())?;
                    self.check(table, constraint.check_expr(), named)?;
                    self.foreign_key(constraint.fk_clause())?;
                    named = false;
                }
            }
        }
        Ok(name.filter(|_| live))
    }

    pub(super) fn table_constraints(&mut self, group: TableConstraintGroup<'w>, table: &str) -> Result<()> {
        let mut named = false;
        for item in group.iter() {
            match item {
                TableConstraintItem::ConstraintNameDeclaration(name) => {
                    self.understand(name.node_id());
                    named = true;
                }
                TableConstraintItem::TableConstraint(constraint) => {
                    self.table_constraint(constraint, table, named)?;
                    named = false;
                }
            }
        }
        Ok(())
    }

    fn table_constraint(&mut self, constraint: TableConstraint<'w>, table: &str, named: bool) -> Result<()> {
        self.understand(constraint.node_id());
        self.order_by(constraint.pk_columns())?;
        self.plain_columns(constraint.fk_columns())?;
        self.check(table, constraint.check_expr(), named)?;
        self.foreign_key(constraint.fk_clause())
    }

    /// SQLite tells a constraint without a name by its text: when the text changes, the old one becomes its name.
    fn check(&mut self, table: &str, expression: Option<Expr<'w>>, named: bool) -> Result<()> {
        let Some(inner) = expression else {
            return Ok(());
        };
        let before = self.edits.len();
        self.of_table(table, Clock::Never("a CHECK constraint"), expression)?;
        if self.edits.len() == before || named {
            return Ok(());
        }
        let extent = self.source.extent(AnyNodeId::from(inner.node_id()))?;
        let word = self.source.word_before_parentheses(extent.start, "CHECK")?;
        let open = self.source.expect(word.end, "(")?;
        let text = self.source.text[open.end..self.source.closing(open.start)? - 1].trim();
        self.edits.insert(word.start, format!("CONSTRAINT {} ", quote('"', text)));
        Ok(())
    }

    fn foreign_key(&mut self, clause: Option<ForeignKeyClause<'w>>) -> Result<()> {
        let Some(clause) = clause else {
            return Ok(());
        };
        self.understand(clause.node_id());
        if starts_with(&self.source.name(clause.ref_table())?, "sqlite_") {
            let token = self.source.token(clause.ref_table())?;
            return Err(self.refuse_at(&token, "REFERENCES needs a table of the namespace's own, not one of SQLite's"));
        }
        self.move_name(clause.ref_table())?;
        self.plain_columns(clause.ref_columns())?;
        for option in clause.options().iter().flat_map(ForeignKeyOptionList::iter) {
            self.understand(option.node_id());
        }
        Ok(())
    }

    fn create_index(&mut self, create: CreateIndexStmt<'w>) -> Result<()> {
        self.understand(create.node_id());
        self.new_name(create.index_name(), create.schema(), TemporaryQualifier::None)?;
        let table = self.source.name(create.table_name())?;
        self.move_name(create.table_name())?;
        let found = self.inner.schema.find(&self.inner.db, &table);
        let mut item = own_item(table.clone(), &table, found.as_ref());
        item.bare = true;
        self.in_frame(item, Clock::Never("an index"), |walk| {
            walk.order_by(create.columns())?;
            walk.maybe(create.where_clause())
        })?;
        self.objects.push(table);
        Ok(())
    }

    fn create_view(&mut self, create: CreateViewStmt<'w>) -> Result<()> {
        self.understand(create.node_id());
        self.new_name(create.view_name(), create.schema(), create.temporary())?;
        self.plain_columns(create.column_names())?;
        self.stored = true;
        self.clock = Clock::View;
        self.select(create.select().ok_or_else(not_understood)?)
    }

    fn create_trigger(&mut self, create: CreateTriggerStmt<'w>) -> Result<()> {
        self.understand(create.node_id());
        self.new_name(create.trigger_name(), create.schema(), create.temporary())?;
        let table = self.qualified(create.table())?;
        self.objects.push(table);
        if let Some(event) = create.event() {
            self.understand(event.node_id());
            self.plain_columns(event.columns())?;
        }
        self.stored = true;
        self.clock = Clock::Trigger;
        self.maybe(create.when_expr())?;
        for command in create.body().iter().flat_map(TriggerCmdList::iter) {
            match command {
                Stmt::InsertStmt(insert) => self.insert(insert, true)?,
                Stmt::UpdateStmt(update) => self.update(update, true)?,
                Stmt::DeleteStmt(delete) => self.delete(delete, true)?,
                Stmt::SelectStmt(_) | Stmt::CompoundSelect(_) | Stmt::ValuesClause(_) | Stmt::WithClause(_) => {
                    self.statement_select(command)?;
                }
                _ => return Err(not_understood()),
            }
        }
        Ok(())
    }

    fn alter(&mut self, alter: AlterTableStmt<'w>) -> Result<()> {
        self.understand(alter.node_id());
        let table = self.qualified(alter.target())?;
        self.objects.push(table.clone());
        if let Some(old) = alter.old_name() {
            self.name_node(old)?;
        }
        let new = alter.new_name().map(|name| self.name_node(name)).transpose()?;
        match alter.op() {
            AlterOp::RenameTable => {
                let new = new.ok_or_else(not_understood)?;
                let name = self.source.name(new)?;
                // What a virtual table keeps its content in is renamed with it.
                match self.inner.schema.find(&self.inner.db, &table) {
                    Some((Kind::FullText | Kind::Virtual, _)) => check_new_virtual(&name)?,
                    _ => check_new(&name)?,
                }
                let columns = self.inner.schema.columns(&self.inner.db, &table);
                let live =
                    columns.iter().filter(|column| column.live_default().is_some()).map(|column| column.name.clone());
                self.check_triggers(&name, &live.collect::<Vec<_>>())?;
                self.move_name(new)
            }
            AlterOp::RenameColumn | AlterOp::DropColumn => Ok(()),
            AlterOp::AddColumn => {
                let live = self.column_def(alter.column().ok_or_else(not_understood)?, &table)?;
                self.check_triggers(&table, live.as_slice())
            }
        }
    }

    /// Says whether the catalogue changes by it.
    pub(super) fn analyze_or_reindex(&mut self, statement: AnalyzeOrReindexStmt<'w>) -> Result<bool> {
        self.understand(statement.node_id());
        let analyze = statement.kind() == AnalyzeOrReindexOp::Analyze;
        let word = if analyze { "ANALYZE" } else { "REINDEX" };
        let name = statement.target_name();
        if name.is_empty() {
            return Err(self.refuse(
                statement.node_id(),
                &format!("{word} of everything is not allowed: name a table or an index, as in {word} my_table"),
            ));
        }
        self.check_schema(statement.schema())?;
        let text = self.source.name(name)?;
        // ANALYZE takes such a name alone for all of a database.
        let is_database = analyze && statement.schema().is_empty() && (same(&text, "main") || same(&text, "temp"));
        if is_database || !self.is_table_or_index(&text) {
            let token = self.source.token(name)?;
            return Err(self.refuse_at(&token, &format!("{word} needs the name of a table or an index")));
        }
        self.move_name(name)?;
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
