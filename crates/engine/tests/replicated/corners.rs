//! Places where what one node has could differ from what another makes of the log. Each case writes
//! on one node, then on the other, and on the first again, and compares all rows in between.

use crate::members::Members;
use debros_engine::Engine as _;

/// Runs scripts one after the other, each on the node that did not run the one before. A script's
/// statements are calls of their own; several in one `&[…]` are one transaction.
async fn same_everywhere(scripts: &[&[&[&str]]]) {
    let mut members = Members::start(7);
    for calls in scripts {
        for call in *calls {
            let done = match call {
                [one] => members.run("app", one).await.map(|_| ()),
                several => members.transact("app", several).await,
            };
            done.unwrap_or_else(|error| panic!("{call:?}: {error:?}"));
        }
        members.compare().await;
        members.change_places().await;
    }
}

macro_rules! cases {
    ($($name:ident: $($script:expr),+;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                same_everywhere(&[$(&$script),+]).await;
            }
        )+
    };
}

cases! {
    a_negative_zero_is_another_value:
        [&["CREATE TABLE t(a, b)"], &["INSERT INTO t VALUES (0.0, -0.0)"], &["UPDATE t SET a = -0.0, b = 0.0"]];
    an_integer_takes_the_place_of_an_equal_real:
        [&["CREATE TABLE t(a)"], &["INSERT INTO t VALUES (1.0)"], &["UPDATE t SET a = 1"], &["UPDATE t SET a = '1'"],
         &["UPDATE t SET a = x'31'"]];
    a_default_of_an_older_row_is_set_to_null:
        [&["CREATE TABLE t(a)"], &["INSERT INTO t VALUES (1), (2)"], &["ALTER TABLE t ADD COLUMN b DEFAULT 5"],
         &["ALTER TABLE t ADD COLUMN c REAL DEFAULT 5"], &["UPDATE t SET b = NULL, c = NULL WHERE a = 1"],
         &["UPDATE t SET b = 5, c = 5 WHERE a = 2"]];
    keys_that_only_their_own_collation_tells_apart:
        [&["CREATE TABLE t(a TEXT COLLATE NOCASE, b, PRIMARY KEY (a COLLATE BINARY)) WITHOUT ROWID"],
         &["INSERT INTO t VALUES ('x', 1), ('X', 2)"], &["UPDATE t SET b = 3 WHERE a = 'x' COLLATE BINARY"],
         &["DELETE FROM t WHERE a = 'X' COLLATE BINARY"]];
    a_key_changes_its_case_only:
        [&["CREATE TABLE t(a TEXT, b, c AS (a || b), PRIMARY KEY (a COLLATE NOCASE, b DESC)) WITHOUT ROWID"],
         &["INSERT INTO t VALUES ('x', 1), ('y', 1)"], &["UPDATE t SET a = 'X' WHERE a = 'x'"],
         &["INSERT OR REPLACE INTO t VALUES ('Y', 1)"], &["UPDATE OR REPLACE t SET a = 'y' WHERE a = 'X'"]];
    a_selected_column_is_called_as_the_rowid:
        [&["CREATE TABLE t AS SELECT 'five' AS _rowid_, 6 AS a UNION ALL SELECT 'six', 7"],
         &["CREATE TABLE u AS SELECT 50 AS _rowid_, 60 AS oid"], &["INSERT INTO u VALUES (1, 2)"], &["UPDATE u SET oid = 3"],
         &["DELETE FROM t WHERE a = 6"]];
    columns_with_all_names_of_a_rowid_and_a_key_that_is_one:
        [&["CREATE TABLE t(id INTEGER PRIMARY KEY, rowid, _rowid_, oid)"], &["INSERT INTO t VALUES (7, 1, 2, 3)"],
         &["UPDATE t SET rowid = 9, id = 8"], &["DELETE FROM t WHERE id = 8"], &["INSERT INTO t(oid) VALUES (1)"]];
    a_table_changes_on_the_other_node_meanwhile:
        [&["CREATE TABLE t(a)"], &["INSERT INTO t VALUES (1)"]],
        [&["ALTER TABLE t ADD COLUMN b"], &["INSERT INTO t VALUES (2, 2)"]],
        [&["INSERT INTO t VALUES (3, 3)"], &["UPDATE t SET b = 4"], &["ALTER TABLE t DROP COLUMN a"], &["UPDATE t SET b = b + 1"]],
        [&["INSERT INTO t VALUES (9)"], &["ALTER TABLE t RENAME COLUMN b TO z"], &["INSERT INTO t VALUES (10)"]],
        [&["UPDATE t SET z = z * 2"]];
    numbers_that_users_write:
        [&["CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v)"], &["CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT, v)"],
         &["CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT, v)"],
         &["INSERT INTO a(v) VALUES (1), (2)"], &["INSERT INTO b(v) VALUES (1)"], &["INSERT INTO a(v) VALUES (1)"],
         &["INSERT INTO c(v) VALUES (1)"], &["INSERT INTO a(v) VALUES (1)"],
         &["UPDATE sqlite_sequence SET seq = 50 WHERE name = 'a'"], &["UPDATE sqlite_sequence SET seq = 60 WHERE name = 'b'"],
         &["INSERT INTO a(v) VALUES (9)", "UPDATE sqlite_sequence SET seq = 50 WHERE name = 'a'", "DELETE FROM a WHERE v = 9"],
         &["DELETE FROM sqlite_sequence WHERE name = 'c'"], &["INSERT INTO c VALUES (77, 1)"]],
        [&["INSERT INTO a(v) VALUES (10)"], &["INSERT INTO b(v) VALUES (10)"], &["UPDATE sqlite_sequence SET seq = 1 WHERE name = 'c'"],
         &["INSERT INTO c(v) VALUES (10)"]],
        [&["INSERT INTO a(v) VALUES (10)"], &["DROP TABLE b"], &["ALTER TABLE a RENAME TO aa"], &["INSERT INTO aa(v) VALUES (11)"],
         &["DELETE FROM sqlite_sequence"], &["INSERT INTO aa(v) VALUES (12)"]];
    numbers_that_are_none:
        [&["CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v)"], &["INSERT INTO a(v) VALUES (1)"],
         &["UPDATE sqlite_sequence SET seq = 'seven' WHERE name = 'a'"]],
        [&["INSERT INTO a(v) VALUES (2)"], &["INSERT INTO sqlite_sequence VALUES ('a', 70)"], &["INSERT INTO a(v) VALUES (3)"]],
        [&["INSERT INTO a(v) VALUES (4)"], &["UPDATE sqlite_sequence SET seq = NULL WHERE name = 'a'"], &["INSERT INTO a(v) VALUES (5)"]];
    a_number_that_a_trigger_takes_in_between:
        [&["CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v)"], &["CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT, v)"],
         &["CREATE TRIGGER ab AFTER INSERT ON a BEGIN INSERT INTO b(v) VALUES (new.v); END"],
         &["CREATE TRIGGER no BEFORE INSERT ON a WHEN new.v = 3 BEGIN INSERT INTO b(v) VALUES ('before'); SELECT RAISE(IGNORE); END"],
         &["INSERT INTO a(v) VALUES (1), (2), (3), (4)"]],
        [&["INSERT INTO a(v) VALUES (3), (5)"], &["INSERT INTO b(v) VALUES (6)"]];
    a_full_text_index_is_written_on_both_nodes:
        [&["CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)"], &["CREATE VIRTUAL TABLE f USING fts5(a, b, content='t', content_rowid='id')"],
         &["CREATE TRIGGER ti AFTER INSERT ON t BEGIN INSERT INTO f(rowid, a, b) VALUES (new.id, new.a, new.b); END"],
         &["CREATE TRIGGER td AFTER DELETE ON t BEGIN INSERT INTO f(f, rowid, a, b) VALUES ('delete', old.id, old.a, old.b); END"],
         &["INSERT INTO t VALUES (1, 'one two', 'three'), (2, 'two', 'four')"], &["DELETE FROM t WHERE id = 1"],
         &["CREATE VIRTUAL TABLE g USING fts5(x, prefix='2 3')"], &["INSERT INTO g VALUES ('some words here')"],
         &["INSERT INTO g(g, rank) VALUES ('pgsz', 64)"]],
        [&["INSERT INTO f(f) VALUES ('integrity-check')"], &["INSERT INTO t VALUES (3, 'five two', 'six')"], &["INSERT INTO g VALUES ('more words')"],
         &["DELETE FROM g WHERE g MATCH 'some'"], &["INSERT INTO g(g) VALUES ('integrity-check')"], &["INSERT INTO f(f) VALUES ('rebuild')"],
         &["INSERT INTO g(g, rank) VALUES ('automerge', 2)"]],
        [&["INSERT INTO g VALUES ('yet more')"], &["INSERT INTO g(g) VALUES ('optimize')"], &["UPDATE g SET x = 'other words' WHERE rowid = 2"],
         &["INSERT INTO f(f) VALUES ('integrity-check')"], &["INSERT INTO g(g) VALUES ('integrity-check')"]],
        [&["DELETE FROM g"], &["DELETE FROM t"], &["INSERT INTO g VALUES ('last words')"], &["INSERT INTO g(g) VALUES ('integrity-check')"],
         &["DROP TABLE g"], &["CREATE VIRTUAL TABLE g USING fts5(y)"], &["INSERT INTO g VALUES ('first words')"],
         &["ALTER TABLE g RENAME TO h"], &["INSERT INTO h VALUES ('second words')"]];
    a_full_text_index_is_written_before_the_schema_changes:
        [&["CREATE VIRTUAL TABLE f USING fts5(a)"], &["CREATE VIRTUAL TABLE g USING fts4(a)"], &["CREATE TABLE t(a)"],
         &["INSERT INTO f VALUES ('one')", "INSERT INTO g VALUES ('one')", "ALTER TABLE t ADD COLUMN b", "INSERT INTO f VALUES ('two')",
           "CREATE TABLE u AS SELECT * FROM f", "INSERT INTO f(f, rank) VALUES ('pgsz', 50)", "CREATE INDEX ta ON t(a)"]],
        [&["INSERT INTO f(f) VALUES ('integrity-check')"], &["INSERT INTO f VALUES ('three')"], &["INSERT INTO g VALUES ('three')"]];
    an_older_full_text_index_is_written_on_both_nodes:
        [&["CREATE VIRTUAL TABLE f USING fts4(a, b)"], &["INSERT INTO f VALUES ('one two', 'three'), ('two', 'four')"],
         &["CREATE VIRTUAL TABLE g USING fts3(a)"], &["INSERT INTO g VALUES ('one two')"], &["DELETE FROM f WHERE docid = 1"]],
        [&["INSERT INTO f VALUES ('five', 'six')"], &["INSERT INTO f(f) VALUES ('optimize')"], &["UPDATE g SET a = 'three' WHERE docid = 1"],
         &["INSERT INTO f(f) VALUES ('integrity-check')"]],
        [&["INSERT INTO f(f) VALUES ('rebuild')"], &["DELETE FROM f"], &["INSERT INTO g(g) VALUES ('integrity-check')"], &["DROP TABLE f"]];
    an_older_full_text_index_merges_by_itself:
        [&["CREATE VIRTUAL TABLE f USING fts4(a)"], &["INSERT INTO f(f) VALUES ('automerge=2')"],
         &["CREATE VIRTUAL TABLE g USING fts3(a)"]],
        [&["INSERT INTO f WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) SELECT hex(randomblob(20)) || ' ' || hex(randomblob(20)) FROM n"],
         &["INSERT INTO f WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) SELECT hex(randomblob(20)) || ' ' || hex(randomblob(20)) FROM n"],
         &["INSERT INTO f(f) VALUES ('merge=200,2')"],
         &["INSERT INTO f WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) SELECT hex(randomblob(20)) || ' ' || hex(randomblob(20)) FROM n"],
         &["INSERT INTO f WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) SELECT hex(randomblob(20)) || ' ' || hex(randomblob(20)) FROM n"],
         &["INSERT INTO f WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) SELECT hex(randomblob(20)) || ' ' || hex(randomblob(20)) FROM n"],
         &["INSERT INTO f WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) SELECT hex(randomblob(20)) || ' ' || hex(randomblob(20)) FROM n"]],
        [&["INSERT INTO f VALUES ('five')"], &["INSERT INTO f(f) VALUES ('integrity-check')"]];
    a_tree_of_boxes_is_written_on_both_nodes:
        [&["CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1, +label)"],
         &["INSERT INTO r WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT i, i, i + 2, -i, i, 'l' || i FROM n"],
         &["DELETE FROM r WHERE id % 3 = 0"]],
        [&["INSERT OR REPLACE INTO r VALUES (1, 5, 6, 7, 8, 'again')"], &["UPDATE r SET x1 = x1 + 1 WHERE id < 100"],
         &["UPDATE r SET id = 1000 WHERE id = 2"], &["DELETE FROM r WHERE id > 250"]],
        [&["INSERT INTO r VALUES (NULL, 1, 2, 3, 4, NULL)"], &["DELETE FROM r"], &["INSERT INTO r VALUES (3, 1, 2, 3, 4, x'00')"]];
    rows_of_the_number_zero_and_the_ends:
        [&["CREATE TABLE t(a UNIQUE, b)"], &["INSERT INTO t(rowid, a) VALUES (0, 'zero'), (-9223372036854775808, 'min'), (9223372036854775807, 'max')"],
         &["UPDATE t SET rowid = 0, a = 'none' WHERE rowid = 5"], &["UPDATE t SET b = 1 WHERE rowid = 0"], &["UPDATE t SET rowid = rowid + 1 WHERE rowid = 0"],
         &["UPDATE t SET rowid = 0 WHERE rowid = 1"], &["INSERT OR REPLACE INTO t(rowid, a) VALUES (0, 'max')"], &["DELETE FROM t WHERE rowid = 0"],
         &["CREATE TABLE d(id INTEGER PRIMARY KEY DESC, a)"], &["INSERT INTO d VALUES (5, 1), (NULL, 2), (5.0, 3) ON CONFLICT DO UPDATE SET a = 9"]],
        [&["UPDATE d SET id = 6 WHERE a = 2"], &["DELETE FROM d"], &["INSERT INTO t(a) VALUES ('next')"]];
    statistics_are_the_same:
        [&["CREATE TABLE t(a, b)"], &["CREATE INDEX ta ON t(a, b)"], &["CREATE TABLE u(a PRIMARY KEY, b) WITHOUT ROWID"],
         &["INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i * 7919 % 13, i * 104729 % 997 FROM n"],
         &["INSERT INTO u SELECT DISTINCT b, a FROM t WHERE true ON CONFLICT DO NOTHING"], &["DELETE FROM t WHERE b % 5 = 0"], &["ANALYZE t"], &["ANALYZE u"],
         &["DELETE FROM t WHERE b % 3 = 0"], &["ANALYZE t"]],
        [&["INSERT INTO t SELECT b, a FROM t"], &["ANALYZE t"], &["ANALYZE u"], &["REINDEX t"], &["DROP TABLE u"], &["PRAGMA user_version = -7"], &["PRAGMA application_id = 99"]];
    references_remove_and_change_rows:
        [&["CREATE TABLE p(id INTEGER PRIMARY KEY, a UNIQUE)"], &["CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id) ON DELETE CASCADE ON UPDATE CASCADE)"],
         &["CREATE TABLE s(p REFERENCES p(a) ON DELETE SET NULL ON UPDATE SET DEFAULT, d DEFAULT 4)"],
         &["CREATE TABLE q(id INTEGER PRIMARY KEY, up REFERENCES q(id) ON DELETE CASCADE)"],
         &["INSERT INTO p VALUES (1, 'a'), (2, 'b'), (3, 'c')"], &["INSERT INTO c VALUES (1, 1), (2, 2), (3, 3)"], &["INSERT INTO s(p) VALUES ('a'), ('b'), ('c')"],
         &["INSERT INTO q VALUES (1, NULL), (2, 1), (3, 2), (4, 3)"],
         &["UPDATE p SET id = 10 WHERE id = 1"], &["DELETE FROM p WHERE id = 2"], &["DELETE FROM q WHERE id = 1"], &["REPLACE INTO p VALUES (3, 'd')"]],
        [&["INSERT INTO p VALUES (5, 'x')"], &["INSERT INTO c VALUES (5, 5)"], &["PRAGMA defer_foreign_keys = ON", "DELETE FROM c", "DROP TABLE p"]],
        [&["PRAGMA foreign_keys = OFF", "CREATE TABLE p(id INTEGER PRIMARY KEY, a UNIQUE)", "INSERT INTO p VALUES (1, 'z')", "PRAGMA foreign_keys = ON"],
         &["INSERT INTO c VALUES (9, 1)"]];
    tables_are_made_and_renamed_within_a_transaction:
        [&["CREATE TABLE t(a)", "INSERT INTO t VALUES (1)", "ALTER TABLE t RENAME TO u", "INSERT INTO u VALUES (2)", "CREATE TABLE t(x, y)",
           "INSERT INTO t VALUES (1, 2)", "DROP TABLE u", "CREATE TABLE u AS SELECT randomblob(5) AS r, random() AS s FROM t", "UPDATE u SET s = 1",
           "ALTER TABLE t ADD COLUMN z DEFAULT 'zz'", "UPDATE t SET z = NULL", "ALTER TABLE t DROP COLUMN x", "INSERT INTO t VALUES (5, 6)"]],
        [&["DROP TABLE t", "CREATE TABLE t(only)", "INSERT INTO t VALUES (1)"], &["INSERT INTO t VALUES (2)"]];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_rows_have_no_name_is_refused() {
    let mut members = Members::start(7);
    members
        .run_ok("app", "CREATE TABLE fine(rowid, _rowid_, OID, PRIMARY KEY (oid)) WITHOUT ROWID")
        .await;
    members.run_ok("app", "INSERT INTO fine VALUES (1, 2, 3)").await;
    members.run_ok("app", "CREATE TABLE t(rowid, \"_RowID_\", a)").await;
    for sql in [
        "CREATE TABLE u(rowid, _rowid_, oid)",
        "CREATE TABLE u(rowid INTEGER PRIMARY KEY DESC, _rowid_, oid)",
        "CREATE TABLE u AS SELECT 1 AS rowid, 2 AS _rowid_, 3 AS oid",
    ] {
        let refused = members.run("app", sql).await.unwrap_err();
        assert_eq!(refused.code, debros_proto::Code::StatementNotAllowed, "{sql}: {refused:?}");
        assert!(refused.message.contains("in a cluster"), "{refused:?}");
    }
    members.run_ok("app", "INSERT INTO t VALUES (1, 2, 3)").await;
    members.compare().await;
}

/// What a call has written into a full-text index is written into its tables when the next call
/// begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_fails_takes_nothing_of_the_calls_before_it() {
    let mut members = Members::start(7);
    for sql in [
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "CREATE TABLE t(a UNIQUE, b)",
        "INSERT INTO t VALUES (1, 1)",
    ] {
        members.run_ok("app", sql).await;
    }
    for round in 0..10 {
        let index = format!("INSERT INTO f VALUES ('word{round} again')");
        let transaction = [index.as_str(), "INSERT INTO t(b) VALUES (1)"];
        call_at_once(&members, &index, &transaction).await;
    }
    members.compare().await;
    members.change_places().await;
    members.run_ok("app", "INSERT INTO f(f) VALUES ('integrity-check')").await;
}

