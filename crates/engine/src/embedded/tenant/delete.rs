//! Deleting a namespace with everything it has here.
//!
//! A marker is written first, with the statements on the system's tables that belong to it; the
//! next start finishes what a crash left. Every step can be done twice.

use crate::embedded::backup::exclusive_maintenance;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::database_handle::WriteOptions;
use crate::embedded::database_manager::DatabaseManager;
use crate::embedded::deadline::NO_DEADLINE;
use crate::embedded::engine_open_error::EngineOpenError;
use crate::embedded::error_mapping;
use crate::embedded::execution;
use crate::embedded::idempotency;
use crate::embedded::job::JobIsolation;
use crate::embedded::kv;
use crate::embedded::result_budget::ResultBudget;
use crate::embedded::statement_run::StatementRun;
use crate::embedded::time_limit::TimeLimit;
use crate::embedded::writer::empty_log;
use crate::embedded::writer_conn::WriterConnection;
use debros_proto::rpc::{Statement, TransactionRequest};
use debros_proto::{Code, Error, Namespace, Result};
use prost::Message as _;
use std::io;
use std::time::{Duration, Instant};

/// The time between two tries to cut the log, for others' writes: ten times as long as a try keeps
/// the writer.
const PAUSE: Duration = Duration::from_secs(1);

/// What is running, in the error of others.
const DELETION: &str = "the deletion of a namespace";

/// Deletes a namespace. `also` runs on the system's tables, first. What has not begun by `deadline`
/// is not begun. Blocks.
///
/// As long as the marker is there callers are refused: what they wrote would go with the rest, at
/// the latest when the next start finishes the deletion.
pub(in crate::embedded) fn delete_namespace(
    databases: &DatabaseManager,
    namespace: &Namespace,
    also: Vec<Statement>,
    deadline: Instant,
) -> Result<()> {
    delete_by(databases, namespace, also, deadline, run_system_statements)
}

fn delete_by(
    databases: &DatabaseManager,
    namespace: &Namespace,
    also: Vec<Statement>,
    deadline: Instant,
    run: impl FnOnce(&DatabaseManager, &[Statement]) -> Result<()>,
) -> Result<()> {
    databases.check_open()?;
    let mut shut = {
        // Nothing is shut that a restore is about to fill.
        let _alone = exclusive_maintenance(databases, DELETION)?;
        databases.namespace_locks.lock_namespace(namespace)?
    };
    // Before others are kept from copying: what runs in it may take its time.
    if !databases.wait_until_idle(namespace, deadline) {
        databases.check_open()?;
        return Err(deadline_error());
    }
    // A backup would make the file again that goes here.
    let _alone = exclusive_maintenance(databases, DELETION)?;
    databases.check_open()?;
    if Instant::now() >= deadline {
        return Err(deadline_error());
    }
    // One that failed before left it.
    let again = databases
        .folder
        .is_deleting(namespace)
        .map_err(|error| not_begun_error(namespace, &error))?;
    let noted = TransactionRequest { statements: also };
    let begin = || databases.folder.begin_deletion(namespace, &noted.encode_to_vec());
    // On a full disk it is what makes the most room.
    let begun = begin().or_else(|error| {
        if databases.shared.reserve.release_if_full() { begin() } else { Err(error) }
    });
    shut.set_stays_locked(true);
    if let Err(error) = begun {
        // It may be there all the same, when the disk failed late.
        if again || !remove_marker(databases, namespace) {
            return Err(map_io_error(namespace, &error));
        }
        shut.set_stays_locked(false);
        return Err(not_begun_error(namespace, &error));
    }
    if let Err(error) = run(databases, &noted.statements) {
        // They are the first step: when they failed nothing is gone, and nothing is to be finished.
        // Unless they ran in a deletion before; but those would not be refused now. When it is not
        // known whether they ran, the rest has to go too, or it would be left to the name's next
        // owner.
        let is_undone =
            error.code != Code::UnknownOutcome && (!again || error.code == Code::Constraint);
        if is_undone || is_left_to_others(databases) {
            databases
                .folder
                .end_deletion(namespace)
                .map_err(|error| map_io_error(namespace, &error))?;
            shut.set_stays_locked(false);
            return Err(error);
        }
        tracing::error!(%namespace, %error, "a deletion is left in the middle; the next start of the node goes on with it");
        let shut = "the namespace is shut until it is deleted again, or until the next start of the node has deleted it";
        return Err(Error { message: format!("{}; {shut}", error.message), ..error });
    }
    if let Err(error) = finish_deletion(databases, namespace) {
        if is_left_to_others(databases) && remove_marker(databases, namespace) {
            shut.set_stays_locked(false);
        }
        return Err(error);
    }
    shut.set_stays_locked(false);
    Ok(())
}

/// Whether another node of the cluster goes on with what failed here: it has what this one did.
fn is_left_to_others(databases: &DatabaseManager) -> bool {
    databases.shared.log.as_ref().is_some_and(|log| !log.is_leader())
}

/// Takes the marker away again. Whether none is there.
fn remove_marker(databases: &DatabaseManager, namespace: &Namespace) -> bool {
    match databases.folder.end_deletion(namespace) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(()) => true,
    }
}

