//! What SQLite's authorizer sees of a statement while it compiles it: its traits for the engine,
//! and for a namespace's policy whether it may.

use super::deadline::StatementDeadline;
use debros_proto::lock;
use debros_sql::policy::may_be_hidden;
use debros_sql::{Policy, StatementClass, SystemTableGrants};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Tables of SQLite's own that it changes along with the schema.
const SCHEMA_TABLES: &[&str] = &[
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
const CHEAP_FUNCTIONS: &[&str] = &[
    "count", "sum", "total", "avg", "min", "max", "coalesce", "ifnull", "nullif", "iif", "abs",
    "typeof", "length",
];

/// Tables that are functions: one step can read through a whole document.
const TABLE_FUNCTIONS: &[&str] =
    &["json_each", "json_tree", "jsonb_each", "jsonb_tree", "fts5vocab"];

/// Bytes of the longest text in a statement with `snippet`: of nothing but matches, full text takes
/// ten seconds for it.
const SNIPPET_LENGTH: usize = 64 << 10;
/// The same with `highlight`: it takes two seconds.
const HIGHLIGHT_LENGTH: usize = 256 << 10;

/// What the authorizer saw of a statement while it was compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StatementTraits(u16);

impl StatementTraits {
    const INSERTS: u16 = 1;
    const CHANGES_SCHEMA: u16 = 2;
    const REMOVES: u16 = 4;
    const ADDS: u16 = 8;
    const ALTERS: u16 = 16;
    const MAY_BE_SLOW: u16 = 32;
    const RETURNS: u16 = 64;
    const TRIGGERS: u16 = 128;
    const SNIPPETS: u16 = 256;
    const HIGHLIGHTS: u16 = 512;

    /// The statement itself inserts rows, not only its triggers.
    pub(super) fn inserts_rows(self) -> bool {
        self.0 & Self::INSERTS != 0
    }

    /// It changes the schema.
    pub(super) fn changes_schema(self) -> bool {
        self.0 & Self::CHANGES_SCHEMA != 0
    }

    /// It is an ALTER TABLE, whose new name the authorizer does not see.
    pub(super) fn alters_table(self) -> bool {
        self.0 & Self::ALTERS != 0
    }

    /// It removes and adds nothing, so that it may use the reserve of a full database.
    pub(super) fn only_removes(self) -> bool {
        self.0 & (Self::REMOVES | Self::ADDS) == Self::REMOVES
    }

    /// Those of a statement on the schema that was not compiled.
    pub(super) fn for_schema_change() -> Self {
        Self(Self::CHANGES_SCHEMA | Self::ADDS)
    }

    /// Those of a statement that may take long the next time, whatever it took this time.
    pub(super) fn with_slow_step(self) -> Self {
        Self(self.0 | Self::MAY_BE_SLOW)
    }

    /// The same of a statement that returns rows.
    pub(super) fn with_returned_rows(self) -> Self {
        Self(self.0 | Self::RETURNS)
    }

    /// SQLite undoes it by itself when it fails, and nothing that the engine adds can fail after
    /// it: it changes rows, not the schema, runs no trigger, and returns no rows that could be too
    /// many.
    pub(super) fn is_self_atomic(self) -> bool {
        self.0 & (Self::CHANGES_SCHEMA | Self::ALTERS | Self::RETURNS | Self::TRIGGERS) == 0
    }

    /// One step of it can take long, whatever it took the last time: it calls a function that is
    /// not among the cheapest, or reads a table that is one.
    pub(super) fn may_be_slow(self) -> bool {
        self.0 & Self::MAY_BE_SLOW != 0
    }

    /// A function that the statement calls and that takes time with the square of a text's length,
    /// and how long its texts may be. Nothing interrupts it, and nothing of SQLite's own can be put
    /// in the place of it.
    pub(super) fn quadratic_function(self) -> Option<(&'static str, usize)> {
        match self.0 {
            traits if traits & Self::SNIPPETS != 0 => Some(("snippet", SNIPPET_LENGTH)),
            traits if traits & Self::HIGHLIGHTS != 0 => Some(("highlight", HIGHLIGHT_LENGTH)),
            _ => None,
        }
    }

    fn of_context(context: &AuthContext<'_>) -> u16 {
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
            AuthAction::Function { function_name }
                if function_name.eq_ignore_ascii_case("snippet") =>
            {
                Self::MAY_BE_SLOW | Self::SNIPPETS
            }
            AuthAction::Function { function_name }
                if function_name.eq_ignore_ascii_case("highlight") =>
            {
                Self::MAY_BE_SLOW | Self::HIGHLIGHTS
            }
            AuthAction::Function { function_name }
                if !is_one_of(CHEAP_FUNCTIONS, function_name) =>
            {
                Self::MAY_BE_SLOW
            }
            AuthAction::Read { table_name, .. } if is_one_of(TABLE_FUNCTIONS, table_name) => {
                Self::MAY_BE_SLOW
            }
            AuthAction::Pragma { .. } => Self::MAY_BE_SLOW,
            AuthAction::Insert { table_name } if is_schema_table(table_name) => 0,
            AuthAction::Insert { .. } if context.accessor.is_none() => Self::INSERTS | Self::ADDS,
            AuthAction::Insert { .. } => Self::ADDS,
            AuthAction::Update { table_name, .. } if !is_schema_table(table_name) => Self::ADDS,
            AuthAction::Delete { table_name } if !is_schema_table(table_name) => Self::REMOVES,
            AuthAction::DropTable { .. }
            | AuthAction::DropIndex { .. }
            | AuthAction::DropTrigger { .. }
            | AuthAction::DropView { .. }
            | AuthAction::DropVtable { .. } => Self::CHANGES_SCHEMA | Self::REMOVES,
            AuthAction::CreateIndex { .. }
            | AuthAction::CreateTable { .. }
            | AuthAction::CreateTrigger { .. }
            | AuthAction::CreateView { .. }
            | AuthAction::CreateVtable { .. }
            | AuthAction::Reindex { .. }
            | AuthAction::Analyze { .. } => Self::CHANGES_SCHEMA | Self::ADDS,
            AuthAction::AlterTable { .. } => Self::CHANGES_SCHEMA | Self::ADDS | Self::ALTERS,
            _ => 0,
        }
    }
}

