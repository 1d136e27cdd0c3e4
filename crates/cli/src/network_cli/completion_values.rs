//! Values that completion offers to the shell: from lists in the program, and from files on this
//! machine. No node is asked, since the shell waits for the answer at every Tab; a file that cannot
//! be read offers nothing.

use super::environment::{DATA_DIR, env_variable};
use crate::credentials::{CredentialFile, StoredCredential};
use crate::local_node;
use clap_complete::CompletionCandidate;
use debros_auth::Scopes;
use std::collections::BTreeSet;

/// Scopes of API keys.
pub(super) fn scopes() -> Vec<CompletionCandidate> {
    Scopes::known().map(CompletionCandidate::new).collect()
}

/// Wallets that are stored, of all nodes.
pub(super) fn wallets() -> Vec<CompletionCandidate> {
    stored(|entry| Some(entry.wallet).filter(|wallet| !wallet.is_empty()))
}

/// The same, and the operator where one of its keys is stored.
pub(super) fn wallets_and_operator() -> Vec<CompletionCandidate> {
    stored(|entry| Some(entry.display_name().to_owned()))
}

/// Namespaces for which something is stored, of all nodes.
pub(super) fn namespaces() -> Vec<CompletionCandidate> {
    stored(|entry| Some(entry.namespace))
}

/// Backups of the nodes of this machine, the newest first, where the user may look into their
/// folders.
pub(super) fn backups() -> Vec<CompletionCandidate> {
    let folders = local_node::data_dirs(env_variable(DATA_DIR).as_deref())
        .into_iter()
        .filter_map(|dir| std::fs::read_dir(dir.join("backups")).ok());
    let names =
        folders.flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let names: BTreeSet<String> =
        names.filter(|name| debros_engine::embedded::is_backup_name(name)).collect();
    let newest_first = names.into_iter().rev().enumerate();
    newest_first
        .map(|(order, name)| CompletionCandidate::new(name).display_order(Some(order)))
        .collect()
}

/// Addresses of the nodes of this machine.
pub(super) fn nodes() -> Vec<CompletionCandidate> {
    local_node::local_nodes(env_variable(DATA_DIR).as_deref())
        .into_iter()
        .map(|node| CompletionCandidate::new(node.address))
        .collect()
}

fn stored(value: impl Fn(StoredCredential) -> Option<String>) -> Vec<CompletionCandidate> {
    let entries = CredentialFile::in_home()
        .and_then(|credential_file| credential_file.entries())
        .unwrap_or_default();
    let values: BTreeSet<String> = entries.into_iter().filter_map(value).collect();
    values.into_iter().map(CompletionCandidate::new).collect()
}
