//! A database that several namespaces share, and one namespace's access to it: a small version of
//! what the engine does.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod mutate;
pub mod watch;

use debros_proto::{Code, Error, Namespace};
use debros_sql::counters::{ConnectionCounters, restore_counters};
use debros_sql::policy::may_be_hidden;
use debros_sql::{
    Catalogue, Demangler, ExecutionContext, ExecutionTarget, ForeignKeys, MOMENT_CLEAR, MOMENT_DDL,
    MOMENT_SET, Policy, rewrite,
};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{Value, ValueRef};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a statement did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
    pub changes: u64,
    pub error: Option<String>,
    /// The rewriter refused it.
    pub refused: bool,
}

impl Outcome {
    fn failed(message: String) -> Self {
        Self { error: Some(message), ..Self::default() }
    }

    /// Everything in it as one text, to look for marks in.
    pub fn text(&self) -> String {
        format!("{self:?}")
    }
}

/// A connection with the engine's settings.
pub fn open() -> Connection {
    let db = Connection::open_in_memory().unwrap();
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).unwrap();
    db
}

/// A database that several namespaces share, with the authorizer that the engine puts on it.
pub struct Shared {
    pub db: Connection,
    policy: Arc<Mutex<Option<Policy>>>,
    /// Nothing is hidden.
    strict: Arc<AtomicBool>,
    /// Whether the policy judges what tenants run.
    pub guarded: bool,
}

impl Shared {
    pub fn new(guarded: bool) -> Self {
        let mut db = open();
        db.execute_batch(MOMENT_DDL).unwrap();
        let policy = Arc::new(Mutex::new(None::<Policy>));
        let strict = Arc::new(AtomicBool::new(true));
        let (shared, is_strict) = (Arc::clone(&policy), Arc::clone(&strict));
        db.authorizer(Some(move |context: AuthContext<'_>| {
            match shared
                .lock()
                .unwrap()
                .as_mut()
                .and_then(|policy| policy.refuse_in_context(&context))
            {
                Some(_) if !is_strict.load(Ordering::Relaxed) && may_be_hidden(&context.action) => {
                    Authorization::Ignore
                }
                Some(_) => Authorization::Deny,
                None => Authorization::Allow,
            }
        }))
        .unwrap();
        Self { db, policy, strict, guarded }
    }

    /// Runs a text under a policy, or under none.
    pub fn run_under(&self, policy: Option<Policy>, sql: &str) -> Outcome {
        // As in the engine: an R-Tree that the connection has not met yet must not be met with
        // anything refused.
        *self.policy.lock().unwrap() = policy.clone();
        self.strict.store(false, Ordering::Relaxed);
        let _ = self.db.prepare(sql);
        self.strict.store(true, Ordering::Relaxed);
        *self.policy.lock().unwrap() = policy;
        let outcome = run(&self.db, sql);
        *self.policy.lock().unwrap() = None;
        outcome
    }
}

/// No statement runs on without an end from here on: a recursion without one is easily made by
/// mixing words, and would take all memory. One that takes more steps than is allowed fails with
/// "interrupted"; `Allowed::allow` allows as many again.
pub fn bound(db: &mut Connection) -> Allowed {
    let left = Allowed::default();
    left.allow();
    let shared = left.clone();
    let is_over = move || shared.0.fetch_sub(1, Ordering::Relaxed) <= 0;
    db.progress_handler(1000, Some(is_over)).unwrap();
    // What a step may make is bounded as well.
    db.set_limit(Limit::SQLITE_LIMIT_LENGTH, 100_000).unwrap();
    left
}

/// The steps that a bounded database may still take.
#[derive(Clone, Default)]
pub struct Allowed(Arc<AtomicI64>);

impl Allowed {
    /// Allows a statement its steps.
    pub fn allow(&self) {
        self.0.store(200, Ordering::Relaxed);
    }
}

/// Runs a text as it is.
pub fn run(db: &Connection, sql: &str) -> Outcome {
    let before = db.total_changes();
    let run = || -> rusqlite::Result<Outcome> {
        let mut statement = db.prepare(sql)?;
        let mut columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let width = columns.len();
        // What SQLite looks at inside some forms of ALTER TABLE shows as a column, of which no row
        // comes.
        if sql.trim_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case("ALTER")) {
            columns.clear();
        }
        let mut rows = statement.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(
                (0..width)
                    .map(|index| row.get_ref(index).map(owned))
                    .collect::<rusqlite::Result<Vec<_>>>()?,
            );
        }
        drop(rows);
        Ok(Outcome {
            columns,
            rows: found,
            changes: db.total_changes() - before,
            ..Outcome::default()
        })
    };
    match run() {
        Ok(outcome) => outcome,
        Err(rusqlite::Error::SqlInputError { msg, .. }) => Outcome::failed(msg),
        Err(rusqlite::Error::SqliteFailure(_, Some(message))) => Outcome::failed(message),
        Err(other) => Outcome::failed(other.to_string()),
    }
}

