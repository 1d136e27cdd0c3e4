//! What a wallet may do in a namespace: as its owner, by a grant, or because the namespace is open
//! to all.

use super::auth_db::{AuthDb, RowColumns as _, SqlCondition, statement_if};
use crate::auth::audit;
use debros_auth::{Role, Wallet};
use debros_proto::rpc::{Statement, Value};
use debros_proto::{Code, Error, Namespace, Result};

/// The owner of namespaces that the node's operator holds.
pub(crate) const OPERATOR: &str = "operator";

/// A column with the role that the wallet in column `wallet` has in the namespace of column
/// `namespace`: "owner", a granted role, or NULL.
pub(crate) fn role_column(namespace: &str, wallet: &str) -> String {
    format!(
        "CASE WHEN (SELECT owner FROM namespaces WHERE name = {namespace}) = {wallet} THEN 'owner' ELSE \
         (SELECT role FROM grants WHERE grants.namespace = {namespace} AND grants.wallet = {wallet}) END"
    )
}

/// What a wallet is in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WalletMembership {
    /// It may act.
    Member(Role),
    /// The namespace has no owner: the first wallet to sign in becomes it.
    Unclaimed,
    /// The namespace has another owner.
    Stranger,
}

impl AuthDb {
    /// The role that the value of a [`role_column`] stands for.
    pub(crate) fn role_from_column(&self, namespace: &Namespace, column: &str) -> Option<Role> {
        match column {
            // All wallets are equal there, the owner from before it was opened too.
            _ if self.is_open(namespace) => Some(Role::Writer),
            "owner" => Some(Role::Owner),
            granted => Role::parse(granted).ok(),
        }
    }

    /// What a wallet is in a namespace now.
    pub(super) async fn membership(
        &self,
        wallet: Wallet,
        namespace: &Namespace,
    ) -> Result<WalletMembership> {
        if self.is_open(namespace) {
            return Ok(WalletMembership::Member(Role::Writer));
        }
        let sql = format!(
            "SELECT {}, EXISTS (SELECT 1 FROM namespaces WHERE name = ?1)",
            role_column("?1", "?2")
        );
        let rows = self
            .query_rows(Statement::new(sql, [namespace.as_str().into(), wallet.to_string().into()]))
            .await?;
        let (role, owned) =
            rows.first().map_or(("", false), |row| (row.text(0), row.integer(1) == 1));
        Ok(match self.role_from_column(namespace, role) {
            Some(role) => WalletMembership::Member(role),
            None if owned => WalletMembership::Stranger,
            None => WalletMembership::Unclaimed,
        })
    }

    /// Whether a wallet has at least this role in a namespace, as a condition inside a transaction.
    pub(super) fn has_role_condition(
        &self,
        wallet: Wallet,
        namespace: &Namespace,
        least: Role,
    ) -> SqlCondition {
        if self.is_open(namespace) {
            return if least <= Role::Writer {
                SqlCondition::always()
            } else {
                SqlCondition::never()
            };
        }
        let args = || -> [Value; 2] { [namespace.as_str().into(), wallet.to_string().into()] };
        let owns = SqlCondition::new(
            "EXISTS (SELECT 1 FROM namespaces WHERE name = ? AND owner = ?)",
            args(),
        );
        let granted = match least {
            Role::Reader => "'reader', 'writer', 'admin'",
            Role::Writer => "'writer', 'admin'",
            Role::Admin => "'admin'",
            Role::Owner => return owns,
            Role::Operator => return SqlCondition::never(),
        };
        let sql = format!(
            "EXISTS (SELECT 1 FROM grants WHERE namespace = ? AND wallet = ? AND role IN ({granted}))"
        );
        owns.or(SqlCondition::new(sql, args()))
    }

    /// Makes the wallet the owner of a namespace without one. Part of a transaction that enters the
    /// namespace, after the statement that uses the nonce up: when that fails, the claim goes with
    /// it.
    ///
    /// An open namespace goes to the operator: on the day that it is no longer open, what many
    /// wrote there must not become the first one's.
    pub(super) fn claim_statements(
        &self,
        wallet: Wallet,
        namespace: &Namespace,
        now: i64,
    ) -> [Statement; 2] {
        if self.is_open(namespace) {
            return claim_statements_for(OPERATOR, namespace, now);
        }
        claim_statements_for(&wallet.to_string(), namespace, now)
    }
}

/// Gives a namespace without an owner to `owner`, with an audit event.
pub(super) fn claim_statements_for(owner: &str, namespace: &Namespace, now: i64) -> [Statement; 2] {
    let free = SqlCondition::new(
        "NOT EXISTS (SELECT 1 FROM namespaces WHERE name = ?)",
        [namespace.as_str().into()],
    );
    [
        audit::insert_event_if("namespace_claimed", namespace, owner, "", now, free.clone()),
        statement_if(
            "INSERT INTO namespaces (name, created_at, owner) SELECT ?, ?, ? WHERE",
            [namespace.as_str().into(), now.into(), owner.into()],
            free,
        ),
    ]
}

/// The wallet has no role there. Whether another wallet or the node's operator has the name is
/// nothing to a stranger.
pub(super) fn namespace_forbidden(namespace: &Namespace) -> Error {
    Error::new(
        Code::Forbidden,
        format!(
            "the namespace \"{namespace}\" belongs to somebody else: its owner can grant you a role"
        ),
    )
}
