//! Namespaces as things.

use crate::{Client, Error, Result, expect_answer};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, NamespaceInfo};

/// The namespaces that the caller may see: listed, described and deleted.
#[derive(Clone, Copy, Debug)]
pub struct Namespaces<'a> {
    pub(crate) client: &'a Client,
}

/// A part of the list of namespaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespacePage {
    /// In order of name.
    pub namespaces: Vec<NamespaceInfo>,
    /// Whether more follow: ask again for those after [`next`](NamespacePage::next). A page may be
    /// shorter than its limit, and empty.
    pub more: bool,
    /// The last name that was looked at, if more follow; else empty.
    pub next: String,
}

impl Namespaces<'_> {
    /// The namespaces in which the caller's wallet is owner or has a role; for a key that does not
    /// manage its namespace only that one; for operators all. Those whose names start with `prefix`
    /// and come after `after`, at most `limit` (0: 100, at most 1,000), in order of name.
    ///
    /// # Errors
    /// `invalid_argument`, `unauthenticated`.
    pub async fn list(
        &self,
        prefix: impl Into<String>,
        after: impl Into<String>,
        limit: u32,
    ) -> Result<NamespacePage> {
        let request =
            rpc::ListNamespacesRequest { prefix: prefix.into(), after: after.into(), limit };
        let answer =
            expect_answer!(self.client.call(Call::ListNamespaces(request)).await?, ListNamespaces)?;
        let last = || answer.namespaces.last().map(|last| last.name.clone()).unwrap_or_default();
        // Nodes of earlier versions do not say it.
        let next = if answer.more && answer.next.is_empty() { last() } else { answer.next };
        Ok(NamespacePage { namespaces: answer.namespaces, more: answer.more, next })
    }

    /// What the caller's namespace holds.
    ///
    /// # Errors
    /// `not_found` when it has not been used yet, `unauthenticated`.
    pub async fn get(&self) -> Result<NamespaceInfo> {
        let answer = self.client.call(Call::GetNamespace(rpc::GetNamespaceRequest {})).await?;
        expect_answer!(answer, Namespace)?.namespace.ok_or_else(missing_namespace_error)
    }

    /// Deletes the caller's namespace with everything in it: tables, key-value pairs, topics,
    /// applications, API keys, members, sessions, the caller's own too. `confirm` is its name once
    /// more. Returns what it held. For its owner's session, and for operators.
    ///
    /// # Errors
    /// `forbidden`, `invalid_argument` when the confirmation is another name, `conflict` while a
    /// backup or restore runs. After `unknown_outcome` the credential shows it: when it is not
    /// valid any more, the namespace is gone.
    pub async fn delete(&self, confirm: impl Into<String>) -> Result<NamespaceInfo> {
        let request = rpc::DeleteNamespaceRequest { confirm: confirm.into() };
        let answer = self.client.call(Call::DeleteNamespace(request)).await?;
        expect_answer!(answer, DeleteNamespace)?.deleted.ok_or_else(missing_namespace_error)
    }
}

fn missing_namespace_error() -> Error {
    Error::internal("the node answered without the namespace")
}
