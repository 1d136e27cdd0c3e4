//! Writing: in the transaction of the writer's thread, for the schema that holds there.

use super::read::{Call, no_seat, run};
use super::references::{self, References};
use super::{Plan, Present, Seat, format};
use crate::embedded::conn::Conn;
use crate::embedded::failure;
use crate::embedded::gate::Rights;
use crate::embedded::sql::{self, Allowance};
use debros_proto::rpc::{Statement, StatementResult};
use debros_proto::{Code, Error, Result};
use debros_sql::catalogue::{Changes, Entry};
use debros_sql::counters::{Counters, restore_counters};
use debros_sql::dump::Dump;
use debros_sql::policy::Foreign;
use debros_sql::setting::Which;
use debros_sql::{Catalogue, Class, HeaderField, MOMENT_CLEAR, MOMENT_SET, Place, Rewritten, rewrite_under};
use std::sync::Arc;

/// One call's statements on the writer's connection, in order.
pub(super) struct Work<'c> {
    conn: &'c Conn,
    pub(super) seat: &'c Seat,
    call: Call,
    present: Present,
    allowance: Allowance,
    /// How references are looked at; `None` in the call of a single statement, which can not change it.
    references: Option<References<'c>>,
    /// The schema as this call has changed it; none before it does.
    entries: Option<Vec<Entry>>,
    /// A dump of a sqlite3 shell that the call's statements are, from where it is seen.
    pub(super) dump: Option<Dump>,
}

/// What a statement on the schema changes.
enum Change {
    /// The data's alone, as ANALYZE and REINDEX do.
    Elsewhere,
    /// The schema, which is this one then.
    Made { after: Box<Catalogue>, entries: Vec<Entry>, changes: Changes },
}

impl<'c> Work<'c> {
    /// The work of a transaction call.
    ///
    /// # Errors
    /// `internal` when the connection is not that of a namespace.
    pub(super) fn of_transaction(conn: &'c Conn, call: Call) -> Result<Self> {
        Ok(Self { references: Some(References::new(conn)), ..Self::of_statement(conn, call)? })
    }

    /// The work of a call of a single statement.
    ///
    /// # Errors
    /// `internal` when the connection is not that of a namespace.
    pub(super) fn of_statement(conn: &'c Conn, call: Call) -> Result<Self> {
        let seat = conn.seat.as_ref().ok_or_else(no_seat)?;
        Ok(Self {
            conn,
            seat,
            call,
            present: Present::new(call.now_ms),
            allowance: Allowance::new(&call.limits),
            references: None,
            entries: None,
            dump: None,
        })
    }

    /// Runs the next statement. `plan` is used if it is of the schema that holds now.
    pub(super) fn run(&mut self, statement: &Statement, plan: Option<&Plan>) -> Result<StatementResult> {
        let catalogue = self.seat.catalogue();
        let tenant = self.seat.tenant();
        let rewritten = match plan {
            Some(plan) if plan.generation == catalogue.generation() => Arc::clone(&plan.rewritten),
            // Not remembered: the same text means something else where foreign keys are on.
            _ if self.references.as_ref().is_some_and(|references| !references.enforced()) => {
                Arc::new(rewrite_under(&statement.sql, &catalogue, false)?)
            }
            _ => tenant.rewrite(&statement.sql, &catalogue)?,
        };
        if self.call.read_only && rewritten.class != Class::Read {
            return Err(sql::forbidden());
        }
        match rewritten.place {
            Place::Data => (),
            Place::Catalogue => {
                return tenant.ask_catalogue(statement, &catalogue, &rewritten, &self.call, &mut self.allowance);
            }
            Place::Transaction(setting) => {
                sql::check_count(rewritten.parameters, statement.args.len())?;
                return match &mut self.references {
                    Some(_) if setting.what == Which::WritableSchema => self.set_dump(setting),
                    Some(references) => references.set(setting),
                    None => references::outside(setting),
                };
            }
            Place::Header(field) => return self.set_header(statement, &rewritten, field, catalogue),
        }
        let result = if rewritten.class == Class::Ddl {
            self.define(statement, &rewritten, catalogue)
        } else {
            self.execute(statement, &rewritten)
        };
        result.map_err(|error| tenant.explain(error))
    }

    /// To be called after the last statement of a transaction.
    pub(super) fn finish(mut self) -> Result<()> {
        self.finish_dump()?;
        let lapsed = self.references.as_mut().map_or(Ok(false), References::restore)?;
        if !lapsed {
            return Ok(());
        }
        // What the statements have read is not this one's fault.
        self.allowance = Allowance::new(&self.call.limits);
        references::judge(&self.run(&references::question(), None).map_err(references::not_judged)?)
    }

    /// A statement on the schema: made on a copy of the catalogue first, which tells mistakes in the user's words.
    fn define(
        &mut self,
        statement: &Statement,
        rewritten: &Rewritten,
        catalogue: Arc<Catalogue>,
    ) -> Result<StatementResult> {
        let Some(change) = self.change_of_schema(statement, rewritten, catalogue)? else {
            // CREATE … IF NOT EXISTS of what is there, an ALTER that gives a column its own name: nothing is to be done.
            sql::check_count(rewritten.parameters, statement.args.len())?;
            return Ok(StatementResult {
                rows_affected: Some(0),
                last_insert_id: Some(0),
                ..StatementResult::default()
            });
        };
        // The authorizer is not told the new name of a renamed table, nor the parents of a child.
        let foreign = self.foreign()?;
        let result = self.execute(statement, rewritten)?;
        if self.foreign()? != foreign {
            tracing::error!("a statement made, removed or bound an object outside of its namespace");
            return Err(Error::new(Code::StatementNotAllowed, "a name in the statement is not allowed"));
        }
        if let Change::Made { after, entries, changes } = change {
            self.conn.gate.enter(Rights::Own);
            format::keep(&self.conn.db, &changes).map_err(failure::of)?;
            self.seat.change(*after);
            self.entries = Some(entries);
        }
        Ok(result)
    }

