//! Three nodes, their certificates, and the death of a leader.

use super::common::{Cluster, KEY, LONG, entry, kill, member, signal, soon};
use debros_rqlite::{AppendError, ReadLevel, RqliteLog, Rqlited, RqlitedState};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn members_form_a_cluster_and_no_stranger_joins_it() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = &cluster.nodes[(leader + 1) % 3];
    assert_eq!(follower.client().is_leader().await, Ok(false));
    let known = follower.client().leader().await.unwrap().unwrap();
    assert_eq!(known.node_id, format!("n{leader}"));
    assert_eq!(known.raft_addr, cluster.raft[leader].to_string());
    // A follower passes writes on, with a user that the leader knows.
    let log = RqliteLog::new(follower.client());
    log.create_tables().await.unwrap();
    assert_eq!(log.claim("a", 0).await, Ok(Some(1)));
    log.append(1, &[entry(1, "one")], soon()).await.unwrap();

    let join: Vec<_> = cluster.raft.iter().map(ToString::to_string).collect();
    let mut plain = member(cluster.folder.path(), "plain", &KEY);
    plain.tls = None;
    let mut other_key = member(cluster.folder.path(), "other-key", &[8; 32]);
    let mut other_password = member(cluster.folder.path(), "other-password", &KEY);
    other_password.join_password = Some("guessed".to_owned());
    other_key.join_password = plain.join_password.clone();
    for mut stranger in [plain, other_key, other_password] {
        stranger.join.clone_from(&join);
        let name = stranger.node_id.clone();
        let stranger = Rqlited::start(stranger).await.unwrap();
        let mut state = stranger.state();
        let refused = tokio::time::timeout(LONG, async {
            let seen = state.wait_for(|state| *state != RqlitedState::Starting).await;
            seen.unwrap().clone()
        });
        let state = refused.await.unwrap();
        assert!(matches!(state, RqlitedState::Restarting { .. }), "{name}: {state:?}");
        println!("{name}: {state:?}");
        stranger.stop(Duration::from_secs(10)).await;
    }
    let nodes = follower.client().nodes().await.unwrap();
    assert_eq!(nodes.len(), 3, "{nodes:?}");

    // A member that does not vote holds the data, and one that is removed is not in it any more.
    let mut replica = member(cluster.folder.path(), "replica", &KEY);
    replica.join = join;
    replica.non_voter = true;
    let replica = Rqlited::start(replica).await.unwrap();
    assert!(replica.wait_serving(LONG).await, "{:?}", replica.state().borrow());
    let held = RqliteLog::new(replica.client());
    while held.read(0, 1000, ReadLevel::None).await.map_or(0, |entries| entries.len()) != 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let nodes = follower.client().nodes().await.unwrap();
    assert!(nodes.iter().any(|node| node.id == "replica" && !node.voter), "{nodes:?}");
    replica.stop(Duration::from_secs(10)).await;
    follower.client().remove("replica").await.unwrap();
    follower.client().remove("replica").await.unwrap();
    assert_eq!(follower.client().nodes().await.unwrap().len(), 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_appended() {
    let mut cluster = Cluster::start(3).await;
    let survivor = cluster.nodes.pop().unwrap();
    let log = RqliteLog::new(survivor.client());
    log.create_tables().await.unwrap();
    assert_eq!(log.claim("a", 0).await, Ok(Some(1)));
    log.append(1, &[entry(1, "one")], soon()).await.unwrap();
    // A follower learns that an entry is committed a moment after the caller does.
    wait_for_entry(&log, 1).await;
    for node in cluster.nodes.drain(..) {
        node.stop(Duration::from_secs(10)).await;
    }
    let deadline = Instant::now() + Duration::from_secs(3);
    let refused = log.append(1, &[entry(2, "two")], deadline).await;
    assert!(
        matches!(refused, Err(AppendError::Unavailable(_) | AppendError::Unknown(_))),
        "{refused:?}"
    );
    assert!(Instant::now() < deadline + Duration::from_secs(1));
    let read = log.read(0, 1000, ReadLevel::None).await.unwrap();
    assert_eq!(read.len(), 1, "old reads go on");
    survivor.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hangs_is_not_waited_for_and_is_fenced_when_it_wakes() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let hanging = &cluster.nodes[leader];
    let old = RqliteLog::new(hanging.client());
    old.create_tables().await.unwrap();
    assert_eq!(old.claim("old", 0).await, Ok(Some(1)));
    old.append(1, &[entry(1, "one")], soon()).await.unwrap();

    let pid = hanging.pid().unwrap();
    signal(pid, Signal::STOP);
    let late = {
        let old = old.clone();
        tokio::spawn(async move { old.append(1, &[entry(2, "late")], soon()).await })
    };
    let new = RqliteLog::new(cluster.nodes[(leader + 1) % 3].client());
    let started = Instant::now();
    let claimed = loop {
        if let Ok(claimed) = new.claim("new", 1).await {
            break claimed;
        }
        assert!(started.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    println!("a new claim {:?} after the leader hung", started.elapsed());
    assert_eq!(claimed, Some(2));
    new.append(2, &[entry(2, "new")], soon()).await.unwrap();
    signal(pid, Signal::CONT);
    assert_eq!(late.await.unwrap(), Err(AppendError::Deposed));
    let read = new.read(0, 1000, ReadLevel::Strong).await.unwrap();
    let read: Vec<_> = read.iter().map(|e| (e.entry, e.term, e.body.as_ref())).collect();
    assert_eq!(read, [(1, 1, &b"one"[..]), (2, 2, &b"new"[..])]);
    cluster.stop().await;
}

/// As a node does it that leads: it claims, reads the log to its end, and numbers from there.
struct Writer {
    name: String,
    log: RqliteLog,
    term: u64,
    next: u64,
}

impl Writer {
    async fn lead(&mut self) {
        loop {
            let Ok(now) = self.log.leadership(ReadLevel::Strong).await else { continue };
            let Ok(Some(term)) = self.log.claim(&self.name, now.term).await else { continue };
            let Ok(last) = self.log.last_entry(ReadLevel::Strong).await else { continue };
            self.term = term;
            self.next = last + 1;
            return;
        }
    }

    /// Appends one body, and says under which number; `None` when it is not known to be there.
    async fn append(&mut self, body: &str) -> Option<u64> {
        let number = self.next;
        let deadline = Instant::now() + Duration::from_secs(5);
        match self.log.append(self.term, &[entry(number, body.to_owned())], deadline).await {
            Ok(()) => {
                self.next += 1;
                Some(number)
            }
            Err(_) => {
                self.lead().await;
                None
            }
        }
    }
}

/// Two nodes take the lead from each other again and again, with two tasks each, while the leader's
/// rqlited is killed.
#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_entry_is_lost_when_leaders_die() {
    const KILLS: usize = 3;
    let cluster = Cluster::start(3).await;
    RqliteLog::new(cluster.nodes[0].client()).create_tables().await.unwrap();
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let done = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for (node, name) in cluster.nodes.iter().zip(["a", "b"]) {
        let log = RqliteLog::new(node.client()).with_timeout(Duration::from_secs(2));
        let writer = Writer { name: name.to_owned(), log, term: 0, next: 1 };
        let writer = Arc::new(Mutex::new(writer));
        for task in 0..2 {
            let (writer, done, count) =
                (Arc::clone(&writer), Arc::clone(&done), Arc::clone(&count));
            let acknowledged = Arc::clone(&acknowledged);
            tasks.push(tokio::spawn(async move {
                let mut number = 0;
                while !done.load(Ordering::SeqCst) {
                    number += 1;
                    let mut writer = writer.lock().await;
                    let body = format!("{} {task} {number}", writer.name);
                    if let Some(entry) = writer.append(&body).await {
                        let before = acknowledged.lock().await.insert(entry, body);
                        assert_eq!(before, None, "entry {entry} was acknowledged twice");
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }));
        }
    }
    for _ in 0..KILLS {
        let before = count.load(Ordering::SeqCst);
        wait_for(|| count.load(Ordering::SeqCst) >= before + 50).await;
        let leader = cluster.leader().await;
        let at = count.load(Ordering::SeqCst);
        let killed = Instant::now();
        kill(&cluster.nodes[leader]);
        wait_for(|| count.load(Ordering::SeqCst) > at + 4).await;
        println!("appends go on {:?} after the leader's death", killed.elapsed());
        assert!(cluster.nodes[leader].wait_serving(LONG).await);
    }
    done.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    let acknowledged = acknowledged.lock().await;
    println!("{} appends acknowledged", acknowledged.len());
    let last = RqliteLog::new(cluster.nodes[0].client()).last_entry(ReadLevel::Strong).await;
    let last = last.unwrap();
    for node in &cluster.nodes {
        let log = RqliteLog::new(node.client());
        wait_for_entry(&log, last).await;
        let mut read = BTreeMap::new();
        while let Ok(entries) = log.read(read.len() as u64, 100_000, ReadLevel::None).await {
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                read.insert(entry.entry, String::from_utf8(entry.body.to_vec()).unwrap());
            }
        }
        assert_eq!(read.len() as u64, last, "no number is left out");
        for (number, body) in acknowledged.iter() {
            assert_eq!(read.get(number), Some(body), "entry {number}");
        }
    }
    cluster.stop().await;
}

async fn wait_for(condition: impl Fn() -> bool) {
    let until = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < until, "it does not come to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn wait_for_entry(log: &RqliteLog, last: u64) {
    let until = Instant::now() + LONG;
    while log.last_entry(ReadLevel::None).await != Ok(last) {
        assert!(Instant::now() < until, "it does not catch up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Not a check: what the parts cost.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_three() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let log = RqliteLog::new(cluster.nodes[leader].client());
    log.create_tables().await.unwrap();
    println!("at the leader");
    measure(&cluster.nodes[leader], &log).await;
    let follower = &cluster.nodes[(leader + 1) % 3];
    println!("at a follower");
    measure(follower, &RqliteLog::new(follower.client())).await;
    cluster.stop().await;
}

/// Bytes that cannot be compressed, as a compressed body is.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..size).map(|_| next()).collect()
}

pub(crate) async fn measure(node: &Rqlited, log: &RqliteLog) {
    const ROUNDS: usize = 300;
    async fn times<F: Future>(name: &str, rounds: usize, mut call: impl FnMut() -> F) {
        let mut times = Vec::new();
        for _ in 0..rounds {
            let started = Instant::now();
            call().await;
            times.push(started.elapsed());
        }
        times.sort();
        let (p50, p99) = (times[rounds / 2], times[rounds * 99 / 100]);
        println!("{name}: p50 {p50:?}, p99 {p99:?}");
    }
    let client = node.client();
    times("is_leader", ROUNDS, || client.is_leader()).await;
    times("leader", ROUNDS, || client.leader()).await;
    times("nodes", 30, || client.nodes()).await;
    let now = log.leadership(ReadLevel::Strong).await.unwrap();
    let term = log.claim("m", now.term).await.unwrap().unwrap();
    let mut next = log.last_entry(ReadLevel::Strong).await.unwrap() + 1;
    for (count, size) in [(1, 200), (1, 20_000), (20, 1000), (200, 200), (1, 1_000_000)] {
        let mut times = Vec::new();
        for _ in 0..if size > 100_000 { 20 } else { ROUNDS } {
            let batch: Vec<_> = (next..next + count).map(|n| entry(n, noise(size))).collect();
            let started = Instant::now();
            log.append(term, &batch, soon()).await.unwrap();
            times.push(started.elapsed());
            next += count;
        }
        times.sort();
        let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("append {count} x {size} bytes: p50 {p50:?}, p99 {p99:?}");
    }
    times("strong read", ROUNDS, || log.last_entry(ReadLevel::Strong)).await;
    times("weak read", ROUNDS, || log.last_entry(ReadLevel::Weak)).await;
    times("none read", ROUNDS, || log.last_entry(ReadLevel::None)).await;
    times("log_bytes", 20, || log.log_bytes()).await;
    println!("memory {:?} MB", node.memory().map(|bytes| bytes >> 20));
}
