//! The net below the markers: what a file makes and takes back itself.
//!
//! No list knows every mark that authors and tools part the halves of a file with. Where one was
//! not understood, the file makes something and takes the same away again, and a comment between
//! the two says why. Such a file is refused.

use crate::cli_error::CliError;
use debros_proto::sql::{ScriptStatement, split, tokens};
use std::collections::HashMap;
use std::ops::Range;

/// Beginnings of words that say that something is taken back.
const TAKES_BACK: [&str; 9] = [
    "undo",
    "undid",
    "revert",
    "revers",
    "rollback",
    "backward",
    "downgrad",
    "unappl",
    "uninstall",
];
/// Whole words that say so of an object, and that authors write of single rows as well.
const TAKES_AWAY: [&str; 9] =
    ["drop", "drops", "dropping", "remove", "removes", "delete", "deletes", "destroy", "cleanup"];

/// What the beginning of a statement is looked at for: the names in it stand there.
const TOKENS: usize = 12;

/// What a statement does to a thing of the schema, or to the rows of a table.
#[derive(Debug, PartialEq, Eq)]
enum SchemaEffect {
    Makes(String),
    Renames(String, String),
    TakesAway(String),
    /// Rows that a condition chooses.
    TakesSomeOf(String),
}

/// How far the comments between two statements speak of taking back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CommentHint {
    Nothing,
    Away,
    Back,
}

/// # Errors
/// The line of a statement that takes away what the same file has made, when a comment between the
/// two speaks of taking back.
pub(super) fn refuse_reverting_statements(text: &str, part: Range<usize>) -> Result<(), CliError> {
    let part_text = &text[part.clone()];
    // What cannot be split is reported where it is run.
    let Ok(pieces) = split(part_text) else { return Ok(()) };
    let lines_before = text[..part.start].matches('\n').count();
    // What the file has made, and the strongest comment since then with its line.
    let mut made: HashMap<String, (CommentHint, usize)> = HashMap::new();
    let (mut end, mut first_line) = (0, 1);
    for piece in &pieces {
        for (index, line) in part_text[end..piece.start].split('\n').enumerate() {
            let (said, number) = (classify_comment(line), lines_before + first_line + index);
            for known in made.values_mut().filter(|known| known.0 < said) {
                *known = (said, number);
            }
        }
        end = piece.start + piece.text.len();
        first_line = piece.line + piece.text.matches('\n').count();
        let (thing, enough) = match statement_effect(piece) {
            Some(SchemaEffect::Makes(thing)) => {
                made.entry(thing).or_insert((CommentHint::Nothing, 0));
                continue;
            }
            Some(SchemaEffect::Renames(from, to)) => match made.remove(&to) {
                // Back to the name that it had.
                Some(known) if known.0 == CommentHint::Back => (to, known),
                _ => {
                    let known = made.remove(&from).unwrap_or((CommentHint::Nothing, 0));
                    made.insert(from, known);
                    made.insert(to, known);
                    continue;
                }
            },
            Some(SchemaEffect::TakesAway(thing)) => match made.remove(&thing) {
                Some(known) if known.0 >= CommentHint::Away => (thing, known),
                _ => continue,
            },
            Some(SchemaEffect::TakesSomeOf(thing)) => match made.get(&thing) {
                Some(known) if known.0 == CommentHint::Back => (thing, *known),
                _ => continue,
            },
            None => continue,
        };
        let comment = text.lines().nth(enough.1 - 1).unwrap_or_default().trim();
        return Err(CliError::usage(format!(
            "line {}: the statement takes back what the file itself has done ({thing}), and \"{comment}\" in line {} reads as if \
             that were not to be applied: mark the halves with \"-- migrate:up\" and \"-- migrate:down\", or move what takes the \
             change back into another file; if the whole is to be applied, write the comment in other words",
            lines_before + piece.line,
            enough.1,
        )));
    }
    Ok(())
}

