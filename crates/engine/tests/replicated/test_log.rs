//! A log in memory.

use bytes::Bytes;
use debros_engine::{AppendError, EntryKind, LogEntry, ReplicatedLog, TargetDatabase};
use std::sync::Mutex;

pub(crate) struct TestLog {
    is_leader: bool,
    entries: Mutex<Vec<LogEntry>>,
}

impl TestLog {
    pub(crate) fn leader() -> Self {
        Self { is_leader: true, entries: Mutex::default() }
    }

    pub(crate) fn follower() -> Self {
        Self { is_leader: false, entries: Mutex::default() }
    }

    pub(crate) fn entries(&self) -> Vec<LogEntry> {
        self.entries.lock().unwrap().clone()
    }
}

impl ReplicatedLog for TestLog {
    fn is_leader(&self) -> bool {
        self.is_leader
    }

    fn append(
        &self,
        database: &TargetDatabase,
        changes: Bytes,
        _: EntryKind,
    ) -> Result<u64, AppendError> {
        assert!(self.is_leader);
        let mut entries = self.entries.lock().unwrap();
        let number = entries.len() as u64 + 1;
        entries.push(LogEntry { number, database: database.clone(), changes });
        Ok(number)
    }

    fn committed(&self, number: u64) {
        assert!(number <= self.entries.lock().unwrap().len() as u64);
    }

    fn fell_behind(&self, number: u64) {
        panic!("entry {number} could not be committed");
    }
}
