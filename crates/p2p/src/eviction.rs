//! Which connection makes room when all places are taken and a newcomer arrives.
//!
//! A newcomer has proven nothing yet, and cannot before it is let in. So room is made for it, by
//! rules that leave no network more than its share and no useful peer without a place:
//!
//! 1. a stranger that is idle goes, wherever it is from;
//! 2. a stranger goes whose network has at least two places more than the newcomer's would have
//!    without it;
//! 3. of such a network a member goes that is idle, or any, when the network has more than half of
//!    all places;
//! 4. an eighth of all places is a reserve: of those in it the one that came last goes, once it had
//!    its moment to prove itself.
//!
//! Within a rule the network with the most places loses one, and there the peer that was of use the
//! longest ago. Operators never go, nor connections that this host made itself.

use crate::peer_trust::{PeerTrust, TrustLevel};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One place in so many is in the reserve, which no peer keeps before it has proven itself.
const RESERVE_SHARE: u32 = 8;
/// How long a newcomer in the reserve has to show a credential before the next one may take its
/// place.
const RESERVE_GRACE: Duration = Duration::from_secs(2);

/// One established connection.
pub(crate) struct ConnectionSlot {
    pub(crate) network: Option<IpAddr>,
    /// This host dialled: the peer is no guest.
    pub(crate) is_outbound: bool,
    pub(crate) since: Instant,
    pub(crate) trust: Arc<PeerTrust>,
}

