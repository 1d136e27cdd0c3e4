//! The half of a file that is applied.
//!
//! Many tools write a change and what takes it back into one file, and part them with comments: `--
//! +goose Down`, `-- migrate:down`. To SQL they are comments, so a file that is run as it is takes
//! back what it has done, with the data. Markers that are known are obeyed; a file whose markers
//! are not is refused. Below them is a net for unknown marks, see
//! [`super::revert_check`].

use super::revert_check::refuse_reverting_statements;
use crate::cli_error::CliError;
use debros_proto::sql::split;
use std::ops::Range;

/// What a line is among the halves of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MarkerKind {
    /// What follows is applied.
    Up(&'static str),
    /// What follows takes it back.
    Down(&'static str),
    /// What stands above is applied, what follows takes it back.
    Cut(&'static str),
    /// Says something else to its tool, which changes nothing here.
    Note(&'static str),
    /// Reads like the beginning of what takes the change back, in no tool's words.
    Unclear,
    /// The tool would do what db migrate does not.
    Refused(&'static str),
}

/// A line that is a mark.
struct MarkerLine<'a> {
    kind: MarkerKind,
    text: &'a str,
    number: usize,
    span: Range<usize>,
}

/// The part of the text that is applied: all of it where no tool has parted it.
///
/// # Errors
/// The line of a marker that is not understood, or that leaves open what is to be applied.
pub(super) fn applied_section(text: &str) -> Result<Range<usize>, CliError> {
    let markers = find_markers(text);
    let at = |marker: &MarkerLine<'_>, why: &str| {
        CliError::usage(format!("line {}: \"{}\" {why}", marker.number, marker.text))
    };
    let mut tool = None::<&str>;
    for marker in &markers {
        match marker.kind {
            MarkerKind::Refused(why) => return Err(at(marker, why)),
            MarkerKind::Up(name)
            | MarkerKind::Down(name)
            | MarkerKind::Cut(name)
            | MarkerKind::Note(name) => {
                if tool.is_some_and(|known| known != name) {
                    return Err(at(marker, "is a marker of another tool than those before it"));
                }
                tool = Some(name);
            }
            MarkerKind::Unclear => {}
        }
    }
    let halves: Vec<&MarkerLine<'_>> = markers
        .iter()
        .filter(|marker| {
            matches!(marker.kind, MarkerKind::Up(_) | MarkerKind::Down(_) | MarkerKind::Cut(_))
        })
        .collect();
    let ups: Vec<usize> = (0..halves.len())
        .filter(|position| matches!(halves[*position].kind, MarkerKind::Up(_)))
        .collect();
    let part = match (halves.first(), ups.as_slice()) {
        (None, _) => {
            match (markers.iter().find(|marker| matches!(marker.kind, MarkerKind::Note(_))), tool) {
                (Some(marker), Some(_)) => {
                    return Err(at(marker, "stands in a file that does not say where Up begins"));
                }
                _ => 0..text.len(),
            }
        }
        (Some(cut), _) if matches!(cut.kind, MarkerKind::Cut(_)) => 0..cut.span.start,
        // Nothing is taken back: a heading.
        (Some(_), [_]) if halves.len() == 1 && is_heading(halves[0]) => 0..text.len(),
        (Some(first), [up]) => {
            if has_statements(&text[..first.span.start]) {
                return Err(at(first, "comes after statements that belong to neither half"));
            }
            let end = halves.get(up + 1).map_or(text.len(), |next| next.span.start);
            halves[*up].span.end..end
        }
        (Some(first), []) => {
            return Err(at(
                first,
                "takes back what nothing in the file applies: there is no Up before it",
            ));
        }
        (Some(_), [_, second, ..]) => {
            return Err(at(halves[*second], "is the second of its kind, and one is understood"));
        }
    };
    let unclear = markers
        .iter()
        .filter(|marker| marker.kind == MarkerKind::Unclear && part.contains(&marker.span.start));
    for marker in unclear {
        if has_statements(&text[marker.span.end..part.end]) {
            return Err(at(
                marker,
                "seems to begin what takes the change back, and what follows would be applied: move that into another file, \
                 or mark the halves with \"-- migrate:up\" and \"-- migrate:down\"",
            ));
        }
    }
    refuse_reverting_statements(text, part.clone())?;
    Ok(part)
}

/// `-- Up` alone, which authors write without meaning a half.
fn is_heading(marker: &MarkerLine<'_>) -> bool {
    matches!(marker.kind, MarkerKind::Up(BARE))
}

/// What cannot be split into statements is more than comments.
fn has_statements(text: &str) -> bool {
    split(text).map_or(true, |pieces| !pieces.is_empty())
}

fn find_markers(text: &str) -> Vec<MarkerLine<'_>> {
    let mut markers = Vec::new();
    let mut start = 0;
    for (index, whole) in text.split_inclusive('\n').enumerate() {
        let end = start + whole.len();
        let line = whole.trim_end();
        if let Some(mark) = classify_line(line) {
            markers.push(MarkerLine {
                kind: mark,
                text: line.trim_start(),
                number: index + 1,
                span: start..end,
            });
        }
        start = end;
    }
    markers
}

/// `-- Up` and `-- Down`: node-sqlite and shmig.
const BARE: &str = "node-sqlite";
/// `-- Up Migration`, with anything after it.
const NODE_PG: &str = "node-pg-migrate";

fn classify_line(line: &str) -> Option<MarkerKind> {
    let trimmed = line.trim_start();
    // Blanks that only look like one stand where text was pasted.
    let folded: String =
        trimmed.chars().map(|sign| if sign.is_whitespace() { ' ' } else { sign }).collect();
    let lower = folded.to_ascii_lowercase();
    let Some(comment) = lower.strip_prefix("--") else { return misplaced_marker(&lower) };
    let body = comment.trim_start_matches(['-', ' ', '\t']);
    let body = body.trim_end_matches(['-', ' ', '\t']);
    // `+ goose Down`, which goose does not take for a marker, but authors do.
    let joined = body.strip_prefix('+').map(|rest| format!("+{}", rest.trim_start()));
    let body = joined.as_deref().unwrap_or(body);
    if let Some(mark) = tool_marker(body) {
        let is_obeyed =
            matches!(mark, MarkerKind::Up(_) | MarkerKind::Down(_) | MarkerKind::Note(_));
        if is_obeyed && trimmed.len() != line.len() {
            return Some(MarkerKind::Refused("is a marker only at the beginning of its line"));
        }
        return Some(mark);
    }
    if body == "create above / drop below" {
        return Some(MarkerKind::Cut("tern"));
    }
    if body.strip_prefix("//").is_some_and(|rest| rest.trim_start().starts_with("@undo")) {
        return Some(MarkerKind::Cut("MyBatis Migrations"));
    }
    heading_marker(body)
}

/// Markers with a tool's own sign.
fn tool_marker(body: &str) -> Option<MarkerKind> {
    let (tag, rest) = body.split_once([' ', '\t', ':']).unwrap_or((body, ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    let tool = match tag {
        "+goose" => "goose",
        "+migrate" => "sql-migrate",
        "+micrate" => "micrate",
        "migrate" if body.starts_with("migrate:") => "dbmate",
        "rambler" if matches!(words.as_slice(), ["up" | "down", ..]) => "rambler",
        "atlas" if body.starts_with("atlas:") => {
            return match words.first() {
                Some(&("checkpoint" | "delimiter" | "txtar")) => Some(MarkerKind::Refused(
                    "is a directive of Atlas that db migrate does not know: write the file without it",
                )),
                _ => None,
            };
        }
        "liquibase" if words.starts_with(&["formatted", "sql"]) => {
            return Some(MarkerKind::Refused(
                "says that this is a changelog of Liquibase: `liquibase update-sql` writes the SQL that it stands for",
            ));
        }
        "running" if words.first() == Some(&"downgrade") => {
            return Some(MarkerKind::Refused("says that Alembic wrote this to take a change back"));
        }
        "!ups" | "!downs" => {
            return Some(MarkerKind::Refused(
                "is a marker of Play's evolutions: keep what comes after !Ups in the file alone",
            ));
        }
        _ if tag.starts_with('+')
            && words.first().is_some_and(|word| ["up", "down"].contains(word)) =>
        {
            return Some(MarkerKind::Refused(
                "is a marker of a tool that db migrate does not know",
            ));
        }
        _ => return None,
    };
    Some(match (tool, words.as_slice()) {
        ("goose" | "sql-migrate" | "micrate", ["up"] | ["up", "notransaction"])
        | ("dbmate" | "rambler", ["up", ..]) => MarkerKind::Up(tool),
        ("goose" | "sql-migrate" | "micrate", ["down"] | ["down", "notransaction"])
        | ("dbmate" | "rambler", ["down", ..]) => MarkerKind::Down(tool),
        ("goose" | "sql-migrate" | "micrate", ["statementbegin" | "statementend"])
        | ("goose" | "micrate", ["no", "transaction"] | ["envsub", "off"]) => {
            MarkerKind::Note(tool)
        }
        ("goose", ["envsub", "on"]) => MarkerKind::Refused(
            "puts variables of the environment into the SQL, which db migrate does not do: write the values",
        ),
        _ => MarkerKind::Refused("is a marker that db migrate does not know"),
    })
}

/// Markers in plain words.
fn heading_marker(body: &str) -> Option<MarkerKind> {
    let words: Vec<&str> = body
        .split(|sign: char| !sign.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    match words.as_slice() {
        ["up"] => return Some(MarkerKind::Up(BARE)),
        ["down"] => return Some(MarkerKind::Down(BARE)),
        ["up", "migration", ..] => return Some(MarkerKind::Up(NODE_PG)),
        ["down", "migration", ..] => return Some(MarkerKind::Down(NODE_PG)),
        _ => {}
    }
    let takes_back =
        |word: &&str| ["down", "downs", "undo", "rollback", "revert", "downgrade"].contains(word);
    let is_filler = |word: &&str| {
        [
            "migration",
            "migrations",
            "migrate",
            "section",
            "part",
            "script",
            "sql",
            "statements",
            "begin",
            "start",
            "here",
        ]
        .contains(word)
    };
    let reads_so = words.iter().any(takes_back)
        && words.iter().all(|word| takes_back(word) || is_filler(word));
    reads_so.then_some(MarkerKind::Unclear)
}

/// A tool's sign where the tool does not look for it, so that it is not clear what is meant.
fn misplaced_marker(lower: &str) -> Option<MarkerKind> {
    const SIGNS: [&str; 6] =
        ["+goose ", "+migrate ", "+micrate ", "migrate:up", "migrate:down", "@undo"];
    let comment = match lower.find("--") {
        Some(start) if lower[..start].trim_end().ends_with(';') => &lower[start..],
        _ if lower.starts_with("/*") || lower.starts_with('#') => lower,
        _ => return None,
    };
    if lower.starts_with('#') && (comment.contains("!ups") || comment.contains("!downs")) {
        return Some(MarkerKind::Refused(
            "is a marker of Play's evolutions: keep what comes after !Ups in the file alone",
        ));
    }
    SIGNS.iter().any(|sign| comment.contains(sign)).then_some(MarkerKind::Refused(
        "is a marker only as a comment with -- on a line of its own",
    ))
}

#[cfg(test)]
mod tests {
    use super::applied_section;

    fn part(text: &str) -> &str {
        &text[applied_section(text).unwrap_or_else(|cli_error| panic!("{text}: {cli_error}"))]
    }

    /// Every tool's file with `CREATE TABLE a (x);` as the half that is applied.
    #[test]
    fn the_half_that_takes_back_is_never_applied() {
        for text in [
            "-- +goose Up\nCREATE TABLE a (x);\n-- +goose Down\nDROP TABLE a;\n",
            "-- +goose NO TRANSACTION\r\n-- +goose up\r\nCREATE TABLE a (x);\r\n-- +goose down\r\nDROP TABLE a;\r\n",
            "-- +goose Up\n-- +goose StatementBegin\nCREATE TABLE a (x);\n-- +goose StatementEnd\n-- +goose Down\n-- +goose \
             StatementBegin\nDROP TABLE a;\n-- +goose StatementEnd\n",
            "--+goose Up\nCREATE TABLE a (x);\n--+goose Down\nDROP TABLE a;\n",
            "-- what for\n-- migrate:up\nCREATE TABLE a (x);\n\n-- migrate:down\nDROP TABLE a;\n",
            "-- migrate:up transaction:false\nCREATE TABLE a (x);\n-- migrate:down transaction:false\nDROP TABLE a;",
            "--migrate:up\nCREATE TABLE a (x);\n--migrate:down\nDROP TABLE a;",
            "-- +migrate Up notransaction\nCREATE TABLE a (x);\n-- +migrate Down\nDROP TABLE a;\n",
            "-- +micrate Up\nCREATE TABLE a (x);\n-- +micrate Down\nDROP TABLE a;\n",
            "-- rambler up\nCREATE TABLE a (x);\n-- rambler down\nDROP TABLE a;\n",
            "-- + goose Up\nCREATE TABLE a (x);\n-- + goose Down\nDROP TABLE a;\n",
            "-- +goose\u{a0}Up\nCREATE TABLE a (x);\n--\u{a0}+goose\u{2003}Down\u{a0}\nDROP TABLE a;\n",
            "-- Up\nCREATE TABLE a (x);\n-- Down\nDROP TABLE a;\n",
            "--------\n-- Up\n--------\nCREATE TABLE a (x);\n--------\n-- Down\n--------\nDROP TABLE a;\n",
            "-- ==== UP ====\nCREATE TABLE a (x);\n-- ==== DOWN ====\nDROP TABLE a;\n",
            "-- Up Migration\nCREATE TABLE a (x);\n-- Down Migration\nDROP TABLE a;\n",
            "  -- up migration for a\nCREATE TABLE a (x);\n-- Down Migration for a\nDROP TABLE a;\n",
            "-- migrate:down\nDROP TABLE a;\n-- migrate:up\nCREATE TABLE a (x);\n",
            "-- Write your migrate up statements here\nCREATE TABLE a (x);\n---- create above / drop below ----\nDROP TABLE a;\n",
            "-- // Create a\nCREATE TABLE a (x);\n-- //@UNDO\nDROP TABLE a;\n",
            "--// Create a\nCREATE TABLE a (x);\n--//  @UNDO\nDROP TABLE a;\n",
        ] {
            let part = part(text);
            assert!(
                part.contains("CREATE TABLE a (x);") && !part.contains("DROP"),
                "{text:?}: {part:?}"
            );
        }
    }

    #[test]
    fn a_file_without_halves_is_applied_whole() {
        for text in [
            "",
            "CREATE TABLE a (x); -- one; two\nDROP TABLE b;\n",
            "-- Up\nCREATE TABLE a (x);\n",
            "CREATE TABLE a (x);\n-- Rollback:\n-- DROP TABLE a;\n",
            "-- rolls back what 003 did, down to the index\nDROP TABLE a;\n",
            "-- CreateTable\nCREATE TABLE a (x);\n--> statement-breakpoint\nCREATE TABLE b (x);\n",
            "-- Running upgrade  -> ae1027a6acf\nCREATE TABLE a (x);\n",
            "-- atlas:txmode none\n-- no-transaction\nCREATE TABLE a (x);\n",
            "INSERT INTO a VALUES ('-- +goose Down is a comment');\n",
        ] {
            assert_eq!(part(text), text);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (text, line, words) in [
            ("-- +goose Up\n-- +goose ENVSUB ON\nSELECT 1;\n", 2, "environment"),
            ("-- +goose Up\nSELECT 1;\n-- +goose Downwards\n", 3, "does not know"),
            ("-- +goose Down\nDROP TABLE a;\n", 1, "no Up"),
            (
                "-- +goose StatementBegin\nDROP TABLE a;\n-- +goose StatementEnd\n",
                1,
                "where Up begins",
            ),
            ("CREATE TABLE a (x);\n-- migrate:up\nSELECT 1;\n", 2, "neither half"),
            (
                "-- migrate:up\nSELECT 1;\n-- migrate:down\n-- migrate:up\nSELECT 2;\n",
                4,
                "second of its kind",
            ),
            ("-- migrate:up\nSELECT 1;\n-- +goose Down\nSELECT 2;\n", 3, "another tool"),
            (
                "-- migrate:up\nSELECT 1;\n  -- migrate:down\nSELECT 2;\n",
                3,
                "beginning of its line",
            ),
            ("-- +duck Up\nSELECT 1;\n-- +duck Down\nDROP TABLE a;\n", 1, "does not know"),
            ("CREATE TABLE a (x);\n-- Down\nDROP TABLE a;\n", 2, "no Up"),
            (
                "CREATE TABLE a (x);\n-- ROLLBACK SCRIPT\nDROP TABLE a;\n",
                2,
                "takes the change back",
            ),
            ("-- Up\nCREATE TABLE a (x);\n-- Undo:\nDROP TABLE a;\n", 3, "takes the change back"),
            ("-- +goose Up\nSELECT 1; -- +goose Down\nDROP TABLE a;\n", 2, "line of its own"),
            ("CREATE TABLE a (x);\n/* migrate:down */\nDROP TABLE a;\n", 2, "line of its own"),
            ("# --- !Ups\nSELECT 1;\n# --- !Downs\nSELECT 2;\n", 1, "Play"),
            ("-- !Ups\nSELECT 1;\n-- !Downs\nDROP TABLE a;\n", 1, "Play"),
            ("-- Running downgrade ae -> bf\nDROP TABLE a;\n", 1, "Alembic"),
            (
                "--liquibase formatted sql\n--changeset a:1\nSELECT 1;\n--rollback DROP TABLE a;\n",
                1,
                "Liquibase",
            ),
            ("-- atlas:checkpoint\nCREATE TABLE a (x);\n", 1, "Atlas"),
        ] {
            let cli_error = applied_section(text).expect_err(text);
            assert!(
                cli_error.message.starts_with(&format!("line {line}: ")),
                "{text:?}: {cli_error}"
            );
            assert!(cli_error.message.contains(words), "{text:?}: {cli_error}");
        }
    }
}
