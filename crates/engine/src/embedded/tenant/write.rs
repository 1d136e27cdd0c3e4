//! Writing: in the transaction of the writer's thread, for the schema that holds there.

use super::foreign_keys::{self, ForeignKeyMode};
use super::read::{TenantCall, not_a_namespace_error, statement_run};
use super::{CallState, StatementPlan, format};
use crate::embedded::authorizer::{StatementRights, StatementTraits};
use crate::embedded::error_mapping;
use crate::embedded::execution;
use crate::embedded::replication::{RecordedDdl, RecorderMark};
use crate::embedded::result_budget::ResultBudget;
use crate::embedded::tenant_schema::WriterSchema;
use crate::embedded::time_limit::with_time_limit;
use crate::embedded::writer_conn::WriterConnection;
use debros_proto::rpc::{Statement, StatementResult};
use debros_proto::{Code, Error, Result};
use debros_sql::catalogue::{CatalogueChanges, CatalogueEntry};
use debros_sql::counters::{ConnectionCounters, restore_counters};
use debros_sql::dump::DumpTranslator;
use debros_sql::policy::ForeignObjects;
use debros_sql::transaction_pragma::PragmaName;
use debros_sql::{
    Catalogue, ExecutionTarget, ForeignKeys, HeaderField, MOMENT_CLEAR, MOMENT_SET,
    RewrittenStatement, StatementClass, rewrite,
};
use std::sync::Arc;

/// One call's statements on the writer's connection, in order.
pub(super) struct TenantWrite<'c> {
    conn: &'c WriterConnection,
    pub(super) writer_schema: &'c WriterSchema,
    call: TenantCall,
    state: CallState,
    budget: ResultBudget,
    /// What the authorizer saw of the last statement, if that was one that writes rows.
    traits: Option<StatementTraits>,
    /// How references are looked at; `None` in the call of a single statement, which cannot change
    /// it.
    foreign_keys: Option<ForeignKeyMode<'c>>,
    /// The schema as this call has changed it; none before it does.
    entries: Option<Vec<CatalogueEntry>>,
    /// A dump of a sqlite3 shell that the call's statements are, from where it is seen.
    pub(super) dump: Option<DumpTranslator>,
}

/// What a statement on the schema changes.
enum SchemaChange {
    /// The data's alone, as ANALYZE and REINDEX do.
    DataOnly,
    /// The schema, which is this one then.
    NewSchema { after: Box<Catalogue>, entries: Vec<CatalogueEntry>, changes: CatalogueChanges },
}

impl<'c> TenantWrite<'c> {
    /// The work of a transaction call.
    ///
    /// # Errors
    /// `internal` when the connection is not that of a namespace.
    pub(super) fn of_transaction(conn: &'c WriterConnection, call: TenantCall) -> Result<Self> {
        Ok(Self {
            foreign_keys: Some(ForeignKeyMode::new(conn)),
            ..Self::of_statement(conn, call)?
        })
    }

    /// The work of a call of a single statement.
    ///
    /// # Errors
    /// `internal` when the connection is not that of a namespace.
    pub(super) fn of_statement(conn: &'c WriterConnection, call: TenantCall) -> Result<Self> {
        let schema = conn.writer_schema.as_ref().ok_or_else(not_a_namespace_error)?;
        Ok(Self {
            conn,
            writer_schema: schema,
            call,
            state: CallState::new(call.now_ms),
            budget: ResultBudget::new(&call.limits),
            traits: None,
            foreign_keys: None,
            entries: None,
            dump: None,
        })
    }

    /// Runs the next statement. `plan` is used if it is of the schema that holds now.
    pub(super) fn run(
        &mut self,
        statement: &Statement,
        plan: Option<&StatementPlan>,
    ) -> Result<StatementResult> {
        let catalogue = self.writer_schema.catalogue();
        let tenant = self.writer_schema.tenant();
        let rewritten = match plan {
            Some(plan) if plan.generation == catalogue.generation() => Arc::clone(&plan.rewritten),
            // Not remembered: the same text means something else where foreign keys are on.
            _ if self.foreign_keys.as_ref().is_some_and(|references| !references.is_enforced()) => {
                Arc::new(rewrite(&statement.sql, &catalogue, ForeignKeys::Off)?)
            }
            _ => tenant.rewriter.rewrite(&statement.sql, &catalogue)?,
        };
        if self.call.read_only && rewritten.class != StatementClass::Read {
            return Err(execution::read_only_error());
        }
        match rewritten.target {
            ExecutionTarget::Data => (),
            ExecutionTarget::Catalogue => {
                return tenant.ask_catalogue(
                    statement,
                    &catalogue,
                    &rewritten,
                    &self.call,
                    &mut self.budget,
                );
            }
            ExecutionTarget::Transaction(setting) => {
                execution::check_argument_count(rewritten.parameters, statement.args.len())?;
                return match &mut self.foreign_keys {
                    Some(_) if setting.name == PragmaName::WritableSchema => self.set_dump(setting),
                    Some(references) => references.apply_pragma(setting),
                    None => foreign_keys::answer_outside_transaction(setting),
                };
            }
            ExecutionTarget::Header(field) => {
                return self.set_header(statement, &rewritten, field, catalogue);
            }
        }
        let result = if rewritten.class == StatementClass::Ddl {
            self.run_ddl(statement, &rewritten, catalogue)
        } else {
            self.run_on_file(statement, &rewritten)
        };
        result.map_err(|error| tenant.demangler.demangle_error(error))
    }

