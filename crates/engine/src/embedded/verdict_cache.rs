//! What is known of statements' texts from the last time they ran: where they run the next time.

use super::authorizer::StatementTraits;
use super::deadline::ElapsedTime;
use debros_proto::lock;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Texts of which something is known. Only short ones, and not many.
const KNOWN_TEXTS: usize = 1024;
const KNOWN_BYTES: usize = 4 << 10;

/// A read that took less of the processor than this on a query thread runs on the calling thread
/// the next time: waking the other thread takes longer. It is broken off there when it takes more
/// than a few thousand steps after all.
const QUICK: Duration = Duration::from_micros(200);
/// What is known to be quick stays so below this: the memory of a busy machine is slower than that
/// of an idle one.
const STILL_QUICK: Duration = Duration::from_millis(1);
/// How long a read runs, of the thread's processor, on the thread that is kept for quick ones, when
/// it would wait for the others.
pub(super) const BRIEF_TIME: Duration = Duration::from_millis(25);

/// A read on a calling thread that took longer than this was no quick one, and kept others waiting.
const LONG_READ: Duration = Duration::from_millis(50);
/// For how long nothing of that file is quick then.
const SLOW_PENALTY: Duration = Duration::from_secs(60);
/// Reads in a row that waited for longer than [`LONG_READ`] without the processor working for them:
/// one may have waited for a processor, so many wait for the disk.
const LONG_WAITS: u32 = 3;
/// For how long nothing of that file is quick after that. Each is tried again then, and the next
/// may find a better disk.
const WAIT_PENALTY: Duration = Duration::from_secs(10);

/// What is known of a statement's text from the last time it ran.
#[derive(Clone, Copy, Debug)]
pub(super) enum CachedVerdict {
    /// It writes, so that it goes to the writer at once.
    Writes(StatementTraits),
    /// It reads, and took so little that a thread of its own would cost more than the statement.
    Quick,
    /// It reads, and took longer than what is tried for a moment may take.
    Slow,
}

/// What is known of the texts that ran in one file.
#[derive(Debug)]
pub(super) struct VerdictCache {
    path: PathBuf,
    /// Goes up when the schema may have changed: a new trigger changes what an old text does.
    schema_changes: Arc<AtomicU64>,
    texts: Mutex<KnownTexts>,
    /// Quick reads since the last one that did not wait for long.
    long_waits: AtomicU32,
}

#[derive(Debug, Default)]
struct KnownTexts {
    /// The state of the schema that it is known for.
    schema: u64,
    known: HashMap<Box<str>, CachedVerdict>,
    /// Nothing is quick until then.
    slow_until: Option<Instant>,
}

impl VerdictCache {
    /// Nothing is known yet of what runs in a file.
    pub(super) fn new(path: &Path, schema_changes: Arc<AtomicU64>) -> Self {
        Self {
            path: path.to_owned(),
            schema_changes,
            texts: Mutex::default(),
            long_waits: AtomicU32::new(0),
        }
    }

    /// What is known of a text.
    pub(super) fn cached_verdict(&self, sql: &str) -> Option<CachedVerdict> {
        if sql.len() > KNOWN_BYTES {
            return None;
        }
        let mut texts = self.texts();
        let known = texts.known.get(sql).copied();
        if let (Some(CachedVerdict::Quick), Some(until)) = (known, texts.slow_until) {
            if Instant::now() < until {
                return None;
            }
            texts.slow_until = None;
        }
        known
    }

    /// Whether a text is known to take longer than what is tried for a moment.
    pub(super) fn is_slow(&self, sql: &str) -> bool {
        matches!(self.cached_verdict(sql), Some(CachedVerdict::Slow))
    }

    /// Whether a text is known to add nothing and to remove.
    pub(super) fn only_removes(&self, sql: &str) -> bool {
        matches!(self.cached_verdict(sql), Some(CachedVerdict::Writes(traits)) if traits.only_removes())
    }

    /// Remembers something of a text; `None` forgets it.
    pub(super) fn remember_verdict(&self, sql: &str, what: Option<CachedVerdict>) {
        if sql.len() > KNOWN_BYTES {
            return;
        }
        let known = &mut self.texts().known;
        match what {
            None => {
                known.remove(sql);
            }
            Some(what) => {
                if known.len() >= KNOWN_TEXTS {
                    known.clear();
                }
                known.insert(sql.into(), what);
            }
        }
    }

    /// Remembers what a read took of which this was `known`. Of the processor: a busy
    /// machine takes it away from quick ones.
    pub(super) fn remember_read_time(
        &self,
        sql: &str,
        known: Option<CachedVerdict>,
        traits: StatementTraits,
        took: ElapsedTime,
    ) {
        let (was_quick, was_slow) = (
            matches!(known, Some(CachedVerdict::Quick)),
            matches!(known, Some(CachedVerdict::Slow)),
        );
        let quick = if was_quick { STILL_QUICK } else { QUICK };
        let is_quick =
            took.by_processor < quick && took.by_clock < LONG_READ && !traits.may_be_slow();
        let is_slow = took.by_processor > BRIEF_TIME;
        if (was_quick, was_slow) != (is_quick, is_slow) {
            let learnt = if is_quick {
                Some(CachedVerdict::Quick)
            } else {
                is_slow.then_some(CachedVerdict::Slow)
            };
            self.remember_verdict(sql, learnt);
        }
    }

