//! Mutation fuzzing without a special compiler: `cargo run --release -p debros-sql --example mutate
//! -- MINUTES [SEED]`.
//!
//! Statements of the corpora are cut up and mixed. A text that the rewriter accepts is compiled in
//! a database that a neighbour shares, under an authorizer that only watches, and runs beside the
//! same text on a plain SQLite: no escape, no panic, the same result.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::mutate::{Numbers, corpus, is_of_more_than_the_data, mutate};
use common::{Allowed, Tenant, bound, open, run, without_place};
use debros_sql::{
    Catalogue, ExecutionContext, ExecutionTarget, ForeignKeys, MOMENT_DDL, MOMENT_SET, Policy,
    StatementClass, rewrite,
};
use rusqlite::Connection;
use rusqlite::hooks::{AuthContext, Authorization};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SETUP: &[&str] = &[
    "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT NOT NULL, age INT, city_id INT, v TEXT)",
    "CREATE TABLE cities(id INTEGER PRIMARY KEY, city TEXT, country TEXT DEFAULT 'nl')",
    "CREATE TABLE orders(id INTEGER PRIMARY KEY, user_id INT REFERENCES users(id), total REAL, status TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT UNIQUE, b INT DEFAULT 7, c REAL, CHECK (t.b < 1000))",
    "CREATE TABLE log(id INTEGER PRIMARY KEY, what TEXT, a, b)",
    "CREATE INDEX i1 ON users(name)",
    "CREATE VIRTUAL TABLE docs USING fts5(title, body)",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, minx, maxx)",
    "CREATE VIEW v1 AS SELECT id, name FROM users",
    "CREATE TRIGGER tr AFTER INSERT ON users BEGIN INSERT INTO log(what, a) VALUES ('ins', new.id); END",
    "INSERT INTO cities(id, city) VALUES (1, 'delft'), (2, 'leiden')",
    "INSERT INTO users VALUES (1, 'ann', 30, 1, 'x'), (2, 'bob', 25, 2, 'y'), (3, 'cyd', 41, NULL, NULL)",
    "INSERT INTO orders(user_id, total, status, at) VALUES (1, 10.5, 'paid', 'a'), (2, 5, 'sent', 'b')",
    "INSERT INTO t(a) VALUES ('x'), ('y')",
    "INSERT INTO docs VALUES ('first post', 'hello world'), ('second', 'full text search')",
    "INSERT INTO boxes VALUES (1, 0, 10), (2, 5, 15)",
];

struct Watched {
    escapes: Vec<String>,
    ddl: bool,
    sequence: bool,
    statistics: bool,
    on: bool,
    policy: Option<Policy>,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let minutes: f64 = args.next().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let seed: u64 = args
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| debros_proto::now_ms().unsigned_abs());
    let until = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    println!("seed {seed}, until {minutes} minutes are over");
    let corpus = corpus();
    let mut numbers = Numbers::new(seed);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut faults = 0;
    let scene = Scene::new();
    while Instant::now() < until && faults < 20 {
        let sql = mutate(&corpus, &mut numbers);
        *counts.entry("made").or_default() += 1;
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scene.try_one(&sql)));
        match tried {
            Ok(Ok(kind)) => *counts.entry(kind).or_default() += 1,
            Ok(Err(fault)) => {
                faults += 1;
                println!("FAULT {sql}\n  {fault}");
            }
            Err(_) => {
                faults += 1;
                println!("PANIC {sql}");
            }
        }
    }
    println!("{counts:?}, faults: {faults}");
    if faults > 0 {
        std::process::exit(1);
    }
}

struct Scene {
    catalogue: Catalogue,
    shared: Connection,
    plain: Connection,
    allowed: [Allowed; 2],
    watched: Arc<Mutex<Watched>>,
    demangler: debros_sql::Demangler,
}

