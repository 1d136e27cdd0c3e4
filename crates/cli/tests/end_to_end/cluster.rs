//! Three nodes that are one database, as processes: used through every gateway, killed, and started
//! again.

use crate::support::http::Http;
use crate::support::rqlited::{free_port, rqlited};
use crate::support::wallet::Wallet;
use crate::support::{Node, PATIENCE, Program, without_surroundings};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Between two looks at what is waited for.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// A node of a cluster, which runs or not.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) data: PathBuf,
    /// Of the gateway, of P2P, of rqlited for HTTP and for Raft.
    pub(crate) ports: [u16; 4],
    pub(crate) node: Option<Node>,
    /// Variables that it is started with.
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Member {
    pub(crate) fn new(folder: &Path, name: &str, settings: &[(&'static str, String)]) -> Self {
        let ports = [free_port(), free_port(), free_port(), free_port()];
        let (name, data) = (name.to_owned(), folder.join(name));
        Self { name, data, ports, node: None, settings: settings.to_vec() }
    }

    /// Starts it, and waits until it serves.
    pub(crate) fn start(&mut self, more: &[&str]) {
        self.node = Some(Node::start_by(&mut self.command(more), &self.data));
    }

    fn command(&self, more: &[&str]) -> Command {
        let [gateway, p2p, http, raft] = self.ports;
        let mut command = Node::command(&self.data);
        command
            .args(["--node-id", &self.name])
            .args(more)
            .env("DEBROS_GATEWAY_LISTEN_ADDR", format!("127.0.0.1:{gateway}"))
            .env("DEBROS_NODE_LISTEN_ADDRESSES", format!("/ip4/127.0.0.1/tcp/{p2p}"))
            .env("DEBROS_DATABASE_RQLITE_PORT", http.to_string())
            .env("DEBROS_DATABASE_RQLITE_RAFT_PORT", raft.to_string())
            .env("DEBROS_DATABASE_RQLITED_PATH", rqlited())
            .envs(self.settings.iter().cloned());
        command
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("the node runs")
    }

    /// A client of its gateway.
    pub(crate) fn http(&self, key: &str) -> Http {
        Http::new(([127, 0, 0, 1], self.ports[0]).into(), key)
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) {
        self.node.take().expect("the node runs").stop();
    }

    pub(crate) fn rqlited_pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.data.join("rqlite/rqlited.pid")).unwrap();
        text.trim().parse().unwrap()
    }

    /// Kills the node with its rqlited, as a loss of power ends both.
    pub(crate) fn kill(&mut self) {
        // A relay has none.
        if self.data.join("rqlite").exists() {
            self.kill_rqlited();
        }
        self.node.take().expect("the node runs").program.kill();
    }

    fn kill_rqlited(&self) -> u32 {
        let pid = self.rqlited_pid();
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let folder = self.data.to_string_lossy();
        assert!(String::from_utf8_lossy(&command).contains(&*folder), "{pid} is not its rqlited");
        let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
        pid
    }

    pub(crate) fn try_cli(&self, arguments: &[&str]) -> Option<Value> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_network-cli"));
        without_surroundings(&mut command);
        let home = self.data.parent().unwrap();
        command.args(["-f", "json"]).args(arguments).stdin(Stdio::null());
        command.env("DEBROS_NODE_DATA_DIR", &self.data).env("HOME", home).current_dir(home);
        let output = command.output().unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }
}

pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    _folder: TempDir,
}

impl Cluster {
    /// Three nodes: one that begins the cluster, and two that join it.
    fn start() -> Self {
        Self::start_with(&["one", "two", "three"], &[])
    }

    /// Nodes with these names: the first begins the cluster, the others join it, one after another.
    pub(crate) fn start_with(names: &[&str], settings: &[(&'static str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &&str| Member::new(folder.path(), name, settings);
        let mut members: Vec<Member> = names.iter().map(of).collect();
        members[0].start(&[]);
        members[0].try_cli(&["cluster", "init"]).expect("a cluster begins");
        for index in 1..members.len() {
            let token = join_token(&members[0]);
            members[index].start(&["--join", &token]);
        }
        Self { members, _folder: folder }
    }

    pub(crate) fn http(&self, index: usize, key: &str) -> Http {
        self.members[index].http(key)
    }

    /// The node that leads.
    pub(crate) fn leader(&self) -> usize {
        wait_for("a leader", || {
            let running = self.members.iter().filter(|member| member.node.is_some());
            let status =
                running.filter_map(|member| member.try_cli(&["cluster", "status"])).next()?;
            let nodes = status["nodes"].as_array()?;
            let leader = nodes.iter().find(|node| node["is_leader"] == true)?;
            let leads = |member: &Member| member.node.is_some() && leader["name"] == *member.name;
            self.members.iter().position(leads)
        })
    }
}

/// A token with which another node joins the cluster of this one. The first node starts again when it
/// becomes one of a cluster.
pub(crate) fn join_token(member: &Member) -> String {
    let token = wait_for("a join token", || member.try_cli(&["cluster", "token"]));
    token["token"].as_str().unwrap().to_owned()
}

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(PAUSE);
    }
}

