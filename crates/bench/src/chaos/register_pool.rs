//! Which registers clients call: each takes few calls, so that the order of all of them can be
//! looked for, and then another takes its place.

use super::random::Random;
use std::sync::{Mutex, PoisonError};

/// Registers that are called at the same time. Draws prefer the first ones, so that some last
/// longer than a fault.
const OPEN: usize = 6;
/// Calls on one register.
const CALLS: u32 = 24;

/// The registers that are called now.
#[derive(Debug)]
pub(crate) struct RegisterPool(Mutex<PoolState>);

#[derive(Debug)]
struct PoolState {
    open: Vec<(PickedRegister, u32)>,
    made: u64,
}

/// A register for one call.
#[derive(Clone, Debug)]
pub(crate) struct PickedRegister {
    pub(crate) name: String,
    /// A row of `registers`; else a key-value pair.
    pub(crate) is_sql: bool,
}

impl PoolState {
    fn make(&mut self) -> (PickedRegister, u32) {
        self.made += 1;
        let is_sql = self.made.is_multiple_of(2);
        let name = format!("{}{}", if is_sql { "sql" } else { "kv" }, self.made);
        (PickedRegister { name, is_sql }, CALLS)
    }
}

impl RegisterPool {
    pub(crate) fn new() -> Self {
        let mut state = PoolState { open: Vec::new(), made: 0 };
        for _ in 0..OPEN {
            let register = state.make();
            state.open.push(register);
        }
        Self(Mutex::new(state))
    }

    pub(crate) fn pick(&self, random: &mut Random) -> PickedRegister {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = random.index(OPEN).min(random.index(OPEN));
        let (register, left) = &mut state.open[index];
        let picked = register.clone();
        *left -= 1;
        if *left == 0 {
            state.open[index] = state.make();
        }
        picked
    }

    /// How many registers there have been.
    pub(crate) fn made(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).made
    }
}

#[cfg(test)]
mod tests {
    use super::{CALLS, RegisterPool};
    use crate::chaos::random::Random;
    use std::collections::BTreeMap;

    #[test]
    fn no_register_takes_more_calls_than_it_may() {
        let (pool, mut random) = (RegisterPool::new(), Random::new(1));
        let mut calls = BTreeMap::<String, u32>::new();
        for _ in 0..10_000 {
            *calls.entry(pool.pick(&mut random).name).or_default() += 1;
        }
        assert_eq!(calls.values().max(), Some(&CALLS));
        assert!(calls.len() as u64 <= pool.made());
        let of_kind = |kind| calls.keys().filter(|name| name.starts_with(kind)).count();
        assert!(of_kind("sql") > 100 && of_kind("kv") > 100, "{calls:?}");
    }
}
