//! Dumps of sqlite3 shells, loaded by one transaction call: what is there then is what SQLite has
//! when it has read the dump.

use debros_engine::Engine;
use debros_engine::conformance::{
    assert_code, database, namespace, options, query_integer, query_ok, query_refused, transaction,
};
use debros_engine::embedded::EmbeddedConfig;
use debros_proto::Code;
use debros_proto::rpc::{Statement, StatementResult, value::Kind};
use rusqlite::Connection;
use rusqlite::types::Value;
use std::path::Path;
use std::sync::Arc;

const FULL_TEXT_AND_RTREE: &str = include_str!("../dumps/full_text_and_rtree.sql");
const PRESENT_SHELL: &str = include_str!("../dumps/present_shell.sql");
const CONTENTLESS: &str = include_str!("../dumps/contentless.sql");

fn open(folder: &Path) -> Arc<dyn Engine> {
    crate::open_engine(EmbeddedConfig::new(folder))
}

/// The statements of a dump, without its BEGIN and COMMIT.
fn statements(dump: &str) -> Vec<&str> {
    let pieces = debros_proto::sql::split(dump).unwrap();
    pieces
        .into_iter()
        .map(|piece| piece.text)
        .filter(|sql| !sql.starts_with("BEGIN") && !sql.starts_with("COMMIT"))
        .collect()
}

/// What SQLite has when it has read a dump and looks at it again.
fn plain(folder: &Path, dump: &str) -> Connection {
    let path = folder.join("plain.db");
    Connection::open(&path).unwrap().execute_batch(dump).unwrap();
    Connection::open(&path).unwrap()
}

fn rows_of(result: StatementResult) -> Vec<Vec<Value>> {
    let plain = |kind| match kind {
        None => Value::Null,
        Some(Kind::Integer(integer)) => Value::Integer(integer),
        Some(Kind::Real(real)) => Value::Real(real),
        Some(Kind::Text(text)) => Value::Text(text),
        Some(Kind::Blob(blob)) => Value::Blob(blob.to_vec()),
    };
    result
        .rows
        .into_iter()
        .map(|row| row.values.into_iter().map(|value| plain(value.kind)).collect())
        .collect()
}

