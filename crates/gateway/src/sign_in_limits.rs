//! How often one address, and one wallet from one address, may use the routes that need no
//! credential.
//!
//! A wallet is never limited alone: its address is no secret, so anybody could use up the limit and
//! lock its owner out.

use crate::GatewayLimits;
use crate::error::ApiError;
use debros_proto::network::caller_network;
use debros_proto::{Code, Error};
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use metrics::{Counter, counter, describe_counter};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

/// Addresses, or wallets with an address, that are remembered at a time. Further ones share
/// buckets: memory stays bounded, and nobody gets a fresh bucket by displacing others.
const MAX_KEYS: usize = 100_000;
/// Buckets for those beyond.
const SHARED_BUCKETS: u64 = 4096;

/// The limits of the sign-in routes.
pub(crate) struct SignInLimits {
    addresses: BoundedLimiter<IpAddr>,
    wallets: BoundedLimiter<(IpAddr, Box<str>)>,
}

impl SignInLimits {
    pub(crate) fn new(limits: &GatewayLimits) -> Self {
        describe_counter!(
            "debros_gateway_rate_limited_total",
            "Sign-in requests refused because there were too many"
        );
        Self {
            addresses: BoundedLimiter::new(
                "address",
                limits.sign_in_burst,
                limits.sign_in_period,
                MAX_KEYS,
                MonotonicClock,
            ),
            wallets: BoundedLimiter::new(
                "wallet",
                limits.wallet_burst,
                limits.wallet_period,
                MAX_KEYS,
                MonotonicClock,
            ),
        }
    }

    /// Counts a request of an address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(crate) fn count_address(&self, address: IpAddr) -> Result<(), ApiError> {
        self.addresses.check_key(caller_network(address))
    }

    /// Counts a request of an address that names a wallet. An invalid wallet is not counted: the
    /// node refuses it at once.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(crate) fn count_wallet(&self, address: IpAddr, wallet: &str) -> Result<(), ApiError> {
        let digits =
            wallet.strip_prefix("0x").or_else(|| wallet.strip_prefix("0X")).unwrap_or(wallet);
        if digits.len() != 40 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(());
        }
        self.wallets.check_key((caller_network(address), digits.to_ascii_lowercase().into()))
    }

    /// Drops the keys whose bucket is full again.
    pub(crate) fn prune(&self) {
        self.addresses.prune();
        self.wallets.prune();
    }
}

/// A key of its own, or one of the shared ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum BucketKey<K> {
    Own(K),
    Shared(u64),
}

type KeyedBuckets<K, C> = RateLimiter<
    BucketKey<K>,
    HashMapStateStore<BucketKey<K>>,
    C,
    NoOpMiddleware<<C as Clock>::Instant>,
>;