fn owned(value: ValueRef<'_>) -> Value {
    value.try_into().unwrap_or(Value::Text("not UTF-8".to_owned()))
}

/// One namespace in the shared database.
pub struct Tenant {
    /// Whether statements have to keep foreign keys. The database itself is set separately.
    pub foreign_keys: ForeignKeys,
    pub catalogue: Catalogue,
    pub demangler: Demangler,
}

impl Tenant {
    pub fn new(name: &str) -> Self {
        let namespace = Namespace::new(name).unwrap();
        Self {
            foreign_keys: ForeignKeys::Enforced,
            catalogue: Catalogue::new(&namespace).unwrap(),
            demangler: Demangler::new(&namespace),
        }
    }

    pub fn prefix(&self) -> String {
        self.catalogue.namespace().prefix()
    }

    /// Rewrites a statement and runs it, as the engine does for a transaction of one statement.
    pub fn run(&mut self, shared: &Shared, sql: &str) -> Outcome {
        match self.try_run(shared, sql) {
            Ok(outcome) => outcome,
            Err(error) => Outcome {
                refused: error.code == Code::StatementNotAllowed,
                ..Outcome::failed(without_place(&error.message))
            },
        }
    }

    fn try_run(&mut self, shared: &Shared, sql: &str) -> Result<Outcome, Error> {
        let rewritten = rewrite(sql, &self.catalogue, self.foreign_keys)?;
        if rewritten.target == ExecutionTarget::Catalogue {
            let found = self.catalogue.query(
                sql,
                &[],
                Instant::now() + Duration::from_secs(60),
                100_000,
                32 << 20,
            )?;
            let rows = found
                .rows
                .into_iter()
                .map(|row| row.into_iter().map(plain_value).collect())
                .collect();
            return Ok(Outcome { columns: found.columns, rows, ..Outcome::default() });
        }
        if let ExecutionTarget::Transaction(setting) = rewritten.target {
            return match setting.on {
                None => Ok(Outcome {
                    columns: rewritten.columns.clone(),
                    rows: vec![vec![Value::Integer(setting.name.default_value().into())]],
                    ..Outcome::default()
                }),
                Some(_) if setting.is_default() => Ok(Outcome::default()),
                Some(_) => Err(Error::new(Code::StatementNotAllowed, "only in a transaction call")),
            };
        }
        if let ExecutionTarget::Header(_) = rewritten.target {
            let mut fork = self.catalogue.fork()?;
            fork.apply(sql)?;
            self.catalogue = fork;
            return Ok(Outcome::default());
        }
        let fork = if rewritten.changes_schema {
            let mut fork = self.catalogue.fork()?;
            fork.apply(sql)?;
            Some(fork)
        } else {
            None
        };
        let mut random = |bytes: &mut [u8]| {
            static NEXT: AtomicU8 = AtomicU8::new(0);
            bytes.fill(NEXT.fetch_add(1, Ordering::Relaxed));
        };
        let mut context = ExecutionContext { now_ms: debros_proto::now_ms(), random: &mut random };
        if rewritten.needs_moment {
            shared.db.execute(MOMENT_SET, [context.timestamp()]).unwrap();
        }
        if rewritten.reads_counters {
            restore_counters(&shared.db, ConnectionCounters::default()).unwrap();
        }
        let text = rewritten.fill_sql(&mut context).into_owned();
        let policy = rewritten.policy(self.catalogue.namespace());
        let mut outcome = shared.run_under(shared.guarded.then_some(policy), &text);
        if rewritten.needs_moment {
            shared.db.execute_batch(MOMENT_CLEAR).unwrap();
        }
        if let Some(message) = &mut outcome.error {
            *message = self.demangler.demangle_message(message);
        } else if let Some(fork) = fork {
            self.catalogue = fork;
        }
        if outcome.error.is_none() {
            assert_eq!(outcome.columns.len(), rewritten.columns.len(), "{sql}\n{text}");
            // Without the catalogue's names the text itself must give the right ones, plans aside.
            assert_eq!(outcome.columns, rewritten.columns, "{sql}\n{text}");
        }
        if rewritten.tells_names {
            for value in outcome.rows.iter_mut().flatten() {
                if let Value::Text(text) = value {
                    *text = self.demangler.demangle_text(text).into_owned();
                }
            }
        }
        Ok(outcome)
    }
}

