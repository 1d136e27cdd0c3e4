//! Merging the sources of a configuration.

use super::setting_spec::{SettingDefault, SettingSpec, SettingStatus, SettingTable};
use super::setting_value::{RawSetting, SettingKind, SettingValue};
use super::units::parse_size;
use super::unknown_settings::{line_location, unknown_keys, unknown_variables};
use super::yaml::ConfigFile;
use super::{ConfigError, ConfigErrors};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// The table of settings.
    Default,
    /// `--dev`.
    Dev,
    /// A line of a file.
    File(PathBuf, usize),
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingOrigin::Default => f.write_str("default"),
            SettingOrigin::Dev => f.write_str("default of --dev"),
            SettingOrigin::File(path, line) => write!(f, "{}:{line}", path.display()),
            SettingOrigin::Env(name) => write!(f, "env {name}"),
            SettingOrigin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A setting's value.
#[derive(Clone, Debug)]
pub struct MergedSetting {
    /// The setting.
    pub key: &'static SettingSpec,
    /// Its value.
    pub value: SettingValue,
    /// Where it comes from.
    pub origin: SettingOrigin,
}

impl MergedSetting {
    /// What is in effect instead of the value, where that does not act yet.
    fn overriding_notice(&self) -> Option<&'static str> {
        match self.key.status {
            SettingStatus::Noted { quiet, notice }
                if !quiet.contains(&self.value.to_plain().as_str()) =>
            {
                Some(notice)
            }
            _ => None,
        }
    }
}

/// What a configuration is made of.
#[derive(Clone, Debug, std::default::Default)]
pub struct ConfigSources {
    /// The YAML file.
    pub file: Option<ConfigFile>,
    /// Environment variables. An empty one counts as not set.
    pub env: Vec<(String, String)>,
    /// Flags: the setting's section and name, the flag, its text.
    pub flags: Vec<(&'static str, &'static str, &'static str, String)>,
    /// Whether the defaults are those of `--dev`.
    pub dev: bool,
}

impl ConfigSources {
    /// Adds a flag that was given. The table says which setting it sets.
    pub fn add_flag(&mut self, table: &SettingTable, flag: &'static str, text: Option<String>) {
        if let (Some(key), Some(text)) = (table.find_by_flag(flag), text) {
            self.flags.push((key.section, key.name, flag, text));
        }
    }
}

/// A merged configuration: a value for every setting.
#[derive(Clone, Debug)]
pub struct MergedConfig {
    table: &'static SettingTable,
    all: Vec<MergedSetting>,
}

impl MergedConfig {
    /// Merges the sources and checks every value.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn merge(
        table: &'static SettingTable,
        sources: &ConfigSources,
    ) -> Result<Self, ConfigErrors> {
        let mut problems = unknown_keys(table, sources.file.as_ref());
        problems.extend(unknown_variables(table, &sources.env));
        let mut all: Vec<MergedSetting> = Vec::with_capacity(table.keys.len());
        for key in table.keys {
            match explicit_value(table, key, sources) {
                Ok(Some((value, origin))) => all.push(MergedSetting { key, value, origin }),
                Ok(None) => {
                    let (value, origin) = default_value(key, &all, sources.dev);
                    all.push(MergedSetting { key, value, origin });
                }
                Err(problem) => {
                    problems.push(problem);
                    // So that the settings after it are checked too; nothing of this is used.
                    let (value, origin) = default_value(key, &all, sources.dev);
                    all.push(MergedSetting { key, value, origin });
                }
            }
        }
        problems.extend(all.iter().filter_map(unavailable_error));
        if problems.is_empty() { Ok(Self { table, all }) } else { Err(ConfigErrors(problems)) }
    }

    /// All settings in the order of the table.
    pub fn all(&self) -> &[MergedSetting] {
        &self.all
    }

