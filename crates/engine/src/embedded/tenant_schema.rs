//! A namespace's schema: what its readers see, and what the writer's open transaction makes of it
//! until the COMMIT.

use debros_proto::{Namespace, Result, lock};
use debros_sql::{Catalogue, Demangler, RewriteCache};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// What an open namespace is, beside its file.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) namespace: Namespace,
    pub(super) demangler: Demangler,
    pub(super) rewriter: Arc<RewriteCache>,
    catalogue: RwLock<Arc<Catalogue>>,
    /// Held by the writer from before a commit that changes the schema until the new catalogue is
    /// in its place.
    swap_lock: Mutex<()>,
    is_swapping: AtomicBool,
}

impl Tenant {
    /// A namespace with its schema as the file has it.
    pub(super) fn new(catalogue: Catalogue, rewriter: Arc<RewriteCache>) -> Self {
        Self {
            namespace: catalogue.namespace().clone(),
            demangler: Demangler::new(catalogue.namespace()),
            rewriter,
            catalogue: RwLock::new(Arc::new(catalogue)),
            swap_lock: Mutex::default(),
            is_swapping: AtomicBool::new(false),
        }
    }

    /// The schema as of the last commit.
    pub(super) fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The schema as of the last commit, after a commit that changes it. Blocks for the length of
    /// that.
    pub(super) fn committed_catalogue(&self) -> Arc<Catalogue> {
        drop(self.lock_swap());
        self.catalogue()
    }

    /// The schema as of the last commit, and what `pin` returns, which runs while nothing changes
    /// the schema. Blocks as [`committed_catalogue`](Tenant::committed_catalogue) does.
    pub(super) fn pin_schema<T>(
        &self,
        pin: impl FnOnce() -> Result<T>,
    ) -> Result<(Arc<Catalogue>, T)> {
        let _alone = self.lock_swap();
        pin().map(|pinned| (self.catalogue(), pinned))
    }

    fn lock_swap(&self) -> MutexGuard<'_, ()> {
        lock(&self.swap_lock)
    }

    /// Whether a catalogue still holds, and did while everything ran that was done before.
    pub(super) fn is_current(&self, catalogue: &Catalogue) -> bool {
        !self.is_swapping.load(SeqCst)
            && self.catalogue.read().unwrap_or_else(PoisonError::into_inner).generation()
                == catalogue.generation()
    }
}

/// The place of a namespace on the connection that writes its file.
#[derive(Debug)]
pub(super) struct WriterSchema {
    tenant: Arc<Tenant>,
    /// The schema as the open transaction has changed it.
    staged: RefCell<Option<Arc<Catalogue>>>,
}

impl WriterSchema {
    pub(super) fn new(tenant: Arc<Tenant>) -> Self {
        Self { tenant, staged: RefCell::default() }
    }

    pub(super) fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// The schema that the next statement of the open transaction meets.
    pub(super) fn catalogue(&self) -> Arc<Catalogue> {
        self.staged_catalogue().unwrap_or_else(|| self.tenant.catalogue())
    }

    /// Says what the open transaction has made of the schema.
    pub(super) fn stage(&self, catalogue: Catalogue) {
        *self.staged.borrow_mut() = Some(Arc::new(catalogue));
    }

    /// The change of the open transaction, to be put back when a savepoint is rolled back.
    pub(super) fn staged_catalogue(&self) -> Option<Arc<Catalogue>> {
        self.staged.borrow().clone()
    }

    /// Goes back to what [`staged_catalogue`](WriterSchema::staged_catalogue) was; `None` with the
    /// whole transaction.
    pub(super) fn rollback_to(&self, pending: Option<Arc<Catalogue>>) {
        *self.staged.borrow_mut() = pending;
    }

    /// To be held while what others read changes: a reader that meets it half done waits here, and
    /// looks again.
    pub(super) fn begin_swap(&self) -> SchemaSwapGuard<'_> {
        let alone = self.tenant.lock_swap();
        self.tenant.is_swapping.store(true, SeqCst);
        SchemaSwapGuard { tenant: &self.tenant, _swap_lock: alone }
    }
}

/// A schema that is about to be the namespace's. Dropped without being published, everything stays
/// as it was.
pub(super) struct SchemaSwapGuard<'s> {
    tenant: &'s Tenant,
    _swap_lock: MutexGuard<'s, ()>,
}

impl SchemaSwapGuard<'_> {
    /// Puts it in place: it is committed.
    pub(super) fn publish_catalogue(self, catalogue: Arc<Catalogue>) {
        *self.tenant.catalogue.write().unwrap_or_else(PoisonError::into_inner) = catalogue;
    }
}

impl Drop for SchemaSwapGuard<'_> {
    fn drop(&mut self) {
        self.tenant.is_swapping.store(false, SeqCst);
    }
}
