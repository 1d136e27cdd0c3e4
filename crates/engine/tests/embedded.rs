//! The conformance suite on the embedded engine.

use debros_engine::conformance::Fixture;
use debros_engine::embedded::{Embedded, EmbeddedConfig};
use std::sync::Arc;

async fn make() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let engine = Embedded::open(EmbeddedConfig::new(folder.path())).unwrap();
    Fixture { engine: Arc::new(engine), keep: Box::new(folder) }
}

debros_engine::conformance!(make);
