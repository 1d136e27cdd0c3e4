//! Idempotency keys that are in use: one call at a time has a key of a namespace, whatever the
//! service.
//!
//! The record of a key is committed with its write, and so in the file of that. Two calls with one
//! key whose writes belong to different files would both find the other's file without a record, if
//! they ran at the same time.

use crate::IdempotencyKey;
use debros_proto::{Code, Error, Namespace, Result, lock};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

type ScopedKey = (Namespace, String);

/// The keys in use.
#[derive(Debug, Default)]
pub(super) struct KeyLocks(Mutex<HashMap<ScopedKey, Arc<Turn<()>>>>);

/// A key that no other call has until this is dropped. It goes with the job of the write, so that a
/// caller that leaves does not give it up before the write is committed.
#[derive(Debug)]
pub(super) struct KeyGuard {
    _turn: OwnedMutexGuard<()>,
    _waiting: KeyWaiter,
}

/// Somebody has the key or waits for it.
#[derive(Debug)]
struct KeyWaiter {
    keys: Arc<KeyLocks>,
    name: ScopedKey,
    turn: Option<Arc<Turn<()>>>,
}

impl Drop for KeyWaiter {
    fn drop(&mut self) {
        self.turn.take();
        let mut turns = self.keys.lock();
        if turns.get(&self.name).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.name);
        }
    }
}

impl KeyLocks {
    /// Waits until the key is free.
    ///
    /// # Errors
    /// `deadline_exceeded`.
    pub(super) async fn lock_key(
        self: &Arc<Self>,
        idempotency_key: &IdempotencyKey,
        deadline: Instant,
    ) -> Result<KeyGuard> {
        let name = (idempotency_key.namespace.clone(), idempotency_key.key.clone());
        let turn = Arc::clone(self.lock().entry(name.clone()).or_default());
        let waiting = KeyWaiter { keys: Arc::clone(self), name, turn: Some(Arc::clone(&turn)) };
        match tokio::time::timeout_at(deadline.into(), turn.lock_owned()).await {
            Ok(turn) => Ok(KeyGuard { _turn: turn, _waiting: waiting }),
            Err(_) => Err(Error::new(
                Code::DeadlineExceeded,
                "another call with this idempotency key was under way until the deadline; nothing was done by this one",
            )),
        }
    }

    /// Nothing that panics runs while the lock is held.
    fn lock(&self) -> MutexGuard<'_, HashMap<ScopedKey, Arc<Turn<()>>>> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::KeyLocks;
    use crate::IdempotencyKey;
    use debros_proto::{Code, Namespace};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn a_key_is_one_callers_and_is_forgotten_after_the_last() {
        let keys = Arc::<KeyLocks>::default();
        let idempotency_key = |namespace| IdempotencyKey {
            namespace: Namespace::new(namespace).unwrap(),
            key: "k".to_owned(),
            request_hash: [0; 32],
        };
        let far = Instant::now() + Duration::from_secs(60);
        let first = keys.lock_key(&idempotency_key("a"), far).await.unwrap();
        // Another namespace's key of that name is another.
        drop(keys.lock_key(&idempotency_key("b"), far).await.unwrap());
        assert_eq!(
            keys.lock_key(&idempotency_key("a"), Instant::now()).await.unwrap_err().code,
            Code::DeadlineExceeded
        );
        let (waits, key) = (Arc::clone(&keys), idempotency_key("a"));
        let second = tokio::spawn(async move { waits.lock_key(&key, far).await });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        drop(second.await.unwrap().unwrap());
        assert!(keys.lock().is_empty());
    }
}
