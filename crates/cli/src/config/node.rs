//! The configuration of `network-node`: the table's settings, and what only holds for several of
//! them together.

use super::addresses::{is_placeholder, parse_networks};
use super::gateway::EmbeddedGatewaySettings;
use super::merge::{ConfigSources, MergedConfig, SettingOrigin};
use super::node_keys::NODE;
use super::setting_value::{RawSetting, SettingKind, SettingValue};
use super::{ConfigError, ConfigErrors, LogSettings};
use debros_node::{
    CLUSTER_KEY_FILE, Clock, ClusterConfig, DatabaseConfig, NodeBuildInfo, NodeConfig, NodeKind,
};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// The configuration of a node, checked.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    settings: MergedConfig,
    embedded_gateway: EmbeddedGatewaySettings,
    notices: Vec<String>,
}

impl NodeSettings {
    /// Merges and checks. `p2p_port` is the text of `--p2p-port`.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(sources: &ConfigSources, p2p_port: Option<&str>) -> Result<Self, ConfigErrors> {
        let mut settings = MergedConfig::merge(&NODE, sources)?;
        if let Some(port) = p2p_port {
            set_listen_port(&mut settings, port)?;
        }
        let inside = EmbeddedGatewaySettings::load(&sources.env)?;
        let mut notices = settings.notices();
        let peers = bootstrap_peers(&settings, &mut notices);
        let origin = settings.get("discovery.bootstrap_peers").origin.clone();
        settings.set("discovery.bootstrap_peers", SettingValue::List(peers), origin);
        check_together(&settings, &mut notices)?;
        Ok(Self { settings, embedded_gateway: inside, notices })
    }

    /// One line for each value that is accepted and does not act as written.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The configuration as YAML with origins, then what holds for the gateway inside.
    pub fn to_annotated_yaml(&self) -> String {
        format!(
            "{}{}",
            self.settings.to_annotated_yaml(),
            self.embedded_gateway.to_annotated_yaml()
        )
    }

    /// The folder of everything the node keeps.
    pub fn data_dir(&self) -> PathBuf {
        self.settings.text("node.data_dir").into()
    }

    /// Set-up of the log.
    pub fn log_settings(&self) -> LogSettings {
        LogSettings {
            level: self.settings.text("logging.level").to_owned(),
            json: self.settings.text("logging.format") == "json",
            output_file: self.settings.path("logging.output_file"),
        }
    }

    /// Set-up of the node.
    pub fn node_config(&self, build: NodeBuildInfo) -> NodeConfig {
        let settings = &self.settings;
        let is_bootstrap = settings.text("node.type") == "bootstrap";
        let backup_interval = settings.duration("database.backup_interval");
        NodeConfig {
            node_id: settings.text("node.id").to_owned(),
            kind: if is_bootstrap { NodeKind::Bootstrap } else { NodeKind::Node },
            listen_addresses: parse_all(settings.list("node.listen_addresses")),
            data_dir: self.data_dir(),
            // At most 100,000 by the table.
            max_connections: u32::try_from(settings.number("node.max_connections"))
                .unwrap_or(u32::MAX),
            database: DatabaseConfig {
                data_dir: settings.text("database.data_dir").into(),
                max_size: settings.number("database.max_database_size"),
                max_namespace_size: Some(settings.number("database.max_namespace_size"))
                    .filter(|bytes| *bytes > 0),
                max_owner_size: Some(settings.number("database.max_owner_size"))
                    .filter(|bytes| *bytes > 0),
                max_memory: settings.number("database.max_memory"),
                max_temp_size: settings.number("database.max_temp_size"),
                // As many as there are file descriptors for: the program says it.
                open_databases: NodeConfig::new("").database.open_databases,
                backup_interval: Some(backup_interval).filter(|interval| !interval.is_zero()),
            },
            cluster: ClusterConfig {
                key_file: self.cluster_key_file(),
                // Small numbers by the table.
                replication_factor: small_number(settings.number("database.replication_factor")),
                max_replicas: small_number(settings.number("cluster.max_replicas")),
                replace_after: settings.duration("cluster.replace_after"),
                is_wanted: settings.text("database.engine") != "embedded",
                raft_address: self.raft_address().to_string(),
                raft_listen: self.raft_listen(),
                rqlite_http: (Ipv4Addr::LOCALHOST, self.port("database.rqlite_port")).into(),
                rqlited: settings.path("database.rqlited_path"),
                max_log: 256 << 20,
                compare_interval: NodeConfig::new("").cluster.compare_interval,
                join: None,
            },
            bootstrap_peers: parse_all(settings.list("discovery.bootstrap_peers")),
            discovery_interval: settings.duration("discovery.discovery_interval"),
            // The table checked the forms of both.
            open_namespaces: parse_all(settings.list("security.open_namespaces")),
            admin_wallets: parse_all(settings.list("security.admin_wallets")),
            sign_in_domains: self.sign_in_domains(),
            clock: Clock::default(),
            build,
        }
    }

    /// Where other nodes reach this node's Raft port.
    fn raft_address(&self) -> SocketAddr {
        let port = self.port("database.rqlite_raft_port");
        parse_raft_address(self.settings.text("discovery.raft_adv_address"), port)
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Where rqlited listens for Raft: on this machine alone when no other can reach it.
    fn raft_listen(&self) -> SocketAddr {
        let address = self.raft_address();
        let ip = match address.ip() {
            ip if ip.is_loopback() => ip,
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(ip, self.port("database.rqlite_raft_port"))
    }

    fn port(&self, key: &str) -> u16 {
        // At most 65,535 by the table.
        u16::try_from(self.settings.number(key)).unwrap_or_default()
    }

    fn cluster_key_file(&self) -> PathBuf {
        let named = self.settings.path("security.cluster_key_file");
        named.unwrap_or_else(|| self.data_dir().join(CLUSTER_KEY_FILE))
    }

    /// Where the gateway inside listens, if there is one, with what else is set for it.
    pub fn embedded_gateway(&self) -> Option<(&str, &EmbeddedGatewaySettings)> {
        self.settings
            .bool("gateway.enabled")
            .then(|| (self.settings.text("gateway.listen_addr"), &self.embedded_gateway))
    }

    /// Under which address browsers reach the gateway inside, when that is set.
    pub fn public_url(&self) -> Option<&str> {
        Some(self.settings.text("gateway.public_url")).filter(|url| !url.is_empty())
    }

    /// The sites at which one signs in: those listed, and the gateway inside by its public address.
    fn sign_in_domains(&self) -> Vec<String> {
        let mut domains = self.settings.list("security.sign_in_domains").to_vec();
        // The table checked its form: a scheme, an authority, perhaps a path.
        let inside = self.public_url().and_then(|url| url.split_once("://")?.1.split('/').next());
        domains.extend(inside.map(str::to_owned));
        domains
    }

    /// Networks of the proxies in front of the gateway inside.
    pub fn trusted_proxies(&self) -> Vec<IpNet> {
        parse_networks(self.settings.list("gateway.trusted_proxies"))
    }

    /// Certificate and private key of the gateway's listener, when TLS is on.
    pub fn tls_files(&self) -> Option<(PathBuf, PathBuf)> {
        if !self.settings.bool("security.enable_tls") {
            return None;
        }
        self.settings
            .path("security.certificate_file")
            .zip(self.settings.path("security.private_key_file"))
    }

    /// A setting's value as plain text and where it comes from, for messages.
    pub fn value_and_origin(&self, path: &str) -> (String, String) {
        let setting = self.settings.get(path);
        (setting.value.to_plain(), setting.origin.to_string())
    }
}

/// An IP address, with a port or without; `None` for a name, which is not what others are told.
fn parse_raft_address(text: &str, port: u16) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, port)).ok())
}

