//! What the namespace knows of migrations: the record of `db migrate`, or that of another tool.

use super::Applied;
use crate::fail::Failure;
use crate::network_cli::output::printable;
use debros_client::rpc::Row;
use debros_client::{Client, Error};
use std::path::Path;

/// The table that `db migrate` keeps.
pub(super) const TABLE: &str = "schema_migrations";
const COLUMNS: [&str; 4] = ["version", "name", "checksum", "applied_at"];
const READ: &str = "SELECT version, name, checksum FROM schema_migrations ORDER BY version";

/// The record of another tool.
struct Record {
    table: &'static str,
    /// Its columns, lower case, where the name says too little; empty: any.
    columns: &'static [&'static str],
    tool: &'static str,
    /// The newest that is applied: a step's number, a name, or NULL for none.
    newest: &'static str,
}

const fn record(table: &'static str, tool: &'static str, newest: &'static str) -> Record {
    Record { table, columns: &[], tool, newest }
}

/// A table that others may have too: its columns say whose it is.
const fn shaped(
    table: &'static str,
    columns: &'static [&'static str],
    tool: &'static str,
    newest: &'static str,
) -> Record {
    Record { table, columns, tool, newest }
}

/// By the table's name, and its columns where several tools have that name.
const RECORDS: &[Record] = &[
    record(
        "goose_db_version",
        "goose",
        "SELECT max(version_id) FROM goose_db_version AS entry WHERE is_applied AND version_id > 0 AND id = (SELECT max(id) \
         FROM goose_db_version WHERE version_id = entry.version_id)",
    ),
    record(
        "flyway_schema_history",
        "Flyway",
        "SELECT max(CAST(version AS INTEGER)) FROM flyway_schema_history WHERE success AND version IS NOT NULL",
    ),
    record("refinery_schema_history", "refinery", "SELECT max(version) FROM refinery_schema_history"),
    record("_sqlx_migrations", "sqlx", "SELECT max(version) FROM _sqlx_migrations WHERE success"),
    record("__diesel_schema_migrations", "Diesel", "SELECT max(version) FROM __diesel_schema_migrations"),
    record(
        "_prisma_migrations",
        "Prisma",
        "SELECT max(CAST(migration_name AS INTEGER)) FROM _prisma_migrations WHERE finished_at IS NOT NULL AND \
         rolled_back_at IS NULL",
    ),
    record("d1_migrations", "wrangler (D1)", "SELECT max(CAST(name AS INTEGER)) FROM d1_migrations"),
    record("gorp_migrations", "sql-migrate", "SELECT max(CAST(id AS INTEGER)) FROM gorp_migrations"),
    record("micrate_db_version", "micrate", "SELECT max(version_id) FROM micrate_db_version WHERE version_id > 0"),
    record(
        "__drizzle_migrations",
        "drizzle-kit",
        "SELECT count(*) || iif(count(*) = 1, ' migration', ' migrations') FROM __drizzle_migrations HAVING count(*) > 0",
    ),
    record("alembic_version", "Alembic", "SELECT max(version_num) FROM alembic_version"),
    record("knex_migrations", "knex", "SELECT max(name) FROM knex_migrations"),
    record("SequelizeMeta", "Sequelize", "SELECT max(name) FROM SequelizeMeta"),
    record("pgmigrations", "node-pg-migrate", "SELECT max(name) FROM pgmigrations"),
    record("kysely_migration", "Kysely", "SELECT max(name) FROM kysely_migration"),
    record("mikro_orm_migrations", "MikroORM", "SELECT max(name) FROM mikro_orm_migrations"),
    record(
        "django_migrations",
        "Django",
        "SELECT count(*) || iif(count(*) = 1, ' migration', ' migrations') FROM django_migrations HAVING count(*) > 0",
    ),
    record("__EFMigrationsHistory", "Entity Framework", "SELECT max(MigrationId) FROM __EFMigrationsHistory"),
    record(
        "DATABASECHANGELOG",
        "Liquibase",
        "SELECT count(*) || iif(count(*) = 1, ' changeset', ' changesets') FROM DATABASECHANGELOG HAVING count(*) > 0",
    ),
    record("atlas_schema_revisions", "Atlas", "SELECT max(CAST(version AS INTEGER)) FROM atlas_schema_revisions"),
    record("seaql_migrations", "SeaORM", "SELECT max(version) FROM seaql_migrations"),
    record("_yoyo_migration", "yoyo", "SELECT max(migration_id) FROM _yoyo_migration"),
    record("phinxlog", "Phinx", "SELECT max(version) FROM phinxlog"),
    record("doctrine_migration_versions", "Doctrine", "SELECT max(version) FROM doctrine_migration_versions"),
    shaped("migrations", &["id", "migration", "batch"], "Laravel", "SELECT max(migration) FROM migrations"),
    shaped("migrations", &["id", "timestamp", "name"], "TypeORM", "SELECT max(timestamp) FROM migrations"),
    shaped("migrations", &["id", "name", "up", "down"], "node-sqlite", "SELECT max(id) FROM migrations"),
    shaped("migrations", &["migration"], "rambler", "SELECT max(CAST(migration AS INTEGER)) FROM migrations"),
    // Its number 0 makes the table itself.
    shaped(
        "migrations",
        &["id", "name", "hash", "executed_at"],
        "postgres-migrations",
        "SELECT max(id) FROM migrations WHERE id > 0",
    ),
    shaped("schema_version", &["version"], "tern", "SELECT max(version) FROM schema_version WHERE version > 0"),
    shaped(
        "schemaversion",
        &["version", "name", "md5", "run_at"],
        "postgrator",
        "SELECT max(CAST(version AS INTEGER)) FROM schemaversion WHERE version > 0",
    ),
    shaped("schema_info", &["version"], "Sequel", "SELECT max(version) FROM schema_info WHERE version > 0"),
    shaped(
        "CHANGELOG",
        &["id", "applied_at", "description"],
        "MyBatis Migrations",
        "SELECT max(CAST(ID AS INTEGER)) FROM CHANGELOG",
    ),
    // The names that we say to give such a table when its own is in our way.
    record("rails_schema_migrations", "Rails", "SELECT max(CAST(version AS INTEGER)) FROM rails_schema_migrations"),
    record(
        "dbmate_schema_migrations",
        "dbmate or Rails",
        "SELECT max(CAST(version AS INTEGER)) FROM dbmate_schema_migrations",
    ),
    record(
        "golang_migrate_schema_migrations",
        "golang-migrate",
        "SELECT iif(max(dirty), max(version) || ', which it did not finish (dirty)', max(version)) FROM \
         golang_migrate_schema_migrations",
    ),
    record("ecto_schema_migrations", "Ecto", "SELECT max(version) FROM ecto_schema_migrations"),
    record("sequel_schema_migrations", "Sequel", "SELECT max(filename) FROM sequel_schema_migrations"),
    record(
        "other_schema_migrations",
        "another tool",
        "SELECT count(*) || iif(count(*) = 1, ' migration', ' migrations') FROM other_schema_migrations HAVING count(*) > 0",
    ),
];

