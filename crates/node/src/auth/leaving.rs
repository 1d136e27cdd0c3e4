//! Namespaces that are being deleted: nobody is let in meanwhile, by whatever it shows.

use debros_proto::{Code, Error, Namespace, Result};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The namespaces that are being deleted by this process.
#[derive(Default)]
pub(crate) struct Leaving {
    names: Mutex<BTreeSet<Namespace>>,
    /// Their number, which every call looks at.
    count: AtomicUsize,
}

/// The namespace is being deleted as long as this is there.
pub(super) struct Left<'l> {
    leaving: &'l Leaving,
    namespace: Namespace,
}

impl Leaving {
    /// Passes when the namespace is not being deleted.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) fn check(&self, namespace: &Namespace) -> Result<()> {
        if self.count.load(Ordering::Acquire) == 0 || !self.lock().contains(namespace) {
            return Ok(());
        }
        let error = Error::new(Code::Unavailable, format!("the namespace \"{namespace}\" is being deleted"));
        Err(error.retry_after(Duration::from_secs(1)))
    }

    /// Shuts the namespace until what is returned is dropped.
    pub(super) fn enter(&self, namespace: &Namespace) -> Left<'_> {
        let mut names = self.lock();
        names.insert(namespace.clone());
        self.count.store(names.len(), Ordering::Release);
        Left { leaving: self, namespace: namespace.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Namespace>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        let mut names = self.leaving.lock();
        names.remove(&self.namespace);
        self.leaving.count.store(names.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::Leaving;
    use debros_proto::{Code, Namespace};

    #[test]
    fn a_namespace_is_shut_until_it_is_gone() {
        let leaving = Leaving::default();
        let (a, b) = (Namespace::new("a").unwrap(), Namespace::new("b").unwrap());
        leaving.check(&a).unwrap();
        let left = leaving.enter(&a);
        assert_eq!(leaving.check(&a).unwrap_err().code, Code::Unavailable);
        leaving.check(&b).unwrap();
        drop(left);
        leaving.check(&a).unwrap();
    }
}
