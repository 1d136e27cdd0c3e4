//! Running one statement on a connection, and turning its outcome into a result.

use super::config::Limits;
use super::conn::{BRIEF_LENGTH, Conn, OWN};
use super::deadline::Stopwatch;
use super::failure;
use super::gate::{Facts, Rights};
use debros_proto::rpc::{Row, Statement, StatementResult, Value, value::Kind};
use debros_proto::words::counted;
use debros_proto::{Code, Error, Result};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Batch, CachedStatement};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// Longer texts are compiled for each use: they are rarely the same twice, and would fill the cache.
const CACHED_BYTES: usize = 16 << 10;
/// Texts with more semicolons than a trigger needs are compiled without the cache, whose preparation of what follows the
/// first statement goes one call deeper for each semicolon.
const CACHED_SEMICOLONS: usize = 100;
/// Values in one result: each takes some 40 bytes of memory, however small it is.
const MAX_VALUES: usize = 4_000_000;

/// How much longer than its time by the processor a statement runs by the clock.
const TIMES_BY_CLOCK: u32 = 10;

/// When a statement must be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    /// How long one statement may run.
    pub(super) statement: Duration,
    /// The thread's processor counts, and not the clock, so that a busy machine takes nothing of it. By the clock it is
    /// [`TIMES_BY_CLOCK`] as long at most.
    pub(super) by_processor: bool,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
}

/// A statement as a connection is to run it.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) sql: &'a str,
    pub(super) args: &'a [Value],
    pub(super) rights: Rights<'a>,
    /// The same text comes again, so that it is worth keeping compiled.
    pub(super) recurs: bool,
    /// Whether it writes; `None`: SQLite tells.
    pub(super) writes: Option<bool>,
    /// It tells of the schema without running: SQLite does not look by itself whether the schema is still the newest.
    pub(super) explains: bool,
    /// The names of the result's columns, where they are not those of the text.
    pub(super) columns: Option<&'a [String]>,
}

impl<'a> Run<'a> {
    /// One of the node's own statements.
    pub(super) fn own(statement: &'a Statement) -> Self {
        Self {
            sql: &statement.sql,
            args: &statement.args,
            rights: Rights::Own,
            recurs: true,
            writes: None,
            explains: false,
            columns: None,
        }
    }
}

/// What is left of a call's limits on results.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    rows: usize,
    bytes: usize,
    values: usize,
    max: Limits,
}

impl Allowance {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { rows: limits.rows, bytes: limits.result_bytes, values: MAX_VALUES, max: *limits }
    }

    /// Rows and bytes that may still come.
    pub(super) fn left(&self) -> (usize, usize) {
        (self.rows, self.bytes)
    }

    /// Takes a row's share, or refuses the result.
    pub(super) fn spend(&mut self, row: &Row) -> Result<()> {
        let bytes: usize = row.values.iter().map(Value::size).sum();
        let left = (self.rows.checked_sub(1), self.bytes.checked_sub(bytes), self.values.checked_sub(row.values.len()));
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
enum Prepared<'conn> {
    Kept(CachedStatement<'conn>),
    Once(rusqlite::Statement<'conn>),
}

impl<'conn> Deref for Prepared<'conn> {
    type Target = rusqlite::Statement<'conn>;
    fn deref(&self) -> &Self::Target {
        match self {
            Prepared::Kept(statement) => statement,
            Prepared::Once(statement) => statement,
        }
    }
}

impl DerefMut for Prepared<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Prepared::Kept(statement) => statement,
            Prepared::Once(statement) => statement,
        }
    }
}

/// What a text turned out to be on a connection that only reads.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It reads, and this is what it read.
    Read(StatementResult, Facts),
    /// It writes; nothing was run.
    Writes(Facts),
}

/// Runs the statement if it only reads.
pub(super) fn read(conn: &Conn, run: Run<'_>, time: Time, limits: &Limits) -> Result<Outcome> {
    with_time(conn, time, || run_read(conn, run, limits)).map_err(|error| match error.code {
        // A statement that reads writes nothing but temporary files.
        Code::DatabaseFull => no_room_for_files(),
        _ => explain(conn, error),
    })
}

