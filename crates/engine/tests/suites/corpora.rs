//! The corpora of the rewriter's own tests, through the whole engine: as a user's statements, one
//! after another.

use debros_engine::conformance::{database, namespace, options};
use debros_engine::embedded::EmbeddedConfig;
use debros_engine::{CallOptions, Engine};
use debros_proto::rpc::{Statement, value::Kind};
use debros_proto::{Code, Error};
use rusqlite::Connection;
use rusqlite::types::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a statement did.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
    error: Option<String>,
}

fn corpus(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/tests").join(folder)
}

fn open(folder: &Path) -> Arc<dyn Engine> {
    crate::open_engine(EmbeddedConfig::new(folder))
}

/// Runs a text as SQLite does.
fn plain(db: &Connection, sql: &str) -> Outcome {
    let run = || -> rusqlite::Result<Outcome> {
        let mut statement = db.prepare(sql)?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let width = columns.len();
        let mut rows = statement.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(
                (0..width).map(|index| row.get(index)).collect::<rusqlite::Result<Vec<Value>>>()?,
            );
        }
        Ok(Outcome { columns, rows: found, error: None })
    };
    let error = match run() {
        Ok(outcome) => return outcome,
        Err(rusqlite::Error::SqlInputError { msg, .. }) => msg,
        Err(rusqlite::Error::SqliteFailure(_, Some(message))) => message,
        Err(other) => other.to_string(),
    };
    Outcome { error: Some(error), ..Outcome::default() }
}

/// Runs a text through the engine.
async fn through(engine: &Arc<dyn Engine>, name: &str, sql: &str) -> Result<Outcome, Error> {
    let written = engine.query(&database(name), Statement::from(sql), options()).await?;
    let value = |value: debros_proto::rpc::Value| match value.kind {
        None => Value::Null,
        Some(Kind::Integer(integer)) => Value::Integer(integer),
        Some(Kind::Real(real)) => Value::Real(real),
        Some(Kind::Text(text)) => Value::Text(text),
        Some(Kind::Blob(blob)) => Value::Blob(blob.to_vec()),
    };
    let rows = written
        .value
        .rows
        .into_iter()
        .map(|row| row.values.into_iter().map(value).collect())
        .collect();
    Ok(Outcome { columns: written.value.columns, rows, error: None })
}

/// A message without its place, which SQLite itself does not give.
fn without_place(message: &str) -> String {
    match message.rfind(" (line ") {
        Some(start) if message.ends_with(')') => message[..start].to_owned(),
        _ => message.to_owned(),
    }
}

/// Runs a file of statements on an SQLite of its own and through the engine, where a neighbour has
/// the same tables with other rows. Each statement runs twice in the engine when it reads: the
/// second time out of all memories.
async fn differences(path: &Path) -> (usize, String) {
    let script = std::fs::read_to_string(path).unwrap();
    let statements = debros_proto::sql::split(&script)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let db = Connection::open_in_memory().unwrap();
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).unwrap();
    let mut report = String::new();
    for statement in &statements {
        let sql = statement.text;
        let before = script[..sql.as_ptr() as usize - script.as_ptr() as usize].trim_end();
        if ["CREATE", "INSERT"].iter().any(|word| sql.to_ascii_uppercase().starts_with(word)) {
            let marked = sql.replace("VALUES ('", "VALUES ('MARK ");
            let _ = through(&engine, "acme2", &marked).await;
        }
        let reported = through(&engine, "acme", sql).await;
        let mut differs = |expected: &str| {
            let file = path.file_name().unwrap().display();
            let _ = writeln!(
                report,
                "{file}:{}: {sql}\n  plain  {expected}\n  engine {reported:?}",
                statement.line
            );
        };
        if before.ends_with("/*refused*/") {
            if reported.as_ref().err().is_none_or(|error| error.code != Code::StatementNotAllowed) {
                differs("refused");
            }
            continue;
        }
        let expected = plain(&db, sql);
        // Both report it, in words of their own: too few arguments, and text that is not UTF-8.
        let own_words = reported.as_ref().is_err_and(|error| {
            error.message.starts_with("the statement takes")
                || error.message.contains("is not UTF-8")
        });
        if own_words {
            continue;
        }
        // SQLite names columns of a change of the schema after its own inner statement.
        let nameless = sql.to_ascii_uppercase().starts_with("ALTER");
        let expected =
            Outcome { columns: if nameless { Vec::new() } else { expected.columns }, ..expected };
        let found = match &reported {
            Ok(outcome) => Outcome {
                columns: outcome.columns.clone(),
                rows: outcome.rows.clone(),
                error: None,
            },
            Err(error) => {
                Outcome { error: Some(without_place(&error.message)), ..Outcome::default() }
            }
        };
        if !before.ends_with("/*differs*/") {
            if found != expected {
                differs(&format!("{expected:?}"));
            }
            let read_only = CallOptions { read_only: true, ..options() };
            let reads =
                engine.query(&database("acme"), Statement::from(sql), read_only).await.is_ok();
            if reads && through(&engine, "acme", sql).await.ok().as_ref() != Some(&expected) {
                differs("the same again");
            }
        }
        let text = format!("{reported:?}");
        if text.contains("MARK ") || (text.contains("ns::") && !sql.contains("ns::")) {
            differs("nothing of the neighbour or the prefix");
        }
    }
    compare_export(&engine, &db, &mut report).await;
    engine.close().await;
    // What is kept of the schema makes the same schema again.
    let engine = open(folder.path());
    // SQLite's own table stays when the last table that needs it is gone; it is not kept.
    let schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name <> 'sqlite_sequence' ORDER BY type, name";
    // The quotes around a shadow table's name are those of the CREATE, which is not always the
    // first one.
    let schema = &schema.replace(", sql ", r#", replace(sql, '"', '''') "#);
    let (expected, reported) =
        (plain(&db, schema), through(&engine, "acme", schema).await.unwrap());
    if reported != expected {
        let _ = writeln!(
            report,
            "the schema after a start\n  plain  {expected:?}\n  engine {reported:?}"
        );
    }
    engine.close().await;
    if !report.is_empty() {
        report.insert_str(0, &format!("== {}\n", path.display()));
    }
    (statements.len(), report)
}