/// Sends a request as a client does that wants it done: again, through the next gateway, until it
/// has a success.
pub(crate) async fn insist(
    https: &[Http],
    first: usize,
    method: &Method,
    path: &str,
    key: &str,
    body: &Value,
) {
    let began = Instant::now();
    for attempt in 0.. {
        let http = &https[(first + attempt) % https.len()];
        let request = http.request(method.clone(), path).header("Idempotency-Key", key).json(body);
        // Somebody who does not answer is left for another.
        let outcome = match request.timeout(Duration::from_secs(5)).send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                match response.text().await {
                    Ok(_) if (200..300).contains(&status) => return,
                    Ok(text) => {
                        assert!([503, 504].contains(&status), "{key}: {status} {text}");
                        text
                    }
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        assert!(began.elapsed() < PATIENCE, "{key} has no success: {outcome}");
        tokio::time::sleep(PAUSE).await;
    }
}

pub(crate) async fn insert(https: &[Http], first: usize, id: &str) {
    let body = json!({ "sql": "INSERT INTO rows VALUES (?)", "args": [id] });
    insist(https, first, &Method::POST, "/v1/db/query", id, &body).await;
}

/// All rows, each as often as it is there.
pub(crate) async fn rows(http: &Http) -> Vec<String> {
    let body = json!({ "sql": "SELECT id FROM rows ORDER BY id", "consistency": "linearizable" });
    let began = Instant::now();
    let answer = loop {
        let answer = http.post("/v1/db/query", &body).await;
        // An election takes longer where others use the processors: asked again, as clients do.
        if answer.status != 503 || began.elapsed() > PATIENCE {
            break answer.ok();
        }
        tokio::time::sleep(PAUSE).await;
    };
    let rows = answer.json();
    let rows = rows["rows"].as_array().unwrap().iter();
    rows.map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_serve_as_one_and_outlive_the_loss_of_any() {
    let mut cluster = Cluster::start();
    let key = cluster.members[0].node().api_key("default");
    let https: Vec<Http> = (0..3).map(|index| cluster.http(index, &key)).collect();

    // Whatever is done through one is there through all.
    https[0].create("CREATE TABLE rows (id TEXT NOT NULL)").await;
    let mut expected = Vec::new();
    for (index, http) in https.iter().enumerate() {
        let name = format!("a{index}");
        http.query("INSERT INTO rows VALUES (?)", json!([name])).await.ok();
        http.put_value(&name, name.clone()).await.ok();
        expected.push(name.clone());
        for other in &https {
            assert_eq!(rows(other).await, expected);
            assert_eq!(other.get_value(&name).await.ok().body, name.as_bytes());
        }
        let wallet = Wallet::numbered(u8::try_from(index + 1).unwrap());
        let session = wallet.signed_in(http, "default").await;
        session.put_value("of-a-wallet", name.clone()).await.ok();
    }

    // Each node is lost once, the one that leads among them.
    for lost in 0..3 {
        let others: Vec<Http> = (0..3).filter(|i| *i != lost).map(|i| https[i].clone()).collect();
        cluster.members[lost].kill();
        for (index, http) in others.iter().enumerate() {
            let id = format!("b{lost}{index}");
            insert(&others, index, &id).await;
            expected.push(id);
            assert_eq!(rows(http).await, expected);
        }
        cluster.members[lost].start(&[]);
        assert_eq!(rows(&https[lost]).await, expected);
        let id = format!("b{lost}2");
        insert(&https, lost, &id).await;
        expected.push(id);
    }

    // An rqlited that is gone is started again by its node, also that of the leader.
    for lost in [cluster.leader(), (cluster.leader() + 1) % 3] {
        let before = cluster.members[lost].kill_rqlited();
        let id = format!("c{lost}");
        insert(&https, lost, &id).await;
        expected.push(id);
        wait_for("another rqlited", || {
            (cluster.members[lost].rqlited_pid() != before).then_some(())
        });
        expected.sort();
        assert_eq!(rows(&https[lost]).await, expected);
    }
    for member in cluster.members {
        member.node.unwrap().stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_the_leader_is_killed_again_and_again() {
    const WRITERS: usize = 8;
    const KILLS: usize = 5;
    let mut cluster = Cluster::start();
    let key = cluster.members[0].node().api_key("default");
    let https: Vec<Http> = (0..3).map(|index| cluster.http(index, &key)).collect();
    https[0].create("CREATE TABLE rows (id TEXT NOT NULL)").await;

    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (https, stop, count) = (https.clone(), Arc::clone(&stop), Arc::clone(&count));
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            while !stop.load(SeqCst) {
                let id = format!("{writer}-{}", acknowledged.len());
                insert(&https, writer + acknowledged.len(), &id).await;
                acknowledged.push(id);
                count.fetch_add(1, SeqCst);
            }
            acknowledged
        });
    }
    let more = |than: usize| {
        let count = Arc::clone(&count);
        tokio::task::block_in_place(|| {
            wait_for("writes", || (count.load(SeqCst) > than).then_some(()));
        });
    };
    for _ in 0..KILLS {
        let leader = tokio::task::block_in_place(|| cluster.leader());
        more(count.load(SeqCst) + 50);
        tokio::task::block_in_place(|| cluster.members[leader].kill());
        // The two others serve, and it comes back while they do.
        more(count.load(SeqCst) + 50);
        tokio::task::block_in_place(|| cluster.members[leader].start(&[]));
    }
    stop.store(true, SeqCst);
    let mut acknowledged: Vec<String> = writers.join_all().await.into_iter().flatten().collect();
    acknowledged.sort();
    for http in &https {
        let found = rows(http).await;
        // Each exactly once: all of them were acknowledged in the end.
        if found != acknowledged {
            let lost: Vec<_> = acknowledged.iter().filter(|id| !found.contains(id)).collect();
            let doubled: Vec<_> =
                found.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
            panic!("lost: {lost:?}, doubled: {doubled:?}");
        }
    }
}

/// The file of a follower lacks a table, and it is killed again and again while it takes a new copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_a_new_copy_by_itself_and_through_kills() {
    let mut cluster = Cluster::start();
    let key = cluster.members[0].node().api_key("default");
    let https: Vec<Http> = (0..3).map(|index| cluster.http(index, &key)).collect();
    https[0].create("CREATE TABLE rows (id TEXT NOT NULL)").await;
    insert(&https, 0, "before").await;
    let ill = (tokio::task::block_in_place(|| cluster.leader()) + 1) % 3;
    assert_eq!(rows(&https[ill]).await, ["before"]);
    cluster.members[ill].kill();
    let others: Vec<Http> = (0..3).filter(|i| *i != ill).map(|i| https[i].clone()).collect();
    let db = cluster.members[ill].data.join("db");
    rusqlite::Connection::open(db.join("ns/default.db"))
        .unwrap()
        .execute_batch("DROP TABLE \"ns::default::rows\"")
        .unwrap();
    insert(&others, 0, "meanwhile").await;

    // Each later than the one before: when the copy is noted, when it comes, and when it is whole.
    for signs in [&["reseeding.json"][..], &["db.copy", "db.copied"], &["db.copied", "db.replaced"]]
    {
        let member = &cluster.members[ill];
        let mut program = Program::start(&mut member.command(&[]));
        let has_come = || {
            let record = std::fs::read_to_string(member.data.join("reseeding.json"));
            // It may be done before it is seen.
            let is_done = record.is_ok_and(|record| record.contains("\"count\":1"));
            (is_done || signs.iter().any(|sign| member.data.join(sign).exists())).then_some(())
        };
        tokio::task::block_in_place(|| wait_for("a new copy", has_come));
        program.kill();
        insert(&others, 0, signs[0]).await;
    }
    tokio::task::block_in_place(|| cluster.members[ill].start(&[]));
    let expected = rows(&others[0]).await;
    assert_eq!(expected.len(), 5);
    assert_eq!(rows(&https[ill]).await, expected);
    let name = cluster.members[ill].name.clone();
    tokio::task::block_in_place(|| {
        wait_for("the status", || {
            let status = cluster.members[(ill + 1) % 3].try_cli(&["cluster", "status"])?;
            let nodes = status["nodes"].as_array()?.clone();
            let health = nodes.iter().find(|node| node["name"] == *name)?["health"].clone();
            let reason = health["reseeding_reason"].as_str()?.to_owned();
            assert!(reason.contains("does not fit"), "{health}");
            assert_eq!(health["reseedings"], 1, "{health}");
            // What was replaced goes when the copy serves.
            (!cluster.members[ill].data.join("db.replaced").exists()).then_some(())
        });
    });
    for member in cluster.members {
        member.node.unwrap().stop();
    }
}
