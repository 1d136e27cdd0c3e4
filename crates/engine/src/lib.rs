//! The database engine: SQL and key-value storage behind one interface, shaped for two back ends.
//!
//! [`Engine`] is what a node uses. [`embedded::EmbeddedEngine`] keeps everything in SQLite files of
//! this process; an rqlite cluster is the second back end. What the interface demands, it demands
//! because a replicated engine needs it too:
//!
//! - Statements are safe to replicate: the engine's own statements take every time and random value
//!   as an argument.
//! - A read names its [`Consistency`].
//! - A write comes back with one result per statement, and is durable when it comes back.
//! - Writes of many callers are grouped into few commits; a caller's failure is the caller's alone.
//! - A write may carry an [`IdempotencyKey`]: its record is committed together with the write, or
//!   not at all.
//!
//! `DESIGN.md` beside this crate says how and why. [`mod@conformance`] is the suite that each back
//! end passes.

pub mod conformance;
pub mod embedded;
pub mod migrations;
mod replication;

pub use replication::{AppendError, EntryKind, LogEntry, MAX_CHANGES, ReplicatedLog};

use async_trait::async_trait;
use bytes::Bytes;
use debros_proto::rpc::{Condition, Consistency, Entry, Statement, StatementResult, Table};
use debros_proto::{Key, Namespace, Result};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Which database a statement runs in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetDatabase {
    /// The node's own tables. Only the node's own statements run here, never a user's.
    System,
    /// The database of a namespace. A user's statements run here, and reach nothing else.
    Namespace(Namespace),
}

/// What holds for one call.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// How fresh a read must be. The embedded engine always reads the newest commit.
    pub consistency: Consistency,
    /// A statement still running then is interrupted; a write that has not begun by then is not
    /// begun.
    pub deadline: Instant,
    /// Makes a write happen once.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Whose call it is. Calls that wait take turns by caller.
    pub caller: CallerKey,
    /// The caller may only read: a statement that would write is refused with `forbidden`, and
    /// changes nothing.
    pub read_only: bool,
}

/// Distinguishes callers, so that none waits for all the calls of another. It says nothing else of
/// who calls; the default is the node itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CallerKey(pub u64);

impl CallerKey {
    /// Makes a caller's key from what only that caller has, such as its name. Every process makes
    /// another key of the same name.
    pub fn of(name: impl Hash) -> Self {
        // A secret of the process, so that no name can be found whose key is another's.
        static KEYS: OnceLock<RandomState> = OnceLock::new();
        Self(KEYS.get_or_init(RandomState::new).hash_one(name))
    }
}

/// Makes a write happen once: the first call's answer is kept with the write, in the same commit,
/// and given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The namespace whose key it is. A write in the database of a namespace takes a key of that
    /// namespace.
    pub namespace: Namespace,
    /// The caller's idempotency key: one in the namespace, whichever of the engine's calls it comes
    /// with.
    pub key: String,
    /// SHA-256 of the request that came with it: another request under the same key is
    /// `idempotency_mismatch`.
    pub request_hash: [u8; 32],
}

/// A write's answer, and whether it is the first call's answer again.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteOutcome<T> {
    /// The answer.
    pub value: T,
    /// true: the idempotency key was known, nothing was written now.
    pub replayed: bool,
}

/// A page of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// Keys in byte order.
    pub keys: Vec<String>,
    /// Whether more keys follow the last one.
    pub more: bool,
}

/// Which namespaces to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceFilter {
    /// Only those whose names start with this.
    pub prefix: String,
    /// Only those that come after this one.
    pub after: Option<Namespace>,
    /// At most so many.
    pub limit: usize,
}

/// What a namespace holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Its name.
    pub namespace: Namespace,
    /// When its first table, row or query came, or when the node wrote it down, whichever was
    /// earlier; milliseconds since the Unix epoch. `None`: it holds key-value pairs alone.
    pub created_at: Option<i64>,
    /// Bytes that its SQL database takes.
    pub sql_bytes: u64,
    /// Those of them in which nothing is kept any more: what is written later goes there first.
    pub free_bytes: u64,
    /// Tables and virtual tables.
    pub tables: u64,
    /// Rows of its tables; those of virtual tables are not counted.
    pub rows: u64,
    /// Whether all rows were counted. Otherwise there was no time for it, and there are at least so
    /// many.
    pub rows_are_exact: bool,
    /// Key-value pairs, with those that have expired and were not swept yet.
    pub kv_keys: u64,
    /// Bytes of their keys and values.
    pub kv_bytes: u64,
    /// Bytes that all of it counts for against `max_bytes`: the SQL database, the pairs and the
    /// idempotency records, with what stands around them.
    pub taken_bytes: u64,
    /// Bytes that all of it may take, less where its owner's other namespaces leave less; `None`: no
    /// limit of its own.
    pub max_bytes: Option<u64>,
    /// Why its SQL database cannot be looked into, as when it is damaged: its tables and rows are
    /// not known then.
    pub problem: Option<String>,
}

