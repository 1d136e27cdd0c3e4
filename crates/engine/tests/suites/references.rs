//! Transactions that turn foreign keys off or defer them: how migrations recreate a table that
//! others refer to.

use debros_engine::conformance::{
    assert_code, database, keyed_options, options, query, query_integer, query_ok, query_refused,
    single_value, transaction,
};
use debros_engine::embedded::{CallLimits, EmbeddedConfig};
use debros_engine::{CallOptions, Engine};
use debros_proto::Code;
use debros_proto::rpc::{Statement, Value};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn open(folder: &Path) -> Arc<dyn Engine> {
    crate::open_engine(EmbeddedConfig::new(folder))
}

/// Users, to which posts and comments refer.
async fn blog(folder: &Path) -> Arc<dyn Engine> {
    let engine = open(folder);
    for sql in [
        "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT)",
        "CREATE TABLE posts(id INTEGER PRIMARY KEY, author INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE)",
        "CREATE TABLE comments(id INTEGER PRIMARY KEY, post REFERENCES posts(id) ON DELETE CASCADE, by REFERENCES users(id) ON DELETE SET NULL)",
        "INSERT INTO users VALUES (1, 'ann'), (2, 'bob')",
        "INSERT INTO posts VALUES (10, 1), (11, 2)",
        "INSERT INTO comments VALUES (100, 10, 2), (101, 11, NULL)",
    ] {
        query_ok(&engine, sql).await;
    }
    engine
}

/// As Prisma and drizzle-kit write it.
const REMAKE: [&str; 8] = [
    "PRAGMA defer_foreign_keys=ON",
    "PRAGMA foreign_keys=OFF;",
    "CREATE TABLE \"new_users\" (id INTEGER PRIMARY KEY, name TEXT NOT NULL, age INTEGER DEFAULT 7)",
    "INSERT INTO \"new_users\" (\"id\", \"name\") SELECT \"id\", \"name\" FROM \"users\"",
    "DROP TABLE `users`",
    "ALTER TABLE \"new_users\" RENAME TO \"users\"",
    "PRAGMA foreign_keys=ON",
    "PRAGMA defer_foreign_keys=OFF",
];

async fn check_enforced(engine: &Arc<dyn Engine>) {
    assert_code(
        &query_refused(engine, "INSERT INTO posts VALUES (99, 77)").await,
        Code::Constraint,
        "enforced",
    );
    let late = transaction(
        engine,
        &["INSERT INTO posts VALUES (99, 77)", "INSERT INTO users(id, name) VALUES (77, 'x')"],
    );
    let error = late.await.unwrap_err();
    assert_eq!((error.code, error.statement), (Code::Constraint, Some(0)), "not deferred: {error}");
}

