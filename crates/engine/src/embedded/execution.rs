//! Running one statement on a connection, and turning its outcome into a result.

use super::authorizer::{StatementRights, StatementTraits};
use super::config::CallLimits;
use super::conn::{INTERNAL_SQL_MARK, SqliteConnection};
use super::connection_limits::BRIEF_LENGTH;
use super::deadline::Stopwatch;
use super::error_mapping;
use super::writer_conn::WriterConnection;
use debros_proto::rpc::{Row, Statement, StatementResult, Value, value::Kind};
use debros_proto::words::counted;
use debros_proto::{Code, Error, Result};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Batch, CachedStatement};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// Longer texts are compiled for each use: they are rarely the same twice, and would fill the
/// cache.
const CACHED_BYTES: usize = 16 << 10;
/// Texts with more semicolons than a trigger needs are compiled without the cache, whose
/// preparation of what follows the first statement goes one call deeper for each semicolon.
const CACHED_SEMICOLONS: usize = 100;
/// Values in one result: each takes some 40 bytes of memory, however small it is.
const MAX_VALUES: usize = 4_000_000;

/// How much longer than its time by the processor a statement runs by the clock.
const TIMES_BY_CLOCK: u32 = 10;

/// When a statement must be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimit {
    /// How long one statement may run.
    pub(super) statement: Duration,
    /// The thread's processor counts, and not the clock, so that a busy machine takes nothing of
    /// it. By the clock it is [`TIMES_BY_CLOCK`] as long at most.
    pub(super) by_processor: bool,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
}

/// A statement as a connection is to run it.
#[derive(Clone, Copy)]
pub(super) struct StatementRun<'a> {
    pub(super) sql: &'a str,
    pub(super) args: &'a [Value],
    pub(super) rights: StatementRights<'a>,
    /// The same text comes again, so that it is worth keeping compiled.
    pub(super) recurs: bool,
    /// Whether it writes; `None`: SQLite decides.
    pub(super) writes: Option<bool>,
    /// It reports on the schema without running: SQLite does not look by itself whether the schema
    /// is still the newest.
    pub(super) explains: bool,
    /// The names of the result's columns, where they are not those of the text.
    pub(super) columns: Option<&'a [String]>,
}

impl<'a> StatementRun<'a> {
    /// One of the node's own statements.
    pub(super) fn for_node(statement: &'a Statement) -> Self {
        Self {
            sql: &statement.sql,
            args: &statement.args,
            rights: StatementRights::Internal,
            recurs: true,
            writes: None,
            explains: false,
            columns: None,
        }
    }
}

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

/// A compiled statement of a user or of the node, kept for the next time or not.
enum PreparedStatement<'conn> {
    Cached(CachedStatement<'conn>),
    Uncached(rusqlite::Statement<'conn>),
}

impl<'conn> Deref for PreparedStatement<'conn> {
    type Target = rusqlite::Statement<'conn>;
    fn deref(&self) -> &Self::Target {
        match self {
            PreparedStatement::Cached(statement) => statement,
            PreparedStatement::Uncached(statement) => statement,
        }
    }
}

impl DerefMut for PreparedStatement<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            PreparedStatement::Cached(statement) => statement,
            PreparedStatement::Uncached(statement) => statement,
        }
    }
}

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