/// A copy of everything the engine keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    /// The folder's name, `YYYYMMDDTHHMMSSmmmZ`.
    pub name: String,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Bytes on disk.
    pub size: u64,
    /// SHA-256 of the manifest, hex.
    pub checksum: String,
    /// Namespaces whose SQL databases are not in it, because they were damaged or could not be
    /// read.
    pub missing: Vec<Namespace>,
}

/// What an operator has to know of where the data is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageReport {
    /// Bytes that the program can still write on the disk of the databases.
    pub disk_free: Option<u64>,
    /// The disk space that is kept for deletes.
    pub disk_reserve: DiskReserveState,
    /// Bytes that all databases together may take.
    pub max_size: u64,
    /// Bytes that temporary files may take.
    pub max_temp_size: u64,
    /// Namespaces whose SQL databases take no writes because damage was found, as far as that is
    /// known. In order of name.
    pub damaged_namespaces: Vec<Namespace>,
    /// Damage was found in the system's database.
    pub is_system_damaged: bool,
}

/// The disk space that is kept for deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskReserveState {
    /// The engine keeps none.
    #[default]
    Unknown,
    /// It is there.
    Kept,
    /// The disk was full: only deletes are written until there is room again.
    GivenUp,
    /// The disk had no room for it at the start.
    Missing,
}

/// How long [`close`](Engine::close) waits for statements.
pub const CLOSE_TIME: Duration = Duration::from_secs(10);

/// Told how far a long operation is: units done, and units in all.
pub type ProgressFn = Box<dyn Fn(u64, u64) + Send>;

