//! Whether what clients saw of one register can be put into one order: linearizability, as
//! `stateright` checks it.
//!
//! It tries orders until one fits, so that a history has to be short. Every write has a value of
//! its own. So a write of unknown outcome whose value nobody read need not have happened, and is
//! left out; one whose value was read is an operation that never returned.

use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester};
use std::collections::BTreeSet;

/// A point in time, in nanoseconds after the start.
pub(crate) type Moment = u64;

/// A call on a register.
#[derive(Clone, Debug)]
pub(crate) struct RegisterCall {
    pub(crate) action: RegisterAction,
    pub(crate) start: Moment,
    /// `None`: its outcome is not known, it may happen at any time after its start, or never.
    pub(crate) end: Option<Moment>,
    pub(crate) client: u64,
    pub(crate) node: usize,
}

/// What a call does. The register holds 0 at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegisterAction {
    Write(u64),
    Read(u64),
}

/// Checks the calls of one register.
///
/// # Errors
/// All of them, as text, if no order fits.
pub(crate) fn check(calls: &[RegisterCall]) -> Result<(), String> {
    let read: BTreeSet<u64> = calls.iter().filter_map(|call| call.value_read()).collect();
    let concerned = calls.iter().filter(|call| match call.action {
        RegisterAction::Write(value) => call.end.is_some() || read.contains(&value),
        RegisterAction::Read(_) => call.end.is_some(),
    });
    let mut events: Vec<(Moment, bool, usize, &RegisterCall)> = Vec::new();
    for (number, call) in concerned.enumerate() {
        events.push((call.start, false, number, call));
        events.extend(call.end.map(|end| (end, true, number, call)));
    }
    // Of two events at the same time the start comes first: then they overlap, and either order
    // is allowed.
    events.sort_by_key(|(at, is_end, number, _)| (*at, *is_end, *number));
    let mut tester = LinearizabilityTester::new(Register(0));
    for (_, is_end, number, call) in events {
        // Each call is a thread of its own, because a client goes on after an unknown outcome.
        let noted = match (is_end, call.action) {
            (false, RegisterAction::Write(value)) => {
                tester.on_invoke(number, RegisterOp::Write(value))
            }
            (false, RegisterAction::Read(_)) => tester.on_invoke(number, RegisterOp::Read),
            (true, RegisterAction::Write(_)) => tester.on_return(number, RegisterRet::WriteOk),
            (true, RegisterAction::Read(value)) => {
                tester.on_return(number, RegisterRet::ReadOk(value))
            }
        };
        noted.map(drop)?;
    }
    if tester.is_consistent() { Ok(()) } else { Err(describe(calls)) }
}

impl RegisterCall {
    fn value_read(&self) -> Option<u64> {
        match self.action {
            RegisterAction::Read(value) => Some(value),
            RegisterAction::Write(_) => None,
        }
    }
}

fn describe(calls: &[RegisterCall]) -> String {
    let mut message = "no order fits these calls:".to_owned();
    let mut calls: Vec<&RegisterCall> = calls.iter().collect();
    calls.sort_by_key(|call| call.start);
    for RegisterCall { action, start, end, client, node } in calls {
        let ms = |moment: Moment| moment as f64 / 1e6;
        let end = end.map_or("unknown".to_owned(), |end| format!("{:.3}", ms(end)));
        message +=
            &format!("\n    {action:?} {:.3}..{end} ms client {client} at node {node}", ms(*start));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::{RegisterAction, RegisterCall, check};
    use crate::chaos::random::Random;

    fn call(action: RegisterAction, start: u64, end: Option<u64>) -> RegisterCall {
        RegisterCall { action, start, end, client: 1, node: 1 }
    }

    use RegisterAction::{Read, Write};

    #[test]
    fn what_an_old_leader_would_answer_is_found() {
        let write = |value, start, end| call(Write(value), start, Some(end));
        let read = |value, start, end| call(Read(value), start, Some(end));
        check(&[write(1, 1, 4), read(0, 2, 3), read(1, 5, 6)]).unwrap();
        // Older than what was acknowledged before.
        check(&[write(1, 1, 2), read(0, 3, 4)]).unwrap_err();
        check(&[write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)]).unwrap_err();
        // Back and forth, although no write was acknowledged.
        let unknown = call(Write(1), 1, None);
        check(&[unknown.clone(), read(0, 2, 3), read(1, 4, 5)]).unwrap();
        check(&[unknown.clone(), read(1, 2, 3), read(0, 4, 5)]).unwrap_err();
        check(&[unknown]).unwrap();
        // What was refused, and is there.
        check(&[read(7, 2, 3)]).unwrap_err();
        // Something acknowledged between two reads that do not see it.
        check(&[write(1, 1, 2), read(1, 3, 4), write(2, 5, 6), read(1, 7, 8)]).unwrap_err();
    }

    #[test]
    fn it_agrees_with_trying_all_orders() {
        let mut random = Random::new(20_261_129);
        let mut refused = 0;
        for _ in 0..5_000 {
            let mut value = 0;
            let count = 2 + random.below(4);
            let calls: Vec<RegisterCall> = (0..count)
                .map(|_| {
                    let start = 1 + random.below(12);
                    let end = (random.below(8) > 0).then(|| start + 1 + random.below(6));
                    if random.below(2) == 0 {
                        value += 1;
                        call(Write(value), start * 100 + value, end.map(|end| end * 100 + value))
                    } else {
                        call(
                            Read(random.below(count)),
                            start * 100 + 50,
                            end.map(|end| end * 100 + 60),
                        )
                    }
                })
                .filter(|call| matches!(call.action, Write(_)) || call.end.is_some())
                .collect();
            let found = check(&calls).is_ok();
            assert_eq!(found, has_order(&calls, 0), "{calls:#?}");
            refused += u64::from(!found);
        }
        assert!((500..4_500).contains(&refused), "{refused}");
    }

    /// Whether what is left of the calls can happen one after the other from this value on.
    fn has_order(calls: &[RegisterCall], value: u64) -> bool {
        if calls.iter().all(|call| call.end.is_none()) {
            return true;
        }
        let first_end = calls.iter().filter_map(|call| call.end).min().unwrap();
        (0..calls.len()).filter(|index| calls[*index].start < first_end).any(|index| {
            let mut rest = calls.to_vec();
            match rest.remove(index).action {
                Write(written) => has_order(&rest, written),
                Read(seen) => seen == value && has_order(&rest, value),
            }
        })
    }
}
