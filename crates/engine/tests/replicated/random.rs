//! Any statements on any schema: whatever the leader made of them, the other node has the same, and
//! goes on with it.
//!
//! `REPLICATED_SEED` and `REPLICATED_CASES` choose others than those of the test.

use crate::members::Members;
use std::fmt::Write as _;
use std::io::Write as _;

/// A generator of numbers; the same ones for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len())]
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

const VALUES: &[&str] = &[
    "NULL",
    "0",
    "-0.0",
    "0.0",
    "1",
    "1.0",
    "2",
    "3",
    "-1",
    "'1'",
    "'x'",
    "'X'",
    "''",
    "x''",
    "x'00'",
    "'a b c'",
    "9223372036854775807",
    "-9223372036854775808",
    "9e999",
    "-9e999",
    "1e300",
    "0.1",
    "zeroblob(40)",
    "randomblob(9)",
    "random()",
    "'Ünï'",
    "char(0, 97)",
    "CAST(x'ff61' AS TEXT)",
    "hex(randomblob(900))",
    "'9223372036854775808'",
    "'1e2'",
    "1e15",
    "4611686018427387904.0",
    "date('now')",
    "abs(random() % 5)",
    "(SELECT max(rowid) FROM plain)",
];

const SCHEMA: &[&str] = &[
    "CREATE TABLE plain(a, b TEXT, c INT, d REAL, e BLOB, UNIQUE (a, b))",
    "CREATE TABLE keyed(id INTEGER PRIMARY KEY, a UNIQUE ON CONFLICT REPLACE, b COLLATE NOCASE, c AS (a || b) STORED, d AS (b || a) VIRTUAL, e DEFAULT 7)",
    "CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, a, b UNIQUE)",
    "CREATE TABLE less(a TEXT COLLATE NOCASE, b INT, v AS (a || b), c, PRIMARY KEY (a, b DESC)) WITHOUT ROWID",
    "CREATE TABLE binary_key(a TEXT COLLATE NOCASE, b, c UNIQUE, PRIMARY KEY (a COLLATE BINARY)) WITHOUT ROWID",
    "CREATE TABLE computed_key(a INT, b AS (a % 7) STORED UNIQUE, c, PRIMARY KEY (c)) WITHOUT ROWID",
    "CREATE TABLE strict_one(id INTEGER PRIMARY KEY, a ANY, b TEXT, c REAL, d BLOB) STRICT",
    "CREATE TABLE named(rowid TEXT, a, oid INTEGER)",
    "CREATE TABLE all_named(id INTEGER PRIMARY KEY, rowid, _rowid_, oid)",
    "CREATE TABLE descending(id INTEGER PRIMARY KEY DESC, a)",
    "CREATE TABLE parent(id INTEGER PRIMARY KEY, a UNIQUE)",
    "CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE, q REFERENCES parent(a) ON DELETE SET NULL ON UPDATE SET DEFAULT)",
    "CREATE TABLE self(id INTEGER PRIMARY KEY, up REFERENCES self(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED)",
    "CREATE INDEX plain_part ON plain(c) WHERE d IS NOT NULL",
    "CREATE INDEX plain_expression ON plain(lower(b), typeof(a))",
    "CREATE UNIQUE INDEX keyed_part ON keyed(b) WHERE e > 5",
    "CREATE TABLE noted(what, old, new)",
    "CREATE TRIGGER note_update AFTER UPDATE ON keyed BEGIN INSERT INTO noted VALUES ('u', old.a, new.a); END",
    "CREATE TRIGGER note_delete AFTER DELETE ON keyed BEGIN INSERT INTO noted VALUES ('d', old.a, NULL); UPDATE auto SET a = 1 + coalesce(a, 0) WHERE id % 2; END",
    "CREATE TRIGGER refuse BEFORE INSERT ON plain WHEN new.a = 3 BEGIN INSERT INTO auto(a) VALUES ('before'); SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER change AFTER INSERT ON plain BEGIN UPDATE plain SET e = coalesce(e, changes()) WHERE rowid = new.rowid; END",
    "CREATE TRIGGER fail BEFORE UPDATE ON parent WHEN new.a = 'x' BEGIN INSERT INTO noted VALUES ('failed', 1, 1); SELECT RAISE(FAIL, 'no'); END",
    "CREATE VIEW seen AS SELECT id, a FROM keyed",
    "CREATE TRIGGER through INSTEAD OF INSERT ON seen BEGIN INSERT OR REPLACE INTO keyed(id, a) VALUES (new.id, new.a); END",
    "CREATE VIRTUAL TABLE words USING fts5(a, b, prefix = '1')",
    "CREATE VIRTUAL TABLE outside USING fts5(a, content = 'keyed', content_rowid = 'id')",
    "CREATE TRIGGER outside_i AFTER INSERT ON keyed BEGIN INSERT INTO outside(rowid, a) VALUES (new.id, new.a); END",
    "CREATE VIRTUAL TABLE contentless USING fts5(a, content = '', contentless_delete = 1)",
    "CREATE VIRTUAL TABLE older USING fts4(a)",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, +label)",
];

