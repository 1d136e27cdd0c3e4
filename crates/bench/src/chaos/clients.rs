//! Clients of all gateways, which note what they were told.

use super::random::Random;
use super::register::{Moment, RegisterAction, RegisterCall};
use super::register_pool::{PickedRegister, RegisterPool};
use anyhow::{Context as _, Result, bail};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Nothing keeps a row from being there twice but the idempotency key. `registers` is overwritten.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE once (id TEXT NOT NULL);
    CREATE TABLE lefts (id TEXT NOT NULL);
    CREATE TABLE rights (id TEXT NOT NULL);
    CREATE TABLE registers (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
    CREATE INDEX once_id ON once (id);
    CREATE INDEX lefts_id ON lefts (id);
    CREATE INDEX rights_id ON rights (id);";
/// How long a client waits for an answer: longer than a node that is cut off needs to refuse.
const ANSWER_WITHIN: Duration = Duration::from_secs(7);
const PAUSE: Duration = Duration::from_millis(20);
/// The code of an answer of a node whose disk has no room.
pub(crate) const DISK_FULL: &str = "disk_full";
/// After that a client that has no success calls that a fault of the cluster's.
const SUCCESS_WITHIN: Duration = Duration::from_secs(120);

/// A way to the cluster, by all of its gateways.
#[derive(Clone, Debug)]
pub(crate) struct Gateways {
    client: reqwest::Client,
    addresses: Vec<SocketAddr>,
    key: String,
}

/// What came back of a call.
#[derive(Debug)]
pub(crate) enum CallOutcome {
    /// A success, with its body.
    Done(Vec<u8>),
    /// There is no such key.
    NotFound,
    /// It surely was not done.
    Refused(String),
    /// It may have been done.
    Unknown(String),
    /// An answer that no fault explains.
    Wrong(String),
}

impl Gateways {
    pub(crate) fn new(addresses: Vec<SocketAddr>, key: &str) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build()?;
        Ok(Self { client, addresses, key: key.to_owned() })
    }

    pub(crate) fn count(&self) -> usize {
        self.addresses.len()
    }

    fn request(&self, gateway: usize, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.addresses[gateway]);
        self.client.request(method, url).bearer_auth(&self.key)
    }

    pub(crate) fn post(&self, gateway: usize, path: &str, body: &Value) -> RequestBuilder {
        self.request(gateway, Method::POST, path).json(body)
    }

    pub(crate) fn query(
        &self,
        gateway: usize,
        sql: &str,
        args: Value,
        level: &str,
    ) -> RequestBuilder {
        let body = json!({ "sql": sql, "args": args, "consistency": level });
        self.post(gateway, "/v1/db/query", &body)
    }

    fn value(&self, gateway: usize, method: Method, key: &str) -> RequestBuilder {
        self.request(gateway, method, "/v1/storage").query(&[("key", key)])
    }

    /// The same gateways, with another credential.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// Rows of a query that must succeed in the end.
    pub(crate) async fn rows(&self, gateway: usize, sql: &str, level: &str) -> Result<Vec<Value>> {
        let began = Instant::now();
        loop {
            match send(self.query(gateway, sql, json!([]), level).timeout(SUCCESS_WITHIN)).await {
                CallOutcome::Done(body) => {
                    let mut answer: Value = serde_json::from_slice(&body)?;
                    let Value::Array(rows) = answer["rows"].take() else { bail!("no rows: {sql}") };
                    return Ok(rows);
                }
                other if began.elapsed() > SUCCESS_WITHIN => bail!("{sql}: {other:?}"),
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

pub(crate) async fn send(request: RequestBuilder) -> CallOutcome {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => {
            return CallOutcome::Refused("no connection".to_owned());
        }
        Err(error) if error.is_timeout() => {
            return CallOutcome::Unknown("no answer in time".to_owned());
        }
        Err(_) => return CallOutcome::Unknown("the connection broke off".to_owned()),
    };
    let status = response.status().as_u16();
    let Ok(body) = response.bytes().await else {
        return CallOutcome::Unknown("the answer broke off".to_owned());
    };
    let text = || format!("{status} {}", String::from_utf8_lossy(&body));
    let code = || {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    };
    match status {
        200..300 => CallOutcome::Done(body.to_vec()),
        404 => CallOutcome::NotFound,
        503 if code() != "cancelled" => CallOutcome::Refused(format!("503 {}", code())),
        503 | 504 => CallOutcome::Unknown(format!("{status} {}", code())),
        // The verdict asks whether a disk was full.
        507 if code() == DISK_FULL => CallOutcome::Refused(format!("507 {DISK_FULL}")),
        _ => CallOutcome::Wrong(text()),
    }
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) gateways: Gateways,
    pub(crate) began: Instant,
    pub(crate) stop: AtomicBool,
    pub(crate) next_value: AtomicU64,
    pub(crate) registers: RegisterPool,
}

impl Shared {
    fn now(&self) -> Moment {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(Moment::MAX)
    }
}

/// What a client was told.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Rows of `once` that were acknowledged.
    pub(crate) once: Vec<String>,
    /// Transactions that were acknowledged: the same id in `lefts` and `rights`.
    pub(crate) pairs: Vec<String>,
    pub(crate) registers: BTreeMap<String, Vec<RegisterCall>>,
    /// When writes were acknowledged.
    pub(crate) acknowledged: Vec<Moment>,
    /// Calls that were answered with success, of which some are reads.
    pub(crate) done: u64,
    /// Calls that were made again under their key.
    pub(crate) repeated: u64,
    /// Why calls surely were not done, and how often.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Why it is not known whether calls were done, and how often.
    pub(crate) unknown: BTreeMap<String, u64>,
    pub(crate) violations: Vec<String>,
}

