//! The configuration of `network-gateway`, and the part of it that holds for the gateway inside a
//! node.

use super::addresses::{is_placeholder, parse_networks};
use super::gateway_keys::{GATEWAY, INSIDE};
use super::merge::{ConfigSources, MergedConfig};
use super::{ConfigError, ConfigErrors, LogSettings};
use ipnet::IpNet;
use std::path::PathBuf;

/// The configuration of a gateway, checked.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    settings: MergedConfig,
}

impl GatewaySettings {
    /// Merges and checks.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(sources: &ConfigSources) -> Result<Self, ConfigErrors> {
        let settings = MergedConfig::merge(&GATEWAY, sources)?;
        let mut problems = Vec::new();
        let mut wrong = |path: &str, message: String| {
            problems.push(ConfigError { place: settings.get(path).origin.to_string(), message });
        };
        let certificate = settings.text("tls_certificate_file");
        let key = settings.text("tls_private_key_file");
        if certificate.is_empty() != key.is_empty() {
            let (given, missing) = if key.is_empty() {
                ("tls_certificate_file", "tls_private_key_file")
            } else {
                ("tls_private_key_file", "tls_certificate_file")
            };
            wrong(given, format!("{given} is set, but {missing} is not; TLS needs both"));
        }
        if settings.list("bootstrap_peers").iter().any(|peer| is_placeholder(peer)) {
            wrong(
                "bootstrap_peers",
                "bootstrap_peers still holds a placeholder; write the peer id of a node in its place".into(),
            );
        }
        if problems.is_empty() { Ok(Self { settings }) } else { Err(ConfigErrors(problems)) }
    }

    /// The configuration as YAML with origins.
    pub fn to_annotated_yaml(&self) -> String {
        self.settings.to_annotated_yaml()
    }

    /// Where to listen.
    pub fn listen_address(&self) -> &str {
        self.settings.text("addr")
    }

    /// The nodes to reach; empty: one on this machine.
    pub fn bootstrap_peers(&self) -> &[String] {
        self.settings.list("bootstrap_peers")
    }

    /// The file with the operator credential, when one is named.
    pub fn operator_key_file(&self) -> Option<PathBuf> {
        self.settings.path("operator_key_file")
    }

    /// Certificate and private key, when TLS is on.
    pub fn tls_files(&self) -> Option<(PathBuf, PathBuf)> {
        self.settings.path("tls_certificate_file").zip(self.settings.path("tls_private_key_file"))
    }

    /// Under which address browsers reach the gateway, when that is set.
    pub fn public_url(&self) -> Option<&str> {
        Some(self.settings.text("public_url")).filter(|url| !url.is_empty())
    }

    /// Networks of the proxies in front.
    pub fn trusted_proxies(&self) -> Vec<IpNet> {
        parse_networks(self.settings.list("trusted_proxies"))
    }

    /// What holds for a gateway inside a node too.
    pub fn access_settings(&self) -> AccessSettings<'_> {
        AccessSettings { settings: &self.settings }
    }

    /// Set-up of the log.
    pub fn log_settings(&self) -> LogSettings {
        LogSettings {
            level: self.settings.text("log_level").to_owned(),
            json: self.settings.text("log_format") == "json",
            output_file: self.settings.path("log_output_file"),
        }
    }
}

/// What environment variables say about the gateway inside a node.
#[derive(Clone, Debug)]
pub struct EmbeddedGatewaySettings {
    settings: MergedConfig,
}

impl EmbeddedGatewaySettings {
    /// Reads the variables that hold for the gateway inside a node; the others are those of a
    /// separate gateway.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(env: &[(String, String)]) -> Result<Self, ConfigErrors> {
        let names: Vec<String> = INSIDE
            .iter()
            .filter_map(|name| GATEWAY.find("", name))
            .map(|key| GATEWAY.env_name(key))
            .collect();
        let env = env.iter().filter(|(name, _)| names.contains(name)).cloned().collect();
        let settings =
            MergedConfig::merge(&GATEWAY, &ConfigSources { env, ..ConfigSources::default() })?;
        Ok(Self { settings })
    }

    /// What it says.
    pub fn access_settings(&self) -> AccessSettings<'_> {
        AccessSettings { settings: &self.settings }
    }

    /// The variables with their origins, as comments of a YAML file.
    pub(super) fn to_annotated_yaml(&self) -> String {
        let mut text = String::from("# The gateway inside, from its environment variables:\n");
        for line in self.settings.to_annotated_yaml().lines() {
            let name = line.split(':').next().unwrap_or_default();
            if INSIDE.contains(&name) {
                text.push_str("#   ");
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

/// Which callers a gateway serves.
#[derive(Clone, Copy, Debug)]
pub struct AccessSettings<'a> {
    settings: &'a MergedConfig,
}

impl<'a> AccessSettings<'a> {
    /// The namespace of callers without a credential, when authentication is off.
    pub fn namespace(&self) -> &'a str {
        self.settings.text("namespace")
    }

    /// Whether callers need a credential.
    pub fn is_auth_required(&self) -> bool {
        self.settings.bool("require_auth")
    }

    /// Static keys, `key:namespace` each.
    pub fn api_keys(&self) -> &'a [String] {
        self.settings.list("api_keys")
    }

    /// Whether authentication may be off on a public address.
    pub fn allows_insecure_public(&self) -> bool {
        self.settings.bool("insecure_public")
    }

    /// Origins that browsers may call from.
    pub fn cors_origins(&self) -> &'a [String] {
        self.settings.list("cors_origins")
    }

    /// Whether the gateway acts with the operator credential of a node.
    pub fn needs_operator(&self) -> bool {
        !self.is_auth_required() || !self.api_keys().is_empty()
    }
}
