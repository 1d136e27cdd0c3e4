//! The calls of the protocol: one line for each. Metrics, authorisation, idempotency, repetition
//! and the transport all read this table.
//!
//! A new call needs its messages in `proto/debros/v1/`, a line here, and a handler in a service of
//! the node; without the line this crate does not compile.

use crate::rpc::Request;
use crate::rpc::request::Call;
use crate::{Code, Error, Permission};

/// What a call needs before a service sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallRequirement {
    /// Nothing: anyone may make it. What the call needs is in the message itself, if anything is.
    Nothing,
    /// Any valid credential; the service decides about the rest.
    Credential,
    /// A credential with this permission.
    Permission(Permission),
    /// A connection on which the caller has proven that it is a node of the cluster. No credential
    /// takes the place of that.
    Node,
}

/// Whether a call may change something. When the answer to one that may is lost, its outcome is
/// unknown; one that only reads can be repeated without harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEffect {
    /// It only reads.
    Reads,
    /// It may write.
    Writes,
    /// It may write, unless the request says that it only reads: `QueryRequest.only_reads`.
    DependsOnRequest,
}

/// What answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallReply {
    /// One response.
    Response,
    /// A response, then a stream of events that ends by itself.
    Stream,
    /// A response, then a stream of events that ends only when the caller cancels it.
    Subscription,
}

/// One kind of call.
#[derive(Clone, Copy, Debug)]
pub struct CallKind {
    /// Its place in [`CALL_KINDS`].
    pub index: usize,
    /// Its name in metrics and logs.
    pub name: &'static str,
    /// What it needs.
    pub requires: CallRequirement,
    /// Whether it may change something.
    pub effect: CallEffect,
    /// What answers it.
    pub reply: CallReply,
    /// Whether an idempotency key makes it happen once. The key is ignored on the others.
    pub takes_idempotency_key: bool,
}

impl CallKind {
    /// Whether the answer is a stream of events.
    pub fn opens_stream(&self) -> bool {
        self.reply != CallReply::Response
    }
}

impl Request {
    /// The kind of the call; `None` when the request holds none that this version knows.
    pub fn kind(&self) -> Option<&'static CallKind> {
        self.call.as_ref().map(CallKind::of)
    }

    /// Whether the call may change something, so that losing its answer leaves the outcome unknown.
    /// One that this version does not know is refused, and changes nothing.
    pub fn may_write(&self) -> bool {
        self.call.as_ref().is_some_and(|call| match (CallKind::of(call).effect, call) {
            (CallEffect::Reads, _) => false,
            (CallEffect::DependsOnRequest, Call::Query(query)) => !query.only_reads,
            (CallEffect::Writes | CallEffect::DependsOnRequest, _) => true,
        })
    }

    /// Whether the answer is a stream of events.
    pub fn opens_stream(&self) -> bool {
        self.kind().is_some_and(CallKind::opens_stream)
    }

    /// Whether sending the request again after this error can do no harm. A lost read comes back as
    /// `unavailable`; a write whose fate is not known is repeated only when the node recognises it.
    pub fn may_repeat_after(&self, error: &Error) -> bool {
        match error.code {
            Code::UnknownOutcome => !self.idempotency_key.is_empty(),
            // The caller exceeded its rate: it has to slow down.
            Code::RateLimited => false,
            code => code.is_safe_to_retry(),
        }
    }
}

macro_rules! call_kinds {
    ($($call:ident: $name:literal, $requires:expr, $effect:ident, $reply:ident, $key:ident;)+) => {
        #[allow(clippy::enum_variant_names)]
        enum CallIndex { $($call,)+ }

        /// All kinds of calls.
        pub const CALL_KINDS: &[CallKind] = &[$(CallKind {
            index: CallIndex::$call as usize,
            name: $name,
            requires: $requires,
            effect: CallEffect::$effect,
            reply: CallReply::$reply,
            takes_idempotency_key: $key,
        },)+];

        impl CallKind {
            /// The kind of a call.
            pub fn of(call: &Call) -> &'static CallKind {
                match call {
                    $(Call::$call(_) => &CALL_KINDS[CallIndex::$call as usize],)+
                }
            }
        }
    };
}