    /// What the authorizer saw of the last statement, if that was one that writes rows.
    pub(super) fn traits(&self) -> Option<StatementTraits> {
        self.traits
    }

    /// To be called after the last statement of a transaction.
    pub(super) fn finish_transaction(mut self) -> Result<()> {
        self.finish_dump()?;
        let lapsed =
            self.foreign_keys.as_mut().map_or(Ok(false), ForeignKeyMode::restore_default)?;
        if !lapsed {
            return Ok(());
        }
        // What the statements have read is not this one's fault.
        self.budget = ResultBudget::new(&self.call.limits);
        foreign_keys::check_no_violation(
            &self
                .run(&foreign_keys::violation_query(), None)
                .map_err(foreign_keys::check_failed_error)?,
        )
    }

    /// A statement on the schema: made on a copy of the catalogue first, which reports mistakes in
    /// the user's words.
    fn run_ddl(
        &mut self,
        statement: &Statement,
        rewritten: &RewrittenStatement,
        catalogue: Arc<Catalogue>,
    ) -> Result<StatementResult> {
        let Some(change) = self.plan_schema_change(statement, rewritten, catalogue)? else {
            // CREATE … IF NOT EXISTS of what is there, an ALTER that gives a column its own name:
            // nothing is to be done.
            execution::check_argument_count(rewritten.parameters, statement.args.len())?;
            return Ok(StatementResult {
                rows_affected: Some(0),
                last_insert_id: Some(0),
                ..StatementResult::default()
            });
        };
        // The authorizer does not see the new name of a renamed table, nor the parents of a child.
        let foreign = self.count_foreign_objects()?;
        let mark = match &self.conn.recorder {
            Some(recorder) => {
                self.conn.authorizer.set_rights(StatementRights::Internal);
                recorder.savepoint(&self.conn.db).map_err(error_mapping::map_sqlite_error)?
            }
            None => RecorderMark::default(),
        };
        let result = self.run_on_file(statement, rewritten)?;
        if let Some(recorder) = &self.conn.recorder {
            self.conn.authorizer.set_rights(StatementRights::Internal);
            let text = self.state.fill_placeholders(rewritten)?;
            recorder
                .record_ddl(&self.conn.db, mark, &text, RecordedDdl::of(&text))
                .map_err(error_mapping::map_sqlite_error)?;
        }
        if self.count_foreign_objects()? != foreign {
            tracing::error!(
                "a statement made, removed or bound an object outside of its namespace"
            );
            return Err(Error::new(
                Code::StatementNotAllowed,
                "a name in the statement is not allowed",
            ));
        }
        if let SchemaChange::NewSchema { after, entries, changes } = change {
            self.conn.authorizer.set_rights(StatementRights::Internal);
            format::save_changes(&self.conn.db, &changes)
                .map_err(error_mapping::map_sqlite_error)?;
            self.writer_schema.stage(*after);
            self.entries = Some(entries);
        }
        Ok(result)
    }

    /// Sets a value of the namespace's: in the catalogue, which answers with it, and in the file,
    /// which keeps it.
    fn set_header(
        &mut self,
        statement: &Statement,
        rewritten: &RewrittenStatement,
        field: HeaderField,
        catalogue: Arc<Catalogue>,
    ) -> Result<StatementResult> {
        execution::check_argument_count(rewritten.parameters, statement.args.len())?;
        let (entries, after) = self.changed_catalogue(&statement.sql, catalogue)?;
        self.conn.authorizer.set_rights(StatementRights::Internal);
        self.conn
            .db
            .pragma_update(None, field.name(), after.header(field)?)
            .map_err(error_mapping::map_sqlite_error)?;
        if let Some(recorder) = &self.conn.recorder {
            let text = format!("PRAGMA {} = {}", field.name(), after.header(field)?);
            recorder.record_statement(text);
        }
        self.writer_schema.stage(after);
        self.entries = Some(entries);
        Ok(StatementResult::default())
    }