/// Tables, and a column list each that an INSERT may name.
const TABLES: &[(&str, &[&str])] = &[
    ("plain", &["a", "b", "c", "d", "e", "rowid"]),
    ("keyed", &["id", "a", "b", "e"]),
    ("auto", &["id", "a", "b"]),
    ("less", &["a", "b", "c"]),
    ("binary_key", &["a", "b", "c"]),
    ("computed_key", &["a", "c"]),
    ("strict_one", &["id", "a", "b", "c", "d"]),
    ("named", &["rowid", "a", "oid", "_rowid_"]),
    ("all_named", &["id", "rowid", "_rowid_", "oid"]),
    ("descending", &["id", "a", "rowid"]),
    ("parent", &["id", "a"]),
    ("child", &["id", "p", "q"]),
    ("self", &["id", "up"]),
    ("noted", &["what", "old", "new"]),
    ("seen", &["id", "a"]),
    ("words", &["a", "b", "rowid"]),
    ("contentless", &["a", "rowid"]),
    ("older", &["a", "docid"]),
    ("boxes", &["id", "x0", "x1", "label"]),
];

fn condition(dice: &mut Dice, columns: &[&str]) -> String {
    match dice.below(6) {
        0 => String::new(),
        1 => format!(" WHERE {} IS {}", dice.of(columns), dice.of(VALUES)),
        2 => format!(" WHERE {} > {}", dice.of(columns), dice.of(VALUES)),
        3 => format!(" WHERE {} IN (0, 1, 2, 'x', 'X')", dice.of(columns)),
        _ => format!(" WHERE abs(random()) % {} = 0", dice.below(4) + 1),
    }
}

