//! Running one statement on a connection, and turning its outcome into a result.

use super::authorizer::StatementTraits;
use super::autoincrement::autoincrement_error;
use super::config::CallLimits;
use super::conn::SqliteConnection;
use super::connection_limits::BRIEF_LENGTH;
use super::deadline::Stopwatch;
use super::error_mapping;
use super::prepared_statement::{
    PreparedStatement, is_write, prepare_again, prepare_statement, refresh_schema,
};
use super::result_budget::ResultBudget;
use super::statement_run::StatementRun;
use super::time_limit::{TimeLimit, was_interrupted, with_time_limit};
use super::writer_conn::WriterConnection;
use debros_proto::rpc::{Row, StatementResult, Value, value::Kind};
use debros_proto::words::counted;
use debros_proto::{Code, Error, Result};
use rusqlite::types::{ToSqlOutput, ValueRef};
use std::time::Duration;

/// What a text turned out to be on a connection that only reads.
#[derive(Debug)]
pub(super) enum ReadAttempt {
    /// It reads, and this is what it read.
    Done(StatementResult, StatementTraits),
    /// It writes; nothing was run.
    NeedsWriter(StatementTraits),
}

/// Runs the statement if it only reads.
pub(super) fn run_if_read_only(
    conn: &SqliteConnection,
    run: StatementRun<'_>,
    time: TimeLimit,
    limits: &CallLimits,
) -> Result<ReadAttempt> {
    with_time_limit(conn, time, || run_read(conn, run, limits)).map_err(|error| match error.code {
        // A statement that reads writes nothing but temporary files.
        Code::DatabaseFull => temp_space_error(),
        _ => with_refusal(conn, error),
    })
}

/// Runs the statement if it only reads, is done within some 2,000 steps of SQLite's machine and
/// some milliseconds since `watch` began, and meets no long value. `None`: it was not, or did.
pub(super) fn read_quickly(
    conn: &SqliteConnection,
    run: StatementRun<'_>,
    limits: &CallLimits,
    watch: &Stopwatch,
) -> Option<Result<ReadAttempt>> {
    // What is long makes a single step long, which nothing breaks off.
    if run.args.iter().map(Value::size).sum::<usize>() > BRIEF_LENGTH {
        return None;
    }
    let outcome = {
        let _brief = match conn.limit_steps(watch) {
            Ok(brief) => brief,
            Err(error) => return Some(Err(error_mapping::map_sqlite_error(error))),
        };
        run_read(conn, run, limits)
    };
    match outcome {
        Err(error) if was_interrupted(conn, &error) || error.code == Code::TooLarge => None,
        outcome => Some(outcome.map_err(|error| with_refusal(conn, error))),
    }
}

fn run_read(
    conn: &SqliteConnection,
    run: StatementRun<'_>,
    limits: &CallLimits,
) -> Result<ReadAttempt> {
    if run.explains {
        refresh_schema(conn)?;
    }
    conn.authorizer.set_rights(run.rights);
    conn.authorizer.reset();
    let (mut prepared, traits) = match prepare_statement(conn, run) {
        Ok(prepared) => prepared,
        Err(error) if error.code == Code::Sql && !conn.authorizer.has_timed_out() => {
            prepare_again(conn, run)?
        }
        Err(error) => return Err(error),
    };
    if is_write(&prepared, run) {
        return Ok(ReadAttempt::NeedsWriter(if prepared.column_count() > 0 {
            traits.with_returned_rows()
        } else {
            traits
        }));
    }
    let mut result = StatementResult::default();
    with_length_limit(conn, traits, || {
        bind_arguments(&mut prepared, run.args)?;
        collect_rows(&mut prepared, run.columns, &mut result, &mut ResultBudget::new(limits))
    })?;
    Ok(ReadAttempt::Done(result, traits))
}

/// What a statement did inside the transaction that is open.
pub(super) struct StatementOutcome {
    pub(super) result: StatementResult,
    pub(super) traits: StatementTraits,
}

/// Runs the statement inside the transaction that is open. With `read_only`, one that would write
/// is refused.
pub(super) fn run_in_transaction(
    conn: &WriterConnection,
    run: StatementRun<'_>,
    time: TimeLimit,
    read_only: bool,
    budget: &mut ResultBudget,
) -> Result<StatementOutcome> {
    let act = || {
        conn.authorizer.set_rights(run.rights);
        conn.authorizer.reset();
        let (mut prepared, traits) = prepare_statement(conn, run)?;
        let writes = is_write(&prepared, run);
        if writes && read_only {
            return Err(read_only_error());
        }
        if writes {
            conn.reserve_use.check_write(traits.only_removes())?;
        }
        if traits.changes_schema() || traits.alters_table() {
            conn.note_schema_change();
        }
        conn.reset_last_insert();
        let changes_before = conn.db.total_changes();
        let mut result = StatementResult::default();
        with_length_limit(conn, traits, || {
            bind_arguments(&mut prepared, run.args)?;
            collect_rows(&mut prepared, run.columns, &mut result, budget)
        })
        .map_err(|error| match error.code {
            Code::DatabaseFull => autoincrement_error(conn, run).unwrap_or(error),
            _ => error,
        })?;
        if writes {
            // SQLite keeps both numbers from the statement before when this one changed nothing,
            // and a CREATE VIRTUAL TABLE counts what its module writes for itself.
            let counts = !traits.changes_schema() && conn.db.total_changes() != changes_before;
            result.rows_affected = Some(if counts { conn.db.changes() } else { 0 });
            let inserted =
                if counts && traits.inserts_rows() { conn.last_inserted_rowid() } else { None };
            result.last_insert_id = Some(inserted.unwrap_or(0));
        }
        Ok(StatementOutcome { result, traits })
    };
    with_time_limit(conn, time, act).map_err(|error| with_refusal(conn, error))
}

