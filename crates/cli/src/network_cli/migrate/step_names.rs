//! What the names in a folder of migrations say: number, name, and whether it is the half that
//! takes a change back.
//!
//! Understood are the names of goose, dbmate, golang-migrate, sqlx, sql-migrate, drizzle-kit and
//! the like (`NUMBER_name.sql`, `NUMBER-name.sql`, with `.up` and `.down` before the ending), of
//! Flyway and refinery (`V1__name.sql`), and the folders of Prisma, drizzle-kit, Diesel, Hasura and
//! rusqlite_migration. What else tools name is refused with the tool's name.

use crate::cli_error::CliError;
use crate::network_cli::output::printable;

/// What SQLite has integers for, whatever the digits.
const MAX_DIGITS: usize = 18;
/// The lengths of the parts of a day, of a day with its time, and of that with Diesel's further
/// digits: 2026-11-24, 2026-11-24-193000, 2026-11-24-193000-0000.
const DATES: [&[usize]; 3] = [&[4, 2, 2], &[4, 2, 2, 6], &[4, 2, 2, 6, 4]];

/// A step's number and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StepTitle {
    pub(super) version: i64,
    /// The number as the name has it.
    pub(super) number: String,
    pub(super) name: String,
    /// Numbers may be left out, as Flyway and refinery allow.
    pub(super) may_skip: bool,
}

/// What a `.sql` file is by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// Both halves or none: `NUMBER_name.sql`, `V1__name.sql`.
    Whole(StepTitle),
    /// `NUMBER_name.up.sql`.
    Up(StepTitle),
    /// `NUMBER_name.down.sql`: never run.
    Down(StepTitle),
    /// `U1__name.sql`: takes back what the V file with this number does, if there is one.
    Undo(StepTitle),
}

/// Reads the name of a `.sql` file.
pub(super) fn file_kind(file: &str) -> Result<FileKind, CliError> {
    let stem = file.strip_suffix(".sql").ok_or_else(|| not_numbered_error(file))?;
    if let Some(kind) = flyway_kind(file)? {
        return Ok(kind);
    }
    if let Some(title) = stem.strip_suffix(".up").and_then(parse_numbered) {
        return Ok(FileKind::Up(title));
    }
    if let Some(title) = stem.strip_suffix(".down").and_then(parse_numbered) {
        return Ok(FileKind::Down(title));
    }
    if let Some(end) = down_suffix(stem) {
        let shown = printable(file);
        let named = if end == "-down" {
            "as db-migrate names what takes a change back"
        } else {
            "like what takes a change back"
        };
        return Err(CliError::usage(format!("{shown} ends in {end}, {named}, and db migrate would apply it")).with_hint(
            "name what is to be applied NUMBER_name.up.sql and what takes it back NUMBER_name.down.sql; if it is to be applied, end \
             its name in another word",
        ));
    }
    if let Some(tool) = tool_of_dotted_half(stem) {
        return Err(CliError::usage(format!("{} is named as {tool} names its files", printable(file)))
            .with_hint("name what is to be applied NUMBER_name.up.sql and what takes it back NUMBER_name.down.sql"));
    }
    parse_numbered(stem).map(FileKind::Whole).ok_or_else(|| not_numbered_error(file))
}

/// Number and name: `001_users`, `1-users`, `20261124193000_users`, `2026-11-24-193000_users`.
pub(super) fn parse_numbered(stem: &str) -> Option<StepTitle> {
    let title = |digits: &str, number: &str, name: &str| {
        let is_number = (1..=MAX_DIGITS).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit());
        (is_number && !name.is_empty()).then(|| StepTitle {
            // At most MAX_DIGITS digits.
            version: digits.parse().unwrap_or_default(),
            number: number.to_owned(),
            name: name.to_owned(),
            may_skip: false,
        })
    };
    if let Some((number, name)) = stem.split_once('_') {
        let lengths: Vec<usize> = number.split('-').map(str::len).collect();
        if DATES.contains(&lengths.as_slice()) {
            return title(&number.replace('-', ""), number, name);
        }
        if let Some(title) = title(number, number, name) {
            return Some(title);
        }
    }
    let (number, name) = stem.split_once('-')?;
    // A day in a form that is not known is no number with a name.
    let is_day =
        number.len() == 4 && matches!(name.as_bytes(), [b'0'..=b'9', b'0'..=b'9', b'-' | b'_', ..]);
    if is_day { None } else { title(number, number, name) }
}