#[tokio::test]
async fn a_table_that_others_refer_to_is_made_anew_with_nothing_lost() {
    let folder = tempfile::tempdir().unwrap();
    let engine = blog(folder.path()).await;
    for round in 0..2 {
        transaction(&engine, &REMAKE).await.unwrap_or_else(|error| panic!("{round}: {error:?}"));
        assert_eq!(query_integer(&engine, "SELECT count(*) FROM posts").await, 2);
        assert_eq!(query_integer(&engine, "SELECT count(by) FROM comments").await, 1);
        assert_eq!(query_integer(&engine, "SELECT sum(age) FROM users").await, 14);
        check_enforced(&engine).await;
    }
    let parent = single_value(
        &query_ok(&engine, "SELECT \"table\" FROM pragma_foreign_key_list('posts')").await,
    );
    assert_eq!(parent, Value::from("users"));
    query_ok(&engine, "DELETE FROM users WHERE id = 2").await;
    assert_eq!(
        query_integer(&engine, "SELECT count(*) FROM posts").await,
        1,
        "the cascade goes to the new table"
    );
    engine.close().await;
    let engine = open(folder.path());
    check_enforced(&engine).await;
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_refers_to_nothing_at_the_end_refuses_the_whole_transaction_and_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let engine = blog(folder.path()).await;
    query_ok(&engine, "CREATE TABLE others(a)").await;
    let calls: Vec<_> = (0..60)
        .map(|index| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                match index % 3 {
                    0 => {
                        transaction(
                            &engine,
                            &["PRAGMA foreign_keys = OFF", "INSERT INTO posts VALUES (50, 77)"],
                        )
                        .await
                    }
                    // Without the transaction above, which turned references off, nothing lets this
                    // pass.
                    1 => query(&engine, "INSERT INTO posts VALUES (51, 78)", &[])
                        .await
                        .map(|result| vec![result]),
                    _ => transaction(&engine, &["INSERT INTO others VALUES (1)"]).await,
                }
            })
        })
        .collect();
    for (index, call) in calls.into_iter().enumerate() {
        match (index % 3, call.await.unwrap()) {
            (0, Err(error)) => {
                assert_eq!(error.code, Code::Constraint, "{error}");
                for word in ["rowid 50 of posts", "row of users", "foreign_keys was OFF"] {
                    assert!(error.message.contains(word), "{error}");
                }
            }
            (1, Err(error)) => assert_eq!(error.message, "FOREIGN KEY constraint failed"),
            (2, Ok(_)) => (),
            (_, outcome) => panic!("{index}: {outcome:?}"),
        }
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM others").await, 20);
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM posts").await, 2);
    check_enforced(&engine).await;
    engine.close().await;
}

#[tokio::test]
async fn a_transaction_that_fails_leaves_references_enforced() {
    let folder = tempfile::tempdir().unwrap();
    let engine = blog(folder.path()).await;
    for last in [
        "SELECT nonsense",
        "INSERT INTO users VALUES (1, 'again')",
        "INSERT OR ROLLBACK INTO users VALUES (1, 'again')",
    ] {
        let statements = [
            "PRAGMA defer_foreign_keys = 1",
            "PRAGMA foreign_keys = 0",
            "DELETE FROM users WHERE id = 2",
            last,
        ];
        assert_eq!(
            transaction(&engine, &statements).await.unwrap_err().statement,
            Some(3),
            "{last}"
        );
        assert_eq!(query_integer(&engine, "SELECT count(*) FROM users").await, 2);
        check_enforced(&engine).await;
    }
    engine.close().await;
}

/// The writer is held while many calls wait, so that it would run them in one transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_call_defers_is_deferred_for_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let engine = blog(folder.path()).await;
    query_ok(&engine, "CREATE TABLE others(a)").await;
    let holding = {
        let engine = Arc::clone(&engine);
        let long = "INSERT INTO others WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT i FROM n";
        tokio::spawn(async move { query_ok(&engine, long).await })
    };
    let calls: Vec<_> = (0..60)
        .map(|index| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let child = format!("INSERT INTO posts VALUES ({0}, {0})", 100 + index);
                let parent = format!("INSERT INTO users VALUES ({}, 'x')", 100 + index);
                let deferring = ["PRAGMA defer_foreign_keys = ON", &child, &parent];
                transaction(&engine, if index % 2 == 0 { &deferring } else { &deferring[1..] })
                    .await
            })
        })
        .collect();
    holding.await.unwrap();
    for (index, call) in calls.into_iter().enumerate() {
        let outcome = call.await.unwrap();
        assert_eq!(outcome.is_ok(), index % 2 == 0, "{index}: {outcome:?}");
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM posts").await, 32);
    engine.close().await;
}

/// What is asked at the end does not count as the caller's.
#[tokio::test]
async fn the_limits_are_the_callers_statements_own() {
    let folder = tempfile::tempdir().unwrap();
    blog(folder.path()).await.close().await;
    let config = EmbeddedConfig::new(folder.path());
    let limits = CallLimits { rows: 2, ..config.limits };
    let engine: Arc<dyn Engine> = crate::open_engine(EmbeddedConfig { limits, ..config });
    let statements =
        ["PRAGMA foreign_keys = OFF", "SELECT id FROM users", "INSERT INTO posts VALUES (50, 77)"];
    assert_eq!(transaction(&engine, &statements).await.unwrap_err().code, Code::Constraint);
    transaction(&engine, &statements[..2]).await.unwrap();
    engine.close().await;
}

