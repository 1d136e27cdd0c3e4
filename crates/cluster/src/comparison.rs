//! Compares the databases of a node that follows with the leader's, one after another.
//!
//! Two copies are compared when they hold the same entry: this node keeps a moment of its file and
//! asks for a hash of the other copy as of that entry. Where the other one holds another entry,
//! nothing was read, and another moment is tried. A moment holds no writer up, and a hash is made
//! row by row.

use crate::copy_need::{CopyNeeds, CopyReason};
use crate::database_name::name_of;
use crate::leader_link::LeaderLink;
use crate::progress::Progress;
use debros_engine::TargetDatabase;
use debros_engine::embedded::{DatabaseSnapshot, EmbeddedEngine};
use debros_proto::{Code, Error, Result, lock, now_ms};
use debros_rqlite::{ReadLevel, RqliteLog};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often both copies are looked at in a row until they hold the same entry.
const MOMENTS: usize = 100;
/// The pause between two of these.
const MOMENT_PAUSE: Duration = Duration::from_millis(20);
/// The pause before a node is asked again that compares another database.
const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// The pause before a difference is looked at once more.
const REPEAT_PAUSE: Duration = Duration::from_secs(1);
/// The shortest pause between two databases, however many there are.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// A database that is another one here than on other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseDifference {
    /// The namespace whose database it is; empty: the system's.
    pub namespace: String,
    /// The last entry of the log that both copies held.
    pub entry: u64,
    /// It is the leader's copy that differs from those of the other nodes.
    pub leader_differs: bool,
    /// When it was found, in milliseconds since the Unix epoch.
    pub found_at: i64,
}

/// The differences that are known, by the database's name.
#[derive(Debug, Default)]
pub(crate) struct Differences(Mutex<BTreeMap<String, DatabaseDifference>>);

impl Differences {
    pub(crate) fn list(&self) -> Vec<DatabaseDifference> {
        lock(&self.0).values().cloned().collect()
    }

    fn remove(&self, namespace: &str) {
        let mut known = lock(&self.0);
        if known.remove(namespace).is_some() {
            tracing::info!(namespace, "the database is the same again as on the leader");
        }
        metrics::gauge!("debros_cluster_differing_databases").set(known.len() as f64);
    }

    fn insert(&self, difference: DatabaseDifference) {
        let mut known = lock(&self.0);
        known.insert(difference.namespace.clone(), difference);
        metrics::gauge!("debros_cluster_differing_databases").set(known.len() as f64);
    }
}

/// What a comparison showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Same,
    /// As of this entry.
    Differs(u64),
    /// This node's file cannot be read.
    Damaged,
    /// The copies did not hold the same entry, or the other node has none.
    Unknown,
}

pub(crate) struct Comparison {
    pub(crate) node: String,
    pub(crate) engine: Arc<EmbeddedEngine>,
    pub(crate) log: RqliteLog,
    pub(crate) link: Arc<dyn LeaderLink>,
    pub(crate) progress: Arc<Progress>,
    /// Within this time each database is compared once.
    pub(crate) interval: Duration,
    pub(crate) differences: Arc<Differences>,
    pub(crate) needs: Arc<CopyNeeds>,
}

impl Comparison {
    /// Goes on until the task is ended.
    pub(crate) async fn run(self) {
        let mut databases = self.list().await;
        // A node that starts often does not begin with the same ones each time.
        let first = usize::try_from(now_ms()).unwrap_or_default() % databases.len().max(1);
        databases.rotate_left(first);
        loop {
            let count = u32::try_from(databases.len().max(1)).unwrap_or(u32::MAX);
            let pause = (self.interval / count).max(SHORTEST_PAUSE);
            for database in &databases {
                tokio::time::sleep(pause).await;
                if let Err(error) = self.compare(database).await {
                    tracing::debug!(
                        namespace = name_of(database),
                        error = error.message,
                        "a database is not compared now"
                    );
                }
            }
            if databases.is_empty() {
                tokio::time::sleep(pause).await;
            }
            databases = self.list().await;
        }
    }

