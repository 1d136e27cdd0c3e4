//! Which rows are reported, and with which values.

use debros_row_capture::observe_changes;
use rusqlite::Connection;
use rusqlite::types::Value;
use std::sync::{Arc, Mutex};

fn observed(schema: &str) -> (Connection, Arc<Mutex<Vec<String>>>) {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(schema).unwrap();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let notes = Arc::clone(&seen);
    observe_changes(&connection, move |event| {
        let mut line = format!(
            "{:?} {} {}->{}",
            event.operation, event.table, event.old_rowid, event.new_rowid
        );
        let mut values = Vec::new();
        if event.operation != debros_row_capture::RowOperation::Insert {
            event.old_values(&mut |value| values.push(Value::try_from(value).unwrap())).unwrap();
            line += &format!(" old {values:?}");
        }
        values.clear();
        if event.operation != debros_row_capture::RowOperation::Delete {
            event.new_values(&mut |value| values.push(Value::try_from(value).unwrap())).unwrap();
            line += &format!(" new {values:?}");
        }
        notes.lock().unwrap().push(line);
    })
    .unwrap();
    (connection, seen)
}

fn changes(schema: &str, sql: &str) -> Vec<String> {
    let (connection, seen) = observed(schema);
    connection.execute_batch(sql).unwrap();
    seen.lock().unwrap().clone()
}

#[test]
fn rows_come_with_their_values() {
    assert_eq!(
        changes(
            "CREATE TABLE t (a, b TEXT, c REAL, d INTEGER PRIMARY KEY)",
            "INSERT INTO t VALUES (NULL, 'x', 3, 7), (x'00ff', '', 1.5, 8);
             UPDATE t SET b = 'y', d = 9 WHERE d = 7; DELETE FROM t WHERE d = 9",
        ),
        [
            "Insert t 0->7 new [Null, Text(\"x\"), Real(3.0), Integer(7)]",
            "Insert t 0->8 new [Blob([0, 255]), Text(\"\"), Real(1.5), Integer(8)]",
            "Update t 7->9 old [Null, Text(\"x\"), Real(3.0), Integer(7)] new [Null, Text(\"y\"), Real(3.0), Integer(9)]",
            "Delete t 9->0 old [Null, Text(\"y\"), Real(3.0), Integer(9)]",
        ]
    );
}

#[test]
fn rows_that_a_conflict_replaces_are_reported_as_removed() {
    assert_eq!(
        changes(
            "CREATE TABLE t (k TEXT UNIQUE); INSERT INTO t VALUES ('a')",
            "REPLACE INTO t VALUES ('a')",
        ),
        ["Delete t 1->0 old [Text(\"a\")]", "Insert t 0->2 new [Text(\"a\")]"]
    );
}

#[test]
fn a_table_that_is_emptied_reports_each_row() {
    assert_eq!(
        changes("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)", "DELETE FROM t"),
        ["Delete t 1->0 old [Integer(1)]", "Delete t 2->0 old [Integer(2)]"]
    );
}

#[test]
fn tables_without_rowid_and_generated_columns_are_reported() {
    assert_eq!(
        changes(
            "CREATE TABLE t (v AS (a || '!'), a TEXT, s AS (a || '?') STORED, b INTEGER, PRIMARY KEY (b, a)) WITHOUT ROWID",
            "INSERT INTO t (a, b) VALUES ('x', 1); UPDATE t SET a = 'y'; DELETE FROM t",
        ),
        [
            "Insert t 0->0 new [Null, Text(\"x\"), Text(\"x?\"), Integer(1)]",
            "Update t 0->0 old [Null, Text(\"x\"), Text(\"x?\"), Integer(1)] new [Null, Text(\"y\"), Text(\"y?\"), Integer(1)]",
            "Delete t 0->0 old [Null, Text(\"y\"), Text(\"y?\"), Integer(1)]",
        ]
    );
    assert_eq!(
        changes(
            "CREATE TABLE t (v AS (a || '!'), a TEXT, s AS (a || '?') STORED, b INTEGER)",
            "INSERT INTO t (a, b) VALUES ('x', 1); UPDATE t SET a = 'y'; DELETE FROM t",
        ),
        [
            "Insert t 0->1 new [Null, Text(\"x\"), Text(\"x?\"), Integer(1)]",
            "Update t 1->1 old [Null, Text(\"x\"), Text(\"x?\"), Integer(1)] new [Null, Text(\"y\"), Text(\"y?\"), Integer(1)]",
            "Delete t 1->0 old [Null, Text(\"y\"), Text(\"y?\"), Integer(1)]",
        ]
    );
}

#[test]
fn a_column_added_later_and_a_trigger_are_reported() {
    assert_eq!(
        changes(
            "CREATE TABLE t (a); INSERT INTO t VALUES (1); ALTER TABLE t ADD COLUMN b DEFAULT 5;
             CREATE TABLE log (x); CREATE TRIGGER g AFTER UPDATE ON t BEGIN INSERT INTO log VALUES (new.b); END",
            "UPDATE t SET a = 2",
        ),
        [
            "Update t 1->1 old [Integer(1), Integer(5)] new [Integer(2), Integer(5)]",
            "Insert log 0->1 new [Integer(5)]",
        ]
    );
}

#[test]
fn full_text_tables_are_reported_with_their_own_tables() {
    let lines = changes(
        "CREATE VIRTUAL TABLE f USING fts5(body)",
        "INSERT INTO f VALUES ('one two'); DELETE FROM f WHERE f MATCH 'two'",
    );
    for table in ["f_content", "f_docsize", "f_data"] {
        assert!(lines.iter().any(|line| line.contains(&format!(" {table} "))), "{lines:#?}");
    }
}

#[test]
fn a_later_observer_takes_the_place_of_the_earlier() {
    let (connection, seen) = observed("CREATE TABLE t (a)");
    let count = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&count);
    observe_changes(&connection, move |_| *counter.lock().unwrap() += 1).unwrap();
    // The first observer was dropped.
    assert_eq!(Arc::strong_count(&seen), 1);
    connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    assert_eq!((*count.lock().unwrap(), seen.lock().unwrap().len()), (1, 0));
    connection.close().unwrap();
    assert_eq!(Arc::strong_count(&count), 1);
}
