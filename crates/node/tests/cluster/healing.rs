//! Nodes with real rqliteds whose files are not what they should be any more: they take a new copy
//! by themselves.

#[path = "../../../rqlite/tests/support/mod.rs"]
mod support;

use crate::support::LONG;
use debros_client::rpc::{
    ClusterNodeStatus, ClusterStatusResponse, Consistency, DataHealth, Statement,
};
use debros_client::{Client, Code, Config, Error};
use debros_node::{Handler, Node, NodeConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{own_address, program};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// What answers a node's calls, and the operator's credential; `None` while it starts.
type Serving = Option<(Arc<dyn Handler>, String)>;

/// A node that runs or not, with a runtime of its own: that is what a crash ends.
struct Member {
    config: NodeConfig,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    serving: watch::Receiver<Serving>,
    stop: oneshot::Sender<oneshot::Sender<()>>,
}

impl Member {
    fn new(folder: &Path, name: &str) -> Self {
        let mut config = NodeConfig::new(folder.join(name));
        let (p2p, raft) = (own_address(), own_address());
        config.node_id = name.to_owned();
        config.listen_addresses =
            vec![format!("/ip4/{}/tcp/{}", p2p.ip(), p2p.port()).parse().unwrap()];
        config.database.backup_interval = None;
        config.cluster.raft_address = raft.to_string();
        config.cluster.raft_listen = raft;
        config.cluster.rqlited = Some(program());
        Self { config, running: None }
    }

    /// Has it run, and start again whenever it asks for it, as its program does.
    fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        let (sender, serving) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(run(self.config.clone(), sender, stopped));
        self.running = Some(Running { runtime, serving, stop });
    }

    /// Ends it in order.
    async fn stop(&mut self) {
        let Running { runtime, stop, .. } = self.running.take().unwrap();
        let (ended, has_ended) = oneshot::channel();
        stop.send(ended).unwrap();
        tokio::time::timeout(LONG, has_ended).await.unwrap().unwrap();
        runtime.shutdown_background();
    }

    /// Ends it in the middle of whatever it does.
    fn crash(&mut self) {
        let Running { runtime, .. } = self.running.take().unwrap();
        // Its threads let the folder go.
        tokio::task::block_in_place(|| runtime.shutdown_timeout(LONG));
    }

    /// A client of the operator, when it runs and serves.
    fn try_client(&self) -> Option<Client> {
        let running = self.running.as_ref()?;
        let (handler, credential) = running.serving.borrow().clone()?;
        Some(Client::local(handler, &Config::new("app").credential(credential)))
    }

    async fn client(&self) -> Client {
        wait_for("a node that serves", async || self.try_client()).await
    }

    async fn status(&self) -> Option<ClusterStatusResponse> {
        self.try_client()?.cluster().status().await.ok()
    }

    fn database(&self) -> PathBuf {
        self.config.database.data_dir.clone()
    }

    /// Changes the file of the namespace behind the node's back.
    fn damage(&self, sql: &str) {
        let file = self.database().join("ns/app.db");
        let db = rusqlite::Connection::open(file).unwrap();
        db.busy_timeout(LONG).unwrap();
        db.execute_batch(sql).unwrap();
    }
}

async fn run(
    config: NodeConfig,
    serving: watch::Sender<Serving>,
    mut stopped: oneshot::Receiver<oneshot::Sender<()>>,
) {
    loop {
        let node = tokio::select! {
            node = Node::start(config.clone()) => node,
            ended = &mut stopped => return drop(ended),
        };
        let node = match node {
            Ok(node) => node,
            // The system may not have taken back all of what a crash left, as the port.
            Err(_) => {
                tokio::time::sleep(PAUSE * 10).await;
                continue;
            }
        };
        serving.send_replace(Some((node.handler(), node.operator_credential().to_owned())));
        let ended = tokio::select! {
            _ = node.restart_requested() => None,
            ended = &mut stopped => ended.ok(),
        };
        serving.send_replace(None);
        node.shutdown(Instant::now() + Duration::from_secs(10)).await;
        if let Some(ended) = ended {
            let _ = ended.send(());
            return;
        }
    }
}

struct Cluster {
    members: Vec<Member>,
    _folder: TempDir,
}

