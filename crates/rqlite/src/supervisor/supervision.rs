//! Starts the child, watches it, and starts it again.

use super::RqlitedState;
use super::child_process::{self, ChildSlot};
use super::command_line::{ChildFiles, command};
use super::data_lock::DataLock;
use super::{Features, RqlitedConfig, free_port, snapshot_guard};
use crate::client::{ReadLevel, RqliteClient, Statement};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After serving so long, the next failure counts as the first.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// A start needs so much room: rqlited writes its database anew from Raft's log then, and what finds
/// no room is left out without a word, for good.
const ROOM_TO_START: u64 = 64 << 20;
const LOOK_FOR_ROOM: Duration = Duration::from_millis(200);
const ASK_EVERY: Duration = Duration::from_millis(25);
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// All that the task which keeps a child running has.
pub(super) struct Supervision {
    /// Read at each start of the child.
    pub(super) config: Arc<Mutex<RqlitedConfig>>,
    pub(super) features: Features,
    pub(super) files: ChildFiles,
    pub(super) lock: Arc<DataLock>,
    pub(super) client: RqliteClient,
    pub(super) child: Arc<ChildSlot>,
    pub(super) state: watch::Sender<RqlitedState>,
    pub(super) restarts: watch::Sender<u64>,
    pub(super) stopped: watch::Receiver<bool>,
}

impl Supervision {
    pub(super) async fn run(mut self) {
        if !self.features.dies_with_parent {
            tracing::warn!(target: "rqlited", "there is no setpriv that knows --pdeathsig: should this process be killed, rqlited runs on until the next start");
        }
        if self.features.loses_rows_on_long_reads() {
            tracing::warn!(target: "rqlited", program = %debros_proto::lock(&self.config).program.display(), "this rqlite is of version 8 and can lose rows in a snapshot, which is guarded against; version 9.4.5 or later is better");
        }
        let mut pause = FIRST_PAUSE;
        while self.wait_for_room().await {
            let life = self.one_life().await;
            if *self.stopped.borrow() {
                break;
            }
            if life.served_for >= HEALTHY_AFTER {
                pause = FIRST_PAUSE;
            }
            let restarts = *self.restarts.borrow() + 1;
            self.restarts.send_replace(restarts);
            tracing::warn!(target: "rqlited", reason = life.reason, restarts, ?pause, "rqlited ended by itself, and is started again");
            self.state.send_replace(RqlitedState::Restarting { reason: life.reason, restarts });
            if tokio::time::timeout(pause, is_true(&mut self.stopped)).await.is_ok() {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.state.send_replace(RqlitedState::Stopped);
    }

    /// Waits until the disk has room for a start. False: it is to stop.
    async fn wait_for_room(&mut self) -> bool {
        let mut was_full = false;
        while !*self.stopped.borrow() && self.is_disk_full() {
            if !std::mem::replace(&mut was_full, true) {
                let mib = ROOM_TO_START >> 20;
                let folder = self.files.store.display();
                tracing::error!(target: "rqlited", %folder, "rqlited starts when its disk has {mib} MiB of room: on a full disk it would lose what it holds");
            }
            let _ = tokio::time::timeout(LOOK_FOR_ROOM, is_true(&mut self.stopped)).await;
        }
        !*self.stopped.borrow()
    }

    fn is_disk_full(&self) -> bool {
        let folder = self.files.store.parent().unwrap_or(&self.files.store);
        // Where that cannot be found out, rqlited says what is wrong.
        rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail * disk.f_frsize < ROOM_TO_START)
    }

    /// From a start to the end of the child.
    async fn one_life(&mut self) -> Life {
        let config = debros_proto::lock(&self.config).clone();
        let mut http = config.http;
        if http.port() == 0 {
            match free_port(http) {
                // Chosen again at each start: what was free may be taken now.
                Ok(port) => http.set_port(port),
                Err(error) => return Life::failed(format!("no port for HTTP is free: {error}")),
            }
        }
        self.client.set_address(http);
        let command = command(&config, &self.features, &self.files, http);
        let started =
            child_process::start(command, Arc::clone(&self.child), Arc::clone(&self.lock));
        let mut end = match started {
            Ok(end) => end,
            Err(error) => return Life::failed(format!("no thread for it: {error}")),
        };
        let mut serving_since = None;
        let mut stopped = self.stopped.clone();
        let reason = tokio::select! {
            reason = &mut end => Some(ended(reason)),
            () = self.serve(&mut serving_since) => None,
            () = is_true(&mut stopped) => None,
        };
        let reason = match reason {
            Some(reason) => reason,
            None => self.end_child(&mut end).await,
        };
        let served_for = serving_since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
        Life { reason, served_for }
    }

    /// Tells the child to end, and waits for it.
    async fn end_child(&self, end: &mut oneshot::Receiver<String>) -> String {
        loop {
            // The stop may have come before there was a child to get the signal.
            self.child.terminate();
            if let Ok(reason) = tokio::time::timeout(Duration::from_millis(20), &mut *end).await {
                return ended(reason);
            }
        }
    }

    /// Waits until the child serves, and does then what has to be done as long as it does. Never
    /// ends by itself.
    async fn serve(&self, serving_since: &mut Option<Instant>) {
        self.wait_ready().await;
        *serving_since = Some(Instant::now());
        self.state.send_replace(RqlitedState::Serving);
        tracing::debug!(target: "rqlited", address = %self.client.address(), "rqlited serves");
        if self.features.loses_rows_on_long_reads() {
            snapshot_guard::keep(&self.files.store).await;
        }
        std::future::pending().await
    }

    async fn wait_ready(&self) {
        self.state.send_replace(RqlitedState::Starting);
        let read = Statement::new("SELECT 1");
        loop {
            // It says that it is ready before it has caught up; a strong read waits for that.
            if self.client.says_ready().await
                && self.client.query(&read, ReadLevel::Strong, READ_TIMEOUT).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

struct Life {
    reason: String,
    served_for: Duration,
}

impl Life {
    fn failed(reason: String) -> Self {
        Self { reason, served_for: Duration::ZERO }
    }
}

fn ended(reason: Result<String, oneshot::error::RecvError>) -> String {
    reason.unwrap_or_else(|_| "its thread ended".to_owned())
}

/// Waits for a stop; that nobody is left who could ask for one is one as well.
async fn is_true(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