    /// Remembers that a read was not done in the time for which it was tried.
    pub(super) fn note_broken_off(&self, sql: &str, took: ElapsedTime) {
        // By the clock alone, or in a shorter time, it is not known.
        if took.by_processor >= BRIEF_TIME {
            self.remember_verdict(sql, Some(CachedVerdict::Slow));
        }
    }

    /// Says what a read took, by the clock, that was known to be quick and ran on the calling
    /// thread, and in `took` also of the processor. What one step does with long keys of an index,
    /// no limit of SQLite's sees; the read that meets it keeps others waiting once. A read that
    /// waits for a slow disk keeps them waiting as well.
    pub(super) fn note_inline_time(
        &self,
        sql: &str,
        by_clock: Duration,
        took: impl FnOnce() -> ElapsedTime,
    ) {
        if by_clock <= LONG_READ {
            if self.long_waits.load(Relaxed) > 0 {
                self.long_waits.store(0, Relaxed);
            }
            return;
        }
        let took = took();
        let penalty = if took.by_processor > LONG_READ {
            SLOW_PENALTY
        } else if self.long_waits.fetch_add(1, Relaxed) + 1 >= LONG_WAITS {
            WAIT_PENALTY
        } else {
            return;
        };
        self.long_waits.store(0, Relaxed);
        tracing::warn!(path = %self.path.display(), ?took, ?penalty, "a read known to be quick was not; reads of this database go to its own threads for a while");
        self.remember_verdict(sql, None);
        self.texts().slow_until = Some(Instant::now() + penalty);
    }

    /// What is known, if the schema is still the one it was learnt under. Nothing that panics runs
    /// while it is held.
    fn texts(&self) -> MutexGuard<'_, KnownTexts> {
        let mut texts = lock(&self.texts);
        let schema = self.schema_changes.load(Relaxed);
        if texts.schema != schema {
            texts.known.clear();
            texts.schema = schema;
        }
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::{BRIEF_TIME, CachedVerdict, LONG_READ, LONG_WAITS, VerdictCache};
    use crate::embedded::authorizer::StatementTraits;
    use crate::embedded::deadline::ElapsedTime;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    const SQL: &str = "SELECT 1";

    fn cache() -> VerdictCache {
        VerdictCache::new(Path::new("a.db"), Arc::default())
    }

    fn took(by_clock: Duration, by_processor: Duration) -> ElapsedTime {
        ElapsedTime { by_clock, by_processor }
    }

    fn is_quick(cache: &VerdictCache) -> bool {
        matches!(cache.cached_verdict(SQL), Some(CachedVerdict::Quick))
    }

    #[test]
    fn a_read_that_waits_for_a_processor_is_as_quick_as_ever() {
        let (cache, little) = (cache(), Duration::from_micros(50));
        cache.remember_read_time(
            SQL,
            None,
            StatementTraits::default(),
            took(LONG_READ / 2, little),
        );
        assert!(is_quick(&cache));
        // As often as it likes, when others in between did not wait.
        for _ in 0..LONG_WAITS * 10 {
            cache.note_inline_time(SQL, LONG_READ * 2, || took(LONG_READ * 2, little));
            assert!(is_quick(&cache));
            cache.note_inline_time(SQL, little, || unreachable!());
        }
        cache.note_broken_off(SQL, took(BRIEF_TIME * 10, BRIEF_TIME / 2));
        assert!(is_quick(&cache) && !cache.is_slow(SQL));
    }

    #[test]
    fn a_read_that_takes_the_processor_or_waits_each_time_is_quick_no_more() {
        let little = Duration::from_micros(50);
        for by_processor in [LONG_READ * 2, little] {
            let cache = cache();
            cache.remember_read_time(SQL, None, StatementTraits::default(), took(little, little));
            let times = if by_processor > LONG_READ { 1 } else { LONG_WAITS };
            for _ in 0..times {
                assert!(is_quick(&cache));
                cache.note_inline_time(SQL, LONG_READ * 2, || took(LONG_READ * 2, by_processor));
            }
            assert!(!is_quick(&cache));
            // Nor is any other.
            cache.remember_verdict("SELECT 2", Some(CachedVerdict::Quick));
            assert!(cache.cached_verdict("SELECT 2").is_none());
        }
    }

    #[test]
    fn what_was_tried_for_all_of_the_moment_is_slow() {
        let cache = cache();
        cache.note_broken_off(SQL, took(BRIEF_TIME, BRIEF_TIME));
        assert!(cache.is_slow(SQL));
    }
}
