//! A node that is killed in the midst of writing keeps every write it has acknowledged, and no half
//! of a transaction.
//!
//! `CRASH_ROUNDS` says how often it is killed, on the same data (default 5, `make crash` 100).
//! `CRASH_SEED` repeats the same draws of another run, which prints its seed.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test prints what it draws and finds"
)]

#[allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
mod support;

use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::Node;
use support::http::{Answer, Http};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const CLIENTS: u64 = 16;
const SCHEMA: &str = "
    CREATE TABLE rows (id TEXT PRIMARY KEY, round INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE TABLE lefts (id TEXT PRIMARY KEY, round INTEGER NOT NULL);
    CREATE TABLE rights (id TEXT PRIMARY KEY, round INTEGER NOT NULL);
    CREATE TABLE totals (client INTEGER PRIMARY KEY, transactions INTEGER NOT NULL);
    CREATE TABLE once (client INTEGER NOT NULL, round INTEGER NOT NULL, step INTEGER NOT NULL);
    CREATE INDEX rows_round ON rows (round);
    CREATE INDEX lefts_round ON lefts (round);
    CREATE INDEX once_round ON once (round);";

/// One write of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A new key.
    Put,
    /// The client's one key that is put over and over.
    Overwrite,
    /// A new row.
    Insert,
    /// The same id into two tables, and one more in a counter.
    Transaction,
    /// A new row that nothing but the idempotency key keeps from being there twice.
    Once,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    client: u64,
    round: u64,
    step: u64,
    kind: Kind,
}

impl Step {
    fn id(self) -> String {
        format!("{}-{}-{}", self.client, self.round, self.step)
    }

    /// Any bytes and lengths, the same again for the same step.
    fn body(self) -> String {
        let mut random = Random(self.client << 40 ^ self.round << 20 ^ self.step ^ 0x5bd1_e995);
        let length = random.below(600);
        format!("{}:{}", self.id(), "x".repeat(usize::try_from(length).unwrap()))
    }

    fn key(self) -> String {
        match self.kind {
            Kind::Overwrite => format!("own/{}", self.client),
            _ => format!("put/{}", self.id()),
        }
    }

    /// Sends it once; an error means that nobody knows whether it happened.
    async fn send(self, http: &Http) -> Result<Answer, reqwest::Error> {
        let (id, round, client) = (self.id(), self.round, self.client);
        let post = |path: &str, body: Value| http.request(Method::POST, path).json(&body);
        let request = match self.kind {
            Kind::Put | Kind::Overwrite => {
                http.request(Method::PUT, "/v1/storage").query(&[("key", self.key())]).body(self.body())
            }
            Kind::Insert => post(
                "/v1/db/query",
                json!({ "sql": "INSERT INTO rows VALUES (?, ?, ?)", "args": [id, round, self.body()] }),
            ),
            Kind::Transaction => post(
                "/v1/db/transaction",
                json!({ "statements": [
                    { "sql": "INSERT INTO lefts VALUES (?, ?)", "args": [id, round] },
                    { "sql": "UPDATE totals SET transactions = transactions + 1 WHERE client = ?", "args": [client] },
                    { "sql": "INSERT INTO rights VALUES (?, ?)", "args": [id, round] },
                ] }),
            ),
            Kind::Once => post(
                "/v1/db/query",
                json!({ "sql": "INSERT INTO once VALUES (?, ?, ?)", "args": [client, round, self.step] }),
            )
            .header("Idempotency-Key", format!("once-{id}")),
        };
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        // The status may come and the body not: then the answer has not come.
        Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
    }
}

/// What a client knows when the node is gone.
struct Journal {
    acknowledged: Vec<Step>,
    /// Sent, and no answer came.
    unknown: Option<Step>,
}

