//! Reading a configuration file: sections, keys and values, each with its line.
//!
//! A setting is text or a list of texts, so the file is read as events rather than into types: what
//! stands in the file is what is checked, `007` does not become 7, and every mistake is reported
//! with its line. What a configuration does not need is refused: anchors, tags, several documents,
//! anything nested deeper.

use super::ConfigError;
use super::setting_value::RawSetting;
use debros_proto::regular_file;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One line `key: value` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The section that it stands in, empty at the top.
    pub section: String,
    /// The key.
    pub name: String,
    /// The line of the key, from 1.
    pub line: usize,
    /// The value; `None`: nothing stands after the colon.
    pub value: Option<RawSetting>,
}

/// A configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it is, as the user wrote it.
    pub path: PathBuf,
    /// Its entries in order.
    pub entries: Vec<ConfigEntry>,
}

impl ConfigFile {
    /// Reads a file with sections (`sectioned`) or without.
    ///
    /// # Errors
    /// When it cannot be read or is not such a file.
    pub fn read(path: &Path, sectioned: bool) -> Result<Self, ConfigError> {
        let fail = |message: String| ConfigError { place: path.display().to_string(), message };
        let mut text = String::new();
        regular_file::open_or_handed_over(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| fail(format!("cannot be read: {error}")))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(fail(format!(
                "is too large: a configuration file has at most {MAX_FILE_BYTES} bytes"
            )));
        }
        let file = Self::parse(path, &text, sectioned)?;
        // It was cut off, or is another's: with all defaults the program would listen on public
        // addresses.
        if file.entries.is_empty() {
            return Err(fail(
                "sets nothing; write settings into it, or leave --config out to start with the defaults".to_owned(),
            ));
        }
        Ok(file)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// As [`read`](ConfigFile::read).
    pub fn parse(path: &Path, text: &str, sectioned: bool) -> Result<Self, ConfigError> {
        let mut reader =
            ConfigReader { path, parser: Parser::new_from_str(text), entries: Vec::new() };
        reader.read_document(sectioned)?;
        Ok(Self { path: path.to_owned(), entries: reader.entries })
    }
}

struct ConfigReader<'a> {
    path: &'a Path,
    parser: Parser<'a, serde_saphyr::granit_parser::StrInput<'a>>,
    entries: Vec<ConfigEntry>,
}

impl<'a> ConfigReader<'a> {
    fn error_at(&self, line: usize, message: impl Into<String>) -> ConfigError {
        ConfigError { place: format!("{}:{line}", self.path.display()), message: message.into() }
    }

    /// The next event that matters, with its line.
    fn next_event(&mut self) -> Result<(Event<'a>, usize), ConfigError> {
        loop {
            let (event, span): (Event<'a>, Span) = match self.parser.next_event() {
                Some(Ok(next)) => next,
                Some(Err(error)) => {
                    let line = error.marker().line();
                    return Err(self.error_at(line, format!("is not YAML: {}", error.info())));
                }
                None => return Ok((Event::StreamEnd, 0)),
            };
            let line = span.start.line();
            let (anchor, tag) = match &event {
                Event::Comment(..) => continue,
                Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
                Event::SequenceStart(_, anchor, tag) | Event::MappingStart(_, anchor, tag) => {
                    (*anchor, tag.is_some())
                }
                Event::Alias(_) => (1, false),
                _ => (0, false),
            };
            if anchor != 0 || tag {
                return Err(self.error_at(
                    line,
                    "anchors (&), aliases (*) and tags (!) are not used here: write the value itself",
                ));
            }
            return Ok((event, line));
        }
    }

