//! Who may act in a namespace: its owner, and wallets with a granted role.

use super::standing::OPERATOR;
use super::store::{Columns as _, Condition, changed, only_if};
use super::{Auth, audit};
use crate::caller::Identity;
use crate::credentials::invalid_credential;
use debros_auth::{Role, Wallet};
use debros_proto::rpc::{Member, Statement, Value};
use debros_proto::{Code, Error, Namespace, Result};

/// What a wallet is in a namespace before something changes.
struct Present {
    /// The wallet owns it.
    owns: bool,
    granted: Option<Role>,
}

impl Auth {
    /// The owner, then the others in order of their wallets.
    pub(crate) async fn members(&self, namespace: &Namespace) -> Result<Vec<Member>> {
        let statement = Statement::new(
            "SELECT owner, 'owner', '', created_at, 0 AS place FROM namespaces WHERE name = ?1 \
             UNION ALL SELECT wallet, role, granted_by, created_at, 1 FROM grants WHERE namespace = ?1 ORDER BY 5, 1",
            [namespace.as_str().into()],
        );
        let rows = self.store.rows(statement).await?;
        let member = |row: &debros_proto::rpc::Row| Member {
            wallet: row.text(0).to_owned(),
            role: row.text(1).to_owned(),
            granted_by: row.text(2).to_owned(),
            created_at: row.integer(3),
        };
        Ok(rows.iter().map(member).collect())
    }

    /// Gives a wallet a role in place of the one that it had.
    pub(crate) async fn grant(
        &self,
        by: &Identity,
        namespace: &Namespace,
        wallet: Wallet,
        role: Role,
    ) -> Result<Member> {
        if self.store.is_open(namespace) {
            return Err(Error::new(
                Code::Conflict,
                format!(
                    "the namespace \"{namespace}\" is open: every wallet is a writer there, and roles are not given"
                ),
            ));
        }
        self.check_change(by, namespace, wallet, Some(role)).await?;
        let now = self.store.clock.now_ms();
        let (whom, who) = (wallet.to_string(), by_whom(by));
        let key = || -> [Value; 2] { [namespace.as_str().into(), whom.as_str().into()] };
        let allowed = self.may_change(by, namespace, wallet, Some(role));
        let granted = Condition::new(
            "EXISTS (SELECT 1 FROM grants WHERE namespace = ? AND wallet = ? AND role = ? AND granted_by = ? \
             AND created_at = ?)",
            key().into_iter().chain([role.name().into(), who.as_str().into(), now.into()]),
        );
        let mut insert = only_if(
            "INSERT INTO grants (namespace, wallet, role, granted_by, created_at) SELECT ?, ?, ?, ?, ? WHERE",
            key().into_iter().chain([role.name().into(), who.as_str().into(), now.into()]),
            allowed,
        );
        insert.sql.push_str(
            " ON CONFLICT (namespace, wallet) DO UPDATE SET role = excluded.role, granted_by = excluded.granted_by, \
             created_at = excluded.created_at",
        );
        let detail = format!("{whom} {role}");
        let statements = vec![insert, audit::event_if("grant", namespace, &by.subject, &detail, now, granted)];
        let results = self.store.write(statements).await?;
        if !changed(&results, 0) {
            return Err(invalid_credential());
        }
        self.credentials.forget_in(namespace);
        Ok(Member { wallet: whom, role: role.name().to_owned(), granted_by: who, created_at: now })
    }

    /// Takes a wallet's role away; false when it had none.
    pub(crate) async fn take_role(&self, by: &Identity, namespace: &Namespace, wallet: Wallet) -> Result<bool> {
        self.check_change(by, namespace, wallet, None).await?;
        let now = self.store.clock.now_ms();
        let whom = wallet.to_string();
        let there = Condition::new("namespace = ? AND wallet = ?", [namespace.as_str().into(), whom.as_str().into()]);
        let going = there.and(self.may_change(by, namespace, wallet, None));
        let exists = Condition::new(format!("EXISTS (SELECT 1 FROM grants WHERE {})", going.sql), going.args.clone());
        let statements = vec![
            audit::event_if("grant_revoked", namespace, &by.subject, &whom, now, exists),
            only_if("DELETE FROM grants WHERE", [], going),
        ];
        let results = self.store.write(statements).await?;
        let removed = changed(&results, 1);
        if removed {
            self.credentials.forget_in(namespace);
        }
        Ok(removed)
    }

    /// Says what is not allowed, in words. [`may_change`](Auth::may_change) makes it so at the moment of the change.
    async fn check_change(&self, by: &Identity, namespace: &Namespace, wallet: Wallet, to: Option<Role>) -> Result<()> {
        let present = self.present(namespace, wallet).await?;
        if present.owns {
            return Err(Error::new(
                Code::Forbidden,
                format!(
                    "{wallet} owns the namespace \"{namespace}\": an owner's role can be neither changed nor taken"
                ),
            ));
        }
        for role in [present.granted, to].into_iter().flatten() {
            if !by.role.may_grant(role) {
                return Err(Error::new(
                    Code::Forbidden,
                    format!(
                        "the role {role} is given and taken by the namespace's owner; this credential's role is {}",
                        by.role
                    ),
                ));
            }
        }
        Ok(())
    }

    async fn present(&self, namespace: &Namespace, wallet: Wallet) -> Result<Present> {
        let statement = Statement::new(
            "SELECT coalesce((SELECT owner FROM namespaces WHERE name = ?1), ?3) = ?2, \
             (SELECT role FROM grants WHERE namespace = ?1 AND wallet = ?2)",
            [namespace.as_str().into(), wallet.to_string().into(), OPERATOR.into()],
        );
        let rows = self.store.rows(statement).await?;
        let (owns, role) = rows.first().map_or((false, ""), |row| (row.integer(0) == 1, row.text(1)));
        Ok(Present { owns, granted: Role::parse(role).ok() })
    }

    fn may_change(&self, by: &Identity, namespace: &Namespace, wallet: Wallet, to: Option<Role>) -> Condition {
        let key = || -> [Value; 2] { [namespace.as_str().into(), wallet.to_string().into()] };
        let is_no_owner = Condition::new("NOT EXISTS (SELECT 1 FROM namespaces WHERE name = ? AND owner = ?)", key());
        let least = if to == Some(Role::Admin) { Role::Owner } else { Role::Admin };
        let allowed = self.authority(by, namespace, least).and(is_no_owner);
        if by.role >= Role::Owner {
            return allowed;
        }
        let no_admin = "NOT EXISTS (SELECT 1 FROM grants WHERE namespace = ? AND wallet = ? AND role = 'admin')";
        allowed.and(Condition::new(no_admin, key()))
    }
}

/// Who gave a role, as the list of members tells it.
fn by_whom(by: &Identity) -> String {
    by.wallet.map_or_else(|| by.subject.clone(), |wallet| wallet.to_string())
}
