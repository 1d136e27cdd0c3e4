//! A dump of a sqlite3 shell in a transaction call: what it means is asked of [`DumpTranslator`],
//! and run as any statement.

use super::foreign_keys::pragma_result;
use super::write::TenantWrite;
use debros_proto::Result;
use debros_proto::rpc::{Statement, StatementResult};
use debros_sql::dump::{self, DumpTranslator};
use debros_sql::transaction_pragma::TransactionPragma;

impl TenantWrite<'_> {
    /// Runs the next statement of a transaction.
    pub(super) fn run_next(&mut self, statement: &Statement) -> Result<StatementResult> {
        if self.dump.is_none() && dump::begins_dump(&statement.sql) {
            self.dump = Some(DumpTranslator::default());
        }
        let Some(dump) = &mut self.dump else { return self.run(statement, None) };
        let translated = dump.translate(&statement.sql, &self.writer_schema.catalogue())?;
        match translated {
            None => self.run(statement, None),
            Some(statements) => {
                crate::embedded::execution::check_argument_count(0, statement.args.len())?;
                self.run_translated(statements)
            }
        }
    }

    /// Begins or ends a dump, or reports whether one is under way.
    pub(super) fn set_dump(&mut self, setting: TransactionPragma) -> Result<StatementResult> {
        match setting.on {
            None => return Ok(pragma_result(setting.name, self.dump.is_some())),
            Some(true) => {
                self.dump.get_or_insert_with(DumpTranslator::default);
            }
            Some(false) => self.finish_dump()?,
        }
        Ok(StatementResult::default())
    }

    /// Makes what can only be made when the whole dump is there.
    pub(super) fn finish_dump(&mut self) -> Result<()> {
        let Some(dump) = self.dump.take() else { return Ok(()) };
        let statements = dump.finish(&self.writer_schema.catalogue())?;
        self.run_translated(statements).map(|_| ())
    }

    fn run_translated(&mut self, statements: Vec<String>) -> Result<StatementResult> {
        let mut result = StatementResult {
            rows_affected: Some(0),
            last_insert_id: Some(0),
            ..StatementResult::default()
        };
        for sql in statements {
            result = self.run(&Statement { sql, ..Statement::default() }, None)?;
        }
        Ok(result)
    }
}