/// A bucket for each key, up to a bound.
struct BoundedLimiter<K: Hash + Eq + Clone, C: Clock = MonotonicClock> {
    buckets: KeyedBuckets<K, C>,
    clock: C,
    hasher: RandomState,
    max_keys: usize,
    limit_name: &'static str,
    refused: Counter,
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> BoundedLimiter<K, C> {
    fn new(
        what: &'static str,
        burst: NonZeroU32,
        period: Duration,
        max_keys: usize,
        clock: C,
    ) -> Self {
        // The period is not zero: the start of the gateway checks that.
        let quota = Quota::with_period(period)
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        Self {
            buckets: RateLimiter::new(quota, HashMapStateStore::default(), clock.clone()),
            clock,
            hasher: RandomState::new(),
            max_keys,
            limit_name: what,
            refused: counter!("debros_gateway_rate_limited_total", "limit" => what),
        }
    }

    fn check_key(&self, key: K) -> Result<(), ApiError> {
        // Counted without a lock held until the check: a few more keys than allowed may come in at
        // once.
        let bucket = if self.buckets.len() < self.max_keys {
            BucketKey::Own(key)
        } else {
            BucketKey::Shared(self.hasher.hash_one(&key) % SHARED_BUCKETS)
        };
        self.buckets.check_key(&bucket).map_err(|refusal| {
            self.refused.increment(1);
            let wait = refusal.wait_time_from(self.clock.now());
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            let message = format!(
                "too many sign-in requests {}: try again in {seconds} s",
                if self.limit_name == "wallet" {
                    "for this wallet from this address"
                } else {
                    "from this address"
                },
            );
            Error::new(Code::RateLimited, message).retry_after(wait).into()
        })
    }

    fn prune(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::{BoundedLimiter, SHARED_BUCKETS, SignInLimits, caller_network};
    use crate::GatewayLimits;
    use debros_proto::Code;
    use governor::clock::FakeRelativeClock;
    use std::net::IpAddr;
    use std::num::NonZeroU32;
    use std::time::Duration;

    const HOUR: Duration = Duration::from_secs(3600);

    fn limits() -> SignInLimits {
        SignInLimits::new(&GatewayLimits {
            sign_in_period: HOUR,
            wallet_period: HOUR,
            ..GatewayLimits::default()
        })
    }

    /// Lesson 10: nothing limited what an unauthenticated caller may ask.
    #[test]
    fn lesson_10_an_address_has_a_burst_and_then_waits() {
        let limits = limits();
        let (one, other): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert!((0..30).all(|_| limits.count_address(one).is_ok()));
        let refusal = limits.count_address(one).unwrap_err();
        assert_eq!(refusal.error().code, Code::RateLimited);
        assert!(refusal.error().retry_after.is_some_and(|wait| !wait.is_zero() && wait <= HOUR));
        assert!(limits.count_address(other).is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_caller_and_a_mapped_address_its_ipv4_one() {
        let network = |address: &str| caller_network(address.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn a_wallet_is_one_however_it_is_written() {
        let limits = limits();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let digits = "ab".repeat(20);
        for form in
            [format!("0x{digits}"), digits.to_uppercase(), format!("0X{digits}"), digits.clone()]
                .iter()
                .cycle()
                .take(10)
        {
            assert!(limits.count_wallet(address, form).is_ok());
        }
        assert_eq!(
            limits.count_wallet(address, &digits).unwrap_err().error().code,
            Code::RateLimited
        );
        assert!(limits.count_wallet(address, &"cd".repeat(20)).is_ok());
        assert!(
            (0..100).all(|_| limits.count_wallet(address, "no wallet").is_ok()),
            "the node refuses it"
        );
    }

    /// A wallet's address is public: anybody that knows it must not be able to lock its owner out.
    #[test]
    fn lesson_10_a_stranger_uses_up_no_wallets_limit_but_its_own() {
        let limits = limits();
        let digits = "ab".repeat(20);
        let (stranger, owner): (IpAddr, IpAddr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        let refused = (0..100).filter(|_| limits.count_wallet(stranger, &digits).is_err()).count();
        assert_eq!(refused, 90);
        assert!(
            limits.count_wallet("2001:db8::2".parse().unwrap(), &digits).is_err(),
            "the same network"
        );
        assert!((0..10).all(|_| limits.count_wallet(owner, &digits).is_ok()));
    }

    /// Lesson 10: memory grew with every caller.
    #[test]
    fn lesson_10_memory_is_bounded_and_nobody_is_shut_out_for_good() {
        let clock = FakeRelativeClock::default();
        let limiter =
            BoundedLimiter::new("address", NonZeroU32::new(2).unwrap(), HOUR, 1000, clock.clone());
        for key in 0..200_000_u32 {
            let _ = limiter.check_key(key);
        }
        assert!(limiter.buckets.len() as u64 <= 1000 + SHARED_BUCKETS);
        assert!(limiter.check_key(199_999).is_err(), "the shared buckets are empty");
        limiter.prune();
        assert!(limiter.buckets.len() > 1000, "what still counts is kept");
        clock.advance(3 * HOUR);
        limiter.prune();
        assert!(limiter.buckets.is_empty(), "full buckets are forgotten");
        assert!(limiter.check_key(1).is_ok());
    }

    #[test]
    fn one_more_is_let_through_in_each_period() {
        let clock = FakeRelativeClock::default();
        let limiter =
            BoundedLimiter::new("address", NonZeroU32::new(2).unwrap(), HOUR, 1000, clock.clone());
        assert!(limiter.check_key(1).is_ok() && limiter.check_key(1).is_ok());
        assert_eq!(limiter.check_key(1).unwrap_err().error().retry_after, Some(HOUR));
        clock.advance(HOUR);
        assert!(limiter.check_key(1).is_ok() && limiter.check_key(1).is_err());
    }
}
