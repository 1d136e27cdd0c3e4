//! The command line of `network-gateway`.

use crate::config::{ConfigErrors, ConfigFile, ConfigSources, GATEWAY, environment_variables};
use crate::version;
use clap::Parser;
use std::path::PathBuf;

/// The HTTP and WebSocket front to DeBros Network, as a program of its own that reaches nodes over
/// P2P.
#[derive(Debug, Parser)]
#[command(name = "network-gateway", version = version::LONG)]
#[command(
    after_help = "Settings: flag, then environment variable (GATEWAY_<NAME>), then YAML file, then default. \
    Static keys stand in GATEWAY_API_KEYS or in the file, never on the command line, which other users can see. \
    --print-config shows the result; configs/README.md lists all."
)]
pub(crate) struct GatewayArgs {
    /// YAML file with the settings
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) addr: Option<String>,
    /// Namespace of callers without a credential, when authentication is off
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Nodes to reach, comma-separated; none: a node on this machine
    #[arg(long, value_name = "MULTIADDR,…")]
    pub(crate) bootstrap_peers: Option<String>,
    /// Whether callers need a credential
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) require_auth: Option<String>,
    /// The node's operator.key, for static keys and for --require-auth=false
    #[arg(long, value_name = "FILE")]
    pub(crate) operator_key_file: Option<String>,
    /// Allows --require-auth=false on an address that others can reach
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) insecure_public: Option<String>,
    /// Origins whose pages may call from a browser, comma-separated
    #[arg(long, value_name = "ORIGIN,…")]
    pub(crate) cors_origins: Option<String>,
    /// Under which address browsers reach the gateway, as https://api.example.org
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Networks of the proxies in front, comma-separated; their X-Forwarded-For is believed
    #[arg(long, value_name = "CIDR,…")]
    pub(crate) trusted_proxies: Option<String>,
    /// TLS: PEM file with the certificate and its chain
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_certificate_file: Option<String>,
    /// TLS: PEM file with the private key
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_private_key_file: Option<String>,
    /// The least important message that is logged: debug, info, warn or error
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// console or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// A file that gets every log line too
    #[arg(long, value_name = "FILE")]
    pub(crate) log_output_file: Option<String>,
    /// Prints the merged configuration with each value's origin, and exits
    #[arg(long)]
    pub(crate) print_config: bool,
}

impl GatewayArgs {
    /// The sources of the configuration, in terms of its table.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn config_sources(&self) -> Result<ConfigSources, ConfigErrors> {
        let file = self.config.as_deref().map(|path| ConfigFile::read(path, false)).transpose()?;
        let mut sources =
            ConfigSources { file, env: environment_variables(), flags: Vec::new(), dev: false };
        let given = [
            ("--addr", &self.addr),
            ("--namespace", &self.namespace),
            ("--bootstrap-peers", &self.bootstrap_peers),
            ("--require-auth", &self.require_auth),
            ("--operator-key-file", &self.operator_key_file),
            ("--insecure-public", &self.insecure_public),
            ("--cors-origins", &self.cors_origins),
            ("--public-url", &self.public_url),
            ("--trusted-proxies", &self.trusted_proxies),
            ("--tls-certificate-file", &self.tls_certificate_file),
            ("--tls-private-key-file", &self.tls_private_key_file),
            ("--log-level", &self.log_level),
            ("--log-format", &self.log_format),
            ("--log-output-file", &self.log_output_file),
        ];
        for (flag, text) in given {
            sources.add_flag(&GATEWAY, flag, text.clone());
        }
        Ok(sources)
    }
}
