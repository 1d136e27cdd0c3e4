//! The system's own schema, in numbered steps that are compiled into the program.
//!
//! Each step runs once, in a transaction of its own, and is recorded in `schema_migrations` with
//! its checksum. A list that has a gap or a number twice, or a step whose text changed after it was
//! applied, stops the start.

use debros_proto::hex;
use debros_proto::sql::split_migration;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use sha2::{Digest, Sha256};

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The file's name, `NNN_name.sql`.
    pub file: &'static str,
    /// The file's text.
    pub sql: &'static str,
}

/// The steps, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { file: "001_init.sql", sql: include_str!("../migrations/001_init.sql") },
    Migration { file: "002_auth.sql", sql: include_str!("../migrations/002_auth.sql") },
    Migration { file: "003_namespaces.sql", sql: include_str!("../migrations/003_namespaces.sql") },
    Migration { file: "004_usage.sql", sql: include_str!("../migrations/004_usage.sql") },
    Migration { file: "005_cluster.sql", sql: include_str!("../migrations/005_cluster.sql") },
];

/// Tables that say who may act. When a backup of the same network is put back, they stay as they
/// are.
pub(crate) const KEPT_BY_RESTORE: &[&str] = &[
    "namespaces",
    "grants",
    "api_keys",
    "sessions",
    "refresh_tokens",
    "signing_keys",
    "used_nonces",
    "secrets",
    "audit_events",
    "nodes",
    "join_tokens",
];

/// Why the schema cannot be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The file's name is not `NNN_name.sql`.
    #[error("migration {file}: the name must be NNN_name.sql, with NNN from 001")]
    Name {
        /// The file.
        file: String,
    },
    /// A number is missing, comes twice or out of order.
    #[error(
        "migration {file}: its number must be {expected:03}; numbers run from 001 without a gap, each once"
    )]
    Order {
        /// The file.
        file: String,
        /// The number that belongs in its place.
        expected: u32,
    },
    /// The file is not the one that was applied.
    #[error(
        "migration {file}: the database was made with another text of it; start the program version that matches the \
         database, or restore a backup made by this version"
    )]
    Changed {
        /// The file.
        file: String,
    },
    /// The database was made by a newer program.
    #[error(
        "migration {version:03} ({name}) is in the database but not in this program: start a newer version"
    )]
    Newer {
        /// The step's number in the database.
        version: u32,
        /// The step's name in the database.
        name: String,
    },
    /// A statement failed.
    #[error("migration {file}, line {line}: {message}")]
    Failed {
        /// The file.
        file: String,
        /// The line on which the statement starts, 0 when it is not known.
        line: usize,
        /// What the database said.
        message: String,
    },
}

impl Migration {
    /// The number and the name of the file.
    fn parse_name(&self) -> Result<(u32, &'static str), MigrationError> {
        let wrong = || MigrationError::Name { file: self.file.to_owned() };
        let stem = self.file.strip_suffix(".sql").ok_or_else(wrong)?;
        let (number, name) = stem.split_once('_').ok_or_else(wrong)?;
        let well_formed = number.len() == 3
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && !name.is_empty();
        if !well_formed {
            return Err(wrong());
        }
        Ok((number.parse().map_err(|_| wrong())?, name))
    }

    fn checksum(&self) -> String {
        hex::encode(&Sha256::digest(self.sql.as_bytes()))
    }

    fn failed(&self, line: usize, error: impl ToString) -> MigrationError {
        MigrationError::Failed { file: self.file.to_owned(), line, message: error.to_string() }
    }
}

/// Checks that the numbers run from 1 without a gap, each once and in order.
///
/// # Errors
/// [`MigrationError::Name`] and [`MigrationError::Order`], naming the file.
pub fn check_order(migrations: &[Migration]) -> Result<(), MigrationError> {
    for (migration, expected) in migrations.iter().zip(1..) {
        if migration.parse_name()?.0 != expected {
            return Err(MigrationError::Order { file: migration.file.to_owned(), expected });
        }
    }
    Ok(())
}

/// Applies the steps that the database does not have yet. `now_ms` is written down as the time of
/// it.
///
/// # Errors
/// [`MigrationError`]; the steps before the failing one stay applied, the failing one left nothing.
pub fn apply_migrations(
    db: &mut Connection,
    migrations: &[Migration],
    now_ms: i64,
) -> Result<(), MigrationError> {
    check_order(migrations)?;
    let outside = |error: rusqlite::Error| MigrationError::Failed {
        file: "schema_migrations".to_owned(),
        line: 0,
        message: error.to_string(),
    };
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
            version INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL
        )",
    )
    .map_err(outside)?;
    let newest: Option<(u32, String)> = db
        .query_row(
            "SELECT version, name FROM schema_migrations ORDER BY version DESC LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
        .map_err(outside)?;
    if let Some((version, name)) = newest
        && version as usize > migrations.len()
    {
        return Err(MigrationError::Newer { version, name });
    }
    migrations.iter().try_for_each(|migration| apply_migration(db, migration, now_ms))
}

