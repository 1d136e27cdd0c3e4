//! The queue by itself.

use super::{BATCH_SHARE, FairQueue, FlowId, OWN_SHARE, QueueBudget, ThreadShare};
use crate::CallerKey;
use debros_proto::Code;
use std::collections::VecDeque;
use std::sync::Arc;

const OWN: FlowId = FlowId { namespace: 0, caller: CallerKey(1) };

fn plenty() -> Arc<QueueBudget> {
    Arc::new(QueueBudget::new(usize::MAX))
}

#[test]
fn a_full_queue_refuses_and_a_closed_one_still_gives_out_what_waits() {
    let queue = FairQueue::new("writes", 2, 100, plenty());
    assert!(!queue.push(OWN, 'a', 10).unwrap());
    assert_eq!(queue.push(OWN, 'b', 91).unwrap_err().code, Code::Overloaded);
    queue.push(OWN, 'b', 90).unwrap();
    assert_eq!(queue.push(OWN, 'c', 0).unwrap_err().code, Code::Overloaded);
    queue.close();
    assert_eq!(queue.push(OWN, 'c', 0).unwrap_err().code, Code::Unavailable);
    let mut batch = VecDeque::new();
    assert!(queue.take_batch(&mut batch, 1, 1000) && batch == ['a'], "{batch:?}");
    batch.clear();
    assert!(queue.take_batch(&mut batch, 10, 1000) && batch == ['b'], "{batch:?}");
    assert!(!queue.take_batch(&mut batch, 10, 1000));
}

#[test]
fn what_is_larger_than_the_bound_passes_alone() {
    let queue = FairQueue::new("writes", 2, 100, plenty());
    queue.push(OWN, 'a', 1000).unwrap();
    assert_eq!(queue.push(OWN, 'b', 1).unwrap_err().code, Code::Overloaded);
}

#[test]
fn all_queues_share_a_budget_and_each_has_a_share_of_its_own() {
    let budget = Arc::new(QueueBudget::new(4 * OWN_SHARE));
    let [greedy, other] =
        [(); 2].map(|()| FairQueue::new("writes", 100, usize::MAX, Arc::clone(&budget)));
    greedy.push(OWN, 'a', 3 * OWN_SHARE).unwrap();
    assert_eq!(greedy.push(OWN, 'b', 2 * OWN_SHARE).unwrap_err().code, Code::Overloaded);
    assert_eq!(other.push(OWN, 'b', 2 * OWN_SHARE).unwrap_err().code, Code::Overloaded);
    greedy.push(OWN, 'b', OWN_SHARE).unwrap();
    other.push(OWN, 'c', OWN_SHARE).unwrap();
    assert_eq!(other.push(OWN, 'd', 1).unwrap_err().code, Code::Overloaded);
    let mut batch = VecDeque::new();
    assert!(greedy.take_batch(&mut batch, 1, usize::MAX) && batch == ['a'], "{batch:?}");
    other.push(OWN, 'd', OWN_SHARE).unwrap();
    drop(greedy);
    other.push(OWN, 'e', 2 * OWN_SHARE).unwrap();
}

#[test]
fn no_wakeup_is_lost_between_many_threads() {
    let queue = FairQueue::new("writes", usize::MAX, usize::MAX, plenty());
    let taken = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut batch = VecDeque::new();
                while queue.take_batch(&mut batch, 7, usize::MAX) {
                    taken.fetch_add(batch.len(), std::sync::atomic::Ordering::Relaxed);
                    batch.clear();
                }
            });
        }
        let senders: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    (0..10_000).for_each(|item| assert!(queue.push(OWN, item, 1).is_ok()))
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        queue.close();
    });
    assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 30_000);
}

fn of(namespace: u64, caller: u64) -> FlowId {
    FlowId { namespace, caller: CallerKey(caller) }
}

