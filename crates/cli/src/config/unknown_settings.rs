//! Keys and variables that are no settings, with what was probably meant.

use super::ConfigError;
use super::setting_spec::{SettingTable, edit_distance};
use super::yaml::ConfigFile;
use std::path::Path;

/// Keys of the file that are no settings.
pub(super) fn unknown_keys(table: &SettingTable, file: Option<&ConfigFile>) -> Vec<ConfigError> {
    let Some(file) = file else {
        return Vec::new();
    };
    let unknown =
        file.entries.iter().filter(|entry| table.find(&entry.section, &entry.name).is_none());
    unknown
        .map(|entry| {
            let path = if entry.section.is_empty() {
                entry.name.clone()
            } else {
                format!("{}.{}", entry.section, entry.name)
            };
            let hint = match table.suggest_similar(&entry.section, &entry.name) {
                Some(key) => format!("did you mean {}?", key.path()),
                None => {
                    let names: Vec<&str> = table
                        .keys
                        .iter()
                        .filter(|key| key.section == entry.section)
                        .map(|key| key.name)
                        .collect();
                    if names.is_empty() {
                        format!("the sections are {}", table.sections().join(", "))
                    } else {
                        format!("allowed here: {}", names.join(", "))
                    }
                }
            };
            let message = format!("{} is not a setting; {hint}", debros_proto::ids::excerpt(&path));
            ConfigError { place: line_location(&file.path, entry.line), message }
        })
        .collect()
}

/// Variables that look like settings and are none. Where the table has no sections, other programs'
/// variables have the same start, so that only those which miss a name by a letter or two are
/// mistakes.
pub(super) fn unknown_variables(
    table: &SettingTable,
    env: &[(String, String)],
) -> Vec<ConfigError> {
    /// Documented variables of the command line and of the SDK's examples.
    const OTHERS: [&str; 6] = [
        "DEBROS_API_KEY",
        "DEBROS_BOOTSTRAP_PEERS",
        "DEBROS_GATEWAY_URL",
        "DEBROS_KEYSTORE_PASSWORD",
        "GATEWAY_API_KEY",
        "GATEWAY_BASE_URL",
    ];
    let known: Vec<String> = table.keys.iter().map(|key| table.env_name(key)).collect();
    let mut problems = Vec::new();
    for (name, value) in env {
        if value.is_empty() || known.contains(name) || OTHERS.contains(&name.as_str()) {
            continue;
        }
        let nearest = known.iter().map(|known| (edit_distance(name, known), known)).min();
        let is_near = nearest.as_ref().is_some_and(|(distance, _)| *distance <= 2);
        let in_section =
            table.sections().iter().filter(|section| !section.is_empty()).any(|section| {
                let prefix = format!("{}_{}_", table.env_prefix, section.to_ascii_uppercase());
                // Kubernetes sets such variables for a service called debros-node.
                name.strip_prefix(&prefix)
                    .is_some_and(|rest| !rest.starts_with("SERVICE_") && !rest.starts_with("PORT"))
            });
        let is_typo = is_near && name.starts_with(table.env_prefix);
        if !in_section && !is_typo {
            continue;
        }
        let hint = match nearest {
            Some((_, known)) if is_near => format!("did you mean {known}?"),
            _ => "see --print-config for the settings".to_owned(),
        };
        problems.push(ConfigError {
            place: format!("environment variable {name}"),
            message: format!("is not a setting; {hint}"),
        });
    }
    problems
}

/// The place of a line in the file.
pub(super) fn line_location(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.display())
}
