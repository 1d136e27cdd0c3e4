//! The catalogue's life: changed on a copy, stored as a list, answered from, and held in bounded
//! number.

use debros_proto::rpc::Value;
use debros_proto::{Code, Namespace};
use debros_sql::catalogue::{CatalogueChanges, CatalogueEntry, EntryKind};
use debros_sql::{Catalogue, ExecutionTarget, ForeignKeys, StatementClass, rewrite};
use std::time::{Duration, Instant};

fn namespace() -> Namespace {
    Namespace::new("acme").unwrap()
}

fn made(statements: &[&str]) -> Catalogue {
    let mut catalogue = Catalogue::new(&namespace()).unwrap();
    for sql in statements {
        let rewritten = rewrite(sql, &catalogue, ForeignKeys::Enforced)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(rewritten.changes_schema && rewritten.class == StatementClass::Ddl, "{sql}");
        catalogue.apply(sql).unwrap();
    }
    catalogue
}

const SCHEMA: &[&str] = &[
    "CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT DEFAULT 'x' /* kept */)",
    "CREATE TABLE a(id INTEGER PRIMARY KEY, b_id INT REFERENCES b(id), n INT NOT NULL)",
    "CREATE VIRTUAL TABLE f USING fts5(x)",
    "CREATE VIRTUAL TABLE v USING fts5vocab(f, row)",
    "CREATE INDEX a_n ON a(n) WHERE n > 0",
    "CREATE VIEW w AS SELECT a.n FROM a JOIN b ON b.id = a.b_id",
    "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET a = 'y' WHERE id = new.b_id; END",
];

fn end() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn a_schema_is_kept_as_the_users_own_texts_and_made_again_from_them() {
    let catalogue = made(SCHEMA);
    let entries = catalogue.entries().unwrap();
    let texts: Vec<&str> = entries.iter().filter_map(|entry| entry.sql.as_deref()).collect();
    assert!(SCHEMA.iter().all(|sql| texts.contains(sql)), "{entries:?}");
    let loaded = load(&entries);
    assert_eq!(loaded.entries().unwrap(), entries);
    assert_eq!(loaded.tables().unwrap(), catalogue.tables().unwrap());
    assert_ne!(loaded.generation(), catalogue.generation());
    for kind in ["table", "view", "index", "trigger"] {
        assert_eq!(EntryKind::from_name(kind).unwrap().as_str(), kind);
    }
    assert_eq!(EntryKind::from_name("other"), None);
}

/// A list that makes itself again, whatever was dropped and made in which order.
#[test]
fn every_schema_that_sqlite_accepted_is_made_again() {
    let schemas: &[&[&str]] = &[
        // Named like a table behind another module's tables.
        &[
            "CREATE TABLE r_data(x)",
            "CREATE INDEX i ON r_data(x)",
            "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
        ],
        &[
            "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
            "CREATE TABLE r_data(x)",
            "CREATE INDEX i ON r_data(x)",
        ],
        &["CREATE TABLE f_docsize(x)", "CREATE VIRTUAL TABLE f USING fts4(a, matchinfo=fts3)"],
        // Reads its content table, or view, when it is made.
        &["CREATE VIEW v AS SELECT 1 AS a", "CREATE VIRTUAL TABLE f USING fts4(content=\"v\")"],
        &[
            "CREATE TABLE t(a)",
            "CREATE VIRTUAL TABLE f USING fts4(content=\"t\")",
            "CREATE TABLE u(b)",
            "DROP TABLE t",
        ],
        &[
            "CREATE VIEW v AS SELECT 1 AS a",
            "CREATE VIRTUAL TABLE f USING fts4(content=\"v\")",
            "DROP VIEW v",
            "CREATE VIEW v AS SELECT 1 AS b",
        ],
        // Numbers that are free again, and numbers that are not.
        &[
            "CREATE TABLE a(x UNIQUE)",
            "CREATE TABLE b(x)",
            "CREATE TABLE c(x)",
            "DROP TABLE a",
            "CREATE INDEX i ON c(x)",
        ],
        &[
            "CREATE TABLE a(x)",
            "CREATE VIRTUAL TABLE f USING fts5(x)",
            "DROP TABLE a",
            "ALTER TABLE f RENAME TO g",
        ],
        &[
            "CREATE TABLE a(x)",
            "CREATE INDEX i ON a(x)",
            "ALTER TABLE a RENAME TO b",
            "CREATE TABLE a(y)",
        ],
        &["CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT)", "DROP TABLE a"],
        &["CREATE TABLE a(x UNIQUE)", "ANALYZE a", "CREATE TABLE b(x)", "DROP TABLE a"],
        &["CREATE TABLE a(x)", "CREATE VIEW v AS SELECT x FROM a", "DROP TABLE a"],
    ];
    for schema in schemas {
        let catalogue = made(schema);
        let entries = catalogue.entries().unwrap();
        let loaded = Catalogue::load(&namespace(), &entries, |_, _| {}).unwrap();
        assert_eq!(loaded.entries().unwrap(), entries, "{schema:?}");
        // A connection goes on with the virtual tables that it has met; a new one meets them as
        // they are.
        let catalogue = catalogue.fork().unwrap();
        assert_eq!(loaded.tables().unwrap(), catalogue.tables().unwrap(), "{schema:?}");
        let again =
            Catalogue::load(&namespace(), &loaded.fork().unwrap().entries().unwrap(), |_, _| {})
                .unwrap();
        assert_eq!(again.entries().unwrap(), entries, "{schema:?}");
        for catalogue in [&catalogue, &loaded] {
            for refused in
                ["PRAGMA schema_version = 1", "INSERT INTO sqlite_schema(name) VALUES ('x')"]
            {
                assert!(rewrite(refused, catalogue, ForeignKeys::Enforced).is_err(), "{refused}");
            }
            // The engine applies that one; SQLite never sees it.
            let writable = "PRAGMA writable_schema = ON";
            assert!(matches!(
                rewrite(writable, catalogue, ForeignKeys::Enforced).unwrap().target,
                ExecutionTarget::Transaction(_)
            ));
            let soon = Instant::now() + Duration::from_secs(5);
            assert!(catalogue.query(writable, &[], soon, 10, 1000).is_err());
        }
    }
}

