//! Who calls, and what that allows. A [`Caller`] exists only after its credential was verified, and every service takes
//! one: a service that forgets the check does not compile.

use debros_proto::{Code, Error, Namespace, Result};
use std::fmt;
use std::sync::Arc;

/// A verified credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The API key's id, or "operator".
    pub subject: String,
    /// Where the credential is valid; `None` for the operator, who names a namespace with each call.
    pub namespace: Option<Namespace>,
    /// What it may do there.
    pub role: Role,
    /// Restricts the role further.
    pub scopes: Scopes,
    /// The first characters of the key, for people to recognise it.
    pub prefix: String,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// What a credential may do in its namespace; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads and subscribes.
    Reader,
    /// Writes and publishes.
    Writer,
    /// Manages the namespace's keys.
    Admin,
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
            Role::Operator => "operator",
        }
    }

    /// Reads a role that can be given to a key.
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
}

/// One thing that a call needs to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read SQL.
    DbRead,
    /// Write SQL, and read it.
    DbWrite,
    /// Read keys.
    StorageRead,
    /// Write keys.
    StorageWrite,
    /// Publish.
    PubsubPublish,
    /// Subscribe, list topics.
    PubsubSubscribe,
    /// Read applications.
    AppsRead,
    /// Write applications.
    AppsWrite,
    /// Manage the namespace's keys.
    Keys,
    /// Run the node.
    Operate,
}

impl Permission {
    /// All that a scope can name, with the scope's name. Keys and operation have none: a role alone gives them.
    const SCOPES: [(Permission, &'static str); 8] = [
        (Permission::DbRead, "db:read"),
        (Permission::DbWrite, "db:write"),
        (Permission::StorageRead, "storage:read"),
        (Permission::StorageWrite, "storage:write"),
        (Permission::PubsubPublish, "pubsub:publish"),
        (Permission::PubsubSubscribe, "pubsub:subscribe"),
        (Permission::AppsRead, "apps:read"),
        (Permission::AppsWrite, "apps:write"),
    ];

    fn role(self) -> Role {
        match self {
            Permission::DbRead | Permission::StorageRead | Permission::PubsubSubscribe | Permission::AppsRead => {
                Role::Reader
            }
            Permission::DbWrite | Permission::StorageWrite | Permission::PubsubPublish | Permission::AppsWrite => {
                Role::Writer
            }
            Permission::Keys => Role::Admin,
            Permission::Operate => Role::Operator,
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::SCOPES.iter().find(|(permission, _)| permission == self).map(|(_, name)| *name);
        f.write_str(name.unwrap_or(if *self == Permission::Keys { "managing keys" } else { "operating the node" }))
    }
}

/// A set of permissions; empty means: everything that the role allows.
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
            let Some((permission, _)) = Permission::SCOPES.iter().find(|(_, known)| *known == name) else {
                let known: Vec<&str> = Permission::SCOPES.iter().map(|(_, name)| *name).collect();
                return Err(Error::invalid(format!(
                    "\"{}\" is not a scope: use {}",
                    debros_proto::ids::excerpt(name),
                    known.join(", ")
                )));
            };
            scopes.0 |= permission.bit();
        }
        Ok(scopes)
    }

    /// The names, in the catalogue's order.
    pub fn names(self) -> Vec<String> {
        Permission::SCOPES
            .iter()
            .filter(|(permission, _)| self.0 & permission.bit() != 0)
            .map(|(_, name)| (*name).to_owned())
            .collect()
    }

    fn allows(self, permission: Permission) -> bool {
        let nameable = Permission::SCOPES.iter().any(|(known, _)| *known == permission);
        let implied = permission == Permission::DbRead && self.0 & Permission::DbWrite.bit() != 0;
        self.0 == 0 || (nameable && (implied || self.0 & permission.bit() != 0))
    }
}

/// A verified credential in a namespace.
#[derive(Clone, Debug)]
pub struct Caller {
    identity: Arc<Identity>,
    namespace: Option<Namespace>,
}