    /// What a statement makes of the schema; `None`: the schema is as it was.
    fn plan_schema_change(
        &mut self,
        statement: &Statement,
        rewritten: &RewrittenStatement,
        catalogue: Arc<Catalogue>,
    ) -> Result<Option<SchemaChange>> {
        if !rewritten.changes_schema {
            return Ok(Some(SchemaChange::DataOnly));
        }
        let (before, after) = self.changed_catalogue(&statement.sql, catalogue)?;
        let entries = after.entries()?;
        let changes = CatalogueChanges::between(&before, &entries);
        if !changes.is_empty() {
            return Ok(Some(SchemaChange::NewSchema { after: Box::new(after), entries, changes }));
        }
        // It may have been taken from there, to be changed in place.
        if self.entries.is_some() {
            self.writer_schema.stage(after);
        }
        // ANALYZE makes its table the first time, and fills it each time.
        Ok(rewritten.grants.statistics.then_some(SchemaChange::DataOnly))
    }

    /// The list before a change, and the catalogue after it. What this call made already is changed
    /// in place, because a copy costs as much as the whole schema. When anything fails afterwards
    /// the call fails, and the writer goes back to what was before it.
    fn changed_catalogue(
        &self,
        sql: &str,
        catalogue: Arc<Catalogue>,
    ) -> Result<(Vec<CatalogueEntry>, Catalogue)> {
        let before = match &self.entries {
            Some(entries) => entries.clone(),
            None => catalogue.entries()?,
        };
        if self.entries.is_some() {
            self.writer_schema.rollback_to(None);
        }
        let mut copy = match Arc::try_unwrap(catalogue) {
            Ok(own) => own,
            Err(shared) => shared.fork()?,
        };
        copy.apply(sql)?;
        Ok((before, copy))
    }

    fn run_on_file(
        &mut self,
        statement: &Statement,
        rewritten: &RewrittenStatement,
    ) -> Result<StatementResult> {
        let tenant = self.writer_schema.tenant();
        if rewritten.needs_moment {
            let now = self.state.timestamp();
            self.run_internal(MOMENT_SET, |set| set.execute([now]))?;
        }
        // A CREATE VIRTUAL TABLE may change them, and a later statement of the call asks.
        let defines = rewritten.class == StatementClass::Ddl && self.foreign_keys.is_some();
        if rewritten.reads_counters || defines {
            self.restore_counters()?;
        }
        let are_own = ConnectionCounters::of(&self.conn.db) == self.state.counters;
        let text = self.state.fill_placeholders(rewritten)?;
        let tenancy = tenant.rights_for(rewritten);
        let run = statement_run(statement, rewritten, &text, StatementRights::Tenant(&tenancy));
        let wrote =
            execution::run_in_transaction(self.conn, run, self.call.time, false, &mut self.budget)?;
        let mut result = wrote.result;
        self.traits = (rewritten.class == StatementClass::Write).then(|| {
            if rewritten.returning { wrote.traits.with_returned_rows() } else { wrote.traits }
        });
        let now = ConnectionCounters::of(&self.conn.db);
        if are_own {
            self.state.counters = now;
        } else if rewritten.class == StatementClass::Write {
            self.state.counters.changes = now.changes;
            // SQLite keeps the number where nothing was inserted.
            if wrote.traits.inserts_rows()
                && let Some(rowid) = self.conn.last_inserted_rowid()
            {
                self.state.counters.last_insert_rowid = rowid;
            }
        }
        if rewritten.needs_moment {
            self.run_internal(MOMENT_CLEAR, |clear| clear.execute([]))?;
        }
        tenant.demangle_result(rewritten, &mut result);
        Ok(result)
    }

    /// Brings the connection, which others use too, to what this call's own statements have made of
    /// its counters.
    fn restore_counters(&self) -> Result<()> {
        self.conn.authorizer.set_rights(StatementRights::Internal);
        with_time_limit(self.conn, self.call.time, || {
            restore_counters(&self.conn.db, self.state.counters)
                .map_err(error_mapping::map_sqlite_error)
        })
    }

    fn count_foreign_objects(&self) -> Result<ForeignObjects> {
        self.conn.authorizer.set_rights(StatementRights::Internal);
        ForeignObjects::count(&self.conn.db, &self.writer_schema.tenant().namespace)
            .map_err(error_mapping::map_sqlite_error)
    }

    fn run_internal(
        &self,
        sql: &str,
        act: impl FnOnce(&mut rusqlite::CachedStatement<'_>) -> rusqlite::Result<usize>,
    ) -> Result<()> {
        self.conn.authorizer.set_rights(StatementRights::Internal);
        self.conn
            .db
            .prepare_cached(sql)
            .and_then(|mut statement| act(&mut statement))
            .map_err(error_mapping::map_sqlite_error)
            .map(|_| ())
    }
}
