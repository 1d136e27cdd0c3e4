//! Asking SQLite whether a file is whole.

use rusqlite::Connection;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// All pages and rows.
    Quick,
    /// The indexes' agreement with the tables as well.
    Full,
}

/// What is wrong with the file, in SQLite's words, at most ten lines; `None` when nothing is.
pub(super) fn findings(db: &Connection, depth: Depth) -> rusqlite::Result<Option<String>> {
    let pragma = match depth {
        Depth::Quick => "PRAGMA quick_check(10)",
        Depth::Full => "PRAGMA integrity_check(10)",
    };
    let lines = db.prepare(pragma)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok((lines != ["ok"]).then(|| lines.join("; ")))
}
