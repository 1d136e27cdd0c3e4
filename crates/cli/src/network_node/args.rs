//! The command line of `network-node`.

use crate::arg_parsers::parse_scope;
use crate::config::{ConfigErrors, ConfigFile, ConfigSources, NODE, environment_variables};
use crate::version;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// A full node of DeBros Network: P2P host, SQL database, key-value storage and pub/sub.
#[derive(Debug, Parser)]
#[command(name = "network-node", version = version::LONG, args_conflicts_with_subcommands = false)]
#[command(
    after_help = "Settings: flag, then environment variable (DEBROS_<SECTION>_<KEY>), then YAML file, then default. \
    --print-config shows the result; configs/README.md lists all."
)]
pub(crate) struct NodeArgs {
    /// YAML file with the settings
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Folder of everything the node keeps
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<String>,
    /// Name in logs and in the database cluster
    #[arg(long, value_name = "ID")]
    pub(crate) node_id: Option<String>,
    /// Port of all P2P listen addresses; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    pub(crate) p2p_port: Option<String>,
    /// Port of rqlite's HTTP API
    #[arg(long, value_name = "PORT")]
    pub(crate) rqlite_http_port: Option<String>,
    /// Port of rqlite's Raft protocol
    #[arg(long, value_name = "PORT")]
    pub(crate) rqlite_raft_port: Option<String>,
    /// The database cluster to join
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) rqlite_join_address: Option<String>,
    /// Host that other nodes of the cluster dial
    #[arg(long, value_name = "HOST")]
    pub(crate) adv_addr: Option<String>,
    /// Joins the cluster of a join token (`network-node token` on one of its nodes) at the first
    /// start; later it does nothing
    #[arg(long, value_name = "TOKEN")]
    pub(crate) join: Option<String>,
    /// No routing through Anyone (SOCKS5)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) disable_anonrc: Option<String>,
    /// Runs the HTTP gateway inside the node, on this address
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) gateway_addr: Option<String>,
    /// Development: a bootstrap node with its gateway on a loopback address, data in ./data/dev, an
    /// API key on the screen
    #[arg(long, global = true)]
    pub(crate) dev: bool,
    /// With --dev: lets the gateway listen beyond this machine
    #[arg(long)]
    pub(crate) insecure_public: bool,
    /// Prints the merged configuration with each value's origin, and exits
    #[arg(long)]
    pub(crate) print_config: bool,
    #[command(subcommand)]
    pub(crate) command: Option<NodeCommand>,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::enum_variant_names, reason = "named as the commands are")]
pub(crate) enum NodeCommand {
    /// Makes an API key at the running node and prints it
    ApiKey(ApiKeyArgs),
    /// Prints a join token of the running node: it lets one new node into the cluster, within an hour
    Token,
    /// Makes this node the first of its cluster again when a majority is lost for good
    ///
    /// The node is alone then, and must not run. It keeps everything that it has; the other nodes are removed, and the
    /// cluster gets another key. What only other nodes had is gone. Can be repeated.
    Recover {
        /// Does not ask
        #[arg(long)]
        yes: bool,
    },
    /// Makes the running node sign access tokens with a new key; those of the old one stay valid
    RotateKey,
    /// Makes all nodes refuse the access tokens of a key, as when a node's disk was stolen
    RemoveSigningKey {
        /// The key's id (`kid`), as /v1/auth/jwks lists it
        kid: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ApiKeyArgs {
    /// Namespace that the key acts in
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: String,
    /// What the key is for, shown in lists
    #[arg(long, default_value = "")]
    pub(crate) name: String,
    /// The highest role that the key acts with
    #[arg(long, default_value = "writer", value_parser = ["reader", "writer", "admin"])]
    pub(crate) role: String,
    /// Narrows the role to these, such as db:read,storage:read
    #[arg(long, value_delimiter = ',', value_name = "SCOPE,…", value_parser = parse_scope)]
    pub(crate) scopes: Vec<String>,
    /// Also stores the key where network-cli finds it
    #[arg(long)]
    pub(crate) save: bool,
}

impl NodeArgs {
    /// The sources of the configuration, in terms of its table.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn config_sources(&self) -> Result<ConfigSources, ConfigErrors> {
        let file = self.config.as_deref().map(|path| ConfigFile::read(path, true)).transpose()?;
        let mut sources =
            ConfigSources { file, env: environment_variables(), flags: Vec::new(), dev: self.dev };
        let given = [
            ("--data-dir", &self.data_dir),
            ("--node-id", &self.node_id),
            ("--rqlite-http-port", &self.rqlite_http_port),
            ("--rqlite-raft-port", &self.rqlite_raft_port),
            ("--rqlite-join-address", &self.rqlite_join_address),
            ("--disable-anonrc", &self.disable_anonrc),
            ("--gateway-addr", &self.gateway_addr),
        ];
        for (flag, text) in given {
            sources.add_flag(&NODE, flag, text.clone());
        }
        if let Some(host) = &self.adv_addr {
            sources.flags.push(("discovery", "http_adv_address", "--adv-addr", host.clone()));
            sources.flags.push(("discovery", "raft_adv_address", "--adv-addr", host.clone()));
        }
        if self.gateway_addr.is_some() {
            sources.flags.push(("gateway", "enabled", "--gateway-addr", "true".into()));
        }
        Ok(sources)
    }
}
