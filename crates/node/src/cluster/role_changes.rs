//! Which node is to have another role, decided from what the leader sees. No I/O: whoever decides
//! has looked before, and acts afterwards.

use super::node_record::NodeRole;
use super::register::RoleCounts;
use debros_p2p::PeerId;
use std::cmp::Reverse;
use std::time::Duration;

/// A node as the leader sees it.
#[derive(Clone, Debug)]
pub(crate) struct SeenNode {
    pub(crate) peer_id: PeerId,
    pub(crate) role: NodeRole,
    /// Milliseconds since the Unix epoch.
    pub(crate) joined_at: i64,
    /// It is connected; one that holds the data answers on its Raft port, too.
    pub(crate) is_here: bool,
    /// How long it has not been here.
    pub(crate) away: Duration,
    /// It has what the log has, but for the last moments.
    pub(crate) is_caught_up: bool,
}

/// One change; the next is decided when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleChange {
    /// A replica votes from now on.
    Promote {
        /// Which one.
        replica: PeerId,
        /// In whose place; `None`: a place is free.
        lost: Option<PeerId>,
    },
    /// A relay holds the data from now on.
    Hold {
        /// Which one.
        relay: PeerId,
    },
}

/// The next change, if there is a reason for one. No change makes fewer voters that are here: a
/// replica takes a place only when it is here, and the voter in that place is not.
pub(crate) fn next_change(
    nodes: &[SeenNode],
    counts: RoleCounts,
    replace_after: Duration,
) -> Option<RoleChange> {
    let with_role = |role| nodes.iter().filter(move |node| node.role == role);
    let first = |role| {
        let ready = with_role(role).filter(|node| node.is_here && node.is_caught_up);
        ready.min_by_key(|node| (node.joined_at, node.peer_id)).map(|node| node.peer_id)
    };
    if let Some(replica) = first(NodeRole::Replica) {
        if has_room(with_role(NodeRole::Voter).count(), counts.voters) {
            return Some(RoleChange::Promote { replica, lost: None });
        }
        let gone =
            with_role(NodeRole::Voter).filter(|node| !node.is_here && node.away >= replace_after);
        if let Some(lost) = gone.min_by_key(|node| (Reverse(node.away), node.peer_id)) {
            return Some(RoleChange::Promote { replica, lost: Some(lost.peer_id) });
        }
    }
    let holders = nodes.iter().filter(|node| node.role != NodeRole::Relay).count();
    if has_room(holders, counts.holders) {
        return first(NodeRole::Relay).map(|relay| RoleChange::Hold { relay });
    }
    None
}

fn has_room(taken: usize, places: u32) -> bool {
    u32::try_from(taken).is_ok_and(|taken| taken < places)
}

#[cfg(test)]
mod tests {
    use super::{RoleChange, SeenNode, next_change};
    use crate::cluster::node_record::NodeRole::{self, Relay, Replica, Voter};
    use crate::cluster::register::RoleCounts;
    use debros_p2p::PeerId;
    use std::time::Duration;

    const COUNTS: RoleCounts = RoleCounts { voters: 3, holders: 5 };
    const AFTER: Duration = Duration::from_secs(600);

    fn node(role: NodeRole, joined_at: i64) -> SeenNode {
        SeenNode {
            peer_id: PeerId::random(),
            role,
            joined_at,
            is_here: true,
            away: Duration::ZERO,
            is_caught_up: true,
        }
    }

    fn nodes<const N: usize>(roles: [NodeRole; N]) -> [SeenNode; N] {
        let mut at = 0;
        roles.map(|role| {
            at += 1;
            node(role, at)
        })
    }

    fn change(nodes: &[SeenNode]) -> Option<RoleChange> {
        next_change(nodes, COUNTS, AFTER)
    }

    fn lose(node: &mut SeenNode, away: Duration) {
        (node.is_here, node.away) = (false, away);
    }

    #[test]
    fn a_voter_is_replaced_when_it_was_gone_for_long_and_only_by_a_replica_that_is_here() {
        let mut seen = nodes([Voter, Voter, Voter, Replica, Replica]);
        assert_eq!(change(&seen), None);
        lose(&mut seen[1], AFTER - Duration::from_millis(1));
        assert_eq!(change(&seen), None);
        lose(&mut seen[1], AFTER);
        let lost = Some(seen[1].peer_id);
        let promote =
            |replica: &SeenNode| Some(RoleChange::Promote { replica: replica.peer_id, lost });
        assert_eq!(change(&seen), promote(&seen[3]));
        seen[3].is_caught_up = false;
        assert_eq!(change(&seen), promote(&seen[4]));
        lose(&mut seen[4], Duration::ZERO);
        assert_eq!(change(&seen), None);
    }

    #[test]
    fn of_two_that_are_gone_the_one_that_went_first_is_replaced_first() {
        let mut seen = nodes([Voter, Voter, Voter, Voter, Voter, Replica]);
        lose(&mut seen[1], AFTER);
        lose(&mut seen[3], AFTER * 2);
        // More vote than are to: a place is filled all the same, so that not fewer are here.
        let lost = Some(seen[3].peer_id);
        assert_eq!(change(&seen), Some(RoleChange::Promote { replica: seen[5].peer_id, lost }));
    }

    #[test]
    fn free_places_are_taken_by_those_that_wait_for_them() {
        let seen = nodes([Voter, Voter, Replica, Relay, Relay]);
        let replica = seen[2].peer_id;
        assert_eq!(change(&seen), Some(RoleChange::Promote { replica, lost: None }));
        let mut seen = nodes([Voter, Voter, Voter, Replica, Relay, Relay]);
        assert_eq!(change(&seen), Some(RoleChange::Hold { relay: seen[4].peer_id }));
        lose(&mut seen[4], Duration::ZERO);
        assert_eq!(change(&seen), Some(RoleChange::Hold { relay: seen[5].peer_id }));
        assert_eq!(change(&nodes([Voter, Voter, Voter, Replica, Replica, Relay])), None);
        assert_eq!(change(&[]), None);
    }
}