/// However it ends: by a trigger's word, for want of room, by the limit on time.
#[tokio::test]
async fn a_transaction_that_is_ended_from_within_leaves_references_enforced() {
    let folder = tempfile::tempdir().unwrap();
    let engine = blog(folder.path()).await;
    engine.close().await;
    // Longer than a busy machine holds up the statements that end by themselves.
    let statement_time = Duration::from_secs(2);
    let config =
        EmbeddedConfig { statement_time, max_size: 2 << 20, ..EmbeddedConfig::new(folder.path()) };
    let engine: Arc<dyn Engine> = crate::open_engine(config);
    query_ok(&engine, "CREATE TABLE big(b)").await;
    query_ok(
        &engine,
        "CREATE TRIGGER no BEFORE UPDATE ON users BEGIN SELECT RAISE(ROLLBACK, 'never'); END",
    )
    .await;
    for (last, code) in [
        ("UPDATE users SET name = 'x'", Code::Constraint),
        ("INSERT INTO big VALUES (zeroblob(5000000))", Code::DatabaseFull),
        (
            "INSERT INTO big WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n",
            Code::StatementTimeout,
        ),
    ] {
        let statements = ["PRAGMA foreign_keys = OFF", "DELETE FROM users WHERE id = 2", last];
        let error = transaction(&engine, &statements).await.unwrap_err();
        assert_eq!((error.code, error.statement), (code, Some(2)), "{error}");
        assert_eq!(query_integer(&engine, "SELECT count(*) FROM users").await, 2);
        check_enforced(&engine).await;
    }
    engine.close().await;
}

#[tokio::test]
async fn a_transaction_that_turned_them_off_is_done_once_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let engine = blog(folder.path()).await;
    let statements = || {
        let add = "INSERT INTO posts VALUES (20, 1)";
        ["PRAGMA foreign_keys = OFF", add, "PRAGMA foreign_keys"].map(Statement::from).to_vec()
    };
    let first =
        engine.transaction(&database("app"), statements(), keyed_options("once", 1)).await.unwrap();
    let again =
        engine.transaction(&database("app"), statements(), keyed_options("once", 1)).await.unwrap();
    assert_eq!(first.value, again.value);
    assert_eq!(single_value(&again.value[2]), Value::from(0));
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM posts").await, 3);
    check_enforced(&engine).await;
    engine.close().await;
}

#[tokio::test]
async fn each_part_of_a_transaction_is_held_to_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let engine = blog(folder.path()).await;
    let results = transaction(
        &engine,
        &[
            "PRAGMA foreign_keys",
            "PRAGMA foreign_keys = OFF",
            "PRAGMA foreign_keys",
            "UPDATE posts SET author = 3 WHERE id = 11",
            "INSERT INTO users VALUES (3, 'cyd')",
            "PRAGMA foreign_keys = ON",
            "DELETE FROM users WHERE id = 3",
            "SELECT count(*) FROM posts",
        ],
    )
    .await
    .unwrap();
    let reported: Vec<_> = [0, 2, 7].map(|index: usize| single_value(&results[index])).into();
    assert_eq!(
        reported,
        [Value::from(1), Value::from(0), Value::from(1)],
        "on again, the cascade runs"
    );
    let statements = [
        "PRAGMA foreign_keys = OFF",
        "PRAGMA foreign_keys = ON",
        "INSERT INTO posts VALUES (60, 88)",
    ];
    assert_eq!(transaction(&engine, &statements).await.unwrap_err().statement, Some(2));
    // Deferred: in any order, as long as the end is right.
    let order = [
        "PRAGMA defer_foreign_keys = ON",
        "INSERT INTO posts VALUES (60, 88)",
        "INSERT INTO users VALUES (88, 'x')",
    ];
    transaction(&engine, &order).await.unwrap();
    let error = transaction(&engine, &order[..2]).await.unwrap_err();
    assert_eq!(error.code, Code::Constraint);
    let error = transaction(
        &engine,
        &["PRAGMA defer_foreign_keys = ON", "INSERT INTO posts VALUES (61, 89)"],
    )
    .await;
    assert_eq!(error.unwrap_err().code, Code::Constraint);
    check_enforced(&engine).await;
    engine.close().await;
}

