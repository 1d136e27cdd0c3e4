//! The nodes of a cluster as processes, and what is done to them.

use super::clock::ClockLibrary;
use super::disk;
use super::network::{LinkLimit, Network, command_of_node};
use crate::chaos::random::Random;
use crate::servers::process::ServerProcess;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// After that a cluster that all faults have left counts as broken.
const HEALED_WITHIN: Duration = Duration::from_secs(90);
/// A key of each gateway, which no database knows.
pub(crate) const STATIC_KEY: &str = "chaos-static-key";
const PAUSE: Duration = Duration::from_millis(50);

/// A node, whether it runs or not.
#[derive(Debug)]
pub(crate) struct ChaosNode {
    name: String,
    pub(crate) gateway: SocketAddr,
    /// Where other nodes reach it.
    address: Ipv4Addr,
    ports: [u16; 3],
    data: PathBuf,
    process: Option<ServerProcess>,
    starts: u32,
}

/// The programs and folders of a cluster, and what surrounds it.
#[derive(Debug)]
pub(crate) struct ChaosSetup {
    pub(crate) program: PathBuf,
    pub(crate) rqlited: PathBuf,
    /// For all data and logs.
    pub(crate) folder: PathBuf,
    /// None: all nodes are on the loopback address.
    pub(crate) network: Option<Network>,
    /// Whether each node has a small disk of its own.
    pub(crate) has_small_disks: bool,
    /// None: the clocks of the nodes cannot be moved.
    pub(crate) clock: Option<ClockLibrary>,
}

/// All nodes of the cluster.
#[derive(Debug)]
pub(crate) struct ChaosCluster {
    setup: ChaosSetup,
    pub(crate) nodes: Vec<ChaosNode>,
}

impl ChaosCluster {
    /// Starts a node, makes it the first of a cluster, and has the others join it.
    pub(crate) fn start(setup: ChaosSetup, count: usize) -> Result<Self> {
        let mut ports = free_ports();
        let mut next = || ports.next().context("no port is free");
        let mut nodes = Vec::new();
        for index in 0..count {
            let name = format!("n{}", index + 1);
            let (address, clients) = match setup.network {
                None => (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST),
                Some(_) => (Network::node_address(index), Network::client_address(index)),
            };
            let data = setup.folder.join(&name);
            if setup.has_small_disks {
                disk::mount_small(&data)?;
            }
            nodes.push(ChaosNode {
                name,
                gateway: (clients, next()?).into(),
                address,
                ports: [next()?, next()?, next()?],
                data,
                process: None,
                starts: 0,
            });
        }
        let mut cluster = Self { setup, nodes };
        cluster.start_node(0, None)?;
        cluster.wait_ready(0)?;
        cluster.cli(0, &["cluster", "init"])?;
        for index in 1..count {
            let began = Instant::now();
            // The first node starts again when it becomes one of a cluster.
            let token = loop {
                match cluster.cli(0, &["cluster", "token"]) {
                    Ok(answer) if answer["token"].is_string() => break answer,
                    Err(error) if began.elapsed() > HEALED_WITHIN => return Err(error),
                    _ => std::thread::sleep(PAUSE),
                }
            };
            cluster.start_node(index, token["token"].as_str())?;
            cluster.wait_ready(index)?;
        }
        Ok(cluster)
    }

    /// Makes a key for a namespace.
    pub(crate) fn make_key(&self, namespace: &str) -> Result<String> {
        let mut command = self.command(0, &self.setup.program);
        command.args(["api-key", "--role", "admin", "--namespace", namespace, "--data-dir"]);
        let output = command.arg(&self.nodes[0].data).stdin(Stdio::null()).output()?;
        Ok(text_of(&output)?.trim().to_owned())
    }

    /// A program beside a node.
    fn command(&self, index: usize, program: &Path) -> Command {
        match self.setup.network {
            None => Command::new(program),
            Some(_) => command_of_node(index, program),
        }
    }

