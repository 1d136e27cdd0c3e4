//! Statements that try to read, change, lock, count, name or infer something of another namespace
//! or of the system. Each line of defence stands alone here: the rewriter without the authorizer,
//! the authorizer without the rewriter.

mod common;

use common::{Outcome, Shared, Tenant, run, state};
use debros_proto::Namespace;
use debros_sql::counters::{ConnectionCounters, restore_counters};
use debros_sql::policy::ForeignObjects;
use debros_sql::{Policy, StatementClass, SystemTableGrants};

/// What the attacker has. `{p}` is its prefix.
const OWN: &[&str] = &[
    "CREATE TABLE {p}users(id INTEGER PRIMARY KEY, v TEXT)",
    "CREATE TABLE {p}auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
    "CREATE VIRTUAL TABLE {p}docs USING fts5(v)",
    "INSERT INTO {p}users VALUES (1, 'own one'), (2, 'own two')",
    "INSERT INTO {p}auto(v) VALUES ('own')",
    "INSERT INTO {p}docs VALUES ('own words')",
];

/// What the attacker must not reach.
const VICTIM: &[&str] = &[
    "CREATE TABLE secrets(id INTEGER PRIMARY KEY, v TEXT UNIQUE)",
    "CREATE TABLE users(id INTEGER PRIMARY KEY, v TEXT)",
    "CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
    "CREATE INDEX secrets_v ON secrets(v)",
    "CREATE VIRTUAL TABLE docs USING fts5(v)",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, a, b)",
    "CREATE VIEW shown AS SELECT * FROM secrets",
    "CREATE TRIGGER guard AFTER INSERT ON secrets BEGIN SELECT 1; END",
    "INSERT INTO secrets VALUES (1, 'MARK v1'), (2, 'MARK v2')",
    "INSERT INTO users VALUES (1, 'MARK user')",
    "INSERT INTO auto(v) VALUES ('MARK auto'), ('MARK auto'), ('MARK auto')",
    "INSERT INTO docs VALUES ('MARK secret words')",
    "ANALYZE secrets",
];

struct Scene {
    shared: Shared,
    attacker: Tenant,
}

fn scene() -> Scene {
    let shared = Shared::new(false);
    let (mut attacker, mut victim) = (Tenant::new("acme"), Tenant::new("victim"));
    shared
        .db
        .execute_batch("CREATE TABLE _debros_keys(k TEXT PRIMARY KEY); INSERT INTO _debros_keys VALUES ('MARK key')")
        .unwrap();
    for sql in VICTIM {
        let outcome = victim.run(&shared, sql);
        assert_eq!(outcome.error, None, "{sql}");
    }
    for sql in OWN {
        let outcome = attacker.run(&shared, &sql.replace("{p}", ""));
        assert_eq!(outcome.error, None, "{sql}");
    }
    // As where others have asked for their counters before.
    restore_counters(&shared.db, ConnectionCounters { last_insert_rowid: 987_654, changes: 2 })
        .unwrap();
    Scene { shared, attacker }
}

/// Names of what is not the attacker's, as they may be written.
fn foreign_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "\"ns::victim::{}\"",
        "[ns::victim::{}]",
        "`ns::victim::{}`",
        "'ns::victim::{}'",
        "\"NS::Victim::{}\"",
    ]
    .iter()
    .map(|form| form.replace("{}", "secrets"))
    .collect();
    names.extend(
        [
            "\"ns::victim::shown\"",
            "\"ns::victim::docs\"",
            "_debros_keys",
            "\"ns::victim::docs_content\"",
        ]
        .map(str::to_owned),
    );
    names
}

/// The lines of a file, without comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with("--"))
}

/// Every attack: places with each foreign name, and the single ones.
fn attacks() -> Vec<String> {
    let mut attacks = Vec::new();
    for line in lines(include_str!("hostile/places.sql")) {
        for name in foreign_names() {
            attacks.push(line.replace("{X}", &name));
        }
    }
    attacks.extend(lines(include_str!("hostile/single.sql")).map(str::to_owned));
    attacks
}

