//! The names beside the user's own that a statement may use. A name outside of these lists is
//! refused, or does not exist.

use crate::names::{is_one_of, is_same_name, starts_with_ignore_case};

/// Functions whose result depends on their arguments alone, or whose dependence on time, randomness
/// or the connection is handled where they are called (`rewriter/nondeterminism.rs`).
pub(crate) const FUNCTIONS: &[&str] = &[
    // Core.
    "abs",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "format",
    "glob",
    "hex",
    "if",
    "ifnull",
    "iif",
    "instr",
    "length",
    "like",
    "likelihood",
    "likely",
    "lower",
    "ltrim",
    "match",
    "max",
    "min",
    "nullif",
    "octet_length",
    "printf",
    "quote",
    "regexp",
    "replace",
    "round",
    "rtrim",
    "sign",
    "soundex",
    "substr",
    "substring",
    "trim",
    "typeof",
    "unhex",
    "unicode",
    "unistr",
    "unistr_quote",
    "unlikely",
    "upper",
    "zeroblob",
    "subtype",
    // Of the library itself.
    "sqlite_version",
    "sqlite_source_id",
    "sqlite_compileoption_get",
    "sqlite_compileoption_used",
    // Time, randomness, connection.
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "julianday",
    "strftime",
    "time",
    "timediff",
    "unixepoch",
    "random",
    "randomblob",
    "last_insert_rowid",
    "changes",
    // Aggregates and windows.
    "avg",
    "count",
    "group_concat",
    "string_agg",
    "sum",
    "total",
    "median",
    "percentile",
    "percentile_cont",
    "percentile_disc",
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
    "first_value",
    "last_value",
    "nth_value",
    // JSON.
    "->",
    "->>",
    "json",
    "jsonb",
    "json_array",
    "jsonb_array",
    "json_array_insert",
    "jsonb_array_insert",
    "json_array_length",
    "json_error_position",
    "json_extract",
    "jsonb_extract",
    "json_group_array",
    "jsonb_group_array",
    "json_group_object",
    "jsonb_group_object",
    "json_insert",
    "jsonb_insert",
    "json_object",
    "jsonb_object",
    "json_patch",
    "jsonb_patch",
    "json_pretty",
    "json_quote",
    "json_remove",
    "jsonb_remove",
    "json_replace",
    "jsonb_replace",
    "json_set",
    "jsonb_set",
    "json_type",
    "json_valid",
    // Mathematics, where SQLite is built with it.
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "ceil",
    "ceiling",
    "cos",
    "cosh",
    "degrees",
    "exp",
    "floor",
    "ln",
    "log",
    "log10",
    "log2",
    "mod",
    "pi",
    "pow",
    "power",
    "radians",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
    // Full text and R-tree.
    "bm25",
    "highlight",
    "snippet",
    "fts5_get_locale",
    "fts5_locale",
    "fts5_insttoken",
    "matchinfo",
    "offsets",
    "optimize",
    "rtreedepth",
    "rtreenode",
];

/// Functions that take a full-text table by the hidden column of its name.
pub(crate) const FULL_TEXT_FUNCTIONS: &[&str] =
    &["bm25", "highlight", "snippet", "fts5_get_locale", "matchinfo", "offsets", "optimize"];

/// Tables that are functions of their arguments alone.
pub(crate) const TABLE_FUNCTIONS: &[&str] = &["json_each", "json_tree", "jsonb_each", "jsonb_tree"];

/// Virtual-table modules that reach nothing but their own tables and those that their options name.
pub(crate) const MODULES: &[&str] = &["fts3", "fts4", "fts5", "fts5vocab", "rtree", "rtree_i32"];

/// The endings of the tables in which a virtual table of a module stores its content, after its own
/// name: SQLite itself recognises such tables by them.
pub(crate) fn shadow_endings(module: &str) -> &'static [&'static str] {
    match module.to_ascii_lowercase().as_str() {
        "fts5" => &["_data", "_idx", "_content", "_docsize", "_config"],
        "fts3" | "fts4" => &["_content", "_segments", "_segdir", "_docsize", "_stat"],
        "rtree" | "rtree_i32" => &["_node", "_rowid", "_parent"],
        _ => &[],
    }
}

