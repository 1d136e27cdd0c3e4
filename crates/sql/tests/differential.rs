//! The same statements, plain on an SQLite of their own, and rewritten in a database whose
//! neighbour has tables of the same names: nothing may differ.

mod common;

use common::{Outcome, Shared, Tenant, compare_states, mark, open, run, state};
use std::fmt::Write as _;
use std::path::Path;

/// Runs one file of the corpus. A statement after `/*refused*/` must be refused and is not run
/// plain; one after `/*differs*/` is run on both sides without comparing what comes out.
fn differences(path: &Path) -> (usize, String) {
    let script = std::fs::read_to_string(path).unwrap();
    let statements = debros_proto::sql::split(&script)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let plain = open();
    let shared = Shared::new(true);
    let (mut tenant, mut neighbour) = (Tenant::new("acme"), Tenant::new("acme2"));
    for statement in &statements {
        let text = statement.text.to_ascii_uppercase();
        if ["CREATE", "INSERT", "ALTER"].iter().any(|word| text.starts_with(word)) {
            neighbour.run(&shared, statement.text);
        }
    }
    mark(&shared.db, &neighbour.prefix());
    let before = state(&shared.db, &neighbour.prefix());
    let mut report = String::new();
    for statement in &statements {
        let sql = statement.text;
        let before = script[..sql.as_ptr() as usize - script.as_ptr() as usize].trim_end();
        let rewritten = tenant.run(&shared, sql);
        let mut differs = |expected: &Outcome| {
            let _ = writeln!(
                report,
                "{}:{}: {sql}\n  plain     {expected:?}\n  rewritten {rewritten:?}",
                path.file_name().unwrap().display(),
                statement.line
            );
        };
        if before.ends_with("/*refused*/") {
            if !rewritten.refused {
                differs(&Outcome::default());
            }
            continue;
        }
        let expected = run(&plain, sql);
        if !before.ends_with("/*differs*/")
            && (Outcome { refused: false, ..rewritten.clone() }) != expected
        {
            differs(&expected);
        }
        let text = rewritten.text();
        if text.contains("MARK ")
            || text.contains("987654")
            || (text.contains("ns::") && !sql.contains("ns::"))
        {
            differs(&expected);
        }
    }
    compare_states(&plain, &shared, &mut tenant, &mut report);
    if state(&shared.db, &neighbour.prefix()) != before {
        let _ = writeln!(report, "{}: the neighbour changed", path.display());
    }
    (statements.len(), report)
}

#[test]
fn every_statement_of_the_corpus_does_the_same_as_in_an_sqlite_of_its_own() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let only = std::env::var("CORPUS").unwrap_or_default();
    let (mut statements, mut report) = (0, String::new());
    for file in files.iter().filter(|file| file.to_string_lossy().contains(&only)) {
        let (count, differences) = differences(file);
        statements += count;
        report += &differences;
    }
    assert!(report.is_empty(), "{report}");
    assert!(!only.is_empty() || statements >= 1500, "only {statements} statements");
}