fn ask(db: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = db.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let width = statement.column_count();
    let rows =
        statement.query_map([], |row| (0..width).map(|index| row.get(index)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

async fn same(engine: &Arc<dyn Engine>, plain: &Connection, questions: &[&str]) {
    for sql in questions {
        let found = rows_of(query_ok(engine, sql).await);
        assert_eq!(found, ask(plain, sql), "{sql}");
        assert!(!found.is_empty(), "{sql} gives nothing to compare");
    }
}

/// The rows that follow each other in a table as one statement, as `db migrate` sends a long dump.
fn combined(dump: &str) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for sql in statements(dump) {
        let (head, rest) = sql.split_once(" VALUES(").unwrap_or((sql, ""));
        // All tables of a namespace share sqlite_sequence: its rows are rewritten one by one.
        let is_row = head.starts_with("INSERT INTO ") && !head.contains("sqlite_sequence");
        match texts.last_mut() {
            Some(last) if is_row && last.starts_with(&format!("{head} VALUES(")) => {
                last.push_str(",\n(");
                last.push_str(rest);
            }
            _ => texts.push(sql.to_owned()),
        }
    }
    texts
}

#[tokio::test]
async fn a_dump_with_full_text_rtrees_and_statistics_keeps_its_meaning() {
    let whole: Vec<&str> = statements(FULL_TEXT_AND_RTREE);
    keeps_its_meaning(&whole).await;
}

#[tokio::test]
async fn rows_in_one_statement_keep_the_meaning_of_a_dump() {
    let combined = combined(FULL_TEXT_AND_RTREE);
    let texts: Vec<&str> = combined.iter().map(String::as_str).collect();
    for behind in ["docs_content", "old_docsize", "boxes_rowid", "docs_config", "sqlite_stat1"] {
        assert!(
            texts.iter().any(|sql| sql.contains(behind) && sql.contains("),\n(")),
            "{behind} has too few rows to be combined"
        );
    }
    keeps_its_meaning(&texts).await;
}

async fn keeps_its_meaning(texts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder.path().join("data"));
    transaction(&engine, texts).await.unwrap_or_else(|error| panic!("{error:?}"));
    let plain = plain(folder.path(), FULL_TEXT_AND_RTREE);
    let questions = [
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat4' ORDER BY type, name",
        "SELECT id, body, at, typeof(at) FROM notes",
        "SELECT * FROM v",
        "SELECT * FROM sqlite_sequence ORDER BY name",
        "SELECT rowid, * FROM docs ORDER BY rowid",
        "SELECT rowid, round(rank, 6) FROM docs('dog') ORDER BY rank",
        "SELECT rowid, highlight(docs, 1, '[', ']') FROM docs WHERE docs MATCH 'run* OR title : fir*'",
        "SELECT k, v FROM docs_config ORDER BY k",
        "SELECT * FROM words ORDER BY term",
        "SELECT rowid FROM notes_fts('world')",
        "SELECT rowid, * FROM \"we ird\"('\"a \"\"b\"\"\" : odd')",
        "SELECT docid, a, b FROM old WHERE old MATCH 'run'",
        "SELECT docid, * FROM old",
        "SELECT docid FROM old_notes WHERE old_notes MATCH 'ünicode'",
        "SELECT * FROM older WHERE older MATCH 'anc*'",
        "SELECT * FROM boxes ORDER BY id",
        "SELECT id, label FROM boxes WHERE x1 >= 2.5 AND y0 < -2",
        "SELECT * FROM grid ORDER BY id",
        "SELECT count(*), min(id), max(b) FROM grid WHERE a > 10 AND b < 200",
        "SELECT tbl, idx, stat FROM sqlite_stat1 WHERE tbl = 'notes'",
        "SELECT count(*) FROM empty_less",
    ];
    same(&engine, &plain, &questions).await;
    // What was exported is a database of its own, which every sqlite3 reads.
    let export = engine.export(&namespace("app")).await.unwrap();
    let alone = Connection::open(&export.path).unwrap();
    assert_eq!(
        ask(&alone, "SELECT rowid FROM docs('dog')"),
        ask(&plain, "SELECT rowid FROM docs('dog')")
    );
    assert_eq!(ask(&alone, "PRAGMA integrity_check"), [[Value::Text("ok".to_owned())]]);
    // And it goes on living: numbers go on, triggers index.
    for sql in [
        "INSERT INTO notes(body) VALUES ('later zebra') RETURNING id",
        "SELECT rowid FROM notes_fts('zebra')",
    ] {
        assert_eq!(rows_of(query_ok(&engine, sql).await), ask(&plain, sql), "{sql}");
    }
    query_ok(&engine, "INSERT INTO docs(docs) VALUES ('integrity-check')").await;
    query_ok(&engine, "INSERT INTO notes_fts(notes_fts, rank) VALUES ('integrity-check', 1)").await;
}

#[tokio::test]
async fn a_dump_of_a_present_shell_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder.path().join("data"));
    transaction(&engine, &statements(PRESENT_SHELL))
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    let plain = plain(folder.path(), PRESENT_SHELL);
    let questions = [
        "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name",
        "SELECT * FROM users",
        "SELECT * FROM posts",
        "SELECT * FROM sqlite_sequence",
        "SELECT rowid, * FROM found('word')",
    ];
    same(&engine, &plain, &questions).await;
    // sqlite_sequence is there from a dump without any AUTOINCREMENT too, as SQLite keeps it.
    let made = "PRAGMA writable_schema=ON; CREATE TABLE IF NOT EXISTS sqlite_sequence(name,seq);
        DELETE FROM sqlite_sequence; PRAGMA writable_schema=OFF";
    let database = database("other");
    let texts = statements(made).into_iter().map(Statement::from).collect();
    engine.transaction(&database, texts, options()).await.unwrap();
    let look = Statement::from("SELECT name, sql FROM sqlite_schema");
    let found = engine.query(&database, look, options()).await.unwrap().value;
    let expected = [[
        Value::Text("sqlite_sequence".to_owned()),
        Value::Text("CREATE TABLE sqlite_sequence(name,seq)".to_owned()),
    ]];
    assert_eq!(rows_of(found), expected);
}

