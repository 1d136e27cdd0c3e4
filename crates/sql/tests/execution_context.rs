//! A statement that is run again, elsewhere and later, stores the same bytes.

mod common;

use common::{Outcome, Shared, Tenant, open_shared_pair, run};
use debros_sql::{ExecutionContext, ForeignKeys, MOMENT_CLEAR, MOMENT_SET, rewrite};
use proptest::prelude::{prop, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy};
use rusqlite::types::Value;

const SCHEMA: &[&str] = &[
    "CREATE TABLE log(id INTEGER PRIMARY KEY, what TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP, k TEXT)",
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v, at TEXT DEFAULT CURRENT_TIMESTAMP, ms REAL DEFAULT (julianday('now')), \
     k TEXT DEFAULT (lower(hex(randomblob(16)))), r INT DEFAULT (random()), upd TEXT)",
    "CREATE TRIGGER touched AFTER UPDATE OF v ON t BEGIN UPDATE t SET upd = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE id = new.id; END",
    "CREATE TRIGGER logged AFTER INSERT ON t BEGIN INSERT INTO log(what, k) VALUES (datetime('now', '+1 day'), CURRENT_TIME); \
     INSERT INTO log(what, k) SELECT date(new.v), last_insert_rowid(); END",
    "CREATE VIEW present AS SELECT CURRENT_TIMESTAMP AS at, unixepoch('now') AS secs, id FROM t",
];

const WRITES: &[&str] = &[
    "INSERT INTO t(v) VALUES (1), ('now'), (datetime('now'))",
    "INSERT INTO t(v, k, r) SELECT v, id, id FROM t ORDER BY id",
    "INSERT INTO t DEFAULT VALUES",
    "UPDATE t SET v = CURRENT_TIMESTAMP WHERE id = 2",
    "UPDATE t SET v = datetime(v, 'localtime') WHERE id = 3",
    "UPDATE t SET v = unixepoch('now', 'subsec') - unixepoch('subsec') WHERE id = 1",
    "INSERT INTO log(what) SELECT at || secs FROM present",
    "INSERT INTO log(what, k) VALUES (random(), hex(randomblob(4))), (random(), hex(randomblob(4)))",
    "DELETE FROM log WHERE at < datetime('now', '-1 day')",
    "INSERT OR REPLACE INTO t(id, v, at) VALUES (1, time(), date())",
    "INSERT INTO t(id, v) VALUES (1, 5) ON CONFLICT(id) DO UPDATE SET v = datetime('NOW'), k = hex(randomblob(3))",
    "INSERT INTO log(what) VALUES (timediff('now', '2020-01-01')), (strftime('%s')), (julianday()), (date('now', 'start of month'))",
];

/// Runs the writes with one execution context each.
fn replay(shared: &Shared, tenant: &mut Tenant, now_ms: i64) -> Vec<Outcome> {
    let mut bytes = 1_u8;
    let mut random = move |target: &mut [u8]| {
        for byte in target {
            bytes = bytes.wrapping_mul(31).wrapping_add(7);
            *byte = bytes;
        }
    };
    for sql in SCHEMA {
        assert_eq!(tenant.run(shared, sql).error, None, "{sql}");
    }
    for (index, sql) in WRITES.iter().enumerate() {
        let rewritten = rewrite(sql, &tenant.catalogue, ForeignKeys::Enforced)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        let now_ms = now_ms + 1000 * i64::try_from(index).unwrap();
        let mut context = ExecutionContext { now_ms, random: &mut random };
        if rewritten.needs_moment {
            shared.db.execute(MOMENT_SET, [context.timestamp()]).unwrap();
        }
        let outcome = run(&shared.db, &rewritten.fill_sql(&mut context));
        assert_eq!(outcome.error, None, "{sql}");
        shared.db.execute_batch(MOMENT_CLEAR).unwrap();
    }
    ["t", "log"]
        .iter()
        .map(|table| run(&shared.db, &format!("SELECT * FROM \"ns::acme::{table}\"")))
        .collect()
}

#[test]
fn the_same_moment_makes_the_same_bytes_at_another_time() {
    let now_ms = 1_767_225_600_123;
    let ((one, mut first), (other, mut second)) = open_shared_pair();
    let stored = replay(&one, &mut first, now_ms);
    // The clock of the second goes another second, at least, and its connection has done other
    // things before.
    let start = debros_proto::now_ms();
    other
        .db
        .execute_batch(
            "CREATE TABLE _debros_before(a); INSERT INTO _debros_before VALUES (1), (2), (3)",
        )
        .unwrap();
    while debros_proto::now_ms() / 1000 == start / 1000 {
        std::thread::yield_now();
    }
    let again = replay(&other, &mut second, now_ms);
    assert_eq!(stored, again);
    // And nothing in it is of the present.
    let now = run(&one.db, "SELECT strftime('%Y-%m-%d', 'now')").rows.remove(0).remove(0);
    let Value::Text(today) = now else { panic!("{now:?}") };
    assert!(!format!("{stored:?}").contains(&today), "{stored:?}");
    assert!(format!("{stored:?}").contains("2026-01-01 00:00:0"), "{stored:?}");
}

