//! The connections that may be open at a time, and which gets a place when places are scarce.
//!
//! 1. An address has no more places than are left free for the others (as everything in
//!    `fair_budget.rs`). Beyond that, its own oldest idle connection makes room for its next one.
//! 2. When all places are taken, the oldest idle connection makes room: first one without an
//!    accepted credential.
//! 3. When none is idle, a part of the places is left, the reserve. A connection that gets one has
//!    to succeed with a credential in its first request, or is closed. So operators and members get
//!    in when strangers hold everything.
//!
//! A connection that makes room has a second for its closing handshake, and is checked like all
//! others until it is gone. The number of these is limited: the others are closed without a
//! handshake.
//!
//! A trusted proxy speaks for many: its connections are not counted by address.

use crate::connection_state::{CloseRequest, ConnectionState};
use crate::fair_budget::{CallerBuckets, CallerHasher, FairBudget, MIN_SHARE};
use debros_proto::lock;
use debros_proto::network::caller_network;
use metrics::{Counter, counter, describe_counter};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// The reserve is this part of all places.
const RESERVE_DIVISOR: usize = 16;
/// This part of all places may be closing beside those that are taken.
const EVICTED_DIVISOR: usize = 16;
/// The search for an idle connection checks this many: the work for a newcomer is bounded, and the
/// next newcomer checks the next ones.
const MAX_EXAMINED: usize = 64;

/// The connections that may be open at a time.
pub(crate) struct ConnectionTable {
    /// Without the reserve.
    ordinary: usize,
    reserve: usize,
    /// Connections that may be in their closing handshake at a time.
    max_evicted: usize,
    max_unread: usize,
    memory: Arc<FairBudget>,
    ticks: Arc<AtomicU32>,
    open: Mutex<OpenConnections>,
    refused: Counter,
    made_room: Counter,
}

#[derive(Default)]
struct OpenConnections {
    connections: BTreeMap<u64, Arc<ConnectionState>>,
    networks: HashMap<IpAddr, NetworkConnections>,
    next_id: u64,
    /// Where the next search for an idle one begins.
    eviction_cursor: u64,
    on_trial: usize,
    /// Connections that have made room and are not gone yet: in `connections`, and nowhere else.
    evicted: usize,
}

/// The connections of one address.
#[derive(Default)]
struct NetworkConnections {
    ids: BTreeSet<u64>,
    eviction_cursor: u64,
    on_trial: usize,
}

impl ConnectionTable {
    pub(crate) fn new(limit: usize, most_unread: usize, memory: Arc<FairBudget>) -> Arc<Self> {
        describe_counter!(
            "debros_gateway_connections_refused_total",
            "Connections closed because there was no place"
        );
        describe_counter!(
            "debros_gateway_connections_made_room_total",
            "Idle connections closed to make room"
        );
        let reserve = limit / RESERVE_DIVISOR;
        Arc::new(Self {
            ordinary: limit - reserve,
            reserve,
            max_evicted: (limit / EVICTED_DIVISOR).max(1),
            max_unread: most_unread,
            memory,
            ticks: Arc::default(),
            open: Mutex::default(),
            refused: counter!("debros_gateway_connections_refused_total"),
            made_room: counter!("debros_gateway_connections_made_room_total"),
        })
    }

    /// A place for a connection from an address; `None` when there is none.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        peer: IpAddr,
        is_proxy: bool,
        callers: &CallerHasher,
    ) -> Option<ConnectionPermit> {
        let network = (!is_proxy).then(|| caller_network(peer));
        let holder = if is_proxy { CallerBuckets::default() } else { callers.for_address(peer) };
        let mut open = self.lock_open();
        let on_trial = match (self.make_room(&mut open, network, false), self.reserve) {
            (true, _) => false,
            (false, 1..) if self.make_room(&mut open, network, true) => true,
            _ => {
                self.refused.increment(1);
                return None;
            }
        };
        let id = open.next_id;
        open.next_id += 1;
        let state = ConnectionState::new(
            id,
            network,
            on_trial,
            holder,
            Arc::clone(&self.memory),
            Arc::clone(&self.ticks),
            self.max_unread,
        );
        let state = Arc::new(state);
        open.insert(&state);
        drop(open);
        Some(ConnectionPermit { state, table: Arc::clone(self) })
    }

    /// Whether there is a free place, or one can be freed.
    fn make_room(
        &self,
        open: &mut OpenConnections,
        network: Option<IpAddr>,
        on_trial: bool,
    ) -> bool {
        let (limit, taken) = if on_trial {
            (self.reserve, open.on_trial)
        } else {
            (self.ordinary, open.connections.len() - open.evicted - open.on_trial)
        };
        let own = network.and_then(|network| open.networks.get(&network)).map_or(0, |network| {
            if on_trial { network.on_trial } else { network.ids.len() - network.on_trial }
        });
        let free = limit.saturating_sub(taken);
        let is_over_share = network.is_some() && own + 1 > free.saturating_sub(1).max(MIN_SHARE);
        if free > 0 && !is_over_share {
            return true;
        }
        let Some(idle) = open.find_idle(network.filter(|_| is_over_share), on_trial) else {
            return false;
        };
        let says_goodbye = open.evicted < self.max_evicted;
        open.evict(&idle);
        idle.request_close(if says_goodbye {
            CloseRequest::Evict
        } else {
            CloseRequest::Terminate
        });
        self.made_room.increment(1);
        true
    }

    /// Advances the time and ends connections that are stalled. To be called four times in every
    /// write time-out.
    pub(crate) fn close_stalled(&self) {
        self.ticks.fetch_add(1, Relaxed);
        let stuck: Vec<_> = self
            .lock_open()
            .connections
            .values()
            .filter(|state| state.is_stalled())
            .cloned()
            .collect();
        for state in stuck {
            tracing::debug!(network = ?state.network, "a connection ends: the other side takes nothing");
            state.request_close(CloseRequest::Terminate);
        }
    }

    fn lock_open(&self) -> MutexGuard<'_, OpenConnections> {
        lock(&self.open)
    }
}