#[tokio::test]
async fn an_index_without_texts_is_refused_and_nothing_of_its_dump_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let error = transaction(&engine, &statements(CONTENTLESS)).await.unwrap_err();
    assert_code(&error, Code::StatementNotAllowed, CONTENTLESS);
    assert!(
        error.message.contains("less")
            && error.message.contains("content=''")
            && error.statement.is_some(),
        "{error:?}"
    );
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM sqlite_schema").await, 0);
}

/// What a dump may say, it may say in these forms alone, and only of what it has made itself.
#[tokio::test]
async fn a_dump_opens_no_other_way_into_the_schema_or_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    for sql in [
        "CREATE TABLE t(a)",
        "CREATE VIRTUAL TABLE mine USING fts5(a)",
        "INSERT INTO mine VALUES ('word')",
    ] {
        query_ok(&engine, sql).await;
    }
    let make = "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d','d',0,'CREATE VIRTUAL TABLE d USING fts5(a)')";
    let attacks: &[&[&str]] = &[
        &["UPDATE sqlite_schema SET sql = 'CREATE TABLE t(b)' WHERE name = 't'"],
        &["DELETE FROM sqlite_schema"],
        &["INSERT INTO sqlite_schema SELECT * FROM sqlite_schema"],
        &[
            "INSERT INTO sqlite_schema VALUES('table','d','d',0,'CREATE VIRTUAL TABLE d USING fts5(a)')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d','d',2,'CREATE VIRTUAL TABLE d USING fts5(a)')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d','e',0,'CREATE VIRTUAL TABLE d USING fts5(a)')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','e','e',0,'CREATE VIRTUAL TABLE d USING fts5(a)')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('view','d','d',0,'CREATE VIRTUAL TABLE d USING fts5(a)')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d','d',0,'CREATE TABLE d(a)')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('view','d','d',0,'CREATE VIEW d AS SELECT 1')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d','d',0,'CREATE VIRTUAL TABLE d USING fts5(a, c=''ns::other::t'')')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d','d',0,'CREATE VIRTUAL TABLE d USING csv(filename=''/etc/passwd'')')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d','d',0,'CREATE VIRTUAL TABLE d USING dbstat')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','_debros_d','_debros_d',0,'CREATE VIRTUAL TABLE _debros_d USING fts5(a)')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d','d',0,'CREATE VIRTUAL TABLE temp.d USING fts5(a)')",
        ],
        &[
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d','d',0,'CREATE VIRTUAL TABLE d USING fts5(a); DROP TABLE t')",
        ],
        &[
            "INSERT OR REPLACE INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','d','d',0,'CREATE VIRTUAL TABLE d USING fts5(a)')",
        ],
        &["CREATE TABLE IF NOT EXISTS sqlite_sequence(name,seq,more)"],
        &["CREATE TABLE sqlite_sequence(name,seq)"],
        &["CREATE TABLE IF NOT EXISTS sqlite_stat1(tbl,idx,stat)"],
        &["INSERT INTO mine_data VALUES(1,X'00')"],
        &["INSERT INTO mine_content VALUES(9,'x')"],
        &["CREATE TABLE IF NOT EXISTS 'mine_data'(id INTEGER PRIMARY KEY, block BLOB)"],
        &[make, "UPDATE d_data SET block = X'00'"],
        &[make, "DELETE FROM d_content"],
        &[make, "INSERT INTO d_data SELECT * FROM mine_data"],
        &[make, "INSERT INTO d_content(id, c0) VALUES(1,'x')"],
        &[make, "INSERT INTO d_content VALUES(1,'x','y')"],
        &[make, "INSERT INTO d_content VALUES(1,'x'),(2,(SELECT k FROM _debros_idempotency))"],
        &[make, "INSERT INTO d_config VALUES('version',4),('rank','load_extension(1')"],
        &["INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES\
             ('table','d','d',0,'CREATE VIRTUAL TABLE d USING fts5(a)'),\
             ('table','e','e',0,'CREATE VIRTUAL TABLE e USING fts5(a)')"],
        &[make, "INSERT INTO d_content VALUES(1,(SELECT k FROM _debros_idempotency))"],
        &[make, "INSERT OR REPLACE INTO d_data VALUES(1,X'00')"],
        &[make, "INSERT INTO mine_data VALUES(1,X'00')"],
        &[make, "CREATE TRIGGER x AFTER INSERT ON d_content BEGIN SELECT 1; END"],
        &[make, "INSERT INTO d_config VALUES('rank','load_extension(1')"],
        &["INSERT INTO sqlite_stat1 SELECT 't', 't', '1'"],
        &["DROP TABLE sqlite_sequence"],
        &["PRAGMA journal_mode=OFF"],
    ];
    let seen = "SELECT group_concat(type || name || coalesce(sql, ''), char(10)) || (SELECT group_concat(a) FROM mine('word')) FROM sqlite_schema";
    let before = rows_of(query_ok(&engine, seen).await);
    for attack in attacks {
        let texts: Vec<&str> =
            ["PRAGMA writable_schema=ON"].iter().chain(attack.iter()).copied().collect();
        let error = transaction(&engine, &texts).await.expect_err(attack[attack.len() - 1]);
        assert!(
            matches!(error.code, Code::StatementNotAllowed | Code::Sql),
            "{attack:?}: {error:?}"
        );
        let reported = error.message.to_lowercase();
        assert!(
            !reported.contains("_debros_") || attack.iter().any(|sql| sql.contains("_debros_")),
            "{error:?}"
        );
        assert_eq!(rows_of(query_ok(&engine, seen).await), before, "{attack:?}");
    }
    // Without its beginning nothing of it is a dump's.
    for attack in [
        make,
        "CREATE TABLE IF NOT EXISTS sqlite_sequence(name,seq)",
        "INSERT INTO sqlite_stat1 VALUES('t',NULL,'1')",
    ] {
        transaction(&engine, &["SELECT 1", attack]).await.expect_err(attack);
        query_refused(&engine, attack).await;
    }
    assert_code(
        &query_refused(&engine, "PRAGMA writable_schema=ON").await,
        Code::StatementNotAllowed,
        "alone",
    );
    transaction(&engine, &["PRAGMA writable_schema=ON", "PRAGMA writable_schema=OFF", make])
        .await
        .expect_err("after its end");
    assert_eq!(rows_of(query_ok(&engine, seen).await), before);
}

