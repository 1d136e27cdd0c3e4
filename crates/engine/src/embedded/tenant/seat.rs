//! The writer's side of a namespace's schema: what holds inside the open transaction, and how it comes out.

use super::Tenant;
use debros_sql::Catalogue;
use std::cell::RefCell;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, MutexGuard, PoisonError};

/// The place of a namespace on the connection that writes its file.
#[derive(Debug)]
pub(in crate::embedded) struct Seat {
    tenant: Arc<Tenant>,
    /// The schema as the open transaction has changed it.
    pending: RefCell<Option<Arc<Catalogue>>>,
}

impl Seat {
    pub(in crate::embedded) fn new(tenant: Arc<Tenant>) -> Self {
        Self { tenant, pending: RefCell::default() }
    }

    pub(in crate::embedded) fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// The schema that the next statement of the open transaction meets.
    pub(super) fn catalogue(&self) -> Arc<Catalogue> {
        self.pending().unwrap_or_else(|| self.tenant.catalogue())
    }

    /// Says what the open transaction has made of the schema.
    pub(super) fn change(&self, catalogue: Catalogue) {
        *self.pending.borrow_mut() = Some(Arc::new(catalogue));
    }

    /// The change of the open transaction, to be put back when a savepoint is rolled back.
    pub(in crate::embedded) fn pending(&self) -> Option<Arc<Catalogue>> {
        self.pending.borrow().clone()
    }

    /// Goes back to what [`pending`](Seat::pending) was; `None` with the whole transaction.
    pub(in crate::embedded) fn go_back(&self, pending: Option<Arc<Catalogue>>) {
        *self.pending.borrow_mut() = pending;
    }

    /// To be held while what others read changes: whoever meets it half done waits here, and looks again.
    pub(in crate::embedded) fn publication(&self) -> Publication<'_> {
        let alone = self.tenant.publishing();
        self.tenant.moving.store(true, SeqCst);
        Publication { tenant: &self.tenant, _alone: alone }
    }
}

/// A schema that is about to be the namespace's. Dropped without being published, everything stays as it was.
pub(in crate::embedded) struct Publication<'s> {
    tenant: &'s Tenant,
    _alone: MutexGuard<'s, ()>,
}

impl Publication<'_> {
    /// Puts it in place: it is committed.
    pub(in crate::embedded) fn publish(self, catalogue: Arc<Catalogue>) {
        *self.tenant.catalogue.write().unwrap_or_else(PoisonError::into_inner) = catalogue;
    }
}

impl Drop for Publication<'_> {
    fn drop(&mut self) {
        self.tenant.moving.store(false, SeqCst);
    }
}
