//! How a node is set up. Reading files, variables and flags is the program's affair.

use crate::clock::Clock;
use crate::cluster::{CLUSTER_KEY_FILE, JoinToken};
use debros_auth::Wallet;
use debros_p2p::Multiaddr;
use debros_proto::Namespace;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Set-up of a [`Node`](crate::Node).
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Name in logs. Empty: the peer id.
    pub node_id: String,
    /// Role in the network.
    pub kind: NodeKind,
    /// Where to listen. Port 0 takes a free one.
    pub listen_addresses: Vec<Multiaddr>,
    /// Everything the node keeps: identity, operator key, peer.info.
    pub data_dir: PathBuf,
    /// P2P connections; over it, newcomers displace idle strangers or those of the address that has
    /// most, or are refused.
    pub max_connections: u32,
    /// The database.
    pub database: DatabaseConfig,
    /// The cluster.
    pub cluster: ClusterConfig,
    /// Nodes to dial and keep connected, with `/p2p/<peer id>`.
    pub bootstrap_peers: Vec<Multiaddr>,
    /// How often lost bootstrap peers are dialled again.
    pub discovery_interval: Duration,
    /// Namespaces in which every verified wallet may read and write. They have no owner.
    pub open_namespaces: Vec<Namespace>,
    /// Wallets whose sessions may run the node as well. They stay in their own namespaces.
    pub admin_wallets: Vec<Wallet>,
    /// Sites at which one signs in: `host` or `host:port`, as browsers show them. From other peers
    /// only these, sites of the loopback address and sign-in without a site are accepted.
    pub sign_in_domains: Vec<String>,
    /// What sign-in goes by. Tests put it ahead.
    pub clock: Clock,
    /// What the status reports about this program.
    pub build: NodeBuildInfo,
}

/// Role in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Others dial it first.
    Bootstrap,
    /// Any other full node.
    Node,
}

/// Set-up of the database.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Where the database's files are.
    pub data_dir: PathBuf,
    /// Bytes that all databases together may take; writes past it fail.
    pub max_size: u64,
    /// Bytes that one namespace may take: its SQL database, key-value pairs and idempotency
    /// records; `None`: as much as there is.
    pub max_namespace_size: Option<u64>,
    /// Bytes that all namespaces which one wallet owns may take together; `None`: as much as there
    /// is.
    pub max_owner_size: Option<u64>,
    /// Bytes of memory that the databases may take; a statement that needs more is refused.
    pub max_memory: u64,
    /// Bytes of temporary files of all running statements; statements that write past it are
    /// interrupted.
    pub max_temp_size: u64,
    /// Databases of namespaces that are kept open at a time, also when they are not in use. Each
    /// takes file descriptors.
    pub open_databases: usize,
    /// How often a backup is made; `None`: never.
    pub backup_interval: Option<Duration>,
}

/// Set-up of the cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The database may be a cluster's; false: it is this node's alone, whatever its folder says.
    pub is_wanted: bool,
    /// The cluster's shared secret. Where there is no such file, the node is part of no cluster.
    pub key_file: PathBuf,
    /// Nodes that vote: the first ones.
    pub replication_factor: u32,
    /// Nodes that hold the data, voters included. At least those vote that are to vote.
    pub max_replicas: u32,
    /// How long a voter has to be gone until a replica takes its place. Each node that leads counts
    /// anew.
    pub replace_after: Duration,
    /// Where other nodes reach this node's Raft port, `host:port`; empty: nowhere.
    pub raft_address: String,
    /// Where rqlited listens for Raft.
    pub raft_listen: SocketAddr,
    /// Where rqlited listens for HTTP, on loopback. Port 0 takes a free one.
    pub rqlite_http: SocketAddr,
    /// The rqlited program; `None`: the one on PATH, then `.tools/`.
    pub rqlited: Option<PathBuf>,
    /// Bytes of the log from which on a node that is away is not waited for.
    pub max_log: u64,
    /// Within this time a node that follows compares each of its databases once with the leader's.
    pub compare_interval: Duration,
    /// Joins with this at the start, unless the node is in that cluster already.
    pub join: Option<JoinToken>,
}

/// What a program says of itself.
#[derive(Clone, Debug, Default)]
pub struct NodeBuildInfo {
    /// `MAJOR.MINOR.PATCH`.
    pub version: String,
    /// The commit it was built from, or "unknown".
    pub commit: String,
}

impl NodeConfig {
    /// The defaults of a node that keeps its data in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            node_id: String::new(),
            kind: NodeKind::Node,
            listen_addresses: Vec::new(),
            max_connections: 50,
            database: DatabaseConfig {
                data_dir: data_dir.join("db"),
                max_size: 1 << 30,
                max_namespace_size: Some(1 << 28),
                max_owner_size: Some(1 << 29),
                max_memory: 512 << 20,
                max_temp_size: 1 << 30,
                open_databases: 64,
                backup_interval: Some(Duration::from_secs(24 * 60 * 60)),
            },
            cluster: ClusterConfig {
                is_wanted: true,
                key_file: data_dir.join(CLUSTER_KEY_FILE),
                replication_factor: 3,
                max_replicas: 7,
                replace_after: Duration::from_secs(600),
                raft_address: "127.0.0.1:7001".to_owned(),
                raft_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7001)),
                rqlite_http: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                rqlited: None,
                max_log: 256 << 20,
                compare_interval: Duration::from_secs(60 * 60),
                join: None,
            },
            data_dir,
            bootstrap_peers: Vec::new(),
            discovery_interval: Duration::from_secs(15),
            // "default" is a namespace's name.
            open_namespaces: Namespace::new("default").into_iter().collect(),
            admin_wallets: Vec::new(),
            sign_in_domains: Vec::new(),
            clock: Clock::default(),
            build: NodeBuildInfo::default(),
        }
    }
}