impl Scene {
    fn new() -> Self {
        let setup = common::Shared::new(false);
        let (mut own, mut victim) = (Tenant::new("acme"), Tenant::new("victim"));
        let mut plain = open();
        for sql in SETUP {
            assert_eq!(victim.run(&setup, &sql.replace("users", "secrets")).error, None, "{sql}");
            assert_eq!(own.run(&setup, sql).error, None, "{sql}");
            assert_eq!(run(&plain, sql).error, None, "{sql}");
        }
        let mut shared = setup.db;
        shared.execute_batch(MOMENT_DDL).unwrap();
        shared.execute_batch("CREATE TABLE plain_table(a); CREATE TABLE _debros_keys(k)").unwrap();
        let watched = Arc::new(Mutex::new(Watched {
            escapes: Vec::new(),
            ddl: false,
            sequence: false,
            statistics: false,
            on: false,
            policy: None,
        }));
        let seen = Arc::clone(&watched);
        shared
            .authorizer(Some(move |context: AuthContext<'_>| {
                let mut seen = seen.lock().unwrap();
                if seen.on {
                    let escape =
                        common::watch::escape(&context, seen.ddl, seen.sequence, seen.statistics);
                    seen.escapes.extend(escape);
                }
                // A refusal of the policy here is a mistake: the results will differ.
                match seen.policy.as_mut().and_then(|policy| policy.refuse_in_context(&context)) {
                    Some(_) => Authorization::Deny,
                    None => Authorization::Allow,
                }
            }))
            .unwrap();
        // No statement of the fuzzer may take long.
        let allowed = [bound(&mut shared), bound(&mut plain)];
        Self { catalogue: own.catalogue, shared, plain, allowed, watched, demangler: own.demangler }
    }

    fn try_one(&self, sql: &str) -> Result<&'static str, String> {
        self.allowed.iter().for_each(Allowed::allow);
        let rewritten = match rewrite(sql, &self.catalogue, ForeignKeys::Enforced) {
            Ok(rewritten) => rewritten,
            Err(error) => {
                if error.code == debros_proto::Code::Internal
                    || error.message.contains("could not be rewritten for the namespace")
                {
                    return Err(format!("{error:?}"));
                }
                return Ok("refused");
            }
        };
        match rewritten.target {
            ExecutionTarget::Data => (),
            ExecutionTarget::Catalogue => return Ok("catalogue"),
            ExecutionTarget::Transaction(_) => return Ok("transaction"),
            ExecutionTarget::Header(_) => return Ok("header"),
        }
        if rewritten.changes_schema {
            let applied = self.catalogue.fork().and_then(|mut fork| fork.apply(sql));
            if let Err(error) = applied {
                return if error.code == debros_proto::Code::Internal {
                    Err(error.message)
                } else {
                    Ok("refused")
                };
            }
        }
        let mut random = |bytes: &mut [u8]| bytes.fill(7);
        let mut context = ExecutionContext { now_ms: 1_767_225_600_123, random: &mut random };
        let text = rewritten.fill_sql(&mut context).into_owned();
        self.shared.execute_batch("SAVEPOINT fuzz").unwrap();
        if rewritten.needs_moment {
            self.shared.execute(MOMENT_SET, [context.timestamp()]).unwrap();
        }
        {
            let mut watched = self.watched.lock().unwrap();
            watched.on = true;
            watched.policy = Some(rewritten.policy(self.catalogue.namespace()));
            watched.ddl = rewritten.class == StatementClass::Ddl;
            watched.sequence = rewritten.grants.sequence;
            watched.statistics = rewritten.grants.statistics;
        }
        let mut outcome = run(&self.shared, &text);
        let escapes = {
            let mut watched = self.watched.lock().unwrap();
            watched.on = false;
            watched.policy = None;
            std::mem::take(&mut watched.escapes)
        };
        if !self.shared.is_autocommit() {
            self.shared.execute_batch("ROLLBACK TO fuzz; RELEASE fuzz").unwrap();
        }
        if !escapes.is_empty() {
            return Err(format!("{text}\n  {escapes:?}"));
        }
        if let Some(message) = &mut outcome.error {
            *message = self.demangler.demangle_text(message).into_owned();
        }
        self.compare(sql, &text, &rewritten, outcome)
    }

    fn compare(
        &self,
        sql: &str,
        text: &str,
        rewritten: &debros_sql::RewrittenStatement,
        outcome: common::Outcome,
    ) -> Result<&'static str, String> {
        self.plain.execute_batch("SAVEPOINT fuzz").unwrap();
        let expected = run(&self.plain, sql);
        if !self.plain.is_autocommit() {
            self.plain.execute_batch("ROLLBACK TO fuzz; RELEASE fuzz").unwrap();
        }
        let is_nondeterministic = rewritten.is_nondeterministic()
            || rewritten.needs_moment
            || rewritten.random_rows
            || rewritten.reads_counters;
        let incomparable = is_nondeterministic || is_of_more_than_the_data(sql);
        if incomparable || outcome == expected {
            return Ok(if expected.error.is_some() {
                "same error"
            } else if incomparable {
                "not compared"
            } else {
                "same result"
            });
        }
        // The rewritten text may take a step more.
        let errors = [&outcome.error, &expected.error];
        if errors
            .iter()
            .any(|error| error.as_deref().is_some_and(|error| error.contains("interrupted")))
        {
            return Ok("interrupted");
        }
        if outcome.error.as_deref().map(without_place)
            == expected.error.as_deref().map(without_place)
            && outcome.error.is_some()
        {
            return Ok("same error");
        }
        Err(format!("{text}\n  plain     {expected:?}\n  rewritten {outcome:?}"))
    }
}
