//! Reading: on a connection that can not write.

use super::{Plan, Present, Tenant, references};
use crate::embedded::config::Limits;
use crate::embedded::conn::Conn;
use crate::embedded::deadline::Stopwatch;
use crate::embedded::gate::{Facts, Rights};
use crate::embedded::sql::{self, Allowance, Outcome, Run, Time};
use debros_proto::rpc::{Row, Statement, StatementResult, value::Kind};
use debros_proto::{Code, Error, Result};
use debros_sql::{Catalogue, Class, Place, Rewritten};
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// How often a read is repeated that met a change of the schema.
const REPEATS: usize = 3;

/// What became of a statement on the reading side.
#[derive(Debug)]
pub(super) enum Answer {
    /// It reads, and this is what it read.
    Read(StatementResult, Facts),
    /// It writes; nothing was run.
    Writes(Plan),
}

/// The call that a statement belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// When it came, in milliseconds since the Unix epoch: the time of all of its statements.
    pub(super) now_ms: i64,
    pub(super) time: Time,
    pub(super) limits: Limits,
    pub(super) read_only: bool,
}

impl Tenant {
    /// Rewrites a statement and runs it if it only reads. Takes as long as it may take.
    pub(super) fn read(&self, conn: &Conn, statement: &Statement, call: &Call) -> Result<Answer> {
        for _ in 0..=REPEATS {
            let catalogue = self.settled_catalogue();
            let outcome = self.try_read(conn, statement, &catalogue, call);
            // The writer looks by itself for which schema a statement was rewritten.
            if self.still_holds(&catalogue) || matches!(outcome, Ok(Answer::Writes(_))) {
                return outcome;
            }
        }
        Err(Error::new(Code::Unavailable, "the schema changed each time while the statement ran; try again")
            .retry_after(Duration::from_secs(1)))
    }

    fn try_read(&self, conn: &Conn, statement: &Statement, catalogue: &Catalogue, call: &Call) -> Result<Answer> {
        let rewritten = self.rewrite(&statement.sql, catalogue)?;
        let answered = match rewritten.place {
            // What sets a value of the namespace's writes.
            Place::Data | Place::Header(_) => None,
            Place::Catalogue => {
                let mut allowance = Allowance::new(&call.limits);
                Some(self.ask_catalogue(statement, catalogue, &rewritten, call, &mut allowance)?)
            }
            Place::Transaction(setting) => {
                sql::check_count(rewritten.parameters, statement.args.len())?;
                Some(references::outside(setting)?)
            }
        };
        if let Some(result) = answered {
            return Ok(Answer::Read(result, Facts::default().calling()));
        }
        let present = Present::new(call.now_ms);
        let text = match rewritten.class {
            Class::Read | Class::Write => present.fill(&rewritten)?,
            // Nothing is learnt of it here that its class does not tell.
            Class::Ddl => return Ok(Answer::Writes(self.plan(rewritten, catalogue, Facts::defining()))),
        };
        let tenancy = self.tenancy(&rewritten);
        let run = run(statement, &rewritten, &text, Rights::Tenant(&tenancy));
        sql::see(conn, catalogue.generation())?;
        match sql::read(conn, run, call.time, &call.limits).map_err(|error| self.explain(error))? {
            Outcome::Read(mut result, facts) => {
                self.demangle(&rewritten, &mut result);
                Ok(Answer::Read(result, facts))
            }
            Outcome::Writes(facts) => Ok(Answer::Writes(self.plan(rewritten, catalogue, facts))),
        }
    }

    /// Runs a statement that is known to read, if it is done within some 2,000 steps of SQLite's machine and some milliseconds
    /// since `watch` began. `None`: it was not, or the schema changed meanwhile.
    pub(super) fn read_quickly(
        &self,
        conn: &Conn,
        statement: &Statement,
        rewritten: &Rewritten,
        catalogue: &Catalogue,
        call: &Call,
        watch: &Stopwatch,
    ) -> Option<Result<StatementResult>> {
        let text = match Present::new(call.now_ms).fill(rewritten) {
            Ok(text) => text,
            Err(error) => return Some(Err(error)),
        };
        let tenancy = self.tenancy(rewritten);
        let run = run(statement, rewritten, &text, Rights::Tenant(&tenancy));
        if let Err(error) = sql::see(conn, catalogue.generation()) {
            return Some(Err(error));
        }
        let outcome = sql::read_quickly(conn, run, &call.limits, watch)?;
        if !self.still_holds(catalogue) {
            return None;
        }
        match outcome {
            Ok(Outcome::Read(mut result, _)) => {
                self.demangle(rewritten, &mut result);
                Some(Ok(result))
            }
            Ok(Outcome::Writes(_)) => None,
            Err(error) => Some(Err(self.explain(error))),
        }
    }

    fn plan(&self, rewritten: std::sync::Arc<Rewritten>, catalogue: &Catalogue, facts: Facts) -> Plan {
        Plan { rewritten, generation: catalogue.generation(), facts }
    }

    /// Answers what is asked about the schema alone.
    pub(super) fn ask_catalogue(
        &self,
        statement: &Statement,
        catalogue: &Catalogue,
        rewritten: &Rewritten,
        call: &Call,
        allowance: &mut Allowance,
    ) -> Result<StatementResult> {
        sql::check_count(rewritten.parameters, statement.args.len())?;
        let deadline = call.time.deadline.min(Instant::now() + call.time.statement);
        let (rows, bytes) = allowance.left();
        let found = catalogue.query(&statement.sql, &statement.args, deadline, rows, bytes)?;
        let mut result = StatementResult { columns: found.columns, ..StatementResult::default() };
        for values in found.rows {
            let row = Row { values };
            allowance.spend(&row)?;
            result.rows.push(row);
        }
        Ok(result)
    }

    /// Takes the prefix out of running text.
    pub(super) fn demangle(&self, rewritten: &Rewritten, result: &mut StatementResult) {
        if !rewritten.tells_names {
            return;
        }
        debros_sql::without_moment(&mut result.rows);
        for value in result.rows.iter_mut().flat_map(|row| &mut row.values) {
            if let Some(Kind::Text(text)) = &mut value.kind
                && let Cow::Owned(told) = self.demangler.text(text)
            {
                *text = told;
            }
        }
    }
}

/// How a connection is to run a rewritten statement.
pub(super) fn run<'a>(
    statement: &'a Statement,
    rewritten: &'a Rewritten,
    text: &'a str,
    rights: Rights<'a>,
) -> Run<'a> {
    Run {
        sql: text,
        args: &statement.args,
        rights,
        recurs: !rewritten.is_of_the_moment() && !rewritten.tells_names,
        writes: Some(rewritten.class != Class::Read),
        explains: rewritten.tells_names,
        columns: Some(&rewritten.columns),
    }
}

/// Only a mistake in the engine brings a namespace's statement to another file.
pub(super) fn no_seat() -> Error {
    Error::new(Code::Internal, "the statement came to a database that is no namespace's")
}
