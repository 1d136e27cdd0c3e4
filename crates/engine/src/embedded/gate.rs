//! What a user's SQL may touch, decided by SQLite's authorizer while it compiles the statement: on what the statement
//! means, never on its text.

use super::deadline::Deadline;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Tables of the engine's own inside a namespace's database start with this.
pub(super) const INTERNAL_PREFIX: &str = "_debros_";

/// PRAGMAs that only describe the schema.
const PRAGMAS: &[&str] = &[
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "foreign_key_check",
    "function_list",
    "collation_list",
    "compile_options",
    "user_version",
];

/// PRAGMAs that full-text and R-tree tables ask of their own accord. They tell nothing of interest.
const MODULE_PRAGMAS: &[&str] = &["data_version", "page_size"];

/// Virtual-table modules that reach nothing but their own tables.
const MODULES: &[&str] = &["fts3", "fts4", "fts5", "fts5vocab", "rtree", "rtree_i32"];

/// Tables of SQLite's own that a user may read.
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

/// Functions that load code or reach into the program.
const FUNCTIONS: &[&str] = &["load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"];

/// Functions that take next to no time, whatever they are given.
const CHEAP_FUNCTIONS: &[&str] =
    &["count", "sum", "total", "avg", "min", "max", "coalesce", "ifnull", "nullif", "iif", "abs", "typeof", "length"];

/// Tables that are functions: one step can read through a whole document.
const TABLE_FUNCTIONS: &[&str] = &["json_each", "json_tree", "jsonb_each", "jsonb_tree", "fts5vocab"];

/// What the authorizer saw of a statement while it was compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(u8);

impl Facts {
    const INSERTS: u8 = 1;
    const DEFINES: u8 = 2;
    const REMOVES: u8 = 4;
    const ADDS: u8 = 8;
    const ALTERS: u8 = 16;
    const CALLS: u8 = 32;
    const RETURNS: u8 = 64;
    const TRIGGERS: u8 = 128;

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

