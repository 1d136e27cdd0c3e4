//! Suites of statements on the embedded engine. `replicated` runs the same ones through a log.

#[path = "suites/corpora.rs"]
mod corpora;
#[path = "suites/dump.rs"]
mod dump;
#[path = "suites/references.rs"]
mod references;

use debros_engine::Engine;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use std::sync::Arc;

fn open_engine(config: EmbeddedConfig) -> Arc<dyn Engine> {
    Arc::new(EmbeddedEngine::open(config).unwrap())
}
