//! How often one may ask.

use super::call_origin::{CallOrigin, CountedPeer};
use crate::clock::Clock;
use debros_auth::Wallet;
use debros_proto::lock;
use debros_proto::{Code, Error, Result};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Keys that one limit holds. One without a call for the time that its burst takes to fill again is
/// removed.
const MAX_KEYS: usize = 100_000;
/// How often a full limit searches for keys to remove: the search takes longer the more there are.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// The limits of the calls that need no credential.
pub(super) struct AuthRateLimits {
    /// All of them, from one peer, or from one user behind a trusted gateway.
    peers: KeyedLimit<CountedPeer>,
    /// Proofs of a wallet that do not hold, with a nonce that this network made for it.
    failed_proofs: KeyedLimit<Wallet>,
    /// Proofs that hold. Counted apart, so that a stranger's attempts do not lock the wallet's
    /// owner out.
    proofs: KeyedLimit<Wallet>,
    /// Changes that a wallet makes to keys and members: each is kept, and written down besides.
    changes: KeyedLimit<Wallet>,
    /// Namespaces that get an owner, by the peer that brought the proof and the user it names: each
    /// stays forever.
    claims: KeyedLimit<(CountedPeer, Option<IpAddr>)>,
    /// The same of all users that one peer names.
    claims_in_all: KeyedLimit<CountedPeer>,
}

impl AuthRateLimits {
    pub(super) fn new(clock: &Clock) -> Self {
        let per_wallet = || {
            Quota::with_period(Duration::from_secs(6)).map(|quota| quota.allow_burst(nonzero(10)))
        };
        let per_wallet = per_wallet().unwrap_or(Quota::per_minute(nonzero(10)));
        Self {
            peers: KeyedLimit::new(
                Quota::per_second(nonzero(200)).allow_burst(nonzero(1000)),
                clock,
            ),
            failed_proofs: KeyedLimit::new(per_wallet, clock),
            proofs: KeyedLimit::new(per_wallet, clock),
            changes: KeyedLimit::new(Quota::per_second(nonzero(1)).allow_burst(nonzero(30)), clock),
            claims: KeyedLimit::new(Quota::per_minute(nonzero(6)).allow_burst(nonzero(20)), clock),
            claims_in_all: KeyedLimit::new(
                Quota::per_minute(nonzero(30)).allow_burst(nonzero(100)),
                clock,
            ),
        }
    }

    /// Counts a public call. A gateway has limits of its own for its users.
    pub(super) fn count_call(&self, origin: CallOrigin) -> Result<()> {
        match origin {
            CallOrigin::User(None) => Ok(()),
            CallOrigin::User(Some(user)) => self
                .peers
                .check_key(CountedPeer::Network(user))
                .map_err(|wait| sign_in_rate_limited("this address", wait)),
            CallOrigin::Peer { peer, .. } => {
                self.peers.check_key(peer).map_err(|wait| sign_in_rate_limited("this peer", wait))
            }
        }
    }

    /// Counts a proof that does not hold.
    pub(super) fn count_failed_proof(&self, wallet: Wallet) -> Result<()> {
        self.failed_proofs
            .check_key(wallet)
            .map_err(|wait| sign_in_rate_limited("this wallet", wait))
    }

    /// Counts a proof that holds.
    pub(super) fn count_proof(&self, wallet: Wallet) -> Result<()> {
        self.proofs.check_key(wallet).map_err(|wait| sign_in_rate_limited("this wallet", wait))
    }

    /// Counts a change to keys or members.
    pub(super) fn count_change(&self, wallet: Wallet) -> Result<()> {
        let many = "too many changes to keys and members by this wallet";
        self.changes.check_key(wallet).map_err(|wait| rate_limited(many, wait))
    }

    /// Counts a namespace that a wallet is about to own. A peer that is not trusted about its users
    /// may name many, and gets five times what a single one gets, not more.
    pub(super) fn count_claim(&self, origin: CallOrigin) -> Result<()> {
        let refused = |counted: &str, wait| {
            rate_limited(&format!("too many new namespaces from this {counted}"), wait)
        };
        match origin {
            CallOrigin::User(None) => Ok(()),
            CallOrigin::User(Some(user)) => self
                .claims
                .check_key((CountedPeer::Network(user), None))
                .map_err(|wait| refused("address", wait)),
            CallOrigin::Peer { peer, named } => {
                let counted = if named.is_some() { "address" } else { "peer" };
                self.claims.check_key((peer, named)).map_err(|wait| refused(counted, wait))?;
                self.claims_in_all.check_key(peer).map_err(|wait| refused("gateway", wait))
            }
        }
    }

