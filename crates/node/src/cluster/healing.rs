//! How a node takes a new copy of the data by itself when its files do not follow the log any more.
//!
//! The node notes the copy that it needs in [`ReseedRecord`] and starts again. It serves nobody from
//! then on until the copy is in place; its rqlited goes on, so that a majority of the voters does
//! not hang on it. What happens at that start is in `start/reseed.rs`.

use super::ClusterService;
use super::file_transfer::{check_room, fetch_files};
use super::replication::{Replication, hand_over_if_leading};
use super::reseed_record::{ReseedRecord, record_error};
use crate::start::folder_size;
use debros_cluster::{CopyNeed, CopyReason, LocalState};
use debros_p2p::PeerId;
use debros_proto::{Code, Error, Result};
use debros_rqlite::{ReadLevel, RqliteLog, Rqlited};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is looked whether the node's turn has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Nodes that need a copy at the same time start again one after another, so far apart.
const TURN: Duration = Duration::from_secs(5);
/// How long a node waits at most until all others are connected, before it starts again.
const OTHERS_TIME: Duration = Duration::from_secs(60);
/// How long a new copy may take until it is asked again whether it serves.
const READY_TIME: Duration = Duration::from_secs(60);
/// The pause after a failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

impl ClusterService {
    /// Has the node start again to take a new copy of the data, when it needs one.
    pub(super) async fn follow_copy_needs(&self) {
        let Some(replication) = &self.replication else { return };
        loop {
            let need = replication.database.wait_copy_need().await;
            if !self.wait_for_turn(replication).await {
                continue;
            }
            match self.begin_reseeding(&need) {
                Ok(()) => return self.state.request_restart("it takes a new copy of the data"),
                Err(error) => {
                    tracing::error!(%error, "the node needs a new copy of the data and cannot take it");
                    tokio::time::sleep(LONGEST_PAUSE).await;
                }
            }
        }
    }

    /// Notes that the node takes a new copy at its next start.
    ///
    /// # Errors
    /// `conflict` on the node that leads; `disk_full` when there is no room for a copy; what the disk
    /// says.
    pub(crate) fn begin_reseeding(&self, need: &CopyNeed) -> Result<()> {
        let replication = self.replication()?;
        // Before the node gives up what it has. How much the leader sends is not known yet; it is
        // about what is here, and looked at again before the first byte is written.
        let database = &replication.database_dir;
        check_room(database, folder_size(database))?;
        // It does not take the lead from here on.
        replication.database.decline_lead();
        if replication.database.is_leader() {
            replication.database.resume();
            return Err(Error::new(Code::Conflict, "the node leads: its files are what counts"));
        }
        let noted = self.note_reseeding(replication, need);
        if noted.is_err() {
            replication.database.resume();
        }
        noted
    }

    fn note_reseeding(&self, replication: &Replication, need: &CopyNeed) -> Result<()> {
        let folder = &replication.data_dir;
        let mut record =
            ReseedRecord::read(folder).map_err(|error| record_error(folder, &error))?;
        if record.pending.is_some() {
            return Ok(());
        }
        record.begin(need, self.state.nodes().values());
        record.write(folder).map_err(|error| record_error(folder, &error))?;
        let reason = need.reason.name();
        metrics::counter!("debros_cluster_reseedings_total", "reason" => reason).increment(1);
        tracing::error!(
            reason,
            why = need.message,
            before = record.count,
            "this node takes a new copy of the cluster's data, and serves nobody until it has it"
        );
        Ok(())
    }