#[tokio::test]
async fn a_reference_that_can_not_be_looked_at_is_told_and_can_be_mended() {
    let folder = tempfile::tempdir().unwrap();
    let engine = blog(folder.path()).await;
    query_ok(&engine, "CREATE TABLE loose(code TEXT)").await;
    query_ok(&engine, "CREATE TABLE bound(code REFERENCES loose(code))").await;
    let error = transaction(&engine, &REMAKE).await.unwrap_err();
    assert_eq!(error.code, Code::Sql);
    for words in [
        "foreign key mismatch - \"bound\" referencing \"loose\"",
        "foreign_keys was OFF",
        "UNIQUE index",
    ] {
        assert!(error.message.contains(words), "{error}");
    }
    assert_eq!(query_integer(&engine, "SELECT count(*) FROM pragma_table_info('users')").await, 2);
    check_enforced(&engine).await;
    let mended = [&REMAKE[..], &["CREATE UNIQUE INDEX loose_code ON loose(code)"]].concat();
    transaction(&engine, &mended).await.unwrap();
    check_enforced(&engine).await;
    engine.close().await;
}

/// As plain SQLite: nobody looks for parents, or for their indexes.
#[tokio::test]
async fn while_they_are_off_parents_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    for sql in [
        "CREATE TABLE p(id INTEGER PRIMARY KEY, e TEXT)",
        "CREATE UNIQUE INDEX pe ON p(e)",
        "CREATE TABLE c(id INTEGER PRIMARY KEY, e TEXT REFERENCES p(e))",
        "INSERT INTO p VALUES (1, 'x')",
        "INSERT INTO c VALUES (1, 'x')",
        "CREATE TABLE twice(x)",
        "INSERT INTO twice VALUES (1), (1)",
        "CREATE TABLE of_twice(x REFERENCES twice(x))",
    ] {
        query_ok(&engine, sql).await;
    }
    let statements = [
        "PRAGMA foreign_keys=OFF",
        "CREATE TABLE __new_p(id INTEGER PRIMARY KEY, e TEXT)",
        "INSERT INTO __new_p SELECT id, e FROM p",
        "DROP TABLE p",
        "UPDATE c SET id = 2, e = 'x'",
        "ALTER TABLE __new_p RENAME TO p",
        "CREATE TABLE __new_c(id INTEGER PRIMARY KEY, e TEXT, FOREIGN KEY (e) REFERENCES p(e))",
        "INSERT INTO __new_c SELECT id, e FROM c",
        "DROP TABLE c",
        "ALTER TABLE __new_c RENAME TO c",
        // As a dump has it: the child first.
        "CREATE TABLE of_made(x REFERENCES made(x))",
        "CREATE TABLE made AS SELECT 1 AS x",
        "CREATE UNIQUE INDEX made_x ON made(x)",
        "CREATE TABLE posts(id INTEGER PRIMARY KEY, by INTEGER REFERENCES users(id))",
        "INSERT INTO posts VALUES (1, 1)",
        "CREATE TABLE users(id INTEGER PRIMARY KEY)",
        "INSERT INTO users VALUES (1)",
        "ALTER TABLE users ADD COLUMN boss INTEGER DEFAULT 1 REFERENCES users(id)",
        "DELETE FROM twice WHERE rowid = 2",
        "PRAGMA foreign_keys=ON",
        "CREATE UNIQUE INDEX pe ON p(e)",
        "CREATE UNIQUE INDEX one ON twice(x)",
    ];
    transaction(&engine, &statements).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(query_integer(&engine, "SELECT sum(id) FROM c").await, 2);
    // The same texts, where they are on again.
    for (sql, words) in [
        ("INSERT INTO posts VALUES (2, 9)", "FOREIGN KEY constraint failed"),
        ("DELETE FROM p", "FOREIGN KEY constraint failed"),
    ] {
        assert_eq!(query_refused(&engine, sql).await.message, words);
    }
    query_ok(&engine, "DROP INDEX pe").await;
    let error = query_refused(&engine, "UPDATE c SET id = 2, e = 'x'").await;
    assert_eq!(error.message, "foreign key mismatch - \"c\" referencing \"p\"");
    engine.close().await;
    let engine = open(folder.path());
    assert_eq!(query_integer(&engine, "SELECT boss FROM users").await, 1);
    engine.close().await;
}