fn plain_value(value: debros_proto::rpc::Value) -> Value {
    use debros_proto::rpc::value::Kind;
    match value.kind {
        None => Value::Null,
        Some(Kind::Integer(integer)) => Value::Integer(integer),
        Some(Kind::Real(real)) => Value::Real(real),
        Some(Kind::Text(text)) => Value::Text(text),
        Some(Kind::Blob(blob)) => Value::Blob(blob.to_vec()),
    }
}

/// A message without its position, which SQLite itself does not report.
pub fn without_place(message: &str) -> String {
    match message.rfind(" (line ") {
        Some(start) if message.ends_with(')') => message[..start].to_owned(),
        _ => message.to_owned(),
    }
}

/// Two databases, each with a namespace of the same name.
pub fn open_shared_pair() -> ((Shared, Tenant), (Shared, Tenant)) {
    ((Shared::new(true), Tenant::new("acme")), (Shared::new(true), Tenant::new("acme")))
}

/// All rows of all tables whose name begins with a prefix, and their definitions.
pub fn state(db: &Connection, prefix: &str) -> Vec<(String, Outcome)> {
    let names = run(
        db,
        "SELECT type || ' ' || name || ' ' || coalesce(sql, ''), name FROM sqlite_schema ORDER BY type, name",
    );
    names
        .rows
        .into_iter()
        .filter_map(|row| match (&row[0], &row[1]) {
            (Value::Text(definition), Value::Text(name))
                if name.replace("sqlite_autoindex_", "").starts_with(prefix) =>
            {
                let rows = if definition.starts_with("table ") {
                    run(db, &format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")))
                } else {
                    Outcome::default()
                };
                Some((definition.clone(), rows))
            }
            _ => None,
        })
        .collect()
}

/// Every table has the same rows, and the catalogue describes the same schema.
pub fn compare_states(
    plain: &rusqlite::Connection,
    shared: &Shared,
    tenant: &mut Tenant,
    report: &mut String,
) {
    let schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name";
    let (expected, told) = (run(plain, schema), tenant.run(shared, schema));
    if expected.rows != told.rows {
        let _ = writeln!(
            report,
            "schema\n  plain     {:?}\n  rewritten {:?}",
            expected.rows, told.rows
        );
    }
    for row in expected.rows {
        let (Value::Text(kind), Value::Text(name)) = (&row[0], &row[1]) else { continue };
        if kind != "table" || name.starts_with("sqlite_") {
            continue;
        }
        let quoted = name.replace('"', "\"\"");
        // Record 10 of an FTS5 index begins with a count of the settings that the connection has
        // seen, those of statements that came to nothing too.
        let rows = if name.ends_with("_data") { "WHERE id <> 10" } else { "" };
        let (expected, found) = (
            run(plain, &format!("SELECT * FROM \"{quoted}\" {rows}")),
            run(&shared.db, &format!("SELECT * FROM \"{}{quoted}\" {rows}", tenant.prefix())),
        );
        if expected.rows != found.rows {
            let _ = writeln!(
                report,
                "table {name}\n  plain     {:?}\n  rewritten {:?}",
                expected.rows, found.rows
            );
        }
    }
    // The stored form of the schema recreates the same schema.
    let entries = tenant.catalogue.entries().unwrap();
    let loaded = Catalogue::load(tenant.catalogue.namespace(), &entries, |_, _| {}).unwrap();
    if loaded.entries().unwrap() != entries
        || loaded.tables().unwrap() != tenant.catalogue.tables().unwrap()
    {
        let _ = writeln!(report, "the catalogue is not what was kept of it: {entries:?}");
    }
}

/// Marks every text in a namespace's tables, so that one that comes out somewhere else is seen.
pub fn mark(db: &Connection, prefix: &str) {
    let tables = run(
        db,
        &format!(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, {}) = '{prefix}'",
            prefix.len()
        ),
    );
    db.pragma_update(None, "foreign_keys", false).unwrap();
    for row in tables.rows {
        let Value::Text(table) = &row[0] else { continue };
        let table = table.replace('"', "\"\"");
        let columns = run(
            db,
            &format!("SELECT name FROM pragma_table_info('{}')", table.replace('\'', "''")),
        );
        for column in columns.rows {
            let Value::Text(column) = &column[0] else { continue };
            // Keys, checks and virtual tables may refuse it: then that column stays.
            let column = column.replace('"', "\"\"");
            run(
                db,
                &format!(
                    "UPDATE \"{table}\" SET \"{column}\" = 'MARK ' || \"{column}\" WHERE typeof(\"{column}\") = 'text'"
                ),
            );
            run(
                db,
                &format!(
                    "UPDATE OR IGNORE \"{table}\" SET \"{column}\" = 987654000 + \"{column}\" WHERE typeof(\"{column}\") = 'integer'"
                ),
            );
        }
    }
    db.pragma_update(None, "foreign_keys", true).unwrap();
}