struct Round {
    number: u64,
    seed: u64,
    http: Http,
    acknowledgements: AtomicUsize,
    /// Acknowledgements after which the node is killed.
    kill_after: usize,
    enough: Notify,
    killed: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9() {
    let rounds = number_from("CRASH_ROUNDS").unwrap_or(5);
    let seed = number_from("CRASH_SEED").unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
            as u64
            >> 8
    });
    println!("CRASH_SEED={seed} CRASH_ROUNDS={rounds}");
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("node");
    let mut node = Node::start(&data_dir);
    let key = node.api_key("crash");
    let http = Http::new(node.address, &key);
    http.create(SCHEMA).await;
    for client in 0..CLIENTS {
        http.query("INSERT INTO totals VALUES (?, 0)", json!([client])).await.ok();
    }

    let mut random = Random(seed);
    let mut acknowledged: Vec<Step> = Vec::new();
    for number in 0..rounds {
        let round = Arc::new(Round {
            number,
            seed: random.next(),
            http: Http::new(node.address, &key),
            acknowledgements: AtomicUsize::new(0),
            kill_after: usize::try_from(20 + random.below(1500)).unwrap(),
            enough: Notify::new(),
            killed: AtomicBool::new(false),
        });
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(run_client(client, Arc::clone(&round)));
        }
        round.enough.notified().await;
        // Anywhere between two answers, not only right behind one.
        std::thread::sleep(std::time::Duration::from_micros(random.below(3000)));
        round.killed.store(true, Ordering::SeqCst);
        node.program.kill();
        let journals = clients.join_all().await;

        node = Node::start(&data_dir);
        let http = Http::new(node.address, &key);
        verify(&http, number, &journals, &acknowledged, &mut random).await;
        for journal in journals {
            // What was sent again under its key and acknowledged now counts like the others.
            acknowledged.extend(journal.acknowledged);
            acknowledged.extend(journal.unknown.filter(|step| step.kind == Kind::Once));
        }
        println!("round {number}: {} writes acknowledged so far", acknowledged.len());
    }

    let http = Http::new(node.address, &key);
    verify_everything(&http, &acknowledged).await;
    node.stop();
    verify_files(&data_dir);
}

/// Writes until the node is gone.
async fn run_client(client: u64, round: Arc<Round>) -> Journal {
    let mut random = Random(round.seed ^ (client + 1).wrapping_mul(0x9E37_79B9));
    let mut journal = Journal { acknowledged: Vec::new(), unknown: None };
    for step in 0.. {
        let kind = match random.below(10) {
            0..3 => Kind::Put,
            3..5 => Kind::Overwrite,
            5..7 => Kind::Insert,
            7..9 => Kind::Transaction,
            _ => Kind::Once,
        };
        let step = Step { client, round: round.number, step, kind };
        match step.send(&round.http).await {
            Ok(answer) => {
                assert!(
                    (200..300).contains(&answer.status),
                    "{step:?}: {} {}",
                    answer.status,
                    answer.text()
                );
                journal.acknowledged.push(step);
                if round.acknowledgements.fetch_add(1, Ordering::SeqCst) + 1 == round.kill_after {
                    round.enough.notify_one();
                }
            }
            Err(error) => {
                assert!(
                    round.killed.load(Ordering::SeqCst),
                    "{step:?} failed before the node was killed: {error}"
                );
                journal.unknown = Some(step);
                break;
            }
        }
    }
    journal
}

/// What the last round acknowledged is there; what it did not acknowledge is there as a whole or
/// not at all.
async fn verify(
    http: &Http,
    round: u64,
    journals: &[Journal],
    before: &[Step],
    random: &mut Random,
) {
    let rows = column(http, "SELECT id || '=' || body FROM rows WHERE round = ?", round).await;
    let lefts = column(http, "SELECT id FROM lefts WHERE round = ? ORDER BY id", round).await;
    let rights = column(http, "SELECT id FROM rights WHERE round = ? ORDER BY id", round).await;
    assert_eq!(lefts, rights, "round {round}: a transaction is half there");
    for journal in journals {
        if let Some(step) = journal.unknown.filter(|step| step.kind == Kind::Once) {
            // Sent again twice: whether it had happened or not, it has happened once now.
            for _ in 0..2 {
                step.send(http).await.expect("an answer").ok();
            }
        }
        let sent = || journal.acknowledged.iter().chain(&journal.unknown);
        for step in &journal.acknowledged {
            match step.kind {
                Kind::Put => assert_value(http, *step).await,
                Kind::Overwrite | Kind::Once => {}
                Kind::Insert => {
                    let row = format!("{}={}", step.id(), step.body());
                    assert!(rows.binary_search(&row).is_ok(), "lost: {step:?}");
                }
                Kind::Transaction => {
                    assert!(lefts.binary_search(&step.id()).is_ok(), "lost: {step:?}")
                }
            }
        }
        if let Some(step) = journal.unknown.filter(|step| step.kind == Kind::Put) {
            let answer = http.get_value(&step.key()).await;
            assert!(
                answer.status == 404 || answer.body == step.body().as_bytes(),
                "half there: {step:?}"
            );
        }
        // The client's own key holds its last acknowledged value, or the one whose answer did not
        // come.
        let last = journal.acknowledged.iter().rfind(|step| step.kind == Kind::Overwrite);
        let unknown = journal.unknown.filter(|step| step.kind == Kind::Overwrite);
        if let Some(own) = last.copied().or(unknown) {
            let value = http.get_value(&own.key()).await;
            let allowed: Vec<String> =
                last.copied().into_iter().chain(unknown).map(Step::body).collect();
            let found = allowed.iter().any(|allowed| value.body == allowed.as_bytes());
            assert!(
                found || last.is_none(),
                "{}: {} {}, not one of {allowed:?}",
                own.key(),
                value.status,
                value.text()
            );
        }
        for row in sent().filter(|step| step.kind == Kind::Once) {
            let sql = "SELECT count(*) FROM once WHERE round = ? AND client = ? AND step = ?";
            let count = &http.rows(sql, json!([row.round, row.client, row.step])).await[0][0];
            assert_eq!(count, 1, "not once: {row:?}");
        }
    }
    let sent = |kind| {
        journals
            .iter()
            .flat_map(|j| j.acknowledged.iter().chain(&j.unknown))
            .filter(move |s| s.kind == kind)
    };
    assert!(rows.len() <= sent(Kind::Insert).count(), "rows that nobody sent");
    assert!(lefts.len() <= sent(Kind::Transaction).count(), "transactions that nobody sent");
    // Of the rounds before, a sample; all of it at the end.
    let puts: Vec<&Step> = before.iter().filter(|step| step.kind == Kind::Put).collect();
    for _ in 0..puts.len().min(50) {
        assert_value(http, *puts[usize::try_from(random.below(puts.len() as u64)).unwrap()]).await;
    }
}

