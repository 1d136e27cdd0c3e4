//! Whether what clients saw of one register can be put into one order: linearizability.
//!
//! Every write has a value of its own, which makes it easy (Gibbons and Korach, "Testing shared
//! memories", 1997). A write and the reads of its value are a group. A group whose first end is
//! before its last start certainly holds the register from the one to the other; any other group
//! has a moment between its last start and its first end at which all of it may have happened. The
//! history is linearizable if no two groups hold the register at the same time, and no group's
//! only moments are within the time of another.

use std::collections::BTreeMap;

/// A point in time, in nanoseconds after the start.
pub(crate) type Moment = u64;

/// A call on a register.
#[derive(Clone, Debug)]
pub(crate) struct RegisterCall {
    pub(crate) action: RegisterAction,
    pub(crate) start: Moment,
    /// `None`: its outcome is not known, it may happen at any time after its start, or never.
    pub(crate) end: Option<Moment>,
    /// Who called, for people.
    pub(crate) by: String,
}

/// What a call does. The register holds 0 at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegisterAction {
    Write(u64),
    Read(u64),
}

#[derive(Debug)]
struct Group<'h> {
    write: Option<&'h RegisterCall>,
    is_read: bool,
    last_start: Moment,
    first_end: Moment,
}

/// Checks the calls of one register.
///
/// # Errors
/// What contradicts, in a sentence.
pub(crate) fn check(calls: &[RegisterCall]) -> Result<(), String> {
    let mut groups =
        BTreeMap::from([(0, Group { write: None, is_read: false, last_start: 0, first_end: 0 })]);
    for call in calls {
        if let RegisterAction::Write(value) = call.action {
            let first_end = call.end.unwrap_or(Moment::MAX);
            let group =
                Group { write: Some(call), is_read: false, last_start: call.start, first_end };
            if groups.insert(value, group).is_some() {
                return Err(format!("{value} was written twice"));
            }
        }
    }
    for call in calls {
        let (RegisterAction::Read(value), Some(end)) = (call.action, call.end) else { continue };
        let Some(group) = groups.get_mut(&value) else {
            return Err(format!("{call:?}: nobody wrote that, or its write was refused"));
        };
        if group.write.is_some_and(|write| end < write.start) {
            return Err(format!("{call:?}: before it was written by {:?}", group.write));
        }
        group.is_read = true;
        group.last_start = group.last_start.max(call.start);
        group.first_end = group.first_end.min(end);
    }
    // What nobody saw and nobody was told of need not have happened.
    groups.retain(|_, group| group.is_read || group.first_end != Moment::MAX);

    let mut holding: Vec<(&u64, &Group<'_>)> =
        groups.iter().filter(|(_, group)| group.first_end < group.last_start).collect();
    holding.sort_by_key(|(_, group)| group.first_end);
    for pair in holding.windows(2) {
        if pair[1].1.first_end < pair[0].1.last_start {
            return Err(contradiction(calls, *pair[0].0, *pair[1].0));
        }
    }
    for (value, group) in groups.iter().filter(|(_, group)| group.first_end >= group.last_start) {
        let next = holding.partition_point(|(_, held)| held.first_end < group.last_start);
        if let Some((over, held)) = next.checked_sub(1).map(|index| holding[index])
            && group.first_end < held.last_start
        {
            return Err(contradiction(calls, *over, *value));
        }
    }
    Ok(())
}

fn contradiction(calls: &[RegisterCall], one: u64, other: u64) -> String {
    let mut message = format!("the values {one} and {other} cannot be put into one order:");
    let mut concerned: Vec<&RegisterCall> = calls
        .iter()
        .filter(|call| {
            let (RegisterAction::Write(value) | RegisterAction::Read(value)) = call.action;
            value == one || value == other
        })
        .collect();
    concerned.sort_by_key(|call| call.start);
    for call in concerned {
        let ms = |moment: Moment| moment as f64 / 1e6;
        let end = call.end.map_or("unknown".to_owned(), |end| format!("{:.3}", ms(end)));
        message += &format!("\n    {:?} {:.3}..{end} ms {}", call.action, ms(call.start), call.by);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::{RegisterAction, RegisterCall, check};
    use crate::chaos::random::Random;

    fn call(action: RegisterAction, start: u64, end: Option<u64>) -> RegisterCall {
        RegisterCall { action, start, end, by: String::new() }
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
        for _ in 0..20_000 {
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
        assert!((2_000..18_000).contains(&refused), "{refused}");
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
