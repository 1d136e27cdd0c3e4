//! What a call needs to be allowed. Roles and scopes, which grant permissions, are `debros-auth`'s.

use std::fmt;

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
    /// Manage the namespace's members.
    Members,
    /// Run the node.
    Operate,
}

impl Permission {
    /// All that a scope can name, with the scope's name. Keys, members and operation have none: a
    /// role alone gives them.
    pub const SCOPES: [(Permission, &'static str); 8] = [
        (Permission::DbRead, "db:read"),
        (Permission::DbWrite, "db:write"),
        (Permission::StorageRead, "storage:read"),
        (Permission::StorageWrite, "storage:write"),
        (Permission::PubsubPublish, "pubsub:publish"),
        (Permission::PubsubSubscribe, "pubsub:subscribe"),
        (Permission::AppsRead, "apps:read"),
        (Permission::AppsWrite, "apps:write"),
    ];
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            Self::SCOPES.iter().find(|(permission, _)| permission == self).map(|(_, name)| *name);
        f.write_str(name.unwrap_or(match self {
            Permission::Keys => "managing keys",
            Permission::Members => "managing members",
            _ => "operating the node",
        }))
    }
}
