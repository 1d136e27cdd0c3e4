//! What happened that matters to security, in `audit_events`.
//!
//! What succeeds is written with its transaction. Refusals cost their cause nothing, so they are
//! counted in memory, and a minute's refusals of one kind in one namespace become one row.

use super::auth_db::{SqlCondition, statement_if};
use debros_proto::Namespace;
use debros_proto::lock;
use debros_proto::rpc::Statement;
use debros_proto::words::counted;
use std::collections::HashMap;
use std::sync::Mutex;

/// Rows of refusals that one minute may write; what is over is counted together, in no namespace.
const MAX_ROWS: usize = 100;

const INSERT_EVENT: &str = "INSERT INTO audit_events (at, kind, namespace, subject, detail)";

/// Writes an event down when the condition holds.
pub(super) fn insert_event_if(
    kind: &str,
    namespace: &Namespace,
    subject: &str,
    detail: &str,
    at: i64,
    condition: SqlCondition,
) -> Statement {
    statement_if(
        &format!("{INSERT_EVENT} SELECT ?, ?, ?, ?, ? WHERE"),
        [at.into(), kind.into(), namespace.as_str().into(), subject.into(), detail.into()],
        condition,
    )
}

/// Writes down an event of the node, in no namespace.
pub(super) fn insert_node_event(kind: &str, subject: &str, detail: &str, at: i64) -> Statement {
    Statement::new(
        format!("{INSERT_EVENT} VALUES (?, ?, '', ?, ?)"),
        [at.into(), kind.into(), subject.into(), detail.into()],
    )
}

/// Writes down an event of the node when the condition holds.
pub(super) fn insert_node_event_if(
    kind: &str,
    subject: &str,
    detail: &str,
    at: i64,
    condition: SqlCondition,
) -> Statement {
    statement_if(
        &format!("{INSERT_EVENT} SELECT ?, ?, '', ?, ? WHERE"),
        [at.into(), kind.into(), subject.into(), detail.into()],
        condition,
    )
}

/// Refusals that are not written down yet.
#[derive(Default)]
pub(super) struct RefusalCounts {
    counts: Mutex<HashMap<(&'static str, String), u64>>,
}

impl RefusalCounts {
    /// Counts one.
    pub(super) fn count_refusal(&self, kind: &'static str, namespace: &Namespace) {
        metrics::counter!("debros_node_auth_refusals_total", "kind" => kind).increment(1);
        let mut counts = lock(&self.counts);
        let key = (kind, namespace.to_string());
        let key = if counts.len() < MAX_ROWS - 1 || counts.contains_key(&key) {
            key
        } else {
            (kind, String::new())
        };
        *counts.entry(key).or_default() += 1;
    }

    /// Takes what was counted, as rows to write.
    pub(super) fn drain_statements(&self, at: i64) -> Vec<Statement> {
        let counts = std::mem::take(&mut *lock(&self.counts));
        counts
            .into_iter()
            .map(|((kind, namespace), count)| {
                Statement::new(
                    // Anybody can make up names: those of no namespace count together.
                    format!(
                        "{INSERT_EVENT} SELECT ?, ?, coalesce((SELECT name FROM namespaces WHERE name = ?), ''), '', ?"
                    ),
                    [at.into(), kind.into(), namespace.into(), counted(count, "time").into()],
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_ROWS, RefusalCounts};
    use debros_proto::Namespace;

    #[test]
    fn a_flood_of_refusals_becomes_a_hundred_rows_at_most() {
        let refusals = RefusalCounts::default();
        for number in 0..10_000 {
            refusals
                .count_refusal("sign_in_refused", &Namespace::new(&format!("n{number}")).unwrap());
        }
        let rows = refusals.drain_statements(1);
        assert!(rows.len() <= MAX_ROWS, "{}", rows.len());
        let counted: u64 = rows
            .iter()
            .filter_map(|row| row.args.last()?.as_text()?.split(' ').next()?.parse::<u64>().ok())
            .sum();
        assert_eq!(counted, 10_000);
        assert!(refusals.drain_statements(2).is_empty());
    }
}
