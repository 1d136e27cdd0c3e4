//! Input that no good program sends: a clear error with its place in the user's own text, nothing
//! changed, no panic.

mod common;

use common::{Shared, Tenant, state};
use debros_proto::Code;
use debros_sql::{ForeignKeys, rewrite};
use std::time::Duration;

fn tenant() -> (Shared, Tenant) {
    let shared = Shared::new(true);
    let mut tenant = Tenant::new("acme");
    for sql in ["CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)", "INSERT INTO t(a) VALUES ('x')"] {
        assert_eq!(tenant.run(&shared, sql).error, None);
    }
    (shared, tenant)
}

#[test]
fn errors_tell_the_place_in_the_users_own_text() {
    let (_, tenant) = tenant();
    for (sql, code, message) in [
        ("SELEC 1", Code::Sql, "near \"SELEC\": syntax error (line 1, column 1)"),
        ("SELECT *\nFROM t\nWHERE nope = 1", Code::Sql, "no such column: nope (line 3, column 7)"),
        ("SELECT * FROM\n  nope", Code::Sql, "no such table: nope"),
        ("INSERT INTO t(a) VALUES (1, 2)", Code::Sql, "2 values for 1 columns"),
        ("SELECT 'é', \"unterminated", Code::Sql, "the quote does not end (line 1, column 13)"),
        ("SELECT [x", Code::Sql, "the bracket does not end (line 1, column 8)"),
        ("SELECT 1; SELECT 2", Code::StatementNotAllowed, "more than one statement"),
        ("SELECT 1;\0", Code::Sql, "NUL character (line 1, column 10)"),
        ("-- nothing", Code::InvalidArgument, "no statement"),
        (
            "CREATE TABLE \"ns::acme::x\"(a)",
            Code::StatementNotAllowed,
            "names that start with ns:: are reserved",
        ),
        (
            "CREATE TABLE _debros_x(a)",
            Code::StatementNotAllowed,
            "names that start with _debros_ are reserved",
        ),
        ("SELECT nope(1)", Code::Sql, "no such function: nope"),
        (
            "SELECT load_extension('x')",
            Code::StatementNotAllowed,
            "the function load_extension is not allowed",
        ),
        (
            "PRAGMA journal_mode = OFF",
            Code::StatementNotAllowed,
            "PRAGMA journal_mode is not allowed; these are: table_info",
        ),
        ("BEGIN", Code::StatementNotAllowed, "transaction call"),
        ("ATTACH 'x' AS y", Code::StatementNotAllowed, "ATTACH, DETACH and VACUUM"),
        (
            "VACUUM",
            Code::StatementNotAllowed,
            "ATTACH, DETACH and VACUUM are not allowed (line 1, column 1)",
        ),
        ("CREATE TEMP TABLE x(a)", Code::StatementNotAllowed, "temporary tables"),
        ("SELECT * FROM temp.t", Code::Sql, "no such table: temp.t"),
        ("SELECT * FROM x.t", Code::Sql, "no such table: x.t"),
        ("CREATE VIEW x AS SELECT random()", Code::StatementNotAllowed, "not allowed in a view"),
        (
            "CREATE TABLE x(a CHECK (a < date('now')))",
            Code::StatementNotAllowed,
            "a CHECK constraint",
        ),
        (
            "CREATE VIRTUAL TABLE x USING csv(a)",
            Code::StatementNotAllowed,
            "the virtual-table module csv is not allowed",
        ),
    ] {
        let error = rewrite(sql, &tenant.catalogue, ForeignKeys::Enforced).unwrap_err();
        assert!(error.code == code && error.message.contains(message), "{sql:?}: {error:?}");
    }
}

