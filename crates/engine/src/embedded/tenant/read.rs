//! Reading: on a connection that cannot write.

use super::{CallState, StatementPlan, foreign_keys};
use crate::embedded::authorizer::{StatementRights, StatementTraits};
use crate::embedded::config::CallLimits;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::deadline::Stopwatch;
use crate::embedded::execution::{self, ReadAttempt};
use crate::embedded::prepared_statement::refresh_schema_for;
use crate::embedded::result_budget::ResultBudget;
use crate::embedded::statement_run::StatementRun;
use crate::embedded::tenant_schema::Tenant;
use crate::embedded::time_limit::TimeLimit;
use debros_proto::rpc::{Row, Statement, StatementResult, value::Kind};
use debros_proto::{Code, Error, Result};
use debros_sql::{Catalogue, ExecutionTarget, RewrittenStatement, StatementClass};
use std::borrow::Cow;
use std::time::Instant;

/// What became of a statement on the reading side.
#[derive(Debug)]
pub(super) enum TenantRead {
    /// It reads, and this is what it read.
    Done(StatementResult, StatementTraits),
    /// It writes; nothing was run.
    NeedsWriter(StatementPlan),
}

/// The call that a statement belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct TenantCall {
    /// When it came, in milliseconds since the Unix epoch: the time of all of its statements.
    pub(super) now_ms: i64,
    pub(super) time: TimeLimit,
    pub(super) limits: CallLimits,
    pub(super) read_only: bool,
}

impl Tenant {
    /// Rewrites a statement and runs it if it only reads. Takes as long as it may take.
    pub(super) fn read(
        &self,
        conn: &SqliteConnection,
        statement: &Statement,
        call: &TenantCall,
    ) -> Result<TenantRead> {
        let catalogue = self.committed_catalogue();
        let outcome = self.try_read(conn, statement, &catalogue, call);
        // The writer looks by itself for which schema a statement was rewritten.
        if self.is_current(&catalogue) || matches!(outcome, Ok(TenantRead::NeedsWriter(_))) {
            return outcome;
        }
        // The schema changed meanwhile. It may do so again and again: what is read now is as it was
        // between two changes.
        let (catalogue, _snapshot) = self.pin_schema(|| conn.pin_snapshot())?;
        self.try_read(conn, statement, &catalogue, call)
    }

    fn try_read(
        &self,
        conn: &SqliteConnection,
        statement: &Statement,
        catalogue: &Catalogue,
        call: &TenantCall,
    ) -> Result<TenantRead> {
        let rewritten = self.rewriter.rewrite(&statement.sql, catalogue)?;
        let answered = match rewritten.target {
            // What sets a value of the namespace's writes.
            ExecutionTarget::Data | ExecutionTarget::Header(_) => None,
            ExecutionTarget::Catalogue => {
                let mut budget = ResultBudget::new(&call.limits);
                Some(self.ask_catalogue(statement, catalogue, &rewritten, call, &mut budget)?)
            }
            ExecutionTarget::Transaction(setting) => {
                execution::check_argument_count(rewritten.parameters, statement.args.len())?;
                Some(foreign_keys::answer_outside_transaction(setting)?)
            }
        };
        if let Some(result) = answered {
            return Ok(TenantRead::Done(result, StatementTraits::default().with_slow_step()));
        }
        let state = CallState::new(call.now_ms);
        let text = match rewritten.class {
            StatementClass::Read | StatementClass::Write => state.fill_placeholders(&rewritten)?,
            // Its class says all that is learnt of it here.
            StatementClass::Ddl => {
                let traits = StatementTraits::for_schema_change();
                let plan = StatementPlan::new(rewritten, catalogue, traits);
                return Ok(TenantRead::NeedsWriter(plan));
            }
        };
        let tenancy = self.rights_for(&rewritten);
        let run = statement_run(statement, &rewritten, &text, StatementRights::Tenant(&tenancy));
        refresh_schema_for(conn, catalogue.generation())?;
        match execution::run_if_read_only(conn, run, call.time, &call.limits)
            .map_err(|error| self.demangler.demangle_error(error))?
        {
            ReadAttempt::Done(mut result, traits) => {
                self.demangle_result(&rewritten, &mut result);
                Ok(TenantRead::Done(result, traits))
            }
            ReadAttempt::NeedsWriter(traits) => {
                Ok(TenantRead::NeedsWriter(StatementPlan::new(rewritten, catalogue, traits)))
            }
        }
    }

