//! Migrations that are programs or descriptions: db migrate applies SQL alone, and leaves none of
//! them out in silence.

use crate::cli_error::CliError;
use crate::network_cli::output::printable;
use std::io::Read as _;
use std::path::Path;

/// What of a file is looked at.
const MAX_BYTES: u64 = 64 * 1024;

/// How Rails writes its whole schema in SQL.
const RAILS_ADVICE: &str = "with config.active_record.schema_format = :sql, `rails db:schema:dump` writes db/structure.sql: make it the \
                            first step, without what it says of schema_migrations";
/// What a `schema.rb` is, and what to do instead.
pub(super) const RAILS_SCHEMA: (&str, &str) =
    ("Rails' schema, which is not written in SQL", RAILS_ADVICE);

/// How a migration of a tool is recognised, and what to do with it.
struct ToolSignature {
    endings: &'static [&'static str],
    /// A word that its files hold.
    word: &'static str,
    tool: &'static str,
    /// How the tool writes SQL.
    advice: &'static str,
}

const JS: &[&str] = &["js", "cjs", "mjs", "ts", "cts", "mts"];
/// For tools that write no SQL.
const SCHEMA: &str = "let the tool migrate an empty SQLite file, and make what `sqlite3 FILE .schema` writes the first step";

const fn signature(
    endings: &'static [&'static str],
    word: &'static str,
    tool: &'static str,
    advice: &'static str,
) -> ToolSignature {
    ToolSignature { endings, word, tool, advice }
}

const TOOL_SIGNATURES: &[ToolSignature] = &[
    signature(&["rb"], "ActiveRecord::Migration", "Rails", RAILS_ADVICE),
    signature(&["rb"], "Sequel.migration", "Sequel", SCHEMA),
    signature(
        &["py"],
        "down_revision",
        "Alembic",
        "`alembic upgrade head --sql > 001_name.sql` writes their SQL",
    ),
    signature(
        &["py"],
        "migrations.Migration",
        "Django",
        "`manage.py sqlmigrate APP NAME > 001_name.sql` writes the SQL of each",
    ),
    signature(&["py"], "yoyo", "yoyo", SCHEMA),
    signature(JS, "MigrationInterface", "TypeORM", SCHEMA),
    signature(JS, "queryInterface", "Sequelize", SCHEMA),
    signature(JS, "@mikro-orm/migrations", "MikroORM", SCHEMA),
    signature(JS, "Kysely", "Kysely", SCHEMA),
    signature(JS, "pgm.", "node-pg-migrate", SCHEMA),
    signature(JS, "knex", "knex", SCHEMA),
    signature(
        &["php"],
        "Illuminate\\Database\\Migrations",
        "Laravel",
        "`php artisan schema:dump` writes database/schema/sqlite-schema.sql: make it the first step",
    ),
    signature(
        &["php"],
        "Doctrine\\Migrations",
        "Doctrine",
        "`doctrine:migrations:migrate --write-sql` writes their SQL",
    ),
    signature(&["php"], "Phinx", "Phinx", SCHEMA),
    signature(
        &["exs", "ex"],
        "Ecto.Migration",
        "Ecto",
        "`mix ecto.dump` writes structure.sql: make it the first step",
    ),
    signature(
        &["cs"],
        "EntityFrameworkCore",
        "Entity Framework",
        "`dotnet ef migrations script --output 001_name.sql` writes their SQL",
    ),
    signature(&["go"], "goose", "goose", "write them in SQL, as the others are"),
    signature(&["java", "kt"], "flyway", "Flyway", "write them in SQL, as the others are"),
    signature(&["rs"], "sea_orm_migration", "SeaORM", SCHEMA),
    signature(&["rs"], "fn migration", "refinery", "write them in SQL, as the others are"),
    signature(
        &["xml", "yaml", "yml", "json"],
        "databaseChangeLog",
        "Liquibase",
        "`liquibase update-sql` writes their SQL",
    ),
];

