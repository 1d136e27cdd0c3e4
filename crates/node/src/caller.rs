//! The caller of a call, and what it may do. A [`Caller`] exists only after its credential was
//! verified, and every service takes one: a service that forgets the check does not compile.

use debros_auth::role;
pub use debros_auth::{Permission, Role, Scopes, Wallet};
use debros_proto::{Code, Error, Namespace, Result};
use std::sync::Arc;

/// A verified credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedIdentity {
    /// A session's wallet, the API key's id, or "operator".
    pub subject: String,
    /// What was shown, or what the token shown stands for.
    pub source: CredentialSource,
    /// Where the credential is valid; `None` for the operator, who names a namespace with each
    /// call.
    pub namespace: Option<Namespace>,
    /// What it may do there.
    pub role: Role,
    /// Restricts the role further.
    pub scopes: Scopes,
    /// The wallet behind it; `None` for the operator and for keys that the operator made.
    pub wallet: Option<Wallet>,
    /// It may run the node besides, because its wallet is one of `admin_wallets`.
    pub runs_node: bool,
    /// The first characters of the key, for people to recognise it.
    pub prefix: String,
    /// When the key was made or the token issued, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// When the token expires, in milliseconds since the Unix epoch; 0 for what is no token.
    pub expires_at: i64,
}

/// What ends a credential when it is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// The node's own file.
    Operator,
    /// A wallet's session.
    Session {
        /// Its id.
        id: String,
    },
    /// An API key.
    Key {
        /// Its id.
        id: String,
    },
    /// Another's credential, which a gateway lends to callers that it knows itself.
    Lent,
}

impl VerifiedIdentity {
    /// The same for a caller to whom the credential is lent: at most a writer, which makes no keys
    /// and runs no node.
    #[must_use]
    pub(crate) fn as_lent(&self) -> Self {
        Self {
            source: CredentialSource::Lent,
            role: self.role.min(Role::Writer),
            runs_node: false,
            ..self.clone()
        }
    }

    /// Whether the wallet itself acts, in a session of its own: not one of its keys, which are
    /// given to programs.
    pub(crate) fn is_session_of(&self, wallet: Wallet) -> bool {
        self.wallet == Some(wallet) && matches!(self.source, CredentialSource::Session { .. })
    }

    /// How the caller showed who it is: "operator", "jwt" or "api_key".
    pub fn auth_method(&self) -> &'static str {
        match self.source {
            CredentialSource::Operator => "operator",
            CredentialSource::Lent => "lent",
            CredentialSource::Key { .. } if self.expires_at == 0 => "api_key",
            CredentialSource::Key { .. } | CredentialSource::Session { .. } => "jwt",
        }
    }
}

/// A verified credential in a namespace.
#[derive(Clone, Debug)]
pub struct Caller {
    identity: Arc<VerifiedIdentity>,
    namespace: Option<Namespace>,
}

impl Caller {
    /// Puts a verified credential into the namespace that the request names, if it may be there.
    ///
    /// # Errors
    /// `namespace_mismatch` when the credential belongs elsewhere, `invalid_argument` for a name
    /// that is none.
    pub(crate) fn new(identity: Arc<VerifiedIdentity>, named: &str) -> Result<Self> {
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
    pub fn identity(&self) -> &VerifiedIdentity {
        &self.identity
    }

    /// The namespace that the call acts in.
    ///
    /// # Errors
    /// `invalid_argument` when an operator named none.
    pub fn namespace(&self) -> Result<&Namespace> {
        self.namespace.as_ref().ok_or_else(|| {
            Error::invalid(
                "the operator credential belongs to no namespace: name one with the request",
            )
        })
    }

    /// Whether the caller may do this.
    pub fn may(&self, permission: Permission) -> bool {
        (permission == Permission::Operate && self.identity.runs_node)
            || role::is_permitted(self.identity.role, self.identity.scopes, permission)
    }

    /// Passes when the caller may do this.
    ///
    /// # Errors
    /// `forbidden`, with what is missing.
    pub fn require(&self, permission: Permission) -> Result<()> {
        if self.may(permission) {
            return Ok(());
        }
        role::require_permission(self.identity.role, self.identity.scopes, permission)
    }
}

#[cfg(test)]
mod tests {
    use super::{Caller, CredentialSource, Role, Scopes, VerifiedIdentity};
    use debros_proto::{Code, Namespace};
    use std::sync::Arc;

    fn identity(role: Role, scopes: &[&str]) -> Arc<VerifiedIdentity> {
        Arc::new(VerifiedIdentity {
            subject: "key".into(),
            source: if role == Role::Operator {
                CredentialSource::Operator
            } else {
                CredentialSource::Key { id: "key".into() }
            },
            namespace: (role != Role::Operator).then(|| Namespace::new("a").unwrap()),
            role,
            scopes: Scopes::parse(scopes.iter().copied()).unwrap(),
            wallet: None,
            runs_node: false,
            prefix: String::new(),
            created_at: 0,
            expires_at: 0,
        })
    }

    #[test]
    fn a_caller_is_in_its_own_namespace_only() {
        let writer = identity(Role::Writer, &[]);
        for own in ["", "a"] {
            assert_eq!(
                Caller::new(Arc::clone(&writer), own).unwrap().namespace().unwrap().as_str(),
                "a"
            );
        }
        for other in ["b", "A", "a ", "ns::a::", "_system"] {
            assert_eq!(
                Caller::new(Arc::clone(&writer), other).unwrap_err().code,
                Code::NamespaceMismatch
            );
        }
        let operator = identity(Role::Operator, &[]);
        assert_eq!(
            Caller::new(Arc::clone(&operator), "b").unwrap().namespace().unwrap().as_str(),
            "b"
        );
        assert_eq!(
            Caller::new(Arc::clone(&operator), "_system").unwrap_err().code,
            Code::InvalidArgument
        );
        assert!(Caller::new(operator, "").unwrap().namespace().is_err());
    }
}
