//! The rewriter against any text: no panic, and nothing that it lets through touches what is not
//! the namespace's.
#![no_main]

use debros_proto::Namespace;
use debros_sql::{
    Catalogue, ExecutionContext, ExecutionTarget, ForeignKeys, MOMENT_DDL, StatementClass, SystemTableGrants, rewrite,
};
use libfuzzer_sys::fuzz_target;
use rusqlite::Connection;
use rusqlite::hooks::{AuthContext, Authorization};
use std::sync::{Arc, Mutex};

#[path = "../../crates/sql/tests/common/watch.rs"]
mod watch;

const SCHEMA: &[&str] = &[
    "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT UNIQUE REFERENCES users(name), CHECK (t.a <> ''))",
    "CREATE VIRTUAL TABLE docs USING fts5(title, body)",
    "CREATE VIEW v AS SELECT id, name FROM users",
    "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO users(name) VALUES (new.a); END",
];

#[derive(Default)]
struct Watched {
    escapes: Vec<String>,
    ddl: bool,
    sequence: bool,
    statistics: bool,
    on: bool,
}

struct Scene {
    catalogue: Catalogue,
    shared: Connection,
    watched: Arc<Mutex<Watched>>,
}

fn text(sql: &str, catalogue: &Catalogue) -> Option<(String, StatementClass, SystemTableGrants)> {
    let rewritten = rewrite(sql, catalogue, ForeignKeys::Enforced).ok().filter(|rewritten| rewritten.target == ExecutionTarget::Data)?;
    let mut random = |bytes: &mut [u8]| bytes.fill(7);
    let mut context = ExecutionContext { now_ms: 0, random: &mut random };
    Some((rewritten.fill_sql(&mut context).into_owned(), rewritten.class, rewritten.grants))
}

fn scene() -> Scene {
    let mut shared = Connection::open_in_memory().unwrap();
    shared.execute_batch(MOMENT_DDL).unwrap();
    shared.execute_batch("CREATE TABLE plain_table(a); CREATE TABLE _debros_keys(k)").unwrap();
    let mut catalogue = Catalogue::new(&Namespace::new("acme").unwrap()).unwrap();
    let mut other = Catalogue::new(&Namespace::new("victim").unwrap()).unwrap();
    for sql in SCHEMA {
        for catalogue in [&mut catalogue, &mut other] {
            let (text, _, _) = text(sql, catalogue).unwrap();
            catalogue.apply(sql).unwrap();
            shared.execute_batch(&text).unwrap();
        }
    }
    let watched = Arc::new(Mutex::new(Watched::default()));
    let seen = Arc::clone(&watched);
    shared
        .authorizer(Some(move |context: AuthContext<'_>| {
            let mut seen = seen.lock().unwrap();
            if seen.on {
                let escape = watch::escape(&context, seen.ddl, seen.sequence, seen.statistics);
                seen.escapes.extend(escape);
            }
            Authorization::Allow
        }))
        .unwrap();
    Scene { catalogue, shared, watched }
}

thread_local! {
    static SCENE: Scene = scene();
}

fuzz_target!(|sql: &str| {
    SCENE.with(|scene| {
        let Some((text, class, grants)) = text(sql, &scene.catalogue) else { return };
        {
            let mut watched = scene.watched.lock().unwrap();
            watched.on = true;
            watched.ddl = class == StatementClass::Ddl;
            watched.sequence = grants.sequence;
            watched.statistics = grants.statistics;
        }
        // Compiled and not run: what it touches is known then.
        let _ = scene.shared.prepare(&text);
        let mut watched = scene.watched.lock().unwrap();
        watched.on = false;
        let escapes = std::mem::take(&mut watched.escapes);
        assert!(escapes.is_empty(), "{sql}\n{text}\n{escapes:?}");
    });
});
