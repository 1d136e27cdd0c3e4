//! The order of what waits: by flow, one of each namespace after the other, and in a namespace one of
//! each caller.

use crate::CallerKey;
use crate::embedded::hashed_map::HashedMap;
use debros_proto::Namespace;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;

/// Whose work it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::embedded) struct FlowId {
    pub(super) namespace: u64,
    pub(super) caller: CallerKey,
}

impl FlowId {
    /// A caller's work in a namespace, for a queue that all namespaces share.
    pub(in crate::embedded) fn of(namespace: &Namespace, caller: CallerKey) -> Self {
        Self { namespace: CallerKey::of(namespace.as_str()).0, caller }
    }

    /// A caller's work, for a queue of one namespace, or of the node.
    pub(in crate::embedded) fn of_caller(caller: CallerKey) -> Self {
        Self { namespace: 0, caller }
    }
}

/// What waits, and whose turn is next.
#[derive(Debug)]
pub(super) struct QueueState<T> {
    namespaces: HashedMap<u64, NamespaceQueue<T>>,
    /// Namespaces of which something waits, the next one first.
    order: VecDeque<u64>,
    pub(super) count: usize,
    pub(super) bytes: usize,
    /// Threads that wait for work. None is woken when it is 0: a busy thread looks again by itself.
    pub(super) idle: usize,
    /// What was taken by `FairQueue::take_one` and is not done, of each caller.
    pub(super) running: HashedMap<CallerKey, usize>,
    pub(super) closed: bool,
}

#[derive(Debug)]
struct NamespaceQueue<T> {
    callers: HashedMap<CallerKey, CallerQueue<T>>,
    order: VecDeque<CallerKey>,
    count: usize,
    bytes: usize,
    /// Bytes given out in the batch that is being made.
    given_bytes: usize,
}

#[derive(Debug)]
struct CallerQueue<T> {
    waiting: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Default for QueueState<T> {
    fn default() -> Self {
        Self {
            namespaces: HashedMap::default(),
            order: VecDeque::new(),
            count: 0,
            bytes: 0,
            idle: 0,
            running: HashedMap::default(),
            closed: false,
        }
    }
}

impl<T> Default for NamespaceQueue<T> {
    fn default() -> Self {
        Self {
            callers: HashedMap::default(),
            order: VecDeque::new(),
            count: 0,
            bytes: 0,
            given_bytes: 0,
        }
    }
}

impl<T> NamespaceQueue<T> {
    /// The next caller's first piece of work that `fits`, with its bytes. It is at its end of the
    /// turn then; those before it whose work did not fit keep their places.
    fn next_fitting(
        &mut self,
        fits: impl Fn(CallerKey, usize) -> bool,
    ) -> Option<(CallerKey, T, usize)> {
        let fitting = |caller: &CallerKey| {
            self.callers
                .get(caller)
                .and_then(|of| of.waiting.front())
                .is_some_and(|(_, bytes)| fits(*caller, *bytes))
        };
        let place = self.order.iter().position(fitting)?;
        let caller = self.order.remove(place)?;
        let of = self.callers.get_mut(&caller)?;
        let (item, bytes) = of.waiting.pop_front()?;
        of.bytes -= bytes;
        self.count -= 1;
        self.bytes -= bytes;
        if of.waiting.is_empty() {
            self.callers.remove(&caller);
        } else {
            self.order.push_back(caller);
        }
        Some((caller, item, bytes))
    }
}

impl<T> QueueState<T> {
    /// Whether a flow may have one more waiting: a caller, and in a queue of many namespaces a
    /// namespace, has no more than is left for all others.
    pub(super) fn is_within_share(&self, flow: FlowId, max_count: usize, max_bytes: usize) -> bool {
        let (left, bytes_left) =
            (max_count.saturating_sub(self.count), max_bytes.saturating_sub(self.bytes));
        let Some(of) = self.namespaces.get(&flow.namespace) else { return true };
        let (left, bytes_left) = match flow.namespace {
            0 => (left, bytes_left),
            _ if of.count > left || of.bytes > bytes_left => return false,
            _ => ((left - of.count) / 2, (bytes_left - of.bytes) / 2),
        };
        of.callers
            .get(&flow.caller)
            .is_none_or(|of| of.waiting.len() <= left && of.bytes <= bytes_left)
    }