/// Runs the statement if it only reads, is done within some 2,000 steps of SQLite's machine and some milliseconds since `watch`
/// began, and meets no long value. `None`: it was not, or did.
pub(super) fn read_quickly(conn: &Conn, run: Run<'_>, limits: &Limits, watch: &Stopwatch) -> Option<Result<Outcome>> {
    // What is long makes a single step long, which nothing breaks off.
    if run.args.iter().map(Value::size).sum::<usize>() > BRIEF_LENGTH {
        return None;
    }
    let outcome = {
        let _brief = match conn.briefly(watch) {
            Ok(brief) => brief,
            Err(error) => return Some(Err(failure::of(error))),
        };
        run_read(conn, run, limits)
    };
    match outcome {
        Err(error) if is_over(conn, &error) || error.code == Code::TooLarge => None,
        outcome => Some(outcome.map_err(|error| explain(conn, error))),
    }
}

fn run_read(conn: &Conn, run: Run<'_>, limits: &Limits) -> Result<Outcome> {
    if run.explains {
        look(conn)?;
    }
    conn.gate.enter(run.rights);
    conn.gate.reset();
    let (mut prepared, facts) = match prepare(conn, run) {
        Ok(prepared) => prepared,
        Err(error) if error.code == Code::Sql && !conn.gate.is_late() => prepare_again(conn, run)?,
        Err(error) => return Err(error),
    };
    if writes(&prepared, run) {
        return Ok(Outcome::Writes(if prepared.column_count() > 0 { facts.returning() } else { facts }));
    }
    let mut result = StatementResult::default();
    within_bounds(conn, facts, || {
        bind(&mut prepared, run.args)?;
        collect(&mut prepared, run.columns, &mut result, &mut Allowance::new(limits))
    })?;
    Ok(Outcome::Read(result, facts))
}

/// What a statement did inside the transaction that is open.
pub(super) struct Wrote {
    pub(super) result: StatementResult,
    pub(super) facts: Facts,
}

/// Runs the statement inside the transaction that is open. With `read_only`, one that would write is refused.
pub(super) fn write(
    conn: &Conn,
    run: Run<'_>,
    time: Time,
    read_only: bool,
    allowance: &mut Allowance,
) -> Result<Wrote> {
    let act = || {
        conn.gate.enter(run.rights);
        conn.gate.reset();
        let (mut prepared, facts) = prepare(conn, run)?;
        let writes = writes(&prepared, run);
        if writes && read_only {
            return Err(forbidden());
        }
        if writes {
            conn.growth.write(facts.only_removes())?;
        }
        if facts.defines() || facts.alters() {
            conn.note_schema_change();
        }
        conn.forget_inserted();
        let changes_before = conn.db.total_changes();
        let mut result = StatementResult::default();
        within_bounds(conn, facts, || {
            bind(&mut prepared, run.args)?;
            collect(&mut prepared, run.columns, &mut result, allowance)
        })
        .map_err(|error| match error.code {
            Code::DatabaseFull => exhausted(conn, run).unwrap_or(error),
            _ => error,
        })?;
        if writes {
            // SQLite keeps both numbers from the statement before when this one changed nothing, and a CREATE VIRTUAL
            // TABLE counts what its module writes for itself.
            let counts = !facts.defines() && conn.db.total_changes() != changes_before;
            result.rows_affected = Some(if counts { conn.db.changes() } else { 0 });
            let inserted = if counts && facts.inserts() { conn.inserted() } else { None };
            result.last_insert_id = Some(inserted.unwrap_or(0));
        }
        Ok(Wrote { result, facts })
    };
    with_time(conn, time, act).map_err(|error| explain(conn, error))
}

fn no_room_for_files() -> Error {
    Error::new(
        Code::DiskFull,
        "the disk has no room for the temporary files of the statement: sort, group or join less at once",
    )
    .retry_after(Duration::from_secs(10))
}