/// What this thread has worked: a busy machine makes it wait, and not work longer.
fn processor_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(statistics.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn what_is_too_large_or_too_deep_is_refused_in_bounded_time() {
    let (shared, mut tenant) = tenant();
    let before = state(&shared.db, "ns::acme::");
    let many = |part: &str, count: usize| part.repeat(count);
    let started = processor_time();
    for sql in [
        format!("SELECT {}1{}", many("(", 10_000), many(")", 10_000)),
        format!("SELECT {}1", many("(", 10_000)),
        format!("SELECT 1{}", many("+1", 10_000)),
        format!("SELECT {}1", many("-", 1).replace('-', "- ").repeat(10_000)),
        format!("SELECT {}1", many("NOT ", 10_000)),
        format!("SELECT {}1{}", many("CASE WHEN 1 THEN ", 10_000), many(" END", 10_000)),
        format!("SELECT * FROM {}t{}", many("(", 10_000), many(")", 10_000)),
        format!("SELECT {}1{}", many("(SELECT ", 5_000), many(")", 5_000)),
        format!("SELECT 1{}", many(" UNION SELECT 1", 5_000)),
        format!("SELECT * FROM t{}", many(" JOIN t", 5_000)),
        format!("SELECT * FROM {}", many("t, ", 5_000) + "t"),
        format!("SELECT {}", many("1, ", 40_000) + "1"),
        format!("SELECT {}", (1..=32_767).map(|n| format!("?{n}")).collect::<Vec<_>>().join(",")),
        format!("SELECT abs({}1{})", many("abs(", 10_000), many(")", 10_000)),
        format!(
            "WITH {} SELECT 1",
            (0..5_000).map(|n| format!("c{n} AS (SELECT 1)")).collect::<Vec<_>>().join(", ")
        ),
        format!("SELECT {}", many("a.", 10_000) + "b"),
        format!("SELECT '{}", many("x", 1 << 20)),
        format!("SELECT {}", many(" ", (1 << 20) - 7)),
        format!("SELECT 1 {}", many("/*", 100_000)),
        format!("SELECT {}", many("'a' || ", 20_000) + "'b'"),
        format!("SELECT {}", many("\"", 99_999)),
        format!("INSERT INTO t VALUES {}", many("(", 200_000)),
        format!(
            "CREATE TABLE big({})",
            (0..5_000).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ")
        ),
        format!("CREATE VIRTUAL TABLE x USING fts5({})", many("(", 10_000)),
        format!("CREATE TRIGGER x AFTER INSERT ON t BEGIN {} END", many("SELECT 1; ", 5_000)),
    ] {
        let outcome = tenant.run(&shared, &sql);
        let told = outcome.error.map(|message| message.len());
        assert!(told.is_none_or(|length| length < 2_000), "{}", &sql[..60]);
    }
    // Each of them would take hours if it were taken badly.
    assert!(processor_time() - started < Duration::from_secs(120));
    let after = state(&shared.db, "ns::acme::");
    assert!(before.iter().all(|object| after.contains(object)));
}

#[test]
fn a_statement_of_a_mebibyte_is_rewritten_and_one_byte_more_is_refused() {
    let (shared, mut tenant) = tenant();
    let head = "INSERT INTO t(a) VALUES ('";
    let sql = format!("{head}{}')", "x".repeat((1 << 20) - head.len() - 2));
    assert_eq!(tenant.run(&shared, &sql).error, None);
    let error = rewrite(&format!("{sql} "), &tenant.catalogue, ForeignKeys::Enforced).unwrap_err();
    assert_eq!(error.code, Code::SqlTooLong);
    let rows = vec!["(NULL, 'abcdefgh')"; 20_000].join(", ");
    assert_eq!(tenant.run(&shared, &format!("INSERT INTO t VALUES {rows}")).changes, 20_000);
}

/// A short text that asks for the whole schema at each mention of it, or for a long default in each
/// row.
#[test]
fn what_a_statement_becomes_is_bounded_too() {
    let (shared, mut tenant) = tenant();
    let long = "x".repeat(200_000);
    for sql in [
        format!("CREATE TABLE long(a /* {long} */, b DEFAULT (current_timestamp || '{long}'))"),
        "INSERT INTO long(a) VALUES (1), (2)".to_owned(),
        "SELECT 1 FROM t WHERE 1 IN (SELECT 1 FROM sqlite_schema)".to_owned(),
    ] {
        assert_eq!(tenant.run(&shared, &sql).error, None);
    }
    let mentions = "(SELECT 1 FROM sqlite_schema), ".repeat(1000);
    for sql in [
        format!("INSERT INTO long(a) VALUES {}(1)", "(1), ".repeat(200_000)),
        format!("REPLACE INTO long(a) VALUES {}(1)", "(1), ".repeat(2000)),
        format!("SELECT 1 FROM t WHERE 1 IN ({mentions}1)"),
        format!(
            "SELECT 1 FROM t WHERE 1 IN ({}1)",
            mentions.replace("sqlite_schema", "pragma_table_xinfo('long')")
        ),
    ] {
        let error = rewrite(&sql, &tenant.catalogue, ForeignKeys::Enforced).unwrap_err();
        assert!(
            error.code == Code::SqlTooLong && error.message.contains("split it"),
            "{}: {error:?}",
            &sql[..60]
        );
    }
}

#[test]
fn odd_names_are_only_names() {
    let (shared, mut tenant) = tenant();
    let long = "n".repeat(10_000);
    let names = [
        "with\"quote",
        "with'quote",
        "with`tick",
        "with]bracket",
        "with[bracket",
        "dot.ted",
        "a b",
        "-- x",
        "/* x */",
        ";",
        "select",
        "ns:x",
        "nѕ::acme::x",
        "ｎｓ::acme::x",
        "ns::",
        "\u{202e}rtl",
        "tab\tname",
        "new\nline",
        "é",
        "e\u{301}",
        "💾",
        "%s%n",
        "$1",
        "?1",
        ":a",
        "main",
        "temp",
        "sqlitex_",
        "rowid",
        "null",
        "true",
        &long,
    ];
    for name in names {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let created = tenant.run(&shared, &format!("CREATE TABLE {quoted}({quoted} TEXT)"));
        if name == "ns::" {
            assert!(created.refused, "{created:?}");
            continue;
        }
        assert_eq!(created.error, None, "{name}");
        for sql in [
            format!("INSERT INTO {quoted} VALUES ('v') RETURNING {quoted}.{quoted}"),
            format!("SELECT {quoted}.{quoted} FROM {quoted} WHERE {quoted} = 'v'"),
            format!("SELECT * FROM main.{quoted} AS {quoted}"),
            format!("UPDATE {quoted} SET {quoted} = 'v' WHERE {quoted}.{quoted} = 'v' RETURNING *"),
        ] {
            let outcome = tenant.run(&shared, &sql);
            assert_eq!((outcome.error, outcome.rows.len()), (None, 1), "{name}: {sql}");
        }
        assert_eq!(tenant.run(&shared, &format!("DROP TABLE {quoted}")).error, None, "{name}");
    }
}

#[test]
fn views_upon_views_do_not_hold_up_the_catalogue() {
    let (shared, mut tenant) = tenant();
    tenant.run(&shared, "CREATE VIEW v0 AS SELECT * FROM t");
    for n in 1..18 {
        tenant.run(
            &shared,
            &format!("CREATE VIEW v{n} AS SELECT a.id, a.a FROM v{0} a JOIN v{0} b", n - 1),
        );
    }
    let error = rewrite("SELECT * FROM v17", &tenant.catalogue, ForeignKeys::Enforced).unwrap_err();
    assert!(matches!(error.code, Code::StatementTimeout | Code::Sql), "{error:?}");
}

/// A short text may mention something large many times: the rewritten text has a bound, and is
/// refused before it is made.
#[test]
fn what_is_put_into_a_statement_is_bounded() {
    let (shared, mut tenant) = tenant();
    let wide = format!("CREATE TABLE wide(a DEFAULT '{}')", "x".repeat(400_000));
    assert_eq!(tenant.run(&shared, &wide).error, None);
    let live =
        format!("CREATE TABLE live(a, b DEFAULT (current_timestamp || '{}'))", "x".repeat(200_000));
    assert_eq!(tenant.run(&shared, &live).error, None);
    let many = |part: &str, count: usize| vec![part; count].join(", ");
    let omits = format!(
        "CREATE TRIGGER z AFTER INSERT ON t BEGIN {} END",
        "INSERT INTO live(a) VALUES (1); ".repeat(2_000)
    );
    for sql in [
        format!("SELECT 1 FROM t WHERE 1 IN ({})", many("(SELECT 1 FROM sqlite_schema)", 1_000)),
        format!(
            "SELECT 1 FROM t WHERE 1 IN ({})",
            many("(SELECT 1 FROM pragma_table_info('wide'))", 1_000)
        ),
        format!("INSERT INTO live(a) VALUES {}", many("(1)", 2_000)),
        format!("INSERT OR REPLACE INTO live(a) VALUES {}", many("(1)", 2_000)),
        format!("INSERT INTO live(a) {}", vec!["SELECT 1"; 400].join(" UNION ALL ")),
        format!("INSERT INTO t(a) VALUES {}", many("(randomblob(60000))", 1_000)),
        format!("UPDATE t SET a = 1 WHERE 1 IN ({})", many("date(a)", 100_000)),
        omits,
    ] {
        let error = rewrite(&sql, &tenant.catalogue, ForeignKeys::Enforced).unwrap_err();
        assert_eq!(error.code, Code::SqlTooLong, "{}: {error:?}", &sql[..60]);
    }
    // Once is no harm.
    assert_eq!(tenant.run(&shared, "SELECT count(*) FROM t, sqlite_schema").error, None);
    assert_eq!(tenant.run(&shared, "INSERT INTO live(a) VALUES (1), (2)").error, None);
}
