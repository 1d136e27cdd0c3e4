//! What the namespace knows of migrations: the record of `db migrate`, or that of another tool.

use crate::cli_error::CliError;
use crate::network_cli::output::printable;
use debros_client::rpc::Row;
use debros_client::{Client, Error};
use std::path::Path;

/// The table that `db migrate` keeps.
pub(super) const TABLE: &str = "schema_migrations";
const COLUMNS: [&str; 4] = ["version", "name", "checksum", "applied_at"];
const READ: &str = "SELECT version, name, checksum FROM schema_migrations ORDER BY version";

/// The record of another tool.
struct HistoryTable {
    table: &'static str,
    /// Its columns, lower case, where the name says too little; empty: any.
    columns: &'static [&'static str],
    tool: &'static str,
    /// The newest that is applied: a step's number, a name, or NULL for none.
    newest: &'static str,
}

const fn history_table(
    table: &'static str,
    tool: &'static str,
    newest: &'static str,
) -> HistoryTable {
    HistoryTable { table, columns: &[], tool, newest }
}

/// A table that others may have too: its columns say whose it is.
const fn history_table_with_columns(
    table: &'static str,
    columns: &'static [&'static str],
    tool: &'static str,
    newest: &'static str,
) -> HistoryTable {
    HistoryTable { table, columns, tool, newest }
}

/// By the table's name, and its columns where several tools have that name.
const HISTORY_TABLES: &[HistoryTable] = &[
    history_table(
        "goose_db_version",
        "goose",
        "SELECT max(version_id) FROM goose_db_version AS entry WHERE is_applied AND version_id > 0 AND id = (SELECT max(id) \
         FROM goose_db_version WHERE version_id = entry.version_id)",
    ),
    history_table(
        "flyway_schema_history",
        "Flyway",
        "SELECT max(CAST(version AS INTEGER)) FROM flyway_schema_history WHERE success AND version IS NOT NULL",
    ),
    history_table(
        "refinery_schema_history",
        "refinery",
        "SELECT max(version) FROM refinery_schema_history",
    ),
    history_table(
        "_sqlx_migrations",
        "sqlx",
        "SELECT max(version) FROM _sqlx_migrations WHERE success",
    ),
    history_table(
        "__diesel_schema_migrations",
        "Diesel",
        "SELECT max(version) FROM __diesel_schema_migrations",
    ),
    history_table(
        "_prisma_migrations",
        "Prisma",
        "SELECT max(CAST(migration_name AS INTEGER)) FROM _prisma_migrations WHERE finished_at IS NOT NULL AND \
         rolled_back_at IS NULL",
    ),
    history_table(
        "d1_migrations",
        "wrangler (D1)",
        "SELECT max(CAST(name AS INTEGER)) FROM d1_migrations",
    ),
    history_table(
        "gorp_migrations",
        "sql-migrate",
        "SELECT max(CAST(id AS INTEGER)) FROM gorp_migrations",
    ),
    history_table(
        "micrate_db_version",
        "micrate",
        "SELECT max(version_id) FROM micrate_db_version WHERE version_id > 0",
    ),
    history_table(
        "__drizzle_migrations",
        "drizzle-kit",
        "SELECT count(*) || iif(count(*) = 1, ' migration', ' migrations') FROM __drizzle_migrations HAVING count(*) > 0",
    ),
    history_table("alembic_version", "Alembic", "SELECT max(version_num) FROM alembic_version"),
    history_table("knex_migrations", "knex", "SELECT max(name) FROM knex_migrations"),
    history_table("SequelizeMeta", "Sequelize", "SELECT max(name) FROM SequelizeMeta"),
    history_table("pgmigrations", "node-pg-migrate", "SELECT max(name) FROM pgmigrations"),
    history_table("kysely_migration", "Kysely", "SELECT max(name) FROM kysely_migration"),
    history_table("mikro_orm_migrations", "MikroORM", "SELECT max(name) FROM mikro_orm_migrations"),
    history_table(
        "django_migrations",
        "Django",
        "SELECT count(*) || iif(count(*) = 1, ' migration', ' migrations') FROM django_migrations HAVING count(*) > 0",
    ),
    history_table(
        "__EFMigrationsHistory",
        "Entity Framework",
        "SELECT max(MigrationId) FROM __EFMigrationsHistory",
    ),
    history_table(
        "DATABASECHANGELOG",
        "Liquibase",
        "SELECT count(*) || iif(count(*) = 1, ' changeset', ' changesets') FROM DATABASECHANGELOG HAVING count(*) > 0",
    ),
    history_table(
        "atlas_schema_revisions",
        "Atlas",
        "SELECT max(CAST(version AS INTEGER)) FROM atlas_schema_revisions",
    ),
    history_table("seaql_migrations", "SeaORM", "SELECT max(version) FROM seaql_migrations"),
    history_table("_yoyo_migration", "yoyo", "SELECT max(migration_id) FROM _yoyo_migration"),
    history_table("phinxlog", "Phinx", "SELECT max(version) FROM phinxlog"),
    history_table(
        "doctrine_migration_versions",
        "Doctrine",
        "SELECT max(version) FROM doctrine_migration_versions",
    ),
    history_table_with_columns(
        "migrations",
        &["id", "migration", "batch"],
        "Laravel",
        "SELECT max(migration) FROM migrations",
    ),
    history_table_with_columns(
        "migrations",
        &["id", "timestamp", "name"],
        "TypeORM",
        "SELECT max(timestamp) FROM migrations",
    ),
    history_table_with_columns(
        "migrations",
        &["id", "name", "up", "down"],
        "node-sqlite",
        "SELECT max(id) FROM migrations",
    ),
    history_table_with_columns(
        "migrations",
        &["migration"],
        "rambler",
        "SELECT max(CAST(migration AS INTEGER)) FROM migrations",
    ),
    // Its number 0 makes the table itself.
    history_table_with_columns(
        "migrations",
        &["id", "name", "hash", "executed_at"],
        "postgres-migrations",
        "SELECT max(id) FROM migrations WHERE id > 0",
    ),
    history_table_with_columns(
        "schema_version",
        &["version"],
        "tern",
        "SELECT max(version) FROM schema_version WHERE version > 0",
    ),
    history_table_with_columns(
        "schemaversion",
        &["version", "name", "md5", "run_at"],
        "postgrator",
        "SELECT max(CAST(version AS INTEGER)) FROM schemaversion WHERE version > 0",
    ),
    history_table_with_columns(
        "schema_info",
        &["version"],
        "Sequel",
        "SELECT max(version) FROM schema_info WHERE version > 0",
    ),
    history_table_with_columns(
        "CHANGELOG",
        &["id", "applied_at", "description"],
        "MyBatis Migrations",
        "SELECT max(CAST(ID AS INTEGER)) FROM CHANGELOG",
    ),
    // The names that the hint gives to such a table, where its own name is taken.
    history_table(
        "rails_schema_migrations",
        "Rails",
        "SELECT max(CAST(version AS INTEGER)) FROM rails_schema_migrations",
    ),
    history_table(
        "dbmate_schema_migrations",
        "dbmate or Rails",
        "SELECT max(CAST(version AS INTEGER)) FROM dbmate_schema_migrations",
    ),
    history_table(
        "golang_migrate_schema_migrations",
        "golang-migrate",
        "SELECT iif(max(dirty), max(version) || ', which it did not finish (dirty)', max(version)) FROM \
         golang_migrate_schema_migrations",
    ),
    history_table(
        "ecto_schema_migrations",
        "Ecto",
        "SELECT max(version) FROM ecto_schema_migrations",
    ),
    history_table(
        "sequel_schema_migrations",
        "Sequel",
        "SELECT max(filename) FROM sequel_schema_migrations",
    ),
    history_table(
        "other_schema_migrations",
        "another tool",
        "SELECT count(*) || iif(count(*) = 1, ' migration', ' migrations') FROM other_schema_migrations HAVING count(*) > 0",
    ),
];