fn temp_space_error() -> Error {
    Error::new(
        Code::DiskFull,
        "the disk has no room for the temporary files of the statement: sort, group or join less at once",
    )
    .retry_after(Duration::from_secs(10))
}

/// Runs a statement that may call a function which is for short texts only.
fn with_length_limit(
    conn: &SqliteConnection,
    traits: StatementTraits,
    run: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let Some((function, bytes)) = traits.quadratic_function() else { return run() };
    let _short = conn.limit_lengths(bytes).map_err(error_mapping::map_sqlite_error)?;
    run().map_err(|error| match error.code {
        Code::TooLarge => Error::new(
            Code::TooLarge,
            format!(
                "a statement that calls {function}() may meet no text, BLOB or row of more than {bytes} bytes: keep long \
                 documents in several rows, or ask without {function}()"
            ),
        ),
        _ => error,
    })
}

/// The authorizer's own words are better than SQLite's "not authorized".
fn with_refusal(conn: &SqliteConnection, error: Error) -> Error {
    match conn.authorizer.take_refusal() {
        Some(reason) if matches!(error.code, Code::StatementNotAllowed | Code::Sql) => {
            // The first line lets nothing through that the second refuses.
            tracing::error!(reason, "a statement was refused while it was compiled");
            Error::new(Code::StatementNotAllowed, reason)
        }
        _ => error,
    }
}

/// The caller may only read.
pub(super) fn read_only_error() -> Error {
    Error::new(Code::Forbidden, "this credential may only read, and the call would write")
}

fn bind_arguments(prepared: &mut PreparedStatement<'_>, args: &[Value]) -> Result<()> {
    check_argument_count(prepared.parameter_count(), args.len())?;
    for (index, value) in args.iter().enumerate() {
        prepared
            .raw_bind_parameter(index + 1, ToSqlOutput::Borrowed(to_sqlite(value)))
            .map_err(error_mapping::map_sqlite_error)?;
    }
    Ok(())
}

/// Refuses another number of arguments than the statement takes.
pub(super) fn check_argument_count(wanted: usize, given: usize) -> Result<()> {
    if wanted == given {
        return Ok(());
    }
    let takes = counted(wanted as u64, "argument");
    Err(Error::new(Code::Sql, format!("the statement takes {takes}; given: {given}")))
}

fn to_sqlite(value: &Value) -> ValueRef<'_> {
    match &value.kind {
        None => ValueRef::Null,
        Some(Kind::Integer(integer)) => ValueRef::Integer(*integer),
        Some(Kind::Real(real)) => ValueRef::Real(*real),
        Some(Kind::Text(text)) => ValueRef::Text(text.as_bytes()),
        Some(Kind::Blob(blob)) => ValueRef::Blob(blob),
    }
}

fn collect_rows(
    prepared: &mut PreparedStatement<'_>,
    names: Option<&[String]>,
    result: &mut StatementResult,
    budget: &mut ResultBudget,
) -> Result<()> {
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next().map_err(error_mapping::map_sqlite_error)? {
        let columns = row.as_ref().column_count();
        let mut values = Vec::with_capacity(columns);
        for column in 0..columns {
            let value = row.get_ref(column).map_err(error_mapping::map_sqlite_error)?;
            values.push(
                from_sqlite(value).ok_or_else(|| {
                    not_text_error(row.as_ref().column_name(column).unwrap_or(""))
                })?,
            );
        }
        let row = Row { values };
        budget.spend_row(&row)?;
        result.rows.push(row);
    }
    drop(rows);
    // Only now: the first step compiles a statement again whose tables were changed since, and the
    // columns with it.
    result.columns = match names {
        None => prepared.column_names().map(str::to_owned).collect(),
        // What SQLite looks at inside some forms of ALTER TABLE shows as a column.
        Some([]) => Vec::new(),
        Some(names) if names.len() == prepared.column_count() => names.to_vec(),
        // Only when the schema moved between: the caller of this looks, and runs the statement
        // again.
        Some(_) => {
            return Err(Error::new(
                Code::Unavailable,
                "the schema changed while the statement ran; try again",
            ));
        }
    };
    Ok(())
}

/// `None` for text that is not UTF-8, which `CAST(x'ff' AS TEXT)` makes.
fn from_sqlite(value: ValueRef<'_>) -> Option<Value> {
    Some(match value {
        ValueRef::Null => Value::NULL,
        ValueRef::Integer(integer) => Value::from(integer),
        ValueRef::Real(real) => Value::from(real),
        ValueRef::Text(text) => Value::from(std::str::from_utf8(text).ok()?),
        ValueRef::Blob(blob) => Value::from(blob),
    })
}

fn not_text_error(column: &str) -> Error {
    Error::new(
        Code::Sql,
        format!(
            "the column \"{column}\" holds text that is not UTF-8: read its bytes with CAST(… AS BLOB)"
        ),
    )
}

#[cfg(test)]
mod tests;
