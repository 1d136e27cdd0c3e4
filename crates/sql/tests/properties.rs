//! What holds for every text.

mod common;

use common::mutate::{
    Numbers, corpus, is_of_more_than_the_data, is_of_use, mutate, scripts, words,
};
use common::{Allowed, Outcome, Shared, Tenant, bound, open, run, without_place};
use debros_proto::{Code, Namespace};
use debros_sql::dump::DumpTranslator;
use debros_sql::{Catalogue, ExecutionTarget, ForeignKeys, RewriteCache, rewrite};
use proptest::prelude::{any, prop, proptest};
use proptest::test_runner::Config;
use rusqlite::Connection;

/// A namespace that has its database for itself, and a plain SQLite, that are given the same
/// statements.
struct Pair {
    shared: Shared,
    tenant: Tenant,
    plain: Connection,
    allowed: [Allowed; 2],
}

impl Pair {
    fn new() -> Self {
        let (mut shared, tenant, mut plain) = (Shared::new(true), Tenant::new("acme"), open());
        let allowed = [bound(&mut shared.db), bound(&mut plain)];
        Self { shared, tenant, plain, allowed }
    }

    /// From here on as in a transaction that has turned foreign keys off.
    fn turn_references_off(&mut self) {
        self.both("PRAGMA foreign_keys = OFF");
        self.tenant.foreign_keys = ForeignKeys::Off;
    }

    fn tables(&self) -> Vec<String> {
        let names =
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let mut statement = self.plain.prepare(names).unwrap();
        let names = statement.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    }

    /// Gives both a statement, and fails if they do not do the same with it.
    fn run(&mut self, sql: &str) {
        // Non-deterministic, catalogue and connection results are compared elsewhere.
        if is_of_more_than_the_data(sql) {
            return;
        }
        let rewritten = match rewrite(sql, &self.tenant.catalogue, self.tenant.foreign_keys) {
            Ok(rewritten) => rewritten,
            // The error of a text that SQLite does not accept is SQLite's; a text that is not
            // allowed may be valid SQL.
            Err(error) => {
                // SQLite does not look into a WITH that nothing uses.
                if error.code == Code::Sql && !error.message.starts_with("unknown database") {
                    self.plain.execute_batch("SAVEPOINT one").unwrap();
                    let expected = run(&self.plain, sql);
                    self.plain.execute_batch("ROLLBACK TO one; RELEASE one").unwrap();
                    assert!(expected.error.is_some(), "{sql}\n  rewritten {error}");
                }
                return;
            }
        };
        let is_of_now =
            rewritten.is_nondeterministic() || rewritten.needs_moment || rewritten.random_rows;
        if rewritten.target != ExecutionTarget::Data || is_of_now || rewritten.reads_counters {
            return;
        }
        let kept = rewritten.changes_schema.then(|| self.tenant.catalogue.fork().unwrap());
        self.allowed.iter().for_each(Allowed::allow);
        self.both("SAVEPOINT one");
        let (found, expected) = (self.tenant.run(&self.shared, sql), run(&self.plain, sql));
        let was_interrupted = [&found, &expected].iter().any(|outcome| {
            outcome.error.as_deref().is_some_and(|error| error.contains("interrupted"))
        });
        let tidy = |outcome: Outcome| Outcome {
            error: outcome.error.as_deref().map(without_place),
            ..outcome
        };
        let (found, expected) = (tidy(found), tidy(expected));
        self.allowed.iter().for_each(Allowed::allow);
        let keeps = !was_interrupted && found.error.is_none() && self.both("RELEASE one");
        if !keeps {
            self.both("ROLLBACK TO one; RELEASE one");
            if let Some(kept) = kept {
                self.tenant.catalogue = kept;
            }
        }
        assert!(
            was_interrupted || found == expected,
            "{sql}\n  plain     {expected:?}\n  rewritten {found:?}"
        );
    }

    /// Runs what is no tenant's on both. Says whether both did it; they must agree.
    fn both(&self, sql: &str) -> bool {
        let done = [&self.shared.db, &self.plain].map(|db| db.execute_batch(sql).is_ok());
        assert_eq!(done[0], done[1], "{sql}");
        done[0]
    }

    /// Fails if the two do not hold the same.
    fn compare(&mut self) {
        let mut report = String::new();
        common::compare_states(&self.plain, &self.shared, &mut self.tenant, &mut report);
        assert!(report.is_empty(), "{report}");
    }
}

fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::new(&Namespace::new("acme").unwrap()).unwrap();
    for sql in [
        "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT NOT NULL, age INT, city_id INT, v TEXT)",
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, user_id INT REFERENCES users(id), total REAL, status TEXT)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT UNIQUE, b INT DEFAULT 7, CHECK (t.b < 1000))",
        "CREATE VIRTUAL TABLE docs USING fts5(title, body)",
        "CREATE VIEW v1 AS SELECT id, name FROM users",
    ] {
        catalogue.apply(sql).unwrap();
    }
    catalogue
}