fn small_number(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The table checked that each has the form.
fn parse_all<T: std::str::FromStr>(texts: &[String]) -> Vec<T> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Puts the port of `--p2p-port` into every address to listen on.
fn set_listen_port(settings: &mut MergedConfig, port: &str) -> Result<(), ConfigError> {
    let kind = SettingKind::Integer { min: 0, max: 65535 };
    kind.parse(&RawSetting::One(port.to_owned())).map_err(|what| ConfigError {
        place: "--p2p-port".into(),
        message: format!("{what}; write {} (0 takes a free port)", kind.describe_allowed()),
    })?;
    let addresses = settings
        .list("node.listen_addresses")
        .iter()
        .map(|address| with_port(address, port))
        .collect();
    settings.set(
        "node.listen_addresses",
        SettingValue::List(addresses),
        SettingOrigin::Flag("--p2p-port"),
    );
    Ok(())
}

fn with_port(address: &str, port: &str) -> String {
    let mut parts: Vec<&str> = address.split('/').collect();
    for index in 1..parts.len() {
        if matches!(parts[index - 1], "tcp" | "udp") {
            parts[index] = port;
        }
    }
    parts.join("/")
}

/// The peers that can be dialled: with a port each, and without those whose id is not filled in
/// yet.
fn bootstrap_peers(settings: &MergedConfig, notices: &mut Vec<String>) -> Vec<String> {
    let port = settings.number("discovery.bootstrap_port");
    let setting = settings.get("discovery.bootstrap_peers");
    let mut peers = Vec::new();
    for peer in settings.list("discovery.bootstrap_peers") {
        if is_placeholder(peer) {
            notices.push(format!(
                "discovery.bootstrap_peers holds {peer} ({}), ignored until the peer id of a node stands in place of the <…>; \
                 `network-cli peer-id` on that node's machine prints it",
                setting.origin
            ));
        } else if peer.contains("/tcp/") || peer.contains("/udp/") {
            peers.push(peer.clone());
        } else {
            peers.push(peer.replacen("/p2p/", &format!("/tcp/{port}/p2p/"), 1));
        }
    }
    peers
}

fn check_together(settings: &MergedConfig, notices: &mut Vec<String>) -> Result<(), ConfigErrors> {
    let mut problems = Vec::new();
    let mut wrong = |path: &str, message: String| {
        problems.push(ConfigError { place: settings.get(path).origin.to_string(), message });
    };
    if settings.list("node.listen_addresses").is_empty() {
        wrong(
            "node.listen_addresses",
            "node.listen_addresses is empty; write at least one multiaddr such as /ip4/0.0.0.0/tcp/4001".into(),
        );
    }
    if settings.text("node.data_dir").is_empty() {
        wrong(
            "node.data_dir",
            "node.data_dir is empty; write the folder in which the node keeps everything".into(),
        );
    }
    if settings.text("database.data_dir").is_empty() {
        wrong(
            "database.data_dir",
            "database.data_dir is empty; write a folder, or leave the line out".into(),
        );
    }
    let raft = settings.text("discovery.raft_adv_address");
    if !raft.is_empty() && parse_raft_address(raft, 0).is_none() {
        notices.push(format!(
            "discovery.raft_adv_address is {raft} ({}), but loopback is in effect: other nodes are told an IP address, with or \
             without a port, and no name",
            settings.get("discovery.raft_adv_address").origin
        ));
    }
    if settings.bool("security.enable_tls") {
        for path in ["security.certificate_file", "security.private_key_file"] {
            if settings.text(path).is_empty() {
                wrong(
                    "security.enable_tls",
                    format!(
                        "security.enable_tls is true, but {path} is empty; write the path of the PEM file"
                    ),
                );
            }
        }
        if !settings.bool("gateway.enabled") {
            notices.push(format!(
                "security.enable_tls is true ({}), but has nothing to act on: it is for the gateway's listener, and \
                 gateway.enabled is false",
                settings.get("security.enable_tls").origin
            ));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigErrors(problems)) }
}