/// The attack with the attacker's own names filled in, as statements. A text that cannot be split
/// is one statement.
fn statements(attack: &str, name: impl Fn(&str) -> String) -> Vec<String> {
    let filled = attack
        .replace("{own}", &name("users"))
        .replace("{docs}", &name("docs"))
        .replace("{docs_data}", &name("docs_data"))
        .replace("{new}", &name("evil"))
        .replace("{new2}", &name("evil2"));
    match debros_proto::sql::split(&filled) {
        Ok(pieces) => pieces.iter().map(|piece| piece.text.to_owned()).collect(),
        Err(_) => vec![filled],
    }
}

/// Everything that is not the attacker's.
fn others(shared: &Shared) -> Vec<(String, Outcome)> {
    ["ns::victim::", "_debros_", "sqlite_"]
        .iter()
        .flat_map(|prefix| state(&shared.db, prefix))
        .collect()
}

/// `sqlite_sequence` and `sqlite_stat1` without the attacker's rows.
fn shared_rows(shared: &Shared) -> Vec<Outcome> {
    [
        "SELECT * FROM sqlite_sequence WHERE name NOT LIKE 'ns::acme::%'",
        "SELECT * FROM sqlite_stat1 WHERE tbl NOT LIKE 'ns::acme::%'",
    ]
    .iter()
    .map(|sql| run(&shared.db, sql))
    .collect()
}

fn untouched(shared: &Shared) -> (Vec<(String, Outcome)>, Vec<Outcome>) {
    let mut objects = others(shared);
    // Their rows are compared without the attacker's own.
    objects.retain(|(definition, _)| !definition.starts_with("table sqlite_"));
    (objects, shared_rows(shared))
}

/// What the victim does with its own, whatever the attacker did before: everything must go well.
const WORK: &[(StatementClass, &str)] = &[
    (StatementClass::Write, "INSERT INTO \"ns::victim::secrets\"(v) VALUES ('more')"),
    (
        StatementClass::Write,
        "UPDATE \"ns::victim::secrets\" SET id = 100, v = 'other' WHERE id = 1",
    ),
    (StatementClass::Write, "DELETE FROM \"ns::victim::secrets\" WHERE id = 2"),
    (StatementClass::Write, "INSERT OR REPLACE INTO \"ns::victim::users\" VALUES (1, 'other')"),
    (StatementClass::Write, "INSERT INTO \"ns::victim::docs\" VALUES ('more words')"),
    (StatementClass::Write, "DELETE FROM \"ns::victim::auto\""),
    (StatementClass::Read, "SELECT count(*) FROM \"ns::victim::shown\""),
    (
        StatementClass::Ddl,
        "CREATE TABLE \"ns::victim::fresh\"(a REFERENCES \"ns::victim::users\"(id))",
    ),
    (StatementClass::Ddl, "CREATE INDEX \"ns::victim::users_v\" ON \"ns::victim::users\"(v)"),
    (StatementClass::Ddl, "DROP TABLE \"ns::victim::fresh\""),
    (StatementClass::Ddl, "DROP VIEW \"ns::victim::shown\""),
    (StatementClass::Ddl, "DROP TABLE \"ns::victim::secrets\""),
];

/// What of the victim's work does not go well now. Nothing of it stays.
fn locked(shared: &Shared) -> Option<String> {
    let victim = Namespace::new("victim").unwrap();
    // An attack may have ended the transaction; then nothing of it is left.
    shared.db.execute_batch("SAVEPOINT work").unwrap();
    let failed = WORK.iter().find_map(|(class, sql)| {
        let outcome =
            shared.run_under(Some(Policy::new(&victim, *class, SystemTableGrants::default())), sql);
        outcome.error.map(|error| format!("{sql}: {error}"))
    });
    shared.db.execute_batch("ROLLBACK TO work; RELEASE work").unwrap();
    failed
}

/// Ends a savepoint, unless `OR ROLLBACK` or `RAISE(ROLLBACK)` did: the engine looks for that too.
fn back(shared: &Shared, sql: &str) {
    if !shared.db.is_autocommit() {
        shared.db.execute_batch(sql).unwrap();
    }
}

