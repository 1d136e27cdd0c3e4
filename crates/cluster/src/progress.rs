//! How far this node is, and whether it leads: what the parts of a node's database share.

use debros_proto::lock;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Raft elects no other leader within this time after the old one was heard of (500 ms), less what
/// clocks and the way of a message may take of it.
const LEASE: Duration = Duration::from_millis(400);

/// Where this node is.
#[derive(Debug)]
pub(crate) struct Progress {
    is_leader: AtomicBool,
    /// Every entry up to this one is in the files here.
    applied: watch::Sender<u64>,
    state: Mutex<State>,
    /// Who leads, as `state` has it.
    leads: watch::Sender<String>,
}

#[derive(Debug, Default)]
struct State {
    term: u64,
    /// Who leads, as far as this node knows; empty: nobody.
    leader: String,
    /// The last entry that is known to be in the log.
    head: u64,
    /// Entries that are in the log and not yet in this leader's file.
    uncommitted: BTreeSet<u64>,
    /// When that was asked which last showed that this node leads.
    confirmed: Option<Instant>,
    /// When the leader was last heard of.
    contact: Option<Instant>,
    /// The files here follow no more: what is heard of the leader does not make them newer.
    is_stuck: bool,
}

impl Progress {
    pub(crate) fn new(applied: u64) -> Self {
        let state = State { head: applied, ..State::default() };
        Self {
            is_leader: AtomicBool::new(false),
            applied: watch::Sender::new(applied),
            state: Mutex::new(state),
            leads: watch::Sender::default(),
        }
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.is_leader.load(SeqCst)
    }

    pub(crate) fn term(&self) -> u64 {
        lock(&self.state).term
    }

    /// Who leads, as far as this node knows.
    pub(crate) fn leader(&self) -> Option<String> {
        Some(lock(&self.state).leader.clone()).filter(|leader| !leader.is_empty())
    }

    /// Waits until another node leads than this one, or none.
    pub(crate) async fn wait_for_other_leader(&self, leader: &str) {
        // The sender lives as long as this.
        let _ = self.leads.subscribe().wait_for(|now| now != leader).await;
    }

    pub(crate) fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    pub(crate) fn head(&self) -> u64 {
        lock(&self.state).head
    }

    /// Waits until every entry up to this one is in the files here.
    pub(crate) async fn wait_applied(&self, entry: u64) {
        let mut applied = self.applied.subscribe();
        // The sender lives as long as this.
        let _ = applied.wait_for(|applied| *applied >= entry).await;
    }

    /// The log was read and applied up to here.
    pub(crate) fn note_applied(&self, entry: u64) {
        {
            let mut state = lock(&self.state);
            state.head = state.head.max(entry);
        }
        self.applied.send_if_modified(|applied| std::mem::replace(applied, entry) != entry);
    }

    /// This node leads from now on; it has applied the log up to `head`, which was its end.
    pub(crate) fn begin_leading(&self, term: u64, node: &str, head: u64, confirmed: Instant) {
        let mut state = lock(&self.state);
        state.term = term;
        node.clone_into(&mut state.leader);
        state.head = head;
        state.uncommitted.clear();
        state.confirmed = Some(confirmed);
        self.is_leader.store(true, SeqCst);
        self.leads.send_replace(node.to_owned());
    }

    /// This node leads no more, or never did: another one does, or nobody.
    pub(crate) fn follow(&self, term: u64, leader: &str) {
        let mut state = lock(&self.state);
        if term < state.term || (term == state.term && leader == state.leader) {
            return;
        }
        state.term = term;
        leader.clone_into(&mut state.leader);
        self.leads.send_replace(leader.to_owned());
        self.stop_leading(&mut state);
    }

    /// This node may have lost its place; who has it is not known.
    pub(crate) fn step_down(&self) {
        let mut state = lock(&self.state);
        if self.is_leader.load(SeqCst) {
            state.leader.clear();
            self.leads.send_replace(String::new());
        }
        self.stop_leading(&mut state);
    }

    fn stop_leading(&self, state: &mut State) {
        if !self.is_leader.swap(false, SeqCst) {
            return;
        }
        state.confirmed = None;
        // What was under way comes back through the log.
        if let Some(first) = state.uncommitted.pop_first() {
            state.uncommitted.clear();
            self.applied.send_modify(|applied| *applied = (*applied).min(first - 1));
        }
    }

    /// Entries are in the log; this leader's files do not have them yet.
    pub(crate) fn note_appended(&self, numbers: std::ops::RangeInclusive<u64>) {
        let mut state = lock(&self.state);
        state.head = state.head.max(*numbers.end());
        state.uncommitted.extend(numbers);
    }

    /// An entry is in this leader's file, with the parts before it.
    pub(crate) fn note_committed(&self, parts: std::ops::RangeInclusive<u64>) {
        let mut state = lock(&self.state);
        for number in parts {
            state.uncommitted.remove(&number);
        }
        if !self.is_leader.load(SeqCst) {
            return;
        }
        let reached = state.uncommitted.first().map_or(state.head, |first| first - 1);
        self.applied.send_if_modified(|applied| {
            let moves = *applied < reached;
            *applied = reached.max(*applied);
            moves
        });
    }

    /// This node was confirmed to lead by something that began at `asked`.
    pub(crate) fn note_confirmed(&self, asked: Instant) {
        let mut state = lock(&self.state);
        state.confirmed = state.confirmed.max(Some(asked));
    }

    /// Whether this node certainly leads at this moment.
    pub(crate) fn has_lease(&self) -> bool {
        self.is_leader() && lock(&self.state).confirmed.is_some_and(|at| at.elapsed() < LEASE)
    }

    /// Whether this node was confirmed to lead by something that began after `asked`.
    pub(crate) fn is_confirmed_since(&self, asked: Instant) -> bool {
        self.is_leader() && lock(&self.state).confirmed.is_some_and(|at| at >= asked)
    }

    /// The leader was heard of.
    pub(crate) fn note_contact(&self, asked: Instant) {
        let mut state = lock(&self.state);
        if !state.is_stuck {
            state.contact = state.contact.max(Some(asked));
        }
    }

    /// The files here do not follow the log any more.
    pub(crate) fn note_stuck(&self) {
        let mut state = lock(&self.state);
        state.is_stuck = true;
        state.contact = None;
    }

    /// How old what is here may be, at most; `None`: it is not known.
    pub(crate) fn age(&self) -> Option<Duration> {
        if self.has_lease() {
            return Some(Duration::ZERO);
        }
        let state = lock(&self.state);
        state.contact.max(state.confirmed).map(|at| at.elapsed())
    }
}