impl OpenConnections {
    fn insert(&mut self, state: &Arc<ConnectionState>) {
        self.connections.insert(state.id, Arc::clone(state));
        self.on_trial += usize::from(state.on_trial);
        if let Some(address) = state.network {
            let network = self.networks.entry(address).or_default();
            network.ids.insert(state.id);
            network.on_trial += usize::from(state.on_trial);
        }
    }

    fn remove(&mut self, state: &ConnectionState) {
        if self.connections.remove(&state.id).is_none() {
            return;
        }
        if state.is_evicted() {
            self.evicted -= 1;
        } else {
            self.release_place(state);
        }
    }

    /// Its place belongs to another from now on. It stays known until it is gone.
    fn evict(&mut self, state: &ConnectionState) {
        state.mark_evicted();
        self.evicted += 1;
        self.release_place(state);
    }

    fn release_place(&mut self, state: &ConnectionState) {
        self.on_trial -= usize::from(state.on_trial);
        let Some(address) = state.network else { return };
        if let Some(network) = self.networks.get_mut(&address) {
            network.ids.remove(&state.id);
            network.on_trial -= usize::from(state.on_trial);
            if network.ids.is_empty() {
                self.networks.remove(&address);
            }
        }
    }

    /// Finds an idle connection, of one address or of all, on trial or not: unproven before proven,
    /// unused before used, old before new. Checks a few, beginning where the last search ended.
    fn find_idle(&mut self, of: Option<IpAddr>, on_trial: bool) -> Option<Arc<ConnectionState>> {
        let mut last = None;
        let mut best: Option<((bool, bool), &Arc<ConnectionState>)> = None;
        let mut look = |state: &'_ Arc<ConnectionState>| -> Option<(bool, bool)> {
            last = Some(state.id);
            (state.on_trial == on_trial).then(|| state.eviction_rank()).flatten()
        };
        match of {
            Some(address) => {
                let network = self.networks.get(&address)?;
                let ids = network
                    .ids
                    .range(network.eviction_cursor..)
                    .chain(network.ids.range(..network.eviction_cursor));
                for state in ids.take(MAX_EXAMINED).filter_map(|id| self.connections.get(id)) {
                    keep_best(&mut best, look(state), state);
                }
            }
            None => {
                let connections = self
                    .connections
                    .range(self.eviction_cursor..)
                    .chain(self.connections.range(..self.eviction_cursor));
                for (_, state) in connections.take(MAX_EXAMINED) {
                    keep_best(&mut best, look(state), state);
                }
            }
        }
        let found = best.map(|(_, state)| Arc::clone(state));
        let hand = last.map_or(0, |id| id + 1);
        match of {
            Some(address) => self.networks.entry(address).or_default().eviction_cursor = hand,
            None => self.eviction_cursor = hand,
        }
        found
    }
}

fn keep_best<'a>(
    best: &mut Option<((bool, bool), &'a Arc<ConnectionState>)>,
    rank: Option<(bool, bool)>,
    state: &'a Arc<ConnectionState>,
) {
    if let Some(rank) = rank
        && best.as_ref().is_none_or(|(other, _)| rank < *other)
    {
        *best = Some((rank, state));
    }
}

/// The place of a connection among those that may be open; freed on drop. It comes with a request
/// that asks for another protocol, because the socket outlives the HTTP connection then.
pub(crate) struct ConnectionPermit {
    state: Arc<ConnectionState>,
    table: Arc<ConnectionTable>,
}

impl ConnectionPermit {
    pub(crate) fn state(&self) -> &Arc<ConnectionState> {
        &self.state
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.table.lock_open().remove(&self.state);
    }
}

#[cfg(test)]
mod tests {
    use super::{ConnectionTable, EVICTED_DIVISOR, RESERVE_DIVISOR};
    use crate::connection_state::CloseRequest;
    use crate::fair_budget::{CallerHasher, FairBudget};
    use futures::FutureExt as _;

    #[test]
    fn who_makes_room_is_known_until_it_is_gone_and_few_say_goodbye() {
        let limit = 64;
        let table = ConnectionTable::new(limit, 1, FairBudget::new("test", 1000));
        let callers = CallerHasher::default();
        let acquire = |host: usize| {
            let peer = format!("10.0.{host}.1").parse().unwrap();
            table.acquire(peer, false, &callers).expect("all are idle")
        };
        let ordinary = limit - limit / RESERVE_DIVISOR;
        let all: Vec<_> = (0..ordinary + 10).map(acquire).collect();
        let told = |what| {
            all.iter()
                .filter(|it| it.state().wait_close_request(what).now_or_never().is_some())
                .count()
        };
        assert_eq!(told(CloseRequest::Evict), 10, "each newcomer has a place");
        assert_eq!(
            told(CloseRequest::Terminate),
            10 - limit / EVICTED_DIVISOR,
            "the others do not close in order"
        );
        assert_eq!(table.lock_open().connections.len(), ordinary + 10, "all are still looked at");
        drop(all);
        let open = table.lock_open();
        assert!(open.connections.is_empty() && open.networks.is_empty() && open.evicted == 0);
    }
}
