//! The environment variables that several commands read.

/// The data folder of a node on this machine.
pub(super) const DATA_DIR: &str = "DEBROS_NODE_DATA_DIR";

/// The value of a variable; an empty value counts as none.
pub(super) fn env_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
