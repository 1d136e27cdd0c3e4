//! The rights of a role and its scopes.

pub use debros_proto::Permission;
use debros_proto::{Code, Error, Result};
use std::fmt;

/// The rights of a credential in its namespace; each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads and subscribes.
    Reader,
    /// Writes and publishes.
    Writer,
    /// Manages the namespace's keys and members.
    Admin,
    /// Owns the namespace: also decides who is admin. No higher role can be given, and this one
    /// cannot be taken away.
    Owner,
    /// Runs the node.
    Operator,
}

impl Role {
    /// The role's name in requests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Role::Reader => "reader",
            Role::Writer => "writer",
            Role::Admin => "admin",
            Role::Owner => "owner",
            Role::Operator => "operator",
        }
    }

    /// Reads a role that can be given, to a key or to a member.
    ///
    /// # Errors
    /// `invalid_argument` for another name.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "reader" => Ok(Role::Reader),
            "writer" => Ok(Role::Writer),
            "admin" => Ok(Role::Admin),
            _ => Err(Error::invalid(format!(
                "\"{}\" is not a role: use reader, writer or admin",
                debros_proto::ids::excerpt(text)
            ))),
        }
    }

    /// The least role that a permission needs.
    pub fn required_for(permission: Permission) -> Self {
        match permission {
            Permission::DbRead
            | Permission::StorageRead
            | Permission::PubsubSubscribe
            | Permission::AppsRead => Role::Reader,
            Permission::DbWrite
            | Permission::StorageWrite
            | Permission::PubsubPublish
            | Permission::AppsWrite => Role::Writer,
            Permission::Keys | Permission::Members => Role::Admin,
            Permission::Operate => Role::Operator,
        }
    }

    /// Whether a holder of this role may give `required_role` to a member, or take it away: admins
    /// readers and writers, the owner admins as well, the operator as the owner. Nobody gives
    /// ownership.
    pub fn may_grant(self, role: Role) -> bool {
        match role {
            Role::Reader | Role::Writer => self >= Role::Admin,
            Role::Admin => self >= Role::Owner,
            Role::Owner | Role::Operator => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of permissions; empty means everything that the role allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u16);

impl Scopes {
    /// Reads scope names.
    ///
    /// # Errors
    /// `invalid_argument` for an unknown name.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut scopes = Scopes::default();
        for name in names {
            let Some((permission, _)) = Permission::SCOPES.iter().find(|(_, known)| *known == name)
            else {
                let known: Vec<&str> = Self::known().collect();
                return Err(Error::invalid(format!(
                    "\"{}\" is not a scope: use {}",
                    debros_proto::ids::excerpt(name),
                    known.join(", ")
                )));
            };
            scopes.0 |= bit(*permission);
        }
        Ok(scopes)
    }

    /// The names of all scopes.
    pub fn known() -> impl Iterator<Item = &'static str> {
        Permission::SCOPES.iter().map(|(_, name)| *name)
    }

    /// Whether nothing is restricted.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names, in the catalogue's order.
    pub fn names(self) -> Vec<String> {
        Permission::SCOPES
            .iter()
            .filter(|(permission, _)| self.0 & bit(*permission) != 0)
            .map(|(_, name)| (*name).to_owned())
            .collect()
    }

    /// The role that remains under these scopes: no more than they name.
    pub fn role_within(self, role: Role) -> Role {
        let named =
            Permission::SCOPES.iter().filter(|(permission, _)| self.0 & bit(*permission) != 0);
        let most = named.map(|(permission, _)| Role::required_for(*permission)).max();
        most.map_or(role, |most| role.min(most))
    }

    /// Whether they allow this, for a role that does.
    pub fn may_use(self, permission: Permission) -> bool {
        let nameable = Permission::SCOPES.iter().any(|(known, _)| *known == permission);
        let implied = permission == Permission::DbRead && self.0 & bit(Permission::DbWrite) != 0;
        self.0 == 0 || (nameable && (implied || self.0 & bit(permission) != 0))
    }
}

/// A permission's place in a set of them.
fn bit(permission: Permission) -> u16 {
    1 << permission as u16
}

/// Whether this role with these scopes may do this.
pub fn is_permitted(role: Role, scopes: Scopes, permission: Permission) -> bool {
    role >= Role::required_for(permission) && scopes.may_use(permission)
}

/// Succeeds if this role with these scopes may do this.
///
/// # Errors
/// `forbidden`, with what is missing.
pub fn require_permission(role: Role, scopes: Scopes, permission: Permission) -> Result<()> {
    if is_permitted(role, scopes, permission) {
        return Ok(());
    }
    let reason = if role < Role::required_for(permission) {
        format!(
            "the credential's role is {role}, and {permission} needs {}",
            Role::required_for(permission)
        )
    } else {
        format!("the credential's scopes do not include {permission}")
    };
    Err(Error::new(Code::Forbidden, reason))
}

#[cfg(test)]
mod tests;