    async fn list(&self) -> Vec<TargetDatabase> {
        let engine = Arc::clone(&self.engine);
        let listed = tokio::task::spawn_blocking(move || engine.list_databases()).await;
        listed.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// The leader that this node follows; `None`: there is nothing to compare with.
    fn followed_leader(&self) -> Option<String> {
        let leader = self.progress.leader()?;
        (leader != self.node && !self.progress.is_leader() && self.needs.get().is_none())
            .then_some(leader)
    }

    async fn compare(&self, database: &TargetDatabase) -> Result<()> {
        let Some(leader) = self.followed_leader() else { return Ok(()) };
        match self.compare_with(&leader, database).await? {
            Outcome::Same => {
                metrics::counter!("debros_cluster_comparisons_total", "outcome" => "same")
                    .increment(1);
                self.differences.remove(name_of(database));
            }
            Outcome::Damaged => {
                // Where the leader cannot read its own, there is nothing to copy.
                self.link.checksum(&leader, name_of(database), 0).await?;
                let whose = describe(database);
                self.needs.request(CopyReason::DataDiffers, format!("{whose} is damaged here"));
            }
            Outcome::Differs(_) => {
                tokio::time::sleep(REPEAT_PAUSE).await;
                // Once may be a disk that read wrongly.
                if self.followed_leader().as_ref() == Some(&leader)
                    && let Outcome::Differs(entry) = self.compare_with(&leader, database).await?
                {
                    self.report(&leader, database, entry).await;
                }
            }
            Outcome::Unknown => {
                metrics::counter!("debros_cluster_comparisons_total", "outcome" => "unknown")
                    .increment(1);
            }
        }
        Ok(())
    }

    /// A difference is certain: says so, and has the files here replaced unless it is the leader
    /// whose copy differs from the others'.
    async fn report(&self, leader: &str, database: &TargetDatabase, entry: u64) {
        metrics::counter!("debros_cluster_comparisons_total", "outcome" => "differs").increment(1);
        let namespace = name_of(database).to_owned();
        let Some(leader_differs) = self.is_as_another(leader, database).await else {
            tracing::error!(
                leader,
                namespace,
                entry,
                "this node's copy of a database differs from the leader's, and no third node says now whose is right: it is compared again"
            );
            return;
        };
        let found_at = now_ms();
        let difference =
            DatabaseDifference { namespace: namespace.clone(), entry, leader_differs, found_at };
        self.differences.insert(difference);
        if leader_differs {
            tracing::error!(
                leader,
                namespace,
                entry,
                "THE LEADER's copy of a database differs from those of the other nodes: nothing is replaced; have another node lead \
                 (network-cli cluster step-down on the leader), which has this one take a new copy"
            );
            return;
        }
        tracing::error!(
            leader,
            namespace,
            entry,
            "this node's copy of a database differs from the leader's"
        );
        if self.followed_leader().as_deref() == Some(leader) {
            self.needs.request(
                CopyReason::DataDiffers,
                format!("{} differs from the leader's at entry {entry}", describe(database)),
            );
        }
    }

    /// Whether a third node has what this one has, so that it is the leader who differs. `None`: there
    /// is one, and it does not say.
    async fn is_as_another(&self, leader: &str, database: &TargetDatabase) -> Option<bool> {
        let holders = self.log.holders(ReadLevel::Weak).await.ok()?;
        let mut is_decided = true;
        for (other, _) in holders {
            if other == self.node || other == leader {
                continue;
            }
            match self.compare_with(&other, database).await {
                Ok(Outcome::Same) => return Some(true),
                Ok(Outcome::Differs(_)) => return Some(false),
                // The next one may say more.
                Ok(Outcome::Unknown | Outcome::Damaged) => is_decided = false,
                Err(error) => {
                    is_decided = false;
                    tracing::debug!(other, error = error.message, "a node compares nothing now");
                }
            }
        }
        // Without a third one the leader is right.
        is_decided.then_some(false)
    }

    async fn compare_with(&self, other: &str, database: &TargetDatabase) -> Result<Outcome> {
        for _ in 0..MOMENTS {
            let ours = match self.snapshot(database).await {
                Ok(Some(ours)) => ours,
                Ok(None) => return Ok(Outcome::Unknown),
                Err(error) if error.code == Code::Corrupt => return Ok(Outcome::Damaged),
                Err(error) => return Err(error),
            };
            let entry = ours.position();
            let theirs = match self.link.checksum(other, name_of(database), entry).await {
                Ok(Some(theirs)) => theirs,
                Ok(None) => {
                    tokio::time::sleep(MOMENT_PAUSE).await;
                    continue;
                }
                Err(error) if error.code == Code::Overloaded => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            return match hash(ours).await {
                Ok(ours) if ours == theirs => Ok(Outcome::Same),
                Ok(_) => Ok(Outcome::Differs(entry)),
                Err(error) if error.code == Code::Corrupt => Ok(Outcome::Damaged),
                Err(error) => Err(error),
            };
        }
        Ok(Outcome::Unknown)
    }

    async fn snapshot(&self, database: &TargetDatabase) -> Result<Option<DatabaseSnapshot>> {
        let (engine, database) = (Arc::clone(&self.engine), database.clone());
        let taken = tokio::task::spawn_blocking(move || engine.snapshot(&database)).await;
        taken.unwrap_or_else(|error| Err(broken_off(&error)))
    }
}

fn describe(database: &TargetDatabase) -> String {
    match name_of(database) {
        "" => "the system's database".to_owned(),
        namespace => format!("the database of the namespace \"{namespace}\""),
    }
}

/// The hash of a copy as it was at a moment.
///
/// # Errors
/// As [`DatabaseSnapshot::hash`].
pub(crate) async fn hash(snapshot: DatabaseSnapshot) -> Result<[u8; 32]> {
    let read = tokio::task::spawn_blocking(move || snapshot.hash()).await;
    read.unwrap_or_else(|error| Err(broken_off(&error)))
}

pub(crate) fn broken_off(error: &tokio::task::JoinError) -> Error {
    tracing::error!(%error, "reading a database broke off");
    Error::internal("reading a database broke off; the node's log has more")
}