/// Refuses a file that is a migration in another language than SQL. Other files are no steps.
pub(super) fn refuse_code_migration(path: &Path, file: &str) -> Result<(), CliError> {
    // A pipe or a device of that name is not waited for.
    let Some(ending) =
        path.extension().and_then(|ending| ending.to_str()).filter(|_| path.is_file())
    else {
        return Ok(());
    };
    let mut known =
        TOOL_SIGNATURES.iter().filter(|program| program.endings.contains(&ending)).peekable();
    if known.peek().is_none() {
        return Ok(());
    }
    let mut head = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|opened| opened.take(MAX_BYTES).read_to_end(&mut head));
    read.map_err(|error| CliError::usage(format!("{} cannot be read: {error}", printable(file))))?;
    let text = String::from_utf8_lossy(&head);
    let is_named_so = is_named_as_migration(file);
    let found = known.find(|program| {
        let says_it_anywhere = matches!(
            program.word,
            "down_revision" | "databaseChangeLog" | "ActiveRecord::Migration"
        );
        (is_named_so || says_it_anywhere) && text.contains(program.word)
    });
    match found {
        Some(ToolSignature { tool, advice, .. }) => Err(CliError::usage(format!(
            "{} is a migration of {tool} that is not written in SQL, and db migrate applies SQL alone",
            printable(file)
        ))
        .with_hint(*advice)),
        // Descriptions with a number may be anything.
        None if is_named_so && !["xml", "yaml", "yml", "json"].contains(&ending) => Err(CliError::usage(format!(
            "{} is named as a migration is, and is not written in SQL: db migrate applies SQL alone",
            printable(file)
        ))
        .with_hint(format!("if it is none, take it out of the folder; else {SCHEMA}"))),
        None => Ok(()),
    }
}

/// `20261124193000_users.rb`, `0001_initial.py`, `V2__users.java`, `Version20261124.php`,
/// `m20261124_users.rs`.
fn is_named_as_migration(file: &str) -> bool {
    let rest = ["Version", "Migration", "V", "m"]
        .iter()
        .find_map(|start| file.strip_prefix(start))
        .unwrap_or(file);
    rest.starts_with(|digit: char| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::refuse_code_migration;

    #[test]
    fn migrations_in_other_languages_are_refused_by_the_name_of_their_tool() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |file: &str, text: &str| {
            let path = dir.path().join(file);
            std::fs::write(&path, text).unwrap();
            refuse_code_migration(&path, file)
                .err()
                .map(|cli_error| (cli_error.message, cli_error.hint.unwrap_or_default()))
        };
        for (file, text, tool, advice) in [
            (
                "20240101120000_users.rb",
                "class Users < ActiveRecord::Migration[7.1]",
                "Rails",
                "structure.sql",
            ),
            (
                "ae1027a6acf_users.py",
                "revision = 'ae1027a6acf'\ndown_revision = None\n",
                "Alembic",
                "upgrade head --sql",
            ),
            ("0001_initial.py", "class Migration(migrations.Migration):", "Django", "sqlmigrate"),
            ("20240101120000_users.js", "exports.up = function (knex) {}", "knex", ".schema"),
            ("20240101120000-users.js", "up: (queryInterface) => {}", "Sequelize", ".schema"),
            (
                "1690000000000-Users.ts",
                "class Users1690000000000 implements MigrationInterface {}",
                "TypeORM",
                ".schema",
            ),
            (
                "2024_01_01_000000_users.php",
                "use Illuminate\\Database\\Migrations\\Migration;",
                "Laravel",
                "schema:dump",
            ),
            ("20240101120000_users.exs", "use Ecto.Migration", "Ecto", "ecto.dump"),
            (
                "20240101120000_Users.cs",
                "using Microsoft.EntityFrameworkCore.Migrations;",
                "Entity Framework",
                "script",
            ),
            ("00002_users.go", "goose.AddMigrationContext(up, down)", "goose", "SQL"),
            (
                "V2__users.java",
                "import org.flywaydb.core.api.migration.*; // flyway",
                "Flyway",
                "SQL",
            ),
            ("m20240101_users.rs", "use sea_orm_migration::prelude::*;", "SeaORM", ".schema"),
            ("changelog.xml", "<databaseChangeLog>", "Liquibase", "update-sql"),
        ] {
            let (message, hint) = refusal(file, text).unwrap_or_else(|| panic!("{file}"));
            assert!(
                message.contains(file) && message.contains(tool) && hint.contains(advice),
                "{message}; {hint}"
            );
        }
        assert!(refusal("003_users.py", "print()").unwrap().0.contains("not written in SQL"));
        for (file, text) in [
            ("index.js", "import knex"),
            ("mod.rs", "pub fn migration()"),
            ("README.md", "databaseChangeLog"),
            ("0000_snapshot.json", "{}"),
            ("env.py", "from alembic import context"),
            ("migration_lock.toml", "provider"),
        ] {
            assert_eq!(refusal(file, text), None, "{file}");
        }
    }
}