proptest! {
    #![proptest_config(Config::with_cases(128))]

    #[test]
    fn any_text_is_answered_without_a_panic(sql in ".{0,200}") {
        let _ = rewrite(&sql, &catalogue(), ForeignKeys::Enforced);
    }

    #[test]
    fn any_bytes_that_are_text_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = rewrite(&String::from_utf8_lossy(&bytes), &catalogue(), ForeignKeys::Enforced);
    }

    #[test]
    fn any_soup_of_words_is_answered(words in prop::collection::vec(prop::sample::select(vec![
        "SELECT", "FROM", "users", "orders", "WHERE", "(", ")", ",", "*", "'x'", "\"y\"", "[z]", "`w`", "=", "IN", "AS", "docs",
        "MATCH", "WITH", "INSERT", "INTO", "VALUES", "UPDATE", "SET", "DELETE", "CREATE", "TABLE", "VIEW", "TRIGGER", "BEGIN", "END",
        "ON", "JOIN", ".", "main", "1", "?", ";", "RETURNING", "UNION", "ORDER", "BY", "now", "date", "random", "-", "--", "/*", "*/",
        "'", "\"", "::", "ns::acme::", "NULL", "CASE", "WHEN", "THEN", "EXPLAIN", "PRAGMA", "DEFAULT", "é", "\u{feff}", "\0",
    ]), 0..40)) {
        let _ = rewrite(&words.join(" "), &catalogue(), ForeignKeys::Enforced);
    }

    /// Rows of tables behind virtual ones, of any form: answered, and what they become goes through
    /// the rewriter as any statement does.
    #[test]
    fn any_rows_of_a_dump_are_answered(rows in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![
        "INSERT INTO", "docs_content", "docs_config", "docs_data", "docs_idx", "boxes_node", "boxes_rowid", "boxes_parent", "VALUES", "(",
        ")", ",", "1", "-1", "1", "'a'", "X'00'", "X'0000000100000000000000013f80000040000000'", "NULL", "9e999", "''", "version",
        "'version'", "sqlite_stat1", "sqlite_schema", "(type,name,tbl_name,rootpage,sql)", "CREATE TABLE", "IF NOT EXISTS",
        "sqlite_sequence(name,seq)", "SELECT", "docs", "RETURNING *", "ON CONFLICT DO NOTHING", "unistr('\\u0041')", "é",
    ]), 0..12), 0..6)) {
        let mut catalogue = catalogue();
        catalogue.apply("CREATE VIRTUAL TABLE boxes USING rtree(id, a, b)").unwrap();
        let mut dump = DumpTranslator::default();
        for (name, module) in [("docs", "fts5(title, body)"), ("boxes", "rtree(id, a, b)")] {
            let made = format!(
                "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','{name}','{name}',0,'CREATE VIRTUAL TABLE \
                 {name} USING {module}')"
            );
            assert_eq!(dump.translate(&made, &catalogue).unwrap().unwrap().len(), 1);
        }
        let forms = ["INSERT INTO docs_content VALUES(", "INSERT INTO boxes_rowid VALUES(", "INSERT INTO boxes_node VALUES(1,", ""];
        let mut texts = Vec::new();
        for (row, form) in rows.iter().zip(forms.iter().cycle()) {
            let sql = format!("{form}{}", row.join(" "));
            texts.extend(dump.translate(&sql, &catalogue).ok().flatten().unwrap_or_default());
        }
        texts.extend(dump.finish(&catalogue).unwrap_or_default());
        for sql in texts {
            if let Ok(rewritten) = rewrite(&sql, &catalogue, ForeignKeys::Enforced) {
                let mut random = |bytes: &mut [u8]| bytes.fill(1);
                let mut context = debros_sql::ExecutionContext { now_ms: 0, random: &mut random };
                let text = rewritten.fill_sql(&mut context).into_owned();
                assert!(!text.contains("sqlite_schema") && !text.contains("_content\""), "{sql}\n{text}");
            }
        }
    }

    /// A database that holds one namespace alone does the same with the rewritten statement as with
    /// the user's.
    #[test]
    fn rewriting_never_changes_the_result(seed in any::<u64>()) {
        let scripts = scripts();
        let mut numbers = Numbers::new(seed);
        let turns_off = numbers.below(3) == 0;
        let (_, script) = match turns_off {
            true => scripts.iter().find(|(name, _)| name == "foreign_keys").unwrap(),
            false => &scripts[numbers.below(scripts.len())],
        };
        let mut pair = Pair::new();
        script.iter().for_each(|sql| pair.run(sql));
        if turns_off {
            pair.turn_references_off();
            // Some parents are missing then.
            let tables = pair.tables();
            tables.iter().filter(|_| numbers.below(3) == 0).for_each(|table| pair.run(&format!("DROP TABLE {table}")));
        }
        let corpus: Vec<_> = script.iter().map(|sql| words(sql)).filter(|words| is_of_use(words)).collect();
        for _ in 0..40 {
            pair.run(&mutate(&corpus, &mut numbers));
        }
        pair.compare();
    }

    /// A statement from the cache equals a newly rewritten one, whatever was asked between.
    #[test]
    fn the_cache_gives_what_rewriting_gives(seed in any::<u64>()) {
        let corpus = corpus();
        let mut numbers = Numbers::new(seed);
        let catalogue = catalogue();
        let rewriter = RewriteCache::new(8 << 10);
        for _ in 0..20 {
            let sql = mutate(&corpus, &mut numbers);
            let texts: Vec<Option<String>> = (0..3)
                .map(|_| {
                    let mut random = |bytes: &mut [u8]| bytes.fill(1);
                    let mut context = debros_sql::ExecutionContext { now_ms: 0, random: &mut random };
                    rewriter.rewrite(&sql, &catalogue).ok().map(|rewritten| rewritten.fill_sql(&mut context).into_owned())
                })
                .collect();
            assert!(texts[0] == texts[1] && texts[1] == texts[2], "{sql}");
        }
    }
}

/// What was remembered for one state of a schema, or for one namespace, is not given for another.
#[test]
fn the_cache_knows_states_and_namespaces_apart() {
    let rewriter = RewriteCache::new(1 << 20);
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
