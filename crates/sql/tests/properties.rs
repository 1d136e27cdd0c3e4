//! What holds for every text.

mod common;

use common::mutate::{Numbers, corpus, is_of_more_than_the_data, mutate};
use common::{Outcome, Shared, Tenant, open, run, without_place};
use debros_proto::{Code, Namespace};
use debros_sql::{Catalogue, Rewriter, rewrite};
use proptest::prelude::{any, prop, proptest};
use proptest::test_runner::Config;

const SETUP: &[&str] = &[
    "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT NOT NULL, age INT, city_id INT, v TEXT)",
    "CREATE TABLE orders(id INTEGER PRIMARY KEY, user_id INT REFERENCES users(id), total REAL, status TEXT)",
    "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT UNIQUE, b INT DEFAULT 7, CHECK (t.b < 1000))",
    "CREATE VIRTUAL TABLE docs USING fts5(title, body)",
    "CREATE VIEW v1 AS SELECT id, name FROM users",
    "INSERT INTO users VALUES (1, 'ann', 30, 1, 'x'), (2, 'bob', 25, 2, 'y')",
    "INSERT INTO orders VALUES (1, 1, 10.5, 'paid'), (2, 2, 5, 'sent')",
    "INSERT INTO docs VALUES ('first post', 'hello world'), ('second', 'full text search')",
];

fn alone() -> (Shared, Tenant, rusqlite::Connection) {
    let (shared, mut tenant, plain) = (Shared::new(true), Tenant::new("acme"), open());
    for sql in SETUP {
        assert_eq!(tenant.run(&shared, sql).error, None, "{sql}");
        assert_eq!(run(&plain, sql).error, None, "{sql}");
    }
    (shared, tenant, plain)
}

fn catalogue() -> Catalogue {
    alone().1.catalogue
}

proptest! {
    #![proptest_config(Config::with_cases(128))]

    #[test]
    fn any_text_is_answered_without_a_panic(sql in ".{0,200}") {
        let _ = rewrite(&sql, &catalogue());
    }

    #[test]
    fn any_bytes_that_are_text_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = rewrite(&String::from_utf8_lossy(&bytes), &catalogue());
    }

    #[test]
    fn any_soup_of_words_is_answered(words in prop::collection::vec(prop::sample::select(vec![
        "SELECT", "FROM", "users", "orders", "WHERE", "(", ")", ",", "*", "'x'", "\"y\"", "[z]", "`w`", "=", "IN", "AS", "docs",
        "MATCH", "WITH", "INSERT", "INTO", "VALUES", "UPDATE", "SET", "DELETE", "CREATE", "TABLE", "VIEW", "TRIGGER", "BEGIN", "END",
        "ON", "JOIN", ".", "main", "1", "?", ";", "RETURNING", "UNION", "ORDER", "BY", "now", "date", "random", "-", "--", "/*", "*/",
        "'", "\"", "::", "ns::acme::", "NULL", "CASE", "WHEN", "THEN", "EXPLAIN", "PRAGMA", "DEFAULT", "é", "\u{feff}", "\0",
    ]), 0..40)) {
        let _ = rewrite(&words.join(" "), &catalogue());
    }

    /// A database that holds one namespace alone does the same with the rewritten statement as with the user's.
    #[test]
    fn rewriting_never_changes_the_result(seed in any::<u64>()) {
        let corpus = corpus();
        let mut numbers = Numbers::new(seed);
        let (shared, mut tenant, plain) = alone();
        for _ in 0..20 {
            let sql = mutate(&corpus, &mut numbers);
            // What is of the moment, of the catalogue or of the connection is compared elsewhere.
            if is_of_more_than_the_data(&sql) {
                continue;
            }
            let Ok(rewritten) = rewrite(&sql, &tenant.catalogue) else { continue };
            if rewritten.changes_schema {
                continue;
            }
            shared.db.execute_batch("SAVEPOINT one").unwrap();
            plain.execute_batch("SAVEPOINT one").unwrap();
            let (found, expected) = (tenant.run(&shared, &sql), run(&plain, &sql));
            for db in [&shared.db, &plain] {
                if !db.is_autocommit() {
                    db.execute_batch("ROLLBACK TO one; RELEASE one").unwrap();
                }
            }
            let tidy = |outcome: Outcome| Outcome { error: outcome.error.as_deref().map(without_place), ..outcome };
            assert_eq!(tidy(found), tidy(expected), "{sql}");
        }
    }

    /// A statement from the cache is the statement that was made anew, whatever was asked between.
    #[test]
    fn the_cache_gives_what_rewriting_gives(seed in any::<u64>()) {
        let corpus = corpus();
        let mut numbers = Numbers::new(seed);
        let catalogue = catalogue();
        let rewriter = Rewriter::new(8 << 10);
        for _ in 0..20 {
            let sql = mutate(&corpus, &mut numbers);
            let texts: Vec<Option<String>> = (0..3)
                .map(|_| {
                    let mut random = |bytes: &mut [u8]| bytes.fill(1);
                    let mut moment = debros_sql::Moment { now_ms: 0, last_insert_rowid: 0, changes: 0, random: &mut random };
                    rewriter.rewrite(&sql, &catalogue).ok().map(|rewritten| rewritten.sql(&mut moment).into_owned())
                })
                .collect();
            assert!(texts[0] == texts[1] && texts[1] == texts[2], "{sql}");
        }
    }
}

/// What was remembered for one state of a schema, or for one namespace, is not given for another.
#[test]
fn the_cache_knows_states_and_namespaces_apart() {
    let rewriter = Rewriter::new(1 << 20);
    let (one, other) = (Namespace::new("one").unwrap(), Namespace::new("other").unwrap());
    let mut first = Catalogue::new(&one).unwrap();
    let sql = "SELECT * FROM t";
    assert_eq!(rewriter.rewrite(sql, &first).unwrap_err().code, Code::Sql);
    first.apply("CREATE TABLE t(a)").unwrap();
    let rewritten = rewriter.rewrite(sql, &first).unwrap();
    assert_eq!(rewritten.columns, ["a"]);
    let mut second = Catalogue::new(&other).unwrap();
    assert_eq!(rewriter.rewrite(sql, &second).unwrap_err().code, Code::Sql);
    second.apply("CREATE TABLE t(b)").unwrap();
    assert_eq!(rewriter.rewrite(sql, &second).unwrap().columns, ["b"]);
    let mut fork = first.fork().unwrap();
    fork.apply("ALTER TABLE t RENAME COLUMN a TO c").unwrap();
    assert_eq!(rewriter.rewrite(sql, &fork).unwrap().columns, ["c"]);
    assert_eq!(rewriter.rewrite(sql, &first).unwrap().columns, ["a"]);
}
