//! The catalogue of calls: name, and what each needs to be allowed.

use crate::caller::Permission;
use debros_proto::rpc::request::Call;

/// What a call needs before a service sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallRequirement {
    /// Nothing: anyone may ask.
    Nothing,
    /// Any valid credential.
    Credential,
    /// A credential with this permission.
    Permission(Permission),
}

/// One kind of call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallKind {
    /// Its place in [`KINDS`].
    pub(crate) index: usize,
    /// Its name in metrics and logs.
    pub(crate) name: &'static str,
    /// What it needs.
    pub(crate) needs: CallRequirement,
    /// Whether it changes something, so that an idempotency key makes sense on it.
    pub(crate) takes_idempotency_key: bool,
}

macro_rules! kinds {
    ($($variant:ident: $name:literal, $needs:expr, $takes_key:literal;)+) => {
        #[allow(clippy::enum_variant_names)]
        #[derive(Clone, Copy)]
        enum CallIndex { $($variant,)+ }

        /// All kinds of calls.
        pub(crate) const KINDS: &[CallKind] = &[
            $(CallKind { index: CallIndex::$variant as usize, name: $name, needs: $needs, takes_idempotency_key: $takes_key },)+
        ];

        /// The kind of a call. A call without an entry here does not compile.
        pub(crate) fn kind_of(call: &Call) -> &'static CallKind {
            match call {
                $(Call::$variant(_) => &KINDS[CallIndex::$variant as usize],)+
            }
        }
    };
}

/// The name of every kind of call that nodes answer, as metrics tell it, and whether it needs a
/// credential.
pub fn call_catalogue() -> impl Iterator<Item = (&'static str, bool)> {
    KINDS.iter().map(|kind| (kind.name, kind.needs != CallRequirement::Nothing))
}

use CallRequirement::{Credential, Nothing, Permission as P};
use Permission as Do;

kinds! {
    Health: "health", Nothing, false;
    Status: "status", Nothing, false;
    Peers: "peers", Credential, false;
    ConnectPeer: "connect_peer", P(Do::Operate), false;
    DisconnectPeer: "disconnect_peer", P(Do::Operate), false;
    WhoAmI: "who_am_i", Credential, false;
    // Who may make, see and revoke which keys depends on whose they are: the service decides.
    CreateApiKey: "create_api_key", Credential, false;
    ListApiKeys: "list_api_keys", Credential, false;
    RevokeApiKey: "revoke_api_key", Credential, false;
    ListApps: "list_apps", P(Do::AppsRead), false;
    CreateApp: "create_app", P(Do::AppsWrite), true;
    GetApp: "get_app", P(Do::AppsRead), false;
    UpdateApp: "update_app", P(Do::AppsWrite), true;
    DeleteApp: "delete_app", P(Do::AppsWrite), true;

    // What these need is in the message itself: a wallet's proof or a refresh token.
    Challenge: "challenge", Nothing, false;
    SignIn: "sign_in", Nothing, false;
    RegisterApp: "register_app", Nothing, false;
    CreateApiKeyByProof: "create_api_key_by_proof", Nothing, false;
    Refresh: "refresh", Nothing, false;
    Logout: "logout", Nothing, false;
    Jwks: "jwks", Nothing, false;
    Token: "token", Credential, false;
    ListMembers: "list_members", P(Do::Members), false;
    SetMember: "set_member", P(Do::Members), false;
    // A member may leave: the service decides.
    RemoveMember: "remove_member", Credential, false;
    RotateSigningKey: "rotate_signing_key", P(Do::Operate), false;
    RemoveSigningKey: "remove_signing_key", P(Do::Operate), false;
    // Which namespaces a caller sees, and whose it may delete, the service decides.
    ListNamespaces: "list_namespaces", Credential, false;
    GetNamespace: "get_namespace", Credential, false;
    DeleteNamespace: "delete_namespace", Credential, false;

    // A query may write; the engine refuses that where the caller may only read.
    Query: "query", P(Do::DbRead), true;
    Transaction: "transaction", P(Do::DbWrite), true;
    CreateTable: "create_table", P(Do::DbWrite), true;
    DropTable: "drop_table", P(Do::DbWrite), true;
    Schema: "schema", P(Do::DbRead), false;
    Backup: "backup", P(Do::Operate), false;
    ListBackups: "list_backups", P(Do::Operate), false;
    Restore: "restore", P(Do::Operate), false;
    Export: "export", P(Do::DbRead), false;

    Put: "put", P(Do::StorageWrite), true;
    Get: "get", P(Do::StorageRead), false;
    Delete: "delete", P(Do::StorageWrite), true;
    Exists: "exists", P(Do::StorageRead), false;
    List: "list", P(Do::StorageRead), false;

    Publish: "publish", P(Do::PubsubPublish), true;
    Subscribe: "subscribe", P(Do::PubsubSubscribe), false;
    Topics: "topics", P(Do::PubsubSubscribe), false;
}