#[test]
fn a_view_tells_readers_the_present_and_writers_the_moment() {
    let shared = Shared::new(true);
    let mut tenant = Tenant::new("acme");
    for sql in SCHEMA {
        tenant.run(&shared, sql);
    }
    tenant.run(&shared, "INSERT INTO t(v) VALUES (1)");
    let read = tenant.run(
        &shared,
        "SELECT at = CURRENT_TIMESTAMP OR at >= datetime('now', '-2 seconds') FROM present",
    );
    assert_eq!(read.rows, [[Value::Integer(1)]]);
    assert!(
        !rewrite("SELECT * FROM present", &tenant.catalogue, ForeignKeys::Enforced)
            .unwrap()
            .needs_moment
    );
    assert!(
        rewrite(
            "INSERT INTO log(what) SELECT at FROM present",
            &tenant.catalogue,
            ForeignKeys::Enforced
        )
        .unwrap()
        .needs_moment
    );
    assert!(
        rewrite("UPDATE t SET v = 2", &tenant.catalogue, ForeignKeys::Enforced)
            .unwrap()
            .needs_moment
    );
    assert!(
        !rewrite("UPDATE t SET upd = 2", &tenant.catalogue, ForeignKeys::Enforced)
            .unwrap()
            .needs_moment
    );
}

#[test]
fn a_trigger_from_before_the_table_can_not_miss_the_moment() {
    let shared = Shared::new(true);
    let mut tenant = Tenant::new("acme");
    for sql in [
        "CREATE TABLE a(x)",
        "CREATE TRIGGER early AFTER INSERT ON a BEGIN INSERT INTO later(x) VALUES (new.x); END",
    ] {
        assert_eq!(tenant.run(&shared, sql).error, None);
    }
    let refused = tenant.run(&shared, "CREATE TABLE later(x, at DEFAULT CURRENT_TIMESTAMP)");
    assert!(refused.refused && refused.error.unwrap().contains("early"));
    assert_eq!(
        tenant.run(&shared, "CREATE TABLE other(x, at DEFAULT CURRENT_TIMESTAMP)").error,
        None
    );
    assert!(tenant.run(&shared, "ALTER TABLE other RENAME TO later").refused);
    assert!(
        tenant.run(&shared, "ALTER TABLE other ADD COLUMN b DEFAULT (date('now'))").error.is_none()
    );
    assert_eq!(tenant.run(&shared, "CREATE TABLE later(x, at DEFAULT 'never')").error, None);
    assert_eq!(tenant.run(&shared, "INSERT INTO a VALUES (1)").error, None);
}

/// A value as SQL: texts around 'now', and what else is a time or is none.
fn time_value() -> impl Strategy<Value = String> {
    let pieces = [
        "now",
        "NOW",
        "nOw",
        " ",
        "\t",
        "\n",
        "n",
        "w",
        "''",
        "2024-01-02",
        " 12:00",
        "+01:00",
        "Z",
        "subsec",
        ".",
    ];
    let text = prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..4)
        .prop_map(|pieces| format!("'{}'", pieces.concat()));
    let others = [
        "NULL",
        "x'6e6f77'",
        "x''",
        "0",
        "-1",
        "2460000.123456789",
        "1e999",
        "'now' || char(0) || 'x'",
        "char(0) || 'now'",
    ];
    prop_oneof![
        text,
        Just("'now'".to_owned()),
        prop::sample::select(others.to_vec()).prop_map(str::to_owned)
    ]
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(96))]

    /// What a time is, and whether it is the present, is in a write what it is in SQLite. Without
    /// 'localtime', which makes the first of 2000 of what is no date.
    #[test]
    fn a_time_value_means_in_a_write_what_it_means_to_sqlite(
        value in time_value(),
        other in time_value(),
        modifier in prop::sample::select(vec!["start of year", "auto", "unixepoch", "julianday", "subsec", "utc", "now", "+0 days"]),
    ) {
        let plain = common::open();
        let shared = Shared::new(true);
        let mut tenant = Tenant::new("acme");
        let calls = format!(
            "date({{v}}, '{modifier}', 'start of year'), datetime({{v}}, 'start of year'), unixepoch({{v}}, 'start of year'), \
             strftime('%Y', {{v}}), julianday({{v}}, '{modifier}', 'start of year'), typeof(time({{v}})), \
             typeof(timediff({{v}}, {{o}})), typeof(timediff({{o}}, {{v}}))"
        );
        let of = |v: &str, o: &str| calls.replace("{v}", v).replace("{o}", o);
        let statements = [
            "CREATE TABLE src(v, o)".to_owned(),
            "CREATE TABLE dst(a, b, c, d, e, f, g, h)".to_owned(),
            format!("CREATE TRIGGER fired AFTER INSERT ON src BEGIN INSERT INTO dst VALUES ({}); END", of("new.v", "new.o")),
            // Written out, as an expression, out of a table, and by a trigger.
            format!("INSERT INTO dst VALUES ({})", of(&value, &other)),
            format!("INSERT INTO dst VALUES ({})", of(&format!("({value})"), &format!("({other})"))),
            format!("INSERT INTO src VALUES ({value}, {other})"),
            format!("INSERT INTO dst SELECT {} FROM src", of("v", "o")),
            format!("INSERT INTO dst SELECT {} FROM src", of("max(v)", "max(o)")),
        ];
        for sql in &statements {
            assert_eq!(tenant.run(&shared, sql).error, run(&plain, sql).error, "{sql}");
        }
        let look = "SELECT * FROM dst";
        assert_eq!(tenant.run(&shared, look).rows, run(&plain, look).rows, "{statements:?}");
    }
}
