//! What the node does, one file for each family of calls. Every function takes a [`Caller`]: it
//! exists only after the credential was checked.

mod apps;
mod control;
mod database;
mod keys;
mod members;
mod namespaces;
mod pubsub;
mod storage;

pub(crate) use control::NodeFacts;

use crate::auth::AuthService;
use crate::caller::Caller;
use crate::cluster::ClusterService;
use crate::health::HealthProbe;
use crate::pubsub::TopicHub;
use debros_engine::{CallOptions, Engine, WriteOutcome};
use debros_p2p::{EventSource, Host};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::response;
use debros_proto::{Error, Result};
use std::sync::{Arc, OnceLock};

/// Everything that calls act on.
pub(crate) struct NodeServices {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) hub: Arc<TopicHub>,
    pub(crate) health: HealthProbe,
    pub(crate) facts: NodeFacts,
    pub(crate) cluster: Arc<ClusterService>,
    /// Set once the host runs: the host itself needs the handler first.
    pub(crate) host: OnceLock<Host>,
}

/// A service's answer.
pub(crate) enum ServiceReply {
    Plain { result: response::Result, replayed: bool },
    Stream { result: response::Result, events: EventSource },
}

impl From<response::Result> for ServiceReply {
    fn from(result: response::Result) -> Self {
        ServiceReply::Plain { result, replayed: false }
    }
}

impl ServiceReply {
    fn from_write<T>(written: WriteOutcome<T>, result: impl FnOnce(T) -> response::Result) -> Self {
        ServiceReply::Plain { replayed: written.replayed, result: result(written.value) }
    }
}

impl NodeServices {
    /// The public calls about the node.
    pub(crate) async fn call_public(&self, call: Call) -> Result<response::Result> {
        match call {
            Call::Health(_) => {
                Ok(response::Result::Health(self.health.report(&*self.engine, &self.hub).await))
            }
            Call::Status(_) => Ok(response::Result::Status(self.status())),
            _ => Err(Error::internal("this service does not answer the call")),
        }
    }

    /// Calls of a verified caller.
    pub(crate) async fn call(
        &self,
        auth: &Arc<AuthService>,
        caller: &Caller,
        call: Call,
        options: CallOptions,
    ) -> Result<ServiceReply> {
        match call {
            Call::Put(request) => storage::put(&*self.engine, caller, request, options).await,
            Call::Get(request) => storage::get(&*self.engine, caller, request, options).await,
            Call::Delete(request) => storage::delete(&*self.engine, caller, request, options).await,
            Call::Exists(request) => storage::exists(&*self.engine, caller, request, options).await,
            Call::List(request) => storage::list(&*self.engine, caller, request, options).await,
            Call::Query(request) => database::query(&*self.engine, caller, request, options).await,
            Call::Transaction(request) => {
                database::transaction(&*self.engine, caller, request, options).await
            }
            Call::Publish(request) => {
                pubsub::publish(&*self.engine, &self.hub, caller, request, options).await
            }
            // Boxed: a call's future is as large as its largest branch, and the calls above come by
            // the thousand.
            rare => Box::pin(self.rare_call(auth, caller, rare, options)).await,
        }
    }