use CallRequirement::{Credential, Node, Nothing, Permission as P};
use Permission as Do;
const KEY: bool = true;
const NO_KEY: bool = false;

call_kinds! {
    Health: "health", Nothing, Reads, Response, NO_KEY;
    Status: "status", Nothing, Reads, Response, NO_KEY;
    Peers: "peers", Credential, Reads, Response, NO_KEY;
    ConnectPeer: "connect_peer", P(Do::Operate), Writes, Response, NO_KEY;
    DisconnectPeer: "disconnect_peer", P(Do::Operate), Writes, Response, NO_KEY;
    WhoAmI: "who_am_i", Credential, Reads, Response, NO_KEY;
    // Which keys a caller may make, see and revoke depends on whose they are.
    CreateApiKey: "create_api_key", Credential, Writes, Response, NO_KEY;
    ListApiKeys: "list_api_keys", Credential, Reads, Response, NO_KEY;
    RevokeApiKey: "revoke_api_key", Credential, Writes, Response, NO_KEY;
    ListApps: "list_apps", P(Do::AppsRead), Reads, Response, NO_KEY;
    CreateApp: "create_app", P(Do::AppsWrite), Writes, Response, KEY;
    GetApp: "get_app", P(Do::AppsRead), Reads, Response, NO_KEY;
    UpdateApp: "update_app", P(Do::AppsWrite), Writes, Response, KEY;
    DeleteApp: "delete_app", P(Do::AppsWrite), Writes, Response, KEY;

    // These carry a wallet's proof or a refresh token.
    Challenge: "challenge", Nothing, Reads, Response, NO_KEY;
    SignIn: "sign_in", Nothing, Writes, Response, NO_KEY;
    RegisterApp: "register_app", Nothing, Writes, Response, NO_KEY;
    CreateApiKeyByProof: "create_api_key_by_proof", Nothing, Writes, Response, NO_KEY;
    Refresh: "refresh", Nothing, Writes, Response, NO_KEY;
    Logout: "logout", Nothing, Writes, Response, NO_KEY;
    Jwks: "jwks", Nothing, Reads, Response, NO_KEY;
    Token: "token", Credential, Reads, Response, NO_KEY;
    ListMembers: "list_members", P(Do::Members), Reads, Response, NO_KEY;
    SetMember: "set_member", P(Do::Members), Writes, Response, NO_KEY;
    // A member may leave.
    RemoveMember: "remove_member", Credential, Writes, Response, NO_KEY;
    RotateSigningKey: "rotate_signing_key", P(Do::Operate), Writes, Response, NO_KEY;
    RemoveSigningKey: "remove_signing_key", P(Do::Operate), Writes, Response, NO_KEY;
    // Which namespaces a caller may see and delete depends on whose they are.
    ListNamespaces: "list_namespaces", Credential, Reads, Response, NO_KEY;
    GetNamespace: "get_namespace", Credential, Reads, Response, NO_KEY;
    DeleteNamespace: "delete_namespace", Credential, Writes, Response, NO_KEY;

    // A query may write; the engine refuses that where the caller may only read.
    Query: "query", P(Do::DbRead), DependsOnRequest, Response, KEY;
    Transaction: "transaction", P(Do::DbWrite), Writes, Response, KEY;
    CreateTable: "create_table", P(Do::DbWrite), Writes, Response, KEY;
    DropTable: "drop_table", P(Do::DbWrite), Writes, Response, KEY;
    Schema: "schema", P(Do::DbRead), Reads, Response, NO_KEY;
    Backup: "backup", P(Do::Operate), Writes, Stream, NO_KEY;
    ListBackups: "list_backups", P(Do::Operate), Reads, Response, NO_KEY;
    Restore: "restore", P(Do::Operate), Writes, Stream, NO_KEY;
    Export: "export", P(Do::DbRead), Reads, Stream, NO_KEY;

    Put: "put", P(Do::StorageWrite), Writes, Response, KEY;
    Get: "get", P(Do::StorageRead), Reads, Response, NO_KEY;
    Delete: "delete", P(Do::StorageWrite), Writes, Response, KEY;
    Exists: "exists", P(Do::StorageRead), Reads, Response, NO_KEY;
    List: "list", P(Do::StorageRead), Reads, Response, NO_KEY;

    Publish: "publish", P(Do::PubsubPublish), Writes, Response, KEY;
    Subscribe: "subscribe", P(Do::PubsubSubscribe), Reads, Subscription, NO_KEY;
    Topics: "topics", P(Do::PubsubSubscribe), Reads, Response, NO_KEY;

    // These carry a proof of their own: of the cluster's key, or of a join token.
    NodeHello: "node_hello", Nothing, Reads, Response, NO_KEY;
    NodeProof: "node_proof", Nothing, Reads, Response, NO_KEY;
    JoinCluster: "join_cluster", Nothing, Writes, Response, NO_KEY;
    ExchangeNodes: "exchange_nodes", Node, Writes, Response, NO_KEY;
    ReplaceClusterKey: "replace_cluster_key", Node, Writes, Response, NO_KEY;
    InitCluster: "init_cluster", P(Do::Operate), Writes, Response, NO_KEY;
    CreateJoinToken: "create_join_token", P(Do::Operate), Writes, Response, NO_KEY;
    ClusterStatus: "cluster_status", P(Do::Operate), Reads, Response, NO_KEY;
    RemoveNode: "remove_node", P(Do::Operate), Writes, Response, NO_KEY;
    StepDown: "step_down", P(Do::Operate), Writes, Response, NO_KEY;

    LeaderPosition: "leader_position", Node, Reads, Response, NO_KEY;
    FollowLog: "follow_log", Node, Reads, Subscription, NO_KEY;
    FetchFiles: "fetch_files", Node, Reads, Stream, NO_KEY;
    // It carries the caller's idempotency key itself.
    LeaderWrite: "leader_write", Node, Writes, Response, NO_KEY;
    Checksum: "checksum", Node, Reads, Response, NO_KEY;
    DataHealth: "data_health", Node, Reads, Response, NO_KEY;
}