    fn of(context: &AuthContext<'_>) -> u8 {
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

    fn of_action(context: &AuthContext<'_>) -> u8 {
        match context.action {
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

/// Whose statement is being compiled or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// The engine's or the node's own.
    Full,
    /// A user's.
    User,
}

/// Shared between a connection and its authorizer.
#[derive(Debug, Default)]
pub(super) struct Gate {
    user: AtomicBool,
    asked: AtomicBool,
    facts: AtomicU8,
    refusal: Mutex<Option<String>>,
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

    /// Says whose statements come now, until the next call.
    pub(super) fn enter(&self, trust: Trust) {
        self.user.store(trust == Trust::User, Relaxed);
    }

    /// Forgets what was seen of the statement before.
    pub(super) fn reset(&self) {
        self.asked.store(false, Relaxed);
        self.late.store(false, Relaxed);
        self.facts.store(0, Relaxed);
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was seen since [`reset`](Gate::reset), or `None` when SQLite compiled nothing.
    pub(super) fn facts(&self) -> Option<Facts> {
        self.asked.load(Relaxed).then(|| Facts(self.facts.load(Relaxed)))
    }

    /// Why something was refused since [`reset`](Gate::reset).
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
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
        if !self.user.load(Relaxed) {
            return Authorization::Allow;
        }
        let refusal = match context.database_name {
            Some(name) if name.eq_ignore_ascii_case("temp") => refuse_temporary(&context.action),
            _ => refuse(&context.action),
        };
        match refusal {
            None => Authorization::Allow,
            Some(reason) => {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                Authorization::Deny
            }
        }
    }
}

fn is_one_of(list: &[&str], name: &str) -> bool {
    list.iter().any(|other| other.eq_ignore_ascii_case(name))
}

fn is_catalogue(table: &str) -> bool {
    is_one_of(CATALOGUE, table)
}

fn is_internal(name: &str) -> bool {
    name.get(..INTERNAL_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(INTERNAL_PREFIX))
}

/// Why a user's statement may not do this, or `None` when it may. What is not known is refused.
fn refuse(action: &AuthAction<'_>) -> Option<String> {
    match *action {
        AuthAction::Select | AuthAction::Recursive => None,
        AuthAction::Read { table_name, .. } => refuse_table(table_name),
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => refuse_table(table_name),
        AuthAction::CreateTable { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::Analyze { table_name }
        | AuthAction::DropVtable { table_name, .. } => refuse_name(table_name),
        AuthAction::CreateIndex { index_name: name, table_name }
        | AuthAction::DropIndex { index_name: name, table_name }
        | AuthAction::CreateTrigger { trigger_name: name, table_name }
        | AuthAction::DropTrigger { trigger_name: name, table_name } => {
            refuse_name(name).or_else(|| refuse_name(table_name))
        }
        AuthAction::CreateView { view_name } | AuthAction::DropView { view_name } => refuse_name(view_name),
        AuthAction::Reindex { index_name } => refuse_name(index_name),
        AuthAction::CreateVtable { table_name, module_name } => refuse_name(table_name).or_else(|| {
            (!is_one_of(MODULES, module_name)).then(|| {
                format!("the virtual-table module {module_name} is not allowed; these are: {}", MODULES.join(", "))
            })
        }),
        AuthAction::Function { function_name } => {
            is_one_of(FUNCTIONS, function_name).then(|| format!("the function {function_name} is not allowed"))
        }
        AuthAction::Pragma { pragma_name, pragma_value } => refuse_pragma(pragma_name, pragma_value),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => Some(
            "BEGIN, COMMIT, ROLLBACK, SAVEPOINT and RELEASE are not allowed: send the statements of a transaction \
             together in one transaction call"
                .to_owned(),
        ),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Some("ATTACH, DETACH and VACUUM are not allowed".to_owned())
        }
        AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::DropTempIndex { .. }
        | AuthAction::DropTempTable { .. }
        | AuthAction::DropTempTrigger { .. }
        | AuthAction::DropTempView { .. } => temporary(),
        _ => Some("this kind of statement is not allowed".to_owned()),
    }
}

/// Temporary objects would belong to a connection, which is not the caller's. Reading and renaming look at the temporary
/// catalogue too, which is empty.
fn refuse_temporary(action: &AuthAction<'_>) -> Option<String> {
    match action {
        AuthAction::Select
        | AuthAction::Recursive
        | AuthAction::Function { .. }
        | AuthAction::Read { .. }
        | AuthAction::Update { .. }
        | AuthAction::Pragma { .. } => refuse(action),
        _ => temporary(),
    }
}

fn temporary() -> Option<String> {
    Some("temporary tables, views, indexes and triggers are not allowed".to_owned())
}

fn refuse_name(name: &str) -> Option<String> {
    is_internal(name).then(reserved)
}

/// Why a name of the engine's own can not be used.
pub(super) fn reserved() -> String {
    format!("names that start with {INTERNAL_PREFIX} are reserved")
}

/// SQLite's tables that are not of the catalogue (`sqlite_dbpage`, `dbstat`, …) show or change the file's raw pages.
fn refuse_table(table: &str) -> Option<String> {
    let raw = table.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_")) && !is_catalogue(table);
    if raw || is_one_of(&["dbstat", "bytecode", "tables_used", "completion"], table) {
        return Some(format!("the table {table} is not allowed"));
    }
    refuse_name(table)
}

fn refuse_pragma(name: &str, value: Option<&str>) -> Option<String> {
    if value.is_none() && is_one_of(MODULE_PRAGMAS, name) {
        return None;
    }
    if !is_one_of(PRAGMAS, name) {
        return Some(format!("PRAGMA {name} is not allowed; these are: {}", PRAGMAS.join(", ")));
    }
    if name.eq_ignore_ascii_case("user_version") && value.is_some() {
        return Some("PRAGMA user_version can only be read".to_owned());
    }
    value.and_then(refuse_name)
}
