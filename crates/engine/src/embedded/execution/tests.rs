//! What one statement may cost the thread it runs on.

use super::{
    ReadAttempt, StatementRun, TimeLimit, read_quickly, run_if_read_only, with_time_limit,
};
use crate::embedded::config::CallLimits;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::deadline::Stopwatch;
use crate::embedded::writer_conn::WriterConnection;
use debros_proto::Code;
use debros_proto::rpc::{Statement, Value};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A reader of a file with one long row, number 1, and a short one.
fn reader() -> (TempDir, WriterConnection, SqliteConnection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let writer = WriterConnection::open(&path, 1024).unwrap();
    let sql = "CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT, y); CREATE INDEX t_y ON t(y);
        INSERT INTO t VALUES (1, hex(zeroblob(8000000)), 'b'), (2, 'a', 'b')";
    writer.db.execute_batch(sql).unwrap();
    let reader = SqliteConnection::reader(&path).unwrap();
    (folder, writer, reader)
}

fn time() -> TimeLimit {
    TimeLimit {
        statement: Duration::from_secs(60),
        by_processor: false,
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

/// Whether the statement is done on the calling thread, once it is compiled.
fn is_quick(conn: &SqliteConnection, sql: &str, args: Vec<Value>) -> bool {
    let statement = Statement { args, ..Statement::from(sql) };
    let outcome =
        run_if_read_only(conn, StatementRun::for_node(&statement), time(), &CallLimits::default())
            .unwrap();
    assert!(matches!(outcome, ReadAttempt::Done(..)), "{outcome:?}");
    let mut tries = 0..20;
    // The system may take the processor away from a read that is quick.
    tries.any(|_| {
        read_quickly(
            conn,
            StatementRun::for_node(&statement),
            &CallLimits::default(),
            &Stopwatch::start(),
        )
        .is_some_and(|one| one.is_ok())
    })
}

#[test]
fn long_values_are_not_met_on_the_calling_thread() {
    let (_folder, _writer, conn) = reader();
    for sql in [
        "SELECT x FROM t WHERE id = ?1",
        "SELECT x || x = y FROM t WHERE id = ?1",
        "SELECT max(x) FROM t WHERE id = ?1",
        "SELECT 1 FROM t WHERE id = ?1 AND x > 'a'",
    ] {
        assert!(is_quick(&conn, sql, vec![2.into()]), "{sql}");
        assert!(!is_quick(&conn, sql, vec![1.into()]), "{sql}");
        assert!(is_quick(&conn, sql, vec![2.into()]), "{sql}");
    }
    // What stands beside a long value is as quick as ever.
    assert!(is_quick(&conn, "SELECT y, typeof(x) FROM t WHERE id = ?1", vec![1.into()]));
}

#[test]
fn long_arguments_are_not_met_on_the_calling_thread() {
    let (_folder, _writer, conn) = reader();
    let sql = "SELECT id FROM t WHERE y = ?1";
    assert!(is_quick(&conn, sql, vec!["b".into()]));
    assert!(!is_quick(&conn, sql, vec!["b".repeat(1 << 20).as_str().into()]));
}

#[test]
fn what_takes_many_steps_is_broken_off_on_the_calling_thread_and_only_there() {
    let (_folder, _writer, conn) = reader();
    let sql = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?1) SELECT count(*) FROM c";
    assert!(is_quick(&conn, sql, vec![10.into()]));
    assert!(!is_quick(&conn, sql, vec![10_000.into()]));
    assert!(is_quick(&conn, sql, vec![10.into()]));
}

/// What is known to be quick was quick on another connection. Where it was not compiled on this
/// one, it was never done here.
#[test]
fn what_is_quick_is_compiled_on_the_calling_thread() {
    let (folder, _writer, _) = reader();
    let statement = Statement::from("SELECT id FROM t WHERE y = 'b'");
    let mut tries = 0..20;
    let is_done = tries.any(|_| {
        let conn = SqliteConnection::reader(&folder.path().join("a.db")).unwrap();
        let outcome = read_quickly(
            &conn,
            StatementRun::for_node(&statement),
            &CallLimits::default(),
            &Stopwatch::start(),
        );
        outcome.is_some_and(|outcome| outcome.is_ok())
    });
    assert!(is_done);
}

#[test]
fn what_takes_long_to_compile_is_broken_off_on_the_calling_thread() {
    let (_folder, writer, conn) = reader();
    let mut views = "CREATE VIEW v0 AS SELECT 1 AS a;".to_owned();
    for number in 1..=14 {
        let before = number - 1;
        views += &format!(
            "CREATE VIEW v{number} AS SELECT x.a FROM v{before} x, v{before} y WHERE x.a = y.a;"
        );
    }
    writer.db.execute_batch(&views).unwrap();
    let statement = Statement::from("SELECT a FROM v14");
    assert!(
        read_quickly(
            &conn,
            StatementRun::for_node(&statement),
            &CallLimits::default(),
            &Stopwatch::start()
        )
        .is_none()
    );
}

#[test]
fn functions_that_take_the_square_of_a_texts_length_are_for_short_ones() {
    let (_folder, writer, conn) = reader();
    let sql = "CREATE VIRTUAL TABLE ft USING fts5(x); INSERT INTO ft VALUES ('a short a'), (replace(hex(zeroblob(200000)), '0', 'b '));
        INSERT INTO ft VALUES ('a ' || hex(zeroblob(400000)));
        CREATE VIEW cut AS SELECT snippet(ft, 0, '<', '>', '.', 64) AS s, rowid AS id FROM ft WHERE ft MATCH 'a'";
    writer.db.execute_batch(sql).unwrap();
    let ask = |sql: &str| match run_if_read_only(
        &conn,
        StatementRun::for_node(&sql.into()),
        time(),
        &CallLimits::default(),
    ) {
        Ok(ReadAttempt::Done(result, _)) => Ok(result.rows.len()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(
        ask("SELECT snippet(ft, 0, '<', '>', '.', 64) FROM ft WHERE ft MATCH 'short'").unwrap(),
        1
    );
    assert_eq!(ask("SELECT s FROM cut WHERE id = 1").unwrap(), 1);
    for (function, sql) in [
        ("snippet()", "SELECT snippet(ft, 0, '<', '>', '.', 64) FROM ft WHERE ft MATCH 'b'"),
        ("snippet()", "SELECT s FROM cut"),
        ("highlight()", "SELECT Highlight(ft, 0, '<', '>') FROM ft WHERE ft MATCH 'b'"),
    ] {
        let error = ask(sql).unwrap_err();
        assert_eq!(error.code, Code::TooLarge, "{sql}: {error}");
        assert!(
            error.message.contains(function) && error.message.contains("bytes"),
            "{sql}: {error}"
        );
    }
    // What does not call them meets what is long, before and after.
    assert_eq!(ask("SELECT x, bm25(ft) FROM ft WHERE ft MATCH 'a OR b'").unwrap(), 3);
}

/// As on a machine that is busy with others.
#[test]
fn a_read_that_waits_for_the_processor_loses_nothing_of_its_slice() {
    let (_folder, _writer, conn) = reader();
    let slice = TimeLimit { statement: Duration::from_secs(1), by_processor: true, ..time() };
    let count = |last: &str| {
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n{last}) SELECT count(*) FROM n"
        );
        with_time_limit(&conn, slice, || {
            std::thread::sleep(slice.statement * 2);
            conn.db
                .query_row(&sql, [], |row| row.get::<_, i64>(0))
                .map_err(crate::embedded::error_mapping::map_sqlite_error)
        })
    };
    assert_eq!(count(" WHERE i < 1000"), Ok(1000));
    assert_eq!(count("").unwrap_err().code, Code::StatementTimeout);
}