/// With whose rights a statement is compiled and run.
#[derive(Clone, Copy, Debug)]
pub(super) enum StatementRights<'a> {
    /// The engine's or the node's own.
    Internal,
    /// A namespace's.
    Tenant(&'a TenantRights),
}

/// What a namespace's statement may do: the same for every run of a text, so that a compiled
/// statement is only used again with the rights it was compiled with.
#[derive(Clone, Debug)]
pub(super) struct TenantRights {
    pub(super) policy: Policy,
    pub(super) class: StatementClass,
    pub(super) grants: SystemTableGrants,
}

/// Which rights a text was compiled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RightsKind {
    Internal,
    Tenant(StatementClass, SystemTableGrants),
}

impl StatementRights<'_> {
    pub(super) fn kind(&self) -> RightsKind {
        match self {
            StatementRights::Internal => RightsKind::Internal,
            StatementRights::Tenant(tenancy) => RightsKind::Tenant(tenancy.class, tenancy.grants),
        }
    }
}

/// Shared between a connection and its authorizer.
#[derive(Debug, Default)]
pub(super) struct StatementAuthorizer {
    has_policy: AtomicBool,
    policy: Mutex<Option<Policy>>,
    was_asked: AtomicBool,
    traits: AtomicU16,
    refusal: Mutex<Option<String>>,
    /// Statistics are refused; else they are hidden.
    denies_statistics: AtomicBool,
    hid_statistics: AtomicBool,
    deadline: Arc<StatementDeadline>,
    timed_out: AtomicBool,
}

