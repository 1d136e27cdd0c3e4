//! Rewritten statements, cached.

use crate::catalogue::Catalogue;
use crate::rewrite::{ForeignKeys, RewrittenStatement, rewrite};
use debros_proto::Result;
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Texts longer than this, in bytes, are rewritten each time: they are bulk loads, seldom sent
/// twice.
const MAX_CACHED: usize = 32 << 10;

/// Caches rewritten statements, by schema generation and text. Bounded in bytes.
#[derive(Debug)]
pub struct RewriteCache {
    entries: Cache<CacheKey, Arc<RewrittenStatement>, CacheWeighter>,
}

#[derive(Debug, PartialEq, Eq)]
struct CacheKey {
    generation: u64,
    sql: Box<str>,
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        BorrowedCacheKey { generation: self.generation, sql: &self.sql }.hash(state);
    }
}

#[derive(Hash)]
struct BorrowedCacheKey<'a> {
    generation: u64,
    sql: &'a str,
}

impl Equivalent<CacheKey> for BorrowedCacheKey<'_> {
    fn equivalent(&self, key: &CacheKey) -> bool {
        self.generation == key.generation && self.sql == &*key.sql
    }
}

#[derive(Clone, Debug)]
struct CacheWeighter;

impl Weighter<CacheKey, Arc<RewrittenStatement>> for CacheWeighter {
    fn weight(&self, key: &CacheKey, value: &Arc<RewrittenStatement>) -> u64 {
        (key.sql.len() + value.memory_size() + 64) as u64
    }
}

impl RewriteCache {
    /// A cache of up to `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { entries: Cache::with_weighter((bytes / 512).max(16), bytes as u64, CacheWeighter) }
    }

    /// The cached result of the text for this state of the schema. Takes no lock of the catalogue,
    /// so it never waits.
    pub fn find_cached(&self, sql: &str, catalogue: &Catalogue) -> Option<Arc<RewrittenStatement>> {
        self.entries.get(&BorrowedCacheKey { generation: catalogue.generation(), sql })
    }

    /// [`rewrite`] where foreign keys are enforced, from the cache if the same text was rewritten
    /// for the same state of the same schema. Otherwise it may take long: not on a thread that
    /// serves others.
    ///
    /// # Errors
    /// As [`rewrite`]; refusals are not cached.
    pub fn rewrite(&self, sql: &str, catalogue: &Catalogue) -> Result<Arc<RewrittenStatement>> {
        let key = BorrowedCacheKey { generation: catalogue.generation(), sql };
        if let Some(known) = self.entries.get(&key) {
            return Ok(known);
        }
        let rewritten = Arc::new(rewrite(sql, catalogue, ForeignKeys::Enforced)?);
        if sql.len() <= MAX_CACHED {
            self.entries.insert(
                CacheKey { generation: key.generation, sql: sql.into() },
                Arc::clone(&rewritten),
            );
        }
        Ok(rewritten)
    }
}
