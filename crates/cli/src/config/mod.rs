//! Configuration of the programs: flag before environment variable before YAML file before default.
//!
//! One table per program ([`NODE`], [`GATEWAY`]) describes every setting once; reading, errors,
//! variables, `--print-config` and the reference in `configs/README.md` derive from it. Every
//! mistake is reported with its place and with what is allowed, all of them at once, and nothing
//! starts half-configured.

mod addresses;
mod gateway;
mod gateway_keys;
mod merge;
mod node;
mod node_keys;
mod reference;
mod setting_spec;
mod setting_value;
mod units;
mod unknown_settings;
mod yaml;

pub(crate) use addresses::{is_web_address, peer_id_of};
pub use gateway::{AccessSettings, EmbeddedGatewaySettings, GatewaySettings};
pub use gateway_keys::GATEWAY;
pub use merge::{ConfigSources, MergedConfig, MergedSetting, SettingOrigin};
pub use node::NodeSettings;
pub use node_keys::NODE;
pub use reference::render_reference;
pub use setting_spec::{SettingDefault, SettingSpec, SettingStatus, SettingTable};
pub use setting_value::{ListItemKind, RawSetting, SettingKind, SettingValue};
pub use units::{duration_text, parse_duration};
pub use yaml::{ConfigEntry, ConfigFile};

use std::fmt;
use std::path::PathBuf;

/// Something wrong in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where: `file:line`, a variable, or a flag.
    pub place: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Everything wrong in the configuration, in order of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(problem: ConfigError) -> Self {
        ConfigErrors(vec![problem])
    }
}

/// Set-up of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// One JSON object per line instead of text.
    pub json: bool,
    /// A file that gets every line too.
    pub output_file: Option<PathBuf>,
}

/// The process's environment variables that are text.
pub fn environment_variables() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests;
