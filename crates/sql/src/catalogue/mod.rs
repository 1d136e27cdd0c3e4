//! The catalogue: a namespace's schema in an SQLite of its own, in memory, in the user's own names
//! and words.
//!
//! It answers questions about the schema alone (`sqlite_schema`, the schema PRAGMAs, EXPLAIN),
//! exactly as SQLite would and with no prefix to remove. Every new statement is compiled here
//! first: errors come in the user's words, and SQLite itself reports what the statement touches.

mod describe;
mod entries;
mod query;
pub(crate) mod recorder;
pub(crate) mod schema_cache;
pub(crate) mod triggers;
pub(crate) mod volatile_default;

pub use entries::{CatalogueChanges, CatalogueEntry, EntryKind};
pub use query::CatalogueRows;

use crate::error_mapping;
use crate::names::{NamespacePrefix, quote};
use crate::parsed_source::with_statement;
use debros_proto::{Error, Namespace, Result, lock};
use recorder::{AccessRecord, AccessRecorder};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use schema_cache::{ObjectKind, SchemaCache};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use syntaqlite_syntax::nodes::Stmt;

/// The time limit for compiling one statement; views upon views can take minutes.
const COMPILE_TIME: Duration = Duration::from_secs(5);

/// Pages of 1 KiB that a catalogue may have: 64 MiB.
const MAX_PAGES: i64 = 64 << 10;

/// Bytes of a value in a catalogue.
const MAX_LENGTH: i32 = 4 << 20;

/// Bytes of a LIKE or GLOB pattern: matching takes time with its square.
const MAX_PATTERN: i32 = 1000;

/// The function that [`on_open`] received.
static ON_OPEN: OnceLock<fn(&Connection) -> rusqlite::Result<()>> = OnceLock::new();

/// Registers a function that runs on every catalogue's connection after it opens: the engine
/// replaces functions there that take long on hostile arguments, as it does on its own connections.
/// To be called once, before the first catalogue is created; later calls do nothing.
pub fn on_open(work: fn(&Connection) -> rusqlite::Result<()>) {
    let _ = ON_OPEN.set(work);
}

/// Never the same number twice in a process, so that cached results for one state of a schema are
/// never used for another.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// One namespace's schema. Many threads may share it; a change is made on a
/// [`fork`](Catalogue::fork).
#[derive(Debug)]
pub struct Catalogue {
    namespace: Namespace,
    pub(crate) prefix: NamespacePrefix,
    generation: u64,
    pub(crate) inner: Mutex<CatalogueDb>,
}

/// The connection and its cached schema.
#[derive(Debug)]
pub(crate) struct CatalogueDb {
    pub(crate) db: Connection,
    recorder: Arc<AccessRecorder>,
    pub(crate) schema: SchemaCache,
}

/// SQLite's description of a compiled statement.
#[derive(Debug)]
pub(crate) struct CompiledStatement {
    pub(crate) record: AccessRecord,
    pub(crate) columns: Vec<String>,
    pub(crate) parameters: usize,
    pub(crate) reads_only: bool,
}

impl Catalogue {
    /// The catalogue of a namespace without objects.
    ///
    /// # Errors
    /// `internal` when SQLite cannot make a database in memory.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        Self::from_db(namespace, CatalogueDb::open()?)
    }

    fn from_db(namespace: &Namespace, inner: CatalogueDb) -> Result<Self> {
        Ok(Self {
            namespace: namespace.clone(),
            prefix: NamespacePrefix::new(namespace),
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            inner: Mutex::new(inner),
        })
    }

    /// The namespace of the schema.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A number that no other state of any namespace's schema has, in this process.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A copy, to try a change on. Publish it in place of this one when the change is committed;
    /// drop it otherwise.
    ///
    /// # Errors
    /// `internal` when SQLite cannot copy.
    pub fn fork(&self) -> Result<Catalogue> {
        let mut copy = CatalogueDb::open()?;
        let inner = self.lock();
        rusqlite::backup::Backup::new(&inner.db, &mut copy.db)
            .and_then(|backup| backup.step(-1))
            .map_err(|_| broken_catalogue_error())?;
        drop(inner);
        Self::from_db(&self.namespace, copy)
    }

    /// Applies a change of the schema, in the user's own text. [`rewrite`](crate::rewrite::rewrite)
    /// must have accepted it before.
    ///
    /// # Errors
    /// SQLite's error, in the user's words; then the schema is as it was.
    pub fn apply(&mut self, ddl: &str) -> Result<()> {
        self.generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        inner.schema = SchemaCache::default();
        let deadline = Instant::now() + COMPILE_TIME;
        inner.recorder.begin_recording(deadline);
        let armed = inner.db.progress_handler(1000, Some(move || Instant::now() > deadline));
        // The catalogue has no rows that could violate a reference: that shows where the rows are.
        let foreign_keys_off = inner.disable_foreign_keys()?;
        let result = armed.and_then(|()| inner.db.prepare(ddl)).and_then(|mut statement| {
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        });
        let record = inner.recorder.end_recording();
        let applied = result
            .map_err(|error| error_mapping::map_compile_error(error, record, ddl))
            .and_then(|()| inner.delete_rows(ddl));
        drop(foreign_keys_off);
        // Removing a handler cannot fail where installing it did not.
        let _ = inner.db.progress_handler(0, None::<fn() -> bool>);
        applied
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, CatalogueDb> {
        lock(&self.inner)
    }
}

