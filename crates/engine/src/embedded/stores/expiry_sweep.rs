//! Deleting what has expired.

use super::Stores;
use crate::embedded::conn::Conn;
use crate::embedded::job::Undo;
use crate::embedded::store::{Store, Write};
use crate::embedded::{guard, kv};
use debros_proto::Result;

impl Stores {
    /// Deletes what has expired, a thousand rows at a time so that other writes come between. What one database refuses is
    /// said when the others were swept; one that is closed meanwhile is none of them any more.
    pub(in crate::embedded) async fn sweep(&self, now_ms: i64) -> Result<u64> {
        let mut swept =
            sweep(&self.system, now_ms, kv::sweep).await? + sweep(&self.system, now_ms, guard::sweep).await?;
        let mut refused = None;
        for (namespace, store) in self.all_opened() {
            match sweep(&store, now_ms, guard::sweep).await {
                Ok(count) => swept += count,
                Err(_) if store.is_refusing() => {}
                Err(error) => {
                    tracing::warn!(%namespace, error = error.message, "what expired in a database can not be deleted");
                    refused.get_or_insert(error);
                }
            }
        }
        self.check_open()?;
        refused.map_or(Ok(swept), Err)
    }
}

async fn sweep(store: &Store, now_ms: i64, some: fn(&Conn, i64) -> Result<usize>) -> Result<u64> {
    let mut swept = 0;
    loop {
        let write = Write::clearing(Undo::Savepoint);
        let count = store.write(write, move |conn| some(conn, now_ms)).await?;
        swept += count as u64;
        if count == 0 {
            return Ok(swept);
        }
    }
}
