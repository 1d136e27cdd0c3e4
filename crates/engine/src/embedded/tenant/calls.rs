//! The calls of the engine that run a namespace's statements.

use super::StatementPlan;
use super::read::{TenantCall, TenantRead};
use super::write::TenantWrite;
use crate::embedded::EmbeddedEngine;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::database_handle::DatabaseHandle;
use crate::embedded::deadline::{ElapsedTime, Stopwatch};
use crate::embedded::execution;
use crate::embedded::idempotency::{self, RecordFile};
use crate::embedded::job::JobIsolation;
use crate::embedded::sql_write_options::{
    JOB_BYTES, sql_write_options, statement_bytes, transaction_write_options,
};
use crate::embedded::tenant_schema::Tenant;
use crate::embedded::time_limit::TimeLimit;
use crate::embedded::verdict_cache::{BRIEF_TIME, CachedVerdict};
use crate::{CallOptions, WriteOutcome};
use debros_proto::rpc::{Statement, StatementResult, Table};
use debros_proto::{Code, Error, Namespace, Result, now_ms};
use debros_sql::transaction_pragma::may_hold_pragma;
use debros_sql::{ExecutionTarget, StatementClass};
use std::sync::Arc;
use std::time::Instant;

/// Bytes of the longest text that goes to the writer before it is rewritten.
const MAX_DIRECT_WRITE: usize = 16 << 10;

impl EmbeddedEngine {
    /// One statement of a namespace.
    pub(in crate::embedded) async fn tenant_query(
        &self,
        namespace: &Namespace,
        mut statement: Statement,
        options: CallOptions,
    ) -> Result<WriteOutcome<StatementResult>> {
        let (database, tenant) = self.open_tenant(namespace).await?;
        strip_empty_statements(&mut statement);
        let call = self.new_call(&options);
        let known = database.verdicts().cached_verdict(&statement.sql);
        // What is slow is rewritten where it runs, if it has to be.
        let cached =
            known.filter(|known| !matches!(known, CachedVerdict::Slow)).and_then(|known| {
                let catalogue = tenant.catalogue();
                let rewritten = tenant.rewriter.find_cached(&statement.sql, &catalogue)?;
                Some((known, catalogue, rewritten))
            });
        let (mut plan, mut may_learn) = (None, true);
        match cached {
            Some((CachedVerdict::Writes(traits), catalogue, rewritten))
                if rewritten.class != StatementClass::Read =>
            {
                plan = Some(StatementPlan::new(rewritten, &catalogue, traits));
            }
            Some((CachedVerdict::Quick, catalogue, rewritten))
                if rewritten.target == ExecutionTarget::Data
                    && Instant::now() < options.deadline =>
            {
                let watch = Stopwatch::start_roughly();
                let read = |conn: &_| {
                    tenant.read_quickly(conn, &statement, &rewritten, &catalogue, &call, &watch)
                };
                let outcome =
                    database.read_on_this_thread(|conn| database.span().in_scope(|| read(conn)))?;
                let by_clock = watch.by_clock();
                database.verdicts().note_inline_time(&statement.sql, by_clock, || watch.elapsed());
                if let Some(outcome) = outcome {
                    let result = outcome?;
                    self.databases.shared.metrics.sql_read.record(by_clock.as_secs_f64());
                    return Ok(WriteOutcome { value: result, replayed: false });
                }
                // Compiling it may take longer than running it does. It is tried again, but not
                // each time.
                database.verdicts().remember_verdict(&statement.sql, None);
                may_learn = false;
            }
            _ => {}
        }
        // One decision: what always writes needs no query thread to find that out.
        if plan.is_none() && !always_writes(&statement.sql) {
            let (tried, outcome, took) = self
                .read_on_query_thread(&database, &tenant, statement, known, call, &options)
                .await?;
            statement = tried;
            plan = match outcome {
                Ok(TenantRead::Done(result, traits)) => {
                    if may_learn {
                        database.verdicts().remember_read_time(&statement.sql, known, traits, took);
                    }
                    return Ok(WriteOutcome { value: result, replayed: false });
                }
                Ok(TenantRead::NeedsWriter(plan)) => {
                    database
                        .verdicts()
                        .remember_verdict(&statement.sql, Some(CachedVerdict::Writes(plan.traits)));
                    Some(plan)
                }
                // A keyed CREATE or DROP that was done before no longer compiles: the writer knows
                // its answer.
                Err(error) if error.code == Code::Sql && options.idempotency_key.is_some() => None,
                Err(error) => return Err(error),
            };
        }
        if options.read_only {
            return Err(execution::read_only_error());
        }
        self.tenant_write(&database, statement, plan, call, options).await
    }

