//! Statements that would keep a cluster busy for good, or take all its memory or its disk, if they
//! were run by everybody who reads the log. A namespace has `t` with 1,000 rows, and `u`.

/// What one attempt sends.
pub(crate) enum Attempt {
    /// Each in a call of its own.
    Calls(Vec<String>),
    /// All in one transaction.
    Transaction(Vec<String>),
}

/// What a namespace has before.
pub(crate) const TABLES: &[&str] = &[
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
    "CREATE TABLE u(k PRIMARY KEY, v)",
    "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i, i * 7919 % 1000 FROM n",
];

/// Counts without an end.
const ENDLESS: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";
/// The largest of what never ends.
const MAX_OF_ENDLESS: &str =
    "(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c)";
/// Rows of which there are more than anybody can count.
const FIVE_TIMES: &str = "t t1, t t2, t t3, t t4, t t5";

/// One call for each text, in which `;;` separates calls.
const CALLS: &[&str] = &[
    // Recursion.
    "INSERT INTO u {E} SELECT max(x), 1 FROM c",
    "INSERT INTO u {E} SELECT x, x FROM c",
    "INSERT INTO u(k) {E} SELECT zeroblob(1000) || x FROM c",
    "{E} INSERT INTO u SELECT x, hex(x) FROM c",
    "UPDATE t SET a = {M}",
    "UPDATE t SET a = 1 WHERE id = {M}",
    "UPDATE t SET a = c.x FROM ({E} SELECT x FROM c) c WHERE c.x = -1",
    "{E} UPDATE t SET a = (SELECT count(*) FROM c)",
    "DELETE FROM t WHERE id = {M}",
    "{E} DELETE FROM t WHERE a IN (SELECT -x FROM c)",
    "REPLACE INTO u VALUES (1, {M})",
    "INSERT INTO u VALUES (1, 1) ON CONFLICT (k) DO UPDATE SET v = {M} ;; INSERT INTO u VALUES (1, 1) ON CONFLICT (k) DO UPDATE SET v = {M}",
    "INSERT INTO u VALUES (1, 1) ON CONFLICT (k) DO UPDATE SET v = 1 WHERE {M} ;; INSERT INTO u VALUES (1, 1) ON CONFLICT (k) DO UPDATE SET v = 1 WHERE {M}",
    "INSERT INTO u VALUES (2, 2) RETURNING {M}",
    "CREATE TABLE made AS {E} SELECT x FROM c",
    "CREATE TABLE made AS SELECT {M} AS x",
    "CREATE VIEW endless AS {E} SELECT x FROM c ;; INSERT INTO u SELECT x, x FROM endless",
    "CREATE VIEW endless AS {E} SELECT max(x) AS x FROM c ;; CREATE TABLE made AS SELECT * FROM endless",
    "CREATE VIEW endless AS {E} SELECT max(x) AS x FROM c ;; ALTER TABLE t RENAME COLUMN a TO b ;; ALTER TABLE t RENAME TO t2",
    "CREATE TRIGGER slow AFTER INSERT ON u BEGIN UPDATE t SET a = {M}; END ;; INSERT INTO u VALUES (1, 1)",
    "CREATE TRIGGER slow BEFORE DELETE ON t WHEN {M} > 1 BEGIN SELECT 1; END ;; DELETE FROM t",
    "CREATE TRIGGER slow AFTER UPDATE ON t BEGIN INSERT INTO u {E} SELECT x, x FROM c; END ;; UPDATE t SET a = 1",
    "CREATE VIEW shown AS SELECT * FROM t ;; CREATE TRIGGER slow INSTEAD OF UPDATE ON shown BEGIN INSERT INTO u {E} SELECT x, 1 FROM c; END ;; UPDATE shown SET a = 1",
    "INSERT INTO u WITH RECURSIVE c(x) AS (SELECT 1 UNION SELECT (x * 7919 + 1) % 99999999999 FROM c) SELECT count(*), 1 FROM c",
    "INSERT INTO u WITH RECURSIVE f(a, b) AS (SELECT 'x', 'y' UNION ALL SELECT a || b, b || a FROM f) SELECT a, b FROM f",
    // Long values.
    "INSERT INTO u VALUES (1, zeroblob(1000000000))",
    "INSERT INTO u VALUES (1, randomblob(1000000000))",
    "INSERT INTO u VALUES (1, printf('%.*c', 1000000000, 'x'))",
    "INSERT INTO u VALUES (1, printf('%1000000000d', 1))",
    "INSERT INTO u VALUES (1, hex(zeroblob(400000000)))",
    "INSERT INTO u VALUES (1, replace(replace(replace(hex(zeroblob(5000)), '0', hex(zeroblob(500))), '0', hex(zeroblob(500))), '0', hex(zeroblob(500))))",
    "INSERT INTO u SELECT id, zeroblob(20000000) FROM t",
    "INSERT INTO u SELECT id, randomblob(1000000) FROM t",
    "UPDATE t SET a = randomblob(100000)",
    "INSERT INTO u SELECT 1, group_concat(hex(zeroblob(1000000))) FROM t",
    "INSERT INTO u VALUES (1, zeroblob(15000000)) ;; UPDATE u SET v = v || v ;; UPDATE u SET v = v || v ;; UPDATE u SET v = v || v",
    "CREATE TABLE wide(a DEFAULT (zeroblob(100000000))) ;; INSERT INTO wide DEFAULT VALUES",
    "ALTER TABLE t ADD COLUMN b DEFAULT (zeroblob(100000000))",
    // Joins and views.
    "INSERT INTO u SELECT count(*), 1 FROM {J}",
    "INSERT INTO u SELECT t1.id, t2.id FROM {J} WHERE t1.a + t2.a + t3.a + t4.a + t5.a = -1",
    "UPDATE t SET a = (SELECT count(*) FROM {J})",
    "DELETE FROM t WHERE (SELECT sum(t1.id * t5.id) FROM {J}) = 1",
    "CREATE TABLE made AS SELECT t1.id AS a, t2.id AS b, t3.id AS c FROM {J}",
    "INSERT INTO u SELECT DISTINCT t1.a || '-' || t2.a || '-' || t3.a, 1 FROM t t1, t t2, t t3 ORDER BY random()",
    "{VIEWS} ;; INSERT INTO u SELECT count(*), 1 FROM v30",
    "{VIEWS} ;; ALTER TABLE t RENAME COLUMN a TO b",
    "{VIEWS} ;; DROP TABLE t",
    // What is computed for each row, and what is checked.
    "CREATE INDEX slow ON t((SELECT max(x) FROM c))",
    "CREATE INDEX slow ON t(length(printf('%.*c', 100000000, a)))",
    "CREATE INDEX slow ON t(length(replace(hex(zeroblob(3000)), '0', hex(zeroblob(3000)))) + a)",
    "CREATE INDEX slow ON u(length(replace(hex(zeroblob(3000)), '0', hex(zeroblob(3000)))) + v) ;; INSERT INTO u SELECT id, a FROM t",
    "CREATE TABLE g(a, b AS (length(replace(hex(zeroblob(3000)), '0', hex(zeroblob(3000)))) + a) STORED) ;; INSERT INTO g SELECT id FROM t",
    "CREATE TABLE g(a, b AS (length(hex(zeroblob(100000000))) + a)) ;; CREATE INDEX gb ON g(b) ;; INSERT INTO g SELECT id FROM t",
    "ALTER TABLE t ADD COLUMN g AS (length(replace(hex(zeroblob(3000)), '0', hex(zeroblob(3000)))) + a) CHECK (g > 0)",
    "CREATE TABLE k(a CHECK (length(replace(hex(zeroblob(3000)), '0', hex(zeroblob(3000)))) + a > 0)) ;; INSERT INTO k SELECT id FROM t",
    "CREATE TABLE k(a CHECK (a LIKE '%a%b%c%d%e%f%g%h%i%j%k%l%m%')) ;; INSERT INTO k VALUES (hex(zeroblob(50000)))",
    "CREATE TABLE k(a DEFAULT (length(hex(zeroblob(400000000))))) ;; INSERT INTO k DEFAULT VALUES",
    // Triggers that call each other.
    "CREATE TRIGGER again AFTER INSERT ON u BEGIN INSERT INTO u VALUES (new.k + 1, 1); END ;; PRAGMA recursive_triggers = ON ;; INSERT INTO u VALUES (1, 1)",
    "CREATE TRIGGER ping AFTER UPDATE ON t BEGIN UPDATE u SET v = v + 1; END ;; CREATE TRIGGER pong AFTER UPDATE ON u BEGIN UPDATE t SET a = a + 1; END ;; INSERT INTO u SELECT id, 1 FROM t ;; UPDATE t SET a = 1",
    "CREATE TRIGGER many AFTER INSERT ON u BEGIN INSERT OR IGNORE INTO t SELECT t1.id * 1000000 + t2.id * 1000 + t3.id, 1 FROM t t1, t t2, t t3; END ;; INSERT INTO u VALUES (1, 1)",
    "CREATE TABLE tree(id INTEGER PRIMARY KEY, up REFERENCES tree(id) ON DELETE CASCADE) ;; INSERT INTO tree WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT i, nullif(i - 1, 0) FROM n ;; DELETE FROM tree WHERE id = 1",
    // Full text and boxes.
    "CREATE VIRTUAL TABLE f USING fts5(b, prefix = '1 2 3 4 5 6') ;; INSERT INTO f SELECT hex(randomblob(2000)) || ' ' || hex(randomblob(2000)) FROM t ;; INSERT INTO f(f) VALUES ('optimize') ;; INSERT INTO f(f) VALUES ('rebuild')",
    "CREATE VIRTUAL TABLE f USING fts5(b) ;; INSERT INTO f VALUES (replace(hex(zeroblob(500000)), '0', 'a ')) ;; INSERT INTO u SELECT 1, count(*) FROM f WHERE f MATCH 'NEAR(a a a a a a, 1000000)'",
    "CREATE VIRTUAL TABLE f USING fts5(b) ;; INSERT INTO f {E} SELECT 'word' || x FROM c",
    "CREATE VIRTUAL TABLE f USING fts4(b) ;; INSERT INTO f {E} SELECT 'word' || x FROM c",
    "CREATE VIRTUAL TABLE f USING fts4(b) ;; INSERT INTO f(f) VALUES ('automerge=2') ;; INSERT INTO f SELECT hex(randomblob(500)) FROM t ;; INSERT INTO f(f) VALUES ('merge=100000,2')",
    "CREATE VIRTUAL TABLE r USING rtree(id, a, b) ;; INSERT INTO r {E} SELECT x, x, x + 1 FROM c",
    "CREATE VIRTUAL TABLE r USING rtree(id, a, b) ;; INSERT INTO r SELECT id, id, id + 1 FROM t ;; DELETE FROM r WHERE id IN (SELECT r1.id FROM r r1, r r2, r r3, r r4)",
    // JSON, patterns, sorts.
    "INSERT INTO u SELECT count(*), 1 FROM json_each(replace(hex(zeroblob(3000000)), '00', '[')) ;; INSERT INTO u SELECT 2, json(replace(hex(zeroblob(3000000)), '0', '['))",
    "INSERT INTO u SELECT j1.key, j2.key FROM json_each((SELECT json_group_array(id) FROM t)) j1, json_each((SELECT json_group_array(id) FROM t)) j2, json_each((SELECT json_group_array(id) FROM t)) j3 WHERE j1.value + j2.value + j3.value = -1",
    "WITH RECURSIVE c(j) AS (SELECT '[1]' UNION ALL SELECT json_array(json(j), json(j)) FROM c) INSERT INTO u SELECT length(j), 1 FROM c",
    "UPDATE t SET a = 1 WHERE hex(zeroblob(20000)) LIKE '%0%0%0%0%0%0%0%0%0%0%0%1'",
    "UPDATE t SET a = 1 WHERE hex(zeroblob(20000)) GLOB '*0*0*0*0*0*0*0*0*0*0*0*1'",
    "INSERT INTO u SELECT row_number() OVER (ORDER BY random()), sum(t1.a) OVER (ORDER BY t2.a ROWS 1000000 PRECEDING) FROM t t1, t t2, t t3",
    "INSERT INTO u SELECT t1.id * 1000 + t2.id, 1 FROM t t1, t t2 ;; ANALYZE u ;; REINDEX u ;; DELETE FROM u",
    "INSERT INTO u VALUES (1, (SELECT count(*) FROM generate_series(1, 99999999999)))",
    "SELECT {M} ;; EXPLAIN INSERT INTO u SELECT {M}, 1",
];