/// Everything that was ever acknowledged is there.
async fn verify_everything(http: &Http, acknowledged: &[Step]) {
    for kind in [Kind::Put, Kind::Insert, Kind::Transaction, Kind::Once] {
        let steps: Vec<&Step> = acknowledged.iter().filter(|step| step.kind == kind).collect();
        let rounds: std::collections::BTreeSet<u64> = steps.iter().map(|step| step.round).collect();
        for round in rounds {
            let found = match kind {
                Kind::Put => Vec::new(),
                Kind::Insert => {
                    column(http, "SELECT id || '=' || body FROM rows WHERE round = ?", round).await
                }
                Kind::Transaction => {
                    column(http, "SELECT id FROM rights WHERE round = ?", round).await
                }
                _ => {
                    column(
                        http,
                        "SELECT client || '-' || round || '-' || step FROM once WHERE round = ?",
                        round,
                    )
                    .await
                }
            };
            for step in steps.iter().filter(|step| step.round == round) {
                let wanted = match kind {
                    Kind::Put => {
                        assert_value(http, **step).await;
                        continue;
                    }
                    Kind::Insert => format!("{}={}", step.id(), step.body()),
                    _ => step.id(),
                };
                assert!(found.binary_search(&wanted).is_ok(), "lost: {step:?}");
            }
        }
    }
    let counted = http.integer("SELECT sum(transactions) FROM totals").await;
    assert_eq!(
        http.integer("SELECT count(*) FROM lefts").await,
        counted,
        "a counter is not what was counted"
    );
    assert_eq!(http.integer("SELECT count(*) FROM rights").await, counted);
    let doubled = "SELECT count(*) FROM (SELECT 1 FROM once GROUP BY client, round, step HAVING count(*) > 1)";
    assert_eq!(http.integer(doubled).await, 0, "something with an idempotency key happened twice");
}

/// Every database file of the node is sound.
fn verify_files(data_dir: &std::path::Path) {
    let mut checked = 0;
    let mut folders = vec![data_dir.join("db")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).unwrap().starts_with(b"SQLite format 3\0") {
                let database = rusqlite::Connection::open(&path).unwrap();
                let verdict: String =
                    database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
                assert_eq!(verdict, "ok", "{}", path.display());
                checked += 1;
            }
        }
    }
    assert!(checked >= 2, "the system's database and the namespace's");
}

async fn assert_value(http: &Http, step: Step) {
    let answer = http.get_value(&step.key()).await;
    assert_eq!(answer.status, 200, "lost: {step:?}: {}", answer.text());
    assert_eq!(answer.body, step.body().as_bytes(), "changed: {step:?}");
}

/// The texts of one column, sorted.
async fn column(http: &Http, sql: &str, round: u64) -> Vec<String> {
    let rows = http.rows(sql, json!([round])).await;
    let mut texts: Vec<String> =
        rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect();
    texts.sort_unstable();
    texts
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
