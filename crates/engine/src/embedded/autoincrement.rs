//! AUTOINCREMENT that has no number left.

use super::authorizer::StatementRights;
use super::statement_run::StatementRun;
use super::writer_conn::WriterConnection;
use debros_proto::{Code, Error};
use std::collections::HashMap;

/// SQLite says "full" as well where AUTOINCREMENT has no number left, which no room helps. That is
/// so when the statement has a number made for a table whose last number was given, before or by
/// the statement itself.
pub(super) fn autoincrement_error(conn: &WriterConnection, run: StatementRun<'_>) -> Option<Error> {
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
