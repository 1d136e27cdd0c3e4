//! What SQLite's authorizer sees of a statement while it compiles it: facts for the engine, and for a namespace's policy
//! whether it may.

use super::deadline::Deadline;
use debros_sql::policy::may_be_hidden;
use debros_sql::{Class, Grants, Policy};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tables of SQLite's own that it changes along with the schema.
const CATALOGUE: &[&str] = &[
    "sqlite_master",
    "sqlite_schema",
    "sqlite_temp_master",
    "sqlite_temp_schema",
    "sqlite_sequence",
    "sqlite_stat1",
    "sqlite_stat3",
    "sqlite_stat4",
];

/// Functions that take next to no time, whatever they are given.
const CHEAP_FUNCTIONS: &[&str] =
    &["count", "sum", "total", "avg", "min", "max", "coalesce", "ifnull", "nullif", "iif", "abs", "typeof", "length"];

/// Tables that are functions: one step can read through a whole document.
const TABLE_FUNCTIONS: &[&str] = &["json_each", "json_tree", "jsonb_each", "jsonb_tree", "fts5vocab"];

/// Bytes of the longest text in a statement with `snippet`: of nothing but matches, full text takes ten seconds for it.
const SNIPPET_LENGTH: usize = 64 << 10;
/// The same with `highlight`: it takes two seconds.
const HIGHLIGHT_LENGTH: usize = 256 << 10;

/// What the authorizer saw of a statement while it was compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(u16);

impl Facts {
    const INSERTS: u16 = 1;
    const DEFINES: u16 = 2;
    const REMOVES: u16 = 4;
    const ADDS: u16 = 8;
    const ALTERS: u16 = 16;
    const CALLS: u16 = 32;
    const RETURNS: u16 = 64;
    const TRIGGERS: u16 = 128;
    const SNIPPETS: u16 = 256;
    const HIGHLIGHTS: u16 = 512;

    /// The statement itself inserts rows, not only its triggers.
    pub(super) fn inserts(self) -> bool {
        self.0 & Self::INSERTS != 0
    }

    /// It changes the schema.
    pub(super) fn defines(self) -> bool {
        self.0 & Self::DEFINES != 0
    }

    /// It is an ALTER TABLE, of whose new name the authorizer is not told.
    pub(super) fn alters(self) -> bool {
        self.0 & Self::ALTERS != 0
    }

    /// It removes and adds nothing, so that it may use the reserve of a full database.
    pub(super) fn only_removes(self) -> bool {
        self.0 & (Self::REMOVES | Self::ADDS) == Self::REMOVES
    }

    /// Those of a statement on the schema that was not compiled.
    pub(super) fn defining() -> Self {
        Self(Self::DEFINES | Self::ADDS)
    }

    /// Those of a statement that may take long the next time, whatever it took this time.
    pub(super) fn calling(self) -> Self {
        Self(self.0 | Self::CALLS)
    }

    /// The same of a statement that returns rows.
    pub(super) fn returning(self) -> Self {
        Self(self.0 | Self::RETURNS)
    }

    /// SQLite undoes it by itself when it fails, and nothing that the engine adds can fail after it: it changes rows, not
    /// the schema, runs no trigger, and returns no rows that could be too many.
    pub(super) fn undoes_itself(self) -> bool {
        self.0 & (Self::DEFINES | Self::ALTERS | Self::RETURNS | Self::TRIGGERS) == 0
    }

    /// One step of it can take long, whatever it took the last time: it calls a function that is not among the cheapest,
    /// or reads a table that is one.
    pub(super) fn calls(self) -> bool {
        self.0 & Self::CALLS != 0
    }

    /// A function that the statement calls and that takes time with the square of a text's length, and how long its texts
    /// may be. Nothing interrupts it, and nothing of SQLite's own can be put in the place of it.
    pub(super) fn square(self) -> Option<(&'static str, usize)> {
        match self.0 {
            facts if facts & Self::SNIPPETS != 0 => Some(("snippet", SNIPPET_LENGTH)),
            facts if facts & Self::HIGHLIGHTS != 0 => Some(("highlight", HIGHLIGHT_LENGTH)),
            _ => None,
        }
    }

    fn of(context: &AuthContext<'_>) -> u16 {
        let inside = match context.action {
            AuthAction::Insert { .. } | AuthAction::Update { .. } | AuthAction::Delete { .. }
                if context.accessor.is_some() =>
            {
                Self::TRIGGERS
            }
            _ => 0,
        };
        inside | Self::of_action(context)
    }

    fn of_action(context: &AuthContext<'_>) -> u16 {
        match context.action {
            AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("snippet") => {
                Self::CALLS | Self::SNIPPETS
            }
            AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("highlight") => {
                Self::CALLS | Self::HIGHLIGHTS
            }
            AuthAction::Function { function_name } if !is_one_of(CHEAP_FUNCTIONS, function_name) => Self::CALLS,
            AuthAction::Read { table_name, .. } if is_one_of(TABLE_FUNCTIONS, table_name) => Self::CALLS,
            AuthAction::Pragma { .. } => Self::CALLS,
            AuthAction::Insert { table_name } if is_catalogue(table_name) => 0,
            AuthAction::Insert { .. } if context.accessor.is_none() => Self::INSERTS | Self::ADDS,
            AuthAction::Insert { .. } => Self::ADDS,
            AuthAction::Update { table_name, .. } if !is_catalogue(table_name) => Self::ADDS,
            AuthAction::Delete { table_name } if !is_catalogue(table_name) => Self::REMOVES,
            AuthAction::DropTable { .. }
            | AuthAction::DropIndex { .. }
            | AuthAction::DropTrigger { .. }
            | AuthAction::DropView { .. }
            | AuthAction::DropVtable { .. } => Self::DEFINES | Self::REMOVES,
            AuthAction::CreateIndex { .. }
            | AuthAction::CreateTable { .. }
            | AuthAction::CreateTrigger { .. }
            | AuthAction::CreateView { .. }
            | AuthAction::CreateVtable { .. }
            | AuthAction::Reindex { .. }
            | AuthAction::Analyze { .. } => Self::DEFINES | Self::ADDS,
            AuthAction::AlterTable { .. } => Self::DEFINES | Self::ADDS | Self::ALTERS,
            _ => 0,
        }
    }
}

