//! Namespaces that are being deleted: meanwhile every credential for them is refused.

use debros_proto::lock;
use debros_proto::{Code, Error, Namespace, Result};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// The namespaces that are being deleted by this process.
#[derive(Default)]
pub(crate) struct DeletingNamespaces {
    names: Mutex<BTreeSet<Namespace>>,
    /// Their number, which every call reads.
    count: AtomicUsize,
}

/// The namespace is being deleted as long as this is there.
pub(super) struct DeletionGuard<'l> {
    deleting: &'l DeletingNamespaces,
    namespace: Namespace,
}

impl DeletingNamespaces {
    /// Passes when the namespace is not being deleted.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) fn check_not_deleting(&self, namespace: &Namespace) -> Result<()> {
        if self.count.load(Ordering::Acquire) == 0 || !self.lock_names().contains(namespace) {
            return Ok(());
        }
        let error = Error::new(
            Code::Unavailable,
            format!("the namespace \"{namespace}\" is being deleted"),
        );
        Err(error.retry_after(Duration::from_secs(1)))
    }

    /// Shuts the namespace until what is returned is dropped.
    pub(super) fn begin_deletion(&self, namespace: &Namespace) -> DeletionGuard<'_> {
        let mut names = self.lock_names();
        names.insert(namespace.clone());
        self.count.store(names.len(), Ordering::Release);
        DeletionGuard { deleting: self, namespace: namespace.clone() }
    }

    fn lock_names(&self) -> MutexGuard<'_, BTreeSet<Namespace>> {
        lock(&self.names)
    }
}

impl Drop for DeletionGuard<'_> {
    fn drop(&mut self) {
        let mut names = self.deleting.lock_names();
        names.remove(&self.namespace);
        self.deleting.count.store(names.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::DeletingNamespaces;
    use debros_proto::{Code, Namespace};

    #[test]
    fn a_namespace_is_shut_until_it_is_gone() {
        let leaving = DeletingNamespaces::default();
        let (a, b) = (Namespace::new("a").unwrap(), Namespace::new("b").unwrap());
        leaving.check_not_deleting(&a).unwrap();
        let left = leaving.begin_deletion(&a);
        assert_eq!(leaving.check_not_deleting(&a).unwrap_err().code, Code::Unavailable);
        leaving.check_not_deleting(&b).unwrap();
        drop(left);
        leaving.check_not_deleting(&a).unwrap();
    }
}
