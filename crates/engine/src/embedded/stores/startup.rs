//! Opening the engine's folder and the system's database.

use super::{Stores, check, lock};
use crate::embedded::config::{EmbeddedConfig, OpenError};
use crate::embedded::conn::Conn;
use crate::embedded::file_record::{FileRecord, holds_anything};
use crate::embedded::folder::{self, Folder};
use crate::embedded::leaving::Leaving;
use crate::embedded::ledger::Ledger;
use crate::embedded::metrics::Metrics;
use crate::embedded::process;
use crate::embedded::queue::Budget;
use crate::embedded::reserve::Reserve;
use crate::embedded::size::Sizes;
use crate::embedded::store::{Failure, Shared, Store};
use crate::migrations::{self, MIGRATIONS};
use debros_proto::{Namespace, now_ms};
use debros_sql::Rewriter;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};

/// KiB of the system's database, where all key-value pairs are, in the writer's memory.
const SYSTEM_CACHE: u32 = 16_384;

/// Namespaces whose files are missing that the log names at start.
const LOGGED: usize = 100;

/// Bytes of rewritten statements that are remembered, of all namespaces together.
const REWRITTEN_BYTES: usize = 32 << 20;

impl Stores {
    /// Opens the folder and the system's database, and brings that up to date.
    pub(in crate::embedded) fn open(config: EmbeddedConfig) -> Result<Stores, OpenError> {
        let folder = Folder::open(&config.data_dir)?;
        if config.backup_dir.exists() {
            folder::make_private(&config.backup_dir).map_err(|error| OpenError::io(&config.backup_dir, error))?;
        }
        let process = process::set_up(&folder.tmp(), config.max_memory, config.max_temp_size);
        process.map_err(|error| OpenError::database(folder.tmp(), &error, &config.backup_dir))?;
        let path = folder.system();
        let of_record = |error| OpenError::file_record(&config.file_record, error);
        let recorded = FileRecord::read(&config.file_record, folder.path()).map_err(of_record)?;
        let is_restoring = folder.restoring().map_err(|error| OpenError::io(folder.path(), error))?.is_some();
        let has_system = holds_anything(&path).map_err(|error| OpenError::io(&path, error))?;
        if let Some(recorded) = &recorded
            && !has_system
            && !is_restoring
        {
            let here = std::fs::canonicalize(folder.path()).unwrap_or_else(|_| folder.path().to_owned());
            let elsewhere = recorded.elsewhere.as_deref();
            return Err(OpenError::Lost {
                restore: path.with_file_name(folder::RESTORE),
                path,
                backup_dir: config.backup_dir,
                record: config.file_record,
                elsewhere: elsewhere.map_or(String::new(), |other| {
                    format!(" in the folder {}, in place of which {} is there now", other.display(), here.display())
                }),
            });
        }
        let (mut recorded, elsewhere) = recorded.map_or_else(Default::default, |of| (of.names, of.elsewhere));
        if let Some(other) = elsewhere {
            tracing::warn!(
                record = %config.file_record.display(), recorded = %other.display(), folder = %folder.path().display(),
                "the record of the databases names another folder; from now on it is of this one, where what it names must be"
            );
        }
        let was_clean = folder.take_clean()?;
        let files = folder.namespaces().map_err(|error| OpenError::io(folder.path(), error))?;
        let check_system = was_clean.is_none();
        let unchecked = was_clean.unwrap_or_else(|| files.clone());
        let reserve = Arc::new(Reserve::open(folder.path()));
        let sizes = Arc::new(Sizes::new(config.max_size, config.max_namespace_size, config.max_owner_size));
        for namespace in &files {
            let path = folder.namespace(namespace);
            sizes.set(Some(namespace), std::fs::metadata(&path).map_or(0, |file| file.len()));
        }
        let rewriter = Arc::new(Rewriter::new(REWRITTEN_BYTES));
        let waiting = Arc::new(Budget::new(config.waiting_bytes));
        let shared = Shared { config, sizes, reserve, metrics: Arc::new(Metrics::new()), waiting, rewriter };
        // Those whose deletion was interrupted are nobody's: they go in a moment.
        let going = folder.deleting().map_err(|error| OpenError::io(folder.path(), error))?;
        let staying = &files - &going;
        let system = Store::open(&path, SYSTEM_CACHE, &shared, |conn| {
            if check_system {
                check(conn)?;
            }
            // What is deleted here is overwritten: what a namespace had must not be in the pages that others get.
            conn.db.execute_batch("PRAGMA secure_delete = ON")?;
            migrations::apply(&mut conn.db, MIGRATIONS, now_ms()).map_err(Failure::Migration)?;
            enter_files(conn, &staying);
            let ledger = Ledger::new(Arc::clone(&shared.sizes));
            ledger.load(conn, !check_system)?;
            conn.ledger = Some(ledger);
            Ok(())
        })
        .map_err(|failure| failure.of_system(&path, &shared.config.backup_dir))?;
        let lost = find_lost(&folder, &(&recorded - &going));
        recorded.extend(files);
        let record = &shared.config.file_record;
        let record =
            FileRecord::begin(record, folder.path(), recorded).map_err(|error| OpenError::io(record, error))?;
        let leaving = Arc::<Leaving>::default();
        *lock(&leaving.unchecked) = unchecked;
        Ok(Stores {
            shared,
            system,
            open: Mutex::default(),
            uses: AtomicU64::new(0),
            leaving,
            new_file: OnceLock::new(),
            closed: AtomicBool::new(false),
            doors: Arc::default(),
            copying: Mutex::default(),
            running: Mutex::default(),
            folder,
            record,
            exports: Arc::default(),
            lost: Mutex::new(lost),
        })
    }
}

/// Enters the namespaces that have a database and no row: what is there already belongs to the operator, and must not
/// become a stranger's who signs in for it first.
fn enter_files(conn: &Conn, files: &BTreeSet<Namespace>) {
    let entered = conn.db.unchecked_transaction().and_then(|transaction| {
        let mut own = conn.own(
            "/*debros*/ INSERT INTO namespaces (name, created_at, owner) VALUES (?1, ?2, 'operator')
            ON CONFLICT (name) DO NOTHING",
        )?;
        files.iter().try_for_each(|namespace| own.execute((namespace.as_str(), now_ms())).map(|_| ()))?;
        drop(own);
        transaction.commit()
    });
    // Where no row can be written, no stranger can be entered either, and reads go on.
    if let Err(error) = entered {
        tracing::warn!(%error, "namespaces without an owner could not be given to the operator");
    }
}

/// Those of the recorded namespaces whose files are missing or empty, each in the log.
fn find_lost(folder: &Folder, recorded: &BTreeSet<Namespace>) -> BTreeSet<Namespace> {
    let is_lost = |namespace: &&Namespace| !holds_anything(&folder.namespace(namespace)).unwrap_or(true);
    let lost: BTreeSet<Namespace> = recorded.iter().filter(is_lost).cloned().collect();
    for namespace in lost.iter().take(LOGGED) {
        let path = folder.namespace(namespace);
        tracing::error!(path = %path.display(), "a namespace's database file is missing or empty: the namespace is not served");
    }
    if lost.len() > LOGGED {
        tracing::error!(count = lost.len(), "so are other namespaces' database files");
    }
    lost
}