/// What is broken is broken for its users alone.
#[test]
fn what_can_not_be_made_again_is_told_and_leaves_the_rest() {
    let entry = |position, kind, name: &str, sql: &str| CatalogueEntry {
        position,
        kind,
        name: name.to_owned(),
        table: name.to_owned(),
        sql: Some(sql.to_owned()),
    };
    let entries = [
        entry(1, EntryKind::Table, "a", "CREATE TABLE a(x)"),
        entry(2, EntryKind::Table, "b", "CREATE TABEL b(x)"),
        entry(3, EntryKind::Table, "f", "CREATE VIRTUAL TABLE f USING fts4(content=\"gone\")"),
        entry(4, EntryKind::Table, "c", "CREATE TABLE c(x)"),
    ];
    let mut told = Vec::new();
    let loaded = Catalogue::load(&namespace(), &entries, |entry, why| {
        assert!(!why.is_empty());
        told.push(entry.name.clone());
    })
    .unwrap();
    assert_eq!(told, ["b", "f"]);
    let names: Vec<String> =
        loaded.entries().unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["a", "f", "c"]);
    assert!(
        rewrite("SELECT a.x FROM a JOIN c ON a.x = c.x", &loaded, ForeignKeys::Enforced).is_ok()
    );
    let error = rewrite("SELECT * FROM f", &loaded, ForeignKeys::Enforced).unwrap_err();
    assert!(
        error.code == Code::Sql && error.message.contains("no such table: main.gone"),
        "{error:?}"
    );
    // With its content back, it is whole. The first user meets it as others do.
    let mut mended = loaded.fork().unwrap();
    mended.apply("CREATE TABLE gone(x)").unwrap();
    rewrite("SELECT * FROM f", &mended, ForeignKeys::Enforced).unwrap();
}

fn load(entries: &[CatalogueEntry]) -> Catalogue {
    let mut told = Vec::new();
    let loaded = Catalogue::load(&namespace(), entries, |entry, why| {
        told.push(format!("{}: {why}", entry.name))
    });
    assert!(told.is_empty(), "{told:?}");
    loaded.unwrap()
}

#[test]
fn a_change_is_told_as_what_to_put_and_what_to_remove() {
    let before = made(SCHEMA);
    let mut after = before.fork().unwrap();
    after.apply("ALTER TABLE a RENAME TO c").unwrap();
    after.apply("DROP VIEW w").unwrap();
    let old = before.entries().unwrap();
    let changes = CatalogueChanges::between(&old, &after.entries().unwrap());
    let names = |entries: &[CatalogueEntry]| {
        let mut names: Vec<String> =
            entries.iter().map(|entry| format!("{} {}", entry.kind.as_str(), entry.name)).collect();
        names.sort();
        names
    };
    assert_eq!(names(&changes.put), ["index a_n", "table c", "trigger t"]);
    let gone = before.entries().unwrap().into_iter().find(|entry| entry.name == "w").unwrap();
    assert_eq!(changes.removed, [gone.position]);
    assert!(CatalogueChanges::between(&old, &old).is_empty());
}