    /// The table that these are settings of.
    pub fn table(&self) -> &'static SettingTable {
        self.table
    }

    /// A setting by `section.name`.
    ///
    /// # Panics
    /// When the table has no such setting: the names stand in this crate only, and its tests read
    /// each.
    pub fn get(&self, path: &str) -> &MergedSetting {
        self.all
            .iter()
            .find(|setting| setting.key.path() == path)
            .unwrap_or_else(|| unreachable!("{path} is not in the table of settings"))
    }

    /// Changes a value after the merge.
    pub(super) fn set(&mut self, path: &str, value: SettingValue, origin: SettingOrigin) {
        if let Some(setting) = self.all.iter_mut().find(|setting| setting.key.path() == path) {
            setting.value = value;
            setting.origin = origin;
        }
    }

    /// A text, path or address.
    pub fn text(&self, path: &str) -> &str {
        match &self.get(path).value {
            SettingValue::Text(text) => text,
            _ => unreachable!("{path} is not a text"),
        }
    }

    /// A path; `None` when it is empty.
    pub fn path(&self, path: &str) -> Option<PathBuf> {
        Some(self.text(path)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// A flag.
    pub fn bool(&self, path: &str) -> bool {
        matches!(self.get(path).value, SettingValue::Bool(true))
    }

    /// A number, or a number of bytes.
    pub fn number(&self, path: &str) -> u64 {
        match self.get(path).value {
            SettingValue::Integer(number) | SettingValue::Size(number) => number,
            _ => unreachable!("{path} is not a number"),
        }
    }

    /// A time span.
    pub fn duration(&self, path: &str) -> Duration {
        match self.get(path).value {
            SettingValue::Duration(span) => span,
            _ => unreachable!("{path} is not a time span"),
        }
    }

    /// A list.
    pub fn list(&self, path: &str) -> &[String] {
        match &self.get(path).value {
            SettingValue::List(items) => items,
            _ => unreachable!("{path} is not a list"),
        }
    }

    /// One line for each value that is accepted and does not act yet: what is in effect instead,
    /// and why.
    pub fn notices(&self) -> Vec<String> {
        self.all
            .iter()
            .filter(|setting| setting.origin != SettingOrigin::Default)
            .filter_map(|setting| {
                let in_effect = setting.overriding_notice()?;
                let (path, value) = (setting.key.path(), setting.value.to_plain());
                Some(format!("{path} is {value} ({}), accepted; {in_effect}", setting.origin))
            })
            .collect()
    }

    /// The configuration as YAML, each value with its origin, and with what is in effect instead
    /// where it does not act yet.
    pub fn to_annotated_yaml(&self) -> String {
        let mut text = String::new();
        for section in self.table.sections() {
            if !section.is_empty() {
                text.push_str(section);
                text.push_str(":\n");
            }
            for setting in self.all.iter().filter(|setting| setting.key.section == section) {
                let indent = if section.is_empty() { "" } else { "  " };
                let value = match &setting.value {
                    SettingValue::List(items)
                        if setting.key.kind.is_secret() && !items.is_empty() =>
                    {
                        format!("<{} not shown>", items.len())
                    }
                    value => value.to_yaml(),
                };
                let line = format!("{indent}{}: {value}", setting.key.name);
                let in_effect =
                    setting.overriding_notice().map(|what| format!("; {what}")).unwrap_or_default();
                text.push_str(&format!("{line:<52} # {}{in_effect}\n", setting.origin));
            }
        }
        text
    }
}

/// The value that some source gives, the highest source first.
fn explicit_value(
    table: &SettingTable,
    key: &'static SettingSpec,
    sources: &ConfigSources,
) -> Result<Option<(SettingValue, SettingOrigin)>, ConfigError> {
    let flags = sources.flags.iter().rev();
    if let Some((.., flag, text)) =
        flags.into_iter().find(|(section, name, ..)| *section == key.section && *name == key.name)
    {
        let value = parse_value(key, &RawSetting::One(text.clone()), flag)?;
        return Ok(Some((value, SettingOrigin::Flag(flag))));
    }
    let own = table.env_name(key);
    for name in std::iter::once(own.as_str()).chain(key.more_env.iter().copied()) {
        let set = sources.env.iter().find(|(known, value)| known == name && !value.is_empty());
        if let Some((_, text)) = set {
            let value = parse_value(
                key,
                &RawSetting::One(text.clone()),
                &format!("environment variable {name}"),
            )?;
            return Ok(Some((value, SettingOrigin::Env(name.to_owned()))));
        }
    }
    let Some(file) = &sources.file else {
        return Ok(None);
    };
    let mut entries = file.entries.iter().filter(|entry| {
        entry.section == key.section
            && (entry.name == key.name || key.aliases.contains(&entry.name.as_str()))
    });
    let Some(entry) = entries.next() else {
        return Ok(None);
    };
    let place = line_location(&file.path, entry.line);
    if let Some(again) = entries.next() {
        let message =
            format!("{} and {} are names of one setting; keep one", entry.name, again.name);
        return Err(ConfigError { place: self::line_location(&file.path, again.line), message });
    }
    let Some(raw) = &entry.value else {
        let message = format!(
            "{} has no value; write {}, or leave the line out",
            key.path(),
            key.kind.describe_allowed()
        );
        return Err(ConfigError { place, message });
    };
    let value = parse_value(key, raw, &place)?;
    Ok(Some((value, SettingOrigin::File(file.path.clone(), entry.line))))
}

fn parse_value(
    key: &SettingSpec,
    raw: &RawSetting,
    place: &str,
) -> Result<SettingValue, ConfigError> {
    key.kind.parse(raw).map_err(|what| ConfigError {
        place: place.to_owned(),
        message: format!("{}: {what}; write {}", key.path(), key.kind.describe_allowed()),
    })
}

/// What holds when no source says anything. Settings that a default looks at stand before it in the
/// table.
fn default_value(
    key: &'static SettingSpec,
    before: &[MergedSetting],
    dev: bool,
) -> (SettingValue, SettingOrigin) {
    let earlier = |path: &str| {
        before
            .iter()
            .find(|setting| setting.key.path() == path)
            .map(|setting| setting.value.to_plain())
    };
    let (text, origin) = match (dev, key.dev, key.default) {
        (true, Some(text), _) => (text.to_owned(), SettingOrigin::Dev),
        (_, _, SettingDefault::Is(text)) => (text.to_owned(), SettingOrigin::Default),
        (_, _, SettingDefault::ByType { node, bootstrap }) => {
            let is_bootstrap = earlier("node.type").as_deref() == Some("bootstrap");
            (if is_bootstrap { bootstrap } else { node }.to_owned(), SettingOrigin::Default)
        }
        (_, _, SettingDefault::InDataDir(name)) => {
            let folder = earlier("node.data_dir").unwrap_or_default();
            (Path::new(&folder).join(name).to_string_lossy().into_owned(), SettingOrigin::Default)
        }
        (_, _, SettingDefault::QuarterOf(path)) => {
            let whole = earlier(path).and_then(|text| parse_size(&text)).unwrap_or_default();
            let least = if let SettingKind::Size { min, .. } = key.kind { min } else { 0 };
            ((whole / 4).max(least).to_string(), SettingOrigin::Default)
        }
        (_, _, SettingDefault::HalfOrWhole { half, whole }) => {
            let size = |path| earlier(path).and_then(|text| parse_size(&text)).unwrap_or_default();
            let (half, whole) = (size(half) / 2, size(whole));
            (if whole == 0 { 0 } else { half.max(whole) }.to_string(), SettingOrigin::Default)
        }
    };
    let value = key.kind.parse(&RawSetting::One(text));
    (value.unwrap_or_else(|what| unreachable!("the default of {}: {what}", key.path())), origin)
}

fn unavailable_error(setting: &MergedSetting) -> Option<ConfigError> {
    let SettingStatus::Later { off, reason } = setting.key.status else {
        return None;
    };
    let value = setting.value.to_plain();
    (!off.contains(&value.as_str())).then(|| ConfigError {
        place: setting.origin.to_string(),
        message: format!("{}: {value} cannot be used yet: {reason}", setting.key.path()),
    })
}
