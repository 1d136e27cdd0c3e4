//! How often one may ask.

use super::origin::{CountedPeer, Origin};
use crate::clock::Clock;
use debros_auth::Wallet;
use debros_proto::{Code, Error, Result};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Keys that one limit remembers. One that has not asked for the time its burst takes to fill again is forgotten.
const MAX_KEYS: usize = 100_000;
/// How often a full limit looks for keys to forget: the look takes longer the more there are.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// The limits of the calls that need no credential.
pub(super) struct Limits {
    /// All of them, from one peer, or from one user behind a gateway that is believed.
    peers: Limit<CountedPeer>,
    /// Proofs of a wallet that do not hold, with a nonce that this network made for it.
    failed_proofs: Limit<Wallet>,
    /// Proofs that hold. Counted apart, so that a stranger's attempts do not lock the wallet's owner out.
    proofs: Limit<Wallet>,
    /// Changes that a wallet makes to keys and members: each is kept, and written down besides.
    changes: Limit<Wallet>,
    /// Namespaces that become somebody's, by who brought the proof and the user it names: each stays for ever.
    claims: Limit<(CountedPeer, Option<IpAddr>)>,
    /// The same of all users that one peer names.
    claims_in_all: Limit<CountedPeer>,
}

impl Limits {
    pub(super) fn new(clock: &Clock) -> Self {
        let per_wallet = || Quota::with_period(Duration::from_secs(6)).map(|quota| quota.allow_burst(count(10)));
        let per_wallet = per_wallet().unwrap_or(Quota::per_minute(count(10)));
        Self {
            peers: Limit::new(Quota::per_second(count(200)).allow_burst(count(1000)), clock),
            failed_proofs: Limit::new(per_wallet, clock),
            proofs: Limit::new(per_wallet, clock),
            changes: Limit::new(Quota::per_second(count(1)).allow_burst(count(30)), clock),
            claims: Limit::new(Quota::per_minute(count(6)).allow_burst(count(20)), clock),
            claims_in_all: Limit::new(Quota::per_minute(count(30)).allow_burst(count(100)), clock),
        }
    }

    /// Counts a public call. A gateway has limits of its own for its users.
    pub(super) fn call(&self, origin: Origin) -> Result<()> {
        match origin {
            Origin::User(None) => Ok(()),
            Origin::User(Some(user)) => {
                self.peers.check(CountedPeer::Network(user)).map_err(|wait| limited("this address", wait))
            }
            Origin::Peer { peer, .. } => self.peers.check(peer).map_err(|wait| limited("this peer", wait)),
        }
    }

    /// Counts a proof that does not hold.
    pub(super) fn failed_proof(&self, wallet: Wallet) -> Result<()> {
        self.failed_proofs.check(wallet).map_err(|wait| limited("this wallet", wait))
    }

    /// Counts a proof that holds.
    pub(super) fn proof(&self, wallet: Wallet) -> Result<()> {
        self.proofs.check(wallet).map_err(|wait| limited("this wallet", wait))
    }

    /// Counts a change to keys or members.
    pub(super) fn change(&self, wallet: Wallet) -> Result<()> {
        let many = "too many changes to keys and members by this wallet";
        self.changes.check(wallet).map_err(|wait| refused(many, wait))
    }

    /// Counts a namespace that a wallet is about to own. A peer that is not believed about its users may name many, and
    /// gets five times what a single one gets, not more.
    pub(super) fn claim(&self, origin: Origin) -> Result<()> {
        let refused = |whom: &str, wait| refused(&format!("too many new namespaces from this {whom}"), wait);
        match origin {
            Origin::User(None) => Ok(()),
            Origin::User(Some(user)) => {
                self.claims.check((CountedPeer::Network(user), None)).map_err(|wait| refused("address", wait))
            }
            Origin::Peer { peer, named } => {
                let whom = if named.is_some() { "address" } else { "peer" };
                self.claims.check((peer, named)).map_err(|wait| refused(whom, wait))?;
                self.claims_in_all.check(peer).map_err(|wait| refused("gateway", wait))
            }
        }
    }