/// SQLite says "full" as well where AUTOINCREMENT has no number left, which no room helps. That is so when the statement has a
/// number made for a table whose last number was given, before or by the statement itself.
fn exhausted(conn: &Conn, run: Run<'_>) -> Option<Error> {
    conn.gate.enter(Rights::Own);
    // What the failed statement gave is not in sqlite_sequence.
    let tables = "SELECT s.rootpage, s.name, coalesce(q.seq = 9223372036854775807, 0)
        FROM main.sqlite_schema s LEFT JOIN main.sqlite_sequence q ON q.name = s.name WHERE s.type = 'table'";
    let mut tables = conn.db.prepare(tables).ok()?;
    let tables: Vec<(i64, String, bool)> =
        tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).and_then(Iterator::collect).ok()?;
    let at_end = tables.into_iter().filter(|(_, name, before)| *before || conn.was_given_the_last_row(name));
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
fn within_bounds(conn: &Conn, facts: Facts, run: impl FnOnce() -> Result<()>) -> Result<()> {
    let Some((function, bytes)) = facts.square() else { return run() };
    let _short = conn.shortened(bytes).map_err(failure::of)?;
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
pub(super) fn with_time<T>(conn: &Conn, time: Time, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let limit = Instant::now() + time.statement * if time.by_processor { TIMES_BY_CLOCK } else { 1 };
    conn.limit(limit.min(time.deadline));
    if time.by_processor {
        conn.limit_processor(time.statement);
    }
    let outcome = run();
    conn.unlimited();
    outcome.map_err(|error| match error.code {
        _ if !is_over(conn, &error) => error,
        Code::StatementTimeout if conn.spilled().is_some() => conn.spilled().unwrap_or(error),
        _ if limit <= time.deadline || (time.by_processor && Instant::now() < time.deadline) => Error::new(
            Code::StatementTimeout,
            format!(
                "the statement ran longer than {} s and was interrupted; nothing was changed",
                time.statement.as_secs_f64()
            ),
        ),
        _ => Error::new(
            Code::DeadlineExceeded,
            "the statement was not done by the deadline and was interrupted; nothing was changed",
        ),
    })
}

/// Whether the statement was interrupted, while it ran or while it was compiled.
fn is_over(conn: &Conn, error: &Error) -> bool {
    error.code == Code::StatementTimeout || conn.gate.is_late()
}

/// The authorizer's own words are better than SQLite's "not authorized".
fn explain(conn: &Conn, error: Error) -> Error {
    match conn.gate.refusal() {
        Some(reason) if matches!(error.code, Code::StatementNotAllowed | Code::Sql) => {
            // The first line lets nothing through that the second refuses.
            tracing::error!(reason, "a statement was refused while it was compiled");
            Error::new(Code::StatementNotAllowed, reason)
        }
        _ => error,
    }
}

fn prepare<'conn>(conn: &'conn Conn, run: Run<'_>) -> Result<(Prepared<'conn>, Facts)> {
    let mut compiled = compile(conn, run);
    if conn.gate.hid_statistics() {
        // From an R-Tree, which the connection has met now, or from the statement itself: that is seen the second time.
        if let Ok((Prepared::Kept(statement), _)) = compiled {
            statement.discard();
        }
        conn.gate.enter(run.rights);
        conn.gate.reset();
        conn.gate.be_strict(true);
        compiled = compile(conn, run);
        conn.gate.be_strict(false);
    }
    compiled.map_err(|error| match (run.rights, error) {
        // The place would be one in a text that the user never saw.
        (Rights::Tenant(_), rusqlite::Error::SqlInputError { error, msg, .. }) => {
            failure::of(rusqlite::Error::SqliteFailure(error, Some(msg)))
        }
        (_, rusqlite::Error::InvalidQuery) => empty(),
        (_, error) => failure::of(error),
    })
}

/// `InvalidQuery` when there is no statement.
fn compile<'conn>(conn: &'conn Conn, run: Run<'_>) -> rusqlite::Result<(Prepared<'conn>, Facts)> {
    let text = run.sql.trim_end_matches(|sign: char| sign == ';' || sign.is_ascii_whitespace()).trim_start();
    let kind = run.rights.kind();
    let keep = run.recurs
        && text.len() <= CACHED_BYTES
        && !text.contains(OWN)
        && text.bytes().filter(|byte| *byte == b';').count() <= CACHED_SEMICOLONS;
    if keep {
        let mut statement = conn.db.prepare_cached(text)?;
        let facts = match conn.gate.facts() {
            Some(facts) => {
                conn.remember(text, facts, kind);
                facts
            }
            None => match conn.recall(text, kind) {
                Some(facts) => facts,
                // Compiled with other rights: it is compiled again, with these.
                None => {
                    statement.discard();
                    conn.db.flush_prepared_statement_cache();
                    statement = conn.db.prepare_cached(text)?;
                    let facts = conn.gate.facts().unwrap_or_default();
                    conn.remember(text, facts, kind);
                    facts
                }
            },
        };
        // Blanks and comments alone compile to nothing, which is not cached and can not be run.
        if statement.readonly() && statement.column_count() == 0 && statement.expanded_sql().is_none() {
            return Err(rusqlite::Error::InvalidQuery);
        }
        return Ok((Prepared::Kept(statement), facts));
    }
    use rusqlite::fallible_iterator::FallibleIterator;
    let mut batch = Batch::new(&conn.db, text);
    let statement = batch.next()?.ok_or(rusqlite::Error::InvalidQuery)?;
    let facts = conn.gate.facts().unwrap_or_default();
    if batch.next()?.is_some() {
        return Err(rusqlite::Error::MultipleStatement);
    }
    Ok((Prepared::Once(statement), facts))
}