/// What stands in the namespace.
pub(super) enum Known {
    /// Nothing: no tool has recorded anything.
    Nothing,
    /// The table of `db migrate`, with the steps in order.
    Own(Vec<Applied>),
    /// Another tool has applied steps: its name, its table, the newest step.
    Other { tool: &'static str, table: &'static str, newest: String },
}

/// Reads the record that is there.
///
/// # Errors
/// `schema_migrations` is another tool's table; the node's errors.
pub(super) async fn read(client: &Client, dir: &Path) -> Result<Known, Failure> {
    let tables = tables(client).await?;
    let has = |name: &str| tables.iter().any(|table| table.eq_ignore_ascii_case(name));
    if has(TABLE) {
        let columns = texts(client, "SELECT name FROM pragma_table_info('schema_migrations')").await?;
        if COLUMNS.iter().all(|name| columns.iter().any(|column| column.eq_ignore_ascii_case(name))) {
            return Ok(Known::Own(own(client).await?));
        }
        return Err(foreign_table(client, &columns, has("ar_internal_metadata"), dir).await?);
    }
    for Record { table, columns, tool, newest } in RECORDS.iter().filter(|record| has(record.table)) {
        if !columns.is_empty() {
            let found = texts(client, &format!("SELECT name FROM pragma_table_info('{table}')")).await?;
            let is_so = found.len() == columns.len()
                && columns.iter().all(|column| found.iter().any(|found| found.eq_ignore_ascii_case(column)));
            if !is_so {
                continue;
            }
        }
        let newest = match texts(client, newest).await {
            Ok(newest) => newest.into_iter().next(),
            // A table of that name in another shape: somebody's own.
            Err(error) if error.code == debros_client::Code::Sql => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(newest) = newest {
            return Ok(Known::Other { tool, table, newest });
        }
    }
    Ok(Known::Nothing)
}

async fn own(client: &Client) -> Result<Vec<Applied>, Failure> {
    let result = client.database().query(READ, []).await?;
    let applied = |row: &Row| {
        let version = row.values.first().and_then(|value| value.as_integer()).unwrap_or_default();
        Applied { version, name: text(row, 1).unwrap_or_default(), checksum: text(row, 2).unwrap_or_default() }
    };
    Ok(result.rows.iter().map(applied).collect())
}

async fn tables(client: &Client) -> Result<Vec<String>, Error> {
    texts(client, "SELECT name FROM sqlite_master WHERE type = 'table'").await
}

/// The first column as texts, without NULLs.
async fn texts(client: &Client, sql: &str) -> Result<Vec<String>, Error> {
    let result = client.database().query(sql, []).await?;
    Ok(result.rows.iter().filter_map(|row| text(row, 0)).collect())
}

fn text(row: &Row, index: usize) -> Option<String> {
    let value = row.values.get(index)?;
    value.as_text().map(str::to_owned).or_else(|| value.as_integer().map(|integer| integer.to_string()))
}

/// `schema_migrations` with other columns than those of `db migrate`.
async fn foreign_table(
    client: &Client,
    columns: &[String],
    has_rails_metadata: bool,
    dir: &Path,
) -> Result<Failure, Failure> {
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
        && !texts(client, "SELECT version FROM schema_migrations WHERE dirty").await?.is_empty();
    let newest = if lower.contains(&"version") {
        texts(client, "SELECT max(CAST(version AS INTEGER)) FROM schema_migrations").await?.into_iter().next()
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
    let failure = Failure::new(format!(
        "the namespace's table schema_migrations is that {tool} (its columns: {}){says}; db migrate keeps its own record in a \
         table of that name",
        printable(&columns.join(", "))
    ));
    // Whether the last was applied is not known.
    let version = newest.filter(|_| !is_dirty).unwrap_or_else(|| "VERSION".to_owned());
    Ok(failure.hint(format!(
        "go on with that tool; or rename its table, `network-cli query \"ALTER TABLE schema_migrations RENAME TO {kept_as}\"`, \
         and record what it has applied, `network-cli db migrate {} --baseline {version}`",
        dir.display()
    )))
}

/// Another tool has applied steps, and they would be applied again.
pub(super) fn migrated_by(tool: &str, table: &str, newest: &str, dir: &Path) -> Failure {
    let is_number = newest.bytes().all(|byte| byte.is_ascii_digit());
    let version = if is_number { newest } else { "VERSION" };
    Failure::new(format!(
        "the namespace was migrated by {tool}: its table {table} says that the newest applied is {}; db migrate would apply \
         the same again",
        printable(newest)
    ))
    .hint(format!(
        "`network-cli db migrate {} --baseline {version}` records the steps up to that number as applied, without running \
         them, and --baseline none records that nothing is",
        dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::RECORDS;

    #[test]
    fn no_table_is_listed_twice_and_each_is_asked_for_itself() {
        for (position, record) in RECORDS.iter().enumerate() {
            assert!(record.newest.contains(record.table), "{}", record.table);
            let is_same = |before: &super::Record| {
                before.table.eq_ignore_ascii_case(record.table)
                    && (before.columns.is_empty() || before.columns == record.columns)
            };
            assert!(!RECORDS[..position].iter().any(is_same), "{}", record.table);
            assert!(record.columns.iter().all(|column| *column == column.to_ascii_lowercase()));
        }
    }
}
