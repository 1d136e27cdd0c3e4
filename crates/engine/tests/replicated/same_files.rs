//! Whether two engines' folders hold the same.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tables that each node has for itself.
const LOCAL: [&str; 5] =
    ["_debros_moment", "_debros_position", "_debros_about", "namespace_usage", "schema_migrations"];

/// Compares every object and every row, with its rowid. A file that nothing was written to is none.
pub(crate) fn assert_same_files(leader: &Path, follower: &Path) {
    let (ours, theirs) = (databases(leader), databases(follower));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, path) in &ours {
        assert_same_file(name, path, &theirs[name]);
    }
}

/// As [`assert_same_files`], of one file.
pub(crate) fn assert_same_file(name: &str, ours: &Path, theirs: &Path) {
    let (ours, theirs) = (content(ours), content(theirs));
    let mut different = Vec::new();
    for (object, rows) in &ours {
        // As texts: a negative zero is not the other one.
        let (rows, others) = (format!("{rows:?}"), format!("{:?}", theirs.get(object)));
        if format!("Some({rows})") != others {
            different.push(format!("{name}: {object}\n  {rows}\n  {others}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert_eq!(ours.len(), theirs.len(), "{name}");
}

fn databases(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::from([("system.db".to_owned(), folder.join("system.db"))]);
    for file in std::fs::read_dir(folder.join("ns")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "db") && is_written(&path) {
            found.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), path);
        }
    }
    found
}

fn is_written(path: &Path) -> bool {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    db.query_row("SELECT EXISTS (SELECT 1 FROM _debros_position)", [], |row| row.get(0)).unwrap()
}

fn content(path: &Path) -> BTreeMap<String, Vec<Vec<Value>>> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    let mut all = BTreeMap::from([("integrity".to_owned(), vec![vec![Value::Text(check)]])]);
    let mut objects =
        db.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY name").unwrap();
    let objects: Vec<(String, String, Option<String>)> = objects
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (kind, name, sql) in objects {
        if LOCAL.contains(&name.as_str()) || name.starts_with("sqlite_autoindex__debros") {
            continue;
        }
        let sql = sql.map_or(Value::Null, Value::Text);
        let is_virtual =
            matches!(&sql, Value::Text(sql) if sql.to_uppercase().starts_with("CREATE VIRTUAL"));
        all.insert(format!("{kind} {name}"), vec![vec![sql]]);
        if kind == "table" && !is_virtual {
            all.insert(format!("rows of {name}"), rows(&db, &name));
        }
    }
    all
}

fn rows(db: &Connection, table: &str) -> Vec<Vec<Value>> {
    let table = table.replace('"', "\"\"");
    let all = |columns: &str| -> rusqlite::Result<Vec<Vec<Value>>> {
        let mut select = db.prepare(&format!("SELECT {columns} FROM \"{table}\""))?;
        let width = select.column_count();
        let mut rows = select.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(
                (0..width)
                    .map(|column| row.get_ref(column).map(owned))
                    .collect::<Result<_, _>>()?,
            );
        }
        Ok(found)
    };
    let mut found = all("rowid, _rowid_, oid, *").or_else(|_| all("*")).unwrap();
    found.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
    found
}

/// Text that is not UTF-8 comes as its bytes.
fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Text(text) => String::from_utf8(text.to_vec())
            .map_or_else(|error| Value::Blob(error.into_bytes()), Value::Text),
        other => other.try_into().unwrap(),
    }
}