/// Looks whether the step is there after the write lock is taken, so that two programs never apply
/// it twice.
fn apply_migration(
    db: &mut Connection,
    migration: &Migration,
    now_ms: i64,
) -> Result<(), MigrationError> {
    let (version, name) = migration.parse_name()?;
    let plain = |error: rusqlite::Error| migration.failed(0, error);
    let transaction =
        db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(plain)?;
    let known: Option<String> = transaction
        .query_row("SELECT checksum FROM schema_migrations WHERE version = ?1", [version], |row| {
            row.get(0)
        })
        .optional()
        .map_err(plain)?;
    match known {
        Some(checksum) if checksum == migration.checksum() => return Ok(()),
        Some(_) => return Err(MigrationError::Changed { file: migration.file.to_owned() }),
        None => {}
    }
    for piece in split_migration(migration.sql).map_err(|error| migration.failed(0, error))? {
        transaction
            .execute_batch(piece.text)
            .map_err(|error| migration.failed(piece.line, error))?;
    }
    transaction
        .execute(
            "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)",
            (version, name, migration.checksum(), now_ms),
        )
        .map_err(plain)?;
    transaction.commit().map_err(plain)
}

#[cfg(test)]
mod tests {
    use super::{MIGRATIONS, Migration, MigrationError, apply_migrations, check_order};
    use rusqlite::Connection;

    fn step(file: &'static str, sql: &'static str) -> Migration {
        Migration { file, sql }
    }

    fn count(db: &Connection) -> i64 {
        db.query_row("SELECT count(*) FROM schema_migrations", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_list() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".sql"))
            .collect();
        files.sort();
        assert_eq!(files, MIGRATIONS.iter().map(|migration| migration.file).collect::<Vec<_>>());
        check_order(MIGRATIONS).unwrap();
    }

    #[test]
    fn a_gap_a_duplicate_and_a_bad_name_are_named() {
        let cases: [(&[Migration], &str); 5] = [
            (&[step("002_a.sql", "")], "002_a.sql"),
            (&[step("001_a.sql", ""), step("003_c.sql", "")], "003_c.sql"),
            (&[step("001_a.sql", ""), step("001_b.sql", "")], "001_b.sql"),
            (&[step("001_b.sql", ""), step("1_a.sql", "")], "1_a.sql"),
            (&[step("001.sql", "")], "001.sql"),
        ];
        for (list, file) in cases {
            let error = check_order(list).unwrap_err();
            assert!(error.to_string().contains(file), "{error}");
        }
    }

    #[test]
    fn steps_run_once_and_a_failed_step_leaves_nothing() {
        let mut db = Connection::open_in_memory().unwrap();
        let good =
            step("001_a.sql", "BEGIN; CREATE TABLE a(x); INSERT INTO a VALUES (';'); COMMIT;");
        apply_migrations(&mut db, &[good], 1).unwrap();
        apply_migrations(&mut db, &[good], 2).unwrap();
        assert_eq!(count(&db), 1);
        let bad = step("002_b.sql", "CREATE TABLE b(x);\n\nINSERT INTO nowhere VALUES (1);");
        let error = apply_migrations(&mut db, &[good, bad], 3).unwrap_err();
        assert!(error.to_string().contains("002_b.sql, line 3"), "{error}");
        assert!(db.prepare("SELECT * FROM b").is_err(), "the failed step left its table");
        assert_eq!(count(&db), 1);
    }

    #[test]
    fn a_changed_step_and_a_newer_database_are_refused() {
        let mut db = Connection::open_in_memory().unwrap();
        apply_migrations(
            &mut db,
            &[step("001_a.sql", "SELECT 1"), step("002_b.sql", "SELECT 2")],
            1,
        )
        .unwrap();
        let error = apply_migrations(
            &mut db,
            &[step("001_a.sql", "SELECT 1"), step("002_b.sql", "SELECT 3")],
            1,
        )
        .unwrap_err();
        assert!(
            matches!(&error, MigrationError::Changed { file } if file == "002_b.sql"),
            "{error}"
        );
        let error = apply_migrations(&mut db, &[step("001_a.sql", "SELECT 1")], 1).unwrap_err();
        assert!(matches!(&error, MigrationError::Newer { version: 2, .. }), "{error}");
    }

    #[test]
    fn two_programs_at_once_apply_each_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut db = Connection::open(&path).unwrap();
                    db.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
                    barrier.wait();
                    apply_migrations(&mut db, MIGRATIONS, 1).unwrap();
                });
            }
        });
        assert_eq!(count(&Connection::open(&path).unwrap()), MIGRATIONS.len() as i64);
    }
}