#[tokio::test]
async fn outside_a_transaction_nothing_turns_them_off() {
    let folder = tempfile::tempdir().unwrap();
    let engine = blog(folder.path()).await;
    for sql in ["PRAGMA foreign_keys = OFF", "PRAGMA defer_foreign_keys = ON"] {
        let error = query_refused(&engine, sql).await;
        assert_eq!(error.code, Code::StatementNotAllowed, "{error}");
        assert!(error.message.contains("one transaction call"), "{error}");
        let once =
            engine.query(&database("app"), Statement::from(sql), keyed_options(sql, 1)).await;
        assert_eq!(once.unwrap_err().code, Code::StatementNotAllowed);
        check_enforced(&engine).await;
    }
    for sql in ["PRAGMA foreign_keys = ON", "PRAGMA defer_foreign_keys = OFF"] {
        assert!(query_ok(&engine, sql).await.rows.is_empty(), "{sql}");
    }
    assert_code(&query_refused(&engine, "PRAGMA foreign_keys = 5").await, Code::Sql, "neither");
    let given = query(&engine, "PRAGMA foreign_keys", &[Value::from(1)]).await.unwrap_err();
    assert_code(&given, Code::Sql, "an argument");
    engine.close().await;
}

#[tokio::test]
async fn who_may_only_read_turns_nothing_off() {
    let folder = tempfile::tempdir().unwrap();
    let engine = blog(folder.path()).await;
    let reading = || CallOptions { read_only: true, ..options() };
    let ask = |sql: &'static str| {
        vec![Statement::from(sql), Statement::from("SELECT count(*) FROM posts")]
    };
    let refused =
        engine.transaction(&database("app"), ask("PRAGMA foreign_keys = OFF"), reading()).await;
    assert_eq!(refused.unwrap_err().code, Code::Forbidden);
    let reported =
        engine.transaction(&database("app"), ask("PRAGMA foreign_keys"), reading()).await.unwrap();
    assert_eq!(single_value(&reported.value[0]), Value::from(1));
    engine.close().await;
}

#[tokio::test]
async fn a_cascade_that_goes_too_deep_removes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    for sql in [
        "CREATE TABLE tree(id INTEGER PRIMARY KEY, up REFERENCES tree(id) ON DELETE CASCADE)",
        "INSERT INTO tree WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT i, nullif(i - 1, 0) FROM n",
    ] {
        query_ok(&engine, sql).await;
    }
    let remove = "DELETE FROM tree WHERE id = 1";
    for _ in 0..2 {
        let error = query_refused(&engine, remove).await;
        assert!(error.message.contains("nested too deep"), "{error}");
        transaction(&engine, &[remove]).await.unwrap_err();
        assert_eq!(query_integer(&engine, "SELECT count(*) FROM tree").await, 3000);
    }
    engine.close().await;
}