/// The connection that makes room for a newcomer from a network; `None`: it has to be refused.
pub(crate) fn choose_victim<'a, Id: Copy + Hash + Ord + 'a>(
    slots: impl Iterator<Item = (Id, &'a ConnectionSlot)> + Clone,
    max: u32,
    newcomer: Option<IpAddr>,
    now: Instant,
) -> Option<Id> {
    let mut shares: HashMap<Option<IpAddr>, u32> = HashMap::new();
    for (_, slot) in slots.clone() {
        *shares.entry(slot.network).or_default() += 1;
    }
    let own = shares.get(&newcomer).copied().unwrap_or(0);
    let guests =
        slots.filter(|(_, slot)| !slot.is_outbound && slot.trust.level() < TrustLevel::Operator);
    let by_rule = guests.clone().filter_map(|(id, slot)| {
        let share = shares[&slot.network];
        let (is_idle, has_more) = (slot.trust.is_idle(now), share >= own + 2);
        let rule = match slot.trust.level() {
            TrustLevel::Stranger if is_idle => 1,
            TrustLevel::Stranger if has_more => 2,
            TrustLevel::Member if has_more && (is_idle || share > max / 2) => 3,
            _ => return None,
        };
        Some((rule, Reverse(share), slot.trust.last_use(), id))
    });
    by_rule.min().map(|(.., id)| id).or_else(|| {
        let mut guests: Vec<_> = guests.collect();
        // A peer that has proven itself is not in the reserve; of the others those are that came
        // last.
        guests.sort_by_key(|(id, slot)| (Reverse(slot.trust.level()), slot.since, *id));
        let reserve = guests.get((max - max / RESERVE_SHARE) as usize..).unwrap_or_default();
        let settled = reserve
            .iter()
            .filter(|(_, slot)| now.saturating_duration_since(slot.since) >= RESERVE_GRACE);
        settled.min_by_key(|(id, slot)| (slot.trust.last_use(), *id)).map(|(id, _)| *id)
    })
}

#[cfg(test)]
mod tests {
    use super::{ConnectionSlot, RESERVE_GRACE, choose_victim};
    use crate::peer_trust::{IDLE_AFTER, PeerTrust, TrustLevel};
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    fn network(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    fn slot(from: u8, level: TrustLevel) -> ConnectionSlot {
        let trust = Arc::new(PeerTrust::stranger(network(from)));
        trust.raise_level(level);
        ConnectionSlot { network: network(from), is_outbound: false, since: Instant::now(), trust }
    }

    fn slots(of: &[(u8, TrustLevel, usize)]) -> Vec<ConnectionSlot> {
        of.iter()
            .flat_map(|(from, level, count)| (0..*count).map(|_| slot(*from, *level)))
            .collect()
    }

    fn victim(slots: &[ConnectionSlot], newcomer: u8, after: Duration) -> Option<usize> {
        let max = u32::try_from(slots.len()).unwrap();
        choose_victim(slots.iter().enumerate(), max, network(newcomer), Instant::now() + after)
    }

    const NOW: Duration = Duration::ZERO;
    use TrustLevel::{Member, Operator, Stranger};

    #[test]
    fn one_network_does_not_keep_all_places() {
        let full = slots(&[(1, Stranger, 5), (2, Stranger, 1)]);
        assert!(victim(&full, 3, NOW).is_some_and(|index| index < 5));
        assert_eq!(victim(&full, 1, NOW), None, "not for one of its own");
        // Two networks share what there is, and neither throws the other out forever.
        let shared = slots(&[(1, Stranger, 3), (2, Stranger, 3)]);
        assert_eq!((victim(&shared, 1, NOW), victim(&shared, 2, NOW)), (None, None));
        let uneven = slots(&[(1, Stranger, 4), (2, Stranger, 3)]);
        assert_eq!(victim(&uneven, 2, NOW), None);
    }

    #[test]
    fn idle_strangers_make_room_for_everybody() {
        let full = slots(&[(1, Stranger, 1), (2, Stranger, 1), (3, Member, 1)]);
        assert_eq!(victim(&full, 4, NOW), None);
        let _busy = full[0].trust.begin_call();
        assert_eq!(victim(&full, 4, IDLE_AFTER), Some(1), "the idle one that has proven nothing");
        assert_eq!(victim(&full, 2, IDLE_AFTER), Some(1), "for its own neighbours too");
        full[1].trust.raise_level(Member);
        assert_eq!(victim(&full, 4, IDLE_AFTER), None);
    }

    #[test]
    fn the_least_recently_useful_goes() {
        let full = slots(&[(1, Stranger, 4)]);
        std::thread::sleep(Duration::from_millis(5));
        for index in [0, 1, 3] {
            drop(full[index].trust.begin_call());
        }
        assert_eq!(victim(&full, 2, NOW), Some(2));
    }

    #[test]
    fn who_has_proven_itself_stays_and_is_held_to_half() {
        let half = slots(&[(1, Member, 4), (2, Stranger, 2), (3, Stranger, 2)]);
        let _busy: Vec<_> = half.iter().map(|slot| slot.trust.begin_call()).collect();
        assert!(
            victim(&half, 4, NOW).is_some_and(|index| index >= 4),
            "members keep their places before strangers"
        );
        let more = slots(&[(1, Member, 5), (2, Member, 1)]);
        let _busy: Vec<_> = more.iter().map(|slot| slot.trust.begin_call()).collect();
        assert!(victim(&more, 3, NOW).is_some_and(|index| index < 5));
        let operators = slots(&[(1, Operator, 6)]);
        assert_eq!(victim(&operators, 2, IDLE_AFTER), None);
    }

    #[test]
    fn own_connections_are_never_given_away() {
        let mut full = slots(&[(1, Stranger, 4)]);
        for slot in &mut full {
            slot.is_outbound = true;
        }
        assert_eq!(victim(&full, 2, IDLE_AFTER), None);
    }

    #[test]
    fn a_reserve_lets_newcomers_prove_themselves() {
        // Each from a network of its own, each busy: no rule before the last one hits any.
        let full: Vec<ConnectionSlot> = (0..16).map(|number| slot(number, Stranger)).collect();
        let _busy: Vec<_> = full.iter().map(|slot| slot.trust.begin_call()).collect();
        assert_eq!(victim(&full, 100, NOW), None, "whoever just came has a moment");
        let goes = victim(&full, 100, RESERVE_GRACE + Duration::from_secs(1));
        assert!(goes.is_some_and(|index| index >= 14), "{goes:?}: the first seven eighths stay");
        full[14].trust.raise_level(Member);
        full[15].trust.raise_level(Operator);
        // The reserve is of those that have proven nothing.
        let goes = victim(&full, 100, RESERVE_GRACE + Duration::from_secs(1));
        assert!(goes.is_some_and(|index| index < 14), "{goes:?}");
    }
}
