//! The second line of defence: the objects of the database that a namespace's statement may touch,
//! decided by SQLite's authorizer while it compiles the statement. It knows the real names and
//! nothing of the rewriter. Unknown actions are refused.
//!
//! The authorizer does not see the new name of ALTER TABLE … RENAME: see [`ForeignObjects`].

use crate::allowed::{
    ALTER_FUNCTIONS, FUNCTIONS, MODULE_PRAGMAS, MODULES, NO_ATTACH, NO_TEMPORARY, NO_TRANSACTIONS,
    TABLE_FUNCTIONS, is_statistics, may_be_shadow_table, pragma_not_allowed_message,
};
use crate::execution_context::MOMENT_TABLE;
use crate::names::{
    INTERNAL_PREFIX, NamespacePrefix, is_one_of, is_same_name, starts_with_ignore_case,
};
use crate::statement_class::{StatementClass, SystemTableGrants};
use debros_proto::Namespace;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext};

/// The rights of one statement of a namespace. Made for each statement, and asked at each of
/// SQLite's questions about it, while it is compiled and while it runs: full-text tables ask while
/// they run.
#[derive(Clone, Debug)]
pub struct Policy {
    prefix: NamespacePrefix,
    class: StatementClass,
    grants: SystemTableGrants,
    /// Names of the statement's own subqueries and CTEs.
    results: Vec<String>,
    /// The statement removes or alters something: only then SQLite itself reads the schema's rows.
    drops: bool,
    alters: bool,
    /// It is ANALYZE, which reads its own rows.
    analyzes: bool,
    /// The last question was whether a row of the schema may be written: then SQLite looks that row
    /// up by its number.
    wrote_schema: bool,
}

impl Policy {
    /// A policy for one statement.
    pub fn new(namespace: &Namespace, class: StatementClass, grants: SystemTableGrants) -> Self {
        Self {
            prefix: NamespacePrefix::new(namespace),
            class,
            grants,
            results: Vec::new(),
            drops: false,
            alters: false,
            analyzes: false,
            wrote_schema: false,
        }
    }

    /// Allows reads of the columns of its own subqueries and CTEs by their names. Mostly SQLite
    /// does not ask about these, but for the shared columns of RIGHT and FULL JOIN it does, in the
    /// same words as for a table.
    #[must_use]
    pub fn with_results(mut self, names: &[String]) -> Self {
        self.results = names.iter().filter(|name| !self.is_reserved(name)).cloned().collect();
        self
    }

    /// Whether a name can be that of a table outside of the namespace.
    fn is_reserved(&self, name: &str) -> bool {
        name.contains("::")
            || starts_with_ignore_case(name, "sqlite_")
            || starts_with_ignore_case(name, INTERNAL_PREFIX)
            || starts_with_ignore_case(name, "pragma_")
            || is_one_of(SQLITE_TABLES, name)
    }

    /// Why the statement may not do this, or `None` if it may. The reason is for the log and for
    /// the namespace's user: it names nothing that the user did not name.
    pub fn refuse_in_context(&mut self, context: &AuthContext<'_>) -> Option<String> {
        let wrote_schema = matches!(
            context.action,
            AuthAction::Update { table_name, .. } if is_schema_table(table_name)
        );
        let refusal = self.refuse_in_database(context);
        self.wrote_schema = wrote_schema;
        refusal
    }

    fn refuse_in_database(&mut self, context: &AuthContext<'_>) -> Option<String> {
        // In these actions the database's name is in another argument; a table of another database
        // is not this namespace's.
        if matches!(context.action, AuthAction::AlterTable { .. }) {
            return self.refuse_action(&context.action);
        }
        if context.database_name.is_some_and(|name| is_same_name(name, "temp")) {
            return self.refuse_temporary(&context.action);
        }
        if context.database_name.is_some_and(|name| !is_same_name(name, "main")) {
            return Some(NO_ATTACH.to_owned());
        }
        self.refuse_action(&context.action)
    }

