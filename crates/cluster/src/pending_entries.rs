//! Entries of the log that a node has and its files do not.

use debros_engine::TargetDatabase;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// What an entry means to those that read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EntryEffect<'e> {
    /// It changes nothing by itself: a part of a transaction whose last one comes later.
    Nothing,
    /// Some of a database changes.
    Changes(&'e TargetDatabase),
    /// All that a database has now goes; it may be another owner's afterwards.
    Replaces(&'e TargetDatabase),
}

/// Entries, each with the database that it changes.
#[derive(Debug, Default)]
pub(crate) struct PendingEntries {
    all: BTreeMap<u64, Option<TargetDatabase>>,
    /// Those that change something.
    effective: BTreeSet<u64>,
    by_database: HashMap<TargetDatabase, BTreeMap<u64, PendingEntry>>,
}

#[derive(Debug)]
struct PendingEntry {
    since: Instant,
    replaces: bool,
}

impl PendingEntries {
    pub(crate) fn insert(&mut self, entry: u64, effect: EntryEffect<'_>) {
        let (database, replaces) = match effect {
            EntryEffect::Nothing => {
                self.all.insert(entry, None);
                return;
            }
            EntryEffect::Changes(database) => (database, false),
            EntryEffect::Replaces(database) => (database, true),
        };
        self.all.insert(entry, Some(database.clone()));
        self.effective.insert(entry);
        let of_database = self.by_database.entry(database.clone()).or_default();
        of_database.insert(entry, PendingEntry { since: Instant::now(), replaces });
    }

    pub(crate) fn remove(&mut self, entries: &[u64]) {
        for entry in entries {
            let Some(Some(database)) = self.all.remove(entry) else { continue };
            self.effective.remove(entry);
            if let Some(of_database) = self.by_database.get_mut(&database) {
                of_database.remove(entry);
                if of_database.is_empty() {
                    self.by_database.remove(&database);
                }
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.all.first_key_value().map(|(entry, _)| *entry)
    }

    /// The first one that changes a database; `None`: any.
    pub(crate) fn first_change(&self, database: Option<&TargetDatabase>) -> Option<u64> {
        match database {
            None => self.effective.first().copied(),
            Some(database) => {
                let of_database = self.by_database.get(database)?;
                of_database.first_key_value().map(|(entry, _)| *entry)
            }
        }
    }

    /// How long the first one that changes a database is here.
    pub(crate) fn delay_of(&self, database: &TargetDatabase) -> Duration {
        let first = self.by_database.get(database).and_then(BTreeMap::first_key_value);
        first.map_or(Duration::ZERO, |(_, entry)| entry.since.elapsed())
    }

    /// Whether all that a database has now goes.
    pub(crate) fn is_replaced(&self, database: &TargetDatabase) -> bool {
        let of_database = self.by_database.get(database);
        of_database.is_some_and(|entries| entries.values().any(|entry| entry.replaces))
    }
}
