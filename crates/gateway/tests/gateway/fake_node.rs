//! A node in memory: real requests, real answers, no disk and no network.

use crate::fake_auth;
use bytes::Bytes;
use debros_client::{Config, Handler};
use debros_p2p::{CallContext, EventSource, Reply};
use debros_proto::rpc::{self, request::Call, response::Result as Answer};
use debros_proto::{Code, Error};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::{Notify, Semaphore};

/// Messages that a subscription holds before it drops the oldest.
pub(crate) const QUEUE: usize = 64;

/// A namespace and a name in it.
type Place = (String, String);
type Store = BTreeMap<Place, (Bytes, u64)>;

/// A node in memory.
#[derive(Default)]
pub(crate) struct FakeNode {
    store: Mutex<Store>,
    versions: AtomicU64,
    apps: Mutex<BTreeMap<Place, rpc::App>>,
    topics: Mutex<HashMap<Place, Vec<Weak<Queue>>>>,
    /// Requests as they came, without their bodies' meaning.
    pub(crate) seen: Mutex<Vec<rpc::Request>>,
    /// SQL "SLEEP", and reading the key "SLEEP", wait until a permit is added here.
    pub(crate) wake: Arc<Gate>,
    /// Calls of "SLEEP" that wait now.
    pub(crate) asleep: Arc<AtomicUsize>,
    pub(crate) unhealthy: AtomicBool,
    pub(crate) health_calls: AtomicUsize,
    /// Subscriptions that were ended by their owner.
    pub(crate) left: Arc<AtomicUsize>,
    /// Publishing answers with this error.
    pub(crate) refuse_publish: AtomicBool,
}

/// What a credential stands for: `ak_<name>:<namespace>` may act in its namespace, `op_…` in any.
struct Caller {
    namespace: String,
    operator: bool,
}

impl FakeNode {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(crate) fn client(self: &Arc<Self>) -> debros_client::Client {
        debros_client::Client::local(Arc::new(Handle(Arc::clone(self))), &Config::new(""))
    }

    pub(crate) fn last_request(&self) -> rpc::Request {
        self.seen.lock().unwrap().last().cloned().expect("a request reached the node")
    }

    pub(crate) fn value(&self, namespace: &str, key: &str) -> Option<Bytes> {
        let key = (namespace.to_owned(), key.to_owned());
        self.store.lock().unwrap().get(&key).map(|(value, _)| value.clone())
    }

    pub(crate) fn subscribers(&self, namespace: &str, topic: &str) -> usize {
        let topics = self.topics.lock().unwrap();
        let queues = topics.get(&(namespace.to_owned(), topic.to_owned()));
        queues.map_or(0, |queues| queues.iter().filter(|queue| queue.strong_count() > 0).count())
    }

    /// Ends every subscription of a topic with an error.
    pub(crate) fn revoke_subscriptions(&self) {
        for queue in self.topics.lock().unwrap().values().flatten().filter_map(Weak::upgrade) {
            queue.state.lock().unwrap().ended =
                Some(Error::new(Code::Unauthenticated, "the key was revoked"));
            queue.changed.notify_one();
        }
    }

    fn caller(&self, request: &rpc::Request) -> Result<Caller, Error> {
        let credential = request.credential.as_str();
        if credential.starts_with("op_good") {
            return Ok(Caller { namespace: request.namespace.clone(), operator: true });
        }
        let own = credential
            .strip_prefix("ak_good:")
            .or_else(|| credential.strip_prefix("ey.good."))
            .ok_or_else(|| Error::new(Code::Unauthenticated, "the credential is not valid"))?;
        if !request.namespace.is_empty() && request.namespace != own {
            return Err(Error::new(
                Code::NamespaceMismatch,
                "namespace mismatch: the key belongs to another namespace",
            ));
        }
        Ok(Caller { namespace: own.to_owned(), operator: false })
    }

