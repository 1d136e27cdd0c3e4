//! Namespaces as objects: those in which a wallet has a role, and deleting one.
//!
//! A deletion takes the rows of the system's tables first, in one transaction, and leaves the
//! namespace's own row behind as a tombstone, without an owner: as long as data is there, it gets
//! no other owner. The row goes last. A node that stops in between finishes the data when its
//! engine opens, and the row when this service starts. A tombstone that has data then becomes the
//! operator's.

use super::auth_db::{RowColumns as _, SqlCondition, statement_if};
use super::credential_verifier::invalid_credential;
use super::membership::OPERATOR;
use super::{AuthService, audit};
use crate::caller::VerifiedIdentity;
use debros_auth::{Role, Wallet};
use debros_proto::rpc::{Row, Statement};
use debros_proto::{Code, Error, Namespace, Result};
use std::time::{Duration, Instant};

/// The owner of a namespace whose data is being deleted.
pub(super) const DELETED_OWNER: &str = "";

/// The stored row of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceRecord {
    pub(crate) namespace: Namespace,
    /// A wallet, or "operator".
    pub(crate) owner: String,
    /// Milliseconds since the Unix epoch; 0: not known.
    pub(crate) created_at: i64,
    /// The role of the wallet in the request.
    pub(crate) role: Option<Role>,
}

/// A part of a list in order of name.
#[derive(Clone, Debug)]
pub(crate) struct PageRequest {
    /// Only names that start with this.
    pub(crate) prefix: String,
    /// Only names after this one.
    pub(crate) after: String,
    /// At most so many.
    pub(crate) limit: usize,
}

/// For how long another node believes a credential that it has verified, and ends the streams of one
/// that is not valid any more, at most.
const BELIEVED_BY_OTHERS: Duration = Duration::from_secs(5);

impl AuthService {
    /// The namespaces that a wallet owns or has a role in, and `own`.
    pub(crate) async fn list_namespaces(
        &self,
        wallet: Option<Wallet>,
        own: &Namespace,
        page: &PageRequest,
    ) -> Result<Vec<NamespaceRecord>> {
        let wallet = wallet.map(|wallet| wallet.to_string());
        let sql = format!(
            "SELECT n.name, n.owner, n.created_at, {} FROM namespaces n WHERE n.name IN (SELECT name FROM namespaces \
             WHERE owner = ?1 UNION SELECT namespace FROM grants WHERE wallet = ?1 UNION SELECT ?2) AND n.name > ?3 \
             AND substr(n.name, 1, length(?4)) = ?4 AND n.owner <> '{DELETED_OWNER}' ORDER BY n.name LIMIT ?5",
            super::role_column("n.name", "?1")
        );
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        let args = [
            wallet.into(),
            own.as_str().into(),
            page.after.as_str().into(),
            page.prefix.as_str().into(),
            limit.into(),
        ];
        let rows = self.auth_db.query_rows(Statement::new(sql, args)).await?;
        rows.iter().map(|row| self.record_from_row(row)).collect()
    }

    /// The stored row of a namespace; `None` when it has no owner.
    pub(crate) async fn namespace_record(
        &self,
        namespace: &Namespace,
    ) -> Result<Option<NamespaceRecord>> {
        let sql = format!(
            "SELECT name, owner, created_at, '' FROM namespaces WHERE name = ? AND owner <> '{DELETED_OWNER}'"
        );
        let rows =
            self.auth_db.query_rows(Statement::new(sql, [namespace.as_str().into()])).await?;
        rows.first().map(|row| self.record_from_row(row)).transpose()
    }

    fn record_from_row(&self, row: &Row) -> Result<NamespaceRecord> {
        let namespace = Namespace::new(row.text(0))?;
        let role = self.auth_db.role_from_column(&namespace, row.text(3));
        Ok(NamespaceRecord {
            namespace,
            owner: row.text(1).to_owned(),
            created_at: row.integer(2),
            role,
        })
    }