/// SQLite says "full" as well where AUTOINCREMENT has no number left, which no room helps. That is
/// so when the statement has a number made for a table whose last number was given, before or by
/// the statement itself.
fn autoincrement_error(conn: &WriterConnection, run: StatementRun<'_>) -> Option<Error> {
    conn.authorizer.set_rights(StatementRights::Internal);
    // What the failed statement gave is not in sqlite_sequence.
    let tables = "SELECT s.rootpage, s.name, coalesce(q.seq = 9223372036854775807, 0)
        FROM main.sqlite_schema s LEFT JOIN main.sqlite_sequence q ON q.name = s.name WHERE s.type = 'table'";
    let mut tables = conn.db.prepare(tables).ok()?;
    let tables: Vec<(i64, String, bool)> = tables
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .and_then(Iterator::collect)
        .ok()?;
    let at_end = tables.into_iter().filter(|(_, name, before)| *before || conn.has_max_rowid(name));
    let tables: HashMap<i64, String> = at_end.map(|(page, name, _)| (page, name)).collect();
    if tables.is_empty() {
        return None;
    }
    let mut program = conn.db.prepare(&format!("EXPLAIN {}", run.sql)).ok()?;
    // Its parameters have no values, which compiling does not need.
    let mut steps = program.raw_query();
    // Which page each cursor writes.
    let mut cursors = HashMap::<i64, i64>::new();
    let mut exhausted = None;
    while let Some(step) = steps.next().ok()? {
        let operand = |number: usize| step.get::<_, i64>(number + 1);
        match step.get_ref(1).ok()?.as_str().ok()? {
            "OpenWrite" => {
                cursors.insert(operand(1).ok()?, operand(2).ok()?);
            }
            // With the register of the table's last number, which only AUTOINCREMENT has.
            "NewRowid" if operand(3).ok()? > 0 => {
                let page = cursors.get(&operand(1).ok()?);
                exhausted = exhausted.or_else(|| page.and_then(|page| tables.get(page)));
            }
            _ => {}
        }
    }
    let table = exhausted?;
    Some(Error::new(
        Code::Constraint,
        format!(
            "AUTOINCREMENT has given the last number there is, {}, to a row of {table}: give rows numbers of your own, or make \
             the table without AUTOINCREMENT",
            i64::MAX
        ),
    ))
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

/// Interrupts what runs inside when its time is over, and says which of the two times it was.
pub(super) fn with_time_limit<T>(
    conn: &SqliteConnection,
    time: TimeLimit,
    run: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let limit =
        Instant::now() + time.statement * if time.by_processor { TIMES_BY_CLOCK } else { 1 };
    conn.set_deadline(limit.min(time.deadline));
    if time.by_processor {
        conn.limit_cpu_time(time.statement);
    }
    let outcome = run();
    conn.clear_limits();
    outcome.map_err(|error| match error.code {
        _ if !was_interrupted(conn, &error) => error,
        Code::StatementTimeout if conn.temp_space_error().is_some() => {
            conn.temp_space_error().unwrap_or(error)
        }
        _ if limit <= time.deadline || (time.by_processor && Instant::now() < time.deadline) => {
            Error::new(
                Code::StatementTimeout,
                format!(
                    "the statement ran longer than {} s and was interrupted; nothing was changed",
                    time.statement.as_secs_f64()
                ),
            )
        }
        _ => Error::new(
            Code::DeadlineExceeded,
            "the statement was not done by the deadline and was interrupted; nothing was changed",
        ),
    })
}

/// Whether the statement was interrupted, while it ran or while it was compiled.
fn was_interrupted(conn: &SqliteConnection, error: &Error) -> bool {
    error.code == Code::StatementTimeout || conn.authorizer.has_timed_out()
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

fn prepare_statement<'conn>(
    conn: &'conn SqliteConnection,
    run: StatementRun<'_>,
) -> Result<(PreparedStatement<'conn>, StatementTraits)> {
    let mut compiled = compile_statement(conn, run);
    if conn.authorizer.has_hidden_statistics() {
        // From an R-Tree, which the connection has met now, or from the statement itself: that is
        // seen the second time.
        if let Ok((PreparedStatement::Cached(statement), _)) = compiled {
            statement.discard();
        }
        conn.authorizer.set_rights(run.rights);
        conn.authorizer.reset();
        conn.authorizer.deny_statistics(true);
        compiled = compile_statement(conn, run);
        conn.authorizer.deny_statistics(false);
    }
    compiled.map_err(|error| match (run.rights, error) {
        // The place would be one in a text that the user never saw.
        (StatementRights::Tenant(_), rusqlite::Error::SqlInputError { error, msg, .. }) => {
            error_mapping::map_sqlite_error(rusqlite::Error::SqliteFailure(error, Some(msg)))
        }
        (_, rusqlite::Error::InvalidQuery) => empty_statement_error(),
        (_, error) => error_mapping::map_sqlite_error(error),
    })
}

/// `InvalidQuery` when there is no statement.
fn compile_statement<'conn>(
    conn: &'conn SqliteConnection,
    run: StatementRun<'_>,
) -> rusqlite::Result<(PreparedStatement<'conn>, StatementTraits)> {
    let text = run
        .sql
        .trim_end_matches(|sign: char| sign == ';' || sign.is_ascii_whitespace())
        .trim_start();
    let kind = run.rights.kind();
    let keep = run.recurs
        && text.len() <= CACHED_BYTES
        && !text.contains(INTERNAL_SQL_MARK)
        && text.bytes().filter(|byte| *byte == b';').count() <= CACHED_SEMICOLONS;
    if keep {
        let mut statement = conn.db.prepare_cached(text)?;
        let traits = match conn.authorizer.statement_traits() {
            Some(traits) => {
                conn.remember_traits(text, traits, kind);
                traits
            }
            None => match conn.recall_traits(text, kind) {
                Some(traits) => traits,
                // Compiled with other rights: it is compiled again, with these.
                None => {
                    statement.discard();
                    conn.db.flush_prepared_statement_cache();
                    statement = conn.db.prepare_cached(text)?;
                    let traits = conn.authorizer.statement_traits().unwrap_or_default();
                    conn.remember_traits(text, traits, kind);
                    traits
                }
            },
        };
        // Blanks and comments alone compile to nothing, which is not cached and cannot be run.
        if statement.readonly()
            && statement.column_count() == 0
            && statement.expanded_sql().is_none()
        {
            return Err(rusqlite::Error::InvalidQuery);
        }
        return Ok((PreparedStatement::Cached(statement), traits));
    }
    use rusqlite::fallible_iterator::FallibleIterator;
    let mut batch = Batch::new(&conn.db, text);
    let statement = batch.next()?.ok_or(rusqlite::Error::InvalidQuery)?;
    let traits = conn.authorizer.statement_traits().unwrap_or_default();
    if batch.next()?.is_some() {
        return Err(rusqlite::Error::MultipleStatement);
    }
    Ok((PreparedStatement::Uncached(statement), traits))
}