/// A step as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AppliedStep {
    pub(super) version: i64,
    pub(super) name: String,
    pub(super) checksum: String,
}

/// What stands in the namespace.
pub(super) enum MigrationHistory {
    /// Nothing: no tool has recorded anything.
    Nothing,
    /// The table of `db migrate`, with the steps in order.
    Own(Vec<AppliedStep>),
    /// Another tool has applied steps: its name, its table, the newest step.
    Other { tool: &'static str, table: &'static str, newest: String },
}

/// Reads the record that is there.
///
/// # Errors
/// `schema_migrations` is another tool's table; the node's errors.
pub(super) async fn read_history(
    client: &Client,
    dir: &Path,
) -> Result<MigrationHistory, CliError> {
    let tables = table_names(client).await?;
    let has = |name: &str| tables.iter().any(|table| table.eq_ignore_ascii_case(name));
    if has(TABLE) {
        let columns =
            query_texts(client, "SELECT name FROM pragma_table_info('schema_migrations')").await?;
        if COLUMNS.iter().all(|name| columns.iter().any(|column| column.eq_ignore_ascii_case(name)))
        {
            return Ok(MigrationHistory::Own(read_own_steps(client).await?));
        }
        return Err(foreign_table_error(client, &columns, has("ar_internal_metadata"), dir).await?);
    }
    for HistoryTable { table, columns, tool, newest } in
        HISTORY_TABLES.iter().filter(|record| has(record.table))
    {
        if !columns.is_empty() {
            let found =
                query_texts(client, &format!("SELECT name FROM pragma_table_info('{table}')"))
                    .await?;
            let is_so = found.len() == columns.len()
                && columns
                    .iter()
                    .all(|column| found.iter().any(|found| found.eq_ignore_ascii_case(column)));
            if !is_so {
                continue;
            }
        }
        let newest = match query_texts(client, newest).await {
            Ok(newest) => newest.into_iter().next(),
            // A table of that name in another shape: the application's own.
            Err(error) if error.code == debros_client::Code::Sql => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(newest) = newest {
            return Ok(MigrationHistory::Other { tool, table, newest });
        }
    }
    Ok(MigrationHistory::Nothing)
}

async fn read_own_steps(client: &Client) -> Result<Vec<AppliedStep>, CliError> {
    let result = client.database().query(READ, []).await?;
    let applied = |row: &Row| {
        let version = row.values.first().and_then(|value| value.as_integer()).unwrap_or_default();
        AppliedStep {
            version,
            name: column_text(row, 1).unwrap_or_default(),
            checksum: column_text(row, 2).unwrap_or_default(),
        }
    };
    Ok(result.rows.iter().map(applied).collect())
}

async fn table_names(client: &Client) -> Result<Vec<String>, Error> {
    query_texts(client, "SELECT name FROM sqlite_master WHERE type = 'table'").await
}

/// The first column as texts, without NULLs.
async fn query_texts(client: &Client, sql: &str) -> Result<Vec<String>, Error> {
    let result = client.database().query(sql, []).await?;
    Ok(result.rows.iter().filter_map(|row| column_text(row, 0)).collect())
}

fn column_text(row: &Row, index: usize) -> Option<String> {
    let value = row.values.get(index)?;
    value
        .as_text()
        .map(str::to_owned)
        .or_else(|| value.as_integer().map(|integer| integer.to_string()))
}

/// `schema_migrations` with other columns than those of `db migrate`.
async fn foreign_table_error(
    client: &Client,
    columns: &[String],
    has_rails_metadata: bool,
    dir: &Path,
) -> Result<CliError, CliError> {
    let lower: Vec<String> = columns.iter().map(|column| column.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let (tool, kept_as) = match lower.as_slice() {
        ["version"] if has_rails_metadata => ("of Rails", "rails_schema_migrations"),
        ["version"] => ("of dbmate or Rails", "dbmate_schema_migrations"),
        ["version", "dirty"] => ("of golang-migrate", "golang_migrate_schema_migrations"),
        ["version", "inserted_at"] => ("of Ecto", "ecto_schema_migrations"),
        ["filename"] => ("of Sequel", "sequel_schema_migrations"),
        _ => ("of another tool", "other_schema_migrations"),
    };
    let is_dirty = lower.contains(&"dirty")
        && !query_texts(client, "SELECT version FROM schema_migrations WHERE dirty")
            .await?
            .is_empty();
    let newest = if lower.contains(&"version") {
        query_texts(client, "SELECT max(CAST(version AS INTEGER)) FROM schema_migrations")
            .await?
            .into_iter()
            .next()
    } else {
        None
    };
    let says = newest.as_ref().map_or_else(String::new, |newest| {
        if is_dirty {
            format!(", which says that {newest} was begun and not finished (dirty)")
        } else {
            format!(", which says that {newest} is the newest applied")
        }
    });
    let cli_error = CliError::new(format!(
        "the namespace's table schema_migrations is that {tool} (its columns: {}){says}; db migrate keeps its own record in a \
         table of that name",
        printable(&columns.join(", "))
    ));
    // Whether the last was applied is not known.
    let version = newest.filter(|_| !is_dirty).unwrap_or_else(|| "VERSION".to_owned());
    Ok(cli_error.with_hint(format!(
        "go on with that tool; or rename its table, `network-cli query \"ALTER TABLE schema_migrations RENAME TO {kept_as}\"`, \
         and record what it has applied, `network-cli db migrate {} --baseline {version}`",
        dir.display()
    )))
}

/// Another tool has applied steps, and they would be applied again.
pub(super) fn migrated_by_error(tool: &str, table: &str, newest: &str, dir: &Path) -> CliError {
    let is_number = newest.bytes().all(|byte| byte.is_ascii_digit());
    let version = if is_number { newest } else { "VERSION" };
    CliError::new(format!(
        "the namespace was migrated by {tool}: its table {table} says that the newest applied is {}; db migrate would apply \
         the same again",
        printable(newest)
    ))
    .with_hint(format!(
        "`network-cli db migrate {} --baseline {version}` records the steps up to that number as applied, without running \
         them, and --baseline none records that nothing is",
        dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::HISTORY_TABLES;

    #[test]
    fn no_table_is_listed_twice_and_each_is_asked_for_itself() {
        for (position, record) in HISTORY_TABLES.iter().enumerate() {
            assert!(record.newest.contains(record.table), "{}", record.table);
            let is_same = |before: &super::HistoryTable| {
                before.table.eq_ignore_ascii_case(record.table)
                    && (before.columns.is_empty() || before.columns == record.columns)
            };
            assert!(!HISTORY_TABLES[..position].iter().any(is_same), "{}", record.table);
            assert!(record.columns.iter().all(|column| *column == column.to_ascii_lowercase()));
        }
    }
}
