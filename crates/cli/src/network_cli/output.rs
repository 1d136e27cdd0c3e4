//! Writing results: on stdout, for people or for programs. Everything else goes to stderr.

use crate::cli_error::CliError;
use clap::ValueEnum;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use std::io::{self, IsTerminal as _, Write as _};

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    // No help of their own: it would spread every option of every command over three lines.
    Table,
    Json,
}

/// Where results go, and how they are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    format: OutputFormat,
    is_terminal: bool,
    bold: bool,
}

impl Output {
    pub(super) fn new(format: OutputFormat) -> Self {
        let terminal = io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { format, is_terminal: terminal, bold: terminal && !plain }
    }

    /// Whether results are JSON.
    pub(super) fn is_json(self) -> bool {
        self.format == OutputFormat::Json
    }

    /// Whether a person looks at stdout directly.
    pub(super) fn is_terminal(self) -> bool {
        self.is_terminal
    }

    /// A result: `write_json` for programs, `text` for people.
    pub(super) fn write_result<Json: serde::Serialize>(
        self,
        json: impl FnOnce() -> Json,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.is_json() { self.write_json(&json()) } else { self.write_line(&text()) }
    }

    /// A JSON result on a line of its own.
    pub(super) fn write_json(self, value: &impl serde::Serialize) -> Result<(), CliError> {
        let mut text =
            serde_json::to_vec(value).map_err(|error| CliError::new(error.to_string()))?;
        text.push(b'\n');
        self.write_bytes(&text)
    }

    /// A line for people.
    pub(super) fn write_line(self, text: &str) -> Result<(), CliError> {
        self.write_bytes(format!("{text}\n").as_bytes())
    }

    /// Exact bytes.
    pub(super) fn write_bytes(self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        match written {
            // The reader has enough, as `head` does: nothing is left to do, and nothing went
            // wrong.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            written => written.map_err(|error| {
                CliError::new(format!("the result cannot be written to stdout: {error}"))
            }),
        }
    }

    /// A table, as wide as its content: on a narrow terminal the lines go on below, so that a peer
    /// id or a checksum is never cut into pieces that cannot be copied.
    pub(super) fn write_table(
        self,
        header: &[&str],
        rows: impl IntoIterator<Item = Vec<TableCell>>,
    ) -> Result<(), CliError> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header.iter().map(|name| {
            let cell = Cell::new(printable(name));
            if self.bold { cell.add_attribute(Attribute::Bold) } else { cell }
        }));
        for row in rows {
            table.add_row(row.into_iter().map(|shown| match shown {
                TableCell::Text(text) => Cell::new(printable(&text)),
                TableCell::Number(text) => Cell::new(text).set_alignment(CellAlignment::Right),
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        self.write_line(&text.join("\n"))
    }
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub(super) enum TableCell {
    /// Text from anywhere; control characters are written as escapes.
    Text(String),
    /// A number, aligned to the right.
    Number(String),
}

impl From<&str> for TableCell {
    fn from(text: &str) -> Self {
        TableCell::Text(text.to_owned())
    }
}

impl From<String> for TableCell {
    fn from(text: String) -> Self {
        TableCell::Text(text)
    }
}

/// Text without control characters: what comes from the network must not steer the terminal or
/// break the lines.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_direction_mark(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Marks that turn the direction of text around and can make it read as something else.
fn is_direction_mark(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes a note to stderr, beside the results.
pub(crate) fn print_note(text: &str) {
    // When stderr is gone nobody reads it.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A time as milliseconds since the Unix epoch; 0 is never.
pub(crate) fn format_time(milliseconds: i64) -> String {
    if milliseconds == 0 { "never".to_owned() } else { debros_proto::time::rfc3339(milliseconds) }
}

/// A time in JSON, as the gateway writes it; null is never.
pub(super) fn json_time(milliseconds: i64) -> Option<String> {
    (milliseconds > 0).then(|| debros_proto::time::rfc3339_millis(milliseconds))
}

/// A text in JSON; null where there is none.
pub(super) fn json_text(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A list in JSON, as the gateway writes lists.
pub(super) fn json_list(items: impl IntoIterator<Item = serde_json::Value>) -> serde_json::Value {
    let items: Vec<_> = items.into_iter().collect();
    serde_json::json!({ "count": items.len(), "items": items })
}

/// Bytes for people.
pub(super) fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut left = bytes;
    while left >= 10 * 1024 && unit + 1 < UNITS.len() {
        left /= 1024;
        unit += 1;
    }
    format!("{left} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::{format_size, printable};

    #[test]
    fn text_from_the_network_does_not_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\n\u{202e}c ключ"), "a\\u{1b}[31mb\\n\\u{202e}c ключ");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(
            [format_size(0), format_size(9999), format_size(10_240), format_size(5 << 30)],
            ["0 B", "9999 B", "10 KiB", "5120 MiB"]
        );
    }
}
