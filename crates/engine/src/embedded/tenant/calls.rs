//! The calls of the engine that run a namespace's statements.

use super::read::{Answer, Call};
use super::write::Work;
use super::{Plan, Tenant};
use crate::embedded::conn::Conn;
use crate::embedded::deadline::{Stopwatch, Took};
use crate::embedded::guard::{self, Target};
use crate::embedded::job::Undo;
use crate::embedded::sql::{self, Time};
use crate::embedded::store::Store;
use crate::embedded::verdict_cache::{BRIEF_TIME, Known};
use crate::embedded::{Embedded, JOB_BYTES, sql_write, statement_bytes};
use crate::{CallOptions, Written};
use debros_proto::rpc::{Statement, StatementResult, Table};
use debros_proto::{Code, Error, Namespace, Result, now_ms};
use debros_sql::setting::may_set;
use debros_sql::{Class, Place};
use std::sync::Arc;
use std::time::Instant;

impl Embedded {
    /// One statement of a namespace.
    pub(in crate::embedded) async fn tenant_query(
        &self,
        namespace: &Namespace,
        mut statement: Statement,
        options: CallOptions,
    ) -> Result<Written<StatementResult>> {
        let (store, tenant) = self.tenant(namespace).await?;
        without_empty(&mut statement);
        let call = self.call(&options);
        let known = store.verdicts().known(&statement.sql);
        let (mut plan, mut may_learn) = (None, true);
        if let Some(known) = known {
            let catalogue = tenant.catalogue();
            if let Some(rewritten) = tenant.rewriter.recall(&statement.sql, &catalogue) {
                match known {
                    Known::Writes(facts) if rewritten.class != Class::Read => {
                        plan = Some(Plan { rewritten, generation: catalogue.generation(), facts });
                    }
                    Known::Quick if rewritten.place == Place::Data && Instant::now() < options.deadline => {
                        let watch = Stopwatch::start_roughly();
                        let read =
                            |conn: &_| tenant.read_quickly(conn, &statement, &rewritten, &catalogue, &call, &watch);
                        let outcome = store.read_here(|conn| store.span().in_scope(|| read(conn)))?;
                        let by_clock = watch.by_clock();
                        store.verdicts().took_here(&statement.sql, by_clock, || watch.took());
                        if let Some(outcome) = outcome {
                            let result = outcome?;
                            self.stores.shared.metrics.sql_read.record(by_clock.as_secs_f64());
                            return Ok(Written { value: result, replayed: false });
                        }
                        // Compiling it may take longer than running it does. It is tried again, but not each time.
                        store.verdicts().note(&statement.sql, None);
                        may_learn = false;
                    }
                    Known::Writes(_) | Known::Quick | Known::Slow => {}
                }
            }
        }
        if plan.is_none() {
            let (tried, outcome, took) = self.read_in_turn(&store, &tenant, statement, call, &options).await?;
            statement = tried;
            plan = match outcome {
                Ok(Answer::Read(result, facts)) => {
                    if may_learn {
                        store.verdicts().note_read(&statement.sql, known, facts, took);
                    }
                    return Ok(Written { value: result, replayed: false });
                }
                Ok(Answer::Writes(plan)) => {
                    store.verdicts().note(&statement.sql, Some(Known::Writes(plan.facts)));
                    Some(plan)
                }
                // A guarded CREATE or DROP that was done before no longer compiles: the writer knows its answer.
                Err(error) if error.code == Code::Sql && options.guard.is_some() => None,
                Err(error) => return Err(error),
            };
        }
        if options.read_only {
            return Err(sql::forbidden());
        }
        self.tenant_write(&store, statement, plan, call, options).await
    }