    fn cli(&self, index: usize, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command(index, &self.setup.program.with_file_name("network-cli"));
        command.args(["-f", "json"]).args(arguments).stdin(Stdio::null());
        command
            .env("DEBROS_NODE_DATA_DIR", &self.nodes[index].data)
            .env("HOME", &self.setup.folder);
        Ok(serde_json::from_str(&text_of(&command.output()?)?)?)
    }

    /// The node that leads.
    pub(crate) fn find_leader(&self) -> Result<usize> {
        let began = Instant::now();
        loop {
            for index in 0..self.nodes.len() {
                // It may not run.
                let Ok(status) = self.cli(index, &["cluster", "status"]) else { continue };
                let mut nodes = status["nodes"].as_array().into_iter().flatten();
                let leader = nodes.find(|node| node["is_leader"] == true);
                let is_leader =
                    |node: &ChaosNode| leader.is_some_and(|of| of["name"] == *node.name);
                if let Some(found) = self.nodes.iter().position(is_leader) {
                    return Ok(found);
                }
            }
            ensure!(began.elapsed() < HEALED_WITHIN, "no node knows a leader");
        }
    }

    pub(crate) fn start_node(&mut self, index: usize, token: Option<&str>) -> Result<()> {
        if self.nodes[index].process.is_some() {
            return Ok(());
        }
        let mut command = self.command(index, &self.setup.program);
        // All vote: any minority may be away.
        command.env("DEBROS_DATABASE_REPLICATION_FACTOR", self.nodes.len().to_string());
        let node = &mut self.nodes[index];
        let [p2p, http, raft] = node.ports;
        command
            .args(["--node-id", &node.name, "--data-dir"])
            .arg(&node.data)
            .env("DEBROS_GATEWAY_ENABLED", "true")
            .env("GATEWAY_API_KEYS", format!("{STATIC_KEY}:{}", super::NAMESPACE))
            .env("DEBROS_GATEWAY_LISTEN_ADDR", node.gateway.to_string())
            .env("DEBROS_NODE_LISTEN_ADDRESSES", format!("/ip4/{}/tcp/{p2p}", node.address))
            .env("DEBROS_DATABASE_RQLITE_PORT", http.to_string())
            .env("DEBROS_DATABASE_RQLITE_RAFT_PORT", raft.to_string())
            .env("DEBROS_DATABASE_RQLITED_PATH", &self.setup.rqlited);
        if let Some(clock) = &self.setup.clock {
            clock.load_into(&mut command, index)?;
        }
        if !node.address.is_loopback() {
            command.env("DEBROS_DISCOVERY_RAFT_ADV_ADDRESS", node.address.to_string());
        }
        if let Some(token) = token {
            command.args(["--join", token]);
        }
        node.starts += 1;
        // A log for each life.
        let log = format!("{}-{:03}", node.name, node.starts);
        node.process = Some(ServerProcess::start(&mut command, &self.setup.folder, &log)?);
        Ok(())
    }

    fn wait_ready(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        let process = node.process.as_mut().context("the node was not started")?;
        process.wait_ready_within(node.gateway, "/ready", HEALED_WITHIN)?;
        Ok(())
    }

    /// Starts what does not run, takes all else back, and waits until all nodes serve.
    pub(crate) fn heal(&mut self) -> Result<()> {
        if let Some(network) = self.setup.network {
            network.heal()?;
        }
        for index in 0..self.nodes.len() {
            self.start_node(index, None)?;
        }
        for index in 0..self.nodes.len() {
            self.wait_ready(index)
                .with_context(|| format!("node {} does not come back", index + 1))?;
        }
        Ok(())
    }

    /// Ends a node and its rqlited as a loss of power would.
    pub(crate) fn kill_both(&mut self, index: usize) -> Result<()> {
        self.signal_rqlited(index, "KILL")?;
        self.kill_node(index);
        Ok(())
    }

    /// Ends a node with kill -9. The system sends its rqlited SIGTERM.
    pub(crate) fn kill_node(&mut self, index: usize) {
        self.nodes[index].process = None;
    }

    /// Ends a node in order.
    pub(crate) fn stop_node(&mut self, index: usize) -> Result<()> {
        self.nodes[index].process.take().map_or(Ok(()), ServerProcess::stop)
    }

