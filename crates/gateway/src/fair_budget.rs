//! The amounts that callers may hold of this process at a time: bytes in memory, or WebSockets.
//!
//! No caller holds more than is left free for the others: no address (of IPv6: no /64 network) and
//! no credential. So a single caller gets half, two get a third each, and the next one finds as
//! much free as the greediest holds. No share has to be configured, and there is no last place that
//! one could take.
//!
//! A part may be reserved for callers whose credential a node has accepted before, because the
//! shares of many strangers together come close to the whole.
//!
//! Callers are counted in a fixed number of buckets, chosen by a secret hash. That takes no lock
//! and no memory for each caller; two that meet in one bucket count as one.

use crate::error::ApiError;
use debros_proto::Code;
use debros_proto::network::caller_network;
use metrics::{Counter, counter, describe_counter};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Buckets for addresses, and as many for credentials.
const BUCKETS: u16 = 8192;
/// The amount that one caller may hold of a small budget, whatever is left: otherwise a limit of 1
/// would admit nobody.
pub(crate) const MIN_SHARE: usize = 4;

/// The holder of an amount: the buckets of the caller's address and credential, as far as they are
/// known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallerBuckets {
    address: Option<u16>,
    /// The whole hash; its bucket is the remainder.
    credential: Option<u64>,
    /// A node has accepted the credential before, or one that came over the same connection.
    is_proven: bool,
}

impl CallerBuckets {
    /// Whether the caller showed a credential.
    pub(crate) fn shows_credential(&self) -> bool {
        self.credential.is_some()
    }

    /// Whether the reserve for proven callers is open to this one.
    pub(crate) fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// The same caller, proven or not.
    pub(crate) fn with_proven(self, is_proven: bool) -> Self {
        Self { is_proven, ..self }
    }

    fn buckets(self) -> impl Iterator<Item = usize> {
        let credential =
            self.credential.map(|hash| usize::from(bucket_index(hash)) + usize::from(BUCKETS));
        self.address.map(usize::from).into_iter().chain(credential)
    }
}

/// Finds the buckets of callers, and remembers the valid credentials.
pub(crate) struct CallerHasher {
    hasher: RandomState,
    /// For each bucket the hash of the credential that was last accepted; 0 if none was.
    proven: Box<[AtomicU64]>,
}

impl Default for CallerHasher {
    fn default() -> Self {
        let proven = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { hasher: RandomState::new(), proven }
    }
}

impl CallerHasher {
    /// All callers from an address.
    pub(crate) fn for_address(&self, address: IpAddr) -> CallerBuckets {
        let address = Some(bucket_index(self.hasher.hash_one(caller_network(address))));
        CallerBuckets { address, ..CallerBuckets::default() }
    }

    /// The same caller, with the credential that it shows.
    pub(crate) fn with_credential(
        &self,
        holder: CallerBuckets,
        credential: Option<&str>,
    ) -> CallerBuckets {
        let credential = credential.map(|credential| self.hasher.hash_one(credential));
        let is_proven = credential.is_some_and(|hash| self.proven_slot(hash).load(Relaxed) == hash);
        CallerBuckets { credential, is_proven, ..holder }
    }

    /// A node has accepted the caller's credential. A known caller may use the reserve of memory,
    /// and nothing else follows from it.
    pub(crate) fn mark_proven(&self, holder: CallerBuckets) {
        if let Some(hash) = holder.credential {
            self.proven_slot(hash).store(hash, Relaxed);
        }
    }

    fn proven_slot(&self, hash: u64) -> &AtomicU64 {
        &self.proven[usize::from(bucket_index(hash))]
    }
}

fn bucket_index(hash: u64) -> u16 {
    // The remainder is less than BUCKETS.
    (hash % u64::from(BUCKETS)) as u16
}

/// Why an amount does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BudgetExceeded {
    /// The caller holds as much as is left for all others.
    Caller,
    /// All callers together hold everything.
    All,
}

/// An amount that callers share.
pub(crate) struct FairBudget {
    limit: usize,
    /// The part of the limit that is for proven callers alone.
    reserve: usize,
    held: AtomicUsize,
    buckets: Box<[AtomicUsize]>,
    of_caller: Counter,
    of_all: Counter,
}

impl FairBudget {
    /// The same for every caller. `what` names it in the metrics.
    pub(crate) fn new(what: &'static str, limit: usize) -> Arc<Self> {
        Self::with_reserve(what, limit, 0)
    }