    /// Runs a statement that may read on a query thread. When it would wait for others, it is tried for a moment on the thread
    /// that is kept for what is quick, unless it is known not to be; what is not done then waits for its turn.
    async fn read_in_turn(
        &self,
        store: &Store,
        tenant: &Arc<Tenant>,
        mut statement: Statement,
        call: Call,
        options: &CallOptions,
    ) -> Result<(Statement, Result<Answer>, Took)> {
        let bytes = statement_bytes(&statement);
        let (metrics, tenant) = (Arc::clone(&self.stores.shared.metrics), Arc::clone(tenant));
        let read = move |conn: &Conn, statement: &Statement, time: Time| {
            let watch = Stopwatch::start();
            let outcome = tenant.read(conn, statement, &Call { time, ..call });
            let took = watch.took();
            metrics.sql_read.record(took.by_clock.as_secs_f64());
            (outcome, took)
        };
        let verdicts = store.verdicts();
        if call.time.statement > BRIEF_TIME && !verdicts.is_slow(&statement.sql) && store.would_wait(options.caller) {
            let (known, read) = (Arc::clone(verdicts), read.clone());
            let act = move |conn: &_, time| {
                // Another of the same text was tried while this waited.
                if known.is_slow(&statement.sql) {
                    return Ok((statement, None));
                }
                let time = Time { statement: time, by_processor: true, ..call.time };
                let tried = read(conn, &statement, time);
                Ok((statement, Some(tried)))
            };
            let (tried, outcome) = store.read_briefly(options.caller, bytes, options.deadline, act).await?;
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
        store.read(options.caller, bytes, options.deadline, act).await
    }

    async fn tenant_write(
        &self,
        store: &Store,
        statement: Statement,
        plan: Option<Plan>,
        call: Call,
        options: CallOptions,
    ) -> Result<Written<StatementResult>> {
        store.check_sound()?;
        let removes = plan.as_ref().is_some_and(|plan| plan.facts.only_removes());
        let mut write = sql_write(removes, statement_bytes(&statement), &options);
        let simple = plan.as_ref().is_some_and(|plan| plan.facts.undoes_itself() && !plan.rewritten.needs_moment);
        if simple && options.guard.is_none() {
            write.undo = Undo::Statement;
        }
        let held = self.hold_key(options.guard.as_ref(), Target::Namespace, options.deadline).await?;
        let guard = options.guard;
        store
            .write(write, move |conn| {
                let _held = &held;
                guard::statement_once(conn, Target::Namespace, guard.as_ref(), |conn| {
                    Work::of_statement(conn, call)?.run(&statement, plan.as_ref())
                })
            })
            .await
    }

    /// Several statements of a namespace, all or none.
    pub(in crate::embedded) async fn tenant_transaction(
        &self,
        namespace: &Namespace,
        mut statements: Vec<Statement>,
        options: CallOptions,
    ) -> Result<Written<Vec<StatementResult>>> {
        statements.iter_mut().for_each(without_empty);
        let (store, _) = self.tenant(namespace).await?;
        store.check_sound()?;
        let call = self.call(&options);
        let removes = !statements.is_empty() && statements.iter().all(|one| store.verdicts().only_removes(&one.sql));
        let mut write = sql_write(removes, statements.iter().map(statement_bytes).sum(), &options);
        if statements.iter().any(|statement| may_set(&statement.sql)) {
            write.undo = Undo::OwnGroup;
        }
        let held = self.hold_key(options.guard.as_ref(), Target::Namespace, options.deadline).await?;
        let guard = options.guard;
        store
            .write(write, move |conn| {
                let _held = &held;
                guard::statements_once(conn, Target::Namespace, guard.as_ref(), |conn| {
                    let mut work = Work::of_transaction(conn, call)?;
                    let run =
                        |(index, statement)| work.run_next(statement).map_err(|error: Error| error.at_statement(index));
                    let results = statements.iter().enumerate().map(run).collect::<Result<_>>()?;
                    work.finish()?;
                    Ok(results)
                })
            })
            .await
    }

    /// The tables of a namespace.
    pub(in crate::embedded) async fn tenant_schema(
        &self,
        namespace: &Namespace,
        options: &CallOptions,
    ) -> Result<Vec<Table>> {
        let (store, tenant) = self.tenant(namespace).await?;
        // Not here: whoever compiles something that takes long holds the catalogue meanwhile.
        store.read_soon(options.caller, JOB_BYTES, options.deadline, move |_, _| tenant.catalogue().tables()).await
    }

    pub(in crate::embedded) async fn tenant(&self, namespace: &Namespace) -> Result<(Arc<Store>, Arc<Tenant>)> {
        let store = self.stores.namespace(namespace).await?;
        let tenant = store.tenant().cloned().ok_or_else(super::read::no_seat)?;
        Ok((store, tenant))
    }

    fn call(&self, options: &CallOptions) -> Call {
        Call { now_ms: now_ms(), time: self.time(options), limits: self.limits(), read_only: options.read_only }
    }
}

/// Takes away the semicolons before and behind a statement, each of which ends a statement without words. Those before it
/// become blanks, so that an error tells its place in the text that was sent.
fn without_empty(statement: &mut Statement) {
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
    use super::without_empty;
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
            without_empty(&mut statement);
            assert_eq!(statement.sql, left);
        }
    }
}