#[test]
fn lesson_01_the_rewriter_alone_lets_nothing_out_and_nothing_in() {
    let mut scene = scene();
    let before = untouched(&scene.shared);
    let attacks = attacks();
    let mut escapes = Vec::new();
    for attack in &attacks {
        scene.shared.db.execute_batch("SAVEPOINT attack").unwrap();
        let saved = scene.attacker.catalogue.fork().unwrap();
        for sql in statements(attack, |name| name.to_owned()) {
            let outcome = scene.attacker.run(&scene.shared, &sql);
            if outcome.text().contains("MARK") && !attack.contains("MARK") {
                escapes.push(format!("{sql}\n  {outcome:?}"));
            }
            if outcome.text().contains("987654") && !attack.contains("987654") {
                escapes.push(format!("a counter: {sql}\n  {outcome:?}"));
            }
            // No caller learns a name that it did not say.
            if outcome.text().contains("victim") && !attack.contains("ictim") {
                escapes.push(format!("a name: {sql}\n  {outcome:?}"));
            }
        }
        if untouched(&scene.shared) != before {
            escapes.push(format!("changed: {attack}"));
        }
        if let Some(work) = locked(&scene.shared) {
            escapes.push(format!("locked: {attack}\n  {work}"));
        }
        scene.attacker.catalogue = saved;
        back(&scene.shared, "ROLLBACK TO attack; RELEASE attack");
    }
    assert!(escapes.is_empty(), "{}", escapes.join("\n"));
    assert!(attacks.len() >= 500, "only {} attacks", attacks.len());
}

#[test]
fn the_rewriter_does_not_tell_whether_a_foreign_name_exists() {
    let mut scene = scene();
    let mut answers = Vec::new();
    for line in lines(include_str!("hostile/places.sql")) {
        let mut told = Vec::new();
        for name in ["secrets", "nothere"] {
            scene.shared.db.execute_batch("SAVEPOINT attack").unwrap();
            let saved = scene.attacker.catalogue.fork().unwrap();
            let attack = line.replace("{X}", &format!("\"ns::victim::{name}\""));
            let outcomes: Vec<String> = statements(&attack, |name| name.to_owned())
                .iter()
                .map(|sql| scene.attacker.run(&scene.shared, sql).text().replace(name, "NAME"))
                .collect();
            told.push(outcomes);
            scene.attacker.catalogue = saved;
            back(&scene.shared, "ROLLBACK TO attack; RELEASE attack");
        }
        if told[0] != told[1] {
            answers.push(format!("{line}\n  {:?}\n  {:?}", told[0], told[1]));
        }
    }
    assert!(answers.is_empty(), "{}", answers.join("\n"));
}

#[test]
fn lesson_01_the_policy_alone_lets_nothing_out_and_nothing_in() {
    let scene = scene();
    let namespace = Namespace::new("acme").unwrap();
    let before = untouched(&scene.shared);
    let mut escapes = Vec::new();
    // The attacker writes real names, of its own objects too, and says of each statement what class
    // it likes.
    for attack in attacks() {
        for class in [StatementClass::Read, StatementClass::Write, StatementClass::Ddl] {
            scene.shared.db.execute_batch("SAVEPOINT attack").unwrap();
            for sql in statements(&attack, |name| format!("\"ns::acme::{name}\"")) {
                let foreign = ForeignObjects::count(&scene.shared.db, &namespace).unwrap();
                scene.shared.db.execute_batch("SAVEPOINT statement").unwrap();
                let policy = Policy::new(&namespace, class, SystemTableGrants::default());
                let outcome = scene.shared.run_under(Some(policy), &sql);
                if ForeignObjects::count(&scene.shared.db, &namespace).unwrap() != foreign {
                    back(&scene.shared, "ROLLBACK TO statement");
                }
                back(&scene.shared, "RELEASE statement");
                if outcome.text().contains("MARK") && !sql.contains("MARK") {
                    escapes.push(format!("{class:?}: {sql}\n  {outcome:?}"));
                }
            }
            if untouched(&scene.shared) != before {
                escapes.push(format!("{class:?} changed: {attack}"));
            }
            if let Some(work) = locked(&scene.shared) {
                escapes.push(format!("{class:?} locked: {attack}\n  {work}"));
            }
            back(&scene.shared, "ROLLBACK TO attack; RELEASE attack");
        }
    }
    assert!(escapes.is_empty(), "{}", escapes.join("\n"));
}

