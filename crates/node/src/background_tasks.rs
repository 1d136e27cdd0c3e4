//! What a node does by itself: sweeping what has expired, renewing its token key, making backups,
//! keeping bootstrap peers connected.

use crate::config::NodeConfig;
use crate::dispatcher::CallDispatcher;
use debros_p2p::{Host, Multiaddr};
use debros_proto::now_ms;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often expired values and records are deleted, and last uses of keys written down.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// How often the age of the token key is looked at.
const KEY_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// How long one dial of a bootstrap peer may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// A failed backup is tried again after this, when the interval is longer.
const BACKUP_RETRY: Duration = Duration::from_secs(600);

/// The node's background tasks.
pub(crate) struct BackgroundTasks {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl BackgroundTasks {
    pub(crate) fn start(
        config: &NodeConfig,
        dispatcher: &Arc<CallDispatcher>,
        host: &Host,
    ) -> Self {
        let workers = Self { tasks: TaskTracker::new(), stop: CancellationToken::new() };
        workers.spawn_task(run_sweeps(Arc::clone(dispatcher)));
        workers.spawn_task(renew_token_key(Arc::clone(dispatcher)));
        if let Some(interval) = config.database.backup_interval {
            workers.spawn_task(run_backups(Arc::clone(dispatcher), interval));
        }
        for address in config.bootstrap_peers.clone() {
            workers.spawn_task(keep_connected(host.clone(), address, config.discovery_interval));
        }
        workers.tasks.close();
        workers
    }

    fn spawn_task(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Ends them. Each is at a point where an end does no harm: what they began in the database,
    /// the database finishes.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

async fn run_sweeps(dispatcher: Arc<CallDispatcher>) {
    let swept = metrics::counter!("debros_node_swept_rows_total");
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        match dispatcher.sweep().await {
            Ok(rows) => swept.increment(rows),
            Err(error) => {
                tracing::warn!(%error, "what has expired could not be deleted, or what was counted not kept")
            }
        }
    }
}

/// Gives the node a new key to sign access tokens with when its own is 30 days old.
async fn renew_token_key(dispatcher: Arc<CallDispatcher>) {
    loop {
        if let Err(error) = dispatcher.auth.rotate_signing_key_if_old().await {
            tracing::error!(%error, "the node has no new key for access tokens; it goes on with the old one");
        }
        tokio::time::sleep(KEY_INTERVAL).await;
    }
}

/// Makes a backup whenever the newest one is older than the interval: a node that is restarted
/// often still makes them.
async fn run_backups(dispatcher: Arc<CallDispatcher>, interval: Duration) {
    let engine = &dispatcher.services.engine;
    loop {
        tokio::time::sleep(time_until_due(newest_backup_time(&dispatcher).await, interval)).await;
        match engine.backup(Box::new(|_, _| {})).await {
            Ok(made) => {
                tracing::info!(name = made.name, size = made.size, "a backup was made and verified")
            }
            Err(error) => {
                tracing::error!(%error, "the scheduled backup failed");
                tokio::time::sleep(interval.min(BACKUP_RETRY)).await;
            }
        }
    }
}

/// When the newest backup was made; the node's start when there is none, so that a first start is
/// not slowed by one.
async fn newest_backup_time(dispatcher: &CallDispatcher) -> i64 {
    let backups = dispatcher.services.engine.backups().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the backups cannot be listed");
        Vec::new()
    });
    backups.first().map_or(dispatcher.services.facts.started_at, |newest| newest.created_at)
}

fn time_until_due(newest: i64, interval: Duration) -> Duration {
    let age = Duration::from_millis(u64::try_from(now_ms() - newest).unwrap_or(0));
    interval.saturating_sub(age)
}

async fn keep_connected(host: Host, address: Multiaddr, interval: Duration) {
    let mut reported = false;
    loop {
        match host.connect(address.clone(), DIAL_TIMEOUT).await {
            Ok(peer) => {
                if reported {
                    tracing::info!(%address, %peer, "the bootstrap peer is connected");
                }
                reported = false;
            }
            Err(error) => {
                // Once, not at every attempt: a peer may be away for days.
                if !std::mem::replace(&mut reported, true) {
                    tracing::warn!(%address, %error, "the bootstrap peer cannot be reached; trying again");
                }
            }
        }
        tokio::time::sleep(interval).await;
    }
}
