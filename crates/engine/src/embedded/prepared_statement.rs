//! Compiling a statement for a connection, or finding it compiled.

use super::authorizer::{StatementRights, StatementTraits};
use super::conn::{INTERNAL_SQL_MARK, SqliteConnection};
use super::error_mapping;
use super::statement_run::StatementRun;
use debros_proto::{Error, Result};
use rusqlite::{Batch, CachedStatement};
use std::ops::{Deref, DerefMut};

/// Longer texts are compiled for each use: they are rarely the same twice, and would fill the
/// cache.
const CACHED_BYTES: usize = 16 << 10;
/// Texts with more semicolons than a trigger needs are compiled without the cache, whose
/// preparation of what follows the first statement goes one call deeper for each semicolon.
const CACHED_SEMICOLONS: usize = 100;
/// A compiled statement of a user or of the node, kept for the next time or not.
pub(super) enum PreparedStatement<'conn> {
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

/// Compiles a statement, or finds it compiled.
pub(super) fn prepare_statement<'conn>(
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
pub(super) fn is_write(prepared: &PreparedStatement<'_>, run: StatementRun<'_>) -> bool {
    run.writes.unwrap_or_else(|| !prepared.readonly() && prepared.is_explain() == 0)
}

/// SQLite compiles with the schema that the connection saw last, and looks whether it is still the
/// newest for some errors only. A statement that runs always looks, so after one the statement
/// fails for its own fault.
pub(super) fn prepare_again<'conn>(
    conn: &'conn SqliteConnection,
    run: StatementRun<'_>,
) -> Result<(PreparedStatement<'conn>, StatementTraits)> {
    refresh_schema(conn)?;
    conn.authorizer.set_rights(run.rights);
    conn.authorizer.reset();
    prepare_statement(conn, run)
}

/// Has the connection see the newest schema.
pub(super) fn refresh_schema(conn: &SqliteConnection) -> Result<()> {
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
