//! Records what SQLite reports about a user's statement while it compiles it on the catalogue: the
//! objects it touches, and whether they are allowed. Unknown accesses are refused.

use crate::allowed::{
    ALTER_FUNCTIONS, FUNCTIONS, MODULE_PRAGMAS, MODULES, NO_ATTACH, NO_TEMPORARY, NO_TRANSACTIONS,
    PRAGMAS, SCHEMA_TABLES, TABLE_FUNCTIONS, is_counter, is_nondeterministic,
    pragma_not_allowed_message,
};
use crate::names::{is_one_of, is_same_name, starts_with_ignore_case};
use debros_proto::lock;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// A table, view or table function that a statement touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableAccess {
    pub(crate) table: String,
    /// The innermost view, trigger or CTE through which it is touched.
    pub(crate) through: Option<String>,
    pub(crate) writes: bool,
    /// Named in a FROM without any of its columns being used: then the name may be a CTE's as well.
    pub(crate) unused: bool,
}

/// The recorded accesses of one statement.
#[derive(Debug, Default)]
pub(crate) struct AccessRecord {
    pub(crate) accesses: Vec<TableAccess>,
    /// A view or trigger reads the time.
    pub(crate) reads_time_inside: bool,
    /// Something reads the connection's counters.
    pub(crate) reads_counters: bool,
    /// PRAGMAs were used, alone or as tables.
    pub(crate) pragmas: bool,
    /// It is an ALTER TABLE.
    alters: bool,
    refusal: Option<String>,
    deadline: Option<Instant>,
    timed_out: bool,
}

impl AccessRecord {
    /// Why an access was refused.
    pub(crate) fn take_refusal(&mut self) -> Option<String> {
        self.refusal.take()
    }

    /// Whether compiling took too long.
    pub(crate) fn has_timed_out(&self) -> bool {
        self.timed_out
    }

    /// Whether it is an ALTER TABLE.
    pub(crate) fn alters_table(&self) -> bool {
        self.alters
    }

    fn note_access(&mut self, table: &str, through: Option<&str>, writes: bool, unused: bool) {
        let known = self.accesses.iter_mut().find(|access| {
            access.writes == writes
                && is_same_name(&access.table, table)
                && access.through.as_deref() == through
        });
        match known {
            Some(access) => access.unused &= unused,
            None => self.accesses.push(TableAccess {
                table: table.to_owned(),
                through: through.map(str::to_owned),
                writes,
                unused,
            }),
        }
    }