impl CatalogueDb {
    pub(crate) fn open() -> Result<Self> {
        Self::try_open().map_err(|_| broken_catalogue_error())
    }

    fn try_open() -> rusqlite::Result<Self> {
        let db = Connection::open_in_memory()?;
        // A schema is small: small pages keep thousands of catalogues cheap.
        db.pragma_update(None, "page_size", 1024)?;
        db.pragma_update(None, "max_page_count", MAX_PAGES)?;
        // Its longest text is a statement, its longest question one about a statement.
        db.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LENGTH)?;
        db.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN)?;
        // Nobody writes into the tables behind a full-text table, or into the schema as text.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
        db.set_prepared_statement_cache_capacity(8);
        if let Some(work) = ON_OPEN.get() {
            work(&db)?;
        }
        let mut inner = Self { db, recorder: Arc::default(), schema: SchemaCache::default() };
        inner.install_authorizer()?;
        Ok(inner)
    }

    /// Until the returned guard is dropped, statements are compiled and run with foreign keys off.
    pub(crate) fn disable_foreign_keys(&self) -> Result<ForeignKeysOffGuard<'_>> {
        self.db
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)
            .map_err(|_| broken_catalogue_error())?;
        Ok(ForeignKeysOffGuard(self))
    }

    /// From now on every statement is authorized and recorded.
    fn install_authorizer(&mut self) -> rusqlite::Result<()> {
        let recorder = Arc::clone(&self.recorder);
        self.db.authorizer(Some(move |context: rusqlite::hooks::AuthContext<'_>| {
            recorder.authorize(&context)
        }))
    }

    /// `CREATE TABLE … AS SELECT` may create rows. The catalogue keeps none.
    fn delete_rows(&self, ddl: &str) -> Result<()> {
        let made = with_statement(ddl, |source, statement| match statement {
            Stmt::CreateTableStmt(create) if create.as_select().is_some() => {
                source.name_of(create.table_name()).map(Some)
            }
            _ => Ok(None),
        });
        // A text that the parser does not know is no CREATE TABLE. With IF NOT EXISTS the name may
        // be a view's.
        let Some(table) = made.unwrap_or_default() else {
            return Ok(());
        };
        match self.schema.find_object(&self.db, &table) {
            Some((ObjectKind::Table, _)) => self
                .db
                .execute_batch(&format!("DELETE FROM {}", quote('"', &table)))
                .map_err(|_| broken_catalogue_error()),
            _ => Ok(()),
        }
    }

    /// Whether SQLite has created `sqlite_sequence`.
    pub(crate) fn has_sequence(&self) -> bool {
        let look =
            self.db.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'");
        look.and_then(|mut look| look.exists([])).unwrap_or(false)
    }

    /// Compiles a user's statement, and returns SQLite's description of it.
    pub(crate) fn compile(&self, sql: &str) -> Result<CompiledStatement> {
        self.recorder.begin_recording(Instant::now() + COMPILE_TIME);
        let result = self.db.prepare(sql).map(|statement| {
            let columns = statement.column_names().map(str::to_owned).collect();
            (columns, statement.parameter_count(), statement.readonly())
        });
        let record = self.recorder.end_recording();
        match result {
            Ok((columns, parameters, reads_only)) => {
                Ok(CompiledStatement { record, columns, parameters, reads_only })
            }
            Err(error) => Err(error_mapping::map_compile_error(error, record, sql)),
        }
    }
}

/// See [`CatalogueDb::disable_foreign_keys`].
pub(crate) struct ForeignKeysOffGuard<'a>(&'a CatalogueDb);

impl Drop for ForeignKeysOffGuard<'_> {
    fn drop(&mut self) {
        // Fails for an option that SQLite does not know; it knows this one.
        let _ = self.0.db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true);
    }
}

fn broken_catalogue_error() -> Error {
    Error::internal("the namespace's catalogue could not be made")
}
