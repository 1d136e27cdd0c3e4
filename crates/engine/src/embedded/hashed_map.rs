//! A map whose keys are hashes already.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are hashes under a secret of the process, as [`CallerKey`](crate::CallerKey)
/// is: hashing them again would cost as much as the look into the map.
pub(super) type HashedMap<K, V> = HashMap<K, V, BuildHasherDefault<KeyHasher>>;

/// Takes a key as it is.
#[derive(Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