/// What a batch of at most 1,000 and 8 of the shares holds.
fn batch(queue: &FairQueue<&'static str>) -> Vec<&'static str> {
    let mut batch = VecDeque::new();
    assert!(queue.take_batch(&mut batch, 1000, 8 * BATCH_SHARE));
    batch.into()
}

#[test]
fn one_of_each_namespace_and_of_each_caller_comes_after_the_other() {
    let queue = FairQueue::new("writes", usize::MAX, usize::MAX, plenty());
    for _ in 0..3 {
        queue.push(of(1, 1), "many", 1).unwrap();
        queue.push(of(1, 2), "some", 1).unwrap();
    }
    queue.push(of(2, 1), "first", 1).unwrap();
    queue.push(of(2, 1), "second", 1).unwrap();
    let mut taken = VecDeque::new();
    assert!(queue.take_batch(&mut taken, 4, usize::MAX));
    assert_eq!(taken, ["many", "first", "some", "second"]);
    assert_eq!(batch(&queue), ["many", "some", "many", "some"]);
}

#[test]
fn what_is_put_back_is_the_next_and_who_ran_comes_after_the_others() {
    let queue = FairQueue::new("writes", usize::MAX, usize::MAX, plenty());
    for (flow, item) in
        [(of(1, 1), "a1"), (of(1, 2), "b1"), (of(2, 1), "c1"), (of(1, 1), "a2"), (of(1, 2), "b2")]
    {
        queue.push(flow, item, 1).unwrap();
    }
    let mut taken = VecDeque::new();
    assert!(queue.take_batch(&mut taken, 4, usize::MAX));
    assert_eq!(taken, ["a1", "c1", "b1", "a2"]);
    assert!(queue.has_others(of(1, 1)) && !queue.has_others(of(1, 2)));
    queue.push(of(3, 1), "new", 1).unwrap();
    queue.close();
    // Of these the first ran.
    queue.requeue(
        [(of(2, 1), "c1", 1), (of(1, 2), "b1", 1), (of(1, 1), "a2", 1)].into_iter(),
        of(1, 1),
    );
    assert_eq!(batch(&queue), ["c1", "new", "b1", "a2", "b2"]);
    assert!(!queue.has_others(of(1, 1)));
}

#[test]
fn what_is_large_waits_for_nobody_and_nobody_for_more_than_one() {
    let queue = FairQueue::new("writes", usize::MAX, usize::MAX, plenty());
    for _ in 0..3 {
        queue.push(of(1, 1), "large", 4 * BATCH_SHARE).unwrap();
    }
    // Alone it takes what a batch may have.
    assert_eq!(batch(&queue), ["large", "large"]);
    queue.push(of(2, 1), "small", 1).unwrap();
    queue.push(of(1, 2), "small of the same namespace", 1).unwrap();
    queue.push(of(1, 1), "large", 4 * BATCH_SHARE).unwrap();
    assert_eq!(batch(&queue), ["large"]);
    queue.push(of(3, 1), "later", 1).unwrap();
    assert_eq!(batch(&queue), ["small", "small of the same namespace", "later"]);
    assert_eq!(batch(&queue), ["large"]);
}

#[test]
fn a_namespace_has_its_share_of_a_batch_when_others_wait() {
    let queue = FairQueue::new("writes", usize::MAX, usize::MAX, plenty());
    for _ in 0..8 {
        queue.push(of(1, 1), "bulk", BATCH_SHARE / 2).unwrap();
    }
    queue.push(of(2, 1), "small", 1).unwrap();
    assert_eq!(batch(&queue), ["bulk", "small", "bulk"]);
    assert_eq!(batch(&queue), ["bulk"; 6]);
}

#[test]
fn nobody_fills_the_queue_of_all() {
    let queue = FairQueue::new("writes", 64, 64_000, plenty());
    let fill = |flow| (0..100).take_while(|_| queue.push(flow, "x", 1).is_ok()).count();
    let first = fill(of(1, 1));
    let sybils: usize = (2..50).map(|caller| fill(of(1, caller))).sum();
    assert!(first >= 16 && first + sybils <= 33, "{first} and {sybils}");
    assert!(fill(of(2, 1)) >= 4, "another namespace has its share");
    let bytes = FairQueue::new("writes", usize::MAX, 64, plenty());
    while bytes.push(of(1, 1), "x", 8).is_ok() {}
    bytes.push(of(2, 1), "x", 8).unwrap();
    // Of one namespace's queue a caller has half.
    let own = FairQueue::new("writes", 64, 64_000, plenty());
    let count = (0..100).take_while(|_| own.push(of(0, 1), "x", 1).is_ok()).count();
    assert!((32..=33).contains(&count), "{count}");
    own.push(of(0, 2), "x", 1).unwrap();
}

#[test]
fn a_caller_runs_no_more_at_a_time_than_it_may() {
    let queue = FairQueue::new("queries", usize::MAX, usize::MAX, plenty());
    let share = ThreadShare { max_running: 1, shared_threads: 4 };
    for _ in 0..3 {
        queue.push(of(0, 1), "greedy", 1).unwrap();
    }
    assert_eq!(queue.take_one(share).unwrap(), (CallerKey(1), "greedy"));
    assert!(queue.would_wait(CallerKey(1), share));
    queue.push(of(0, 2), "other", 1).unwrap();
    assert_eq!(queue.take_one(share).unwrap(), (CallerKey(2), "other"));
    queue.close();
    // A thread that waits comes to the next when one is done, and to its end when nothing is left.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut taken = Vec::new();
            while let Some((caller, item)) = queue.take_one(share) {
                taken.push(item);
                queue.finish_one(caller);
            }
            taken
        });
        while queue.lock().idle == 0 {
            std::thread::yield_now();
        }
        assert_eq!(queue.len(), 2);
        queue.finish_one(CallerKey(1));
        assert_eq!(waiting.join().unwrap(), ["greedy", "greedy"]);
    });
}

#[test]
fn who_has_nothing_running_has_a_thread_where_others_have_all_that_are_shared() {
    let queue = FairQueue::new("queries", usize::MAX, usize::MAX, plenty());
    let share = ThreadShare { max_running: 2, shared_threads: 3 };
    for caller in [1, 2] {
        for _ in 0..3 {
            queue.push(of(0, caller), "endless", 1).unwrap();
        }
    }
    let taken: Vec<_> = (0..3).map(|_| queue.take_one(share).unwrap().0).collect();
    assert_eq!(taken, [1, 2, 1].map(CallerKey));
    assert!(queue.would_wait(CallerKey(2), share) && queue.would_wait(CallerKey(3), share));
    queue.push(of(0, 3), "new", 1).unwrap();
    assert_eq!(queue.take_one(share).unwrap(), (CallerKey(3), "new"));
    assert!(queue.is_running(CallerKey(3)) && !queue.is_running(CallerKey(4)));
    // The second caller has the thread of the first, once none of the others is in the way.
    queue.finish_one(CallerKey(3));
    queue.finish_one(CallerKey(1));
    assert_eq!(queue.take_one(share).unwrap(), (CallerKey(2), "endless"));
}