    fn refuse_action(&mut self, action: &AuthAction<'_>) -> Option<String> {
        match *action {
            AuthAction::Select | AuthAction::Recursive => None,
            AuthAction::Read { table_name, column_name } => {
                self.refuse_read(table_name, column_name)
            }
            AuthAction::Insert { table_name }
            | AuthAction::Delete { table_name }
            | AuthAction::Update { table_name, .. } => self.refuse_write(table_name),
            AuthAction::Function { function_name } => {
                let known = is_one_of(FUNCTIONS, function_name)
                    || (self.alters && is_one_of(ALTER_FUNCTIONS, function_name));
                (!known).then(|| format!("the function {function_name} is not allowed"))
            }
            AuthAction::Pragma { pragma_name, pragma_value } => {
                self.refuse_pragma(pragma_name, pragma_value)
            }
            // Created along with the first AUTOINCREMENT and the first ANALYZE; nobody can create
            // them by name.
            AuthAction::CreateTable { table_name }
                if is_same_name(table_name, "sqlite_sequence") || is_statistics(table_name) =>
            {
                self.refuse_definition(&[])
            }
            AuthAction::CreateTable { table_name } => self.refuse_definition(&[table_name]),
            AuthAction::CreateVtable { table_name, module_name } => {
                if !is_one_of(MODULES, module_name) {
                    return Some(format!("the virtual-table module {module_name} is not allowed"));
                }
                self.refuse_definition(&[table_name])
            }
            AuthAction::CreateIndex { index_name, table_name } => {
                self.refuse_definition(&[autoindex_table(index_name), table_name])
            }
            AuthAction::CreateTrigger { trigger_name, table_name } => {
                self.refuse_definition(&[trigger_name, table_name])
            }
            AuthAction::CreateView { view_name } => self.refuse_definition(&[view_name]),
            AuthAction::DropTable { table_name } | AuthAction::DropVtable { table_name, .. } => {
                self.drops = true;
                self.refuse_definition(&[table_name])
            }
            AuthAction::DropView { view_name } => {
                self.drops = true;
                self.refuse_definition(&[view_name])
            }
            AuthAction::DropIndex { index_name, table_name } => {
                self.drops = true;
                self.refuse_definition(&[index_name, table_name])
            }
            AuthAction::DropTrigger { trigger_name, table_name } => {
                self.drops = true;
                self.refuse_definition(&[trigger_name, table_name])
            }
            AuthAction::AlterTable { table_name, .. } => {
                self.alters = true;
                self.refuse_definition(&[table_name])
            }
            AuthAction::Reindex { index_name } => {
                self.refuse_definition(&[autoindex_table(index_name)])
            }
            AuthAction::Analyze { table_name } => {
                self.analyzes = true;
                self.refuse_definition(&[table_name])
            }
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

    /// SQLite reads the temporary schema, which is empty, when it alters or removes something.
    fn refuse_temporary(&mut self, action: &AuthAction<'_>) -> Option<String> {
        match *action {
            AuthAction::Select | AuthAction::Recursive | AuthAction::Function { .. } => {
                self.refuse_action(action)
            }
            AuthAction::Read { table_name, .. } | AuthAction::Update { table_name, .. }
                if (self.alters || self.drops) && is_schema_table(table_name) =>
            {
                None
            }
            AuthAction::Pragma { .. } if self.alters => self.refuse_action(action),
            _ => Some(NO_TEMPORARY.to_owned()),
        }
    }

    /// Something is created or removed: all of its names are the namespace's.
    fn refuse_definition(&mut self, names: &[&str]) -> Option<String> {
        if self.class != StatementClass::Ddl {
            return Some("this statement may not change the schema".to_owned());
        }
        names.iter().find(|name| !self.prefix.owns(name)).map(|name| no_such_table_message(name))
    }

    fn refuse_read(&self, table: &str, column: &str) -> Option<String> {
        if self.prefix.owns(table)
            || is_one_of(TABLE_FUNCTIONS, table)
            || is_same_name(table, MOMENT_TABLE)
        {
            return None;
        }
        if is_schema_table(table) {
            // CREATE looks up the row that it wrote. DROP and ALTER read all rows, and contain no
            // SELECT of the user's.
            let own =
                self.drops || self.alters || (self.wrote_schema && is_same_name(column, "ROWID"));
            return (self.class != StatementClass::Ddl || !own)
                .then(|| no_such_table_message(table));
        }
        let allowed = match table {
            name if is_same_name(name, "sqlite_sequence") => {
                self.grants.sequence || self.drops || self.alters
            }
            name if is_statistics(name) => {
                (self.grants.statistics && is_same_name(name, "sqlite_stat1"))
                    || self.drops
                    || self.alters
                    || self.analyzes
                    || self.replaces_statistics()
            }
            name if is_same_name(name, "pragma_foreign_key_check") => true,
            name if is_same_name(name, "pragma_quick_check") => self.alters,
            // The name that ALTER TABLE ADD gives the table while it reads the new column.
            name if starts_with_ignore_case(name, ALTERED) => {
                self.prefix.owns(&name[ALTERED.len()..])
            }
            // A subquery without an alias. No table has such a name.
            name if starts_with_ignore_case(name, "(subquery-") => true,
            // A CTE of which no column is used gives its own name, without saying that it is a CTE.
            name => {
                (column.is_empty() && !self.is_reserved(name))
                    || self.results.iter().any(|result| is_same_name(result, name))
            }
        };
        (!allowed).then(|| no_such_table_message(table))
    }

    /// ANALYZE removes the rows of an earlier one before it identifies itself.
    fn replaces_statistics(&self) -> bool {
        self.class == StatementClass::Ddl && self.grants.statistics
    }

    fn refuse_write(&self, table: &str) -> Option<String> {
        // Virtual tables prepare writes of their shadow tables as soon as they are used.
        let shadow = self.prefix.owns(table) && may_be_shadow_table(table);
        if self.class == StatementClass::Read && !shadow {
            return Some("this statement may not change anything".to_owned());
        }
        let allowed = self.prefix.owns(table)
            || (is_schema_table(table) && self.class == StatementClass::Ddl)
            || (is_same_name(table, "sqlite_sequence")
                && (self.grants.sequence || self.drops || self.alters))
            || (is_statistics(table)
                && (self.analyzes || self.drops || self.alters || self.replaces_statistics()));
        (!allowed).then(|| no_such_table_message(table))
    }

    /// Why the data database does not compile a PRAGMA. The catalogue answers all of them, except
    /// the one that reads the data.
    fn refuse_pragma(&self, name: &str, value: Option<&str>) -> Option<String> {
        let allowed = match value {
            None => is_one_of(MODULE_PRAGMAS, name),
            Some(table) if is_same_name(name, "foreign_key_check") => self.prefix.owns(table),
            Some(table) if is_same_name(name, "quick_check") => {
                self.alters && self.prefix.owns(table)
            }
            Some(_) => false,
        };
        (!allowed).then(|| pragma_not_allowed_message(name))
    }
}

/// Whether a refused action can be hidden, by
/// [`Authorization::Ignore`](rusqlite::hooks::Authorization::Ignore): reading a column of the
/// statistics, which is null then. An R-Tree reads its own statistics when a connection first meets
/// it, which is while any statement on it is compiled. Refused, half of its parts would be missing,
/// and it would give wrong results until the connection forgets it. Compiling the statement once
/// more, with nothing hidden, shows whether the R-Tree or the statement asked: that has to be done,
/// and its result may run. (SQLite itself compiles it again, with parts hidden, when the schema
/// changes before it runs.)
pub fn may_be_hidden(action: &AuthAction<'_>) -> bool {
    matches!(action, AuthAction::Read { table_name, column_name }
        if is_same_name(table_name, "sqlite_stat1") && !column_name.is_empty())
}

/// Tables that SQLite provides by itself and that describe the whole database or connection.
const SQLITE_TABLES: &[&str] = &["dbstat", "bytecode", "tables_used", "completion", "fts3tokenize"];

/// No table has a name with this beginning.
const ALTERED: &str = "sqlite_altertab_";

/// SQLite's words, whether there is such a table or not.
fn no_such_table_message(name: &str) -> String {
    format!("no such table: {name}")
}

fn is_schema_table(name: &str) -> bool {
    is_one_of(&["sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"], name)
}

/// The indexes of constraints are named after their table.
fn autoindex_table(index: &str) -> &str {
    const AUTOMATIC: &str = "sqlite_autoindex_";
    if starts_with_ignore_case(index, AUTOMATIC) { &index[AUTOMATIC.len()..] } else { index }
}

/// Counts what a change of the schema must not change and the authorizer does not see. First, the
/// objects of a database outside of the namespace, because the authorizer does not see the new name
/// of a renamed table. Second, the tables outside that are parents of the namespace's by a foreign
/// key, because it sees no parents at all. Such a child would be read whenever the parent's owner
/// deletes a row, and that read would be refused. Counted before and after, and compared. The count
/// reads every row of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignObjects {
    objects: i64,
    parents: i64,
}

const OBJECTS: &str = "SELECT count(*) FROM sqlite_schema
    WHERE lower(substr(replace(name, 'sqlite_autoindex_', ''), 1, length(?1))) <> ?1
        AND name NOT LIKE 'sqlite~_stat%' ESCAPE '~' AND name <> 'sqlite_sequence'";
const PARENTS: &str = "SELECT count(*) FROM sqlite_schema AS child, pragma_foreign_key_list(child.name) AS key
    WHERE child.type = 'table' AND instr(lower(child.sql), 'references') > 0
        AND lower(substr(child.name, 1, length(?1))) = ?1 AND lower(substr(key.\"table\", 1, length(?1))) <> ?1";

impl ForeignObjects {
    /// The count now. To be run with the authorizer off.
    ///
    /// # Errors
    /// SQLite's error when the schema cannot be read.
    pub fn count(db: &Connection, namespace: &Namespace) -> rusqlite::Result<Self> {
        let prefix = namespace.prefix();
        let count = |sql| db.prepare_cached(sql)?.query_row([&prefix], |row| row.get(0));
        Ok(Self { objects: count(OBJECTS)?, parents: count(PARENTS)? })
    }
}

#[cfg(test)]
mod tests {
    use super::SQLITE_TABLES;
    use crate::allowed::{MODULES, TABLE_FUNCTIONS};
    use crate::names::is_one_of;

    /// A module of a new SQLite version must be reviewed before anybody uses it.
    #[test]
    fn every_module_of_this_sqlite_is_known() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        let mut statement = db.prepare("SELECT name FROM pragma_module_list").unwrap();
        let modules: Vec<String> =
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let known = |name: &str| {
            is_one_of(SQLITE_TABLES, name)
                || is_one_of(MODULES, name)
                || is_one_of(TABLE_FUNCTIONS, name)
                || name.starts_with("pragma_")
                || name == "fts4aux"
        };
        let unknown: Vec<&String> = modules.iter().filter(|name| !known(name)).collect();
        assert!(unknown.is_empty() && modules.len() > 5, "{unknown:?}");
    }
}
