//! An authorizer that refuses nothing and sees everything: what a rewritten statement touches that
//! it should not. Written apart from the policy, so that a mistake there is not made here too.

use rusqlite::hooks::{AuthAction, AuthContext};

/// Why an access is an escape from `ns::acme::`, or `None`.
pub fn escape(
    context: &AuthContext<'_>,
    ddl: bool,
    sequence: bool,
    statistics: bool,
) -> Option<String> {
    let names: Vec<&str> = match context.action {
        AuthAction::Read { table_name, .. } if is_schema(table_name) => {
            return (!ddl).then(|| format!("{context:?}"));
        }
        AuthAction::Read { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => match table_name {
            "sqlite_sequence" if sequence || ddl => return None,
            name if name.starts_with("sqlite_stat") && (statistics || ddl) => return None,
            name if is_schema(name) && ddl => return None,
            name => vec![name],
        },
        AuthAction::CreateTable { table_name } if table_name.starts_with("sqlite_") => return None,
        AuthAction::CreateTable { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::Analyze { table_name }
        | AuthAction::CreateVtable { table_name, .. }
        | AuthAction::DropVtable { table_name, .. } => vec![table_name],
        AuthAction::CreateIndex { index_name, table_name }
        | AuthAction::DropIndex { index_name, table_name } => {
            vec![index_name.trim_start_matches("sqlite_autoindex_"), table_name]
        }
        AuthAction::CreateTrigger { trigger_name, table_name }
        | AuthAction::DropTrigger { trigger_name, table_name } => vec![trigger_name, table_name],
        AuthAction::CreateView { view_name } | AuthAction::DropView { view_name } => {
            vec![view_name]
        }
        AuthAction::Reindex { index_name } => {
            vec![index_name.trim_start_matches("sqlite_autoindex_")]
        }
        AuthAction::Pragma { pragma_name, pragma_value } => match pragma_name {
            "foreign_key_check" | "quick_check" => vec![pragma_value.unwrap_or("")],
            "data_version" | "page_size" if pragma_value.is_none() => return None,
            _ => return Some(format!("{context:?}")),
        },
        AuthAction::Select | AuthAction::Recursive => return None,
        AuthAction::Function { function_name } => {
            let bad =
                ["load_extension", "fts3_tokenizer", "total_changes", "rtreecheck", "sqlite_log"];
            return bad.contains(&function_name).then(|| format!("{context:?}"));
        }
        _ => return Some(format!("{context:?}")),
    };
    let fine = |name: &str| {
        let lower = name.to_ascii_lowercase();
        lower.starts_with("ns::acme::")
            || lower.starts_with("sqlite_altertab_ns::acme::")
            || (lower.starts_with("json") && (lower.ends_with("_each") || lower.ends_with("_tree")))
            || lower == "_debros_moment"
            || lower == "pragma_foreign_key_check"
            || lower == "pragma_quick_check"
            // A CTE or subquery: no table of the database has a name without the prefix, but for
            // `plain_table`.
            || (matches!(context.action, AuthAction::Read { .. })
                && !lower.contains("::")
                && !lower.starts_with("_debros_")
                && !lower.starts_with("sqlite_")
                && !lower.starts_with("pragma_")
                && !["plain_table", "dbstat", "bytecode", "tables_used", "completion", "fts3tokenize"].contains(&lower.as_str()))
    };
    names.iter().any(|name| !fine(name)).then(|| format!("{context:?}"))
}

fn is_schema(name: &str) -> bool {
    ["sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"].contains(&name)
}