/// SQLite says of EXPLAIN what it would say of the statement explained.
fn writes(prepared: &Prepared<'_>, run: Run<'_>) -> bool {
    run.writes.unwrap_or_else(|| !prepared.readonly() && prepared.is_explain() == 0)
}

/// The caller may only read.
pub(super) fn forbidden() -> Error {
    Error::new(Code::Forbidden, "this credential may only read, and the call would write")
}

/// SQLite compiles with the schema that the connection saw last, and looks whether it is still the newest for some errors
/// only. A statement that runs always looks, so after one the statement fails for its own fault.
fn prepare_again<'conn>(conn: &'conn Conn, run: Run<'_>) -> Result<(Prepared<'conn>, Facts)> {
    look(conn)?;
    conn.gate.enter(run.rights);
    conn.gate.reset();
    prepare(conn, run)
}

/// Has the connection see the newest schema.
fn look(conn: &Conn) -> Result<()> {
    conn.own("/*debros*/ SELECT 1 FROM sqlite_schema LIMIT 1")
        .and_then(|mut look| look.exists([]))
        .map_err(failure::of)
        .map(|_| ())
}

/// Has a reading connection see a schema that is new to it. A statement that reads no table (a view of numbers) does not
/// look when it runs, and would give what the view was when the connection saw it last.
pub(super) fn see(conn: &Conn, generation: u64) -> Result<()> {
    if conn.meets_schema(generation) {
        conn.db.flush_prepared_statement_cache();
        look(conn)?;
    }
    Ok(())
}

fn empty() -> Error {
    Error::invalid("the SQL text holds no statement")
}

fn bind(prepared: &mut Prepared<'_>, args: &[Value]) -> Result<()> {
    check_count(prepared.parameter_count(), args.len())?;
    for (index, value) in args.iter().enumerate() {
        prepared.raw_bind_parameter(index + 1, ToSqlOutput::Borrowed(as_sqlite(value))).map_err(failure::of)?;
    }
    Ok(())
}

/// Refuses another number of arguments than the statement takes.
pub(super) fn check_count(wanted: usize, given: usize) -> Result<()> {
    if wanted == given {
        return Ok(());
    }
    let takes = counted(wanted as u64, "argument");
    Err(Error::new(Code::Sql, format!("the statement takes {takes}; given: {given}")))
}

fn as_sqlite(value: &Value) -> ValueRef<'_> {
    match &value.kind {
        None => ValueRef::Null,
        Some(Kind::Integer(integer)) => ValueRef::Integer(*integer),
        Some(Kind::Real(real)) => ValueRef::Real(*real),
        Some(Kind::Text(text)) => ValueRef::Text(text.as_bytes()),
        Some(Kind::Blob(blob)) => ValueRef::Blob(blob),
    }
}

fn collect(
    prepared: &mut Prepared<'_>,
    names: Option<&[String]>,
    result: &mut StatementResult,
    allowance: &mut Allowance,
) -> Result<()> {
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next().map_err(failure::of)? {
        let columns = row.as_ref().column_count();
        let mut values = Vec::with_capacity(columns);
        for column in 0..columns {
            let value = row.get_ref(column).map_err(failure::of)?;
            values.push(from_sqlite(value).ok_or_else(|| not_text(row.as_ref().column_name(column).unwrap_or("")))?);
        }
        let row = Row { values };
        allowance.spend(&row)?;
        result.rows.push(row);
    }
    drop(rows);
    // Only now: the first step compiles a statement again whose tables were changed since, and the columns with it.
    result.columns = match names {
        None => prepared.column_names().map(str::to_owned).collect(),
        // What SQLite looks at inside some forms of ALTER TABLE shows as a column.
        Some([]) => Vec::new(),
        Some(names) if names.len() == prepared.column_count() => names.to_vec(),
        // Only when the schema moved between: whoever sees it looks, and runs the statement again.
        Some(_) => return Err(Error::new(Code::Unavailable, "the schema changed while the statement ran; try again")),
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

fn not_text(column: &str) -> Error {
    Error::new(
        Code::Sql,
        format!("the column \"{column}\" holds text that is not UTF-8: read its bytes with CAST(… AS BLOB)"),
    )
}

#[cfg(test)]
mod tests;