/// With whose rights a statement is compiled and run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rights<'a> {
    /// The engine's or the node's own.
    Own,
    /// A namespace's.
    Tenant(&'a Tenancy),
}

/// What a namespace's statement may do: the same for every run of a text, so that a compiled statement is only used again
/// with the rights it was compiled with.
#[derive(Clone, Debug)]
pub(super) struct Tenancy {
    pub(super) policy: Policy,
    pub(super) class: Class,
    pub(super) grants: Grants,
}

/// Which rights a text was compiled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Own,
    Tenant(Class, Grants),
}

impl Rights<'_> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Rights::Own => Kind::Own,
            Rights::Tenant(tenancy) => Kind::Tenant(tenancy.class, tenancy.grants),
        }
    }
}

/// Shared between a connection and its authorizer.
#[derive(Debug, Default)]
pub(super) struct Gate {
    guarded: AtomicBool,
    policy: Mutex<Option<Policy>>,
    asked: AtomicBool,
    facts: AtomicU16,
    refusal: Mutex<Option<String>>,
    /// Statistics are refused; else they are hidden.
    strict: AtomicBool,
    hid_statistics: AtomicBool,
    deadline: Arc<Deadline>,
    late: AtomicBool,
}

impl Gate {
    /// Puts the authorizer on a connection.
    pub(super) fn install(db: &mut rusqlite::Connection, deadline: Arc<Deadline>) -> rusqlite::Result<Arc<Gate>> {
        let gate = Arc::new(Gate { deadline, ..Gate::default() });
        let shared = Arc::clone(&gate);
        db.authorizer(Some(move |context: AuthContext<'_>| shared.judge(&context)))?;
        Ok(gate)
    }

    /// Says whose statement comes now, until the next call.
    pub(super) fn enter(&self, rights: Rights<'_>) {
        self.strict.store(false, Relaxed);
        match rights {
            Rights::Own => self.guarded.store(false, Relaxed),
            Rights::Tenant(tenancy) => {
                *lock(&self.policy) = Some(tenancy.policy.clone());
                self.guarded.store(true, Relaxed);
            }
        }
    }

    /// Forgets what was seen of the statement before.
    pub(super) fn reset(&self) {
        self.asked.store(false, Relaxed);
        self.late.store(false, Relaxed);
        self.facts.store(0, Relaxed);
        self.hid_statistics.store(false, Relaxed);
        *lock(&self.refusal) = None;
    }

    /// What was seen since [`reset`](Gate::reset), or `None` when SQLite compiled nothing.
    pub(super) fn facts(&self) -> Option<Facts> {
        self.asked.load(Relaxed).then(|| Facts(self.facts.load(Relaxed)))
    }

    /// Why something was refused since [`reset`](Gate::reset).
    pub(super) fn refusal(&self) -> Option<String> {
        lock(&self.refusal).take()
    }

    /// Whether statistics that the statement may not read were hidden from it since [`reset`](Gate::reset): see
    /// [`may_be_hidden`].
    pub(super) fn hid_statistics(&self) -> bool {
        self.hid_statistics.load(Relaxed)
    }

    /// Says whether statistics are refused from now on, as to a statement that asks for them itself.
    pub(super) fn be_strict(&self, strict: bool) {
        self.strict.store(strict, Relaxed);
    }

    /// Whether the time was over while SQLite compiled, since [`reset`](Gate::reset).
    pub(super) fn is_late(&self) -> bool {
        self.late.load(Relaxed)
    }

    fn judge(&self, context: &AuthContext<'_>) -> Authorization {
        // Views upon views take minutes to compile, and SQLite looks at the clock too seldom meanwhile.
        // A transaction that is open must still be ended.
        let ends = matches!(context.action, AuthAction::Transaction { .. } | AuthAction::Savepoint { .. });
        if !ends && self.deadline.is_over() {
            self.late.store(true, Relaxed);
            return Authorization::Deny;
        }
        self.asked.store(true, Relaxed);
        self.facts.fetch_or(Facts::of(context), Relaxed);
        if !self.guarded.load(Relaxed) {
            return Authorization::Allow;
        }
        // Guarded without a policy can not be; it would allow nothing.
        let refusal = match lock(&self.policy).as_mut() {
            Some(policy) => policy.refuse(context),
            None => Some("the statement is not allowed".to_owned()),
        };
        match refusal {
            None => Authorization::Allow,
            Some(_) if !self.strict.load(Relaxed) && may_be_hidden(&context.action) => {
                self.hid_statistics.store(true, Relaxed);
                Authorization::Ignore
            }
            Some(reason) => {
                *lock(&self.refusal) = Some(reason);
                Authorization::Deny
            }
        }
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_one_of(list: &[&str], name: &str) -> bool {
    list.iter().any(|other| other.eq_ignore_ascii_case(name))
}

fn is_catalogue(table: &str) -> bool {
    is_one_of(CATALOGUE, table)
}