/// An R-Tree's rows that do not fit together are no rows.
#[tokio::test]
async fn a_broken_rtree_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let make = "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','r','r',0,'CREATE VIRTUAL TABLE r USING rtree(id,a,b)')";
    for rows in [
        &["INSERT INTO r_rowid VALUES(1,1)"][..],
        &["INSERT INTO r_rowid VALUES(1,1)", "INSERT INTO r_node VALUES(1,X'')"],
        &[
            "INSERT INTO r_rowid VALUES(1,1)",
            "INSERT INTO r_node VALUES(1,X'0000FFFF0000000000000001')",
        ],
        &[
            "INSERT INTO r_rowid VALUES(1,1)",
            "INSERT INTO r_node VALUES(1,X'000000010000000000000002')",
        ],
        &[
            "INSERT INTO r_rowid VALUES(1,1)",
            "INSERT INTO r_node VALUES(1,X'0000000100000000000000027FC000007FC00000')",
        ],
        &["INSERT INTO r_rowid VALUES('x',1)"],
        &["INSERT INTO r_node VALUES(1,'text')"],
        &[
            "INSERT INTO r_rowid VALUES(1,1,2,3,4,5,6)",
            "INSERT INTO r_node VALUES(1,X'0000000100000000000000013f8000003f800000')",
        ],
    ] {
        let texts: Vec<&str> =
            ["PRAGMA writable_schema=ON", make].iter().chain(rows).copied().collect();
        transaction(&engine, &texts).await.expect_err(rows[rows.len() - 1]);
        assert_eq!(
            query_integer(&engine, "SELECT count(*) FROM sqlite_schema").await,
            0,
            "{rows:?}"
        );
    }
    let good = [
        "PRAGMA writable_schema=ON",
        make,
        "INSERT INTO r_rowid VALUES(1,1)",
        "INSERT INTO r_node VALUES(1,X'0000000100000000000000013f80000040000000')",
    ];
    transaction(&engine, &good).await.unwrap();
    assert_eq!(
        query_integer(&engine, "SELECT CAST(a + 10 * b AS INTEGER) FROM r WHERE id = 1").await,
        21
    );
}