/// Many calls at once, of which every other one fails.
async fn call_at_once(members: &Members, index: &str, transaction: &[&str]) {
    let fails = "INSERT INTO t SELECT NULL, 1 UNION ALL SELECT 1, 1";
    let failing = [transaction[1], fails];
    let (good, bad, several, undone) = tokio::join!(
        members.run("app", index),
        members.run("app", fails),
        members.transact("app", transaction),
        members.transact("app", &failing),
    );
    let (more, worse) = tokio::join!(members.run("app", index), members.run("app", fails));
    for done in [good.map(|_| ()), several, more.map(|_| ())] {
        done.unwrap();
    }
    assert!(bad.is_err() && undone.is_err() && worse.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_the_same_entry_have_the_same_checksum_and_a_damaged_one_has_not() {
    let mut members = Members::start(7);
    let app = debros_engine::conformance::database("app");
    for sql in [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b AS (a || 'x'))",
        "CREATE TABLE u(a TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID",
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "INSERT INTO t(a) VALUES (1), (-0.0), (NULL), (x'00')",
        "INSERT INTO u VALUES ('b'), ('A')",
        "INSERT INTO f VALUES ('some words')",
    ] {
        members.run_ok("app", sql).await;
    }
    members.catch_up().await.unwrap();
    let [before, other] = members.checksums(&app);
    assert_eq!(before, other);
    members.run_ok("app", "UPDATE t SET a = 0.0 WHERE id = 2").await;
    let [after, behind] = members.checksums(&app);
    assert_eq!(behind, before);
    assert!(after.0 > before.0 && after.1 != before.1);
    members.catch_up().await.unwrap();
    let [after, other] = members.checksums(&app);
    assert_eq!(after, other);
    let [system, other] = members.checksums(&debros_engine::TargetDatabase::System);
    assert_eq!(system, other);
    members.damage_follower("app", "UPDATE \"ns::app::u\" SET a = 'B' WHERE a = 'b'");
    let [ours, theirs] = members.checksums(&app);
    assert!(ours.0 == theirs.0 && ours.1 != theirs.1);
}

/// What the leader knows of a file is of the file that a restore put there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_goes_on_from_what_it_has_restored() {
    let mut members = Members::start(7);
    for sql in [
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
        "CREATE VIRTUAL TABLE f USING fts4(body)",
        "INSERT INTO t(a) VALUES (1), (2)",
        "INSERT INTO f VALUES ('one')",
    ] {
        members.run_ok("app", sql).await;
    }
    let made = members.leader().backup(Box::new(|_, _| {})).await.unwrap();
    members.run_ok("app", "INSERT INTO t(a) VALUES (3), (4), (5)").await;
    members.run_ok("app", "INSERT INTO f(f) VALUES ('automerge=2')").await;
    members.compare().await;
    members.leader().restore(&made.name, Box::new(|_, _| {})).await.unwrap();
    for sql in ["INSERT INTO f VALUES ('two')", "INSERT INTO t(a) VALUES (6)"] {
        members.run_ok("app", sql).await;
    }
    members.compare().await;
    members.change_places().await;
    let found = members.run_ok("app", "INSERT INTO t(a) VALUES (7) RETURNING id").await;
    assert_eq!(found.last_insert_id, Some(4));
    members.compare().await;
}
