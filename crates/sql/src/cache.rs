//! What was rewritten before.

use crate::catalogue::Catalogue;
use crate::rewrite::{Rewritten, rewrite};
use debros_proto::Result;
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Texts longer than this, in bytes, are rewritten each time: they are bulk loads, seldom sent twice.
const MAX_CACHED: usize = 32 << 10;

/// Remembers rewritten statements, by schema generation and text. Bounded in bytes.
#[derive(Debug)]
pub struct Rewriter {
    known: Cache<Key, Arc<Rewritten>, Size>,
}

#[derive(Debug, PartialEq, Eq)]
struct Key {
    generation: u64,
    sql: Box<str>,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrowed { generation: self.generation, sql: &self.sql }.hash(state);
    }
}

#[derive(Hash)]
struct Borrowed<'a> {
    generation: u64,
    sql: &'a str,
}

impl Equivalent<Key> for Borrowed<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.generation == key.generation && self.sql == &*key.sql
    }
}

#[derive(Clone, Debug)]
struct Size;

impl Weighter<Key, Arc<Rewritten>> for Size {
    fn weight(&self, key: &Key, value: &Arc<Rewritten>) -> u64 {
        (key.sql.len() + value.size() + 64) as u64
    }
}

impl Rewriter {
    /// A rewriter that remembers up to `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { known: Cache::with_weighter((bytes / 512).max(16), bytes as u64, Size) }
    }

    /// What is remembered of the text for this state of the schema. Takes no lock of the catalogue's, so it never waits.
    pub fn recall(&self, sql: &str, catalogue: &Catalogue) -> Option<Arc<Rewritten>> {
        self.known.get(&Borrowed { generation: catalogue.generation(), sql })
    }

    /// [`rewrite`], from memory where the same text was rewritten for the same state of the same schema.
    ///
    /// # Errors
    /// As [`rewrite`]; refusals are not remembered.
    pub fn rewrite(&self, sql: &str, catalogue: &Catalogue) -> Result<Arc<Rewritten>> {
        let key = Borrowed { generation: catalogue.generation(), sql };
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        let rewritten = Arc::new(rewrite(sql, catalogue)?);
        if sql.len() <= MAX_CACHED {
            self.known.insert(Key { generation: key.generation, sql: sql.into() }, Arc::clone(&rewritten));
        }
        Ok(rewritten)
    }
}
