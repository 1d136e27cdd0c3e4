//! The names of databases, as nodes send them to each other and as they are in the log.

use debros_engine::TargetDatabase;
use debros_proto::{Namespace, Result};

/// The name of a database: its namespace's; empty: the system's.
pub(crate) fn name_of(database: &TargetDatabase) -> &str {
    match database {
        TargetDatabase::System => "",
        TargetDatabase::Namespace(namespace) => namespace.as_str(),
    }
}

/// The database of a name.
///
/// # Errors
/// `invalid_argument` when it is no namespace's.
pub(crate) fn database_of(name: &str) -> Result<TargetDatabase> {
    if name.is_empty() {
        Ok(TargetDatabase::System)
    } else {
        namespace_of(name).map(TargetDatabase::Namespace)
    }
}

/// The namespace of a name; a node has one for itself beside those that users may name.
///
/// # Errors
/// `invalid_argument` when it is none.
pub(crate) fn namespace_of(name: &str) -> Result<Namespace> {
    let internal = Namespace::internal();
    if name == internal.as_str() { Ok(internal) } else { Namespace::new(name) }
}