    /// Removes the keys without a recent call.
    pub(super) fn prune(&self) {
        self.peers.prune();
        self.failed_proofs.prune();
        self.proofs.prune();
        self.changes.prune();
        self.claims.prune();
        self.claims_in_all.prune();
    }
}

fn nonzero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

fn sign_in_rate_limited(counted: &str, wait: Duration) -> Error {
    rate_limited(&format!("too many sign-in requests for {counted}"), wait)
}

fn rate_limited(what: &str, wait: Duration) -> Error {
    // In whole seconds, at least one: HTTP's Retry-After has no smaller unit.
    let wait = Duration::from_secs(wait.as_secs() + 1);
    let message = format!("{what}: try again in {} s", wait.as_secs());
    Error::new(Code::RateLimited, message).retry_after(wait)
}

type RateBuckets<K> = RateLimiter<K, HashMapStateStore<K>, GovernorClock, NoOpMiddleware<Nanos>>;

struct KeyedLimit<K: Hash + Eq + Clone> {
    buckets: RateBuckets<K>,
    clock: GovernorClock,
    tidied: Mutex<Instant>,
}

impl<K: Hash + Eq + Clone> KeyedLimit<K> {
    fn new(quota: Quota, clock: &Clock) -> Self {
        let clock = GovernorClock { began: clock.instant(), clock: clock.clone() };
        let buckets = RateLimiter::new(quota, HashMapStateStore::default(), clock.clone());
        Self { buckets, tidied: Mutex::new(clock.began), clock }
    }

    /// Passes, or says how long to wait.
    fn check_key(&self, key: K) -> Result<(), Duration> {
        if self.buckets.len() >= MAX_KEYS {
            self.prune_if_due();
            if self.buckets.len() >= MAX_KEYS {
                return Err(TIDY_INTERVAL);
            }
        }
        self.buckets
            .check_key(&key)
            .map_err(|until| until.wait_time_from(governor::clock::Clock::now(&self.clock)))
    }

    fn prune(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }

    fn prune_if_due(&self) {
        let now = self.clock.clock.instant();
        let mut tidied = lock(&self.tidied);
        if now.saturating_duration_since(*tidied) >= TIDY_INTERVAL {
            *tidied = now;
            self.buckets.retain_recent();
        }
    }
}

/// The service's clock as the library reads it.
#[derive(Clone)]
struct GovernorClock {
    clock: Clock,
    began: Instant,
}

impl governor::clock::Clock for GovernorClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.clock.instant().saturating_duration_since(self.began).into()
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyedLimit, MAX_KEYS, Quota, nonzero};
    use crate::clock::Clock;
    use std::time::Duration;

    #[test]
    fn a_burst_then_one_at_a_time() {
        let clock = Clock::movable();
        let limit = KeyedLimit::new(Quota::per_minute(nonzero(10)), &clock);
        for _ in 0..10 {
            limit.check_key(1_u32).unwrap();
        }
        let wait = limit.check_key(1).unwrap_err();
        assert!(wait <= Duration::from_secs(6), "{wait:?}");
        limit.check_key(2).unwrap();
        clock.advance(Duration::from_secs(6));
        limit.check_key(1).unwrap();
        limit.check_key(1).unwrap_err();
    }

    /// Lesson 10: calls under ever new names must not fill the memory.
    #[test]
    fn lesson_10_a_limit_remembers_a_bounded_number_of_names() {
        let clock = Clock::movable();
        let limit = KeyedLimit::new(Quota::per_minute(nonzero(10)), &clock);
        let refused = (0..2 * MAX_KEYS).filter(|name| limit.check_key(*name).is_err()).count();
        assert!(
            limit.buckets.len() <= MAX_KEYS && refused > 0,
            "{} {refused}",
            limit.buckets.len()
        );
        clock.advance(Duration::from_secs(600));
        limit.check_key(usize::MAX).unwrap();
        assert!(limit.buckets.len() < 10, "{}", limit.buckets.len());
    }
}