    async fn answer(&self, request: rpc::Request) -> Result<Reply, Error> {
        let call = request.call.clone().expect("a call");
        match call {
            Call::Health(_) => return Ok(plain(Answer::Health(self.health()))),
            Call::Status(_) => return Ok(plain(Answer::Status(status()))),
            _ => {}
        }
        if let Some(answer) = fake_auth::public(&call) {
            return answer.map(plain);
        }
        let caller = self.caller(&request)?;
        let namespace = caller.namespace.clone();
        if let Some(answer) = fake_auth::known(&call, &namespace) {
            return answer.map(plain);
        }
        let operators_only = || {
            if caller.operator {
                Ok(())
            } else {
                Err(Error::new(Code::Forbidden, "only operators may do this"))
            }
        };
        let answer = match call {
            Call::WhoAmI(_) if request.credential.starts_with("ey.") => {
                Answer::WhoAmI(rpc::WhoAmIResponse {
                    method: "jwt".into(),
                    subject: fake_auth::WALLET.into(),
                    wallet: fake_auth::WALLET.into(),
                    namespace,
                    role: "owner".into(),
                    created_at: 1000,
                    expires_at: 901_000,
                    ..Default::default()
                })
            }
            Call::WhoAmI(_) => Answer::WhoAmI(rpc::WhoAmIResponse {
                method: if caller.operator { "operator" } else { "api_key" }.into(),
                subject: "key_1".into(),
                namespace,
                role: "writer".into(),
                key_prefix: "ak_g".into(),
                created_at: 1000,
                operator: caller.operator,
                ..Default::default()
            }),
            Call::Peers(_) => Answer::Peers(rpc::PeersResponse {
                peers: vec![rpc::Peer {
                    id: "12D3".into(),
                    connected: true,
                    last_seen: 1000,
                    ..Default::default()
                }],
            }),
            Call::ConnectPeer(connect) => {
                operators_only()?;
                Answer::ConnectPeer(rpc::ConnectPeerResponse { peer_id: connect.multiaddr })
            }
            Call::DisconnectPeer(_) => {
                operators_only()?;
                Answer::DisconnectPeer(rpc::DisconnectPeerResponse { disconnected: true })
            }
            Call::Put(put) => Answer::Put(self.put(namespace, put)?),
            Call::Get(get) => {
                if get.key == "SLEEP" {
                    self.sleep().await;
                }
                Answer::Get(rpc::GetResponse { entry: self.entry(namespace, &get.key)? })
            }
            Call::Exists(exists) => Answer::Exists(rpc::ExistsResponse {
                exists: self.entry(namespace, &exists.key)?.is_some(),
            }),
            Call::Delete(delete) => Answer::Delete(self.delete(namespace, delete)?),
            Call::List(list) => Answer::List(self.list(&namespace, list)?),
            Call::Query(query) => {
                let statement = query.statement.expect("a statement");
                Answer::Query(rpc::QueryResponse { result: Some(self.run(statement).await?) })
            }
            Call::Transaction(transaction) => {
                let mut results = Vec::new();
                for (index, statement) in transaction.statements.into_iter().enumerate() {
                    results.push(
                        self.run(statement).await.map_err(|error| error.at_statement(index))?,
                    );
                }
                Answer::Transaction(rpc::TransactionResponse { results })
            }
            Call::CreateTable(_) => Answer::CreateTable(rpc::CreateTableResponse {}),
            Call::DropTable(drop) if drop.table == "missing" => {
                return Err(Error::new(Code::NotFound, "there is no such table"));
            }
            Call::DropTable(_) => Answer::DropTable(rpc::DropTableResponse {}),
            Call::Schema(_) => Answer::Schema(schema()),
            Call::ListApps(_) => {
                let apps = self.apps.lock().unwrap();
                let items = apps
                    .iter()
                    .filter(|((ns, _), _)| *ns == namespace)
                    .map(|(_, app)| app.clone())
                    .collect();
                Answer::ListApps(rpc::ListAppsResponse { items })
            }
            Call::CreateApp(create) => {
                let app = rpc::App {
                    app_id: format!("app_{}", self.versions.fetch_add(1, Ordering::Relaxed)),
                    name: create.name,
                    public_key: create.public_key,
                    namespace: namespace.clone(),
                    created_at: 1000,
                    updated_at: 1000,
                    ..Default::default()
                };
                self.apps.lock().unwrap().insert((namespace, app.app_id.clone()), app.clone());
                Answer::App(rpc::AppResponse { app: Some(app) })
            }
            Call::GetApp(get) => {
                let found = self.apps.lock().unwrap().get(&(namespace, get.app_id)).cloned();
                Answer::App(rpc::AppResponse { app: Some(found.ok_or_else(no_app)?) })
            }
            Call::UpdateApp(update) => {
                let mut apps = self.apps.lock().unwrap();
                let app = apps.get_mut(&(namespace, update.app_id)).ok_or_else(no_app)?;
                app.name = update.name.unwrap_or_else(|| app.name.clone());
                app.public_key = update.public_key.unwrap_or_else(|| app.public_key.clone());
                Answer::App(rpc::AppResponse { app: Some(app.clone()) })
            }
            Call::DeleteApp(delete) => {
                self.apps.lock().unwrap().remove(&(namespace, delete.app_id)).ok_or_else(no_app)?;
                Answer::DeleteApp(rpc::DeleteAppResponse {})
            }
            Call::Publish(publish) => {
                if self.refuse_publish.load(Ordering::Relaxed) {
                    return Err(Error::new(Code::Forbidden, "the key may not publish"));
                }
                self.publish(&namespace, &publish.topic, &publish.data);
                Answer::Publish(rpc::PublishResponse {})
            }
            Call::Topics(_) => {
                let topics = self.topics.lock().unwrap();
                let mut names: Vec<String> = topics
                    .iter()
                    .filter(|((ns, _), queues)| {
                        *ns == namespace && queues.iter().any(|queue| queue.strong_count() > 0)
                    })
                    .map(|((_, topic), _)| topic.clone())
                    .collect();
                names.sort();
                Answer::Topics(rpc::TopicsResponse { topics: names })
            }
            Call::Subscribe(subscribe) => {
                let events = self.subscribe(namespace, subscribe.topic);
                let opened = rpc::Response {
                    result: Some(Answer::Subscribe(rpc::SubscribeResponse {})),
                    ..Default::default()
                };
                return Ok(Reply::Stream(opened, events));
            }
            other => return Err(Error::new(Code::Unimplemented, format!("{other:?}"))),
        };
        Ok(plain(answer))
    }

