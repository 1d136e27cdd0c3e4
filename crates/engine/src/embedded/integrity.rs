//! Asking SQLite whether a file is whole.

use rusqlite::Connection;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckDepth {
    /// All pages and rows.
    Quick,
    /// The indexes' agreement with the tables as well.
    Full,
}

/// The most findings that SQLite is asked for: those about content may be many, and hide what comes
/// after them.
const MAX_FINDINGS: u32 = 100_000;
/// Lines of findings that are reported.
const REPORTED_LINES: usize = 10;

/// How findings begin that are about what was written and not about the file. Ordinary statements
/// bring them about: an index for full-text search that is kept beside its table by hand. CHECKs,
/// to which ALTER TABLE may give another meaning, are not looked at.
const CONTENT_FINDINGS: [&str; 6] = [
    "NULL value in ",
    "NUMERIC value in ",
    "TEXT value in ",
    "malformed inverted index for FTS",
    "unable to validate the inverted index for FTS",
    "In RTree ",
];

/// What is wrong with the file, in SQLite's words, at most ten lines; `None` when nothing is.
pub(super) fn check_integrity(
    db: &Connection,
    depth: CheckDepth,
) -> rusqlite::Result<Option<String>> {
    let pragma = match depth {
        CheckDepth::Quick => "PRAGMA quick_check",
        CheckDepth::Full => "PRAGMA integrity_check",
    };
    db.pragma_update(None, "ignore_check_constraints", true)?;
    let found = file_findings(db, &format!("{pragma}({MAX_FINDINGS})"));
    db.pragma_update(None, "ignore_check_constraints", false)?;
    let lines = found?;
    Ok((!lines.is_empty()).then(|| lines.join("; ")))
}

fn file_findings(db: &Connection, pragma: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare(pragma)?;
    let mut rows = statement.query([])?;
    let mut lines = Vec::new();
    loop {
        let line: String = match rows.next() {
            Ok(Some(row)) => row.get(0)?,
            Ok(None) => break,
            // What was found before says more.
            Err(_) if !lines.is_empty() => break,
            Err(error) => return Err(error),
        };
        let is_of_content = line == "ok"
            || CONTENT_FINDINGS.iter().any(|start| line.starts_with(start))
            || is_type_finding(&line);
        if !is_of_content {
            // What is wrong with the pages is one row.
            lines.extend(line.lines().take(REPORTED_LINES - lines.len()).map(str::to_owned));
        }
        if lines.len() == REPORTED_LINES {
            break;
        }
    }
    Ok(lines)
}

/// `non-INT value in t.a`: of a column of a STRICT table.
fn is_type_finding(line: &str) -> bool {
    line.strip_prefix("non-")
        .and_then(|rest| rest.split_once(' '))
        .is_some_and(|(_, rest)| rest.starts_with("value in "))
}