/// What a line of comments says. Between two statements stand no other words.
fn classify_comment(line: &str) -> CommentHint {
    let lower = line.to_lowercase();
    let words: Vec<&str> =
        lower.split(|sign: char| !sign.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let is_verb =
        |word: &str| ["roll", "tak", "put", "turn"].iter().any(|verb| word.starts_with(verb));
    let is_back = |(index, word): (usize, &&str)| {
        word.ends_with("down")
            || ["downs", "downwards", "downward"].contains(word)
            || TAKES_BACK.iter().any(|start| word.starts_with(start))
            || *word == "back" && words[..index].iter().rev().take(3).any(|word| is_verb(word))
    };
    if words.iter().enumerate().any(is_back) {
        CommentHint::Back
    } else if words.iter().any(|word| TAKES_AWAY.contains(word)) {
        CommentHint::Away
    } else {
        CommentHint::Nothing
    }
}

fn statement_effect(piece: &ScriptStatement<'_>) -> Option<SchemaEffect> {
    let start: Vec<&str> = tokens(piece.text).take(TOKENS).collect();
    let upper: Vec<String> = start.iter().map(|token| token.to_ascii_uppercase()).collect();
    let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
    let kinds = ["TABLE", "INDEX", "VIEW", "TRIGGER"];
    match upper.as_slice() {
        // A temporary table is taken away for good order.
        ["CREATE", "TEMP" | "TEMPORARY", ..] => None,
        ["CREATE", "UNIQUE" | "VIRTUAL", _, ..] => {
            Some(SchemaEffect::Makes(object_name(&start, 3)?.0))
        }
        ["CREATE", kind, ..] if kinds.contains(kind) => {
            Some(SchemaEffect::Makes(object_name(&start, 2)?.0))
        }
        ["DROP", kind, ..] if kinds.contains(kind) => {
            Some(SchemaEffect::TakesAway(object_name(&start, 2)?.0))
        }
        ["INSERT", "OR", _, "INTO", ..] => {
            Some(SchemaEffect::Makes(rows_label(&object_name(&start, 4)?.0)))
        }
        ["INSERT" | "REPLACE", "INTO", ..] => {
            Some(SchemaEffect::Makes(rows_label(&object_name(&start, 2)?.0)))
        }
        ["DELETE", "FROM", ..] => {
            let (table, next) = object_name(&start, 2)?;
            let is_all = next == start.len() && start.len() < TOKENS;
            Some(if is_all {
                SchemaEffect::TakesAway(rows_label(&table))
            } else {
                SchemaEffect::TakesSomeOf(rows_label(&table))
            })
        }
        ["ALTER", "TABLE", ..] => {
            let (table, next) = object_name(&start, 2)?;
            let column = |at: usize| {
                let at = if upper.get(at) == Some(&"COLUMN") { at + 1 } else { at };
                start.get(at).map(|column| format!("{table}.{}", unquote_name(column)))
            };
            match *upper.get(next)? {
                "ADD" => Some(SchemaEffect::Makes(column(next + 1)?)),
                "DROP" => Some(SchemaEffect::TakesAway(column(next + 1)?)),
                "RENAME" if upper.get(next + 1) == Some(&"TO") => {
                    Some(SchemaEffect::Renames(table, unquote_name(start.get(next + 2)?)))
                }
                "RENAME" => {
                    let to = upper.iter().skip(next).position(|word| *word == "TO")? + next;
                    Some(SchemaEffect::Renames(
                        column(next + 1)?,
                        format!("{table}.{}", unquote_name(start.get(to + 1)?)),
                    ))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn rows_label(table: &str) -> String {
    format!("the rows of {table}")
}

/// The name that stands there, behind IF (NOT) EXISTS and a schema, and where the next token is.
fn object_name(tokens: &[&str], mut at: usize) -> Option<(String, usize)> {
    while ["IF", "NOT", "EXISTS"]
        .iter()
        .any(|word| tokens.get(at).is_some_and(|token| token.eq_ignore_ascii_case(word)))
    {
        at += 1;
    }
    if tokens.get(at + 1) == Some(&".") {
        at += 2;
    }
    Some((unquote_name(tokens.get(at)?), at + 1))
}

/// A name without its quotes, and as names are compared.
pub(super) fn unquote_name(token: &str) -> String {
    let inner = match token.as_bytes().first() {
        Some(quote @ (b'"' | b'`' | b'\'')) => {
            let quote = char::from(*quote).to_string();
            token[1..].strip_suffix(&quote).unwrap_or(&token[1..]).replace(&quote.repeat(2), &quote)
        }
        Some(b'[') => token[1..].strip_suffix(']').unwrap_or(&token[1..]).to_owned(),
        _ => token.to_owned(),
    };
    inner.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use crate::network_cli::migrate::markers::applied_section;

    /// Marks that no list holds.
    #[test]
    fn what_a_file_takes_back_under_a_comment_that_says_so_is_refused() {
        for (up, down) in [
            ("-- Up (create)", "-- Down (drop)"),
            ("-- Up", "-- Down (reverse)"),
            ("-- up: make it", "-- down: drop it"),
            ("-- DEPLOY", "-- REVERT: remove table"),
            ("-- what for", "-- rollback changes"),
            ("-- what for", "-- To undo:"),
            ("-- Migration: create a (up)", "-- Migration: create a (down)"),
            ("-- Write your UP migration here", "-- Write your DOWN migration here"),
            ("-- name: up", "-- name: down"),
            ("-- forward", "-- backward"),
            ("/* Up */", "/* Down */"),
            ("/*\n up\n*/", "/*\n to roll it back\n*/"),
            ("-- MigrateUp", "-- MigrateDown"),
            ("-- make", "-- drop"),
        ] {
            for (make, take) in [
                ("CREATE TABLE a (x);", "DROP TABLE a;"),
                (
                    "CREATE TABLE IF NOT EXISTS main.\"A\" (x);\nCREATE INDEX i ON a (x);",
                    "DROP INDEX i;\nDROP TABLE IF EXISTS [a];",
                ),
                ("create virtual table a using fts5(x);", "drop table `a`;"),
                ("CREATE UNIQUE INDEX a ON t (x);", "DROP INDEX a;"),
                ("CREATE VIEW a AS SELECT 1;", "DROP VIEW a;"),
                ("CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; END;", "DROP TRIGGER a;"),
                ("INSERT INTO a VALUES (1);", "DELETE FROM a;"),
                ("ALTER TABLE t ADD COLUMN a;", "ALTER TABLE t DROP a;"),
                ("CREATE TABLE b (x);\nALTER TABLE b RENAME TO a;", "DROP TABLE a;"),
            ] {
                let text = format!("{up}\n{make}\n\n{down}\n{take}\n");
                let cli_error = applied_section(&text).err().unwrap_or_else(|| panic!("{text}"));
                assert!(cli_error.message.starts_with("line "), "{text}: {cli_error}");
            }
        }
        for (make, take) in [
            ("ALTER TABLE a RENAME TO b;", "ALTER TABLE b RENAME TO a;"),
            ("ALTER TABLE t RENAME COLUMN a TO b;", "ALTER TABLE t RENAME COLUMN b TO a;"),
            ("INSERT INTO a VALUES (1);", "DELETE FROM a WHERE x = 1;"),
        ] {
            let text = format!("-- Up (1)\n{make}\n-- Down (1)\n{take}\n");
            applied_section(&text).expect_err(&text);
        }
        let text = "-- first\nCREATE TABLE a (x);\n\n-- Down (drop)\n-- now\nDROP TABLE a;\n";
        let cli_error = applied_section(text).unwrap_err();
        assert!(cli_error.message.starts_with("line 6: "), "{cli_error}");
        assert!(
            cli_error.message.contains("(a)")
                && cli_error.message.contains("\"-- Down (drop)\" in line 4"),
            "{cli_error}"
        );
    }

    #[test]
    fn what_is_recreated_or_removed_otherwise_is_applied() {
        for text in [
            // Prisma, drizzle-kit.
            "/*\n  Warnings:\n  - You are about to drop the column `b`.\n*/\n-- RedefineTables\nPRAGMA foreign_keys=OFF;\nCREATE \
             TABLE \"new_User\" (x);\nINSERT INTO \"new_User\" (x) SELECT x FROM \"User\";\nDROP TABLE \"User\";\nALTER TABLE \
             \"new_User\" RENAME TO \"User\";\nPRAGMA foreign_keys=ON;\n",
            "CREATE TABLE `__new_a` (x);\n--> statement-breakpoint\nINSERT INTO `__new_a` SELECT x FROM `a`;--> \
             statement-breakpoint\nDROP TABLE `a`;--> statement-breakpoint\nALTER TABLE `__new_a` RENAME TO `a`;",
            "-- CreateTable\nCREATE TABLE a (x);\n-- DropTable\nDROP TABLE b;\n",
            "CREATE TABLE a (x);\n-- drop what nobody reads\nDROP TABLE b;\n",
            "CREATE TABLE helper (x);\nINSERT INTO b SELECT x FROM helper;\nDROP TABLE helper;\n",
            "-- undo what 003 did\nDROP TABLE a;\nCREATE TABLE a (x);\n",
            "CREATE TEMP TABLE a (x);\n-- drop it\nDROP TABLE a;\n",
            "INSERT INTO a SELECT x FROM b;\n-- drop duplicates\nDELETE FROM a WHERE x = 1;\n",
            "CREATE TABLE a (x);\n-- how to go down:\n-- DROP TABLE a;\n",
            "CREATE TABLE a (x);\nINSERT INTO a VALUES ('-- down');\nDROP TABLE a;\n",
        ] {
            assert_eq!(
                applied_section(text).unwrap_or_else(|cli_error| panic!("{text}: {cli_error}")),
                0..text.len()
            );
        }
    }
}
