//! Opening the engine's folder and the system's database.

use super::{DatabaseManager, check_after_unclean_stop, lock};
use crate::ReplicatedLog;
use crate::embedded::closing_set::ClosingSet;
use crate::embedded::config::EmbeddedConfig;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::data_folder::{self, DataFolder};
use crate::embedded::database_handle::{DatabaseHandle, SharedResources};
use crate::embedded::disk_reserve::DiskReserve;
use crate::embedded::engine_open_error::EngineOpenError;
use crate::embedded::fair_queue::QueueBudget;
use crate::embedded::file_names;
use crate::embedded::file_record::{FileRecord, is_nonempty_file};
use crate::embedded::metrics::EngineMetrics;
use crate::embedded::open_failure::OpenFailure;
use crate::embedded::process_limits;
use crate::embedded::size_accounting::SizeAccounting;
use crate::migrations::{self, MIGRATIONS};
use debros_proto::{Namespace, now_ms};
use debros_sql::RewriteCache;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};

/// KiB of the system's database, where all key-value pairs are, in the writer's memory.
const SYSTEM_CACHE: u32 = 16_384;

/// Namespaces whose files are missing that the log names at start.
const MAX_LOGGED: usize = 100;

/// Bytes of rewritten statements that are remembered, of all namespaces together.
const REWRITTEN_BYTES: usize = 32 << 20;

impl DatabaseManager {
    /// Opens the folder and the system's database, and brings that up to date.
    pub(in crate::embedded) fn open(
        config: EmbeddedConfig,
        log: Option<Arc<dyn ReplicatedLog>>,
    ) -> Result<DatabaseManager, EngineOpenError> {
        let folder = DataFolder::open(&config.data_dir)?;
        if config.backup_dir.exists() {
            data_folder::create_private_folder(&config.backup_dir)
                .map_err(|error| EngineOpenError::io(&config.backup_dir, error))?;
        }
        let process = process_limits::configure_process(
            &folder.temp_path(),
            config.max_memory,
            config.max_temp_size,
        );
        process.map_err(|error| {
            EngineOpenError::database(folder.temp_path(), &error, &config.backup_dir)
        })?;
        let path = folder.system_path();
        let of_record = |error| EngineOpenError::file_record(&config.file_record, error);
        let recorded = FileRecord::read(&config.file_record, folder.path()).map_err(of_record)?;
        let is_restoring = folder
            .interrupted_restore()
            .map_err(|error| EngineOpenError::io(folder.path(), error))?
            .is_some();
        let has_system =
            is_nonempty_file(&path).map_err(|error| EngineOpenError::io(&path, error))?;
        if let Some(recorded) = &recorded
            && !has_system
            && !is_restoring
        {
            let here =
                std::fs::canonicalize(folder.path()).unwrap_or_else(|_| folder.path().to_owned());
            let elsewhere = recorded.elsewhere.as_deref();
            return Err(EngineOpenError::Lost {
                restore: path.with_file_name(file_names::RESTORE),
                path,
                backup_dir: config.backup_dir,
                record: config.file_record,
                elsewhere: elsewhere.map_or(String::new(), |other| {
                    format!(
                        " in the folder {}, in place of which {} is there now",
                        other.display(),
                        here.display()
                    )
                }),
            });
        }
        let (mut recorded, elsewhere) =
            recorded.map_or_else(Default::default, |of| (of.names, of.elsewhere));
        if let Some(other) = elsewhere {
            tracing::warn!(
                record = %config.file_record.display(), recorded = %other.display(), folder = %folder.path().display(),
                "the record of the databases names another folder; from now on it is of this one, where what it names must be"
            );
        }
        let was_clean = folder.take_clean_marker()?;
        let files =
            folder.list_namespaces().map_err(|error| EngineOpenError::io(folder.path(), error))?;
        let check_system = was_clean.is_none();
        let unchecked = was_clean.unwrap_or_else(|| files.clone());
        let reserve = Arc::new(DiskReserve::open(folder.path()));
        let sizes = Arc::new(SizeAccounting::new(
            config.max_size,
            config.max_namespace_size,
            config.max_owner_size,
        ));
        for namespace in &files {
            let path = folder.namespace_path(namespace);
            sizes.set_file_size(
                Some(namespace),
                std::fs::metadata(&path).map_or(0, |file| file.len()),
            );
        }
        let rewriter = Arc::new(RewriteCache::new(REWRITTEN_BYTES));
        let waiting = Arc::new(QueueBudget::new(config.waiting_bytes));
        let shared = SharedResources {
            config,
            sizes,
            reserve,
            metrics: Arc::new(EngineMetrics::new()),
            waiting,
            rewriter,
            log,
        };
        // Those whose deletion was interrupted have no owner: they are removed below.
        let going = folder
            .interrupted_deletions()
            .map_err(|error| EngineOpenError::io(folder.path(), error))?;
        let staying = &files - &going;
        let system = DatabaseHandle::open(&path, SYSTEM_CACHE, &shared, |conn| {
            if check_system {
                check_after_unclean_stop(conn)?;
            }
            // What is deleted here is overwritten: what a namespace had must not be in the pages
            // that others get.
            conn.db.execute_batch("PRAGMA secure_delete = ON")?;
            migrations::apply_migrations(&mut conn.db, MIGRATIONS, now_ms())
                .map_err(OpenFailure::Migration)?;
            if shared.log.is_none() {
                register_unowned_files(conn, &staying);
            }
            conn.start_ledger(&shared.sizes, !check_system)?;
            Ok(())
        })
        .map_err(|failure| failure.into_engine_error(&path, &shared.config.backup_dir))?;
        let lost = find_lost_files(&folder, &(&recorded - &going));
        recorded.extend(files);
        let record = &shared.config.file_record;
        let record = FileRecord::create(record, folder.path(), recorded)
            .map_err(|error| EngineOpenError::io(record, error))?;
        let closing = Arc::<ClosingSet>::default();
        *lock(&closing.unchecked) = unchecked;
        Ok(DatabaseManager {
            shared,
            system,
            open_databases: Mutex::default(),
            uses: AtomicU64::new(0),
            closing,
            new_file: OnceLock::new(),
            closed: AtomicBool::new(false),
            namespace_locks: Arc::default(),
            maintenance_lock: Mutex::default(),
            maintenance_name: Mutex::default(),
            folder,
            file_record: record,
            export_limiter: Arc::default(),
            lost: Mutex::new(lost),
        })
    }
}