/// The names of Flyway and refinery, which may stand in folders below.
pub(super) fn flyway_kind(file: &str) -> Result<Option<FileKind>, CliError> {
    let shown = printable(file);
    let name = file.rsplit('/').next().unwrap_or(file);
    let Some(stem) = name.strip_suffix(".sql") else { return Ok(None) };
    let is_callback = ["before", "after"].iter().any(|start| {
        stem.strip_prefix(start)
            .is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_uppercase()))
    });
    if is_callback {
        return Err(CliError::usage(format!(
            "{shown} is a callback of Flyway, which db migrate does not run"
        ))
        .with_hint("write what it does into the migrations, and take the file out of the folder"));
    }
    let Some((prefix, name)) = stem.split_once("__") else { return Ok(None) };
    if prefix == "R" {
        return Err(CliError::usage(format!(
            "{shown} is a repeatable migration of Flyway, and db migrate applies every file once"
        ))
        .with_hint("write its text into a V file with a number of its own, at each change"));
    }
    let Some(kind @ ('V' | 'U' | 'B')) = prefix.chars().next() else { return Ok(None) };
    let number = &prefix[1..];
    if !number.starts_with(|digit: char| digit.is_ascii_digit()) {
        return Ok(None);
    }
    if kind == 'B' {
        return Err(CliError::usage(format!(
            "{shown} is a baseline migration of Flyway, which stands for those before it"
        ))
        .with_hint("keep either it, renamed to V, or the migrations that it stands for"));
    }
    let Some(title) =
        parse_numbered(&format!("{number}_{name}")).filter(|title| title.number == number)
    else {
        return Err(CliError::usage(format!(
            "{shown} has a version of several parts, and db migrate counts in whole numbers"
        ))
        .with_hint(
            "rename the files to V1__name.sql, V2__name.sql and so on, or to moments like V20261124193000__name.sql",
        ));
    };
    let title = StepTitle { may_skip: true, ..title };
    Ok(Some(if kind == 'U' { FileKind::Undo(title) } else { FileKind::Whole(title) }))
}

/// The word that a name ends in, when it says that the file takes a change back.
fn down_suffix(stem: &str) -> Option<&'static str> {
    let lower = stem.to_ascii_lowercase();
    const ENDS: [&str; 10] = [
        "-down",
        "_down",
        "-rollback",
        "_rollback",
        "-undo",
        "_undo",
        "-revert",
        "_revert",
        "-downgrade",
        "_downgrade",
    ];
    ENDS.into_iter().find(|end| lower.ends_with(end))
}

/// Which tool names files so, with a word for the half between dots.
fn tool_of_dotted_half(stem: &str) -> Option<&'static str> {
    let mut words = stem.split('.');
    words.next().filter(|number| number.starts_with(|digit: char| digit.is_ascii_digit()))?;
    words.find_map(|word| match word.to_ascii_lowercase().as_str() {
        "do" | "undo" => Some("postgrator"),
        "rollback" => Some("yoyo"),
        "up" | "down" | "deploy" | "revert" | "verify" => Some("another tool"),
        _ => None,
    })
}

fn not_numbered_error(file: &str) -> CliError {
    let cli_error = CliError::usage(format!(
        "{} is not named NUMBER_name.sql, as 001_users.sql or 2026-11-24-193000_users.sql is",
        printable(file)
    ));
    match file {
        "structure.sql" | "schema.sql" => cli_error.with_hint(
            "it may be the whole schema that Rails, Ecto or dbmate writes: name the folder of the migrations, or copy it to \
             001_schema.sql in a folder of its own, without what it says of schema_migrations",
        ),
        _ => cli_error,
    }
}

#[cfg(test)]
mod tests {
    use super::{FileKind, file_kind, parse_numbered};

