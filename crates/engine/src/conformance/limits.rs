//! Each limit is refused with its own code, and nothing is changed.

use super::{
    assert_code, database, key, namespace, no_condition, options, query, query_integer, query_ok,
    query_refused, statement,
};
use crate::{CallOptions, Engine};
use debros_proto::Code;
use debros_proto::limits::{
    MAX_RESULT_ROWS, MAX_SQL_ARGS, MAX_SQL_BYTES, MAX_TRANSACTION_STATEMENTS,
};
use debros_proto::rpc::{Statement, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One byte, one argument too many.
pub async fn sql_text_and_arguments(engine: Arc<dyn Engine>) {
    let long = format!("SELECT '{}'", "x".repeat(MAX_SQL_BYTES));
    assert_code(&query_refused(&engine, &long).await, Code::SqlTooLong, "text");
    query_ok(&engine, &format!("SELECT '{}'", "x".repeat(MAX_SQL_BYTES - 9))).await;
    let args = vec![Value::from(1); MAX_SQL_ARGS + 1];
    let error = query(&engine, "SELECT 1", &args).await.unwrap_err();
    assert_code(&error, Code::TooManyArguments, "arguments");
}

/// As many as are allowed.
pub async fn many_arguments(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let marks = vec!["(?)"; MAX_SQL_ARGS].join(",");
    let args: Vec<Value> = (0..MAX_SQL_ARGS as i64).map(Value::from).collect();
    let result = query(&engine, &format!("INSERT INTO t VALUES {marks}"), &args).await.unwrap();
    assert_eq!(result.rows_affected, Some(MAX_SQL_ARGS as u64));
    assert_eq!(query_integer(&engine, "SELECT max(a) FROM t").await, MAX_SQL_ARGS as i64 - 1);
}

/// 1,000 pass, 1,001 do not.
pub async fn statements_in_a_transaction(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let insert = |index| statement("INSERT INTO t VALUES (?1)", &[Value::from(index)]);
    let many: Vec<Statement> = (0..=MAX_TRANSACTION_STATEMENTS as i64).map(insert).collect();
    let error = engine.transaction(&database("app"), many.clone(), options()).await.unwrap_err();
    assert_code(&error, Code::TooManyStatements, "statements");
    let fitting = many[1..].to_vec();
    let written = engine.transaction(&database("app"), fitting, options()).await.unwrap();
    assert_eq!(written.value.len(), MAX_TRANSACTION_STATEMENTS);
    assert_eq!(query_integer(&engine, "SELECT sum(a) FROM t").await, 500_500);
}

fn count_to_sql(rows: usize) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n"
    )
}

/// As many rows as are allowed, and one more.
pub async fn result_rows(engine: Arc<dyn Engine>) {
    assert_eq!(query_ok(&engine, &count_to_sql(MAX_RESULT_ROWS)).await.rows.len(), MAX_RESULT_ROWS);
    assert_code(
        &query_refused(&engine, &count_to_sql(MAX_RESULT_ROWS + 1)).await,
        Code::ResultTooLarge,
        "rows",
    );
    assert_code(
        &query_refused(&engine, "SELECT zeroblob(20000000), zeroblob(20000000)").await,
        Code::ResultTooLarge,
        "bytes",
    );
}

/// A write whose answer is too large is undone.
pub async fn result_bytes_of_a_write(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let error =
        query_refused(&engine, "INSERT INTO t VALUES (1), (2) RETURNING zeroblob(20000000)").await;
    assert_code(&error, Code::ResultTooLarge, "bytes");
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 0);
}

/// All of them, in order.
pub async fn ten_thousand_rows(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a, b)").await;
    query_ok(
        &engine,
        &format!("INSERT INTO t SELECT i, 'row ' || i FROM ({})", count_to_sql(10_000)),
    )
    .await;
    let result = query_ok(&engine, "SELECT a, b FROM t ORDER BY a").await;
    assert_eq!(result.rows.len(), 10_000);
    for (row, expected) in result.rows.iter().zip(1..) {
        assert_eq!(row.values, [Value::from(expected), Value::from(format!("row {expected}"))]);
    }
}

