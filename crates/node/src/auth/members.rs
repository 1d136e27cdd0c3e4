//! Who may act in a namespace: its owner, and wallets with a granted role.

use super::auth_db::{RowColumns as _, SqlCondition, has_changed_row, statement_if};
use super::credential_verifier::invalid_credential;
use super::membership::OPERATOR;
use super::{AuthService, audit};
use crate::caller::VerifiedIdentity;
use debros_auth::{Role, Wallet};
use debros_proto::rpc::{Member, Statement, Value};
use debros_proto::{Code, Error, Namespace, Result};

/// Wallets with a granted role in one namespace.
const MAX_MEMBERS: i64 = 1000;

/// What a wallet is in a namespace before something changes.
struct MembershipRecord {
    /// The wallet owns it.
    owns: bool,
    granted: Option<Role>,
    /// Who granted it, and when.
    grant: (String, i64),
    /// Wallets with a granted role.
    members: i64,
}

impl AuthService {
    /// The owner, then the others in order of their wallets.
    ///
    /// An open namespace has one line for all wallets: it has no owner, and roles from before it
    /// was opened do not count.
    pub(crate) async fn list_members(&self, namespace: &Namespace) -> Result<Vec<Member>> {
        if self.auth_db.is_open(namespace) {
            let (wallet, role) = ("*".to_owned(), Role::Writer.name().to_owned());
            return Ok(vec![Member { wallet, role, granted_by: "open".to_owned(), created_at: 0 }]);
        }
        let statement = Statement::new(
            "SELECT owner, 'owner', '', created_at, 0 AS place FROM namespaces WHERE name = ?1 \
             UNION ALL SELECT wallet, role, granted_by, created_at, 1 FROM grants WHERE namespace = ?1 ORDER BY 5, 1",
            [namespace.as_str().into()],
        );
        let rows = self.auth_db.query_rows(statement).await?;
        let member = |row: &debros_proto::rpc::Row| Member {
            wallet: row.text(0).to_owned(),
            role: row.text(1).to_owned(),
            granted_by: row.text(2).to_owned(),
            created_at: row.integer(3),
        };
        Ok(rows.iter().map(member).collect())
    }

    /// Gives a wallet a role in place of the one that it had.
    pub(crate) async fn grant_role(
        &self,
        by: &VerifiedIdentity,
        namespace: &Namespace,
        wallet: Wallet,
        role: Role,
    ) -> Result<Member> {
        if self.auth_db.is_open(namespace) {
            return Err(Error::new(
                Code::Conflict,
                format!(
                    "the namespace \"{namespace}\" is open: every wallet is a writer there, and roles are not given"
                ),
            ));
        }
        self.count_change(by)?;
        let present = self.membership_record(namespace, wallet).await?;
        check_not_owner(&present, namespace, wallet)?;
        check_may_grant(by, [present.granted, Some(role)])?;
        if present.granted == Some(role) {
            let (granted_by, created_at) = present.grant;
            return Ok(Member {
                wallet: wallet.to_string(),
                role: role.name().to_owned(),
                granted_by,
                created_at,
            });
        }
        if present.granted.is_none() && present.members >= MAX_MEMBERS {
            return Err(too_many_members(namespace));
        }
        let now = self.auth_db.clock.now_ms();
        let (whom, who) = (wallet.to_string(), grantor_name(by));
        let key = || -> [Value; 2] { [namespace.as_str().into(), whom.as_str().into()] };
        let has_room = SqlCondition::new(
            "EXISTS (SELECT 1 FROM grants WHERE namespace = ? AND wallet = ?) \
             OR (SELECT count(*) FROM grants WHERE namespace = ?) < ?",
            key().into_iter().chain([namespace.as_str().into(), MAX_MEMBERS.into()]),
        );
        let allowed = self.change_condition(by, namespace, wallet, Some(role)).and(has_room);
        let granted = SqlCondition::new(
            "EXISTS (SELECT 1 FROM grants WHERE namespace = ? AND wallet = ? AND role = ? AND granted_by = ? \
             AND created_at = ?)",
            key().into_iter().chain([role.name().into(), who.as_str().into(), now.into()]),
        );
        let mut insert = statement_if(
            "INSERT INTO grants (namespace, wallet, role, granted_by, created_at) SELECT ?, ?, ?, ?, ? WHERE",
            key().into_iter().chain([role.name().into(), who.as_str().into(), now.into()]),
            allowed,
        );
        insert.sql.push_str(
            " ON CONFLICT (namespace, wallet) DO UPDATE SET role = excluded.role, granted_by = excluded.granted_by, \
             created_at = excluded.created_at",
        );
        let detail = format!("{whom} {role}");
        let statements = vec![
            insert,
            audit::insert_event_if("grant", namespace, &by.subject, &detail, now, granted),
        ];
        let results = self.auth_db.run_transaction(statements).await?;
        if !has_changed_row(&results, 0) {
            let members = self.membership_record(namespace, wallet).await?.members;
            return Err(if members >= MAX_MEMBERS {
                too_many_members(namespace)
            } else {
                invalid_credential()
            });
        }
        self.credentials.invalidations.invalidate_namespace(namespace);
        tracing::info!(%namespace, %wallet, %role, by = by.subject, "a member has a role");
        Ok(Member { wallet: whom, role: role.name().to_owned(), granted_by: who, created_at: now })
    }