/// An export is the database that the user would have made alone: the same schema, the same rows.
async fn compare_export(engine: &Arc<dyn Engine>, db: &Connection, report: &mut String) {
    let export = match engine.export(&namespace("acme")).await {
        Ok(export) => export,
        Err(error) => {
            let _ = writeln!(report, "the export: {error}");
            return;
        }
    };
    let exported = Connection::open(&export.path).unwrap();
    let check = plain(&exported, "PRAGMA integrity_check");
    if check.rows != [[Value::Text("ok".to_owned())]] {
        let _ = writeln!(report, "the export is damaged: {check:?}");
    }
    let mut compare = |sql: &str| {
        let (expected, found) = (plain(db, sql), plain(&exported, sql));
        if expected != found {
            for (one, other) in
                expected.rows.iter().zip(&found.rows).filter(|(one, other)| one != other).take(3)
            {
                let _ = writeln!(report, "  {one:?}\n  {other:?}");
            }
            let _ = writeln!(report, "{sql}\n  plain    {expected:?}\n  exported {found:?}");
        }
        expected.rows
    };
    // An export has no samples of keys, and no table of SQLite's that nothing needs any more.
    let objects = compare(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT IN ('sqlite_stat4', 'sqlite_sequence')
         ORDER BY type, name",
    );
    // Where nothing needs it, it was empty.
    if !plain(&exported, "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'")
        .rows
        .is_empty()
    {
        compare("SELECT * FROM sqlite_sequence");
    } else if !plain(db, "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'")
        .rows
        .is_empty()
    {
        let rows = plain(db, "SELECT * FROM sqlite_sequence").rows;
        assert!(rows.is_empty(), "the export has lost where the row numbers are: {rows:?}");
    }
    for object in objects {
        let (Value::Text(kind), Value::Text(name)) = (&object[0], &object[1]) else { continue };
        // What the statistics say of a moment's rows is not compared.
        if kind == "table" && !name.starts_with("sqlite_stat") {
            let rows = compare(&format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")));
            drop(rows);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_of_the_corpus_does_the_same_as_in_an_sqlite_of_its_own() {
    let mut files: Vec<_> =
        std::fs::read_dir(corpus("corpus")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let only = std::env::var("CORPUS").unwrap_or_default();
    let (mut statements, mut report) = (0, String::new());
    for file in files.iter().filter(|file| file.to_string_lossy().contains(&only)) {
        let (count, differences) = differences(file).await;
        statements += count;
        report += &differences;
    }
    assert!(report.is_empty(), "{report}");
    assert!(!only.is_empty() || statements >= 1000, "only {statements} statements");
}

const OWN: &[&str] = &[
    "CREATE TABLE users(id INTEGER PRIMARY KEY, v TEXT)",
    "CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
    "CREATE VIRTUAL TABLE docs USING fts5(v)",
    "INSERT INTO users VALUES (1, 'own one'), (2, 'own two')",
    "INSERT INTO auto(v) VALUES ('own')",
    "INSERT INTO docs VALUES ('own words')",
];

const VICTIM: &[&str] = &[
    "CREATE TABLE secrets(id INTEGER PRIMARY KEY, v TEXT)",
    "CREATE TABLE users(id INTEGER PRIMARY KEY, v TEXT)",
    "CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
    "CREATE VIRTUAL TABLE docs USING fts5(v)",
    "CREATE VIEW shown AS SELECT * FROM secrets",
    "INSERT INTO secrets VALUES (1, 'MARK v1'), (2, 'MARK v2')",
    "INSERT INTO users VALUES (1, 'MARK user')",
    "INSERT INTO auto(v) VALUES ('MARK auto')",
    "INSERT INTO docs VALUES ('MARK secret words')",
];

/// Each attack, with the foreign names that its place takes.
fn attacks() -> Vec<String> {
    let read = |name: &str| std::fs::read_to_string(corpus("hostile").join(name)).unwrap();
    let (places, single) = (read("places.sql"), read("single.sql"));
    let lines = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.is_empty() && !line.starts_with("--"))
            .map(str::to_owned)
            .collect()
    };
    let names = [
        "\"ns::victim::secrets\"",
        "[ns::victim::secrets]",
        "'ns::victim::docs'",
        "\"NS::Victim::shown\"",
        "_debros_catalogue",
        "_debros_idempotency",
        "_debros_moment",
    ];
    let mut attacks: Vec<String> = lines(&places)
        .iter()
        .flat_map(|line| names.iter().map(move |name| line.replace("{X}", name)))
        .collect();
    attacks.extend(lines(&single));
    for attack in &mut attacks {
        for (mark, name) in [
            ("{own}", "users"),
            ("{docs}", "docs"),
            ("{docs_data}", "docs_data"),
            ("{new2}", "evil2"),
            ("{new}", "evil"),
        ] {
            *attack = attack.replace(mark, name);
        }
    }
    attacks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lesson_01_no_attack_reaches_another_namespace_or_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    for sql in VICTIM {
        through(&engine, "victim", sql).await.unwrap();
    }
    let attacks = attacks();
    let mut escapes = Vec::new();
    for (index, attack) in attacks.iter().enumerate() {
        // A namespace for a hundred attacks: what one leaves behind may serve the next.
        let name = format!("acme{}", index / 100);
        if index % 100 == 0 {
            for sql in OWN {
                through(&engine, &name, sql).await.unwrap();
            }
        }
        let statements: Vec<String> = match debros_proto::sql::split(attack) {
            Ok(pieces) => pieces.iter().map(|piece| piece.text.to_owned()).collect(),
            Err(_) => vec![attack.clone()],
        };
        for sql in &statements {
            // Names that the attacker wrote into a view or trigger come back to the attacker.
            let mut reported = format!("{:?}", through(&engine, &name, sql).await);
            // So does what is reserved, to a user of one of the reserved names.
            reported = reported.replace("start with ns:: or _debros_ are reserved", "");
            for own_words in ["secrets", "docs", "shown"] {
                reported = reported.replace(&format!("ns::victim::{own_words}"), "");
            }
            if (reported.contains("MARK") && !attack.contains("MARK"))
                || (reported.contains("victim") && !attack.contains("ictim"))
                || (reported.contains("ns::") && !attack.to_lowercase().contains("ns::"))
            {
                escapes.push(format!("{sql}\n  {reported}"));
            }
        }
        // What is left behind shows the names that this attack was sent with.
        for what in ["VIEW", "TRIGGER", "INDEX", "TABLE"] {
            for left in ["evil", "evil2"] {
                let _ = through(&engine, &name, &format!("DROP {what} IF EXISTS {left}")).await;
            }
        }
        let all = statements.iter().map(|sql| Statement::from(sql.as_str())).collect();
        let reported = format!("{:?}", engine.transaction(&database(&name), all, options()).await);
        if reported.contains("MARK") && !attack.contains("MARK") {
            escapes.push(format!("as a transaction: {attack}\n  {reported}"));
        }
        for what in ["VIEW", "TRIGGER", "INDEX", "TABLE"] {
            for left in ["evil", "evil2"] {
                let _ = through(&engine, &name, &format!("DROP {what} IF EXISTS {left}")).await;
            }
        }
    }
    for (sql, count) in [("secrets", 2), ("users", 1), ("auto", 1), ("docs", 1)] {
        let kept =
            through(&engine, "victim", &format!("SELECT count(*) FROM {sql}")).await.unwrap();
        assert_eq!(kept.rows, [[Value::Integer(count)]], "{sql}");
    }
    assert!(escapes.is_empty(), "{}", escapes.join("\n"));
    assert!(attacks.len() >= 500, "only {} attacks", attacks.len());
    engine.close().await;
    // The attackers' own files hold what the engine keeps, and nothing under another name.
    for entry in std::fs::read_dir(folder.path().join("ns")).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".db"))
        else {
            continue;
        };
        let db = Connection::open(&path).unwrap();
        let foreign = format!(
            "SELECT group_concat(name) FROM sqlite_schema WHERE replace(name, 'sqlite_autoindex_', '') NOT LIKE 'ns::{name}::%'
             AND tbl_name NOT IN ('_debros_catalogue', '_debros_idempotency', '_debros_moment', '_debros_about', '_debros_position')
             AND name NOT IN ('sqlite_sequence', 'sqlite_stat1', 'sqlite_stat4')"
        );
        assert_eq!(plain(&db, &foreign).rows, [[Value::Null]], "{name}");
    }
}