    /// Runs a statement that is known to read, if it is done within some 2,000 steps of SQLite's
    /// machine and some milliseconds since `watch` began. `None`: it was not, or the schema changed
    /// meanwhile.
    pub(super) fn read_quickly(
        &self,
        conn: &SqliteConnection,
        statement: &Statement,
        rewritten: &RewrittenStatement,
        catalogue: &Catalogue,
        call: &TenantCall,
        watch: &Stopwatch,
    ) -> Option<Result<StatementResult>> {
        let text = match CallState::new(call.now_ms).fill_placeholders(rewritten) {
            Ok(text) => text,
            Err(error) => return Some(Err(error)),
        };
        let tenancy = self.rights_for(rewritten);
        let run = statement_run(statement, rewritten, &text, StatementRights::Tenant(&tenancy));
        if let Err(error) = refresh_schema_for(conn, catalogue.generation()) {
            return Some(Err(error));
        }
        let outcome = execution::read_quickly(conn, run, &call.limits, watch)?;
        if !self.is_current(catalogue) {
            return None;
        }
        match outcome {
            Ok(ReadAttempt::Done(mut result, _)) => {
                self.demangle_result(rewritten, &mut result);
                Some(Ok(result))
            }
            Ok(ReadAttempt::NeedsWriter(_)) => None,
            Err(error) => Some(Err(self.demangler.demangle_error(error))),
        }
    }

    /// Answers what is asked about the schema alone.
    pub(super) fn ask_catalogue(
        &self,
        statement: &Statement,
        catalogue: &Catalogue,
        rewritten: &RewrittenStatement,
        call: &TenantCall,
        budget: &mut ResultBudget,
    ) -> Result<StatementResult> {
        execution::check_argument_count(rewritten.parameters, statement.args.len())?;
        let deadline = call.time.deadline.min(Instant::now() + call.time.statement);
        let (rows, bytes) = budget.remaining();
        let found = catalogue.query(&statement.sql, &statement.args, deadline, rows, bytes)?;
        let mut result = StatementResult { columns: found.columns, ..StatementResult::default() };
        for values in found.rows {
            let row = Row { values };
            budget.spend_row(&row)?;
            result.rows.push(row);
        }
        Ok(result)
    }

    /// Takes the prefix out of running text.
    pub(super) fn demangle_result(
        &self,
        rewritten: &RewrittenStatement,
        result: &mut StatementResult,
    ) {
        if !rewritten.tells_names {
            return;
        }
        debros_sql::remove_time_reads(&mut result.rows);
        for value in result.rows.iter_mut().flat_map(|row| &mut row.values) {
            if let Some(Kind::Text(text)) = &mut value.kind
                && let Cow::Owned(reported) = self.demangler.demangle_text(text)
            {
                *text = reported;
            }
        }
    }
}

/// How a connection is to run a rewritten statement.
pub(super) fn statement_run<'a>(
    statement: &'a Statement,
    rewritten: &'a RewrittenStatement,
    text: &'a str,
    rights: StatementRights<'a>,
) -> StatementRun<'a> {
    StatementRun {
        sql: text,
        args: &statement.args,
        rights,
        recurs: !rewritten.is_nondeterministic() && !rewritten.tells_names,
        writes: Some(rewritten.class != StatementClass::Read),
        explains: rewritten.tells_names,
        columns: Some(&rewritten.columns),
    }
}

/// Only a mistake in the engine brings a namespace's statement to another file.
pub(super) fn not_a_namespace_error() -> Error {
    Error::new(Code::Internal, "the statement came to a database that is no namespace's")
}
