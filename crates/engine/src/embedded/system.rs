//! The node's own statements, on the system's tables.

use super::deadline::Stopwatch;
use super::doors::{Admission, Doors};
use super::gate::Facts;
use super::guard::{self, Target};
use super::job::Undo;
use super::sql::{self, Allowance, Outcome, Run};
use super::verdict_cache::Known;
use super::{Embedded, sql_write, statement_bytes};
use crate::{CallOptions, Guard, Written};
use debros_proto::rpc::{Statement, StatementResult};
use debros_proto::{Code, Result};
use std::sync::Arc;
use std::time::Instant;

impl Embedded {
    /// One of the node's own statements.
    pub(super) async fn system_query(
        &self,
        mut statement: Statement,
        options: CallOptions,
    ) -> Result<Written<StatementResult>> {
        let admission = self.admit_keyed(options.guard.as_ref())?;
        let (store, time, limits) = (&self.stores.system, self.time(&options), self.limits());
        let known = store.verdicts().known(&statement.sql);
        if let Some(Known::Quick) = known
            && Instant::now() < options.deadline
        {
            let watch = Stopwatch::start_roughly();
            let read = |conn: &_| sql::read_quickly(conn, Run::own(&statement), &limits, &watch);
            let outcome = store.read_here(|conn| store.span().in_scope(|| read(conn)))?;
            if let Some(Outcome::Read(result, _)) = outcome.transpose()? {
                self.stores.shared.metrics.sql_read.record(watch.by_clock().as_secs_f64());
                return Ok(Written { value: result, replayed: false });
            }
        }
        let facts = match known {
            Some(Known::Writes(facts)) => facts,
            _ => {
                let metrics = Arc::clone(&self.stores.shared.metrics);
                let (tried, outcome, took) = store
                    .read(options.caller, statement_bytes(&statement), options.deadline, move |conn| {
                        let watch = Stopwatch::start();
                        let outcome = sql::read(conn, Run::own(&statement), time, &limits);
                        let took = watch.took();
                        metrics.sql_read.record(took.by_clock.as_secs_f64());
                        Ok((statement, outcome, took))
                    })
                    .await?;
                statement = tried;
                match outcome {
                    Ok(Outcome::Read(result, facts)) => {
                        store.verdicts().note_read(&statement.sql, known, facts, took);
                        return Ok(Written { value: result, replayed: false });
                    }
                    Ok(Outcome::Writes(facts)) => {
                        store.verdicts().note(&statement.sql, Some(Known::Writes(facts)));
                        facts
                    }
                    // A guarded CREATE or DROP that was done before no longer compiles: the writer knows its answer.
                    Err(error) if error.code == Code::Sql && options.guard.is_some() => Facts::default(),
                    Err(error) => return Err(error),
                }
            }
        };
        if options.read_only {
            return Err(sql::forbidden());
        }
        let mut write = sql_write(facts.only_removes(), statement_bytes(&statement), &options);
        if facts.undoes_itself() && options.guard.is_none() {
            write.undo = Undo::Statement;
        }
        let held = self.hold_key(options.guard.as_ref(), Target::System, options.deadline).await?;
        let (guard, doors) = (options.guard, Arc::clone(&self.stores.doors));
        store
            .write(write, move |conn| {
                let _held = &held;
                check_still(&doors, guard.as_ref(), admission)?;
                guard::statement_once(conn, Target::System, guard.as_ref(), |conn| {
                    sql::write(conn, Run::own(&statement), time, false, &mut Allowance::new(&limits))
                        .map(|wrote| wrote.result)
                })
            })
            .await
    }

    /// Several of the node's own statements, all or none.
    pub(super) async fn system_transaction(
        &self,
        statements: Vec<Statement>,
        options: CallOptions,
    ) -> Result<Written<Vec<StatementResult>>> {
        let admission = self.admit_keyed(options.guard.as_ref())?;
        let (store, time, limits, read_only) =
            (&self.stores.system, self.time(&options), self.limits(), options.read_only);
        let removes = !statements.is_empty() && statements.iter().all(|one| store.verdicts().only_removes(&one.sql));
        let write = sql_write(removes, statements.iter().map(statement_bytes).sum(), &options);
        let held = self.hold_key(options.guard.as_ref(), Target::System, options.deadline).await?;
        let (guard, doors) = (options.guard, Arc::clone(&self.stores.doors));
        store
            .write(write, move |conn| {
                let _held = &held;
                check_still(&doors, guard.as_ref(), admission)?;
                guard::statements_once(conn, Target::System, guard.as_ref(), |conn| {
                    let mut allowance = Allowance::new(&limits);
                    let run = |(index, statement)| {
                        sql::write(conn, Run::own(statement), time, read_only, &mut allowance)
                            .map(|wrote| wrote.result)
                            .map_err(|error| error.at_statement(index))
                    };
                    statements.iter().enumerate().map(run).collect()
                })
            })
            .await
    }

    /// Lets a write of the node's own in whose record is to be a namespace's.
    fn admit_keyed(&self, guard: Option<&Guard>) -> Result<Option<Admission>> {
        guard.map(|guard| self.stores.admit(&guard.namespace)).transpose()
    }
}

/// Refuses a write whose record would go to the next owner of the namespace's name.
fn check_still(doors: &Doors, guard: Option<&Guard>, admission: Option<Admission>) -> Result<()> {
    match guard.zip(admission) {
        Some((guard, admission)) => doors.check_still(&guard.namespace, admission),
        None => Ok(()),
    }
}
