//! The reference of all settings, as it stands in `configs/README.md`.

use super::setting_spec::{SettingDefault, SettingSpec, SettingStatus, SettingTable};
use super::setting_value::SettingValue;
use super::{GATEWAY, NODE, RawSetting};
use std::fmt::Write as _;

const HEAD: &str = "# Configuration

Highest first: flag, environment variable, YAML file, default. An unknown key or a value out of range stops the start with
an error that names the place and what is allowed. `--print-config` prints the merged result with each value's origin.
An empty environment variable counts as not set; a list in a variable or flag has commas between its items. Durations read
`15s`, `500ms`, `1h30m`; sizes read `1073741824`, `512MB`, `1GiB`. Relative paths start at the folder in which the program
was started.

This page is written from the programs' own table of settings (`crates/cli/src/config`); a test keeps the two the same.
";

const GATEWAY_HEAD: &str = "
The YAML file of `--config` holds these names at the top, without sections. `GATEWAY_NAMESPACE`, `GATEWAY_REQUIRE_AUTH`,
`GATEWAY_API_KEYS`, `GATEWAY_INSECURE_PUBLIC` and `GATEWAY_CORS_ORIGINS` also hold for the gateway inside a node.
";

/// The reference as Markdown.
pub fn render_reference() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## network-node\n");
    write_setting_table(&mut page, &NODE);
    page.push_str(
        "\n`--p2p-port PORT` puts the port into every address of node.listen_addresses; `--adv-addr HOST` sets both\n\
        advertised addresses; `--dev` changes the defaults to those of `make dev`.\n",
    );
    page.push_str("\n## network-gateway\n");
    page.push_str(GATEWAY_HEAD);
    write_setting_table(&mut page, &GATEWAY);
    page
}

fn write_setting_table(page: &mut String, table: &SettingTable) {
    page.push_str("\n| setting | default | values | variable, flag | meaning |\n| --- | --- | --- | --- | --- |\n");
    for key in table.keys {
        let mut names = format!("`{}`", table.env_name(key));
        for more in key.more_env.iter().chain(&key.flag) {
            // Writing to a String cannot fail.
            let _ = write!(names, ", `{more}`");
        }
        let aliases: String =
            key.aliases.iter().map(|alias| format!(" (also `{alias}`)")).collect();
        let later = match key.status {
            SettingStatus::InEffect => String::new(),
            SettingStatus::Noted { notice, .. } => format!(" Now: {notice}."),
            SettingStatus::Later { reason, .. } => format!(" Now: {reason}."),
        };
        let allowed = key.kind.describe_allowed().replace('<', "&lt;");
        let _ = writeln!(
            page,
            "| {}{aliases} | {} | {allowed} | {names} | {}{later} |",
            key.path(),
            default_text(key),
            key.doc
        );
    }
}

fn default_text(key: &SettingSpec) -> String {
    let yaml = |text: &str| {
        let value = key.kind.parse(&RawSetting::One(text.to_owned()));
        value.as_ref().map(SettingValue::to_yaml).unwrap_or_default()
    };
    match key.default {
        SettingDefault::Is(text) => format!("`{}`", yaml(text)),
        SettingDefault::ByType { node, bootstrap } => {
            format!("`{}`, bootstrap `{}`", yaml(node), yaml(bootstrap))
        }
        SettingDefault::InDataDir(name) => format!("`{name}` in node.data_dir"),
        SettingDefault::QuarterOf(path) => format!("a quarter of {path}"),
        SettingDefault::HalfOrWhole { half, whole } => {
            format!("half of {half}, or {whole} where that is more; off where that is off")
        }
    }
}
