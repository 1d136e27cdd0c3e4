//! What clients of a node that is cut off are told: writes are refused soon, and reads at `none` go
//! on.
//!
//! They go on for a caller whose credential is certain: a static key of the gateway. An API key may
//! have been revoked meanwhile, which the node cannot know; how long it is good for is measured.

use super::clients::{CallOutcome, Gateways, send};
use super::nodes::STATIC_KEY;
use super::verdict::Spread;
use anyhow::Result;
use reqwest::RequestBuilder;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// The cluster promises that a node which is cut off refuses within 5 s; the machine is busy.
const REFUSED_WITHIN: Duration = Duration::from_secs(6);
/// How long a call may take before it counts as never answered.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// Calls nodes that are cut off, and notes what they answer.
#[derive(Debug)]
pub(crate) struct CutOffWatch {
    runtime: Handle,
    gateways: Gateways,
    calls: u64,
    /// How long refusals of writes took.
    pub(crate) refusals: Vec<Duration>,
    /// How long reads at `none` took.
    pub(crate) reads: Vec<Duration>,
    /// How long after the cut the last read at `none` with an API key was answered.
    pub(crate) key_was_good: Vec<Duration>,
    pub(crate) violations: Vec<String>,
}

impl CutOffWatch {
    pub(crate) fn new(runtime: Handle, gateways: Gateways) -> Self {
        Self {
            runtime,
            gateways,
            calls: 0,
            refusals: Vec::new(),
            reads: Vec::new(),
            key_was_good: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Calls a node for so long, which has been cut off just before. What has no answer by then is
    /// left alone.
    pub(crate) fn watch(&mut self, node: usize, time: Duration) -> Result<()> {
        let cut = Instant::now();
        let until = cut + time;
        let (with_key, certain) = (&self.gateways, self.gateways.with_key(STATIC_KEY));
        let (writes, reads, reads_with_key) = self.runtime.block_on(async {
            tokio::join!(
                write_until(with_key, node, self.calls, until),
                read_until(&certain, node, until),
                read_until(with_key, node, until),
            )
        });
        let was_good =
            reads_with_key.iter().filter(|read| matches!(read.outcome, CallOutcome::Done(_)));
        self.key_was_good.extend(was_good.map(|read| read.began.duration_since(cut)).max());
        self.calls += writes.len() as u64 + 1;
        for Answer { began, took, outcome } in writes {
            let at = began.duration_since(cut);
            match outcome {
                CallOutcome::Refused(why) | CallOutcome::Unknown(why) => {
                    self.refusals.push(took);
                    if took > REFUSED_WITHIN {
                        let late =
                            format!("a write of {at:.2?} was refused after {took:.2?}: {why}");
                        self.note(node, &late);
                    }
                }
                other => self.note(node, &format!("a write of {at:.2?} was {other:?}")),
            }
        }
        for Answer { began, took, outcome } in reads {
            let at = began.duration_since(cut);
            match outcome {
                CallOutcome::Done(_) => self.reads.push(took),
                other => self.note(node, &format!("a read at none of {at:.2?} was {other:?}")),
            }
        }
        Ok(())
    }

    fn note(&mut self, node: usize, what: &str) {
        self.violations.push(format!("CUT OFF: at node {}, after the cut: {what}", node + 1));
    }

    /// One line of the summary.
    pub(crate) fn summary(&self) -> String {
        format!(
            "a cut-off node: {} writes refused, median and worst {}; {} reads at none, {}; an API key was good for {}",
            self.refusals.len(),
            Spread::of(&self.refusals),
            self.reads.len(),
            Spread::of(&self.reads),
            Spread::of(&self.key_was_good),
        )
    }
}

struct Answer {
    began: Instant,
    took: Duration,
    outcome: CallOutcome,
}

async fn write_until(gateways: &Gateways, node: usize, first: u64, until: Instant) -> Vec<Answer> {
    let mut id = first;
    let next = || {
        let name = json!([format!("cut-off-{id}")]);
        id += 1;
        gateways.query(node, "INSERT INTO once VALUES (?)", name, "weak")
    };
    call_until(next, until).await
}

async fn read_until(gateways: &Gateways, node: usize, until: Instant) -> Vec<Answer> {
    let next = || gateways.query(node, "SELECT max(rowid) FROM once", json!([]), "none");
    call_until(next, until).await
}

async fn call_until(mut next: impl FnMut() -> RequestBuilder, until: Instant) -> Vec<Answer> {
    let mut answers = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        let sent = send(next().timeout(ANSWER_WITHIN));
        let Ok(outcome) = tokio::time::timeout_at(until.into(), sent).await else { break };
        answers.push(Answer { began, took: began.elapsed(), outcome });
        tokio::time::sleep(PAUSE).await;
    }
    answers
}