/// Forgets the deletions that a stop interrupted on a node of a cluster. The cluster went on without
/// this node: what is left of them is known from the system's tables, and the namespace may be
/// another owner's by now.
pub(in crate::embedded) fn forget_interrupted_deletions(
    databases: &DatabaseManager,
) -> Result<(), EngineOpenError> {
    let folder = &databases.folder;
    let forget = || {
        for namespace in folder.interrupted_deletions()? {
            tracing::warn!(%namespace, "the deletion of a namespace was interrupted; the cluster goes on with it when it is deleted again");
            folder.end_deletion(&namespace)?;
        }
        Ok(())
    };
    forget().map_err(|error| EngineOpenError::io(folder.path(), error))
}

/// Finishes the deletions that a crash or a stop interrupted.
pub(in crate::embedded) fn finish_interrupted_deletions(
    databases: &DatabaseManager,
) -> Result<(), EngineOpenError> {
    let folder = &databases.folder;
    for namespace in
        folder.interrupted_deletions().map_err(|error| EngineOpenError::io(folder.path(), error))?
    {
        tracing::warn!(%namespace, "the deletion of a namespace was interrupted; it is finished now");
        let failed = |message: String| EngineOpenError::Deletion {
            namespace: namespace.to_string(),
            message,
        };
        let noted = folder.read_deletion(&namespace).map_err(|error| failed(error.to_string()))?;
        // The marker is whole or not there.
        let noted = TransactionRequest::decode(noted.as_slice())
            .map_err(|error| failed(error.to_string()))?;
        let act = || match run_system_statements(databases, &noted.statements) {
            // They refused the deletion, and would have when it began. Had they run before, they
            // would run again.
            Err(error) if error.code == Code::Constraint => {
                folder.end_deletion(&namespace).map_err(|error| map_io_error(&namespace, &error))
            }
            Err(error) => Err(error),
            Ok(()) => finish_deletion(databases, &namespace),
        };
        // A thread of its own: the caller's may belong to a runtime, which must not be blocked.
        std::thread::scope(|scope| scope.spawn(act).join())
            .unwrap_or_else(|_| Err(Error::internal("the node failed; its log has more")))
            .map_err(|error| failed(error.message))?;
    }
    Ok(())
}

fn finish_deletion(databases: &DatabaseManager, namespace: &Namespace) -> Result<()> {
    finish_by(databases, namespace, |conn| empty_log(conn).map_err(error_mapping::map_sqlite_error))
}

fn finish_by(
    databases: &DatabaseManager,
    namespace: &Namespace,
    empty: impl Fn(&SqliteConnection) -> Result<bool> + Clone + Send + 'static,
) -> Result<()> {
    databases.remove_database(namespace)?;
    databases.folder.sync_namespaces().map_err(|error| map_io_error(namespace, &error))?;
    delete_in_chunks(databases, namespace, kv::delete_chunk)?;
    delete_in_chunks(databases, namespace, idempotency::delete_chunk)?;
    overwrite_log(databases, namespace, empty);
    databases.folder.end_deletion(namespace).map_err(|error| map_io_error(namespace, &error))
}

fn run_system_statements(databases: &DatabaseManager, statements: &[Statement]) -> Result<()> {
    if statements.is_empty() {
        return Ok(());
    }
    let (statements, limits) = (statements.to_vec(), databases.shared.config.limits);
    let time = TimeLimit {
        statement: databases.shared.config.statement_time,
        by_processor: false,
        deadline: Instant::now() + NO_DEADLINE,
    };
    let write = WriteOptions::for_removal(JobIsolation::Savepoint);
    databases.system.write_blocking(write, move |conn| {
        let mut budget = ResultBudget::new(&limits);
        for (index, statement) in statements.iter().enumerate() {
            execution::run_in_transaction(
                conn,
                StatementRun::for_node(statement),
                time,
                false,
                &mut budget,
            )
            .map_err(|error| error.at_statement(index))?;
        }
        Ok(())
    })
}

/// A thousand rows at a time, so that other writes come between.
fn delete_in_chunks(
    databases: &DatabaseManager,
    namespace: &Namespace,
    some: fn(&WriterConnection, &Namespace) -> Result<usize>,
) -> Result<()> {
    loop {
        let owner = namespace.clone();
        let write = WriteOptions::for_removal(JobIsolation::Savepoint);
        let gone = databases.system.write_blocking(write, move |conn| some(conn, &owner))?;
        if gone == 0 {
            return Ok(());
        }
    }
}

/// What was deleted is still in the log, which is cut with `empty`. A reader of it is done within
/// the time of a statement; a backup does not run beside this. All is deleted by now, so no failure
/// of this is one of the deletion.
fn overwrite_log(
    databases: &DatabaseManager,
    namespace: &Namespace,
    empty: impl Fn(&SqliteConnection) -> Result<bool> + Clone + Send + 'static,
) {
    let give_up = Instant::now() + databases.shared.config.statement_time;
    loop {
        let write = WriteOptions::for_removal(JobIsolation::Exclusive);
        let empty = empty.clone();
        match databases.system.write_blocking(write, move |conn| empty(conn)) {
            Ok(true) => return,
            Ok(false) if Instant::now() < give_up => std::thread::sleep(PAUSE),
            Ok(false) => {
                tracing::warn!(%namespace, "the log still holds what was deleted: somebody reads from it; it is written over later");
                return;
            }
            Err(error) => {
                tracing::warn!(%namespace, %error, "the log still holds what was deleted: it cannot be cut; it is written over later");
                return;
            }
        }
    }
}

