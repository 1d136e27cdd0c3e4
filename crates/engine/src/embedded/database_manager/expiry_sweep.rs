//! Deleting what has expired.

use super::DatabaseManager;
use crate::embedded::database_handle::{DatabaseHandle, WriteOptions};
use crate::embedded::job::JobIsolation;
use crate::embedded::writer_conn::WriterConnection;
use crate::embedded::{idempotency, kv};
use debros_proto::Result;

impl DatabaseManager {
    /// Deletes what has expired, a thousand rows at a time so that other writes come between. What
    /// one database refuses is said when the others were swept; one that is closed meanwhile is
    /// none of them any more.
    pub(in crate::embedded) async fn sweep_expired(&self, now_ms: i64) -> Result<u64> {
        let mut swept = sweep(&self.system, now_ms, kv::sweep_expired).await?
            + sweep(&self.system, now_ms, idempotency::sweep_expired).await?;
        let mut refused = None;
        for (namespace, database) in self.all_open() {
            match sweep(&database, now_ms, idempotency::sweep_expired).await {
                Ok(count) => swept += count,
                Err(_) if database.is_closing() => {}
                Err(error) => {
                    tracing::warn!(%namespace, error = error.message, "what expired in a database cannot be deleted");
                    refused.get_or_insert(error);
                }
            }
        }
        self.check_open()?;
        refused.map_or(Ok(swept), Err)
    }
}

async fn sweep(
    database: &DatabaseHandle,
    now_ms: i64,
    some: fn(&WriterConnection, i64) -> Result<usize>,
) -> Result<u64> {
    let mut swept = 0;
    loop {
        let write = WriteOptions::for_removal(JobIsolation::Savepoint);
        let count = database.write(write, move |conn| some(conn, now_ms)).await?;
        swept += count as u64;
        if count == 0 {
            return Ok(swept);
        }
    }
}
