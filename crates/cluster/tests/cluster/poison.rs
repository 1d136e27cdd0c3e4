//! No statement stops a cluster: while one namespace tries, another is served through every node,
//! and after a restart of all nodes too.

use crate::harness::{Cluster, LONG, options};
use crate::poison_attempts::{Attempt, TABLES, attempts};
use crate::same_files::assert_same_files;
use debros_cluster::ClusterEngine;
use debros_engine::{CallOptions, Engine as _, IdempotencyKey, TargetDatabase};
use debros_proto::rpc::{Consistency, Statement, StatementResult};
use debros_proto::{Code, Error, Namespace, Result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Statements of the largest transactions.
const STATEMENTS: usize = 1000;
/// Far more than an answer takes here; other programs run on the same processors.
const MAX_ANSWER: Duration = Duration::from_secs(10);

/// Runs a statement as a client does that wants it done: again, with the same key, when a leader was
/// lost, as it may be where other programs use the processors.
async fn run(engine: &ClusterEngine, namespace: &str, sql: &str) -> Result<StatementResult> {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    let namespace = Namespace::new(namespace).unwrap();
    let key = IdempotencyKey {
        namespace: namespace.clone(),
        key: KEYS.fetch_add(1, SeqCst).to_string(),
        request_hash: [7; 32],
    };
    let database = TargetDatabase::Namespace(namespace);
    let options = CallOptions { idempotency_key: Some(key), ..options(Consistency::Weak) };
    let began = Instant::now();
    loop {
        match engine.query(&database, Statement::from(sql), options.clone()).await {
            Err(error)
                if [Code::UnknownOutcome, Code::Unavailable].contains(&error.code)
                    && began.elapsed() < LONG => {}
            outcome => return outcome.map(|done| done.value),
        }
    }
}

/// Makes one attempt in a namespace of its own. Returns how its last call ended.
async fn attempt(engine: &ClusterEngine, number: usize, attempt: &Attempt) -> Option<Error> {
    let namespace = format!("poison{number}");
    for sql in TABLES {
        run(engine, &namespace, sql)
            .await
            .unwrap_or_else(|error| panic!("{number} {sql}: {error:?}"));
    }
    match attempt {
        Attempt::Calls(calls) => {
            let mut last = None;
            for sql in calls {
                last = run(engine, &namespace, sql).await.err();
            }
            last
        }
        Attempt::Transaction(texts) => {
            let database = TargetDatabase::Namespace(Namespace::new(&namespace).unwrap());
            let statements = texts.iter().map(|sql| Statement::from(sql.as_str())).collect();
            engine.transaction(&database, statements, options(Consistency::Weak)).await.err()
        }
    }
}

/// Another tenant, who writes through one node and reads its own write through another.
struct Bystander {
    engines: Vec<Arc<ClusterEngine>>,
    stop: AtomicBool,
    written: AtomicU64,
    worst: Mutex<Duration>,
}

impl Bystander {
    async fn live(&self) {
        while !self.stop.load(SeqCst) {
            let number = self.written.load(SeqCst);
            for (writes, reads) in [(0, 1), (1, 2), (2, 0)] {
                let began = Instant::now();
                let insert = format!("INSERT INTO t(a) VALUES ({number})");
                run(&self.engines[writes], "bystander", &insert).await.unwrap();
                self.note(began, "a write");
                let written = self.written.fetch_add(1, SeqCst) + 1;
                let began = Instant::now();
                let count = run(&self.engines[reads], "bystander", "SELECT count(*) FROM t").await;
                assert_eq!(crate::harness::integer(&count.unwrap()), written as i64);
                self.note(began, "a read");
            }
        }
    }

    fn note(&self, began: Instant, what: &str) {
        let took = began.elapsed();
        assert!(took < MAX_ANSWER, "{what} took {took:?}");
        if took > Duration::from_secs(1) {
            tracing::info!("{what} took {took:.2?}");
        }
        let mut worst = self.worst.lock().unwrap();
        *worst = took.max(*worst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_statement_keeps_a_cluster_from_others() {
    let mut cluster = Cluster::start_with(3, |config| {
        // What has no end is broken off after this time; there are many.
        config.statement_time = Duration::from_millis(700);
    })
    .await;
    let engines: Vec<_> = cluster.nodes.iter().map(|node| node.engine()).collect();
    run(&engines[0], "bystander", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)").await.unwrap();
    let bystander = Arc::new(Bystander {
        engines: engines.clone(),
        stop: AtomicBool::default(),
        written: AtomicU64::default(),
        worst: Mutex::default(),
    });
    let living = tokio::spawn({
        let bystander = Arc::clone(&bystander);
        async move { bystander.live().await }
    });
    let attempts = Arc::new(attempts(STATEMENTS));
    assert!(attempts.len() >= 60, "only {} attempts", attempts.len());
    let (next, ended) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
    // One attacker at each node.
    let attackers: Vec<_> = engines
        .iter()
        .map(|engine| {
            let (engine, attempts) = (Arc::clone(engine), Arc::clone(&attempts));
            let (next, ended) = (Arc::clone(&next), Arc::clone(&ended));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, SeqCst);
                    let Some(poison) = attempts.get(number) else { return };
                    let began = Instant::now();
                    let outcome = attempt(&engine, number, poison).await;
                    tracing::info!(
                        "{number:3} {:8.2?} {:?}",
                        began.elapsed(),
                        outcome.as_ref().map(|error| &error.message)
                    );
                    ended.lock().unwrap().push((number, outcome));
                }
            })
        })
        .collect();
    for attacker in attackers {
        attacker.await.unwrap();
    }
    bystander.stop.store(true, SeqCst);
    living.await.unwrap();
    let written = bystander.written.load(SeqCst) as i64;
    let mut codes = BTreeMap::<String, usize>::new();
    for (number, outcome) in ended.lock().unwrap().iter() {
        let code = outcome.as_ref().map_or("done".to_owned(), |error| format!("{:?}", error.code));
        *codes.entry(code).or_default() += 1;
        // The leader is still the leader, and no file has fallen behind.
        if let Some(error) = outcome {
            let bad = [Code::Internal, Code::Unavailable, Code::NotLeader, Code::UnknownOutcome];
            assert!(!bad.contains(&error.code), "{number}: {error:?}");
        }
    }
    tracing::info!(
        "{} attempts: {codes:?}; the bystander wrote {written} times, the slowest answer took {:?}",
        attempts.len(),
        bystander.worst.lock().unwrap()
    );
    drop((bystander, engines));
    check_all(&cluster, written).await;
    let began = Instant::now();
    cluster.restart_all().await;
    tracing::info!("all nodes serve again after {:?}", began.elapsed());
    check_all(&cluster, written).await;
    let (folder, nodes) = cluster.close().await;
    for node in &nodes[1..] {
        let path = |name: &str| folder.path().join(name).join("db");
        assert_same_files(&path(&nodes[0]), &path(node));
    }
}

/// Every node serves everybody.
async fn check_all(cluster: &Cluster, written: i64) {
    for node in &cluster.nodes {
        let engine = node.engine();
        assert!(node.database.wait_ready(LONG).await);
        assert_eq!(node.database.status().problem, None, "{}", node.name);
        let count = run(&engine, "bystander", "SELECT count(*) FROM t").await.unwrap();
        assert_eq!(crate::harness::integer(&count), written, "{}", node.name);
        for number in [0, 25, 58] {
            let namespace = format!("poison{number}");
            run(&engine, &namespace, "CREATE TABLE IF NOT EXISTS after(a)").await.unwrap();
            run(&engine, &namespace, "INSERT INTO after VALUES (1)").await.unwrap();
        }
    }
    // Each has what was written through the others.
    for node in &cluster.nodes {
        assert!(node.database.wait_ready(LONG).await);
    }
}