impl Caller {
    /// Puts a verified credential into the namespace that the request names, if it may be there.
    ///
    /// # Errors
    /// `namespace_mismatch` when the credential belongs elsewhere, `invalid_argument` for a name that is none.
    pub(crate) fn new(identity: Arc<Identity>, named: &str) -> Result<Self> {
        let namespace = match &identity.namespace {
            Some(own) if named.is_empty() || named == own.as_str() => Some(own.clone()),
            Some(_) => {
                return Err(Error::new(
                    Code::NamespaceMismatch,
                    "namespace mismatch: the credential belongs to another namespace than the request names",
                ));
            }
            None if named.is_empty() => None,
            None => Some(Namespace::new(named)?),
        };
        Ok(Self { identity, namespace })
    }

    /// The credential behind the call.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The namespace that the call acts in.
    ///
    /// # Errors
    /// `invalid_argument` when an operator named none.
    pub fn namespace(&self) -> Result<&Namespace> {
        self.namespace
            .as_ref()
            .ok_or_else(|| Error::invalid("the operator credential belongs to no namespace: name one with the request"))
    }

    /// Whether the caller may do this.
    pub fn may(&self, permission: Permission) -> bool {
        self.identity.role >= permission.role() && self.identity.scopes.allows(permission)
    }

    /// Passes when the caller may do this.
    ///
    /// # Errors
    /// `forbidden`, with what is missing.
    pub fn require(&self, permission: Permission) -> Result<()> {
        if self.may(permission) {
            return Ok(());
        }
        let role = self.identity.role.name();
        let reason = if self.identity.role < permission.role() {
            format!("the credential's role is {role}, and {permission} needs {}", permission.role().name())
        } else {
            format!("the credential's scopes do not include {permission}")
        };
        Err(Error::new(Code::Forbidden, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::{Caller, Identity, Permission, Role, Scopes};
    use debros_proto::{Code, Namespace};
    use std::sync::Arc;

    fn identity(role: Role, scopes: &[&str]) -> Arc<Identity> {
        Arc::new(Identity {
            subject: "key".into(),
            namespace: (role != Role::Operator).then(|| Namespace::new("a").unwrap()),
            role,
            scopes: Scopes::parse(scopes.iter().copied()).unwrap(),
            prefix: String::new(),
            created_at: 0,
        })
    }

    #[test]
    fn a_caller_is_in_its_own_namespace_only() {
        let writer = identity(Role::Writer, &[]);
        for own in ["", "a"] {
            assert_eq!(Caller::new(Arc::clone(&writer), own).unwrap().namespace().unwrap().as_str(), "a");
        }
        for other in ["b", "A", "a ", "ns::a::", "_system"] {
            assert_eq!(Caller::new(Arc::clone(&writer), other).unwrap_err().code, Code::NamespaceMismatch);
        }
        let operator = identity(Role::Operator, &[]);
        assert_eq!(Caller::new(Arc::clone(&operator), "b").unwrap().namespace().unwrap().as_str(), "b");
        assert_eq!(Caller::new(Arc::clone(&operator), "_system").unwrap_err().code, Code::InvalidArgument);
        assert!(Caller::new(operator, "").unwrap().namespace().is_err());
    }

    #[test]
    fn roles_include_the_lesser_ones_and_scopes_restrict_them() {
        let may = |role, scopes: &[&str], permission| Caller::new(identity(role, scopes), "").unwrap().may(permission);
        assert!(may(Role::Reader, &[], Permission::DbRead) && !may(Role::Reader, &[], Permission::DbWrite));
        assert!(may(Role::Writer, &[], Permission::StorageWrite) && !may(Role::Writer, &[], Permission::Keys));
        assert!(may(Role::Admin, &[], Permission::Keys) && !may(Role::Admin, &[], Permission::Operate));
        assert!(may(Role::Operator, &[], Permission::Operate));
        assert!(may(Role::Writer, &["storage:read"], Permission::StorageRead));
        assert!(!may(Role::Writer, &["storage:read"], Permission::StorageWrite));
        assert!(!may(Role::Admin, &["storage:read"], Permission::Keys), "a restricted key does not manage keys");
        assert!(may(Role::Writer, &["db:write"], Permission::DbRead));
        assert!(!may(Role::Reader, &["db:write"], Permission::DbWrite), "a scope never widens the role");
    }
}
