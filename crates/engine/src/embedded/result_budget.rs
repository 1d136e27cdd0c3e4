//! What results may take of a call's limits.

use super::config::CallLimits;
use debros_proto::rpc::{Row, Value};
use debros_proto::{Code, Error, Result};

/// Values in one result: each takes some 40 bytes of memory, however small it is.
const MAX_VALUES: usize = 4_000_000;

/// What is left of a call's limits on results.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResultBudget {
    rows: usize,
    bytes: usize,
    values: usize,
    max: CallLimits,
}

impl ResultBudget {
    pub(super) fn new(limits: &CallLimits) -> Self {
        Self { rows: limits.rows, bytes: limits.result_bytes, values: MAX_VALUES, max: *limits }
    }

    /// Rows and bytes that may still come.
    pub(super) fn remaining(&self) -> (usize, usize) {
        (self.rows, self.bytes)
    }

    /// Takes a row's share, or refuses the result.
    pub(super) fn spend_row(&mut self, row: &Row) -> Result<()> {
        let bytes: usize = row.values.iter().map(Value::size).sum();
        let left = (
            self.rows.checked_sub(1),
            self.bytes.checked_sub(bytes),
            self.values.checked_sub(row.values.len()),
        );
        let (Some(rows), Some(bytes), Some(values)) = left else {
            return Err(Error::new(
                Code::ResultTooLarge,
                format!(
                    "the result has more than {} rows, {} bytes or {MAX_VALUES} values: ask for less, with LIMIT or \
                     fewer columns",
                    self.max.rows, self.max.result_bytes
                ),
            ));
        };
        (self.rows, self.bytes, self.values) = (rows, bytes, values);
        Ok(())
    }
}
