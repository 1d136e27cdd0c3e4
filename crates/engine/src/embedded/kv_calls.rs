//! What the calls on key-value pairs share.

use super::conn::SqliteConnection;
use super::database_handle::WriteOptions;
use super::fair_queue::FlowId;
use super::idempotency::{self, RecordFile};
use super::job::JobIsolation;
use super::key_locks::KeyGuard;
use super::namespace_locks::AdmissionTicket;
use super::sql_write_options::JOB_BYTES;
use super::writer_conn::WriterConnection;
use super::{EmbeddedEngine, error_mapping, execution};
use crate::{CallOptions, IdempotencyKey, WriteOutcome};
use debros_proto::{Code, Namespace, Result};
use std::sync::Arc;
use std::time::Instant;

impl EmbeddedEngine {
    /// The write of a key-value call: a single statement, and a savepoint only where an idempotency
    /// record comes with it.
    pub(super) fn kv_write_options(
        namespace: &Namespace,
        value_bytes: usize,
        removes: bool,
        options: &CallOptions,
    ) -> Result<WriteOptions> {
        if options.read_only {
            return Err(execution::read_only_error());
        }
        let isolation = if options.idempotency_key.is_some() {
            JobIsolation::Savepoint
        } else {
            JobIsolation::StatementAtomic
        };
        let flow = FlowId::of(namespace, options.caller);
        Ok(WriteOptions {
            isolation,
            removes,
            bytes: JOB_BYTES + value_bytes,
            deadline: options.deadline,
            flow,
        })
    }

    /// Refuses a write into the namespace that `owner` returns, when that was shut since the caller
    /// was admitted.
    pub(super) fn admission_check<W>(
        &self,
        owner: fn(&W) -> &Namespace,
        admission: AdmissionTicket,
    ) -> impl Fn(&W) -> Result<()> + Send + use<W> {
        let locks = Arc::clone(&self.databases.namespace_locks);
        move |write| locks.check_still_admitted(owner(write), admission)
    }

    /// A key-value write. A system's database that is found damaged takes none; what the node
    /// itself writes goes on, or no operator could sign in to restore it.
    pub(super) async fn write_kv<T: Send + 'static>(
        &self,
        write: WriteOptions,
        act: impl FnMut(&mut WriterConnection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let system = &self.databases.system;
        system.check_undamaged()?;
        let outcome = system.write(write, act).await;
        self.note_damage_of_system(&outcome);
        outcome
    }

    fn note_damage_of_system<T>(&self, outcome: &Result<T>) {
        if outcome.as_ref().is_err_and(|error| error.code == Code::Corrupt)
            && self.databases.system.set_damaged(true)
        {
            tracing::error!(
                "the system's database is damaged: it takes no key-value pairs until it is restored"
            );
        }
    }

    pub(super) fn kv_read<T>(
        &self,
        namespace: &Namespace,
        act: impl FnOnce(&SqliteConnection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.databases.check_not_deleting(namespace)?;
        let started = Instant::now();
        let system = &self.databases.system;
        let outcome = system.read_on_this_thread(act).and_then(|outcome| {
            outcome
                .map_err(|error| system.span().in_scope(|| error_mapping::map_sqlite_error(error)))
        });
        self.databases.shared.metrics.kv_read.record(started.elapsed().as_secs_f64());
        self.note_damage_of_system(&outcome);
        outcome
    }

    /// A key-value write of a caller that is still admitted; it happens once when it has an idempotency
    /// key.
    pub(super) fn kv_run_once<W, M, T>(
        idempotency_key: Option<(IdempotencyKey, KeyGuard)>,
        what: W,
        check_still: impl Fn(&W) -> Result<()> + Send + 'static,
        act: fn(&WriterConnection, &W) -> Result<T>,
        to_message: impl Fn(&T) -> M + Send + 'static,
        from_message: fn(M) -> T,
    ) -> impl FnMut(&mut WriterConnection) -> Result<WriteOutcome<T>> + Send + 'static
    where
        W: Send + 'static,
        M: prost::Message + Default + 'static,
        T: 'static,
    {
        move |conn| {
            // Before any answer that is kept: it may be another owner's by now.
            check_still(&what)?;
            let idempotency_key =
                idempotency_key.as_ref().map(|(idempotency_key, _)| idempotency_key);
            idempotency::run_once(
                conn,
                RecordFile::System,
                idempotency_key,
                |conn| act(conn, &what),
                &to_message,
                from_message,
            )
        }
    }
}
