//! Query plans without the rewriter's own parts.

use crate::execution_context::MOMENT_TABLE;
use debros_proto::rpc::{Row, value::Kind};
use std::collections::HashSet;

/// One line of a plan.
struct PlanLine {
    id: i64,
    parent: i64,
    detail: String,
}

/// Removes the reading of the time, which views and triggers do by a subquery, from the rows of
/// EXPLAIN QUERY PLAN. The other subqueries keep their numbers, which are names and no counts.
pub fn remove_time_reads(rows: &mut Vec<Row>) {
    let lines: Vec<PlanLine> = rows.iter().map(parse_line).collect();
    let reads = |line: &PlanLine| {
        let rest =
            line.detail.strip_prefix("SCAN ").or_else(|| line.detail.strip_prefix("SEARCH "));
        rest.and_then(|rest| rest.split(' ').next()) == Some(MOMENT_TABLE)
    };
    let mut hidden: HashSet<i64> =
        lines.iter().filter(|line| reads(line)).map(|line| line.id).collect();
    if hidden.is_empty() {
        return;
    }
    let mut numbers = HashSet::new();
    for line in &lines {
        let mut below = lines.iter().filter(|other| other.parent == line.id).peekable();
        if below.peek().is_some()
            && below.all(|other| hidden.contains(&other.id))
            && let Some(number) = number_after(&line.detail, "SCALAR SUBQUERY ")
        {
            numbers.insert(number);
        }
    }
    hidden.extend(lines.iter().filter_map(|line| {
        let number = ["SCALAR SUBQUERY ", "REUSE SUBQUERY "]
            .iter()
            .find_map(|word| number_after(&line.detail, word))?;
        numbers.contains(&number).then_some(line.id)
    }));
    let mut kept = lines.iter().map(|line| !hidden.contains(&line.id));
    rows.retain(|_| kept.next().unwrap_or(true));
}

fn parse_line(row: &Row) -> PlanLine {
    let integer = |index: usize| match row.values.get(index).and_then(|value| value.kind.as_ref()) {
        Some(Kind::Integer(integer)) => *integer,
        _ => -1,
    };
    let detail = match row.values.get(3).and_then(|value| value.kind.as_ref()) {
        Some(Kind::Text(text)) => text.clone(),
        _ => String::new(),
    };
    PlanLine { id: integer(0), parent: integer(1), detail }
}

fn number_after(detail: &str, word: &str) -> Option<usize> {
    let rest = &detail[detail.find(word)? + word.len()..];
    let end = rest.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}
