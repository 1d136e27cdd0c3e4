//! The table at the end of a run.

use super::clients::Journal;
use super::fault::FaultKind;
use super::register::Moment;
use super::verdict::{Spread, longest_gap};
use anyhow::Result;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// The longest pause of all writers that a fault of a minority may cause. It is an election, and on
/// a full disk the time after which a node finds out that it cannot lead.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A fault that was made, from its beginning until all had healed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) kind: FaultKind,
    pub(crate) from: Moment,
    pub(crate) to: Moment,
}

/// The pauses of writers in one round.
struct Gaps {
    /// Nobody's write was acknowledged for so long.
    of_all: Duration,
    /// The unluckiest writer waited for so long.
    of_one: Duration,
}

/// Writes the kinds of faults with the writers' gaps, and what became of the calls.
///
/// # Errors
/// Those of the output.
pub(crate) fn write(
    out: &mut impl Write,
    rounds: &[Round],
    journals: &[Journal],
    violations: usize,
) -> Result<()> {
    write_faults(out, rounds, journals)?;
    let sum = |count: fn(&Journal) -> u64| journals.iter().map(count).sum::<u64>();
    let (refused, unknown) =
        (total(journals, |journal| &journal.refusals), total(journals, |journal| &journal.unknown));
    writeln!(
        out,
        "operations: {} done, {} unknown, {} refused; violations: {violations}",
        sum(|journal| journal.done),
        unknown.values().sum::<u64>(),
        refused.values().sum::<u64>(),
    )?;
    writeln!(
        out,
        "acknowledged: {} writes, of them {} rows and {} transactions; {} calls repeated under their key",
        sum(|journal| journal.acknowledged.len() as u64),
        sum(|journal| journal.once.len() as u64),
        sum(|journal| journal.pairs.len() as u64),
        sum(|journal| journal.repeated),
    )?;
    for (what, reasons) in [("refused", refused), ("unknown", unknown)] {
        for (why, count) in reasons {
            writeln!(out, "  {what} {count:>7}: {why}")?;
        }
    }
    Ok(())
}

/// Rounds in which no write was acknowledged for too long, although a majority went on.
pub(crate) fn long_pauses(rounds: &[Round], journals: &[Journal]) -> Vec<String> {
    let acknowledged = all_acknowledged(journals);
    let pause =
        |round: &Round| Duration::from_nanos(longest_gap(&acknowledged, (round.from, round.to)));
    (1..)
        .zip(rounds)
        .filter(|(_, round)| round.kind.leaves_majority() && pause(round) > LONGEST_PAUSE)
        .map(|(number, round)| {
            let (name, pause) = (round.kind.name(), pause(round));
            format!("PAUSE: round {number}, {name}: no write of anybody for {pause:.2?}")
        })
        .collect()
}

fn all_acknowledged(journals: &[Journal]) -> Vec<Moment> {
    let mut acknowledged: Vec<Moment> =
        journals.iter().flat_map(|journal| journal.acknowledged.iter().copied()).collect();
    acknowledged.sort_unstable();
    acknowledged
}

fn write_faults(out: &mut impl Write, rounds: &[Round], journals: &[Journal]) -> Result<()> {
    let acknowledged = all_acknowledged(journals);
    let mut kinds = BTreeMap::<FaultKind, Vec<Gaps>>::new();
    for round in rounds {
        let of = |times: &[Moment]| longest_gap(times, (round.from, round.to));
        let of_one = journals.iter().map(|journal| of(&journal.acknowledged)).max();
        kinds.entry(round.kind).or_default().push(Gaps {
            of_all: Duration::from_nanos(of(&acknowledged)),
            of_one: Duration::from_nanos(of_one.unwrap_or_default()),
        });
    }
    let (all, one, spread) =
        ("no write of anybody for", "unluckiest writer waited", "median    worst");
    writeln!(out, "{:<18}{:>5}   {all:<24}{one}", "fault", "times")?;
    writeln!(out, "{:<26}{spread:<24}{spread}", "")?;
    for (kind, gaps) in kinds {
        let of = |gap: fn(&Gaps) -> Duration| Spread::of(&gaps.iter().map(gap).collect::<Vec<_>>());
        writeln!(
            out,
            "{:<18}{:>5}   {}       {}",
            kind.name(),
            gaps.len(),
            of(|gap| gap.of_all),
            of(|gap| gap.of_one)
        )?;
    }
    Ok(())
}

fn total(journals: &[Journal], of: fn(&Journal) -> &BTreeMap<String, u64>) -> BTreeMap<&str, u64> {
    let mut all = BTreeMap::new();
    for (why, count) in journals.iter().flat_map(of) {
        *all.entry(why.as_str()).or_default() += count;
    }
    all
}