fn statement(dice: &mut Dice) -> String {
    let (table, columns) = TABLES[dice.below(TABLES.len())];
    let conflict = dice.of(&[
        "",
        "",
        "OR REPLACE ",
        "OR REPLACE ",
        "OR IGNORE ",
        "OR FAIL ",
        "OR ABORT ",
        "OR ROLLBACK ",
    ]);
    match dice.below(40) {
        0..=14 => {
            let mut chosen: Vec<&str> = columns.iter().copied().filter(|_| !dice.one_in(3)).collect();
            if chosen.is_empty() {
                chosen.push(columns[0]);
            }
            let mut sql = format!("INSERT {conflict}INTO {table}({}) ", chosen.join(", "));
            if dice.one_in(6) {
                let many = dice.below(300);
                let values: Vec<&str> = chosen.iter().map(|_| dice.of(&["i", "i % 5", "-i", "'w' || i", "random()"])).collect();
                let _ = write!(
                    sql,
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many}) SELECT {} FROM n WHERE true",
                    values.join(", ")
                );
            } else {
                let rows: Vec<String> = (0..=dice.below(4))
                    .map(|_| format!("({})", chosen.iter().map(|_| dice.of(VALUES)).collect::<Vec<_>>().join(", ")))
                    .collect();
                let _ = write!(sql, "VALUES {}", rows.join(", "));
            }
            if dice.one_in(4) {
                let column = dice.of(columns);
                let _ = write!(sql, " ON CONFLICT DO UPDATE SET {column} = {}", dice.of(&["excluded.rowid", "random()", "'up'", "NULL", "7"]));
            }
            sql
        }
        15..=23 => {
            let sets: Vec<String> = (0..=dice.below(2))
                .map(|_| {
                    let (column, other) = (dice.of(columns), dice.of(columns));
                    let value = match dice.below(4) {
                        0 => format!("{other} + 1"),
                        1 => format!("-{column}"),
                        _ => dice.of(VALUES).to_owned(),
                    };
                    format!("{column} = {value}")
                })
                .collect();
            format!("UPDATE {conflict}{table} SET {}{}", sets.join(", "), condition(dice, columns))
        }
        24..=28 => format!("DELETE FROM {table}{}", condition(dice, columns)),
        29 => dice
            .of(&[
                "INSERT INTO words(words) VALUES ('optimize')",
                "INSERT INTO words(words, rank) VALUES ('pgsz', 50)",
                "INSERT INTO words(words, rank) VALUES ('automerge', 2)",
                "INSERT INTO words(words, rank) VALUES ('secure-delete', 1)",
                "INSERT INTO words(words, rank) VALUES ('merge', -8)",
                "INSERT INTO words(words) VALUES ('rebuild')",
                "INSERT INTO outside(outside) VALUES ('rebuild')",
                "INSERT INTO outside(outside) VALUES ('delete-all')",
                "INSERT INTO contentless(contentless) VALUES ('delete-all')",
                "INSERT INTO older(older) VALUES ('optimize')",
                "INSERT INTO older(older) VALUES ('rebuild')",
                "INSERT INTO older(older) VALUES ('automerge=2')",
                "INSERT INTO older(older) VALUES ('merge=50,2')",
            ])
            .to_owned(),
        30 => dice
            .of(&[
                "UPDATE sqlite_sequence SET seq = 100 WHERE name = 'auto'",
                "UPDATE sqlite_sequence SET seq = 'none' WHERE name = 'auto'",
                "DELETE FROM sqlite_sequence WHERE name = 'auto'",
                "DELETE FROM sqlite_sequence",
                "INSERT INTO sqlite_sequence VALUES ('auto', 9), ('other', 5)",
            ])
            .to_owned(),
        31 => dice.of(&["ANALYZE plain", "ANALYZE less", "ANALYZE child", "REINDEX plain", "REINDEX less", "PRAGMA user_version = 9"]).to_owned(),
        32..=33 => {
            let name = dice.of(&["plain", "keyed", "auto", "less", "child", "parent", "extra"]);
            let column = dice.of(&["z", "y"]);
            match dice.below(4) {
                0 => format!("ALTER TABLE {name} ADD COLUMN {column} DEFAULT {}", dice.of(&["7", "'t'", "NULL", "2.0", "x'01'"])),
                1 => format!("ALTER TABLE {name} ADD COLUMN {column} REAL DEFAULT 5"),
                2 => format!("ALTER TABLE {name} DROP COLUMN {column}"),
                _ => format!("ALTER TABLE {name} RENAME COLUMN {column} TO {}", dice.of(&["z", "y"])),
            }
        }
        34 => format!("UPDATE {conflict}{} SET {} = {}", dice.of(&["plain", "keyed", "auto", "less", "extra"]), dice.of(&["z", "y"]), dice.of(VALUES)),
        35 => dice
            .of(&[
                "DROP TABLE IF EXISTS extra",
                "CREATE TABLE IF NOT EXISTS extra AS SELECT *, randomblob(4) AS z, random() AS y FROM plain",
                "CREATE TABLE extra AS SELECT 'q' AS _rowid_, a, b FROM keyed",
                "CREATE TABLE extra(id INTEGER PRIMARY KEY AUTOINCREMENT, z)",
                "ALTER TABLE extra RENAME TO extra2",
                "ALTER TABLE extra2 RENAME TO extra",
                "DROP TABLE extra2",
                "INSERT INTO extra(z) VALUES (1), (random())",
                "DROP TABLE parent",
                "DROP TABLE child",
                "ALTER TABLE words RENAME TO words2",
                "ALTER TABLE words2 RENAME TO words",
                "ALTER TABLE boxes RENAME TO boxes2",
                "ALTER TABLE boxes2 RENAME TO boxes",
                "DROP INDEX plain_expression",
                "CREATE INDEX plain_expression ON plain(lower(b), typeof(a))",
                "DROP TRIGGER change",
                "ALTER TABLE keyed RENAME COLUMN b TO b2",
                "ALTER TABLE keyed RENAME COLUMN b2 TO b",
            ])
            .to_owned(),
        36 => format!("INSERT {conflict}INTO {table} SELECT * FROM {}", dice.of(&["plain", "keyed", "auto", "less", "binary_key", "parent", "child", "words", "boxes", table])),
        37 => "REPLACE INTO less SELECT a, b, c FROM less UNION ALL SELECT upper(a), b, 1 FROM less".to_owned(),
        38 => "WITH k AS (SELECT * FROM keyed LIMIT 3) UPDATE plain SET b = k.a FROM k WHERE plain.a = k.id".to_owned(),
        _ => format!("DELETE FROM {table}"),
    }
}

