//! Since when other nodes are behind: each says only how far it is.

use super::control::ReplicationStatus;
use debros_p2p::PeerId;
use debros_proto::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// How often it is looked, at least.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// A node with so many entries less is behind. Each says how far it is every two seconds, so that
/// a few are missing always while there are writes.
const BEHIND: u64 = 1000;

/// The nodes that were behind at each look since some time.
#[derive(Default)]
pub(super) struct LagWatch(Mutex<HashMap<PeerId, i64>>);

impl LagWatch {
    /// Looks, at a time in milliseconds since the Unix epoch.
    pub(super) fn look(&self, status: &ReplicationStatus, now: i64) {
        let mut behind = lock(&self.0);
        behind.retain(|peer, _| status.progress.contains_key(peer));
        for (peer, progress) in &status.progress {
            if progress.lag.is_some_and(|lag| lag > BEHIND) {
                behind.entry(*peer).or_insert(now);
            } else {
                behind.remove(peer);
            }
        }
    }

    /// Since when a node is behind; 0: it is not.
    pub(super) fn since(&self, peer: &PeerId) -> i64 {
        lock(&self.0).get(peer).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::{ReplicationProgress, ReplicationStatus};
    use super::LagWatch;
    use debros_p2p::PeerId;

    #[test]
    fn a_node_is_behind_since_the_first_of_the_looks_that_all_found_it_so() {
        let (peer, watch) = (PeerId::random(), LagWatch::default());
        let look = |lag: u64, now: i64| {
            let progress = ReplicationProgress { applied_entry: None, lag: Some(lag) };
            let progress = [(peer, progress)].into();
            watch.look(&ReplicationStatus { progress, ..Default::default() }, now);
            watch.since(&peer)
        };
        assert_eq!(look(1000, 1), 0);
        assert_eq!((look(1001, 2), look(5000, 3)), (2, 2));
        assert_eq!((look(0, 4), look(2000, 5)), (0, 5));
        watch.look(&ReplicationStatus::default(), 6);
        assert_eq!(watch.since(&peer), 0, "nothing is known of it");
    }
}