    /// Takes a wallet's role away; false when it had none. In its session a wallet may give up its
    /// own, whatever it is.
    pub(crate) async fn revoke_role(
        &self,
        by: &VerifiedIdentity,
        namespace: &Namespace,
        wallet: Wallet,
    ) -> Result<bool> {
        self.count_change(by)?;
        let leaves = by.is_session_of(wallet);
        let present = self.membership_record(namespace, wallet).await?;
        check_not_owner(&present, namespace, wallet)?;
        if !leaves {
            check_may_grant(by, [present.granted])?;
        }
        let now = self.auth_db.clock.now_ms();
        let whom = wallet.to_string();
        let there = SqlCondition::new(
            "namespace = ? AND wallet = ?",
            [namespace.as_str().into(), whom.as_str().into()],
        );
        let may = if leaves {
            self.authority_condition(by, namespace, Role::Reader)
                .and(not_owner_condition(namespace, wallet))
        } else {
            self.change_condition(by, namespace, wallet, None)
        };
        let going = there.and(may);
        let exists = SqlCondition::new(
            format!("EXISTS (SELECT 1 FROM grants WHERE {})", going.sql),
            going.args.clone(),
        );
        let statements = vec![
            audit::insert_event_if("grant_revoked", namespace, &by.subject, &whom, now, exists),
            statement_if("DELETE FROM grants WHERE", [], going),
        ];
        let results = self.auth_db.run_transaction(statements).await?;
        let removed = has_changed_row(&results, 1);
        if removed {
            self.credentials.invalidations.invalidate_namespace(namespace);
            tracing::info!(%namespace, %wallet, by = by.subject, "a member has no role any more");
        }
        Ok(removed)
    }

    async fn membership_record(
        &self,
        namespace: &Namespace,
        wallet: Wallet,
    ) -> Result<MembershipRecord> {
        let statement = Statement::new(
            "SELECT coalesce((SELECT owner FROM namespaces WHERE name = ?1), ?3) = ?2, g.role, g.granted_by, g.created_at, \
             (SELECT count(*) FROM grants WHERE namespace = ?1) \
             FROM (SELECT 1) LEFT JOIN grants g ON g.namespace = ?1 AND g.wallet = ?2",
            [namespace.as_str().into(), wallet.to_string().into(), OPERATOR.into()],
        );
        let rows = self.auth_db.query_rows(statement).await?;
        let row = rows.first().ok_or_else(|| Error::internal("the members cannot be looked up"))?;
        Ok(MembershipRecord {
            owns: row.integer(0) == 1,
            granted: Role::parse(row.text(1)).ok(),
            grant: (row.text(2).to_owned(), row.integer(3)),
            members: row.integer(4),
        })
    }

    /// Makes what [`check_not_owner`] and [`check_may_grant`] say so at the moment of the change.
    fn change_condition(
        &self,
        by: &VerifiedIdentity,
        namespace: &Namespace,
        wallet: Wallet,
        to: Option<Role>,
    ) -> SqlCondition {
        let key = || -> [Value; 2] { [namespace.as_str().into(), wallet.to_string().into()] };
        let least = if to == Some(Role::Admin) { Role::Owner } else { Role::Admin };
        let allowed = self
            .authority_condition(by, namespace, least)
            .and(not_owner_condition(namespace, wallet));
        if by.role >= Role::Owner {
            return allowed;
        }
        let no_admin = "NOT EXISTS (SELECT 1 FROM grants WHERE namespace = ? AND wallet = ? AND role = 'admin')";
        allowed.and(SqlCondition::new(no_admin, key()))
    }
}

fn not_owner_condition(namespace: &Namespace, wallet: Wallet) -> SqlCondition {
    SqlCondition::new(
        "NOT EXISTS (SELECT 1 FROM namespaces WHERE name = ? AND owner = ?)",
        [namespace.as_str().into(), wallet.to_string().into()],
    )
}

/// Says that an owner stays one, in words.
fn check_not_owner(
    present: &MembershipRecord,
    namespace: &Namespace,
    wallet: Wallet,
) -> Result<()> {
    if !present.owns {
        return Ok(());
    }
    Err(Error::new(
        Code::Forbidden,
        format!(
            "{wallet} owns the namespace \"{namespace}\": an owner's role can be neither changed nor taken; it gives the \
             namespace up by deleting it"
        ),
    ))
}

/// Says which of the roles the caller may not give or take, in words.
fn check_may_grant<const N: usize>(by: &VerifiedIdentity, roles: [Option<Role>; N]) -> Result<()> {
    match roles.into_iter().flatten().find(|role| !by.role.may_grant(*role)) {
        None => Ok(()),
        Some(role) => Err(Error::new(
            Code::Forbidden,
            format!(
                "the role {role} is given and taken by the namespace's owner; this credential's role is {}",
                by.role
            ),
        )),
    }
}

fn too_many_members(namespace: &Namespace) -> Error {
    Error::new(
        Code::Conflict,
        format!(
            "the namespace \"{namespace}\" has {MAX_MEMBERS} members, the most that one may have: remove one first"
        ),
    )
}

/// Who gave a role, as the list of members shows it.
fn grantor_name(by: &VerifiedIdentity) -> String {
    by.wallet.map_or_else(|| by.subject.clone(), |wallet| wallet.to_string())
}