/// The endings of all modules; some occur more than once.
pub(crate) fn all_shadow_endings() -> impl Iterator<Item = &'static str> {
    MODULES.iter().flat_map(|module| shadow_endings(module)).copied()
}

/// Whether a table may be one in which a virtual table stores its content, by its name.
pub(crate) fn may_be_shadow_table(table: &str) -> bool {
    all_shadow_endings().any(|ending| table.ends_with(ending))
}

/// PRAGMAs that a user may send: those that describe the schema, and the two numbers in the header,
/// which may be set too. The catalogue answers them, except `foreign_key_check`, which reads the
/// data.
///
/// A name in this list is let through with a value as well as without. SQLite carries some PRAGMAs
/// out while it compiles them, before the rewriter sees them: a value that must not be set has to
/// be refused in `refuse_pragma` of `catalogue/recorder.rs`, the catalogue's authorizer.
pub(crate) const PRAGMAS: &[&str] = &[
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
    "application_id",
];

/// PRAGMAs that full-text and R-tree tables use themselves. They reveal nothing of interest.
pub(crate) const MODULE_PRAGMAS: &[&str] = &["data_version", "page_size"];

/// SQLite's tables that describe the schema, for which the catalogue answers.
pub(crate) const SCHEMA_TABLES: &[&str] =
    &["sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"];

/// Whether a table is one of those that ANALYZE writes.
pub(crate) fn is_statistics(table: &str) -> bool {
    starts_with_ignore_case(table, "sqlite_stat")
}

/// Functions that ALTER TABLE runs on the schema's texts.
pub(crate) const ALTER_FUNCTIONS: &[&str] = &[
    "sqlite_rename_column",
    "sqlite_rename_table",
    "sqlite_rename_test",
    "sqlite_drop_column",
    "sqlite_rename_quotefix",
    "sqlite_add_constraint",
    "sqlite_drop_constraint",
    "sqlite_find_constraint",
    "sqlite_fail",
    "raise",
];

/// Functions of time: the positions of their time values among the arguments, from 0.
pub(crate) fn time_arguments(function: &str) -> Option<&'static [usize]> {
    const LIST: &[(&str, &[usize])] = &[
        ("date", &[0]),
        ("time", &[0]),
        ("datetime", &[0]),
        ("julianday", &[0]),
        ("unixepoch", &[0]),
        ("strftime", &[1]),
        ("timediff", &[0, 1]),
    ];
    LIST.iter().find(|(name, _)| name.eq_ignore_ascii_case(function)).map(|(_, places)| *places)
}

/// Functions that return the connection's counters.
pub(crate) fn is_counter(function: &str) -> bool {
    is_one_of(&["last_insert_rowid", "changes"], function)
}

/// Non-deterministic functions: a view or trigger that calls one needs
/// [`MOMENT_SET`](crate::MOMENT_SET).
pub(crate) fn is_nondeterministic(function: &str) -> bool {
    const MORE: &[&str] = &["current_date", "current_time", "current_timestamp"];
    time_arguments(function).is_some() || is_one_of(MORE, function)
}

/// Why a PRAGMA is not allowed.
pub(crate) fn pragma_not_allowed_message(name: &str) -> String {
    if is_same_name(name, "legacy_alter_table") {
        return "PRAGMA legacy_alter_table is not allowed: renaming a table updates everything that names it. To recreate a table \
                anew, keep its references from being looked at with PRAGMA foreign_keys = OFF in the same transaction, and drop \
                the views and triggers that name it first"
            .to_owned();
    }
    format!(
        "PRAGMA {name} is not allowed; these are: {}, and in a transaction call, as statements of their own, foreign_keys, \
         defer_foreign_keys, and writable_schema around what a sqlite3 shell has dumped",
        PRAGMAS.join(", ")
    )
}

/// Why transaction control is not allowed.
pub(crate) const NO_TRANSACTIONS: &str = "BEGIN, COMMIT, ROLLBACK, SAVEPOINT and RELEASE are not allowed: send the \
    statements of a transaction together in one transaction call";

/// Why other databases are not allowed.
pub(crate) const NO_ATTACH: &str = "ATTACH, DETACH and VACUUM are not allowed";

/// Why temporary objects are not allowed.
pub(crate) const NO_TEMPORARY: &str = "temporary tables, views, indexes and triggers are not allowed: they would belong \
    to a connection, and connections are shared";
