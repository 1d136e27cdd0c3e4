//! What clients were told, against what is there.

use super::clients::{Gateways, Journal};
use super::register::{self, Moment, RegisterCall};
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Every contradiction, as a sentence.
///
/// # Errors
/// The cluster does not answer.
pub(crate) async fn compare(gateways: &Gateways, journals: &[Journal]) -> Result<Vec<String>> {
    let mut violations: Vec<String> =
        journals.iter().flat_map(|journal| journal.violations.iter().cloned()).collect();
    let mut of_first = None;
    for gateway in 0..gateways.count() {
        let node = gateway + 1;
        let [once, lefts, rights] = [
            counts(gateways, gateway, "once").await?,
            counts(gateways, gateway, "lefts").await?,
            counts(gateways, gateway, "rights").await?,
        ];
        for (table, counts, acknowledged) in [
            ("once", &once, journals.iter().flat_map(|j| &j.once).collect::<Vec<_>>()),
            ("lefts", &lefts, journals.iter().flat_map(|j| &j.pairs).collect()),
            ("rights", &rights, journals.iter().flat_map(|j| &j.pairs).collect()),
        ] {
            let lost = acknowledged.into_iter().filter(|id| !counts.contains_key(*id));
            violations.extend(lost.map(|id| {
                format!(
                    "LOST: row {id} of {table} was acknowledged, and node {node} does not have it"
                )
            }));
            let doubled = counts.iter().filter(|(_, count)| **count > 1);
            violations.extend(doubled.map(|(id, count)| {
                format!("DOUBLED: node {node} has row {id} of {table} {count} times")
            }));
        }
        if lefts != rights {
            let differs = |id: &&String| lefts.get(*id) != rights.get(*id);
            let halves: Vec<_> = lefts.keys().chain(rights.keys()).filter(differs).collect();
            violations.push(format!("HALF: node {node} has a part of the transactions {halves:?}"));
        }
        let all = [once, lefts, rights];
        if *of_first.get_or_insert_with(|| all.clone()) != all {
            violations.push(format!("DIFFERENT: node {node} has other rows than node 1"));
        }
    }
    let mut registers = BTreeMap::<&String, Vec<RegisterCall>>::new();
    for (name, calls) in journals.iter().flat_map(|journal| &journal.registers) {
        registers.entry(name).or_default().extend(calls.iter().cloned());
    }
    for (name, calls) in registers {
        if let Err(contradiction) = register::check(&calls) {
            violations.push(format!("ORDER: register {name}: {contradiction}"));
        }
    }
    Ok(violations)
}

async fn counts(gateways: &Gateways, gateway: usize, table: &str) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    // In pieces that no answer is too large for.
    loop {
        let last = counts.last_key_value().map_or("", |(id, _): (&String, _)| id.as_str());
        let sql = format!(
            "SELECT id, count(*) FROM {table} WHERE id > '{last}' GROUP BY id ORDER BY id LIMIT 5000"
        );
        let rows = gateways.rows(gateway, &sql, "linearizable").await?;
        if rows.is_empty() {
            return Ok(counts);
        }
        for row in rows {
            let id = row[0].as_str().unwrap_or_default().to_owned();
            counts.insert(id, row[1].as_u64().unwrap_or_default());
        }
    }
}

/// Median and worst of some times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread(Option<(Duration, Duration)>);

impl Spread {
    pub(crate) fn of(times: &[Duration]) -> Self {
        let mut times = times.to_vec();
        times.sort_unstable();
        Self(times.get(times.len() / 2).copied().zip(times.last().copied()))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => write!(f, "{:>6}   {:>6}  ", "-", "-"),
            Some((median, worst)) => {
                write!(f, "{:>6.2} s {:>6.2} s", median.as_secs_f64(), worst.as_secs_f64())
            }
        }
    }
}

/// The longest time between two acknowledgements that reaches into a round.
pub(crate) fn longest_gap(acknowledged: &[Moment], (from, to): (Moment, Moment)) -> Moment {
    let pairs = acknowledged.windows(2).filter(|pair| pair[1] > from && pair[0] < to);
    pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Spread, longest_gap};
    use std::time::Duration;

    #[test]
    fn a_spread_is_median_and_worst() {
        let times = [3, 1, 2].map(Duration::from_secs);
        assert_eq!(Spread::of(&times).to_string(), "  2.00 s   3.00 s");
        assert_eq!(Spread::of(&[]).to_string().trim(), "-        -");
    }

    #[test]
    fn a_gap_counts_where_it_reaches_into_a_round() {
        let acknowledged = [0, 10, 20, 100, 110];
        assert_eq!(longest_gap(&acknowledged, (30, 50)), 80);
        assert_eq!(longest_gap(&acknowledged, (0, 15)), 10);
        assert_eq!(longest_gap(&acknowledged, (200, 300)), 0);
    }
}