    /// Runs a statement that may read on a query thread. When it would wait for others, it is tried
    /// for a moment on the thread that is kept for what is quick, unless it is known not to be;
    /// what is not done then waits for its turn.
    async fn read_on_query_thread(
        &self,
        database: &DatabaseHandle,
        tenant: &Arc<Tenant>,
        mut statement: Statement,
        known: Option<CachedVerdict>,
        call: TenantCall,
        options: &CallOptions,
    ) -> Result<(Statement, Result<TenantRead>, ElapsedTime)> {
        let bytes = statement_bytes(&statement);
        let (metrics, tenant) = (Arc::clone(&self.databases.shared.metrics), Arc::clone(tenant));
        let read = move |conn: &SqliteConnection, statement: &Statement, time: TimeLimit| {
            let watch = Stopwatch::start();
            let outcome = tenant.read(conn, statement, &TenantCall { time, ..call });
            let took = watch.elapsed();
            metrics.sql_read.record(took.by_clock.as_secs_f64());
            (outcome, took)
        };
        let verdicts = database.verdicts();
        if call.time.statement > BRIEF_TIME
            && !matches!(known, Some(CachedVerdict::Slow))
            && database.would_wait(options.caller)
        {
            let (verdicts_then, read) = (Arc::clone(verdicts), read.clone());
            let act = move |conn: &_, time| {
                // Another of the same text was tried while this waited.
                if verdicts_then.is_slow(&statement.sql) {
                    return Ok((statement, None));
                }
                let time = TimeLimit { statement: time, by_processor: true, ..call.time };
                let tried = read(conn, &statement, time);
                Ok((statement, Some(tried)))
            };
            let (tried, outcome) =
                database.read_briefly(options.caller, bytes, options.deadline, act).await?;
            match outcome {
                None => {}
                Some((Err(error), took)) if error.code == Code::StatementTimeout => {
                    verdicts.note_broken_off(&tried.sql, took);
                }
                Some((outcome, took)) => return Ok((tried, outcome, took)),
            }
            statement = tried;
        }
        let act = move |conn: &_| {
            let (outcome, took) = read(conn, &statement, call.time);
            Ok((statement, outcome, took))
        };
        database.read(options.caller, bytes, options.deadline, act).await
    }

    async fn tenant_write(
        &self,
        database: &DatabaseHandle,
        statement: Statement,
        plan: Option<StatementPlan>,
        call: TenantCall,
        options: CallOptions,
    ) -> Result<WriteOutcome<StatementResult>> {
        database.check_undamaged()?;
        let removes = plan.as_ref().is_some_and(|plan| plan.traits.only_removes());
        let mut write = sql_write_options(removes, statement_bytes(&statement), &options);
        let simple = plan
            .as_ref()
            .is_some_and(|plan| plan.traits.is_self_atomic() && !plan.rewritten.needs_moment);
        if simple && options.idempotency_key.is_none() {
            write.isolation = JobIsolation::StatementAtomic;
        }
        let key_guard = self.lock_idempotency_key(&options, RecordFile::Namespace).await?;
        let idempotency_key = options.idempotency_key;
        let new_text = plan.is_none().then(|| statement.sql.clone());
        let (outcome, traits) = database
            .write(write, move |conn| {
                let _key_guard = &key_guard;
                let mut traits = None;
                let outcome = idempotency::run_statement_once(
                    conn,
                    RecordFile::Namespace,
                    idempotency_key.as_ref(),
                    |conn| {
                        let mut work = TenantWrite::of_statement(conn, call)?;
                        let result = work.run(&statement, plan.as_ref())?;
                        traits = work.traits();
                        Ok(result)
                    },
                )?;
                Ok((outcome, traits))
            })
            .await?;
        if let (Some(sql), Some(traits)) = (new_text, traits) {
            database.verdicts().remember_verdict(&sql, Some(CachedVerdict::Writes(traits)));
        }
        Ok(outcome)
    }

