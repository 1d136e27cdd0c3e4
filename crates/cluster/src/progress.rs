//! How far this node is, and whether it leads: what the parts of a node's database share.

use crate::pending_entries::{EntryEffect, PendingEntries};
use debros_engine::TargetDatabase;
use debros_proto::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a leader reads on its own after the cluster has confirmed it. The next leader takes no
/// write before that is over.
pub(crate) const LEASE: Duration = Duration::from_millis(400);

/// Where this node is.
#[derive(Debug)]
pub(crate) struct Progress {
    is_leader: AtomicBool,
    state: Mutex<State>,
    /// Told when more is in the files.
    applied: watch::Sender<()>,
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
    /// Every entry up to this one is here: in the files, or pending.
    taken: u64,
    pending: PendingEntries,
    /// When that was asked which last showed that this node leads.
    confirmed: Option<Instant>,
    /// When the leader was last heard of.
    contact: Option<Instant>,
    /// The files here follow no more: what is heard of the leader does not make them newer.
    is_stuck: bool,
}

impl State {
    fn applied(&self) -> u64 {
        self.pending.first().map_or(self.taken, |first| first - 1)
    }

    fn take(&mut self, entry: u64, effect: EntryEffect<'_>) {
        self.head = self.head.max(entry);
        self.taken = self.taken.max(entry);
        self.pending.insert(entry, effect);
    }

    /// What is pending is taken again, from the log.
    fn rewind(&mut self) {
        self.taken = self.applied();
        self.pending.clear();
    }
}