    fn health(&self) -> rpc::HealthResponse {
        self.health_calls.fetch_add(1, Ordering::Relaxed);
        let ok = !self.unhealthy.load(Ordering::Relaxed);
        let error = if ok { String::new() } else { "the disk is full".into() };
        let check = rpc::HealthCheck { name: "database_write".into(), ok, error, took_us: 5 };
        rpc::HealthResponse { checks: vec![check], checked_at: 1000 }
    }

    async fn sleep(&self) {
        let _asleep = Asleep::new(&self.asleep);
        self.wake.0.acquire().await.expect("never closed").forget();
    }

    fn entry(&self, namespace: String, key: &str) -> Result<Option<rpc::Entry>, Error> {
        let key = debros_proto::Key::new(key)?;
        let store = self.store.lock().unwrap();
        Ok(store.get(&(namespace, key.as_str().to_owned())).map(|(value, version)| rpc::Entry {
            value: value.clone(),
            version: *version,
            expires_at: None,
        }))
    }

    fn put(&self, namespace: String, put: rpc::PutRequest) -> Result<rpc::PutResponse, Error> {
        let key = debros_proto::Key::new(&put.key)?;
        let mut store = self.store.lock().unwrap();
        let key = (namespace, key.as_str().to_owned());
        check(put.condition, store.get(&key).map(|(_, version)| *version))?;
        let version = self.versions.fetch_add(1, Ordering::Relaxed) + 1;
        let size = put.value.len() as u64;
        store.insert(key, (put.value, version));
        Ok(rpc::PutResponse { version, size })
    }

    fn delete(
        &self,
        namespace: String,
        delete: rpc::DeleteRequest,
    ) -> Result<rpc::DeleteResponse, Error> {
        let mut store = self.store.lock().unwrap();
        let key = (namespace, delete.key);
        check(delete.condition, store.get(&key).map(|(_, version)| *version))?;
        Ok(rpc::DeleteResponse { deleted: store.remove(&key).is_some() })
    }

    fn list(&self, namespace: &str, list: rpc::ListRequest) -> Result<rpc::ListResponse, Error> {
        let limit = match list.limit {
            0 => 100,
            limit @ 1..=1000 => limit as usize,
            _ => return Err(Error::invalid("limit is over 1000")),
        };
        let store = self.store.lock().unwrap();
        let mut keys: Vec<String> = store
            .keys()
            .filter(|(ns, key)| {
                ns == namespace && key.starts_with(&list.prefix) && *key > list.cursor
            })
            .map(|(_, key)| key.clone())
            .take(limit + 1)
            .collect();
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next_cursor =
            if more { keys.last().cloned().unwrap_or_default() } else { String::new() };
        Ok(rpc::ListResponse { keys, next_cursor })
    }

    /// "ARGS" returns its arguments as a row; the other words are faults.
    async fn run(&self, statement: rpc::Statement) -> Result<rpc::StatementResult, Error> {
        match statement.sql.as_str() {
            "ARGS" => Ok(rpc::StatementResult {
                columns: (0..statement.args.len()).map(|index| format!("c{index}")).collect(),
                rows: vec![rpc::Row { values: statement.args }],
                ..Default::default()
            }),
            "ROWS" => Ok(rpc::StatementResult {
                columns: vec!["a".into()],
                rows: (0..100_000_i64)
                    .map(|row| rpc::Row { values: vec![row.into(), "twenty bytes of text".into()] })
                    .collect(),
                ..Default::default()
            }),
            "WRITE" => Ok(rpc::StatementResult {
                rows_affected: Some(2),
                last_insert_id: Some(9_007_199_254_740_993),
                ..Default::default()
            }),
            "SLEEP" => {
                self.sleep().await;
                Ok(rpc::StatementResult::default())
            }
            "PANIC" => panic!("a defect"),
            "CONSTRAINT" => Err(Error::new(Code::Constraint, "UNIQUE constraint failed: t.a")),
            "BUSY" => Err(Error::new(Code::Overloaded, "too much waits")
                .retry_after(std::time::Duration::from_millis(1500))),
            "LATE" => Err(Error::new(Code::UnknownOutcome, "it may have happened or not")),
            "FULL" => Err(Error::new(Code::DatabaseFull, "the database is full")),
            "MISMATCH" => {
                Err(Error::new(Code::IdempotencyMismatch, "the key was used with another request"))
            }
            _ => Err(Error::new(Code::Sql, "near \"BAD\": syntax error")),
        }
    }