    #[test]
    fn the_names_of_tools_are_read() {
        let version = |stem: &str| {
            parse_numbered(stem).map(|title| (title.version, title.number, title.name))
        };
        let some = |version: i64, number: &str, name: &str| {
            Some((version, number.to_owned(), name.to_owned()))
        };
        assert_eq!(version("00001_users"), some(1, "00001", "users"));
        assert_eq!(version("001-initial_schema"), some(1, "001", "initial_schema"));
        assert_eq!(version("001-2_more"), some(1, "001", "2_more"));
        assert_eq!(
            version("2026-11-24-193000_users"),
            some(20_261_124_193_000, "2026-11-24-193000", "users")
        );
        assert_eq!(
            version("2026-01-13-200441-0000_create_posts"),
            some(202_601_132_004_410_000, "2026-01-13-200441-0000", "create_posts")
        );
        assert_eq!(version("2026-11-24_users"), some(20_261_124, "2026-11-24", "users"));
        assert_eq!(version("1690000000_a-b"), some(1_690_000_000, "1690000000", "a-b"));
        for bad in [
            "",
            "users",
            "1",
            "_a",
            "-1_a",
            "001_",
            "001-",
            "1234567890123456789_a",
            "2026-",
            "2026-01-13-2004_a",
            "2026-01-13-200441-00_a",
            "2026-01_a",
        ] {
            assert_eq!(version(bad), None, "{bad}");
        }
        for (file, is_right) in [
            (
                "001_a.sql",
                (|kind: &FileKind| matches!(kind, FileKind::Whole(title) if !title.may_skip))
                    as fn(&FileKind) -> bool,
            ),
            ("001_a.up.sql", |kind| matches!(kind, FileKind::Up(title) if title.name == "a")),
            ("001_a.down.sql", |kind| matches!(kind, FileKind::Down(title) if title.version == 1)),
            (
                "V7__a.sql",
                |kind| matches!(kind, FileKind::Whole(title) if title.version == 7 && title.may_skip),
            ),
            (
                "V20261124193000__a_b.sql",
                |kind| matches!(kind, FileKind::Whole(title) if title.name == "a_b"),
            ),
            (
                "001_sign_up.sql",
                |kind| matches!(kind, FileKind::Whole(title) if title.name == "sign_up"),
            ),
            (
                "V1__scale_down.sql",
                |kind| matches!(kind, FileKind::Whole(title) if title.name == "scale_down"),
            ),
            ("001_scale_down.up.sql", |kind| matches!(kind, FileKind::Up(_))),
            ("later/V3__c.sql", |kind| matches!(kind, FileKind::Whole(title) if title.name == "c")),
            ("U7__a.sql", |kind| matches!(kind, FileKind::Undo(title) if title.version == 7)),
        ] {
            let kind = file_kind(file).unwrap();
            assert!(is_right(&kind), "{file}: {kind:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (file, words) in [
            ("R__views.sql", "repeatable migration of Flyway"),
            ("B3__base.sql", "baseline migration of Flyway"),
            ("V1.2__a.sql", "several parts"),
            ("V1_2__a.sql", "several parts"),
            ("afterMigrate.sql", "callback of Flyway"),
            ("001.do.users.sql", "postgrator"),
            ("001.undo.users.sql", "postgrator"),
            ("0001.users.rollback.sql", "yoyo"),
            ("0001_users.rollback.sql", "yoyo"),
            ("001_a_down.sql", "ends in _down, like what takes a change back"),
            ("001_Rollback.sql", "ends in _rollback"),
            ("001-a_undo.sql", "ends in _undo"),
            ("001_a-revert.sql", "ends in -revert"),
            ("20240101120000-a-down.sql", "db-migrate"),
            ("2026-01-13-2004_a.sql", "2026-11-24-193000_users.sql"),
            ("structure.sql", "not named NUMBER_name.sql"),
            ("users.sql", "not named NUMBER_name.sql"),
        ] {
            let cli_error = file_kind(file).unwrap_err();
            assert!(
                cli_error.message.contains(words) && cli_error.message.contains(file),
                "{cli_error}"
            );
        }
    }
}
