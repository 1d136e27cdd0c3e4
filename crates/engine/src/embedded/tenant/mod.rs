//! A namespace's statements: rewritten to its own objects, run under its policy, and answered in
//! its own names.
//!
//! The schema that a text was rewritten for (the *catalogue*) and the schema that the rewritten
//! text meets in the file are two things, and move at two moments. What keeps them together:
//!
//! - A write is rewritten by the writer, for the catalogue that holds inside the open transaction.
//! - A change of the schema is made on a copy of the catalogue, which is published after the COMMIT
//!   and before anybody is answered.
//! - A read looks, when it is done, whether the catalogue it was rewritten for still holds, and is
//!   repeated otherwise.

mod calls;
mod delete;
mod dump;
mod foreign_keys;
mod format;
mod info;
mod object_renaming;
mod read;
mod write;

pub(super) use delete::{
    delete_namespace, finish_interrupted_deletions, forget_interrupted_deletions,
};
pub(super) use object_renaming::restore_user_names;

use super::authorizer::{StatementRights, StatementTraits, TenantRights};
use super::error_mapping;
use super::open_failure::OpenFailure;
use super::tenant_schema::{Tenant, WriterSchema};
use super::writer_conn::WriterConnection;
use debros_proto::{Error, Namespace, Result};
use debros_sql::counters::ConnectionCounters;
use debros_sql::{Catalogue, ExecutionContext, RewriteCache, RewrittenStatement};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A rewritten statement, and what it was rewritten for.
#[derive(Clone, Debug)]
pub(super) struct StatementPlan {
    pub(super) rewritten: Arc<RewrittenStatement>,
    /// Of the catalogue.
    pub(super) generation: u64,
    /// What SQLite's authorizer saw of it on a reading connection.
    pub(super) traits: StatementTraits,
}

impl StatementPlan {
    fn new(
        rewritten: Arc<RewrittenStatement>,
        catalogue: &Catalogue,
        traits: StatementTraits,
    ) -> Self {
        Self { rewritten, generation: catalogue.generation(), traits }
    }
}

impl Tenant {
    /// What a rewritten statement may do.
    fn rights_for(&self, rewritten: &RewrittenStatement) -> TenantRights {
        let (class, grants) = (rewritten.class, rewritten.grants);
        TenantRights { policy: rewritten.policy(&self.namespace), class, grants }
    }
}

/// Makes an empty file that of a namespace, and puts the namespace on the connection that writes
/// it.
pub(super) fn init_namespace(
    conn: &mut WriterConnection,
    namespace: &Namespace,
    rewriter: &Arc<RewriteCache>,
) -> Result<(), OpenFailure> {
    conn.authorizer.set_rights(StatementRights::Internal);
    if !format::has_tables(&conn.db)? {
        if format::has_other_objects(&conn.db)? {
            return Err(OpenFailure::Reported(format::unreleased_form_error(namespace)));
        }
        let transaction =
            conn.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        format::create_tables(&transaction)?;
        transaction.commit()?;
    }
    format::record_created_at(&conn.db, debros_proto::now_ms())?;
    let catalogue = format::load_catalogue(&conn.db, namespace).map_err(OpenFailure::Reported)?;
    conn.writer_schema =
        Some(WriterSchema::new(Arc::new(Tenant::new(catalogue, Arc::clone(rewriter)))));
    Ok(())
}

/// What a new file of a namespace holds: the engine's own tables. `tmp` is a folder to make it in.
pub(super) fn new_file_content(tmp: &Path) -> Result<Vec<u8>, OpenFailure> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let path = tmp.join(format!("new-{}.db", MADE.fetch_add(1, SeqCst)));
    let db = rusqlite::Connection::open(&path)?;
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")?;
    format::create_tables(&db)?;
    db.close().map_err(|(_, error)| error)?;
    let bytes = std::fs::read(&path)?;
    std::fs::remove_file(&path)?;
    Ok(bytes)
}

/// Has everything in the file replaced by `replace`, and takes the schema from what is there then.
/// False: it was replaced, and what is there now is unusable, which is logged. The database is to
/// be closed then: the next caller that opens it gets the reason.
pub(super) fn replace_content(
    conn: &mut WriterConnection,
    replace: impl FnOnce(&mut WriterConnection) -> Result<()>,
) -> Result<bool> {
    // Taken off, because it is borrowed while the connection changes.
    let Some(schema) = conn.writer_schema.take() else { return replace(conn).map(|()| true) };
    let swap = schema.begin_swap();
    let namespace = &schema.tenant().namespace;
    let (catalogue, is_usable) = match replace(conn).map(|()| reload_catalogue(conn, namespace)) {
        Ok(Ok(catalogue)) => (Ok(catalogue), true),
        Ok(Err(error)) => {
            tracing::error!(%namespace, error = %error.message, "the database was replaced by one that cannot be used");
            // No call reads the new rows by the old schema until the database is closed.
            (Catalogue::new(namespace), false)
        }
        Err(error) => (Err(error), true),
    };
    let outcome = catalogue.map(|catalogue| swap.publish_catalogue(Arc::new(catalogue)));
    // A connection without a schema takes no statements.
    if is_usable {
        conn.writer_schema = Some(schema);
    }
    outcome.map(|()| is_usable)
}

/// The schema of a file that was replaced.
fn reload_catalogue(conn: &WriterConnection, namespace: &Namespace) -> Result<Catalogue> {
    conn.authorizer.set_rights(StatementRights::Internal);
    if !format::has_tables(&conn.db).map_err(error_mapping::map_sqlite_error)? {
        if format::has_other_objects(&conn.db).map_err(error_mapping::map_sqlite_error)? {
            return Err(format::unreleased_form_error(namespace));
        }
        format::create_tables(&conn.db).map_err(error_mapping::map_sqlite_error)?;
    }
    format::load_catalogue(&conn.db, namespace)
}

/// What one call's statements see of the world: the time at which it came, and its own counters.
#[derive(Debug)]
struct CallState {
    now_ms: i64,
    counters: ConnectionCounters,
}

impl CallState {
    fn new(now_ms: i64) -> Self {
        Self { now_ms, counters: ConnectionCounters::default() }
    }

    /// The text to run.
    fn fill_placeholders<'r>(
        &self,
        rewritten: &'r RewrittenStatement,
    ) -> Result<std::borrow::Cow<'r, str>> {
        let mut failed = false;
        let mut random = |bytes: &mut [u8]| failed |= getrandom::fill(bytes).is_err();
        let mut context = ExecutionContext { now_ms: self.now_ms, random: &mut random };
        let text = rewritten.fill_sql(&mut context);
        if failed {
            return Err(Error::internal("the system gives no random numbers"));
        }
        Ok(text)
    }

    /// The time, as the views and triggers of a write read it.
    fn timestamp(&self) -> String {
        let mut nothing = |_: &mut [u8]| {};
        ExecutionContext { now_ms: self.now_ms, random: &mut nothing }.timestamp()
    }
}