    fn authorize(&mut self, context: &AuthContext<'_>) -> Authorization {
        if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            self.timed_out = true;
            return Authorization::Deny;
        }
        match self.refuse_action(context) {
            None => Authorization::Allow,
            Some(reason) => {
                self.refusal.get_or_insert(reason);
                Authorization::Deny
            }
        }
    }

    fn refuse_action(&mut self, context: &AuthContext<'_>) -> Option<String> {
        let through = context.accessor;
        let temporary = context.database_name.is_some_and(|name| is_same_name(name, "temp"));
        match context.action {
            AuthAction::Select | AuthAction::Recursive => None,
            AuthAction::Read { table_name, column_name } => {
                // The name that ALTER TABLE ADD gives the table while it reads the new column; no
                // table has such a name.
                if starts_with_ignore_case(table_name, "sqlite_altertab_") {
                    return None;
                }
                self.note_access(table_name, through, false, column_name.is_empty());
                refuse_table(table_name)
            }
            AuthAction::Insert { table_name }
            | AuthAction::Delete { table_name }
            | AuthAction::Update { table_name, .. } => {
                self.note_access(table_name, through, true, false);
                refuse_table(table_name)
            }
            AuthAction::Function { function_name } => {
                self.reads_time_inside |= through.is_some() && is_nondeterministic(function_name);
                self.reads_counters |= is_counter(function_name);
                let known = is_one_of(FUNCTIONS, function_name)
                    || (self.alters && is_one_of(ALTER_FUNCTIONS, function_name));
                (!known).then(|| format!("the function {function_name} is not allowed"))
            }
            AuthAction::Pragma { pragma_name, pragma_value } => {
                self.pragmas = true;
                self.refuse_pragma(pragma_name, pragma_value)
            }
            AuthAction::CreateVtable { module_name, .. } => (!is_one_of(MODULES, module_name))
                .then(|| {
                    format!(
                        "the virtual-table module {module_name} is not allowed; these are: {}",
                        MODULES.join(", ")
                    )
                }),
            AuthAction::AlterTable { .. } => {
                self.alters = true;
                None
            }
            AuthAction::CreateTable { .. }
            | AuthAction::DropTable { .. }
            | AuthAction::Analyze { .. }
            | AuthAction::DropVtable { .. }
            | AuthAction::CreateIndex { .. }
            | AuthAction::DropIndex { .. }
            | AuthAction::CreateTrigger { .. }
            | AuthAction::DropTrigger { .. }
            | AuthAction::CreateView { .. }
            | AuthAction::DropView { .. }
            | AuthAction::Reindex { .. } => temporary.then(|| NO_TEMPORARY.to_owned()),
            AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
                Some(NO_TRANSACTIONS.to_owned())
            }
            AuthAction::Attach { .. } | AuthAction::Detach { .. } => Some(NO_ATTACH.to_owned()),
            AuthAction::CreateTempIndex { .. }
            | AuthAction::CreateTempTable { .. }
            | AuthAction::CreateTempTrigger { .. }
            | AuthAction::CreateTempView { .. }
            | AuthAction::DropTempIndex { .. }
            | AuthAction::DropTempTable { .. }
            | AuthAction::DropTempTrigger { .. }
            | AuthAction::DropTempView { .. } => Some(NO_TEMPORARY.to_owned()),
            _ => Some("this kind of statement is not allowed".to_owned()),
        }
    }

    /// Why the catalogue does not compile a PRAGMA. A name in [`PRAGMAS`] passes with any value: a
    /// value is refused here.
    fn refuse_pragma(&self, name: &str, value: Option<&str>) -> Option<String> {
        if (value.is_none() && is_one_of(MODULE_PRAGMAS, name))
            || (self.alters && is_same_name(name, "quick_check"))
        {
            return None;
        }
        (!is_one_of(PRAGMAS, name)).then(|| pragma_not_allowed_message(name))
    }
}

/// Tables that SQLite itself provides, except those that may be read.
fn refuse_table(table: &str) -> Option<String> {
    const RAW: &[&str] =
        &["dbstat", "bytecode", "tables_used", "completion", "fsdir", "csv", "fts3tokenize"];
    let may_be_read = is_one_of(SCHEMA_TABLES, table)
        || is_one_of(TABLE_FUNCTIONS, table)
        || is_one_of(&["sqlite_sequence", "sqlite_stat1", "sqlite_stat4"], table);
    if may_be_read {
        return None;
    }
    if let Some(start) = table.get(..7)
        && is_same_name(start, "pragma_")
    {
        let known = is_one_of(PRAGMAS, &table[7..]) || is_same_name(table, "pragma_quick_check");
        return (!known).then(|| pragma_not_allowed_message(&table[7..]));
    }
    (starts_with_ignore_case(table, "sqlite_") || is_one_of(RAW, table))
        .then(|| format!("the table {table} is not allowed"))
}

/// Shared between the catalogue's connection and its authorizer.
#[derive(Debug, Default)]
pub(crate) struct AccessRecorder(Mutex<Option<AccessRecord>>);

impl AccessRecorder {
    fn lock(&self) -> MutexGuard<'_, Option<AccessRecord>> {
        lock(&self.0)
    }

    /// Begins to record and to refuse.
    pub(crate) fn begin_recording(&self, deadline: Instant) {
        *self.lock() = Some(AccessRecord { deadline: Some(deadline), ..AccessRecord::default() });
    }

    /// Ends it. Until the next [`begin_recording`](AccessRecorder::begin_recording) everything is
    /// allowed: the catalogue's own statements.
    pub(crate) fn end_recording(&self) -> AccessRecord {
        self.lock().take().unwrap_or_default()
    }

    pub(crate) fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        match self.lock().as_mut() {
            Some(record) => record.authorize(context),
            None => Authorization::Allow,
        }
    }
}