    /// Ends all nodes in order, at the same time.
    pub(crate) fn stop_all(&mut self) -> Result<()> {
        std::thread::scope(|scope| {
            let running = self.nodes.iter_mut().filter_map(|node| node.process.take());
            let stopping: Vec<_> = running.map(|process| scope.spawn(|| process.stop())).collect();
            stopping
                .into_iter()
                .map(|thread| thread.join())
                .try_for_each(|ended| ended.unwrap_or_else(|_| bail!("a node was not stopped")))
        })
    }

    /// Loses all that one node sends another.
    pub(crate) fn cut(&self, from: usize, to: usize) -> Result<()> {
        self.network()?.cut(from, to)
    }

    /// Makes the way from one node to another slow.
    pub(crate) fn limit_link(&self, from: usize, to: usize, limit: LinkLimit) -> Result<()> {
        self.network()?.limit(from, to, limit)
    }

    fn network(&self) -> Result<Network> {
        self.setup.network.context("the nodes have no network of their own")
    }

    /// Moves a node's clock, by milliseconds away from the right time.
    pub(crate) fn move_clock(&self, index: usize, milliseconds: i64) -> Result<()> {
        let clock = self.setup.clock.as_ref().context("the nodes have no clocks of their own")?;
        clock.set(index, milliseconds)
    }

    /// Takes the room that is left on the disk of a node.
    pub(crate) fn fill_disk(&self, index: usize) -> Result<()> {
        ensure!(self.setup.has_small_disks, "the nodes have no disks of their own");
        disk::fill(&self.nodes[index].data)
    }

    /// Gives it back.
    pub(crate) fn clear_disk(&self, index: usize) -> Result<()> {
        disk::clear(&self.nodes[index].data)
    }

    /// Sends a signal to a node.
    pub(crate) fn signal_node(&self, index: usize, signal: &str) -> Result<()> {
        let process = self.nodes[index].process.as_ref().context("the node does not run")?;
        send(signal, process.pid())
    }

    /// Sends a signal to a node's rqlited. It may be starting again, and miss it.
    pub(crate) fn signal_rqlited(&self, index: usize, signal: &str) -> Result<()> {
        let folder = self.nodes[index].data.join("rqlite");
        let Ok(text) = std::fs::read_to_string(folder.join("rqlited.pid")) else { return Ok(()) };
        let pid: u32 = text.trim().parse().context("rqlited.pid")?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_ours = String::from_utf8_lossy(&command).contains(&*folder.to_string_lossy());
        if is_ours { send(signal, pid) } else { Ok(()) }
    }

    /// Copies what is on disks that end with this program beside the logs.
    pub(crate) fn save_small_disks(&self) -> Result<()> {
        for node in self.nodes.iter().filter(|_| self.setup.has_small_disks) {
            let mut saved = node.data.clone();
            saved.set_extension("saved");
            Command::new("cp").arg("-a").arg(&node.data).arg(saved).output()?;
        }
        Ok(())
    }

    /// The gateways of all nodes.
    pub(crate) fn gateways(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.gateway).collect()
    }
}

fn send(signal: &str, pid: u32) -> Result<()> {
    // It may have ended meanwhile.
    Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).output()?;
    Ok(())
}

fn text_of(output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout.clone())?)
}

/// Ports outside of the range from which the system gives connections theirs: a node that is away
/// for a while finds its own again.
fn free_ports() -> impl Iterator<Item = u16> {
    let first = 20_000 + Random::new(std::process::id().into()).below(10_000);
    (first..32_000)
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
}

/// The rqlited to use: one that is named, or that of `make tools`.
pub(crate) fn find_rqlited(named: Option<&Path>) -> Result<PathBuf> {
    let found = match named {
        Some(path) => path.to_owned(),
        None => PathBuf::from(".tools/rqlited"),
    };
    ensure!(found.exists(), "{} is not there: run make tools, or give --rqlited", found.display());
    Ok(found.canonicalize()?)
}
