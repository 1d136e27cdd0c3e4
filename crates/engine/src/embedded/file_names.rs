//! The names of the files in the engine's folder.
//!
//! ```text
//! <data_dir>/LOCK            held while the engine is open; names the process
//! <data_dir>/CLEAN           there when the engine was closed in order; lists databases still to be checked
//! <data_dir>/system.db       the node's tables and all key-value pairs
//! <data_dir>/ns/<name>.db    the SQL database of a namespace
//! <data_dir>/ns/<name>.delete  there while the namespace is being deleted; what to do besides
//! <data_dir>/ns/<name>.removed  in a cluster, for a while: the entry of the log that removed the database
//! <data_dir>/tmp/            files of running exports; emptied at start
//! <data_dir>/set-aside/<backup>/  what lay here when that backup, of another network, was put back; for the operator
//! <data_dir>/FILES           which of these files were made, so that one that was lost is missed; may lie elsewhere
//! <data_dir>/RESTORE         the name of the backup that is being put back
//! ```

/// The name of the file that names the backup whose restore was begun.
pub(super) const RESTORE: &str = "RESTORE";

/// The ending of a file that is not written to its end yet.
pub(super) const PARTIAL: &str = "partial";

/// The endings of a namespace's files: the database, what SQLite keeps beside it, and the same of
/// one that a restore found damaged.
pub(super) const ENDINGS: [&str; 6] =
    ["db", "db-wal", "db-shm", "damaged", "damaged-wal", "damaged-shm"];