    /// Calls that do not come by the thousand.
    async fn rare_call(
        &self,
        auth: &Arc<AuthService>,
        caller: &Caller,
        call: Call,
        options: CallOptions,
    ) -> Result<ServiceReply> {
        match call {
            Call::Peers(_) => self.peers(caller).map(ServiceReply::from),
            Call::ConnectPeer(request) => {
                self.connect_peer(request, &options).await.map(ServiceReply::from)
            }
            Call::DisconnectPeer(request) => {
                self.disconnect_peer(request).await.map(ServiceReply::from)
            }
            Call::WhoAmI(_) => Ok(control::who_am_i(caller).into()),
            Call::CreateApiKey(request) => {
                keys::create(auth, caller, request).await.map(ServiceReply::from)
            }
            Call::ListApiKeys(_) => keys::list(auth, caller).await.map(ServiceReply::from),
            Call::RevokeApiKey(request) => {
                keys::revoke(auth, caller, request).await.map(ServiceReply::from)
            }
            Call::ListApps(_) => {
                apps::list(&*self.engine, caller, options).await.map(ServiceReply::from)
            }
            Call::CreateApp(request) => apps::create(&*self.engine, caller, request, options).await,
            Call::GetApp(request) => apps::get(&*self.engine, caller, &request.app_id, options)
                .await
                .map(ServiceReply::from),
            Call::UpdateApp(request) => apps::update(&*self.engine, caller, request, options).await,
            Call::DeleteApp(request) => apps::delete(&*self.engine, caller, request, options).await,

            Call::CreateTable(request) => {
                database::create_table(&*self.engine, caller, request, options).await
            }
            Call::DropTable(request) => {
                database::drop_table(&*self.engine, caller, request, options).await
            }
            Call::Schema(_) => database::schema(&*self.engine, caller, options).await,
            Call::Backup(_) => Ok(database::backup(Arc::clone(&self.engine), caller)),
            Call::ListBackups(_) => database::list_backups(&*self.engine).await,
            Call::Restore(request) => Ok(database::restore(
                Arc::clone(&self.engine),
                Arc::clone(auth),
                caller,
                request.name,
            )),
            Call::Export(_) => database::export(&*self.engine, caller).await,

            Call::Token(_) => keys::token(auth, caller).await.map(ServiceReply::from),
            Call::ListMembers(_) => members::list(auth, caller).await.map(ServiceReply::from),
            Call::SetMember(request) => {
                members::set(auth, caller, request).await.map(ServiceReply::from)
            }
            Call::RemoveMember(request) => {
                members::remove(auth, caller, request).await.map(ServiceReply::from)
            }
            Call::RotateSigningKey(_) => {
                members::rotate_signing_key(auth, caller).await.map(ServiceReply::from)
            }
            Call::RemoveSigningKey(request) => {
                members::remove_signing_key(auth, caller, request).await.map(ServiceReply::from)
            }

            Call::ListNamespaces(request) => {
                namespaces::list(&*self.engine, auth, caller, request, options)
                    .await
                    .map(ServiceReply::from)
            }
            Call::GetNamespace(_) => {
                namespaces::get(&*self.engine, auth, caller, options).await.map(ServiceReply::from)
            }
            Call::DeleteNamespace(request) => {
                namespaces::delete(self, auth, caller, request, options)
                    .await
                    .map(ServiceReply::from)
            }

            Call::InitCluster(_)
            | Call::CreateJoinToken(_)
            | Call::ClusterStatus(_)
            | Call::RemoveNode(_)
            | Call::StepDown(_) => {
                let by = &caller.identity().subject;
                self.cluster.operator_call(by, call).await.map(ServiceReply::from)
            }

            Call::Subscribe(request) => pubsub::subscribe(&self.hub, caller, request),
            Call::Topics(_) => pubsub::topics(&self.hub, caller),
            Call::LeaderPosition(_)
            | Call::FollowLog(_)
            | Call::FetchFiles(_)
            | Call::Checksum(_)
            | Call::DataHealth(_)
            | Call::LeaderWrite(_) => Err(Error::internal("this service does not answer the call")),
            Call::Health(_) | Call::Status(_) => {
                self.call_public(call).await.map(ServiceReply::from)
            }
            Call::Put(_)
            | Call::Get(_)
            | Call::Delete(_)
            | Call::Exists(_)
            | Call::List(_)
            | Call::Query(_)
            | Call::Transaction(_)
            | Call::Publish(_)
            | Call::Challenge(_)
            | Call::SignIn(_)
            | Call::RegisterApp(_)
            | Call::CreateApiKeyByProof(_)
            | Call::Refresh(_)
            | Call::Logout(_)
            | Call::Jwks(_)
            | Call::NodeHello(_)
            | Call::NodeProof(_)
            | Call::JoinCluster(_)
            | Call::ExchangeNodes(_)
            | Call::ReplaceClusterKey(_) => {
                Err(Error::internal("this service does not answer the call"))
            }
        }
    }
}

/// Reads the consistency of a request.
fn parse_consistency(number: i32) -> Result<debros_proto::rpc::Consistency> {
    debros_proto::rpc::Consistency::try_from(number).map_err(|_| {
        Error::invalid(format!(
            "{number} is not a consistency: use weak, none, linearizable or strong"
        ))
    })
}