    /// Waits until this node may begin: some time after its last copy, after others that need one
    /// as well, and while the others are there. False: the files are not to be replaced any more.
    async fn wait_for_turn(&self, replication: &Replication) -> bool {
        let pause = replication.reseed_pause();
        if !pause.is_zero() {
            tracing::error!(
                wait_s = pause.as_secs(),
                "the node took a new copy of the data not long ago; it waits before it takes another"
            );
        }
        let turn = Instant::now() + pause + TURN * self.rank();
        let latest = turn + OTHERS_TIME;
        loop {
            let Some(need) = replication.database.copy_need() else { return false };
            if need.reason != CopyReason::DataDiffers {
                replication.hand_over().await;
            }
            let now = Instant::now();
            if now >= latest || (now >= turn && self.are_others_connected()) {
                return true;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// The place of this node among those that may need a copy at the same time.
    fn rank(&self) -> u32 {
        let (nodes, own) = (self.state.nodes(), self.state.own.peer_id);
        let leader = self.replication.as_ref().and_then(|part| part.database.status().leader);
        let before = nodes.values().filter(|node| {
            !node.is_removed()
                && node.peer_id < own
                && leader.as_ref() != Some(&node.peer_id.to_string())
        });
        u32::try_from(before.count()).unwrap_or(u32::MAX)
    }

    fn are_others_connected(&self) -> bool {
        let nodes = self.state.nodes();
        let mut live = nodes.values().filter(|node| !node.is_removed());
        live.all(|node| {
            node.peer_id == self.state.own.peer_id || self.members.channel(&node.peer_id).is_some()
        })
    }

    /// Copies the data from the node that leads and serves into a folder, for as long as it takes.
    /// `None`: the cluster's key was replaced, which rqlited has to be started again for.
    ///
    /// # Errors
    /// When the node is in no cluster.
    pub(crate) async fn fetch_from_leader(
        &self,
        rqlited: &Rqlited,
        target: &Path,
    ) -> Result<Option<LocalState>> {
        let log = RqliteLog::new(rqlited.client());
        let epoch = self.state.keyring()?.current().epoch();
        let mut pause = FIRST_PAUSE;
        while self.state.keyring()?.current().epoch() == epoch {
            // A leader is needed, and this node cannot be it, also while it copies.
            let hand_over = async {
                loop {
                    hand_over_if_leading(&log, rqlited).await;
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
            };
            let fetched = tokio::select! {
                fetched = self.try_fetch(&log, target) => fetched,
                () = hand_over => continue,
            };
            match fetched {
                Ok(durable) => return self.local_state(durable).map(Some),
                Err(error) if error.code == Code::Unavailable && pause < LONGEST_PAUSE => {
                    tracing::warn!(error = error.message, "no new copy of the data yet");
                }
                Err(error) => tracing::error!(
                    error = error.message,
                    "no new copy of the data can be taken; it is tried again, and the node serves nobody until then"
                ),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(None)
    }

    async fn try_fetch(&self, log: &RqliteLog, target: &Path) -> Result<u64> {
        let unavailable = |what: &str| Error::new(Code::Unavailable, what);
        let now = log.leadership(ReadLevel::None).await;
        let leader = now.map_err(|_| unavailable("the cluster's log does not answer"))?.node;
        let peer: PeerId =
            leader.parse().map_err(|_| unavailable("no node leads the cluster yet"))?;
        if peer == self.state.own.peer_id {
            return Err(unavailable("no other node leads the cluster yet"));
        }
        let channel = self.members.channel(&peer);
        let channel =
            channel.ok_or_else(|| unavailable("there is no connection to the node that leads"))?;
        make_empty(target).map_err(|error| {
            Error::internal(format!("the folder {} cannot be used: {error}", target.display()))
        })?;
        fetch_files(&channel, target).await
    }

    /// Removes the files that a new copy has replaced, as soon as that serves.
    pub(super) async fn drop_replaced_files(&self) {
        let Some(replication) = &self.replication else { return };
        let folder = replication.replaced_files.clone();
        if !folder.exists() {
            return;
        }
        while !replication.database.wait_ready(READY_TIME).await {
            tracing::warn!(
                folder = %folder.display(),
                "the new copy of the data does not serve yet; the old files are kept"
            );
        }
        let removed = {
            let folder = folder.clone();
            tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await
        };
        match removed.map_err(std::io::Error::other).flatten() {
            Ok(()) => tracing::warn!(
                folder = %folder.display(),
                "the new copy of the data serves; the old files were removed"
            ),
            Err(error) => tracing::warn!(
                %error, folder = %folder.display(),
                "the old files, which a new copy has replaced, cannot be removed"
            ),
        }
    }
}

/// A folder with nothing in it, for its owner alone.
fn make_empty(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
