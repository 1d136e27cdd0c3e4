//! The engine's figures. Handles are taken once, so the program installs its recorder before it
//! opens the engine.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

/// Handles of the engine's figures.
pub(super) struct EngineMetrics {
    /// Jobs committed.
    pub(super) writes: Counter,
    /// Jobs that failed, for whatever reason.
    pub(super) write_failures: Counter,
    /// Jobs per commit.
    pub(super) batch: Histogram,
    /// Seconds of a COMMIT.
    pub(super) commit: Histogram,
    /// Jobs left in the queue after a group was taken.
    pub(super) queue: Gauge,
    /// Seconds of a query, without the wait.
    pub(super) sql_read: Histogram,
    /// Seconds of a key-value read.
    pub(super) kv_read: Histogram,
    /// Bytes of all databases.
    pub(super) size: Gauge,
}

impl EngineMetrics {
    pub(super) fn new() -> Self {
        describe_counter!("debros_engine_writes_total", "Writes committed");
        describe_counter!("debros_engine_write_failures_total", "Writes that failed");
        describe_histogram!("debros_engine_batch_writes", "Writes in one commit");
        describe_histogram!("debros_engine_commit_seconds", "Duration of a commit");
        describe_gauge!("debros_engine_queue_writes", "Writes waiting");
        describe_histogram!("debros_engine_read_seconds", "Duration of a read");
        describe_gauge!("debros_engine_size_bytes", "Size of all databases");
        Self {
            writes: counter!("debros_engine_writes_total"),
            write_failures: counter!("debros_engine_write_failures_total"),
            batch: histogram!("debros_engine_batch_writes"),
            commit: histogram!("debros_engine_commit_seconds"),
            queue: gauge!("debros_engine_queue_writes"),
            sql_read: histogram!("debros_engine_read_seconds", "kind" => "sql"),
            kv_read: histogram!("debros_engine_read_seconds", "kind" => "kv"),
            size: gauge!("debros_engine_size_bytes"),
        }
    }
}