    fn read_document(&mut self, sectioned: bool) -> Result<(), ConfigError> {
        loop {
            match self.next_event()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                // A file of comments alone sets nothing.
                (Event::StreamEnd, _) => return Ok(()),
                (Event::Scalar(text, ScalarStyle::Plain, ..), _) if is_null(&text) => break,
                (Event::MappingStart(..), _) => {
                    self.read_mapping("", sectioned)?;
                    break;
                }
                (_, line) => {
                    return Err(
                        self.error_at(line, "a configuration file starts with `key:` lines")
                    );
                }
            }
        }
        loop {
            match self.next_event()? {
                (Event::DocumentEnd, _) => {}
                (Event::StreamEnd, _) => return Ok(()),
                (_, line) => {
                    return Err(self.error_at(
                        line,
                        "a second document starts here; a configuration file has one",
                    ));
                }
            }
        }
    }

    fn read_mapping(&mut self, section: &str, sectioned: bool) -> Result<(), ConfigError> {
        let mut seen: Vec<(String, usize)> = Vec::new();
        loop {
            let (name, line) = match self.next_event()? {
                (Event::MappingEnd, _) => return Ok(()),
                (Event::Scalar(name, ..), line) => (name.into_owned(), line),
                (_, line) => {
                    return Err(self.error_at(line, "a key is a word, here stands something else"));
                }
            };
            let shown = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            let shown = debros_proto::ids::excerpt(&shown);
            if let Some((_, first)) = seen.iter().find(|(known, _)| *known == name) {
                return Err(self.error_at(
                    line,
                    format!("{shown} stands here again, first on line {first}; keep one"),
                ));
            }
            seen.push((name.clone(), line));
            let value = match self.next_event()? {
                (Event::MappingStart(..), _) if section.is_empty() && sectioned => {
                    self.read_mapping(&name, false)?;
                    continue;
                }
                (Event::MappingStart(..), line) => {
                    return Err(self.error_at(
                        line,
                        format!("{shown} holds keys of its own; it takes a value"),
                    ));
                }
                (Event::SequenceStart(..), _) => Some(RawSetting::Many(self.read_list(&shown)?)),
                (Event::Scalar(text, ScalarStyle::Plain, ..), _) if is_null(&text) => None,
                (Event::Scalar(text, ..), _) => Some(RawSetting::One(text.into_owned())),
                (_, line) => {
                    return Err(
                        self.error_at(line, format!("{shown} has no value that can be read"))
                    );
                }
            };
            if value.is_none() && section.is_empty() && sectioned {
                // `security:` with nothing below: a section without settings.
                continue;
            }
            self.entries.push(ConfigEntry { section: section.to_owned(), name, line, value });
        }
    }

    fn read_list(&mut self, shown: &str) -> Result<Vec<String>, ConfigError> {
        let mut items = Vec::new();
        loop {
            match self.next_event()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (Event::Scalar(text, style, ..), line)
                    if style == ScalarStyle::Plain && is_null(&text) =>
                {
                    return Err(self.error_at(line, format!("{shown} has an item without a value")));
                }
                (Event::Scalar(text, ..), _) => items.push(text.into_owned()),
                (_, line) => {
                    return Err(self.error_at(
                        line,
                        format!("{shown} is a list of texts, here stands something else"),
                    ));
                }
            }
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests {
    use super::{ConfigEntry, ConfigFile, Path, RawSetting};

    fn parse(text: &str) -> Result<Vec<ConfigEntry>, String> {
        ConfigFile::parse(Path::new("x.yaml"), text, true)
            .map(|file| file.entries)
            .map_err(|problem| problem.to_string())
    }

    #[test]
    fn every_value_keeps_its_text_and_line() {
        let text = "# head\nnode:\n  id: 007   # as it stands\n  listen_addresses:\n    - \"/a\"\n    - /b\n  data_dir: ''\nsecurity:\n";
        let entry = |name: &str, line, value| ConfigEntry {
            section: "node".into(),
            name: name.into(),
            line,
            value: Some(value),
        };
        let expected = [
            entry("id", 3, RawSetting::One("007".into())),
            entry("listen_addresses", 4, RawSetting::Many(vec!["/a".into(), "/b".into()])),
            entry("data_dir", 7, RawSetting::One(String::new())),
        ];
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("node: {id: a}").unwrap().len(), 1);
        assert!(parse("").unwrap().is_empty() && parse("# nothing\n").unwrap().is_empty());
    }

    #[test]
    fn a_file_that_sets_nothing_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.yaml");
        for text in ["", "\n", "# nothing\n", "---\n", "~\n", "{}\n", "node:\nsecurity:\n"] {
            std::fs::write(&path, text).unwrap();
            for sectioned in [true, false] {
                // Without sections such a line is a setting without a value, which is refused for
                // that.
                if sectioned || !text.contains("node:") {
                    let error = ConfigFile::read(&path, sectioned).unwrap_err().to_string();
                    assert!(
                        error.contains("node.yaml") && error.contains("sets nothing"),
                        "{text:?} gave {error}"
                    );
                }
            }
        }
        let error = ConfigFile::read(Path::new("/dev/zero"), true).unwrap_err().to_string();
        assert!(error.contains("a device"), "{error}");
    }

    #[test]
    fn what_is_not_a_configuration_is_refused_with_its_line() {
        for (text, line, word) in [
            ("node:\n  id: a\n  id: b\n", 3, "line 2"),
            ("node:\n  id: a\nnode:\n  id: b\n", 3, "again"),
            ("node:\n  id: &x a\n", 2, "anchors"),
            ("node:\n  id: !!str a\n", 2, "tags"),
            ("node:\n  id:\n    deep: 1\n", 3, "value"),
            ("node:\n  listen_addresses:\n    - [a]\n", 3, "list"),
            ("node:\n  listen_addresses:\n    -\n", 3, "item"),
            ("- a\n", 1, "key:"),
            ("text\n", 1, "key:"),
            ("node:\n  id: \"open\n", 2, "YAML"),
            ("node:\n\tid: a\n", 2, "YAML"),
            ("node:\n  id: a\n---\nnode:\n", 3, "document"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.starts_with(&format!("x.yaml:{line}: ")) && error.contains(word),
                "{text:?} gave {error}"
            );
        }
    }

    #[test]
    fn hostile_input_ends_in_an_error() {
        let bomb = format!("a: &a [x]\nb: &b [{}]\n", "*a,".repeat(9));
        for text in [
            bomb,
            "[".repeat(100_000),
            "{".repeat(10_000),
            "a: ".repeat(1000),
            "\0".into(),
            "\u{feff}: -".into(),
        ] {
            assert!(parse(&text).is_err(), "{:?}", &text[..text.len().min(20)]);
        }
    }
}
