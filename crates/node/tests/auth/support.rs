//! Nodes that share a database and a clock, and wallets that sign.

use debros_auth::{PrivateKey, Wallet};
use debros_client::rpc::{
    ChallengeRequest, ChallengeResponse, Proof, Row, SessionResponse, Statement,
};
use debros_client::{Client, Code, Result};
use debros_engine::{CallOptions, Engine, TargetDatabase};
use debros_node::{Clock, NodeConfig};
use debros_testkit::TestNode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a test waits for what has to come.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a revocation may take to reach another node.
pub(crate) const FIVE_SECONDS: Duration = Duration::from_secs(5);

/// A network of nodes on one database.
pub(crate) struct Network {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) clock: Clock,
    _folder: TempDir,
}

impl Network {
    pub(crate) async fn new() -> Self {
        Self::with(Clock::movable()).await
    }

    async fn with(clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = debros_testkit::engine(folder.path()).await;
        Self { engine, clock, _folder: folder }
    }

    pub(crate) async fn node(&self) -> TestNode {
        self.node_with(|_| {}).await
    }

    pub(crate) async fn node_with(&self, change: impl FnOnce(&mut NodeConfig)) -> TestNode {
        TestNode::start_on(Arc::clone(&self.engine), |config| {
            config.clock = self.clock.clone();
            change(config);
        })
        .await
    }

    pub(crate) async fn restart(&self, node: TestNode) -> TestNode {
        node.restart_with(|config| config.clock = self.clock.clone()).await
    }

    /// Rows of the system's database.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Row> {
        let options = CallOptions {
            consistency: Default::default(),
            deadline: Instant::now() + TIMEOUT,
            idempotency_key: None,
            caller: Default::default(),
            read_only: false,
        };
        self.engine
            .query(&TargetDatabase::System, Statement::from(sql), options)
            .await
            .unwrap()
            .value
            .rows
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.rows(&format!("SELECT count(*) FROM {table}")).await[0].values[0].as_integer().unwrap()
    }

    /// The owner of a namespace.
    pub(crate) async fn owner(&self, namespace: &str) -> Option<String> {
        let rows =
            self.rows(&format!("SELECT owner FROM namespaces WHERE name = '{namespace}'")).await;
        rows.first().and_then(|row| row.values[0].as_text().map(str::to_owned))
    }
}

/// One node with a network of its own.
pub(crate) async fn one_node() -> (Network, TestNode) {
    let network = Network::new().await;
    let node = network.node().await;
    (network, node)
}

/// As [`one_node`], with a clock that stands still: for limits by the second. Nothing that waits
/// for the clock comes.
pub(crate) async fn one_node_at_one_moment() -> (Network, TestNode) {
    let network = Network::with(Clock::stopped()).await;
    let node = network.node().await;
    (network, node)
}

/// The wallet with this number.
pub(crate) fn wallet(number: u8) -> PrivateKey {
    PrivateKey::from_bytes(&[number; 32]).unwrap()
}

pub(crate) fn address(number: u8) -> Wallet {
    wallet(number).wallet()
}

pub(crate) async fn challenge(
    client: &Client,
    wallet: Wallet,
    namespace: &str,
) -> ChallengeResponse {
    let request = ChallengeRequest {
        wallet: wallet.to_string(),
        namespace: namespace.into(),
        ..Default::default()
    };
    client.auth().challenge(request).await.unwrap()
}

/// A proof that holds, once.
pub(crate) async fn proof(client: &Client, key: &PrivateKey, namespace: &str) -> Proof {
    let challenge = challenge(client, key.wallet(), namespace).await;
    signed(&challenge, key, &challenge.message)
}

/// A proof with a signature over any text.
pub(crate) fn signed(challenge: &ChallengeResponse, key: &PrivateKey, text: &str) -> Proof {
    Proof {
        wallet: challenge.wallet.clone(),
        namespace: challenge.namespace.clone(),
        nonce: challenge.nonce.clone(),
        signature: key.sign_personal(text),
        ..Default::default()
    }
}

pub(crate) async fn try_sign_in(
    client: &Client,
    key: &PrivateKey,
    namespace: &str,
) -> Result<SessionResponse> {
    client.auth().sign_in(proof(client, key, namespace).await).await
}

/// Signs the wallet with this number in.
pub(crate) async fn sign_in(node: &TestNode, number: u8, namespace: &str) -> SessionResponse {
    try_sign_in(&node.client_without_credential().await, &wallet(number), namespace).await.unwrap()
}

/// A client with a new session.
pub(crate) async fn session(node: &TestNode, number: u8, namespace: &str) -> Client {
    let opened = sign_in(node, number, namespace).await;
    node.client_with(namespace, &opened.access_token).await
}

pub(crate) fn code<T>(result: Result<T>) -> Option<Code> {
    result.err().map(|error| error.code)
}