    /// A part of it, the reserve, is for proven callers alone.
    pub(crate) fn with_reserve(what: &'static str, limit: usize, reserve: usize) -> Arc<Self> {
        describe_counter!(
            "debros_gateway_refused_total",
            "Refused because the caller, or all callers, hold as much as they may"
        );
        Arc::new(Self {
            limit,
            reserve,
            held: AtomicUsize::new(0),
            buckets: (0..usize::from(BUCKETS) * 2).map(|_| AtomicUsize::new(0)).collect(),
            of_caller: counter!("debros_gateway_refused_total", "what" => what, "limit" => "caller"),
            of_all: counter!("debros_gateway_refused_total", "what" => what, "limit" => "all"),
        })
    }

    /// The amount that is held now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Takes an amount if it fits.
    pub(crate) fn charge(
        self: &Arc<Self>,
        holder: CallerBuckets,
        amount: usize,
    ) -> Result<ChargeGuard, BudgetExceeded> {
        let mut charge = self.empty_charge(holder);
        charge.resize(amount)?;
        Ok(charge)
    }

    /// A charge of nothing, to be resized later.
    pub(crate) fn empty_charge(self: &Arc<Self>, holder: CallerBuckets) -> ChargeGuard {
        ChargeGuard { budget: Arc::clone(self), holder, amount: 0 }
    }

    /// Takes an amount whether it fits or not, and returns whether it does: for data that is in
    /// memory already. If it does not fit, the holder releases it soon.
    pub(crate) fn charge_unchecked(
        &self,
        holder: CallerBuckets,
        amount: usize,
    ) -> Result<(), BudgetExceeded> {
        let held = self.held.fetch_add(amount, Relaxed) + amount;
        let limit = if holder.is_proven() { self.limit } else { self.limit - self.reserve };
        let share = limit.saturating_sub(held).max(MIN_SHARE);
        let mut fits = true;
        for bucket in holder.buckets() {
            fits &= self.buckets[bucket].fetch_add(amount, Relaxed) + amount <= share;
        }
        let refused = match (held <= limit, fits) {
            (true, true) => return Ok(()),
            (true, false) => BudgetExceeded::Caller,
            (false, _) => BudgetExceeded::All,
        };
        match refused {
            BudgetExceeded::Caller => self.of_caller.increment(1),
            BudgetExceeded::All => self.of_all.increment(1),
        }
        Err(refused)
    }

    /// Returns an amount.
    pub(crate) fn release(&self, holder: CallerBuckets, amount: usize) {
        self.held.fetch_sub(amount, Relaxed);
        for bucket in holder.buckets() {
            self.buckets[bucket].fetch_sub(amount, Relaxed);
        }
    }
}

/// A part of a budget; dropping it returns it.
pub(crate) struct ChargeGuard {
    budget: Arc<FairBudget>,
    holder: CallerBuckets,
    amount: usize,
}

impl ChargeGuard {
    /// Holds another amount from now on, or the present one if that does not fit. Two callers that
    /// ask at the same time may both be refused at the edge.
    pub(crate) fn resize(&mut self, amount: usize) -> Result<(), BudgetExceeded> {
        if amount == self.amount {
            return Ok(());
        }
        if amount < self.amount {
            self.budget.release(self.holder, self.amount - amount);
        } else {
            let more = amount - self.amount;
            self.budget
                .charge_unchecked(self.holder, more)
                .inspect_err(|_| self.budget.release(self.holder, more))?;
        }
        self.amount = amount;
        Ok(())
    }
}

impl Drop for ChargeGuard {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.budget.release(self.holder, self.amount);
        }
    }
}

