//! The description of a setting, from which everything about it derives: reading it from a file, a
//! variable or a flag, the errors, `--print-config` and the reference in `configs/README.md`.

use super::setting_value::SettingKind;

/// A setting.
#[derive(Debug)]
pub struct SettingSpec {
    /// The section of the YAML file, empty where the file has none.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// Other names that are accepted.
    pub aliases: &'static [&'static str],
    /// What values it takes.
    pub kind: SettingKind,
    /// What holds when nothing is said.
    pub default: SettingDefault,
    /// What holds under `network-node --dev` when nothing is said, where that differs.
    pub dev: Option<&'static str>,
    /// Environment variables that set it besides its own, which goes before them.
    pub more_env: &'static [&'static str],
    /// The flag that sets it.
    pub flag: Option<&'static str>,
    /// What it means, in one line.
    pub doc: &'static str,
    /// Whether it does already what it says.
    pub status: SettingStatus,
}

/// What holds when nothing is said.
#[derive(Clone, Copy, Debug)]
pub enum SettingDefault {
    /// This text.
    Is(&'static str),
    /// By node.type.
    ByType {
        /// For `node`.
        node: &'static str,
        /// For `bootstrap`.
        bootstrap: &'static str,
    },
    /// This file or folder in node.data_dir.
    InDataDir(&'static str),
    /// A quarter of the size that another setting has, and at least the least that is allowed.
    QuarterOf(&'static str),
    /// Half of the size that one setting has, and no less than the whole of another; 0 where that
    /// is 0.
    HalfOrWhole {
        /// Of which half.
        half: &'static str,
        /// Of which all.
        whole: &'static str,
    },
}

/// Whether a setting does already what it says.
#[derive(Clone, Copy, Debug)]
pub enum SettingStatus {
    /// It does.
    InEffect,
    /// Every value is accepted, but those other than `quiet` do not act yet. The start says so in
    /// one line.
    Noted {
        /// Values that need no line, because they say what is in effect anyway.
        quiet: &'static [&'static str],
        /// What is in effect, and why.
        notice: &'static str,
    },
    /// Values other than `off` are refused.
    Later {
        /// Values that ask for nothing.
        off: &'static [&'static str],
        /// Why, and what to do.
        reason: &'static str,
    },
}

/// The settings of a program.
#[derive(Debug)]
pub struct SettingTable {
    /// What the variables' names start with.
    pub env_prefix: &'static str,
    /// All settings, in the order in which they are printed.
    pub keys: &'static [SettingSpec],
}

impl SettingSpec {
    /// What most settings have in common.
    pub(super) const BASE: SettingSpec = SettingSpec {
        section: "",
        name: "",
        aliases: &[],
        kind: SettingKind::Text,
        default: SettingDefault::Is(""),
        dev: None,
        more_env: &[],
        flag: None,
        doc: "",
        status: SettingStatus::InEffect,
    };

    /// `section.name`, or the name alone.
    pub fn path(&self) -> String {
        if self.section.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}.{}", self.section, self.name)
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

impl SettingTable {
    /// The setting with this section and name.
    pub fn find(&self, section: &str, name: &str) -> Option<&'static SettingSpec> {
        self.keys.iter().find(|key| key.section == section && key.is_called(name))
    }

    /// The setting that this flag sets.
    pub fn find_by_flag(&self, flag: &str) -> Option<&'static SettingSpec> {
        self.keys.iter().find(|key| key.flag == Some(flag))
    }

    /// The setting's own environment variable.
    pub fn env_name(&self, key: &SettingSpec) -> String {
        let path = key.path().replace('.', "_");
        format!("{}_{}", self.env_prefix, path.to_ascii_uppercase())
    }

    /// The names of the sections, in order.
    pub fn sections(&self) -> Vec<&'static str> {
        let mut sections: Vec<&'static str> = self.keys.iter().map(|key| key.section).collect();
        sections.dedup();
        sections
    }

    /// The setting that was probably meant.
    pub fn suggest_similar(&self, section: &str, name: &str) -> Option<&'static SettingSpec> {
        // The right name in the wrong section is a sure guess.
        if let Some(key) = self.keys.iter().find(|key| key.is_called(name)) {
            return Some(key);
        }
        let wanted = format!("{section}.{name}");
        let (distance, key) = self
            .keys
            .iter()
            .map(|key| (edit_distance(&wanted, &format!("{}.{}", key.section, key.name)), key))
            .min_by_key(|(distance, _)| *distance)?;
        (distance <= 3.min(name.len() / 2)).then_some(key)
    }
}

/// How many letters have to be changed, added or removed.
pub(crate) fn edit_distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, candidate) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *candidate);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}