    /// Forgets who has not asked for long.
    pub(super) fn tidy(&self) {
        self.peers.tidy();
        self.failed_proofs.tidy();
        self.proofs.tidy();
        self.changes.tidy();
        self.claims.tidy();
        self.claims_in_all.tidy();
    }
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

fn limited(whom: &str, wait: Duration) -> Error {
    refused(&format!("too many sign-in requests for {whom}"), wait)
}

fn refused(what: &str, wait: Duration) -> Error {
    // In whole seconds, at least one: that is how HTTP tells it on.
    let wait = Duration::from_secs(wait.as_secs() + 1);
    let message = format!("{what}: try again in {} s", wait.as_secs());
    Error::new(Code::RateLimited, message).retry_after(wait)
}

type Buckets<K> = RateLimiter<K, HashMapStateStore<K>, SinceStart, NoOpMiddleware<Nanos>>;

struct Limit<K: Hash + Eq + Clone> {
    buckets: Buckets<K>,
    clock: SinceStart,
    tidied: Mutex<Instant>,
}

impl<K: Hash + Eq + Clone> Limit<K> {
    fn new(quota: Quota, clock: &Clock) -> Self {
        let clock = SinceStart { began: clock.instant(), clock: clock.clone() };
        let buckets = RateLimiter::new(quota, HashMapStateStore::default(), clock.clone());
        Self { buckets, tidied: Mutex::new(clock.began), clock }
    }

    /// Passes, or says how long to wait.
    fn check(&self, key: K) -> Result<(), Duration> {
        if self.buckets.len() >= MAX_KEYS {
            self.tidy_now_and_then();
            if self.buckets.len() >= MAX_KEYS {
                return Err(TIDY_INTERVAL);
            }
        }
        self.buckets.check_key(&key).map_err(|until| until.wait_time_from(governor::clock::Clock::now(&self.clock)))
    }

    fn tidy(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }

    fn tidy_now_and_then(&self) {
        let now = self.clock.clock.instant();
        let mut tidied = self.tidied.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(*tidied) >= TIDY_INTERVAL {
            *tidied = now;
            self.buckets.retain_recent();
        }
    }
}

/// The service's clock as the library reads it.
#[derive(Clone)]
struct SinceStart {
    clock: Clock,
    began: Instant,
}

impl governor::clock::Clock for SinceStart {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.clock.instant().saturating_duration_since(self.began).into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Limit, MAX_KEYS, Quota, count};
    use crate::clock::Clock;
    use std::time::Duration;

    #[test]
    fn a_burst_then_one_at_a_time() {
        let clock = Clock::movable();
        let limit = Limit::new(Quota::per_minute(count(10)), &clock);
        for _ in 0..10 {
            limit.check(1_u32).unwrap();
        }
        let wait = limit.check(1).unwrap_err();
        assert!(wait <= Duration::from_secs(6), "{wait:?}");
        limit.check(2).unwrap();
        clock.advance(Duration::from_secs(6));
        limit.check(1).unwrap();
        limit.check(1).unwrap_err();
    }

    /// Lesson 10: whoever asks from ever new names must not fill the memory.
    #[test]
    fn lesson_10_a_limit_remembers_a_bounded_number_of_names() {
        let clock = Clock::movable();
        let limit = Limit::new(Quota::per_minute(count(10)), &clock);
        let refused = (0..2 * MAX_KEYS).filter(|name| limit.check(*name).is_err()).count();
        assert!(limit.buckets.len() <= MAX_KEYS && refused > 0, "{} {refused}", limit.buckets.len());
        clock.advance(Duration::from_secs(600));
        limit.check(usize::MAX).unwrap();
        assert!(limit.buckets.len() < 10, "{}", limit.buckets.len());
    }
}