    /// Several statements of a namespace, all or none.
    pub(in crate::embedded) async fn tenant_transaction(
        &self,
        namespace: &Namespace,
        mut statements: Vec<Statement>,
        options: CallOptions,
    ) -> Result<WriteOutcome<Vec<StatementResult>>> {
        statements.iter_mut().for_each(strip_empty_statements);
        let (database, _) = self.open_tenant(namespace).await?;
        database.check_undamaged()?;
        let call = self.new_call(&options);
        let mut write = transaction_write_options(&database, &statements, &options);
        if statements.iter().any(|statement| may_hold_pragma(&statement.sql)) {
            write.isolation = JobIsolation::OwnTransaction;
        }
        let key_guard = self.lock_idempotency_key(&options, RecordFile::Namespace).await?;
        let idempotency_key = options.idempotency_key;
        database
            .write(write, move |conn| {
                let _key_guard = &key_guard;
                idempotency::run_statements_once(
                    conn,
                    RecordFile::Namespace,
                    idempotency_key.as_ref(),
                    |conn| {
                        let mut work = TenantWrite::of_transaction(conn, call)?;
                        let run = |(index, statement)| {
                            work.run_next(statement)
                                .map_err(|error: Error| error.at_statement(index))
                        };
                        let results =
                            statements.iter().enumerate().map(run).collect::<Result<_>>()?;
                        work.finish_transaction()?;
                        Ok(results)
                    },
                )
            })
            .await
    }

    /// The tables of a namespace.
    pub(in crate::embedded) async fn tenant_schema(
        &self,
        namespace: &Namespace,
        options: &CallOptions,
    ) -> Result<Vec<Table>> {
        let (database, tenant) = self.open_tenant(namespace).await?;
        // Not here: a compilation that takes long holds the catalogue meanwhile.
        database
            .read_or_try_briefly(options.caller, JOB_BYTES, options.deadline, move |_, _| {
                tenant.catalogue().tables()
            })
            .await
    }

    pub(in crate::embedded) async fn open_tenant(
        &self,
        namespace: &Namespace,
    ) -> Result<(Arc<DatabaseHandle>, Arc<Tenant>)> {
        let database = self.databases.open_or_create(namespace).await?;
        let tenant = database.tenant().cloned().ok_or_else(super::read::not_a_namespace_error)?;
        Ok((database, tenant))
    }

    fn new_call(&self, options: &CallOptions) -> TenantCall {
        TenantCall {
            now_ms: now_ms(),
            time: self.time_limit(options),
            limits: self.call_limits(),
            read_only: options.read_only,
        }
    }
}

/// Whether a text can only write, whatever the schema is. It goes to the writer at once, which
/// rewrites it anyway for the schema that it meets. Nothing that the reading side finds out is
/// missing then: such a statement never only removes, so it has no claim to the reserve, and a
/// savepoint stands for what is not known of its triggers. DELETE does have that claim, and a WITH
/// may read. A long text is a bulk load, whose rewriting would keep the writer from others.
fn always_writes(sql: &str) -> bool {
    const WRITING: [&str; 3] = ["INSERT", "REPLACE", "UPDATE"];
    let is_writing = |word: &str| WRITING.iter().any(|other| word.eq_ignore_ascii_case(other));
    sql.len() <= MAX_DIRECT_WRITE && debros_proto::sql::tokens(sql).next().is_some_and(is_writing)
}

/// Takes away the semicolons before and behind a statement, each of which ends a statement without
/// words. Those before it become blanks, so that an error has its place in the text that was sent.
fn strip_empty_statements(statement: &mut Statement) {
    let is_empty = |sign: char| sign == ';' || sign.is_ascii_whitespace();
    let sql = &statement.sql;
    let start = sql.len() - sql.trim_start_matches(is_empty).len();
    let end = sql.trim_end_matches(is_empty).len();
    // A text of nothing but these is refused with its own words.
    if start >= end {
        return;
    }
    if sql[end..].contains(';') {
        statement.sql.truncate(end);
    }
    if statement.sql[..start].contains(';') {
        let blanks = statement.sql[..start].replace(';', " ");
        statement.sql.replace_range(..start, &blanks);
    }
}

#[cfg(test)]
mod tests {
    use super::strip_empty_statements;
    use debros_proto::rpc::Statement;

    #[test]
    fn semicolons_around_a_statement_go_and_its_place_stays() {
        for (sent, left) in [
            (";\n;\nselect foo from t", " \n \nselect foo from t"),
            (" ; select 1 ; ;", "   select 1"),
            ("select ';'", "select ';'"),
            (";;", ";;"),
        ] {
            let mut statement = Statement { sql: sent.to_owned(), ..Statement::default() };
            strip_empty_statements(&mut statement);
            assert_eq!(statement.sql, left);
        }
    }
}
