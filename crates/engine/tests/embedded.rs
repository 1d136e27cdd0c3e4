//! The conformance suite on the embedded engine.

use debros_engine::conformance::Fixture;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use std::sync::Arc;

async fn make() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    // Small, because a case fills it.
    let config =
        EmbeddedConfig { max_namespace_size: Some(32 << 20), ..EmbeddedConfig::new(folder.path()) };
    let engine = EmbeddedEngine::open(config).unwrap();
    Fixture { engine: Arc::new(engine), keep: Box::new(folder) }
}

debros_engine::conformance!(make);