#[test]
fn a_change_that_fails_or_is_dropped_changes_nothing() {
    let catalogue = made(SCHEMA);
    let entries = catalogue.entries().unwrap();
    let mut fork = catalogue.fork().unwrap();
    fork.apply("CREATE TABLE new_one(x)").unwrap();
    let error = fork.apply("ALTER TABLE b DROP COLUMN id").unwrap_err();
    assert!(
        error.code == Code::Sql && error.message.contains("cannot drop PRIMARY KEY column"),
        "{error:?}"
    );
    drop(fork);
    assert_eq!(catalogue.entries().unwrap(), entries);
    assert_eq!(
        rewrite("SELECT * FROM new_one", &catalogue, ForeignKeys::Enforced).unwrap_err().code,
        Code::Sql
    );
}

#[test]
fn the_schema_call_describes_what_the_user_made() {
    let tables = made(SCHEMA).tables().unwrap();
    let told: Vec<(&str, &str)> =
        tables.iter().map(|table| (table.name.as_str(), table.kind.as_str())).collect();
    assert_eq!(
        told,
        [("a", "table"), ("b", "table"), ("f", "virtual"), ("v", "virtual"), ("w", "view")]
    );
    assert_eq!(tables[1].sql, SCHEMA[0]);
    assert!(!tables[1].columns[0].nullable && tables[1].columns[0].primary_key);
    assert_eq!(tables[1].columns[1].default.as_deref(), Some("'x'"));
    assert_eq!(
        (tables[0].indexes[0].name.as_str(), tables[0].indexes[0].columns.as_slice()),
        ("a_n", ["n".to_owned()].as_slice())
    );
}

#[test]
fn questions_about_the_schema_take_arguments_and_have_limits() {
    let catalogue = made(SCHEMA);
    let sql = "SELECT name FROM sqlite_master WHERE type = ?1 AND name <> :other ORDER BY name";
    let rewritten = rewrite(sql, &catalogue, ForeignKeys::Enforced).unwrap();
    assert_eq!(
        (rewritten.target, rewritten.parameters, rewritten.class),
        (ExecutionTarget::Catalogue, 2, StatementClass::Read)
    );
    let args = [Value::from("index"), Value::from("x")];
    let found = catalogue.query(sql, &args, end(), 10, 1000).unwrap();
    assert_eq!(
        (found.columns, found.rows),
        (vec!["name".to_owned()], vec![vec![Value::from("a_n")]])
    );
    assert_eq!(catalogue.query(sql, &args[..1], end(), 10, 1000).unwrap_err().code, Code::Sql);
    assert_eq!(
        catalogue.query("SELECT * FROM sqlite_master", &[], end(), 3, 10_000).unwrap_err().code,
        Code::ResultTooLarge
    );
    assert_eq!(
        catalogue.query("SELECT sql FROM sqlite_master", &[], end(), 100, 90).unwrap_err().code,
        Code::ResultTooLarge
    );
    assert_eq!(
        catalogue.query("DELETE FROM a", &[], end(), 1, 1).unwrap_err().code,
        Code::Internal
    );
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n, sqlite_master";
    let soon = Instant::now() + Duration::from_millis(50);
    assert_eq!(
        catalogue.query(endless, &[], soon, 3, 1000).unwrap_err().code,
        Code::StatementTimeout
    );
    // The catalogue answers again after it.
    assert!(catalogue.query(sql, &args, end(), 10, 1000).is_ok());
}

/// Lesson 21: what a statement does was guessed from its first word.
#[test]
fn lesson_21_what_a_statement_does_is_told_by_its_meaning() {
    let catalogue = made(&["CREATE TABLE t(a)", "CREATE VIEW v AS SELECT 1"]);
    for (sql, class, returning) in [
        ("WITH q AS (SELECT 1 AS x) INSERT INTO t SELECT x FROM q", StatementClass::Write, false),
        ("/* SELECT */ -- INSERT\n DELETE FROM t RETURNING a", StatementClass::Write, true),
        ("WITH q AS (SELECT 1) SELECT * FROM q", StatementClass::Read, false),
        ("VALUES (1)", StatementClass::Read, false),
        ("REPLACE INTO t VALUES (1) RETURNING *", StatementClass::Write, true),
        ("EXPLAIN QUERY PLAN DELETE FROM t", StatementClass::Write, false),
        ("EXPLAIN DELETE FROM t", StatementClass::Read, false),
        ("CREATE TABLE u AS SELECT * FROM t", StatementClass::Ddl, false),
        ("PRAGMA table_info(t)", StatementClass::Read, false),
    ] {
        let found = rewrite(sql, &catalogue, ForeignKeys::Enforced)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!((found.class, found.returning), (class, returning), "{sql}");
    }
}