fn map_io_error(namespace: &Namespace, error: &io::Error) -> Error {
    tracing::error!(%namespace, %error, "a namespace cannot be deleted");
    Error::internal(
        "the namespace could not be deleted wholly; the next start of the node goes on with it",
    )
}

fn not_begun_error(namespace: &Namespace, error: &io::Error) -> Error {
    tracing::error!(%namespace, %error, "the deletion of a namespace cannot be noted");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::new(
            Code::DiskFull,
            "the disk has no room to note that the namespace is deleted: nothing was deleted; make room and delete it again",
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::new(
            Code::ReadOnly,
            "the node cannot write into its folder: nothing was deleted; the node's log has more",
        ),
        _ => Error::internal(
            "the deletion could not begin: nothing was deleted; the node's log has more",
        ),
    }
}

fn deadline_error() -> Error {
    Error::new(
        Code::DeadlineExceeded,
        "statements still run in the namespace at the deletion's deadline: nothing was deleted; try again when they are done",
    )
}

#[cfg(test)]
mod tests {
    use super::{PAUSE, delete_by, delete_namespace, finish_by, run_system_statements};
    use crate::embedded::config::EmbeddedConfig;
    use crate::embedded::database_manager::DatabaseManager;
    use crate::embedded::deadline::NO_DEADLINE;
    use debros_proto::rpc::Statement;
    use debros_proto::{Code, Error, Namespace};
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    #[test]
    fn a_log_that_can_not_be_cut_fails_no_deletion_and_others_write_between_two_tries() {
        let folder = tempfile::tempdir().unwrap();
        let config =
            EmbeddedConfig { statement_time: NO_DEADLINE, ..EmbeddedConfig::new(folder.path()) };
        let databases = DatabaseManager::open(config, None).unwrap();
        let app = Namespace::new("app").unwrap();
        let tries = Arc::<Mutex<Vec<Instant>>>::default();
        let tried = Arc::clone(&tries);
        // Somebody reads from it, and then the disk fails.
        let empty = move |_: &_| {
            let mut tries = tried.lock().unwrap();
            tries.push(Instant::now());
            if tries.len() == 1 {
                Ok(false)
            } else {
                Err(Error::internal("the disk cannot be read"))
            }
        };
        drop(databases.open_for_caller(&app).unwrap());
        databases.folder.begin_deletion(&app, &[]).unwrap();
        finish_by(&databases, &app, empty).unwrap();
        assert!(
            !folder.path().join("ns/app.delete").exists()
                && !folder.path().join("ns/app.db").exists()
        );
        let tries = tries.lock().unwrap();
        assert!(tries.len() == 2 && tries[1] - tries[0] >= PAUSE, "{tries:?}");
        databases.close_all(Instant::now() + NO_DEADLINE);
    }

    /// Its tombstone may be committed and nothing of its data gone: a start that knows nothing of
    /// it would free the name.
    #[test]
    fn a_deletion_of_unknown_outcome_is_finished_by_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let databases = DatabaseManager::open(EmbeddedConfig::new(folder.path()), None).unwrap();
        let app = Namespace::new("app").unwrap();
        drop(databases.open_for_caller(&app).unwrap());
        let file = folder.path().join("ns/app.db");
        let marker = folder.path().join("ns/app.delete");
        let note = || {
            vec![Statement::from(
                "INSERT OR IGNORE INTO namespaces (name, created_at) VALUES ('note', 1)",
            )]
        };
        let far = Instant::now() + NO_DEADLINE;
        let unknown = delete_by(&databases, &app, note(), far, |databases, statements| {
            run_system_statements(databases, statements)?;
            Err(Error::new(Code::UnknownOutcome, "the write was not confirmed"))
        });
        assert_eq!(unknown.unwrap_err().code, Code::UnknownOutcome);
        assert!(marker.exists() && file.exists());
        // What is written now would be deleted at the next start.
        assert_eq!(
            databases.open_for_caller(&app).err().map(|error| error.code),
            Some(Code::Unavailable)
        );
        // As long as the statements fail for reasons that pass it stays begun.
        let busy = delete_by(&databases, &app, note(), far, |_, _| {
            Err(Error::new(Code::Overloaded, "the queue is full"))
        });
        assert_eq!(busy.unwrap_err().code, Code::Overloaded);
        assert!(marker.exists());
        assert_eq!(
            databases.open_for_caller(&app).err().map(|error| error.code),
            Some(Code::Unavailable)
        );
        delete_namespace(&databases, &app, note(), far).unwrap();
        assert!(!marker.exists() && !file.exists());
        databases.open_for_caller(&app).unwrap();
        databases.close_all(far);
    }
}
