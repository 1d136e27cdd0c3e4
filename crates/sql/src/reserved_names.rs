//! Names that a user's tables, indexes, views and triggers cannot have.

use crate::allowed::{TABLE_FUNCTIONS, all_shadow_endings};
use crate::names::{INTERNAL_PREFIX, is_one_of, starts_with_ignore_case};
use debros_proto::{Code, Error, Result};

/// Refuses names with a meaning of their own: the system's, and those of SQLite's tables that are
/// functions.
pub(crate) fn check_new_name(name: &str) -> Result<()> {
    let reserved = ["ns::", INTERNAL_PREFIX, "pragma_"]
        .into_iter()
        .find(|start| starts_with_ignore_case(name, start));
    if let Some(start) = reserved {
        return Err(Error::new(
            Code::StatementNotAllowed,
            format!("names that start with {start} are reserved"),
        ));
    }
    if is_one_of(TABLE_FUNCTIONS, name) {
        return Err(Error::new(
            Code::StatementNotAllowed,
            format!("the name {name} is reserved for the table function of that name"),
        ));
    }
    Ok(())
}

/// As [`check_new_name`] for a virtual table, with the names of the tables in which it stores its
/// content.
pub(crate) fn check_new_virtual_table(name: &str) -> Result<()> {
    check_new_name(name)?;
    let is_internal =
        |ending: &str| starts_with_ignore_case(&format!("{name}{ending}"), INTERNAL_PREFIX);
    if all_shadow_endings().any(is_internal) {
        return Err(Error::new(
            Code::StatementNotAllowed,
            format!(
                "a virtual table cannot be named {name}: the tables behind it would have names that start with \
                 {INTERNAL_PREFIX}"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check_new_name, check_new_virtual_table};

    #[test]
    fn the_tables_behind_a_virtual_one_have_no_reserved_names() {
        for name in ["_debros", "_DEBROS", "_debros_x"] {
            assert!(check_new_virtual_table(name).is_err(), "{name}");
        }
        for name in ["_debro", "_debros2", "debros", "x_debros"] {
            check_new_virtual_table(name).unwrap();
        }
        check_new_name("_debros").unwrap();
    }
}
