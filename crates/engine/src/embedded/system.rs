//! The node's own statements, on the system's tables.

use super::EmbeddedEngine;
use super::authorizer::StatementTraits;
use super::deadline::Stopwatch;
use super::execution::{self, ReadAttempt};
use super::idempotency::{self, RecordFile};
use super::job::JobIsolation;
use super::namespace_locks::{AdmissionTicket, NamespaceLocks};
use super::result_budget::ResultBudget;
use super::sql_write_options::{sql_write_options, statement_bytes, transaction_write_options};
use super::statement_run::StatementRun;
use super::verdict_cache::CachedVerdict;
use crate::{CallOptions, IdempotencyKey, WriteOutcome};
use debros_proto::rpc::{Statement, StatementResult};
use debros_proto::{Code, Result};
use std::sync::Arc;
use std::time::Instant;

impl EmbeddedEngine {
    /// One of the node's own statements.
    pub(super) async fn system_query(
        &self,
        mut statement: Statement,
        options: CallOptions,
    ) -> Result<WriteOutcome<StatementResult>> {
        let admission = self.admit_keyed_write(options.idempotency_key.as_ref())?;
        let (database, time, limits) =
            (&self.databases.system, self.time_limit(&options), self.call_limits());
        let known = database.verdicts().cached_verdict(&statement.sql);
        if let Some(CachedVerdict::Quick) = known
            && Instant::now() < options.deadline
        {
            let watch = Stopwatch::start_roughly();
            let read = |conn: &_| {
                execution::read_quickly(conn, StatementRun::for_node(&statement), &limits, &watch)
            };
            let outcome =
                database.read_on_this_thread(|conn| database.span().in_scope(|| read(conn)))?;
            if let Some(ReadAttempt::Done(result, _)) = outcome.transpose()? {
                self.databases.shared.metrics.sql_read.record(watch.by_clock().as_secs_f64());
                return Ok(WriteOutcome { value: result, replayed: false });
            }
        }
        let traits = match known {
            Some(CachedVerdict::Writes(traits)) => traits,
            _ => {
                let metrics = Arc::clone(&self.databases.shared.metrics);
                let (tried, outcome, took) = database
                    .read(
                        options.caller,
                        statement_bytes(&statement),
                        options.deadline,
                        move |conn| {
                            let watch = Stopwatch::start();
                            let outcome = execution::run_if_read_only(
                                conn,
                                StatementRun::for_node(&statement),
                                time,
                                &limits,
                            );
                            let took = watch.elapsed();
                            metrics.sql_read.record(took.by_clock.as_secs_f64());
                            Ok((statement, outcome, took))
                        },
                    )
                    .await?;
                statement = tried;
                match outcome {
                    Ok(ReadAttempt::Done(result, traits)) => {
                        database.verdicts().remember_read_time(&statement.sql, known, traits, took);
                        return Ok(WriteOutcome { value: result, replayed: false });
                    }
                    Ok(ReadAttempt::NeedsWriter(traits)) => {
                        database
                            .verdicts()
                            .remember_verdict(&statement.sql, Some(CachedVerdict::Writes(traits)));
                        traits
                    }
                    // A keyed CREATE or DROP that was done before no longer compiles: the writer
                    // knows its answer.
                    Err(error) if error.code == Code::Sql && options.idempotency_key.is_some() => {
                        StatementTraits::default()
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        if options.read_only {
            return Err(execution::read_only_error());
        }
        let mut write =
            sql_write_options(traits.only_removes(), statement_bytes(&statement), &options);
        if traits.is_self_atomic() && options.idempotency_key.is_none() {
            write.isolation = JobIsolation::StatementAtomic;
        }
        let key_guard = self.lock_idempotency_key(&options, RecordFile::System).await?;
        let (idempotency_key, locks) =
            (options.idempotency_key, Arc::clone(&self.databases.namespace_locks));
        database
            .write(write, move |conn| {
                let _key_guard = &key_guard;
                check_still_admitted(&locks, idempotency_key.as_ref(), admission)?;
                idempotency::run_statement_once(
                    conn,
                    RecordFile::System,
                    idempotency_key.as_ref(),
                    |conn| {
                        execution::run_in_transaction(
                            conn,
                            StatementRun::for_node(&statement),
                            time,
                            false,
                            &mut ResultBudget::new(&limits),
                        )
                        .map(|wrote| wrote.result)
                    },
                )
            })
            .await
    }

    /// Several of the node's own statements, all or none.
    pub(super) async fn system_transaction(
        &self,
        statements: Vec<Statement>,
        options: CallOptions,
    ) -> Result<WriteOutcome<Vec<StatementResult>>> {
        let admission = self.admit_keyed_write(options.idempotency_key.as_ref())?;
        let (database, time, limits, read_only) = (
            &self.databases.system,
            self.time_limit(&options),
            self.call_limits(),
            options.read_only,
        );
        let write = transaction_write_options(database, &statements, &options);
        let key_guard = self.lock_idempotency_key(&options, RecordFile::System).await?;
        let (idempotency_key, locks) =
            (options.idempotency_key, Arc::clone(&self.databases.namespace_locks));
        database
            .write(write, move |conn| {
                let _key_guard = &key_guard;
                check_still_admitted(&locks, idempotency_key.as_ref(), admission)?;
                idempotency::run_statements_once(
                    conn,
                    RecordFile::System,
                    idempotency_key.as_ref(),
                    |conn| {
                        let mut budget = ResultBudget::new(&limits);
                        let run = |(index, statement)| {
                            execution::run_in_transaction(
                                conn,
                                StatementRun::for_node(statement),
                                time,
                                read_only,
                                &mut budget,
                            )
                            .map(|wrote| wrote.result)
                            .map_err(|error| error.at_statement(index))
                        };
                        statements.iter().enumerate().map(run).collect()
                    },
                )
            })
            .await
    }

    /// Admits a write of the node's own into the namespace that its idempotency key is of, because
    /// the key's record belongs to that namespace. A write without a key needs no admission.
    fn admit_keyed_write(
        &self,
        idempotency_key: Option<&IdempotencyKey>,
    ) -> Result<Option<AdmissionTicket>> {
        idempotency_key
            .map(|idempotency_key| self.databases.admit_write(&idempotency_key.namespace))
            .transpose()
    }
}

/// Refuses a write whose record would go to the next owner of the namespace's name.
fn check_still_admitted(
    locks: &NamespaceLocks,
    idempotency_key: Option<&IdempotencyKey>,
    admission: Option<AdmissionTicket>,
) -> Result<()> {
    match idempotency_key.zip(admission) {
        Some((idempotency_key, admission)) => {
            locks.check_still_admitted(&idempotency_key.namespace, admission)
        }
        None => Ok(()),
    }
}