/// A table that is made from a query is made here too; what would fill it forever, or with
/// gigabytes, is ended.
#[test]
fn rows_out_of_nothing_do_not_stay_in_the_catalogue() {
    let mut catalogue = made(&["CREATE TABLE t AS VALUES (1), (2), (3)"]);
    let count = "SELECT (SELECT count(*) FROM sqlite_master), 0";
    assert_eq!(
        catalogue.query(count, &[], end(), 1, 100).unwrap().rows,
        [[Value::from(1), Value::from(0)]]
    );
    assert!(catalogue.query("SELECT * FROM t", &[], end(), 1, 100).unwrap().rows.is_empty());
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    for sql in [
        format!("CREATE TABLE u AS {numbers} SELECT i, hex(zeroblob(100000)) FROM n"),
        format!("CREATE TABLE u AS {numbers} SELECT max(i) FROM n"),
    ] {
        assert!(rewrite(&sql, &catalogue, ForeignKeys::Enforced).is_ok());
        let error = catalogue.apply(&sql).unwrap_err();
        assert!(matches!(error.code, Code::ResultTooLarge | Code::StatementTimeout), "{error:?}");
    }
    assert_eq!(catalogue.entries().unwrap().len(), 1);
}

/// Many threads rewrite for one namespace at once.
#[test]
fn a_catalogue_is_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<(
        Catalogue,
        debros_sql::RewriteCache,
        debros_sql::RewrittenStatement,
        debros_sql::Demangler,
    )>();
    let catalogue = made(SCHEMA);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let catalogue = &catalogue;
            scope.spawn(move || {
                for n in 0..200 {
                    let sql = format!(
                        "SELECT n, {n} FROM a WHERE id = {thread} AND n IN (SELECT id FROM b)"
                    );
                    let rewritten = rewrite(&sql, catalogue, ForeignKeys::Enforced).unwrap();
                    assert_eq!(rewritten.objects, ["a", "b"]);
                }
            });
        }
    });
}

#[test]
fn a_question_that_does_not_end_holds_the_catalogue_up_for_a_moment() {
    let catalogue = std::sync::Arc::new(made(&["CREATE TABLE a(b)"]));
    let (asked, begun) =
        (std::sync::Arc::clone(&catalogue), std::sync::Arc::new(std::sync::Barrier::new(2)));
    let begins = std::sync::Arc::clone(&begun);
    let asking = std::thread::spawn(move || {
        let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
            SELECT count(*) FROM c, sqlite_master";
        begins.wait();
        asked.query(endless, &[], end() + Duration::from_secs(600), 3, 1000)
    });
    begun.wait();
    for _ in 0..1000 {
        assert_eq!(catalogue.entries().unwrap().len(), 1);
        std::thread::yield_now();
    }
    assert!(
        !asking.is_finished(),
        "the catalogue was to be had only when the question had been given up"
    );
    // It runs until the tests end.
    drop(asking);
}

