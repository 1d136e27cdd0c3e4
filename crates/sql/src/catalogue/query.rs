//! Answering from the catalogue itself.

use super::{Catalogue, CatalogueDb};
use crate::error_mapping;
use debros_proto::rpc::{Value, value::Kind};
use debros_proto::{Code, Error, Result};
use rusqlite::types::{ToSqlOutput, ValueRef};
use std::time::{Duration, Instant};

/// How long a question may run in the catalogue itself, which nobody else can use meanwhile. A copy
/// takes a tenth of a millisecond or two, which most questions are not worth.
const SHARED_TIME: Duration = Duration::from_millis(5);
/// SQLite's instructions between two checks of the clock.
const STEPS_PER_LOOK: i32 = 200;

/// The answer to a question about the schema.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogueRows {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
}

impl Catalogue {
    /// Runs a statement whose [`target`](crate::ExecutionTarget) is the catalogue, in the user's
    /// own text.
    ///
    /// # Errors
    /// SQLite's error, in the user's words; `statement_timeout` after `deadline`;
    /// `result_too_large` above `max_rows` or `max_bytes`; `internal` for a statement that would
    /// change the catalogue.
    pub fn query(
        &self,
        sql: &str,
        args: &[Value],
        deadline: Instant,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<CatalogueRows> {
        let soon = deadline.min(Instant::now() + SHARED_TIME);
        let limits = (max_rows, max_bytes);
        let answered = self.lock().query(sql, args, soon, limits);
        match answered {
            // No other caller waits for a copy.
            Err(error) if error.code == Code::StatementTimeout && soon < deadline => {
                let copy = self.fork()?;
                let mut inner = copy.lock();
                inner.query(sql, args, deadline, limits)
            }
            answered => answered,
        }
    }
}

impl CatalogueDb {
    fn query(
        &mut self,
        sql: &str,
        args: &[Value],
        deadline: Instant,
        limits: (usize, usize),
    ) -> Result<CatalogueRows> {
        let armed =
            self.db.progress_handler(STEPS_PER_LOOK, Some(move || Instant::now() > deadline));
        let result = match armed {
            Ok(()) => run_query(self, sql, args, deadline, limits),
            Err(_) => Err(super::broken_catalogue_error()),
        };
        // Removing a handler cannot fail where installing it did not.
        let _ = self.db.progress_handler(0, None::<fn() -> bool>);
        result
    }
}

fn run_query(
    inner: &CatalogueDb,
    sql: &str,
    args: &[Value],
    deadline: Instant,
    limits: (usize, usize),
) -> Result<CatalogueRows> {
    inner.recorder.begin_recording(deadline);
    let result = collect_rows(inner, sql, args, limits);
    let record = inner.recorder.end_recording();
    match result {
        Ok(Some(rows)) => Ok(rows),
        Ok(None) => Err(Error::new(
            Code::ResultTooLarge,
            format!(
                "the result has more than {} rows or {} bytes: ask for fewer",
                limits.0, limits.1
            ),
        )),
        Err(error) => Err(error_mapping::map_compile_error(error, record, sql)),
    }
}

/// `None` if there is more than allowed: rows, bytes.
fn collect_rows(
    inner: &CatalogueDb,
    sql: &str,
    args: &[Value],
    limits: (usize, usize),
) -> rusqlite::Result<Option<CatalogueRows>> {
    let mut statement = inner.db.prepare(sql)?;
    if !statement.readonly() && statement.is_explain() == 0 {
        return Err(rusqlite::Error::InvalidQuery);
    }
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let width = columns.len();
    let explains = statement.is_explain() == 1;
    let mut bytes = 0;
    let mut found = CatalogueRows { columns, rows: Vec::new() };
    let mut rows = statement.query(rusqlite::params_from_iter(args.iter().map(QueryArgument)))?;
    while let Some(row) = rows.next()? {
        let mut values: Vec<Value> = (0..width)
            .map(|index| row.get_ref(index).map(to_proto_value))
            .collect::<rusqlite::Result<_>>()?;
        if explains {
            values.iter_mut().for_each(strip_address);
        }
        bytes += values.iter().map(Value::size).sum::<usize>();
        if found.rows.len() == limits.0 || bytes > limits.1 {
            return Ok(None);
        }
        found.rows.push(values);
    }
    Ok(Some(found))
}

/// EXPLAIN names virtual tables by their addresses in the process's memory, which callers must not
/// see.
fn strip_address(value: &mut Value) {
    if let Some(Kind::Text(text)) = &mut value.kind
        && text
            .strip_prefix("vtab:")
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        text.truncate("vtab".len());
    }
}

struct QueryArgument<'a>(&'a Value);

impl rusqlite::ToSql for QueryArgument<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match &self.0.kind {
            None => ValueRef::Null,
            Some(Kind::Integer(integer)) => ValueRef::Integer(*integer),
            Some(Kind::Real(real)) => ValueRef::Real(*real),
            Some(Kind::Text(text)) => ValueRef::Text(text.as_bytes()),
            Some(Kind::Blob(blob)) => ValueRef::Blob(blob),
        }))
    }
}

/// A value as the protocol has it. Text that is not UTF-8 becomes a BLOB, so that no byte is lost.
pub(crate) fn to_proto_value(value: ValueRef<'_>) -> Value {
    let kind = match value {
        ValueRef::Null => return Value::NULL,
        ValueRef::Integer(integer) => Kind::Integer(integer),
        ValueRef::Real(real) => Kind::Real(real),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Kind::Text(text.to_owned()),
            Err(_) => Kind::Blob(text.to_vec().into()),
        },
        ValueRef::Blob(blob) => Kind::Blob(blob.to_vec().into()),
    };
    Value { kind: Some(kind) }
}