/// A request that takes more memory than is available.
impl From<BudgetExceeded> for ApiError {
    fn from(refused: BudgetExceeded) -> Self {
        match refused {
            BudgetExceeded::Caller => Self::new(
                Code::RateLimited,
                "this address or credential has too much under way here (requests that arrive, answers that are not read \
                 yet): read the answers and send fewer requests at a time",
            ),
            BudgetExceeded::All => Self::new(
                Code::Overloaded,
                "the gateway has too many requests under way: try again in a moment",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BudgetExceeded, CallerBuckets, CallerHasher, ChargeGuard, FairBudget, MIN_SHARE};
    use std::sync::Arc;

    fn holder(callers: &CallerHasher, address: &str, credential: Option<&str>) -> CallerBuckets {
        callers.with_credential(callers.for_address(address.parse().unwrap()), credential)
    }

    /// Takes as much as it gets.
    fn greedy(budget: &Arc<FairBudget>, holder: CallerBuckets, step: usize) -> Vec<ChargeGuard> {
        std::iter::from_fn(|| budget.charge(holder, step).ok()).collect()
    }

    #[test]
    fn one_caller_leaves_as_much_as_it_takes() {
        let (callers, budget) = (CallerHasher::default(), FairBudget::new("test", 1000));
        let first = greedy(&budget, holder(&callers, "192.0.2.1", None), 10);
        assert_eq!(first.len(), 50);
        let second = greedy(&budget, holder(&callers, "192.0.2.2", None), 10);
        assert_eq!(second.len(), 25, "half of what the first has left");
        assert!(budget.charge(holder(&callers, "192.0.2.3", None), 100).is_ok());
        drop((first, second));
        assert_eq!(budget.held(), 0);
        assert!(budget.charge(holder(&callers, "192.0.2.2", None), 500).is_ok());
    }

    #[test]
    fn a_credential_is_one_caller_from_everywhere_and_an_ipv6_network_too() {
        let (callers, budget) = (CallerHasher::default(), FairBudget::new("test", 1000));
        let of_key = |host: u32| holder(&callers, &format!("192.0.2.{host}"), Some("key"));
        let held: Vec<_> = (1..=5).map(|host| budget.charge(of_key(host), 100).unwrap()).collect();
        assert_eq!(budget.charge(of_key(6), 100).err(), Some(BudgetExceeded::Caller));
        assert!(budget.charge(holder(&callers, "192.0.2.6", Some("another")), 100).is_ok());
        drop(held);
        let in_network = |host: u32| holder(&callers, &format!("2001:db8::{host}"), None);
        let _held: Vec<_> =
            (1..=5).map(|host| budget.charge(in_network(host), 100).unwrap()).collect();
        assert_eq!(budget.charge(in_network(6), 100).err(), Some(BudgetExceeded::Caller));
        assert!(budget.charge(holder(&callers, "2001:db8:0:1::1", None), 100).is_ok());
    }

    #[test]
    fn however_many_come_the_whole_is_never_exceeded_and_a_refusal_holds_nothing() {
        let (callers, budget) = (CallerHasher::default(), FairBudget::new("test", 10_000));
        let mut held = Vec::new();
        for host in 0..500_u32 {
            held.extend(greedy(
                &budget,
                holder(&callers, &format!("10.0.{}.{}", host / 250, host % 250), None),
                7,
            ));
        }
        assert!(budget.held() <= 10_000);
        let before = budget.held();
        assert!(budget.charge(holder(&callers, "10.0.0.1", None), 10_001).is_err());
        let mut growing = budget.charge(holder(&callers, "10.9.9.9", None), 1).unwrap();
        assert!(growing.resize(10_000).is_err() && growing.amount == 1);
        drop(growing);
        assert_eq!(budget.held(), before);
    }

    /// 22 addresses with made-up keys held so much that the operator's requests did not fit.
    #[test]
    fn strangers_leave_a_part_to_whom_is_known() {
        let (callers, budget) =
            (CallerHasher::default(), FairBudget::with_reserve("test", 1000, 125));
        let key = |host: &str| holder(&callers, host, Some("key"));
        assert!(!key("192.0.2.1").is_proven());
        callers.mark_proven(key("192.0.2.1"));
        let mut held = Vec::new();
        for host in 0..250 {
            held.extend(greedy(
                &budget,
                holder(&callers, &format!("10.0.0.{host}"), Some(&format!("made up {host}"))),
                1,
            ));
        }
        assert_eq!(budget.held(), 875);
        assert_eq!(
            budget.charge(holder(&callers, "192.0.2.1", None), 1).err(),
            Some(BudgetExceeded::All)
        );
        assert!(budget.charge(key("192.0.2.2"), 60).is_ok());
        // The released amount is the taken one, whatever was learnt meanwhile.
        let late = holder(&callers, "192.0.2.3", Some("late"));
        held.truncate(100);
        let charge = budget.charge(late, 10).unwrap();
        callers.mark_proven(late);
        drop((charge, held));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_small_budget_works_too() {
        let (callers, budget) = (CallerHasher::default(), FairBudget::new("test", 1));
        let only = holder(&callers, "192.0.2.1", Some("key"));
        let one = budget.charge(only, 1).unwrap();
        assert_eq!(budget.charge(only, 1).err(), Some(BudgetExceeded::All));
        drop(one);
        assert_eq!(greedy(&FairBudget::new("test", MIN_SHARE), only, 1).len(), MIN_SHARE);
    }
}