#[cfg(test)]
mod tests {
    use super::{CALL_KINDS, CallEffect, CallKind};
    use crate::rpc::request::Call;
    use crate::rpc::{self, Request};

    fn request(call: Call) -> Request {
        Request { call: Some(call), ..Default::default() }
    }

    fn query(only_reads: bool) -> Request {
        let statement = Some("SELECT 1".into());
        request(Call::Query(rpc::QueryRequest { statement, only_reads, ..Default::default() }))
    }

    #[test]
    fn the_table_says_what_a_request_may_do() {
        let put = request(Call::Put(rpc::PutRequest::default()));
        assert!(put.may_write() && !put.opens_stream());
        let get = request(Call::Get(rpc::GetRequest::default()));
        assert!(!get.may_write() && !get.opens_stream());
        assert!(request(Call::Subscribe(rpc::SubscribeRequest::default())).opens_stream());
        let unknown = Request::default();
        assert!(unknown.kind().is_none() && !unknown.may_write() && !unknown.opens_stream());
    }

    #[test]
    fn a_query_may_write_unless_the_request_says_that_it_only_reads() {
        // A peer that does not know the field sends false.
        assert!(query(false).may_write());
        assert!(!query(true).may_write());
    }

    #[test]
    fn every_kind_knows_its_place_and_has_a_name_of_its_own() {
        let mut names: Vec<&str> = CALL_KINDS.iter().map(|kind| kind.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CALL_KINDS.len());
        assert!(CALL_KINDS.iter().enumerate().all(|(index, kind)| kind.index == index));
        assert_eq!(CallKind::of(&Call::Put(rpc::PutRequest::default())).name, "put");
    }

    #[test]
    fn only_what_writes_takes_an_idempotency_key() {
        for kind in CALL_KINDS.iter().filter(|kind| kind.takes_idempotency_key) {
            assert_ne!(kind.effect, CallEffect::Reads, "{}", kind.name);
        }
    }
}