fn short_deadline_options() -> CallOptions {
    CallOptions { deadline: Instant::now() + Duration::from_millis(100), ..options() }
}

/// Pairs and rows count together; an owner who has all that is allowed reads, deletes, and takes
/// nobody else's room.
pub async fn a_namespace_at_its_quota_hurts_nobody_else(engine: Arc<dyn Engine>) {
    let app = namespace("app");
    let quota = engine.namespace_info(&app, options()).await.expect("a look").max_bytes;
    let quota = quota.expect("the suite's engine has a quota for each namespace");
    query_ok(&engine, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)").await;
    query_ok(&engine, "INSERT INTO t(a) VALUES (zeroblob(2000000))").await;
    let put = async |name: &str, size: usize| {
        engine.kv_put(&app, &key(name), vec![1; size].into(), no_condition(), None, options()).await
    };
    let mut stored = 0;
    let error = loop {
        match put(&format!("k{stored}"), 1 << 20).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_code(&error, Code::QuotaExceeded, "a put");
    assert!(
        stored > 1 && stored * (1 << 20) + 2_000_000 <= quota,
        "{stored} MiB and a row of {quota} bytes"
    );
    let info = engine.namespace_info(&app, options()).await.expect("a look");
    assert!(info.taken_bytes <= quota && info.kv_keys == stored, "{info:?}");
    assert_code(
        &query_refused(&engine, "INSERT INTO t(a) VALUES (zeroblob(2000000))").await,
        Code::QuotaExceeded,
        "a row",
    );
    let neighbour = engine
        .kv_put(
            &namespace("b"),
            &key("k"),
            vec![1; 1 << 20].into(),
            no_condition(),
            None,
            options(),
        )
        .await;
    neighbour.expect("a neighbour's put");
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 1);
    assert_eq!(
        engine
            .kv_get(&app, &key("k0"), options())
            .await
            .expect("a read")
            .map(|found| found.value.len()),
        Some(1 << 20)
    );
    for name in ["k0", "k1"] {
        assert!(
            engine
                .kv_delete(&app, &key(name), no_condition(), options())
                .await
                .expect("a delete")
                .value
        );
    }
    put("again", 1 << 20).await.expect("there is room again");
    query_ok(&engine, "DELETE FROM t").await;
    query_ok(&engine, "DROP TABLE t").await;
}

/// A statement that would run forever ends, whether it reads, writes or is compiled, and leaves
/// nothing.
pub async fn a_statement_is_interrupted(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    for sql in [
        format!("{endless} SELECT count(*) FROM n"),
        format!("INSERT INTO t {endless} SELECT i FROM n"),
    ] {
        let error = engine
            .query(&database("app"), Statement::from(sql.as_str()), short_deadline_options())
            .await
            .unwrap_err();
        assert!(
            matches!(error.code, Code::StatementTimeout | Code::DeadlineExceeded),
            "{sql}: {error}"
        );
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 0);
    // Views that double at each step: compiling them would take as long.
    query_ok(&engine, "CREATE VIEW v0 AS SELECT 1 AS a").await;
    for step in 1..40 {
        let below = step - 1;
        let sql = format!("CREATE VIEW v{step} AS SELECT x.a FROM v{below} AS x, v{below} AS y");
        query_ok(&engine, &sql).await;
    }
    let error = engine
        .query(&database("app"), Statement::from("SELECT * FROM v39"), short_deadline_options())
        .await
        .unwrap_err();
    assert!(
        matches!(error.code, Code::StatementTimeout | Code::DeadlineExceeded | Code::Sql),
        "{error}"
    );
    query_ok(&engine, "CREATE TABLE fresh(a)").await;
    // Nor does anything else that looks at all views take forever.
    let _ = engine.schema(&namespace("app"), short_deadline_options()).await;
    for sql in ["PRAGMA table_list", "ALTER TABLE t RENAME TO u"] {
        let _ =
            engine.query(&database("app"), Statement::from(sql), short_deadline_options()).await;
    }
    // And what was interrupted left nothing behind that makes a later read an old one.
    for index in 0..20 {
        query_ok(&engine, "INSERT INTO fresh VALUES (1)").await;
        assert_eq!(query_integer(&engine, "SELECT count(*) FROM fresh").await, index + 1);
        assert_eq!(
            query_integer(&engine, &format!("SELECT count(*) FROM fresh AS n{index}")).await,
            index + 1
        );
    }
}

