//! The settings of `network-gateway`. Those of [`INSIDE`] hold for the gateway inside a node too.

use super::setting_spec::{SettingDefault, SettingSpec, SettingTable};
use super::setting_value::{ListItemKind, SettingKind};

/// Names of the settings that hold for the gateway inside a node too, set there by their
/// environment variables.
pub(super) const INSIDE: &[&str] =
    &["namespace", "require_auth", "api_keys", "insecure_public", "cors_origins"];

/// The settings of `network-gateway`.
pub static GATEWAY: SettingTable = SettingTable {
    env_prefix: "GATEWAY",
    keys: &[
        SettingSpec {
            name: "addr",
            kind: SettingKind::ListenAddress,
            default: SettingDefault::Is(":8080"),
            flag: Some("--addr"),
            doc: "Where the gateway listens.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "namespace",
            kind: SettingKind::Namespace,
            default: SettingDefault::Is("default"),
            flag: Some("--namespace"),
            doc: "The namespace of callers without a credential, when authentication is off.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "bootstrap_peers",
            kind: SettingKind::List(ListItemKind::Peer),
            flag: Some("--bootstrap-peers"),
            doc: "Nodes to reach: multiaddrs with peer ids; empty: a node on this machine.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "require_auth",
            kind: SettingKind::Bool,
            default: SettingDefault::Is("true"),
            flag: Some("--require-auth"),
            doc: "Whether callers need a credential. false binds to loopback only, unless insecure_public is true.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "api_keys",
            kind: SettingKind::List(ListItemKind::ApiKey),
            doc: "Static API keys, key:namespace each; they may read and write in their namespace.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "operator_key_file",
            kind: SettingKind::Path,
            flag: Some("--operator-key-file"),
            doc: "The node's operator.key: static keys need it, and sign-ins count by user with it; empty: a local node's.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "insecure_public",
            kind: SettingKind::Bool,
            default: SettingDefault::Is("false"),
            flag: Some("--insecure-public"),
            doc: "Allows require_auth: false on an address that others can reach.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "cors_origins",
            kind: SettingKind::List(ListItemKind::Text),
            flag: Some("--cors-origins"),
            doc: "Origins whose pages may call from a browser; empty or *: any; empty without authentication: this machine's.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "public_url",
            kind: SettingKind::WebAddress,
            flag: Some("--public-url"),
            doc: "Under which address browsers reach the gateway; wallets sign it. Empty: the address that it listens on.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "trusted_proxies",
            kind: SettingKind::List(ListItemKind::Network),
            flag: Some("--trusted-proxies"),
            doc: "Networks of the proxies in front, whose X-Forwarded-For is believed; empty: nobody's.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "tls_certificate_file",
            kind: SettingKind::Path,
            flag: Some("--tls-certificate-file"),
            doc: "PEM file with the TLS certificate and its chain; empty: no TLS.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "tls_private_key_file",
            kind: SettingKind::Path,
            flag: Some("--tls-private-key-file"),
            doc: "PEM file with the TLS private key.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "log_level",
            kind: SettingKind::Choice(&["debug", "info", "warn", "error"]),
            default: SettingDefault::Is("info"),
            more_env: &["LOG_LEVEL"],
            flag: Some("--log-level"),
            doc: "The least important message that is logged.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "log_format",
            kind: SettingKind::Choice(&["console", "json"]),
            default: SettingDefault::Is("console"),
            flag: Some("--log-format"),
            doc: "Lines for people, or one JSON object each.",
            ..SettingSpec::BASE
        },
        SettingSpec {
            name: "log_output_file",
            kind: SettingKind::Path,
            flag: Some("--log-output-file"),
            doc: "A file that gets every log line too; empty: none.",
            ..SettingSpec::BASE
        },
    ],
};
