//! Entries of the log that a node has and its files do not.

use debros_engine::TargetDatabase;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Entries, each with the database that it changes.
#[derive(Debug, Default)]
pub(crate) struct PendingEntries {
    all: BTreeMap<u64, TargetDatabase>,
    /// Of each database, with the time since when they are here.
    by_database: HashMap<TargetDatabase, BTreeMap<u64, Instant>>,
}

impl PendingEntries {
    pub(crate) fn insert(&mut self, entry: u64, database: &TargetDatabase) {
        self.all.insert(entry, database.clone());
        self.by_database.entry(database.clone()).or_default().insert(entry, Instant::now());
    }

    pub(crate) fn remove(&mut self, entries: &[u64]) {
        for entry in entries {
            let Some(database) = self.all.remove(entry) else { continue };
            if let Some(of_database) = self.by_database.get_mut(&database) {
                of_database.remove(entry);
                if of_database.is_empty() {
                    self.by_database.remove(&database);
                }
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.all.clear();
        self.by_database.clear();
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.all.first_key_value().map(|(entry, _)| *entry)
    }

    /// The first one of a database; `None`: of all.
    pub(crate) fn first_of(&self, database: Option<&TargetDatabase>) -> Option<u64> {
        match database {
            None => self.first(),
            Some(database) => self.oldest(database).map(|(entry, _)| entry),
        }
    }

    /// How long the first one of a database is here.
    pub(crate) fn delay_of(&self, database: &TargetDatabase) -> Duration {
        self.oldest(database).map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    fn oldest(&self, database: &TargetDatabase) -> Option<(u64, Instant)> {
        let (entry, since) = self.by_database.get(database)?.first_key_value()?;
        Some((*entry, *since))
    }
}