    /// Sets a value of the namespace's: in the catalogue, which tells it, and in the file, which keeps it.
    fn set_header(
        &mut self,
        statement: &Statement,
        rewritten: &Rewritten,
        field: HeaderField,
        catalogue: Arc<Catalogue>,
    ) -> Result<StatementResult> {
        sql::check_count(rewritten.parameters, statement.args.len())?;
        let (entries, after) = self.changed_catalogue(&statement.sql, catalogue)?;
        self.conn.gate.enter(Rights::Own);
        self.conn.db.pragma_update(None, field.name(), after.header(field)?).map_err(failure::of)?;
        self.seat.change(after);
        self.entries = Some(entries);
        Ok(StatementResult::default())
    }

    /// What a statement makes of the schema; `None`: the schema is as it was.
    fn change_of_schema(
        &mut self,
        statement: &Statement,
        rewritten: &Rewritten,
        catalogue: Arc<Catalogue>,
    ) -> Result<Option<Change>> {
        if !rewritten.changes_schema {
            return Ok(Some(Change::Elsewhere));
        }
        let (before, after) = self.changed_catalogue(&statement.sql, catalogue)?;
        let entries = after.entries()?;
        let changes = Changes::between(&before, &entries);
        if !changes.is_empty() {
            return Ok(Some(Change::Made { after: Box::new(after), entries, changes }));
        }
        // It may have been taken from there, to be changed in place.
        if self.entries.is_some() {
            self.seat.change(after);
        }
        // ANALYZE makes its table the first time, and fills it each time.
        Ok(rewritten.grants.statistics.then_some(Change::Elsewhere))
    }

    /// The list before a change, and the catalogue after it. What this call made already is changed in place, because a
    /// copy costs as much as the whole schema. When anything fails afterwards the call fails, and the writer goes back to what
    /// was before it.
    fn changed_catalogue(&self, sql: &str, catalogue: Arc<Catalogue>) -> Result<(Vec<Entry>, Catalogue)> {
        let before = match &self.entries {
            Some(entries) => entries.clone(),
            None => catalogue.entries()?,
        };
        if self.entries.is_some() {
            self.seat.go_back(None);
        }
        let mut copy = match Arc::try_unwrap(catalogue) {
            Ok(own) => own,
            Err(shared) => shared.fork()?,
        };
        copy.apply(sql)?;
        Ok((before, copy))
    }

    fn execute(&mut self, statement: &Statement, rewritten: &Rewritten) -> Result<StatementResult> {
        let tenant = self.seat.tenant();
        if rewritten.needs_moment {
            let now = self.present.timestamp();
            self.own(MOMENT_SET, |set| set.execute([now]))?;
        }
        // A CREATE VIRTUAL TABLE may change them, and a later statement of the call asks.
        let defines = rewritten.class == Class::Ddl && self.references.is_some();
        if rewritten.reads_counters || defines {
            self.restore_counters()?;
        }
        let are_own = Counters::of(&self.conn.db) == self.present.counters;
        let text = self.present.fill(rewritten)?;
        let tenancy = tenant.tenancy(rewritten);
        let run = run(statement, rewritten, &text, Rights::Tenant(&tenancy));
        let wrote = sql::write(self.conn, run, self.call.time, false, &mut self.allowance)?;
        let mut result = wrote.result;
        let now = Counters::of(&self.conn.db);
        if are_own {
            self.present.counters = now;
        } else if rewritten.class == Class::Write {
            self.present.counters.changes = now.changes;
            // SQLite keeps the number where nothing was inserted.
            if wrote.facts.inserts()
                && let Some(rowid) = self.conn.inserted()
            {
                self.present.counters.last_insert_rowid = rowid;
            }
        }
        if rewritten.needs_moment {
            self.own(MOMENT_CLEAR, |clear| clear.execute([]))?;
        }
        tenant.demangle(rewritten, &mut result);
        Ok(result)
    }

    /// Brings the connection, which others use too, to what this call's own statements have made of its counters.
    fn restore_counters(&self) -> Result<()> {
        self.conn.gate.enter(Rights::Own);
        sql::with_time(self.conn, self.call.time, || {
            restore_counters(&self.conn.db, self.present.counters).map_err(failure::of)
        })
    }

    fn foreign(&self) -> Result<Foreign> {
        self.conn.gate.enter(Rights::Own);
        Foreign::count(&self.conn.db, &self.seat.tenant().namespace).map_err(failure::of)
    }

    fn own(
        &self,
        sql: &str,
        act: impl FnOnce(&mut rusqlite::CachedStatement<'_>) -> rusqlite::Result<usize>,
    ) -> Result<()> {
        self.conn.gate.enter(Rights::Own);
        self.conn.db.prepare_cached(sql).and_then(|mut statement| act(&mut statement)).map_err(failure::of).map(|_| ())
    }
}