    /// Passes when the namespace is there for callers: it is not being deleted.
    pub(crate) fn check_not_deleting(&self, namespace: &Namespace) -> Result<()> {
        self.auth_db.deleting.check_not_deleting(namespace)
    }

    /// Passes when the caller may delete the namespace that it is in.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) async fn check_may_delete(
        &self,
        by: &VerifiedIdentity,
        namespace: &Namespace,
    ) -> Result<()> {
        if by.role >= Role::Owner {
            return Ok(());
        }
        let operators =
            self.namespace_record(namespace).await?.is_none_or(|known| known.owner == OPERATOR);
        let message = if operators {
            format!(
                "the namespace \"{namespace}\" belongs to the node's operator: only the operator deletes it"
            )
        } else {
            format!(
                "the namespace \"{namespace}\" is deleted by its owner alone, signed in with the wallet that owns it; this \
                 credential's role is {}",
                by.role
            )
        };
        Err(Error::new(Code::Forbidden, message))
    }

    /// Deletes a namespace with everything in it. `end` ends what is open in it; it is called when
    /// no credential of the namespace is valid any more, and before a new one can be. A deletion
    /// that has not begun by `deadline`, when its caller gets an error, does not begin.
    ///
    /// # Errors
    /// `deadline_exceeded`: nothing was deleted; and what the engine says.
    pub(crate) async fn delete_namespace(
        &self,
        by: &VerifiedIdentity,
        namespace: &Namespace,
        deadline: Instant,
        end: impl FnOnce() + Send,
    ) -> Result<()> {
        // The engine deletes one at a time, and would refuse the others.
        let _one = tokio::time::timeout_at(deadline.into(), self.deletions.lock()).await.map_err(|_| {
            let message = format!(
                "other namespaces were being deleted until the deadline: nothing of \"{namespace}\" was deleted; try again"
            );
            Error::new(Code::DeadlineExceeded, message)
        })?;
        let _left = self.auth_db.deleting.begin_deletion(namespace);
        let deleted = self
            .auth_db
            .engine
            .delete_namespace(namespace, self.deletion_statements(by, namespace), deadline)
            .await;
        // Also when it failed: it may have failed late.
        self.credentials.invalidations.invalidate_namespace(namespace);
        self.owned.remove(namespace);
        match deleted {
            Err(error) if error.code == Code::Constraint => return Err(invalid_credential()),
            // Which statement of ours it was is nothing to a caller.
            Err(error) => return Err(Error { statement: None, ..error }),
            Ok(()) => {}
        }
        end();
        if self.auth_db.is_shared {
            // Another node may let a caller in until its last look at the credential is too old.
            // What such a caller wrote goes as well, before the name is another's.
            tokio::time::sleep(BELIEVED_BY_OTHERS).await;
            let deadline = Instant::now() + BELIEVED_BY_OTHERS;
            self.auth_db.engine.delete_namespace(namespace, Vec::new(), deadline).await?;
        }
        // With what was under way when the namespace was shut, and came after its rows went.
        let mut last = delete_row_statements(namespace);
        last.push(Statement::new(
            format!("DELETE FROM namespaces WHERE name = ? AND owner = '{DELETED_OWNER}'"),
            [namespace.as_str().into()],
        ));
        self.auth_db.run_transaction(last).await?;
        tracing::info!(%namespace, by = by.subject, "a namespace was deleted");
        Ok(())
    }

    /// Frees the names of namespaces whose deletion was interrupted: their data went when the
    /// engine opened. A name that has data all the same becomes the operator's, and not the first
    /// wallet's that signs in; one that cannot be looked into stays taken.
    pub(super) async fn free_deleted_names(&self) -> Result<()> {
        // Another node may be deleting it at this moment. Deleting it again frees the name.
        if self.auth_db.is_shared {
            return Ok(());
        }
        let _none_now = self.deletions.lock().await;
        let names = format!("SELECT name FROM namespaces WHERE owner = '{DELETED_OWNER}'");
        for row in self.auth_db.query_rows(names.as_str().into()).await? {
            let name = row.text(0);
            let holds = match self.holds_data(&Namespace::new(name)?).await {
                Ok(holds) => holds,
                Err(error) => {
                    tracing::warn!(
                        namespace = name,
                        error = error.message,
                        "whether a deleted namespace holds data is not known; its name stays taken"
                    );
                    continue;
                }
            };
            let statement = if holds {
                tracing::warn!(
                    namespace = name,
                    "a namespace that was being deleted holds data; it is the operator's now"
                );
                let sql = format!(
                    "UPDATE namespaces SET owner = ? WHERE name = ? AND owner = '{DELETED_OWNER}'"
                );
                Statement::new(sql, [OPERATOR.into(), name.into()])
            } else {
                Statement::new(
                    format!("DELETE FROM namespaces WHERE name = ? AND owner = '{DELETED_OWNER}'"),
                    [name.into()],
                )
            };
            self.auth_db.run_transaction(vec![statement]).await?;
        }
        Ok(())
    }

    /// Whether a namespace has a database or key-value pairs.
    async fn holds_data(&self, namespace: &Namespace) -> Result<bool> {
        let engine = &self.auth_db.engine;
        let pairs = engine.kv_list(namespace, "", None, 1, super::auth_db::call_options()).await?;
        Ok(!pairs.keys.is_empty()
            || engine.namespace_info(namespace, super::auth_db::call_options()).await?.sql_bytes
                > 0)
    }

    /// What happens to the system's tables in the deletion's first transaction. It does no harm
    /// when it runs again: the tombstone is there then.
    fn deletion_statements(&self, by: &VerifiedIdentity, namespace: &Namespace) -> Vec<Statement> {
        let now = self.auth_db.clock.now_ms();
        let first_time = || {
            SqlCondition::new(
                format!(
                    "NOT EXISTS (SELECT 1 FROM namespaces WHERE name = ? AND owner = '{DELETED_OWNER}')"
                ),
                [namespace.as_str().into()],
            )
        };
        let allowed = self.authority_condition(by, namespace, Role::Owner);
        let refused =
            first_time().and(SqlCondition::new(format!("NOT ({})", allowed.sql), allowed.args));
        let mut statements = vec![
            // A list cannot branch. A row that no table takes fails it as a whole, when the caller
            // may not do this now: it lost the namespace in the moment before, to a deletion and
            // the next owner.
            statement_if(
                "INSERT INTO namespaces (name, created_at) SELECT NULL, 0 WHERE",
                [],
                refused,
            ),
            audit::insert_event_if(
                "namespace_deleted",
                namespace,
                &by.subject,
                "",
                now,
                first_time(),
            ),
            Statement::new(
                format!(
                    "INSERT INTO namespaces (name, created_at, owner) VALUES (?, ?, '{DELETED_OWNER}') \
                     ON CONFLICT (name) DO UPDATE SET owner = '{DELETED_OWNER}'"
                ),
                [namespace.as_str().into(), now.into()],
            ),
        ];
        statements.extend(delete_row_statements(namespace));
        statements
    }
}

/// Deletes everything that the system's tables hold for a namespace, except for its own row and the
/// audit's.
fn delete_row_statements(namespace: &Namespace) -> Vec<Statement> {
    let of_namespace = |sql: &str| Statement::new(sql, [namespace.as_str().into()]);
    vec![
        of_namespace(
            "DELETE FROM refresh_tokens WHERE session IN (SELECT id FROM sessions WHERE namespace = ?)",
        ),
        of_namespace("DELETE FROM sessions WHERE namespace = ?"),
        of_namespace("DELETE FROM api_keys WHERE namespace = ?"),
        of_namespace("DELETE FROM grants WHERE namespace = ?"),
        of_namespace("DELETE FROM apps WHERE namespace = ?"),
    ]
}
