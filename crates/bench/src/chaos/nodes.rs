//! The nodes of a cluster as processes, and what is done to them.

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
const PAUSE: Duration = Duration::from_millis(50);

/// A node, whether it runs or not.
#[derive(Debug)]
pub(crate) struct ChaosNode {
    name: String,
    pub(crate) gateway: SocketAddr,
    ports: [u16; 3],
    data: PathBuf,
    process: Option<ServerProcess>,
    starts: u32,
}

/// All nodes of the cluster.
#[derive(Debug)]
pub(crate) struct ChaosCluster {
    program: PathBuf,
    rqlited: PathBuf,
    folder: PathBuf,
    pub(crate) nodes: Vec<ChaosNode>,
}

impl ChaosCluster {
    /// Starts a node, makes it the first of a cluster, and has the others join it.
    pub(crate) fn start(
        program: PathBuf,
        rqlited: PathBuf,
        folder: &Path,
        count: usize,
    ) -> Result<Self> {
        let mut ports = free_ports();
        let mut next = || ports.next().context("no port is free");
        let mut nodes = Vec::new();
        for number in 1..=count {
            nodes.push(ChaosNode {
                name: format!("n{number}"),
                gateway: (Ipv4Addr::LOCALHOST, next()?).into(),
                ports: [next()?, next()?, next()?],
                data: folder.join(format!("n{number}")),
                process: None,
                starts: 0,
            });
        }
        let mut cluster = Self { program, rqlited, folder: folder.to_owned(), nodes };
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
        let mut command = Command::new(&self.program);
        command.args(["api-key", "--role", "admin", "--namespace", namespace, "--data-dir"]);
        let output = command.arg(&self.nodes[0].data).stdin(Stdio::null()).output()?;
        Ok(text_of(&output)?.trim().to_owned())
    }

    fn cli(&self, index: usize, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(self.program.with_file_name("network-cli"));
        command.args(["-f", "json"]).args(arguments).stdin(Stdio::null());
        command.env("DEBROS_NODE_DATA_DIR", &self.nodes[index].data).env("HOME", &self.folder);
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
        let node = &mut self.nodes[index];
        if node.process.is_some() {
            return Ok(());
        }
        let [p2p, http, raft] = node.ports;
        let mut command = Command::new(&self.program);
        command
            .args(["--node-id", &node.name, "--data-dir"])
            .arg(&node.data)
            .env("DEBROS_GATEWAY_ENABLED", "true")
            .env("DEBROS_GATEWAY_LISTEN_ADDR", node.gateway.to_string())
            .env("DEBROS_NODE_LISTEN_ADDRESSES", format!("/ip4/127.0.0.1/tcp/{p2p}"))
            .env("DEBROS_DATABASE_RQLITE_PORT", http.to_string())
            .env("DEBROS_DATABASE_RQLITE_RAFT_PORT", raft.to_string())
            .env("DEBROS_DATABASE_RQLITED_PATH", &self.rqlited);
        if let Some(token) = token {
            command.args(["--join", token]);
        }
        node.starts += 1;
        // A log for each life.
        let log = format!("{}-{:03}", node.name, node.starts);
        node.process = Some(ServerProcess::start(&mut command, &self.folder, &log)?);
        Ok(())
    }

    fn wait_ready(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        let process = node.process.as_mut().context("the node was not started")?;
        process.wait_ready_within(node.gateway, "/ready", HEALED_WITHIN)?;
        Ok(())
    }

    /// Starts what does not run, and waits until all nodes serve.
    pub(crate) fn heal(&mut self) -> Result<()> {
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