/// One case; what it ran is in `story`.
async fn play(
    members: &mut Members,
    namespace: &str,
    dice: &mut Dice,
    story: &mut Vec<String>,
) -> usize {
    let mut done = 0;
    for sql in SCHEMA {
        members.run_ok(namespace, sql).await;
    }
    for _ in 0..3 {
        for _ in 0..12 {
            if dice.one_in(4) {
                let mut texts: Vec<String> =
                    (0..2 + dice.below(5)).map(|_| statement(dice)).collect();
                match dice.below(5) {
                    0 => texts.insert(0, "PRAGMA foreign_keys = OFF".to_owned()),
                    1 => texts.insert(0, "PRAGMA defer_foreign_keys = ON".to_owned()),
                    2 => texts.push("SELECT nothing".to_owned()),
                    _ => {}
                }
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let outcome = members.transact(namespace, &texts).await;
                done += if outcome.is_ok() { texts.len() } else { 0 };
                story.push(format!("{texts:?} -- {:?}", outcome.err().map(|error| error.message)));
            } else {
                let sql = statement(dice);
                let outcome = members.run(namespace, &sql).await;
                done += usize::from(outcome.is_ok());
                story.push(format!("{sql} -- {:?}", outcome.err().map(|error| error.message)));
            }
        }
        story.push("-- the other node leads".to_owned());
        members.change_places().await;
        members.compare_one(namespace).await;
    }
    done
}

/// Tells what led to a difference.
struct Story(Vec<String>, u64);

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut out = std::io::stderr();
            let story = self.0.join("\n");
            // There is nowhere else to say so.
            let _ = writeln!(out, "REPLICATED_SEED={} REPLICATED_CASES=1\n{story}", self.1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_leader_writes_the_other_node_has() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (seed, cases) = (number("REPLICATED_SEED", 1), number("REPLICATED_CASES", 40));
    let mut members = Members::start(seed);
    let mut done = 0;
    for case in seed..seed + cases {
        let mut story = Story(Vec::new(), case);
        let namespace = format!("case{case}");
        done += play(&mut members, &namespace, &mut Dice(case), &mut story.0).await;
    }
    assert!(done as u64 >= cases * 10, "only {done} statements succeeded");
}
