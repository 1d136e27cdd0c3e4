//! The writer's side of a namespace's schema: what holds inside the open transaction, and how it
//! comes out.

use super::Tenant;
use debros_sql::Catalogue;
use std::cell::RefCell;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, MutexGuard, PoisonError};

/// The place of a namespace on the connection that writes its file.
#[derive(Debug)]
pub(in crate::embedded) struct WriterSchema {
    tenant: Arc<Tenant>,
    /// The schema as the open transaction has changed it.
    staged: RefCell<Option<Arc<Catalogue>>>,
}

impl WriterSchema {
    pub(in crate::embedded) fn new(tenant: Arc<Tenant>) -> Self {
        Self { tenant, staged: RefCell::default() }
    }

    pub(in crate::embedded) fn tenant(&self) -> &Arc<Tenant> {
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
    pub(in crate::embedded) fn staged_catalogue(&self) -> Option<Arc<Catalogue>> {
        self.staged.borrow().clone()
    }

    /// Goes back to what [`staged_catalogue`](WriterSchema::staged_catalogue) was; `None` with the
    /// whole transaction.
    pub(in crate::embedded) fn rollback_to(&self, pending: Option<Arc<Catalogue>>) {
        *self.staged.borrow_mut() = pending;
    }

    /// To be held while what others read changes: whoever meets it half done waits here, and looks
    /// again.
    pub(in crate::embedded) fn begin_swap(&self) -> SchemaSwapGuard<'_> {
        let alone = self.tenant.lock_swap();
        self.tenant.is_swapping.store(true, SeqCst);
        SchemaSwapGuard { tenant: &self.tenant, _swap_lock: alone }
    }
}

/// A schema that is about to be the namespace's. Dropped without being published, everything stays
/// as it was.
pub(in crate::embedded) struct SchemaSwapGuard<'s> {
    tenant: &'s Tenant,
    _swap_lock: MutexGuard<'s, ()>,
}

impl SchemaSwapGuard<'_> {
    /// Puts it in place: it is committed.
    pub(in crate::embedded) fn publish_catalogue(self, catalogue: Arc<Catalogue>) {
        *self.tenant.catalogue.write().unwrap_or_else(PoisonError::into_inner) = catalogue;
    }
}

impl Drop for SchemaSwapGuard<'_> {
    fn drop(&mut self) {
        self.tenant.is_swapping.store(false, SeqCst);
    }
}
