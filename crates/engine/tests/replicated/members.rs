//! Two nodes with a log in memory between them: one leads, the other follows, and they change
//! places.

use crate::same_files::{assert_same_file, assert_same_files};
use bytes::Bytes;
use debros_engine::conformance::{database, options};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_engine::{AppendError, Engine as _, EntryKind, LogEntry, ReplicatedLog, TargetDatabase};
use debros_proto::Error;
use debros_proto::rpc::{Statement, StatementResult};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

type SharedEntries = Arc<Mutex<Vec<LogEntry>>>;

/// The log as one node sees it.
struct MemberLog {
    leads: AtomicBool,
    entries: SharedEntries,
}

impl ReplicatedLog for MemberLog {
    fn is_leader(&self) -> bool {
        self.leads.load(SeqCst)
    }

    fn append(
        &self,
        database: &TargetDatabase,
        changes: Bytes,
        _: EntryKind,
    ) -> Result<u64, AppendError> {
        if !self.is_leader() {
            return Err(AppendError::NotLeader);
        }
        let mut entries = self.entries.lock().unwrap();
        let number = entries.len() as u64 + 1;
        entries.push(LogEntry { number, database: database.clone(), changes });
        Ok(number)
    }

    fn committed(&self, _: u64) {}

    fn fell_behind(&self, number: u64) {
        panic!("entry {number} could not be committed");
    }
}

struct Member {
    folder: TempDir,
    log: Arc<MemberLog>,
    engine: EmbeddedEngine,
    /// How much of the log it has.
    applied: usize,
}

/// Two nodes.
pub(crate) struct Members {
    nodes: [Member; 2],
    leads: usize,
    entries: SharedEntries,
    chance: u64,
}

impl Members {
    pub(crate) fn start(seed: u64) -> Self {
        let entries = SharedEntries::default();
        let member = |leads| {
            let log = MemberLog { leads: AtomicBool::new(leads), entries: Arc::clone(&entries) };
            let folder = tempfile::tempdir().unwrap();
            let log = Arc::new(log);
            let config = EmbeddedConfig::new(folder.path());
            let engine = EmbeddedEngine::open_replicated(config, Arc::clone(&log) as _).unwrap();
            Member { folder, log, engine, applied: 0 }
        };
        let nodes = [member(true), member(false)];
        Self { nodes, leads: 0, entries, chance: seed | 1 }
    }

    pub(crate) fn leader(&self) -> &EmbeddedEngine {
        &self.nodes[self.leads].engine
    }

    /// One statement on the leader.
    pub(crate) async fn run(&self, namespace: &str, sql: &str) -> Result<StatementResult, Error> {
        let done = self.leader().query(&database(namespace), Statement::from(sql), options()).await;
        done.map(|done| done.value)
    }

    /// As [`run`](Members::run), for what must work.
    pub(crate) async fn run_ok(&self, namespace: &str, sql: &str) -> StatementResult {
        self.run(namespace, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Statements in one transaction on the leader.
    pub(crate) async fn transact(&self, namespace: &str, texts: &[&str]) -> Result<(), Error> {
        let statements = texts.iter().map(|sql| Statement::from(*sql)).collect();
        self.leader().transaction(&database(namespace), statements, options()).await.map(|_| ())
    }

    fn pick(&mut self, below: usize) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance % below as u64) as usize
    }

    /// The follower applies what it lacks, in pieces of any size, some of them again.
    pub(crate) async fn catch_up(&mut self) -> Result<(), Error> {
        let all = self.entries.lock().unwrap().clone();
        // What the leader wrote itself it has.
        self.nodes[self.leads].applied = all.len();
        let follower = 1 - self.leads;
        while self.nodes[follower].applied < all.len() {
            let applied = self.nodes[follower].applied;
            let back = self.pick(4).min(applied);
            let end = (applied + 1 + self.pick(9)).min(all.len());
            let piece = all[applied - back..end].to_vec();
            self.nodes[follower].engine.apply(piece).await?;
            self.nodes[follower].applied = end;
        }
        Ok(())
    }

    /// Both have the same rows.
    pub(crate) async fn compare(&mut self) {
        self.catch_up().await.unwrap_or_else(|error| panic!("the follower: {error:?}"));
        let [one, other] = &self.nodes;
        one.engine.sync_files().unwrap();
        other.engine.sync_files().unwrap();
        assert_same_files(
            self.nodes[self.leads].folder.path(),
            self.nodes[1 - self.leads].folder.path(),
        );
    }

    /// Both have the same rows in the file of a namespace.
    pub(crate) async fn compare_one(&mut self, namespace: &str) {
        self.catch_up().await.unwrap_or_else(|error| panic!("the follower: {error:?}"));
        let path = |node: &Member| node.folder.path().join(format!("ns/{namespace}.db"));
        assert_same_file(
            namespace,
            &path(&self.nodes[self.leads]),
            &path(&self.nodes[1 - self.leads]),
        );
    }

    /// Both nodes' checksums of a database, the leader's first.
    pub(crate) fn checksums(&self, database: &TargetDatabase) -> [(u64, [u8; 32]); 2] {
        let of = |node: &Member| node.engine.checksum(database).unwrap();
        [of(&self.nodes[self.leads]), of(&self.nodes[1 - self.leads])]
    }

    /// Changes the follower's file behind its back.
    pub(crate) fn damage_follower(&self, namespace: &str, sql: &str) {
        let folder = self.nodes[1 - self.leads].folder.path();
        let file = folder.join(format!("ns/{namespace}.db"));
        rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap();
    }

    /// The follower leads from now on.
    pub(crate) async fn change_places(&mut self) {
        self.catch_up().await.unwrap_or_else(|error| panic!("the follower: {error:?}"));
        self.nodes[self.leads].log.leads.store(false, SeqCst);
        self.leads = 1 - self.leads;
        self.nodes[self.leads].log.leads.store(true, SeqCst);
    }
}
