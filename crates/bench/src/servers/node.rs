//! The node with its gateway inside, and the gateway as a program of its own.

use super::process::{ServerProcess, free_address, free_port};
use anyhow::{Context as _, Result, ensure};
use debros_p2p::Multiaddr;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A static key of the gateway, beside the real one.
pub(crate) const STATIC_KEY: &str = "bench-static-key";
/// The namespace of all measurements.
pub(crate) const NAMESPACE: &str = "bench";

/// The paths of the programs.
#[derive(Debug)]
pub(crate) struct ProgramPaths {
    node: PathBuf,
    gateway: PathBuf,
}

impl ProgramPaths {
    /// Builds the programs with the release profile; costs nothing when they are up to date.
    pub(crate) fn build() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = Command::new(cargo)
            .args(["build", "--release", "-p", "debros-cli", "--bins", "--message-format=json"])
            .stderr(Stdio::inherit())
            .output()
            .context("run cargo")?;
        ensure!(build.status.success(), "cargo build --release -p debros-cli failed");
        let programs: HashMap<String, PathBuf> = String::from_utf8_lossy(&build.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|message| {
                let name = message["target"]["name"].as_str()?.to_owned();
                Some((name, PathBuf::from(message["executable"].as_str()?)))
            })
            .collect();
        let find = |name: &str| {
            programs.get(name).cloned().with_context(|| format!("cargo built no program {name}"))
        };
        Ok(Self { node: find("network-node")?, gateway: find("network-gateway")? })
    }

    /// A node that is built already.
    pub(crate) fn with_node(node: PathBuf) -> Self {
        let gateway = node.with_file_name("network-gateway");
        Self { node, gateway }
    }

    /// The network-node program.
    pub(crate) fn node(&self) -> &Path {
        &self.node
    }

    /// Starts a node with its gateway inside, and waits until it is ready.
    pub(crate) fn start_node(
        &self,
        folder: &Path,
        settings: &NodeOverrides,
    ) -> Result<NodeProcess> {
        let gateway = free_address()?;
        let p2p = free_port()?;
        let data = folder.join("node");
        let config = folder.join("node.yaml");
        std::fs::write(
            &config,
            format!(
                "node:\n  type: bootstrap\n  data_dir: {}\n  listen_addresses: [/ip4/127.0.0.1/tcp/{p2p}]\n\
                 {}gateway:\n  enabled: true\n  listen_addr: {gateway}\nlogging:\n  level: warn\n{}",
                data.display(),
                settings.node_section(),
                settings.database_section(),
            ),
        )?;
        let mut command = Command::new(&self.node);
        command
            .arg("--config")
            .arg(&config)
            .env("GATEWAY_API_KEYS", format!("{STATIC_KEY}:{NAMESPACE}"));
        let mut process = ServerProcess::start(&mut command, folder, "node")?;
        let ready = process.wait_ready(gateway, "/ready")?;
        Ok(NodeProcess { process, gateway, data, ready })
    }

    /// Makes a real API key, as an operator does.
    pub(crate) fn make_key(&self, node: &NodeProcess, namespace: &str) -> Result<String> {
        let output = Command::new(&self.node)
            .args(["api-key", "--namespace", namespace, "--data-dir"])
            .arg(&node.data)
            .output()?;
        ensure!(
            output.status.success(),
            "network-node api-key: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Starts a separate gateway in front of a node, and waits until it is ready.
    pub(crate) fn start_gateway(
        &self,
        node: &NodeProcess,
        folder: &Path,
    ) -> Result<(ServerProcess, SocketAddr)> {
        let address = free_address()?;
        let peer =
            std::fs::read_to_string(node.data.join("peer.info")).context("read peer.info")?;
        let mut command = Command::new(&self.gateway);
        command
            .args([
                "--addr",
                &address.to_string(),
                "--namespace",
                NAMESPACE,
                "--bootstrap-peers",
                peer.trim(),
            ])
            .env("LOG_LEVEL", "warn");
        let mut process = ServerProcess::start(&mut command, folder, "gateway")?;
        process.wait_ready(address, "/ready")?;
        Ok((process, address))
    }
}

/// Settings of a node beside its defaults.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NodeOverrides {
    /// Such as `256MiB`.
    pub(crate) max_database_size: Option<&'static str>,
    /// Limit on connections of peers.
    pub(crate) max_connections: Option<u32>,
}

impl NodeOverrides {
    fn node_section(self) -> String {
        self.max_connections
            .map_or(String::new(), |number| format!("  max_connections: {number}\n"))
    }

    fn database_section(self) -> String {
        self.max_database_size
            .map_or(String::new(), |size| format!("database:\n  max_database_size: {size}\n"))
    }
}

impl NodeProcess {
    /// The address at which a peer dials the node.
    pub(crate) fn peer_address(&self) -> Result<Multiaddr> {
        debros_p2p::peer_info::read(&self.data.join("peer.info")).context("read peer.info")
    }
}

/// A running node.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    pub(crate) process: ServerProcess,
    pub(crate) gateway: SocketAddr,
    data: PathBuf,
    /// From the start of the process to the first 200 from `/ready`.
    pub(crate) ready: Duration,
}
