//! The settings of `network-gateway`. Those of [`INSIDE`] hold for the gateway inside a node too.

use super::key::{Default, Key, Table};
use super::value::{Item, Kind};

/// Names of the settings that hold for the gateway inside a node too, set there by their environment variables.
pub(super) const INSIDE: &[&str] = &["namespace", "require_auth", "api_keys", "insecure_public", "cors_origins"];

/// The settings of `network-gateway`.
pub static GATEWAY: Table = Table {
    env_prefix: "GATEWAY",
    keys: &[
        Key {
            name: "addr",
            kind: Kind::ListenAddress,
            default: Default::Is(":8080"),
            flag: Some("--addr"),
            doc: "Where the gateway listens.",
            ..Key::BASE
        },
        Key {
            name: "namespace",
            kind: Kind::Namespace,
            default: Default::Is("default"),
            flag: Some("--namespace"),
            doc: "The namespace of callers without a credential, when authentication is off.",
            ..Key::BASE
        },
        Key {
            name: "bootstrap_peers",
            kind: Kind::List(Item::Peer),
            flag: Some("--bootstrap-peers"),
            doc: "Nodes to reach: multiaddrs with peer ids; empty: a node on this machine.",
            ..Key::BASE
        },
        Key {
            name: "require_auth",
            kind: Kind::Bool,
            default: Default::Is("true"),
            flag: Some("--require-auth"),
            doc: "Whether callers need a credential. false binds to loopback only, unless insecure_public is true.",
            ..Key::BASE
        },
        Key {
            name: "api_keys",
            kind: Kind::List(Item::ApiKey),
            doc: "Static API keys, key:namespace each; they may read and write in their namespace.",
            ..Key::BASE
        },
        Key {
            name: "operator_key_file",
            kind: Kind::Path,
            flag: Some("--operator-key-file"),
            doc: "The node's operator.key: static keys need it, and sign-ins count by user with it; empty: a local node's.",
            ..Key::BASE
        },
        Key {
            name: "insecure_public",
            kind: Kind::Bool,
            default: Default::Is("false"),
            flag: Some("--insecure-public"),
            doc: "Allows require_auth: false on an address that others can reach.",
            ..Key::BASE
        },
        Key {
            name: "cors_origins",
            kind: Kind::List(Item::Text),
            flag: Some("--cors-origins"),
            doc: "Origins whose pages may call from a browser; empty or *: any; empty without authentication: this machine's.",
            ..Key::BASE
        },
        Key {
            name: "public_url",
            kind: Kind::WebAddress,
            flag: Some("--public-url"),
            doc: "Under which address browsers reach the gateway; wallets sign it. Empty: the address that it listens on.",
            ..Key::BASE
        },
        Key {
            name: "trusted_proxies",
            kind: Kind::List(Item::Network),
            flag: Some("--trusted-proxies"),
            doc: "Networks of the proxies in front, whose X-Forwarded-For is believed; empty: nobody's.",
            ..Key::BASE
        },
        Key {
            name: "tls_certificate_file",
            kind: Kind::Path,
            flag: Some("--tls-certificate-file"),
            doc: "PEM file with the TLS certificate and its chain; empty: no TLS.",
            ..Key::BASE
        },
        Key {
            name: "tls_private_key_file",
            kind: Kind::Path,
            flag: Some("--tls-private-key-file"),
            doc: "PEM file with the TLS private key.",
            ..Key::BASE
        },
        Key {
            name: "log_level",
            kind: Kind::Choice(&["debug", "info", "warn", "error"]),
            default: Default::Is("info"),
            more_env: &["LOG_LEVEL"],
            flag: Some("--log-level"),
            doc: "The least important message that is logged.",
            ..Key::BASE
        },
        Key {
            name: "log_format",
            kind: Kind::Choice(&["console", "json"]),
            default: Default::Is("console"),
            flag: Some("--log-format"),
            doc: "Lines for people, or one JSON object each.",
            ..Key::BASE
        },
        Key {
            name: "log_output_file",
            kind: Kind::Path,
            flag: Some("--log-output-file"),
            doc: "A file that gets every log line too; empty: none.",
            ..Key::BASE
        },
    ],
};
