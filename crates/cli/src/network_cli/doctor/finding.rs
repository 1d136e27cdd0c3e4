//! One thing that is wrong, and what to do about it.

use crate::cli_error::{CliError, FAILED};
use crate::network_cli::output::{Output, printable};
use serde::Serialize;
use std::process::ExitCode;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FindingLevel {
    /// Something does not work, or the next failure is one too many.
    Error,
    /// It works, and should be looked at.
    Warning,
}

/// What is wrong. The names of the fields and the codes are what programs read: they stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: FindingLevel,
    /// One word of a fixed list: see `docs/CLUSTER.md`.
    pub(super) code: &'static str,
    /// The node, namespace, port or folder that it is about.
    pub(super) subject: String,
    /// A sentence without its full stop.
    pub(super) message: String,
    /// What to do, likewise.
    pub(super) advice: String,
}

impl Finding {
    pub(super) fn error(code: &'static str, subject: &str, message: String, advice: &str) -> Self {
        let (subject, advice) = (subject.to_owned(), advice.to_owned());
        Self { level: FindingLevel::Error, code, subject, message, advice }
    }

    pub(super) fn warning(
        code: &'static str,
        subject: &str,
        message: String,
        advice: &str,
    ) -> Self {
        Self { level: FindingLevel::Warning, ..Self::error(code, subject, message, advice) }
    }
}

/// Writes the findings, errors first; `healthy` stands for none. Exit code 1 with errors.
pub(super) fn write_findings(
    out: Output,
    mut findings: Vec<Finding>,
    healthy: &str,
) -> Result<ExitCode, CliError> {
    findings.sort_by_key(|finding| finding.level);
    if out.is_json() {
        out.write_json(&findings)?;
    } else if findings.is_empty() {
        out.write_line(&printable(healthy))?;
    } else {
        let lines: Vec<String> = findings.iter().map(finding_text).collect();
        out.write_line(&lines.join("\n"))?;
    }
    let has_errors = findings.iter().any(|finding| finding.level == FindingLevel::Error);
    Ok(if has_errors { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn finding_text(finding: &Finding) -> String {
    let level = match finding.level {
        FindingLevel::Error => "error",
        FindingLevel::Warning => "warning",
    };
    format!("{level}: {}\n  to do: {}", printable(&finding.message), printable(&finding.advice))
}

#[cfg(test)]
mod tests {
    use super::{Finding, finding_text};

    #[test]
    fn a_finding_reads_as_two_lines_and_as_an_object() {
        let found = Finding::warning("clock", "two", "it is late".to_owned(), "set it");
        assert_eq!(finding_text(&found), "warning: it is late\n  to do: set it");
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(
            json,
            r#"{"level":"warning","code":"clock","subject":"two","message":"it is late","advice":"set it"}"#
        );
    }
}