#[tokio::test]
async fn user_version_and_application_id_are_the_namespaces_own() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    assert_eq!(query_integer(&engine, "PRAGMA user_version").await, 0);
    query_ok(&engine, "PRAGMA user_version = 7").await;
    query_ok(&engine, "PRAGMA main.application_id(0x10)").await;
    assert_eq!(query_integer(&engine, "PRAGMA user_version").await, 7);
    assert_eq!(
        query_integer(
            &engine,
            "SELECT application_id + user_version FROM pragma_application_id, pragma_user_version"
        )
        .await,
        23
    );
    let steps = [
        "PRAGMA user_version = 8",
        "CREATE TABLE t(a)",
        "PRAGMA user_version",
        "PRAGMA user_version = -9",
        "PRAGMA user_version",
    ];
    let results = transaction(&engine, &steps).await.unwrap();
    assert_eq!(rows_of(results[2].clone()), [[Value::Integer(8)]]);
    assert_eq!(rows_of(results[4].clone()), [[Value::Integer(-9)]]);
    transaction(&engine, &["PRAGMA user_version = 100", "SELECT * FROM nothing"])
        .await
        .unwrap_err();
    assert_eq!(
        query_integer(&engine, "PRAGMA user_version").await,
        -9,
        "taken back with the transaction"
    );
    assert!(query_ok(&engine, "PRAGMA user_version = 3").await.columns.is_empty());
    let mut reading = options();
    reading.read_only = true;
    let refused = engine
        .query(&database("app"), Statement::from("PRAGMA user_version = 4"), reading)
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    // Nobody else's, kept when the program ends, and in an export.
    let other = engine
        .query(&database("other"), Statement::from("PRAGMA user_version"), options())
        .await
        .unwrap();
    assert_eq!(rows_of(other.value), [[Value::Integer(0)]]);
    engine.close().await;
    drop(engine);
    let engine = open(folder.path());
    assert_eq!(
        query_integer(
            &engine,
            "SELECT user_version * 100 + application_id FROM pragma_application_id, pragma_user_version"
        )
        .await,
        316
    );
    let export = engine.export(&namespace("app")).await.unwrap();
    let alone = Connection::open(&export.path).unwrap();
    assert_eq!(ask(&alone, "PRAGMA user_version"), [[Value::Integer(3)]]);
    assert_eq!(ask(&alone, "PRAGMA application_id"), [[Value::Integer(16)]]);
}