/// Views of which each reads the one before twice.
fn doubling_views() -> String {
    let view = |number: usize| {
        let before = if number == 0 { "t".to_owned() } else { format!("v{}", number - 1) };
        format!("CREATE VIEW v{number} AS SELECT a FROM {before} UNION ALL SELECT a FROM {before}")
    };
    (0..=30).map(view).collect::<Vec<_>>().join(" ;; ")
}

/// All attempts. The long transactions have so many statements.
pub(crate) fn attempts(statements: usize) -> Vec<Attempt> {
    let views = doubling_views();
    let filled = |text: &&str| {
        let text = text.replace("{E}", ENDLESS).replace("{M}", MAX_OF_ENDLESS);
        let text = text.replace("{J}", FIVE_TIMES).replace("{VIEWS}", &views);
        Attempt::Calls(text.split(" ;; ").map(str::to_owned).collect())
    };
    let mut all: Vec<Attempt> = CALLS.iter().map(filled).collect();
    let times = |count: usize, sql: &dyn Fn(usize) -> String| {
        Attempt::Transaction((0..count).map(sql).collect())
    };
    all.extend([
        times(statements, &|index| format!("INSERT INTO u VALUES ({index}, randomblob(6000))")),
        times(statements, &|index| format!("CREATE TABLE many{index}(a UNIQUE, b UNIQUE)")),
        times(statements, &|_| "UPDATE t SET a = a + 1".to_owned()),
        times(statements, &|_| format!("INSERT INTO u {ENDLESS} SELECT x, x FROM c LIMIT 100000")),
        times(statements, &|index| format!("ALTER TABLE t ADD COLUMN c{index} DEFAULT {index}")),
        times(statements / 2, &|index| {
            if index % 2 == 0 {
                "CREATE TABLE made AS SELECT t1.* FROM t t1, (SELECT 1 FROM t LIMIT 4)".to_owned()
            } else {
                "DROP TABLE made".to_owned()
            }
        }),
        times(4, &|_| {
            "INSERT INTO u SELECT hex(randomblob(20)), randomblob(9000) FROM t".to_owned()
        }),
    ]);
    all
}