/// Enters the namespaces that have a database and no row: what is there already belongs to the
/// operator, and must not become that of a stranger that signs in for it first.
fn register_unowned_files(conn: &SqliteConnection, files: &BTreeSet<Namespace>) {
    let entered = conn.db.unchecked_transaction().and_then(|transaction| {
        let mut own = conn.prepare_internal(
            "/*debros*/ INSERT INTO namespaces (name, created_at, owner) VALUES (?1, ?2, 'operator')
            ON CONFLICT (name) DO NOTHING",
        )?;
        files
            .iter()
            .try_for_each(|namespace| own.execute((namespace.as_str(), now_ms())).map(|_| ()))?;
        drop(own);
        transaction.commit()
    });
    // Where no row can be written, no stranger can be entered either, and reads go on.
    if let Err(error) = entered {
        tracing::warn!(%error, "namespaces without an owner could not be given to the operator");
    }
}

/// Those of the recorded namespaces whose files are missing or empty, each in the log.
fn find_lost_files(folder: &DataFolder, recorded: &BTreeSet<Namespace>) -> BTreeSet<Namespace> {
    let is_lost = |namespace: &&Namespace| {
        !is_nonempty_file(&folder.namespace_path(namespace)).unwrap_or(true)
    };
    let lost: BTreeSet<Namespace> = recorded.iter().filter(is_lost).cloned().collect();
    for namespace in lost.iter().take(MAX_LOGGED) {
        let path = folder.namespace_path(namespace);
        tracing::error!(path = %path.display(), "a namespace's database file is missing or empty: the namespace is not served");
    }
    if lost.len() > MAX_LOGGED {
        tracing::error!(count = lost.len(), "so are other namespaces' database files");
    }
    lost
}