impl Journal {
    fn count(&mut self, outcome: &CallOutcome) {
        match outcome {
            CallOutcome::Done(_) | CallOutcome::NotFound => self.done += 1,
            CallOutcome::Refused(why) => *self.refusals.entry(why.clone()).or_default() += 1,
            CallOutcome::Unknown(why) => *self.unknown.entry(why.clone()).or_default() += 1,
            CallOutcome::Wrong(_) => {}
        }
    }
}

/// One client.
#[derive(Debug)]
pub(crate) struct ChaosClient {
    pub(crate) number: u64,
    pub(crate) random: Random,
    pub(crate) shared: Arc<Shared>,
    journal: Journal,
}

impl ChaosClient {
    pub(crate) fn new(number: u64, seed: u64, shared: Arc<Shared>) -> Self {
        let random = Random::new(seed ^ (number + 1).wrapping_mul(0x9E37_79B9));
        Self { number, random, shared, journal: Journal::default() }
    }

    /// Calls until it is told to stop.
    pub(crate) async fn run(mut self) -> Journal {
        for step in 0_u64.. {
            if self.shared.stop.load(SeqCst) || self.journal.violations.len() > 20 {
                break;
            }
            let id = format!("{}-{step}", self.number);
            match self.random.below(10) {
                0..3 => self.insert_once(id).await,
                3..5 => self.insert_pair(id).await,
                5..7 => self.write_register().await,
                _ => self.read_register().await,
            }
        }
        self.journal
    }

    async fn send(&mut self, request: RequestBuilder) -> CallOutcome {
        let outcome = send(request).await;
        self.journal.count(&outcome);
        if matches!(outcome, CallOutcome::Refused(_)) {
            // Whatever refused it needs time.
            tokio::time::sleep(PAUSE).await;
        }
        outcome
    }

    /// Every other client stays with one gateway: what one node cannot do keeps not all clients
    /// waiting, and their pauses are those of the cluster.
    fn any_gateway(&mut self) -> usize {
        let count = self.shared.gateways.count();
        if self.number.is_multiple_of(2) {
            return usize::try_from(self.number / 2).unwrap_or_default() % count;
        }
        self.random.index(count)
    }

    fn note_acknowledged(&mut self) {
        let now = self.shared.now();
        self.journal.acknowledged.push(now);
    }

    /// Repeats a write under its key until it is acknowledged, through any gateway.
    async fn insist(
        &mut self,
        what: &str,
        request: impl Fn(&Gateways, usize) -> RequestBuilder,
    ) -> bool {
        let began = Instant::now();
        let shared = Arc::clone(&self.shared);
        loop {
            let gateway = self.any_gateway();
            let request = request(&shared.gateways, gateway).header("Idempotency-Key", what);
            match self.send(request).await {
                CallOutcome::Done(_) => {
                    self.note_acknowledged();
                    return true;
                }
                CallOutcome::Wrong(answer) => {
                    self.journal
                        .violations
                        .push(format!("{what} at node {}: {answer}", gateway + 1));
                    return false;
                }
                CallOutcome::NotFound => {
                    self.journal.violations.push(format!("{what} at node {}: 404", gateway + 1));
                    return false;
                }
                other if began.elapsed() > SUCCESS_WITHIN => {
                    self.journal.violations.push(format!(
                        "{what}: no success within {SUCCESS_WITHIN:?}, at last {other:?}"
                    ));
                    return false;
                }
                CallOutcome::Refused(_) | CallOutcome::Unknown(_) => self.journal.repeated += 1,
            }
        }
    }