/// Too late is not begun.
pub async fn a_passed_deadline_does_nothing(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_ok(&engine, "INSERT INTO t VALUES (1)").await;
    let past = CallOptions { deadline: Instant::now(), ..options() };
    for sql in ["INSERT INTO t VALUES (1)", "SELECT 1"] {
        let error =
            engine.query(&database("app"), Statement::from(sql), past.clone()).await.unwrap_err();
        assert_code(&error, Code::DeadlineExceeded, sql);
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 1);
}

/// A caller that may only read is refused before anything is written, whatever the text looks like.
pub async fn a_reader_can_not_write(engine: Arc<dyn Engine>) {
    query_ok(&engine, "CREATE TABLE t(a)").await;
    query_ok(&engine, "INSERT INTO t VALUES (1)").await;
    let reader = || CallOptions { read_only: true, ..options() };
    let db = database("app");
    for sql in [
        "INSERT INTO t VALUES (1)",
        "/* x */ WITH x AS (SELECT 1) DELETE FROM t",
        "DROP TABLE t",
        "CREATE TABLE u(a)",
    ] {
        for _ in 0..2 {
            let error = engine.query(&db, Statement::from(sql), reader()).await.unwrap_err();
            assert_code(&error, Code::Forbidden, sql);
        }
        let both = vec![Statement::from("SELECT 1"), Statement::from(sql)];
        let error = engine.transaction(&db, both, reader()).await.unwrap_err();
        assert_code(&error, Code::Forbidden, sql);
        assert_eq!(error.statement, Some(1));
    }
    let (app, name) = (namespace("app"), key("k"));
    let put =
        engine.kv_put(&app, &name, "x".into(), no_condition(), None, reader()).await.unwrap_err();
    assert_code(&put, Code::Forbidden, "put");
    assert_code(
        &engine.kv_delete(&app, &name, no_condition(), reader()).await.unwrap_err(),
        Code::Forbidden,
        "delete",
    );
    engine.query(&db, Statement::from("SELECT a FROM t"), reader()).await.unwrap();
    engine.transaction(&db, vec![Statement::from("SELECT a FROM t")], reader()).await.unwrap();
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM t").await, 1);
}

/// Texts made to exhaust a parser's stack or confuse a splitter get an answer.
pub async fn deep_and_odd_texts_are_answered(engine: Arc<dyn Engine>) {
    let half = MAX_SQL_BYTES / 2;
    for sql in [
        format!("SELECT 1{}", ";".repeat(half)),
        format!("SELECT 1{}-- end", ";".repeat(half)),
        format!("SELECT $a('){}'", ";".repeat(half)),
        format!("SELECT {}1{}", "(".repeat(half), ")".repeat(half - 10)),
        format!("SELECT * FROM {}t{}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("SELECT {}1", "NOT ".repeat(half / 8)),
        format!("SELECT 1{}", " UNION SELECT 1".repeat(20_000)),
        "SELECT \u{feff}1".to_owned(),
        "SELECT 1\0; DROP TABLE t".to_owned(),
        "\u{feff}".to_owned(),
        "/*".to_owned(),
    ] {
        // Only that there is an answer, and that the next statement is answered too.
        let _ = query(&engine, &sql, &[]).await;
        assert_eq!(query_integer(&engine, "SELECT 1").await, 1);
    }
}
