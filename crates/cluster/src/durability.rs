//! Has the disk take what was applied, says so, and lets the log forget it.
//!
//! A file is not synced when an entry is written into it: the log has the entry on the disks of a
//! majority. It is synced before the log may forget the entry.

use crate::local_state::SharedLocalState;
use crate::progress::Progress;
use debros_engine::embedded::EmbeddedEngine;
use debros_rqlite::{ReadLevel, RqliteLog};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The time between two of these.
const INTERVAL: Duration = Duration::from_secs(2);
/// The pause before the first report is tried again.
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) struct Durability {
    pub(crate) node: String,
    pub(crate) state: Arc<SharedLocalState>,
    pub(crate) engine: Arc<EmbeddedEngine>,
    pub(crate) log: RqliteLog,
    pub(crate) progress: Arc<Progress>,
    /// The log waits for this node.
    pub(crate) registered: watch::Sender<bool>,
    /// Bytes of the log from which on a node that is away is not waited for.
    pub(crate) max_log: u64,
}

impl Durability {
    /// Goes on until the task is ended.
    pub(crate) async fn run(self) {
        // First of all, so that the log waits for this node.
        while let Err(error) = self.log.report_durable(&self.node, self.durable()).await {
            tracing::debug!(%error, "the cluster does not take how far this node is");
            tokio::time::sleep(PAUSE).await;
        }
        self.registered.send_replace(true);
        let mut is_reported = true;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let before = self.durable();
            if let Err(error) = self.sync().await {
                tracing::warn!(error, "what was applied cannot be made durable; it is tried again");
                continue;
            }
            if !is_reported || self.durable() != before {
                match self.log.report_durable(&self.node, self.durable()).await {
                    Ok(()) => is_reported = true,
                    Err(error) => {
                        tracing::debug!(%error, "the cluster does not take how far this node is");
                        is_reported = false;
                        continue;
                    }
                }
            }
            if self.progress.is_leader()
                && let Err(error) = self.trim().await
            {
                tracing::debug!(%error, "the cluster's log cannot be shortened now");
            }
        }
    }

    /// Syncs the files, if there is anything new in them.
    pub(crate) async fn sync(&self) -> Result<(), String> {
        let applied = self.progress.applied();
        if applied <= self.durable() {
            return Ok(());
        }
        let engine = Arc::clone(&self.engine);
        let synced = tokio::task::spawn_blocking(move || engine.sync_files()).await;
        synced.map_err(|error| error.to_string())?.map_err(|error| error.message)?;
        self.state.update(|state| state.durable = applied).map_err(|error| error.to_string())?;
        self.engine.forget_removals(applied).map_err(|error| error.message)
    }

    fn durable(&self) -> u64 {
        self.state.get().durable
    }

    async fn trim(&self) -> Result<(), debros_rqlite::ClientError> {
        let mut holders = self.log.holders(ReadLevel::Weak).await?;
        if self.log.log_bytes().await? > self.max_log
            && let Some(slowest) = holders.iter().map(|(_, durable)| *durable).min()
            && slowest < self.durable()
        {
            let away = holders.extract_if(.., |(_, durable)| *durable == slowest);
            for (node, durable) in away.collect::<Vec<_>>() {
                tracing::warn!(
                    node,
                    durable,
                    "the log is long and does not wait for this node any more: it will need a copy of the files"
                );
                self.log.forget_holder(&node).await?;
            }
        }
        let through = holders.iter().map(|(_, durable)| *durable).min();
        match through {
            Some(through) => self.log.trim(through).await.map(|_| ()),
            None => Ok(()),
        }
    }
}