    pub(crate) fn publish(&self, namespace: &str, topic: &str, data: &Bytes) {
        let mut topics = self.topics.lock().unwrap();
        let Some(queues) = topics.get_mut(&(namespace.to_owned(), topic.to_owned())) else {
            return;
        };
        queues.retain(|queue| queue.strong_count() > 0);
        for queue in queues.iter().filter_map(Weak::upgrade) {
            queue.push(topic, data);
        }
    }

    fn subscribe(&self, namespace: String, topic: String) -> EventSource {
        let queue = Arc::new(Queue::default());
        self.topics
            .lock()
            .unwrap()
            .entry((namespace, topic))
            .or_default()
            .push(Arc::downgrade(&queue));
        let leaving = Leaving(Arc::clone(&self.left));
        futures::stream::unfold((queue, leaving), |(queue, leaving)| async move {
            let event = queue.next().await;
            Some((event, (queue, leaving)))
        })
        .boxed()
    }
}

/// Lets waiting calls through, one for each permit.
pub(crate) struct Gate(pub(crate) Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

struct Handle(Arc<FakeNode>);

impl Handler for Handle {
    fn call(
        &self,
        _: CallContext,
        request: rpc::Request,
    ) -> BoxFuture<'static, Result<Reply, Error>> {
        let node = Arc::clone(&self.0);
        async move {
            node.seen.lock().unwrap().push(request.clone());
            node.answer(request).await
        }
        .boxed()
    }
}

struct Asleep(Arc<AtomicUsize>);

impl Asleep {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Notify,
}

#[derive(Default)]
struct QueueState {
    messages: std::collections::VecDeque<rpc::Message>,
    missed: u64,
    ended: Option<Error>,
}

impl Queue {
    fn push(&self, topic: &str, data: &Bytes) {
        let mut state = self.state.lock().unwrap();
        if state.messages.len() == QUEUE {
            state.messages.pop_front();
            state.missed += 1;
        }
        state.messages.push_back(rpc::Message { topic: topic.to_owned(), data: data.clone() });
        self.changed.notify_one();
    }

    async fn next(&self) -> Result<rpc::Event, Error> {
        use rpc::event::Kind;
        loop {
            {
                let mut state = self.state.lock().unwrap();
                if let Some(error) = &state.ended {
                    return Err(error.clone());
                }
                if state.missed > 0 {
                    let count = std::mem::take(&mut state.missed);
                    return Ok(rpc::Event { kind: Some(Kind::Missed(rpc::Missed { count })) });
                }
                if let Some(message) = state.messages.pop_front() {
                    return Ok(rpc::Event { kind: Some(Kind::Message(message)) });
                }
            }
            self.changed.notified().await;
        }
    }
}

fn check(condition: Option<rpc::Condition>, version: Option<u64>) -> Result<(), Error> {
    let condition = condition.unwrap_or_default();
    let holds = condition.if_version.is_none_or(|wanted| version == Some(wanted))
        && condition.if_exists.is_none_or(|wanted| version.is_some() == wanted)
        && condition.if_not_version.is_none_or(|unwanted| version != Some(unwanted));
    if holds {
        Ok(())
    } else {
        Err(Error::new(Code::PreconditionFailed, "the condition does not hold"))
    }
}

fn no_app() -> Error {
    Error::new(Code::NotFound, "there is no such application")
}

fn plain(answer: Answer) -> Reply {
    Reply::Response(rpc::Response { result: Some(answer), ..Default::default() })
}

fn status() -> rpc::StatusResponse {
    rpc::StatusResponse {
        node_id: "node-1".into(),
        peer_count: 3,
        database_size: 4096,
        uptime_ms: 5000,
        ..Default::default()
    }
}

fn schema() -> rpc::SchemaResponse {
    let column = rpc::Column {
        name: "id".into(),
        r#type: "INTEGER".into(),
        nullable: false,
        default: None,
        primary_key: true,
    };
    let index =
        rpc::Index { name: "i".into(), unique: true, columns: vec!["id".into()], sql: None };
    let table = rpc::Table {
        name: "t".into(),
        sql: "CREATE TABLE t (id INTEGER PRIMARY KEY)".into(),
        columns: vec![column],
        indexes: vec![index],
        kind: "table".into(),
    };
    rpc::SchemaResponse { tables: vec![table] }
}