/// A column is nullable when SQLite can keep a NULL in it.
#[test]
fn a_column_is_nullable_when_sqlite_keeps_null_in_it() {
    let tables = [
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
        "CREATE TABLE t(a INTEGER PRIMARY KEY DESC, b)",
        "CREATE TABLE t(a INTEGER PRIMARY KEY ASC, b NOT NULL)",
        "CREATE TABLE t(a integer, b, PRIMARY KEY(a))",
        "CREATE TABLE t(a INTEGER, b, PRIMARY KEY(a DESC))",
        "CREATE TABLE t(a INT PRIMARY KEY, b)",
        "CREATE TABLE t(a \"INTEGER\" PRIMARY KEY, b TEXT UNIQUE)",
        "CREATE TABLE t(a BIGINT PRIMARY KEY, b)",
        "CREATE TABLE t(a TEXT PRIMARY KEY, b)",
        "CREATE TABLE t(a INTEGER, b, PRIMARY KEY(a, b))",
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b) WITHOUT ROWID",
        "CREATE TABLE t(a INTEGER PRIMARY KEY DESC, b) WITHOUT ROWID",
        "CREATE TABLE t(a, b, c, PRIMARY KEY(a, b)) WITHOUT ROWID",
        "CREATE TABLE t(a INTEGER PRIMARY KEY DESC, b INT) STRICT",
        "CREATE TABLE t(a TEXT PRIMARY KEY, b INT NOT NULL) STRICT",
        "CREATE TABLE t(a INT, b INT, c INT, PRIMARY KEY(a, b)) STRICT",
        "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b NOT NULL DEFAULT 1)",
        "CREATE TABLE t(a INTEGER UNIQUE, b INTEGER PRIMARY KEY)",
        "CREATE TABLE t(a INTEGER PRIMARY KEY CHECK (a > 0), b)",
    ];
    for sql in tables {
        let mut catalogue = Catalogue::new(&namespace()).unwrap();
        catalogue.apply(sql).unwrap();
        let db = rusqlite::Connection::open_in_memory().unwrap();
        db.execute_batch(sql).unwrap();
        let table = &catalogue.tables().unwrap()[0];
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        for column in &table.columns {
            let values: Vec<&str> =
                names.iter().map(|name| if *name == column.name { "NULL" } else { "7" }).collect();
            db.execute_batch("DELETE FROM t").unwrap();
            // SQLite gives the key of a row that has none a number of its own.
            let kept =
                db.execute_batch(&format!("INSERT INTO t VALUES ({})", values.join(", "))).is_ok()
                    && db
                        .query_row(&format!("SELECT {} IS NULL FROM t", column.name), [], |row| {
                            row.get::<_, bool>(0)
                        })
                        .unwrap();
            assert_eq!(column.nullable, kept, "{} of {sql}", column.name);
        }
    }
}

/// `.dump --preserve-rowids` writes the rowids of `sqlite_sequence` too, which the namespaces
/// share.
#[test]
fn the_places_of_sequence_numbers_are_left_out() {
    let catalogue = made(SCHEMA);
    let mut random = |bytes: &mut [u8]| bytes.fill(1);
    let mut context = debros_sql::ExecutionContext { now_ms: 0, random: &mut random };
    let mut plain = |sql: &str| -> Vec<String> {
        let rewritten = rewrite(sql, &catalogue, ForeignKeys::Enforced)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        rewritten.fill_sql(&mut context).split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(
        plain("INSERT INTO sqlite_sequence(rowid, name, seq) VALUES(1, 'b', 2), (2 ,'b',3)"),
        plain("INSERT INTO sqlite_sequence(name, seq) VALUES('b', 2), ('b',3)")
    );
    for bad in [
        "INSERT INTO sqlite_sequence(rowid, name) VALUES(1, 'b')",
        "INSERT INTO sqlite_sequence(rowid, seq, name) VALUES(1, 2, 'b')",
        "INSERT INTO sqlite_sequence(name, rowid, seq) VALUES('b', 1, 2)",
        "INSERT INTO sqlite_sequence(rowid, name, seq) VALUES((SELECT 1), 'b', 2)",
        "INSERT INTO sqlite_sequence(rowid, name, seq) VALUES(1, 'ns::other::b', 2)",
        "INSERT INTO sqlite_sequence(rowid, name, seq) VALUES(1, 'b' || 'c', 2)",
    ] {
        assert_eq!(
            rewrite(bad, &catalogue, ForeignKeys::Enforced).unwrap_err().code,
            Code::StatementNotAllowed,
            "{bad}"
        );
    }
}

/// `ANALYZE main` is that of everything.
#[test]
fn statistics_of_a_dump_are_of_the_tables_whatever_their_names() {
    let catalogue = made(&["CREATE TABLE main(a)", "CREATE TABLE \"temp\"(a)"]);
    let mut dump = debros_sql::dump::DumpTranslator::default();
    for table in ["main", "temp"] {
        let row = format!("INSERT INTO sqlite_stat1 VALUES('{table}', NULL, '1')");
        assert_eq!(dump.translate(&row, &catalogue).unwrap(), Some(Vec::new()));
    }
    let placed = "INSERT INTO sqlite_stat1(rowid,tbl,idx,stat) VALUES(1,'temp',NULL,'1')";
    let mut other = debros_sql::dump::DumpTranslator::default();
    assert_eq!(other.translate(placed, &catalogue).unwrap(), Some(Vec::new()));
    assert_eq!(other.finish(&catalogue).unwrap(), ["ANALYZE main.\"temp\""]);
    let made = dump.finish(&catalogue).unwrap();
    assert_eq!(made, ["ANALYZE main.\"main\"", "ANALYZE main.\"temp\""]);
    for sql in made {
        rewrite(&sql, &catalogue, ForeignKeys::Enforced)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}