impl Progress {
    pub(crate) fn new(applied: u64) -> Self {
        let state = State { head: applied, taken: applied, ..State::default() };
        Self {
            is_leader: AtomicBool::new(false),
            state: Mutex::new(state),
            applied: watch::Sender::default(),
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

    /// Every entry up to this one is in the files here.
    pub(crate) fn applied(&self) -> u64 {
        lock(&self.state).applied()
    }

    /// Every entry up to this one is in the files here, or on the way into them.
    pub(crate) fn taken(&self) -> u64 {
        lock(&self.state).taken
    }

    pub(crate) fn head(&self) -> u64 {
        lock(&self.state).head
    }

    /// Whether every entry up to this one that changes the database is in its file here. `None`:
    /// all databases.
    pub(crate) fn is_applied(&self, database: Option<&TargetDatabase>, entry: u64) -> bool {
        let state = lock(&self.state);
        let first = state.pending.first_change(database);
        state.taken >= entry && first.is_none_or(|first| first > entry)
    }

    /// Whether the database's file here has all that this node knows to be in the log.
    pub(crate) fn is_up_to_date(&self, database: Option<&TargetDatabase>) -> bool {
        self.is_applied(database, self.head())
    }

    /// Waits for [`is_applied`](Self::is_applied).
    pub(crate) async fn wait_applied(&self, database: Option<&TargetDatabase>, entry: u64) {
        let mut applied = self.applied.subscribe();
        while !self.is_applied(database, entry) {
            // The sender lives as long as this.
            let _ = applied.changed().await;
        }
    }

    /// Waits until nothing is here that replaces the whole database, and is not done.
    pub(crate) async fn wait_replaced(&self, database: &TargetDatabase) {
        let mut applied = self.applied.subscribe();
        while lock(&self.state).pending.is_replaced(database) {
            // The sender lives as long as this.
            let _ = applied.changed().await;
        }
    }

    /// The next entry of the log is here, and what it changes is not yet in the files.
    pub(crate) fn note_taken(&self, entry: u64, effect: EntryEffect<'_>) {
        lock(&self.state).take(entry, effect);
        self.applied.send_replace(());
    }

    /// What entries change is in the files.
    pub(crate) fn note_applied(&self, entries: &[u64]) {
        lock(&self.state).pending.remove(entries);
        self.applied.send_replace(());
    }

    /// What is here and not in the files is taken again. Returns the last entry that is.
    pub(crate) fn rewind(&self) -> u64 {
        let mut state = lock(&self.state);
        state.rewind();
        state.taken
    }

    /// This node leads from now on; it has applied the log up to `head`, which was its end.
    pub(crate) fn begin_leading(&self, term: u64, node: &str, head: u64, confirmed: Instant) {
        let mut state = lock(&self.state);
        state.term = term;
        node.clone_into(&mut state.leader);
        (state.head, state.taken) = (head, head);
        state.pending.clear();
        state.confirmed = Some(confirmed);
        self.is_leader.store(true, SeqCst);
        self.leads.send_replace(node.to_owned());
        self.applied.send_replace(());
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
        let term = self.term();
        self.step_down_from(term);
    }

    /// As [`step_down`](Self::step_down), when the node found that out in an earlier term, unless it
    /// leads again.
    pub(crate) fn step_down_from(&self, term: u64) {
        let mut state = lock(&self.state);
        if state.term != term {
            return;
        }
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
        state.rewind();
    }

    /// Entries of this leader are in the log; its files do not have them yet.
    pub(crate) fn note_appended<'e>(
        &self,
        term: u64,
        entries: impl Iterator<Item = (u64, EntryEffect<'e>)>,
    ) {
        let mut state = lock(&self.state);
        // Else it led when it appended them, and what is in the log comes back from there.
        if !self.is_leader.load(SeqCst) || state.term != term {
            return;
        }
        entries.for_each(|(entry, effect)| state.take(entry, effect));
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

    /// How old a database's file here may be, at most; `None`: it is not known.
    pub(crate) fn age_of(&self, database: &TargetDatabase) -> Option<Duration> {
        let age = self.age()?;
        Some(age.max(lock(&self.state).pending.delay_of(database)))
    }

    /// How old what is here may be, at most, but for what is pending; `None`: it is not known.
    pub(crate) fn age(&self) -> Option<Duration> {
        if self.has_lease() {
            return Some(Duration::ZERO);
        }
        let state = lock(&self.state);
        state.contact.max(state.confirmed).map(|at| at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::{EntryEffect, Progress};
    use debros_engine::TargetDatabase;
    use debros_proto::Namespace;
    use std::time::Instant;

    fn database(name: &str) -> TargetDatabase {
        TargetDatabase::Namespace(Namespace::new(name).unwrap())
    }

    #[test]
    fn a_database_is_not_waited_for_by_the_others() {
        let progress = Progress::new(10);
        let (slow, quick) = (database("slow"), database("quick"));
        progress.note_taken(11, EntryEffect::Changes(&slow));
        progress.note_taken(12, EntryEffect::Changes(&quick));
        progress.note_applied(&[12]);
        assert!(progress.is_applied(Some(&quick), 12) && !progress.is_applied(Some(&slow), 12));
        assert!(progress.is_applied(Some(&slow), 10) && !progress.is_applied(None, 12));
        // What is not here may be of any database.
        assert!(!progress.is_applied(Some(&quick), 13));
        // From here on the log is read after a restart.
        assert_eq!((progress.applied(), progress.taken()), (10, 12));
        progress.note_applied(&[11]);
        assert!(progress.is_applied(None, 12) && progress.applied() == 12);
        // Nobody was told of what is not complete, so nobody waits for it; a restart reads it again.
        progress.note_taken(13, EntryEffect::Nothing);
        assert!(progress.is_applied(Some(&slow), 13) && progress.is_applied(None, 13));
        assert_eq!((progress.applied(), progress.taken()), (12, 13));
    }

    #[test]
    fn what_a_leader_has_not_committed_comes_back_when_it_leads_no_more() {
        let progress = Progress::new(0);
        let app = database("app");
        let of_app = EntryEffect::Changes(&app);
        progress.note_appended(1, [(1, of_app)].into_iter());
        assert_eq!(progress.taken(), 0);
        progress.begin_leading(1, "n1", 3, Instant::now());
        progress.note_appended(1, [(4, of_app), (5, of_app)].into_iter());
        progress.note_applied(&[4]);
        // Of an earlier term.
        progress.note_appended(0, [(9, of_app)].into_iter());
        assert_eq!((progress.applied(), progress.head()), (4, 5));
        progress.step_down();
        assert_eq!((progress.applied(), progress.taken()), (4, 4));
        progress.note_appended(1, [(6, of_app)].into_iter());
        assert_eq!(progress.taken(), 4);
    }
}