/// SQLite says of EXPLAIN what it would say of the statement explained.
fn is_write(prepared: &PreparedStatement<'_>, run: StatementRun<'_>) -> bool {
    run.writes.unwrap_or_else(|| !prepared.readonly() && prepared.is_explain() == 0)
}

/// The caller may only read.
pub(super) fn read_only_error() -> Error {
    Error::new(Code::Forbidden, "this credential may only read, and the call would write")
}

/// SQLite compiles with the schema that the connection saw last, and looks whether it is still the
/// newest for some errors only. A statement that runs always looks, so after one the statement
/// fails for its own fault.
fn prepare_again<'conn>(
    conn: &'conn SqliteConnection,
    run: StatementRun<'_>,
) -> Result<(PreparedStatement<'conn>, StatementTraits)> {
    refresh_schema(conn)?;
    conn.authorizer.set_rights(run.rights);
    conn.authorizer.reset();
    prepare_statement(conn, run)
}

/// Has the connection see the newest schema.
fn refresh_schema(conn: &SqliteConnection) -> Result<()> {
    conn.prepare_internal("/*debros*/ SELECT 1 FROM sqlite_schema LIMIT 1")
        .and_then(|mut look| look.exists([]))
        .map_err(error_mapping::map_sqlite_error)
        .map(|_| ())
}

/// Has a reading connection see a schema that is new to it. A statement that reads no table (a view
/// of numbers) does not look when it runs, and would give what the view was when the connection saw
/// it last.
pub(super) fn refresh_schema_for(conn: &SqliteConnection, generation: u64) -> Result<()> {
    if conn.replace_generation(generation) {
        conn.db.flush_prepared_statement_cache();
        refresh_schema(conn)?;
    }
    Ok(())
}

fn empty_statement_error() -> Error {
    Error::invalid("the SQL text holds no statement")
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
