//! A dump of a sqlite3 shell in a transaction call: what it means is asked of [`Dump`], and run as
//! any statement.

use super::references::told;
use super::write::Work;
use debros_proto::Result;
use debros_proto::rpc::{Statement, StatementResult};
use debros_sql::dump::{self, Dump};
use debros_sql::setting::Setting;

impl Work<'_> {
    /// Runs the next statement of a transaction.
    pub(super) fn run_next(&mut self, statement: &Statement) -> Result<StatementResult> {
        if self.dump.is_none() && dump::begins(&statement.sql) {
            self.dump = Some(Dump::default());
        }
        let Some(dump) = &mut self.dump else { return self.run(statement, None) };
        let translated = dump.translate(&statement.sql, &self.seat.catalogue())?;
        match translated {
            None => self.run(statement, None),
            Some(statements) => {
                crate::embedded::sql::check_count(0, statement.args.len())?;
                self.run_all(statements)
            }
        }
    }

    /// Begins or ends a dump, or tells whether one is under way.
    pub(super) fn set_dump(&mut self, setting: Setting) -> Result<StatementResult> {
        match setting.on {
            None => return Ok(told(setting.what, self.dump.is_some())),
            Some(true) => {
                self.dump.get_or_insert_with(Dump::default);
            }
            Some(false) => self.finish_dump()?,
        }
        Ok(StatementResult::default())
    }

    /// Makes what can only be made when the whole dump is there.
    pub(super) fn finish_dump(&mut self) -> Result<()> {
        let Some(dump) = self.dump.take() else { return Ok(()) };
        let statements = dump.finish(&self.seat.catalogue())?;
        self.run_all(statements).map(|_| ())
    }

    fn run_all(&mut self, statements: Vec<String>) -> Result<StatementResult> {
        let mut result =
            StatementResult { rows_affected: Some(0), last_insert_id: Some(0), ..StatementResult::default() };
        for sql in statements {
            result = self.run(&Statement { sql, ..Statement::default() }, None)?;
        }
        Ok(result)
    }
}