    /// Adds work of a flow, behind what waits of it.
    pub(super) fn add(&mut self, flow: FlowId, item: T, bytes: usize) {
        let of = self.namespaces.entry(flow.namespace).or_default();
        if of.count == 0 {
            self.order.push_back(flow.namespace);
        }
        let caller = of.callers.entry(flow.caller).or_insert_with(|| {
            of.order.push_back(flow.caller);
            CallerQueue { waiting: VecDeque::new(), bytes: 0 }
        });
        caller.waiting.push_back((item, bytes));
        caller.bytes += bytes;
        of.count += 1;
        of.bytes += bytes;
        self.count += 1;
        self.bytes += bytes;
    }

    /// Puts work back before all else that waits of its flow. The flow is the next one.
    pub(super) fn requeue_first(&mut self, flow: FlowId, item: T, bytes: usize) {
        let of = self.namespaces.entry(flow.namespace).or_default();
        let caller = match of.callers.entry(flow.caller) {
            Entry::Occupied(caller) => {
                move_to_front(&mut of.order, flow.caller);
                caller.into_mut()
            }
            Entry::Vacant(caller) => {
                of.order.push_front(flow.caller);
                caller.insert(CallerQueue { waiting: VecDeque::new(), bytes: 0 })
            }
        };
        caller.waiting.push_front((item, bytes));
        caller.bytes += bytes;
        if of.count == 0 {
            self.order.push_front(flow.namespace);
        } else {
            move_to_front(&mut self.order, flow.namespace);
        }
        of.count += 1;
        of.bytes += bytes;
        self.count += 1;
        self.bytes += bytes;
    }

    /// A flow has had its turn: the others come first.
    pub(super) fn pass_turn(&mut self, flow: FlowId) {
        let Some(of) = self.namespaces.get_mut(&flow.namespace) else { return };
        move_to_back(&mut self.order, flow.namespace);
        if of.callers.contains_key(&flow.caller) {
            move_to_back(&mut of.order, flow.caller);
        }
    }

    /// The next piece of work that `fits`; it is asked with what its namespace was given.
    /// Namespaces of which nothing fits go to `passed`, in order.
    pub(super) fn next_fitting(
        &mut self,
        passed: &mut VecDeque<u64>,
        fits: impl Fn(usize, CallerKey, usize) -> bool,
    ) -> Option<(CallerKey, T, usize)> {
        while let Some(namespace) = self.order.pop_front() {
            let Some(of) = self.namespaces.get_mut(&namespace) else { continue };
            let given = of.given_bytes;
            let Some((caller, item, bytes)) =
                of.next_fitting(|caller, bytes| fits(given, caller, bytes))
            else {
                passed.push_back(namespace);
                continue;
            };
            of.given_bytes += bytes;
            if of.count == 0 {
                self.namespaces.remove(&namespace);
            } else {
                self.order.push_back(namespace);
            }
            self.count -= 1;
            self.bytes -= bytes;
            return Some((caller, item, bytes));
        }
        None
    }

    /// Those that were passed over are the first the next time.
    pub(super) fn restore_order(&mut self, mut passed: VecDeque<u64>) {
        passed.append(&mut self.order);
        self.order = passed;
        self.namespaces.values_mut().for_each(|of| of.given_bytes = 0);
    }

    /// Closes the queue, and returns what waited. What runs goes on.
    pub(super) fn close_and_empty(&mut self) -> Self {
        let (idle, running) = (self.idle, std::mem::take(&mut self.running));
        std::mem::replace(self, Self { idle, running, closed: true, ..Self::default() })
    }

    /// Whether all that waits is of one flow.
    pub(super) fn is_one_flow(&self) -> bool {
        self.namespaces.len() == 1 && self.namespaces.values().all(|of| of.callers.len() == 1)
    }

    /// Whether nothing waits of another flow.
    pub(super) fn is_only_of(&self, flow: FlowId) -> bool {
        self.count == 0
            || self.is_one_flow()
                && self
                    .namespaces
                    .get(&flow.namespace)
                    .is_some_and(|of| of.callers.contains_key(&flow.caller))
    }
}

fn move_to_front<K: PartialEq>(order: &mut VecDeque<K>, key: K) {
    if order.front() != Some(&key) {
        order.retain(|other| *other != key);
        order.push_front(key);
    }
}

fn move_to_back<K: PartialEq>(order: &mut VecDeque<K>, key: K) {
    order.retain(|other| *other != key);
    order.push_back(key);
}