/// A file made for an export; it is deleted when this is dropped.
#[derive(Debug)]
pub struct ExportFile {
    /// A complete SQLite database file.
    pub path: PathBuf,
    /// SHA-256 of the file, hex.
    pub checksum: String,
    /// Bytes.
    pub size: u64,
    /// Lets no other export of the namespace begin until the file is gone.
    pub(crate) permit: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl Drop for ExportFile {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the next start empties the folder.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// SQL and key-value storage. All methods may be called from many tasks at once.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Runs one statement, reading or writing. SQLite itself decides which it is, never the text's
    /// first word.
    ///
    /// # Errors
    /// `sql_error`, `constraint`, `statement_not_allowed`, the limit codes, `database_full`,
    /// `quota_exceeded`, `disk_full`, `read_only`, `deadline_exceeded`, `overloaded`,
    /// `unavailable`, `idempotency_mismatch`. None of them changed anything.
    async fn query(
        &self,
        database: &TargetDatabase,
        statement: Statement,
        options: CallOptions,
    ) -> Result<WriteOutcome<StatementResult>>;

    /// Runs statements in order, all or none, as one transaction that no other write gets between.
    /// With an idempotency key there may be none: then only the key's record is committed, for what
    /// happens outside of the database and is to happen once.
    ///
    /// # Errors
    /// As [`query`](Engine::query); the error names the statement. `invalid_argument` for no
    /// statement without an idempotency key.
    async fn transaction(
        &self,
        database: &TargetDatabase,
        statements: Vec<Statement>,
        options: CallOptions,
    ) -> Result<WriteOutcome<Vec<StatementResult>>>;

    /// The tables, views and virtual tables of a namespace, with columns and indexes, in order of
    /// name.
    ///
    /// # Errors
    /// As a read by [`query`](Engine::query).
    async fn schema(&self, namespace: &Namespace, options: CallOptions) -> Result<Vec<Table>>;

    /// Stores a value and returns its version, which differs from every earlier version of the key.
    ///
    /// # Errors
    /// `precondition_failed`, `too_large`, and as a write by [`query`](Engine::query).
    async fn kv_put(
        &self,
        namespace: &Namespace,
        key: &Key,
        value: Bytes,
        condition: Condition,
        ttl_seconds: Option<u64>,
        options: CallOptions,
    ) -> Result<WriteOutcome<u64>>;

    /// Deletes a key; false when there was none. An expired key counts as missing.
    ///
    /// # Errors
    /// As [`kv_put`](Engine::kv_put).
    async fn kv_delete(
        &self,
        namespace: &Namespace,
        key: &Key,
        condition: Condition,
        options: CallOptions,
    ) -> Result<WriteOutcome<bool>>;

    /// The value of a key, or `None` when it is missing or expired.
    ///
    /// # Errors
    /// As a read by [`query`](Engine::query).
    async fn kv_get(
        &self,
        namespace: &Namespace,
        key: &Key,
        options: CallOptions,
    ) -> Result<Option<Entry>>;

    /// Whether a key exists, without reading its value.
    ///
    /// # Errors
    /// As a read by [`query`](Engine::query).
    async fn kv_exists(
        &self,
        namespace: &Namespace,
        key: &Key,
        options: CallOptions,
    ) -> Result<bool>;

    /// Keys that start with `prefix` and come after `after`, in byte order, at most `limit`.
    ///
    /// # Errors
    /// As a read by [`query`](Engine::query).
    async fn kv_list(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        options: CallOptions,
    ) -> Result<KeyPage>;

    /// Deletes what has expired by `now_ms`: values, idempotency records. Returns how many rows
    /// went.
    ///
    /// # Errors
    /// As a write by [`query`](Engine::query).
    async fn sweep(&self, now_ms: i64) -> Result<u64>;

    /// The namespaces that hold something or that the node has written down, in order of name. A
    /// namespace is made by the first statement or key that comes for it.
    ///
    /// # Errors
    /// As a read by [`query`](Engine::query).
    async fn namespaces(
        &self,
        filter: NamespaceFilter,
        options: CallOptions,
    ) -> Result<Vec<Namespace>>;

    /// What a namespace holds; of one that was never used nothing at all. Makes nothing. A database
    /// that cannot be read is described in `problem`.
    ///
    /// # Errors
    /// As a read by [`query`](Engine::query).
    async fn namespace_info(
        &self,
        namespace: &Namespace,
        options: CallOptions,
    ) -> Result<NamespaceInfo>;

    /// Deletes everything that a namespace has here: its SQL database, its key-value pairs, the
    /// kept answers of its writes. `also` are statements on the system's tables that belong to it
    /// (keys, grants): they run first, together, and must do no harm when they run again. One that
    /// breaks a constraint refuses the deletion. What was begun is finished by the next start. A
    /// call for the namespace meanwhile is `unavailable`; afterwards the namespace is as one that
    /// was never used.
    ///
    /// It first waits until nothing runs in the namespace; when that is not so by `deadline` it
    /// does not begin.
    ///
    /// # Errors
    /// `conflict` when a backup, restore or other deletion is running, `deadline_exceeded`,
    /// `disk_full` and `read_only` when it cannot even be noted, and what `also` meets: then
    /// nothing was deleted. After `unknown_outcome`, and `internal` with that message, it is in the
    /// middle: the namespace stays `unavailable` until it is deleted again or the next start has
    /// finished it.
    async fn delete_namespace(
        &self,
        namespace: &Namespace,
        also: Vec<Statement>,
        deadline: Instant,
    ) -> Result<()>;

    /// The namespaces whose SQL databases were lost, as far as that is known: the files are
    /// missing, or were removed or replaced while the engine runs. In order of name.
    fn lost_namespaces(&self) -> Vec<Namespace> {
        Vec::new()
    }

    /// Bytes of all databases together, as `max_database_size` counts them.
    fn size(&self) -> u64;

    /// What an operator has to know of where the data is.
    fn storage_report(&self) -> StorageReport {
        StorageReport::default()
    }

    /// Makes a consistent copy, verifies it, and removes the oldest copies over the number kept. A
    /// namespace whose SQL database cannot be copied does not keep the others from it: the outcome
    /// names it, and no copy that is whole is removed for one that is not.
    ///
    /// # Errors
    /// `disk_full`, `conflict` when a backup, restore or deletion is running, `database_corrupt`
    /// when the system's own database is damaged.
    async fn backup(&self, progress: ProgressFn) -> Result<BackupInfo>;

    /// The copies that exist, newest first.
    ///
    /// # Errors
    /// `internal` when the folder cannot be read.
    async fn backups(&self) -> Result<Vec<BackupInfo>>;

    /// Verifies a copy and puts it in place of what is there. Reads see the old data or the new,
    /// never a mixture. A namespace that the copy names as missing stays as it is. One whose
    /// database the copy has and nobody can use (it is of a newer version, say) comes back as that,
    /// and is alone in it.
    ///
    /// # Errors
    /// `not_found`, `database_corrupt` when a checksum fails (nothing is changed), `conflict`,
    /// `disk_full`.
    async fn restore(&self, name: &str, progress: ProgressFn) -> Result<()>;

    /// Makes a file with a namespace's SQL database. It ends when its caller has gone.
    ///
    /// # Errors
    /// `overloaded` when there is an export of the namespace, or are as many of others as may be;
    /// `disk_full`, `database_corrupt` when it is damaged.
    async fn export(&self, namespace: &Namespace) -> Result<ExportFile>;

    /// Finishes what was accepted, writes the log back into the database and closes it. Calls after
    /// this are `unavailable`. A statement that does not end by `deadline` is not waited for: its
    /// caller is not answered, and its database is checked when it is opened again.
    async fn close_by(&self, deadline: Instant);

    /// As [`close_by`](Engine::close_by), within [`CLOSE_TIME`].
    async fn close(&self) {
        self.close_by(Instant::now() + CLOSE_TIME).await;
    }
}
