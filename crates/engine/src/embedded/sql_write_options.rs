//! What a SQL write is to the writer's queue.

use super::database_handle::{DatabaseHandle, WriteOptions};
use super::fair_queue::FlowId;
use super::job::JobIsolation;
use crate::CallOptions;
use debros_proto::rpc::Statement;

/// Bytes that a waiting job takes besides its statements and values.
pub(super) const JOB_BYTES: usize = 256;

/// What a statement takes in memory while it waits.
pub(super) fn statement_bytes(statement: &Statement) -> usize {
    let args: usize = statement.args.iter().map(|arg| 32 + arg.size()).sum();
    JOB_BYTES + statement.sql.len() + args
}

/// The write of one statement.
pub(super) fn sql_write_options(
    only_removes: bool,
    bytes: usize,
    options: &CallOptions,
) -> WriteOptions {
    let flow = FlowId::of_caller(options.caller);
    WriteOptions {
        isolation: JobIsolation::Savepoint,
        removes: only_removes,
        bytes,
        deadline: options.deadline,
        flow,
    }
}

/// As [`sql_write_options`], for several statements in one transaction.
pub(super) fn transaction_write_options(
    database: &DatabaseHandle,
    statements: &[Statement],
    options: &CallOptions,
) -> WriteOptions {
    let verdicts = database.verdicts();
    let removes =
        !statements.is_empty() && statements.iter().all(|one| verdicts.only_removes(&one.sql));
    sql_write_options(removes, statements.iter().map(statement_bytes).sum(), options)
}
