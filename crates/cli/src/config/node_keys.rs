//! The settings of `network-node`.

use super::setting_spec::{SettingDefault, SettingSpec, SettingStatus, SettingTable};
use super::setting_value::{ListItemKind, SettingKind};
use std::time::Duration;

const PORT: SettingKind = SettingKind::Integer { min: 1, max: 65535 };

/// The settings of `network-node`.
pub static NODE: SettingTable = SettingTable {
    env_prefix: "DEBROS",
    keys: &[
        SettingSpec {
            section: "node",
            name: "id",
            flag: Some("--node-id"),
            dev: Some("dev"),
            doc: "Name in logs and in the database cluster; empty: the peer id.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "node",
            name: "type",
            kind: SettingKind::Choice(&["bootstrap", "node"]),
            default: SettingDefault::Is("node"),
            dev: Some("bootstrap"),
            doc: "What the node is to others: one that they dial first, or one of many.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "node",
            name: "listen_addresses",
            kind: SettingKind::List(ListItemKind::Multiaddr),
            default: SettingDefault::Is("/ip4/0.0.0.0/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1"),
            dev: Some("/ip4/127.0.0.1/tcp/4001,/ip4/127.0.0.1/udp/4001/quic-v1"),
            doc: "Multiaddrs to listen on for peers and clients; --p2p-port changes their port.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "node",
            name: "data_dir",
            kind: SettingKind::Path,
            default: SettingDefault::Is("./data/node"),
            dev: Some("./data/dev"),
            flag: Some("--data-dir"),
            doc: "Folder of everything the node keeps; one node at a time uses it.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "node",
            name: "max_connections",
            kind: SettingKind::Integer { min: 1, max: 100_000 },
            default: SettingDefault::ByType { node: "50", bootstrap: "100" },
            doc: "P2P connections; over it, a newcomer displaces an idle one or one of the greediest address, or is refused.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "node",
            name: "disable_anonrc",
            aliases: &["disable_anon_rc"],
            kind: SettingKind::Bool,
            default: SettingDefault::Is("true"),
            flag: Some("--disable-anonrc"),
            doc: "No routing of outgoing connections through Anyone (SOCKS5).",
            status: SettingStatus::Later {
                off: &["true"],
                reason: "routing through Anyone is not in this version, and the node will not dial directly what was meant to be \
                    hidden; leave it true",
            },
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "engine",
            kind: SettingKind::Choice(&["auto", "embedded", "rqlite"]),
            default: SettingDefault::Is("auto"),
            doc: "The database engine: embedded, this node's alone; rqlite or auto, the cluster's as soon as the node is part of one.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "data_dir",
            kind: SettingKind::Path,
            default: SettingDefault::InDataDir("db"),
            doc: "Folder of the database; two nodes never share one.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "replication_factor",
            kind: SettingKind::Integer { min: 1, max: 99 },
            default: SettingDefault::Is("3"),
            doc: "Voting replicas of the database; nodes beyond it join as read replicas.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "shard_count",
            kind: SettingKind::Integer { min: 1, max: 1024 },
            default: SettingDefault::Is("1"),
            doc: "Database shards over which namespaces are spread.",
            status: SettingStatus::Noted {
                quiet: &["1"],
                notice: "1 shard is in effect: a node that holds data holds all of it, so that there \
                is nothing to spread",
            },
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "max_database_size",
            kind: SettingKind::Size { min: 1 << 20, off: false },
            default: SettingDefault::Is("1GiB"),
            doc: "Bytes of all databases together; writes past it fail with a clear error, reads go on.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "max_namespace_size",
            kind: SettingKind::Size { min: 1 << 20, off: true },
            default: SettingDefault::QuarterOf("database.max_database_size"),
            doc: "Bytes that one namespace may take: SQL, key-value pairs and idempotency records; 0: as much as there is room.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "max_owner_size",
            kind: SettingKind::Size { min: 1 << 20, off: true },
            default: SettingDefault::HalfOrWhole {
                half: "database.max_database_size",
                whole: "database.max_namespace_size",
            },
            doc: "Bytes that all namespaces of one wallet may take together; the smaller of both limits acts; 0: as much as there is room.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "max_memory",
            kind: SettingKind::Size { min: 64 << 20, off: false },
            default: SettingDefault::Is("512MiB"),
            doc: "Bytes of memory that the databases may take; a statement that needs more is refused as overloaded.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "max_temp_size",
            kind: SettingKind::Size { min: 1 << 20, off: false },
            default: SettingDefault::Is("1GiB"),
            doc: "Bytes of temporary files of all running statements (in database.data_dir, on Linux); one that goes over is interrupted.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "backup_interval",
            kind: SettingKind::Duration {
                min: Duration::from_secs(60),
                max: Duration::from_secs(366 * 86_400),
                off: true,
            },
            default: SettingDefault::Is("24h"),
            doc: "How often a verified backup is made; 0 turns it off; the newest 7 are kept.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "rqlite_port",
            kind: PORT,
            default: SettingDefault::Is("5001"),
            flag: Some("--rqlite-http-port"),
            doc: "Port of rqlite's HTTP API, open to this machine alone.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "rqlite_raft_port",
            kind: PORT,
            default: SettingDefault::Is("7001"),
            flag: Some("--rqlite-raft-port"),
            doc: "Port of rqlite's Raft protocol.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "rqlite_join_address",
            kind: SettingKind::JoinAddress,
            flag: Some("--rqlite-join-address"),
            doc: "The cluster to join: host:raft_port, http://host:http_port, or a node's multiaddr.",
            status: SettingStatus::Noted {
                quiet: &[""],
                notice: "no cluster is joined by this address alone: start the node with --join and a token, which \
                network-node token on a node of the cluster prints",
            },
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "database",
            name: "rqlited_path",
            kind: SettingKind::Path,
            doc: "The rqlited program; empty: the one on PATH, then .tools/.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "cluster",
            name: "max_replicas",
            kind: SettingKind::Integer { min: 1, max: 99 },
            default: SettingDefault::Is("7"),
            doc: "Nodes of a cluster that hold the data, voters included; further nodes hold none and pass calls on.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "cluster",
            name: "replace_after",
            kind: SettingKind::Duration {
                min: Duration::from_secs(1),
                max: Duration::from_secs(366 * 86_400),
                off: false,
            },
            default: SettingDefault::Is("10m"),
            doc: "How long a voting node has to be gone until a replica takes its place.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "discovery",
            name: "bootstrap_peers",
            kind: SettingKind::List(ListItemKind::Peer),
            doc: "Nodes to dial at start and to keep connected: multiaddrs with peer ids.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "discovery",
            name: "discovery_interval",
            kind: SettingKind::Duration {
                min: Duration::from_secs(1),
                max: Duration::from_secs(3600),
                off: false,
            },
            default: SettingDefault::Is("15s"),
            doc: "How often bootstrap peers that were lost are dialled again.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "discovery",
            name: "bootstrap_port",
            kind: PORT,
            default: SettingDefault::Is("4001"),
            doc: "TCP port of a bootstrap peer whose multiaddr names none, such as /ip4/192.0.2.1/p2p/<peer id>.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "discovery",
            name: "http_adv_address",
            kind: SettingKind::Host,
            doc: "Where other nodes of the cluster reach this node's database over HTTP; --adv-addr sets both.",
            status: SettingStatus::Noted {
                quiet: &[""],
                notice: "nothing is advertised: rqlite's HTTP port is open to this machine alone, and nodes reach each other over \
                P2P and Raft",
            },
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "discovery",
            name: "raft_adv_address",
            kind: SettingKind::Host,
            doc: "IP address, perhaps with a port, at which other nodes reach this node's Raft; empty: loopback; --adv-addr sets both.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "security",
            name: "enable_tls",
            kind: SettingKind::Bool,
            default: SettingDefault::Is("false"),
            doc: "TLS on the gateway's listener (P2P connections are always encrypted).",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "security",
            name: "private_key_file",
            kind: SettingKind::Path,
            doc: "PEM file with the TLS private key.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "security",
            name: "certificate_file",
            kind: SettingKind::Path,
            doc: "PEM file with the TLS certificate and its chain.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "security",
            name: "cluster_key_file",
            kind: SettingKind::Path,
            doc: "The cluster's shared secret; empty: cluster.key in node.data_dir.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "security",
            name: "open_namespaces",
            kind: SettingKind::List(ListItemKind::Namespace),
            default: SettingDefault::Is("default"),
            doc: "Namespaces in which any verified wallet may read and write; nobody owns them.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "security",
            name: "admin_wallets",
            kind: SettingKind::List(ListItemKind::Wallet),
            doc: "Wallets that may call operator endpoints once they have signed in.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "security",
            name: "sign_in_domains",
            kind: SettingKind::List(ListItemKind::Authority),
            doc: "Gateways on other machines at which wallets may sign in, as browsers show them; those inside need no entry.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "gateway",
            name: "enabled",
            kind: SettingKind::Bool,
            default: SettingDefault::Is("false"),
            dev: Some("true"),
            doc: "Runs the HTTP gateway inside the node.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "gateway",
            name: "listen_addr",
            kind: SettingKind::ListenAddress,
            default: SettingDefault::Is(":8080"),
            dev: Some("127.0.0.1:8080"),
            more_env: &["GATEWAY_ADDR"],
            flag: Some("--gateway-addr"),
            doc: "Where the gateway inside the node listens; the flag turns the gateway on too.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "gateway",
            name: "public_url",
            kind: SettingKind::WebAddress,
            more_env: &["GATEWAY_PUBLIC_URL"],
            doc: "Under which address browsers reach the gateway inside; wallets sign it. Empty: the one that it listens on.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "gateway",
            name: "trusted_proxies",
            kind: SettingKind::List(ListItemKind::Network),
            more_env: &["GATEWAY_TRUSTED_PROXIES"],
            doc: "Networks of the proxies in front of it, whose X-Forwarded-For is believed; empty: nobody's.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "logging",
            name: "level",
            kind: SettingKind::Choice(&["debug", "info", "warn", "error"]),
            default: SettingDefault::Is("info"),
            more_env: &["LOG_LEVEL"],
            doc: "The least important message that is logged.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "logging",
            name: "format",
            kind: SettingKind::Choice(&["console", "json"]),
            default: SettingDefault::Is("console"),
            doc: "Lines for people, or one JSON object each.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            section: "logging",
            name: "output_file",
            kind: SettingKind::Path,
            doc: "A file that gets every log line too; empty: none.",
            ..SettingSpec::BASE
        },
    ],
};