    async fn insert_once(&mut self, id: String) {
        let sql = "INSERT INTO once VALUES (?)";
        let what = format!("once-{id}");
        let done = self
            .insist(&what, |gateways, gateway| gateways.query(gateway, sql, json!([id]), "weak"));
        if done.await {
            self.read_own(&id).await;
            self.journal.once.push(id);
        }
    }

    /// At any node, and at the weakest level that promises it.
    async fn read_own(&mut self, id: &str) {
        let gateway = self.any_gateway();
        let sql = "SELECT count(*) FROM once WHERE id = ?";
        let request = self.shared.gateways.query(gateway, sql, json!([id]), "weak");
        if let CallOutcome::Done(body) = self.send(request).await {
            let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
            if answer["rows"][0][0] != 1 {
                let at = self.shared.now() as f64 / 1e6;
                self.journal.violations.push(format!(
                    "at {at:.3} ms node {} has the acknowledged row {id} of once {} times",
                    gateway + 1,
                    answer["rows"][0][0]
                ));
            }
        }
    }

    async fn insert_pair(&mut self, id: String) {
        let statements = json!({ "statements": [
            { "sql": "INSERT INTO lefts VALUES (?)", "args": [id] },
            { "sql": "INSERT INTO rights VALUES (?)", "args": [id] },
        ] });
        let what = format!("pair-{id}");
        let done = self.insist(&what, |gateways, gateway| {
            gateways.post(gateway, "/v1/db/transaction", &statements)
        });
        if done.await {
            self.journal.pairs.push(id);
        }
    }

    /// Once, without a key: how it went may stay unknown.
    async fn write_register(&mut self) {
        let PickedRegister { name, is_sql } = self.shared.registers.pick(&mut self.random);
        let gateway = self.any_gateway();
        let value = self.shared.next_value.fetch_add(1, SeqCst);
        let gateways = &self.shared.gateways;
        let request = if is_sql {
            let sql = "INSERT OR REPLACE INTO registers VALUES (?, ?)";
            gateways.query(gateway, sql, json!([name, value]), "weak")
        } else {
            gateways.value(gateway, Method::PUT, &name).body(value.to_string())
        };
        let start = self.shared.now();
        let outcome = self.send(request).await;
        let end = match outcome {
            CallOutcome::Done(_) => {
                self.note_acknowledged();
                Some(self.shared.now())
            }
            CallOutcome::Refused(_) => return,
            CallOutcome::Unknown(_) => None,
            other => {
                self.journal.violations.push(format!("write of {name}: {other:?}"));
                None
            }
        };
        self.note(name, gateway, RegisterAction::Write(value), start, end);
    }

    async fn read_register(&mut self) {
        let PickedRegister { name, is_sql } = self.shared.registers.pick(&mut self.random);
        let gateway = self.any_gateway();
        let gateways = &self.shared.gateways;
        let request = if is_sql {
            let sql = "SELECT value FROM registers WHERE name = ?";
            gateways.query(gateway, sql, json!([name]), "linearizable")
        } else {
            // There is no parameter for the consistency: the lease makes it linearizable.
            gateways.value(gateway, Method::GET, &name)
        };
        let start = self.shared.now();
        let value = match self.send(request).await {
            CallOutcome::Done(body) => read_value(&body, is_sql),
            CallOutcome::NotFound if !is_sql => Ok(0),
            CallOutcome::Refused(_) | CallOutcome::Unknown(_) => return,
            other => Err(anyhow::anyhow!("{other:?}")),
        };
        let end = Some(self.shared.now());
        match value {
            Ok(value) => self.note(name, gateway, RegisterAction::Read(value), start, end),
            Err(error) => self.journal.violations.push(format!("read of {name}: {error:#}")),
        }
    }

    fn note(
        &mut self,
        name: String,
        gateway: usize,
        action: RegisterAction,
        start: Moment,
        end: Option<Moment>,
    ) {
        let call = RegisterCall { action, start, end, client: self.number, node: gateway + 1 };
        self.journal.registers.entry(name).or_default().push(call);
    }
}

fn read_value(body: &[u8], is_sql: bool) -> Result<u64> {
    if !is_sql {
        return std::str::from_utf8(body)?.parse().context("no number");
    }
    let answer: Value = serde_json::from_slice(body)?;
    let rows = answer["rows"].as_array().context("no rows")?;
    rows.first().map_or(Some(0), |row| row[0].as_u64()).context("no number")
}