impl Cluster {
    /// Three nodes that have a table with two rows.
    async fn start(change: impl Fn(&mut NodeConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut members: Vec<Member> =
            ["one", "two", "three"].map(|name| Member::new(folder.path(), name)).into();
        members.iter_mut().for_each(|member| change(&mut member.config));
        members[0].start();
        members[0].client().await.cluster().init().await.unwrap();
        for index in 1..3 {
            // The first node starts again when it becomes one of a cluster.
            let token = wait_for("a join token", async || {
                members[0].status().await?.leader?;
                members[0].try_client()?.cluster().create_join_token().await.ok()
            });
            let token = token.await.token;
            members[index].config.cluster.join = Some(token.parse().unwrap());
            members[index].start();
            members[index].client().await;
        }
        let cluster = Self { members, _folder: folder };
        cluster.run(0, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)").await;
        cluster.run(0, "INSERT INTO t (a) VALUES ('one'), ('two')").await;
        for index in 0..3 {
            cluster.rows_at(index, Consistency::Linearizable).await;
        }
        cluster
    }

    /// Runs a statement by a node, as long as an election lasts.
    async fn run(&self, index: usize, sql: &str) {
        wait_for("a write", async || {
            match self.members[index].client().await.database().query(sql, []).await {
                Ok(_) => Some(()),
                Err(error) => {
                    assert!(is_passing(&error), "{error}");
                    None
                }
            }
        })
        .await;
    }

    async fn rows_at(&self, index: usize, level: Consistency) -> String {
        let sql = "SELECT id, a FROM t ORDER BY id";
        wait_for("a read", async || {
            let client = self.members[index].try_client()?;
            let statement = Statement::new(sql, []);
            let read = client.database().query_at(statement, level).await;
            read.map(|read| format!("{:?}", read.rows))
                .inspect_err(|error| assert!(is_passing(error), "{error}"))
                .ok()
        })
        .await
    }

    /// A node that follows, and one that leads.
    async fn follower_and_leader(&self) -> (usize, usize) {
        let leader = self.leader().await;
        ((leader + 1) % 3, leader)
    }

    async fn leader(&self) -> usize {
        wait_for("a leader", async || {
            let running = self.members.iter().find(|member| member.running.is_some())?;
            let status = running.status().await?;
            let leader = status.leader?;
            let known = status.nodes.into_iter().filter_map(|status| status.node);
            let name = known.into_iter().find(|node| node.peer_id == leader)?.name;
            self.members
                .iter()
                .position(|member| member.config.node_id == name && member.running.is_some())
        })
        .await
    }

    /// What a node says of another one, or of itself.
    async fn status_of(&self, asked: usize, of: usize) -> Option<ClusterNodeStatus> {
        let status = self.members[asked].status().await?;
        let name = &self.members[of].config.node_id;
        let mut nodes = status.nodes.into_iter();
        nodes.find(|status| status.node.as_ref().is_some_and(|node| node.name == *name))
    }

    /// Waits until a node took one copy, and says how its data is.
    async fn reseeded(&self, index: usize) -> DataHealth {
        let health = wait_for("a new copy", async || {
            let health = self.status_of(index, index).await?.health?;
            (health.reseedings > 0).then_some(health)
        })
        .await;
        assert_eq!(health.reseedings, 1, "{health:?}");
        health
    }

    /// All nodes have the same rows, only these took a copy, and their old files are gone.
    async fn check_healed(&self, healed: &[usize]) {
        let asked = (0..3).find(|index| !healed.contains(index)).unwrap();
        let expected = self.rows_at(asked, Consistency::Linearizable).await;
        for index in 0..3 {
            assert_eq!(self.rows_at(index, Consistency::Linearizable).await, expected);
            // As another one sees it.
            let health =
                wait_for("a node's health", async || self.status_of(asked, index).await?.health);
            let health = health.await;
            assert_eq!(health.reseedings, u64::from(healed.contains(&index)), "{health:?}");
            assert!(health.problem.is_empty(), "{health:?}");
        }
        for index in healed {
            for left in ["replaced", "copied", "copy", "joining"] {
                let folder = self.members[*index].database().with_extension(left);
                wait_for(left, async || (!folder.exists()).then_some(())).await;
            }
        }
    }

    /// Where a node can be dialled, as another one knows it.
    async fn address_of(&self, asked: usize, of: usize) -> String {
        wait_for("an address", async || {
            self.status_of(asked, of).await?.node?.addresses.into_iter().next()
        })
        .await
    }

    async fn stop(mut self) {
        for member in &mut self.members {
            member.stop().await;
        }
    }
}

/// What is answered while a node starts or another one is elected.
fn is_passing(error: &Error) -> bool {
    matches!(error.code, Code::Unavailable | Code::NotLeader | Code::UnknownOutcome)
}

/// Whether a caller from elsewhere is told that the node copies the data.
async fn says_that_it_copies(address: &str) -> bool {
    let config = Config::new("app").bootstrap_peer(address).credential("of nobody");
    let Ok(client) = Client::connect(config).await else { return false };
    let read = client.database().query("SELECT a FROM t", []).await;
    read.is_err_and(|error| {
        assert_eq!(error.code, Code::Unavailable, "{error}");
        error.message.contains("the node copies the cluster's data")
    })
}

async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + LONG;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "{what} does not come");
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_changed_behind_a_nodes_back_is_found_and_comes_back() {
    let mut cluster = Cluster::start(|_| {}).await;
    let (ill, _) = cluster.follower_and_leader().await;
    cluster.members[ill].stop().await;
    cluster.members[ill].damage("UPDATE \"ns::app::t\" SET a = 'other' WHERE id = 2");
    cluster.members[ill].config.cluster.compare_interval = Duration::from_millis(200);
    cluster.members[ill].start();
    let health = cluster.reseeded(ill).await;
    assert!(health.reseeding_reason.contains("differs from the leader's"), "{health:?}");
    assert!(health.reseeded_at > 0, "{health:?}");
    cluster.check_healed(&[ill]).await;
    // It is one of the cluster as before: its writes go to the leader.
    cluster.run(ill, "INSERT INTO t (a) VALUES ('three')").await;
    cluster.check_healed(&[ill]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_until_the_log_was_cut_comes_back_by_itself() {
    let mut cluster = Cluster::start(|config| config.cluster.max_log = 4096).await;
    let (away, leader) = cluster.follower_and_leader().await;
    cluster.members[away].stop().await;
    cluster.run(leader, "INSERT INTO t (a) VALUES (hex(zeroblob(8192)))").await;
    wait_for("the end of the wait for it", async || {
        cluster.run(leader, "INSERT INTO t (a) VALUES ('more')").await;
        let status = cluster.members[leader].status().await?;
        // Of none of the others anything is known while an election is under way.
        let is_away = |status: &ClusterNodeStatus| {
            status
                .node
                .as_ref()
                .is_some_and(|node| node.name == cluster.members[away].config.node_id)
        };
        let is_waited_for = |status: &ClusterNodeStatus| status.applied_entry.is_some();
        status.nodes.iter().all(|status| is_waited_for(status) != is_away(status)).then_some(())
    })
    .await;
    cluster.members[away].start();
    let health = cluster.reseeded(away).await;
    assert!(health.reseeding_reason.contains("the log begins at entry"), "{health:?}");
    cluster.check_healed(&[away]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_for_an_entry_that_does_not_fit_is_finished_after_crashes() {
    let mut cluster = Cluster::start(|_| {}).await;
    let (ill, leader) = cluster.follower_and_leader().await;
    let address = cluster.address_of(leader, ill).await;
    cluster.members[ill].stop().await;
    cluster.members[ill].damage("DROP TABLE \"ns::app::t\"");
    cluster.run(leader, "INSERT INTO t (a) VALUES ('three')").await;
    // No node can make copies as long as this is there.
    let copies: Vec<PathBuf> =
        cluster.members.iter().map(|member| member.config.data_dir.join("copies")).collect();
    for copies in &copies {
        let _ = std::fs::remove_dir_all(copies);
        std::fs::write(copies, "in the way").unwrap();
    }
    for _ in 0..2 {
        cluster.members[ill].start();
        // It is there, and passes nothing on of what it has.
        wait_for("a node that copies", async || says_that_it_copies(&address).await.then_some(()))
            .await;
        assert!(cluster.members[ill].try_client().is_none());
        cluster.members[ill].crash();
        cluster.run(leader, "INSERT INTO t (a) VALUES ('meanwhile')").await;
    }
    copies.iter().for_each(|copies| std::fs::remove_file(copies).unwrap());
    // And once more wherever it is in the copy itself.
    cluster.members[ill].start();
    let copy = cluster.members[ill].database().with_extension("copy");
    wait_for("the copy's begin", async || {
        // It may be whole before it is seen.
        (copy.exists() || cluster.members[ill].try_client().is_some()).then_some(())
    })
    .await;
    cluster.members[ill].crash();
    cluster.members[ill].start();
    let health = cluster.reseeded(ill).await;
    assert!(health.reseeding_reason.contains("does not fit"), "{health:?}");
    cluster.check_healed(&[ill]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_followers_take_a_copy_and_the_leader_goes_on() {
    let cluster = Cluster::start(|_| {}).await;
    let (_, leader) = cluster.follower_and_leader().await;
    let ill: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    for index in &ill {
        cluster.members[*index].damage("DROP TABLE \"ns::app::t\"");
    }
    cluster.run(leader, "INSERT INTO t (a) VALUES ('three')").await;
    for index in &ill {
        cluster.reseeded(*index).await;
    }
    cluster.check_healed(&ill).await;
    cluster.stop().await;
}