/// The corpus is worth something: without a defence, hundreds of its attacks succeed.
#[test]
fn without_a_defence_the_same_attacks_escape() {
    let scene = scene();
    let before = untouched(&scene.shared);
    let mut escapes = 0;
    for attack in attacks() {
        // What they would do to this process or its disk is not tried.
        if [
            "VACUUM",
            "ATTACH",
            "DETACH",
            "PRAGMA",
            "load_extension",
            "BEGIN",
            "ROLLBACK",
            "SAVEPOINT",
            "COMMIT",
            "END;",
        ]
        .iter()
        .any(|word| attack.contains(word))
        {
            continue;
        }
        scene.shared.db.execute_batch("SAVEPOINT attack").unwrap();
        let mut escaped = false;
        for sql in statements(&attack, |name| format!("\"ns::acme::{name}\"")) {
            let outcome = scene.shared.run_under(None, &sql);
            escaped |= outcome.text().contains("MARK") && !sql.contains("MARK");
        }
        escaped |= untouched(&scene.shared) != before;
        escapes += usize::from(escaped);
        back(&scene.shared, "ROLLBACK TO attack; RELEASE attack");
    }
    assert!(escapes > 300, "only {escapes} attacks do anything");
}

/// ALTER TABLE looks through the whole database's views, and stops at a broken one. In a file of
/// its own a namespace meets only its own; in a shared one it is at least not told whose it is.
#[test]
fn a_neighbours_broken_view_is_not_named() {
    let mut scene = scene();
    let mut victim = Tenant::new("victim");
    victim.run(&scene.shared, "CREATE VIEW broken AS SELECT nope FROM secrets, nothing");
    let outcome = scene.attacker.run(&scene.shared, "ALTER TABLE users RENAME COLUMN v TO w");
    assert!(
        !outcome.text().contains("victim") && !outcome.text().contains("broken"),
        "{outcome:?}"
    );
}

/// What a connection counts is of the caller's own statements, though connections are shared.
#[test]
fn the_counters_of_others_are_not_told() {
    let mut scene = scene();
    let mut victim = Tenant::new("counted");
    victim.run(&scene.shared, "CREATE TABLE t(id INTEGER PRIMARY KEY)");
    for sql in [
        "CREATE TABLE seen(a, b)",
        "CREATE TRIGGER before BEFORE INSERT ON auto BEGIN INSERT INTO seen VALUES (last_insert_rowid(), changes()); END",
        "CREATE TRIGGER after AFTER UPDATE ON users BEGIN INSERT INTO seen VALUES (last_insert_rowid(), changes()); END",
    ] {
        assert_eq!(scene.attacker.run(&scene.shared, sql).error, None, "{sql}");
    }
    for attack in [
        "SELECT last_insert_rowid(), changes()",
        "INSERT INTO seen VALUES (last_insert_rowid(), changes())",
        "INSERT INTO auto(v) VALUES (1)",
        "UPDATE users SET v = last_insert_rowid() WHERE id = 1",
        "SELECT * FROM seen",
    ] {
        victim.run(&scene.shared, "DELETE FROM t");
        victim.run(
            &scene.shared,
            "INSERT INTO t VALUES (987650), (987651), (987652), (987653), (987654)",
        );
        let outcome = scene.attacker.run(&scene.shared, attack);
        assert!(
            outcome.error.is_none() && !outcome.text().contains("98765"),
            "{attack}: {outcome:?}"
        );
    }
    let seen = scene.attacker.run(&scene.shared, "SELECT max(a), max(b) FROM seen");
    for value in &seen.rows[0] {
        assert!(matches!(value, rusqlite::types::Value::Integer(..=2)), "{seen:?}");
    }
}
