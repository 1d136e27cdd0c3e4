//! Deleting a namespace with everything it has here.
//!
//! A marker is written first, with the statements on the system's tables that belong to it; the next start finishes what
//! a crash left. Every step can be done twice.

use crate::embedded::config::OpenError;
use crate::embedded::conn::Conn;
use crate::embedded::copies::alone;
use crate::embedded::failure;
use crate::embedded::guard;
use crate::embedded::job::Undo;
use crate::embedded::kv;
use crate::embedded::sql::{self, Allowance, Run, Time};
use crate::embedded::store::Write;
use crate::embedded::stores::{FAR, Stores};
use debros_proto::rpc::{Statement, TransactionRequest};
use debros_proto::{Code, Error, Namespace, Result};
use prost::Message as _;
use std::io;
use std::time::Instant;

/// Deletes a namespace. `also` runs on the system's tables, first. Blocks.
pub(in crate::embedded) fn delete(stores: &Stores, namespace: &Namespace, also: Vec<Statement>) -> Result<()> {
    // A backup would make the file again that goes here.
    let _alone = alone(stores, "the deletion of a namespace")?;
    stores.check_there(namespace)?;
    let noted = TransactionRequest { statements: also };
    stores.folder.begin_deletion(namespace, &noted.encode_to_vec()).map_err(|error| of_io(namespace, &error))?;
    let _shut = stores.shut(namespace);
    if let Err(error) = run_also(stores, &noted.statements) {
        // They are the first step: nothing is gone, and nothing is to be finished.
        stores.folder.end_deletion(namespace).map_err(|error| of_io(namespace, &error))?;
        return Err(error);
    }
    finish(stores, namespace)
}

/// Finishes the deletions that a crash or a stop interrupted.
pub(in crate::embedded) fn finish_interrupted(stores: &Stores) -> Result<(), OpenError> {
    let folder = &stores.folder;
    for namespace in folder.deleting().map_err(|error| OpenError::io(folder.path(), error))? {
        tracing::warn!(%namespace, "the deletion of a namespace was interrupted; it is finished now");
        let failed = |message: String| OpenError::Deletion { namespace: namespace.to_string(), message };
        let noted = folder.deletion(&namespace).map_err(|error| failed(error.to_string()))?;
        // The marker is whole or not there.
        let noted = TransactionRequest::decode(noted.as_slice()).map_err(|error| failed(error.to_string()))?;
        let act = || match run_also(stores, &noted.statements) {
            // They refused the deletion, and would have when it began. Had they run before, they would run again.
            Err(error) if error.code == Code::Constraint => {
                folder.end_deletion(&namespace).map_err(|error| of_io(&namespace, &error))
            }
            Err(error) => Err(error),
            Ok(()) => finish(stores, &namespace),
        };
        // A thread of its own: the caller's may belong to a runtime, which must not be blocked.
        std::thread::scope(|scope| scope.spawn(act).join())
            .unwrap_or_else(|_| Err(Error::internal("the node failed; its log has more")))
            .map_err(|error| failed(error.message))?;
    }
    Ok(())
}

fn finish(stores: &Stores, namespace: &Namespace) -> Result<()> {
    stores.remove(namespace)?;
    stores.folder.sync_namespaces().map_err(|error| of_io(namespace, &error))?;
    wipe(stores, namespace, kv::wipe)?;
    wipe(stores, namespace, guard::wipe)?;
    stores.folder.end_deletion(namespace).map_err(|error| of_io(namespace, &error))
}

fn run_also(stores: &Stores, statements: &[Statement]) -> Result<()> {
    if statements.is_empty() {
        return Ok(());
    }
    let (statements, limits) = (statements.to_vec(), stores.shared.config.limits);
    let time = Time { statement: stores.shared.config.statement_time, deadline: Instant::now() + FAR };
    let write = Write { undo: Undo::Savepoint, removes: true, bytes: 0, deadline: time.deadline };
    stores.system.write_blocking(write, move |conn| {
        let mut allowance = Allowance::new(&limits);
        for (index, statement) in statements.iter().enumerate() {
            sql::write(conn, Run::own(statement), time, false, &mut allowance)
                .map_err(|error| error.at_statement(index))?;
        }
        Ok(())
    })
}

/// A thousand rows at a time, so that other writes come between.
fn wipe(stores: &Stores, namespace: &Namespace, some: fn(&Conn, &Namespace) -> rusqlite::Result<usize>) -> Result<()> {
    loop {
        let owner = namespace.clone();
        let write = Write { undo: Undo::Statement, removes: true, bytes: 0, deadline: Instant::now() + FAR };
        let gone = stores.system.write_blocking(write, move |conn| some(conn, &owner).map_err(failure::of))?;
        if gone == 0 {
            return Ok(());
        }
    }
}

fn of_io(namespace: &Namespace, error: &io::Error) -> Error {
    tracing::error!(%namespace, %error, "a namespace can not be deleted");
    Error::internal("the namespace could not be deleted wholly; the next start of the node goes on with it")
}