impl StatementAuthorizer {
    /// Puts the authorizer on a connection.
    pub(super) fn install(
        db: &mut rusqlite::Connection,
        deadline: Arc<StatementDeadline>,
    ) -> rusqlite::Result<Arc<StatementAuthorizer>> {
        let authorizer =
            Arc::new(StatementAuthorizer { deadline, ..StatementAuthorizer::default() });
        let shared = Arc::clone(&authorizer);
        db.authorizer(Some(move |context: AuthContext<'_>| shared.authorize(&context)))?;
        Ok(authorizer)
    }

    /// Says whose statement comes now, until the next call.
    pub(super) fn set_rights(&self, rights: StatementRights<'_>) {
        self.denies_statistics.store(false, Relaxed);
        match rights {
            StatementRights::Internal => self.has_policy.store(false, Relaxed),
            StatementRights::Tenant(tenancy) => {
                *lock(&self.policy) = Some(tenancy.policy.clone());
                self.has_policy.store(true, Relaxed);
            }
        }
    }

    /// Forgets what was seen of the statement before.
    pub(super) fn reset(&self) {
        self.was_asked.store(false, Relaxed);
        self.timed_out.store(false, Relaxed);
        self.traits.store(0, Relaxed);
        self.hid_statistics.store(false, Relaxed);
        *lock(&self.refusal) = None;
    }

    /// What was seen since [`reset`](StatementAuthorizer::reset), or `None` when SQLite compiled
    /// nothing.
    pub(super) fn statement_traits(&self) -> Option<StatementTraits> {
        self.was_asked.load(Relaxed).then(|| StatementTraits(self.traits.load(Relaxed)))
    }

    /// Why something was refused since [`reset`](StatementAuthorizer::reset).
    pub(super) fn take_refusal(&self) -> Option<String> {
        lock(&self.refusal).take()
    }

    /// Whether statistics that the statement may not read were hidden from it since
    /// [`reset`](StatementAuthorizer::reset): see [`may_be_hidden`].
    pub(super) fn has_hidden_statistics(&self) -> bool {
        self.hid_statistics.load(Relaxed)
    }

    /// Says whether statistics are refused from now on, as to a statement that asks for them
    /// itself.
    pub(super) fn deny_statistics(&self, strict: bool) {
        self.denies_statistics.store(strict, Relaxed);
    }

    /// Whether the time was over while SQLite compiled, since
    /// [`reset`](StatementAuthorizer::reset).
    pub(super) fn has_timed_out(&self) -> bool {
        self.timed_out.load(Relaxed)
    }

    fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        // Views upon views take minutes to compile, and SQLite looks at the clock too seldom
        // meanwhile. A transaction that is open must still be ended.
        let ends =
            matches!(context.action, AuthAction::Transaction { .. } | AuthAction::Savepoint { .. });
        if !ends && self.deadline.has_expired() {
            self.timed_out.store(true, Relaxed);
            return Authorization::Deny;
        }
        self.was_asked.store(true, Relaxed);
        self.traits.fetch_or(StatementTraits::of_context(context), Relaxed);
        if !self.has_policy.load(Relaxed) {
            return Authorization::Allow;
        }
        // A namespace's statement always has a policy; without one nothing is allowed.
        let refusal = match lock(&self.policy).as_mut() {
            Some(policy) => policy.refuse_in_context(context),
            None => Some("the statement is not allowed".to_owned()),
        };
        match refusal {
            None => Authorization::Allow,
            Some(_) if !self.denies_statistics.load(Relaxed) && may_be_hidden(&context.action) => {
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

fn is_one_of(list: &[&str], name: &str) -> bool {
    list.iter().any(|other| other.eq_ignore_ascii_case(name))
}

fn is_schema_table(table: &str) -> bool {
    is_one_of(SCHEMA_TABLES, table)
}
