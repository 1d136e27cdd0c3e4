//! What every back end must keep, as cases that each back end's tests run.
//!
//! ```text
//! async fn make() -> debros_engine::conformance::Fixture { … a new, empty engine … }
//! debros_engine::conformance!(make);
//! ```
//!
//! makes one `#[test]` of each case. A case gets a new engine and panics when a promise is broken.

pub mod idempotency;
pub mod isolation;
pub mod kv;
pub mod limits;
pub mod operations;
pub mod sql;
pub mod tenancy;
pub mod values;

use crate::{CallOptions, Engine, IdempotencyKey, TargetDatabase, WriteOutcome};
use debros_proto::rpc::{Condition, Consistency, Row, Statement, StatementResult, Value};
use debros_proto::{Code, Error, Key, Namespace, Result};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An engine for one case, and what must live as long as it does (a temporary folder, a child
/// process).
pub struct Fixture {
    /// The engine. A quota for each namespace (`NamespaceInfo::max_bytes`) is at most some tens of
    /// MiB: a case fills it.
    pub engine: Arc<dyn Engine>,
    /// Dropped after the case.
    pub keep: Box<dyn Any + Send>,
}

/// Makes a `#[test]` of every case of the suite; `$make` is an `async fn() -> Fixture`. In a cluster
/// some calls are served by the node that leads alone; `$leading` makes the engine of such a node.
#[macro_export]
macro_rules! conformance {
    ($make:ident) => { $crate::conformance!($make, $make); };
    ($make:ident, $leading:ident) => {
        mod on_the_leader {
            use super::$leading;
            $crate::conformance!(@cases $leading;
                operations {
                    sweep_removes_what_expired, backup_and_restore, lesson_16_restore_of_nothing_is_refused
                }
            );
        }
        $crate::conformance!(@cases $make;
            values { integers_are_exact, reals_are_exact, texts_and_blobs_are_exact, text_that_is_not_utf8_is_refused }
            sql {
                lesson_21_sqlite_tells_reads_from_writes, counts_are_of_the_statement, returning_gives_rows_and_counts,
                upsert_counts, triggers_are_not_counted, mistakes_are_the_callers, arguments_must_fit,
                one_statement_in_a_query, lesson_20_a_transaction_is_atomic,
                transactions_do_not_mix, constraints_are_named, foreign_keys_are_enforced, deferred_foreign_keys_hurt_nobody_else,
                a_schema_change_is_seen_at_once, lesson_36_semicolons_in_texts_and_triggers, extensions_work
            }
            isolation {
                lesson_01_namespaces_reach_nothing_else, hostile_statements_are_refused, schema_pragmas_work,
                names_with_any_signs_work, lesson_15_hostile_names_are_only_names, rollback_clauses_hurt_nobody_else,
                a_slow_statement_hurts_nobody_else
            }
            tenancy {
                two_namespaces_share_names_and_nothing_else, nobody_is_reached_by_a_full_name,
                the_schema_is_in_the_users_words, errors_speak_the_users_names, values_of_the_moment_are_given_once,
                counters_tell_nothing_of_others, definitions_belong_to_their_transaction,
                definitions_of_many_callers_do_not_mix, readers_see_one_schema_or_the_other,
                a_long_read_outlasts_schema_changes, namespaces_are_listed_and_described, a_deleted_namespace_is_as_one_never_used,
                writes_beside_a_deletion_are_refused_or_kept
            }
            limits {
                sql_text_and_arguments, many_arguments, statements_in_a_transaction, result_rows, result_bytes_of_a_write,
                ten_thousand_rows, a_namespace_at_its_quota_hurts_nobody_else, a_statement_is_interrupted, a_passed_deadline_does_nothing, a_reader_can_not_write, deep_and_odd_texts_are_answered
            }
            kv {
                lesson_17_put_get_delete, lesson_18_values_are_exact, large_values, conditions_hold, versions_never_come_again,
                values_expire, lesson_19_lists_match_bytes, lists_page, namespaces_do_not_share_keys, concurrent_puts
            }
            idempotency {
                a_keyed_write_happens_once, a_key_alone_is_committed, keyed_definitions, a_key_is_for_one_request, a_failed_write_leaves_no_record,
                fifty_callers_act_once, idempotency_keys_are_of_a_namespace, keyed_puts_and_deletes, one_key_is_for_one_call_whatever_it_is,
                one_key_in_two_calls_at_once_acts_once
            }
            operations {
                schema_describes_everything, export_is_a_database, size_grows, close_refuses_and_keeps
            }
        );
    };
    (@cases $make:ident; $($module:ident { $($case:ident),+ })+) => {
        $(mod $module {
            $(
                #[test]
                fn $case() {
                    $crate::conformance::run(super::$make, |engine| {
                        Box::pin($crate::conformance::$module::$case(engine))
                    });
                }
            )+
        })+
    };
}

/// The future of a case.
pub type CaseFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs one case on a new engine, in a runtime of its own.
pub fn run<F: Future<Output = Fixture>>(
    make: impl FnOnce() -> F,
    case: impl FnOnce(Arc<dyn Engine>) -> CaseFuture,
) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime for a test").block_on(async {
        let fixture = make().await;
        // A task of its own, so that a case may spawn more and runs as a caller does.
        let outcome = tokio::spawn(case(Arc::clone(&fixture.engine))).await;
        fixture.engine.close().await;
        drop(fixture);
        if let Err(broken) = outcome {
            std::panic::resume_unwind(broken.into_panic());
        }
    });
}

/// The database of a namespace.
pub fn database(namespace: &str) -> TargetDatabase {
    TargetDatabase::Namespace(Namespace::new(namespace).expect("a namespace"))
}

/// Options with a minute's time.
pub fn options() -> CallOptions {
    CallOptions {
        consistency: Consistency::Weak,
        deadline: Instant::now() + Duration::from_secs(60),
        idempotency_key: None,
        caller: Default::default(),
        read_only: false,
    }
}

/// Options with an idempotency key of the namespace `app`.
pub fn keyed_options(key: &str, hash: u8) -> CallOptions {
    keyed_options_in("app", key, hash)
}

/// Options with an idempotency key of a namespace.
pub fn keyed_options_in(owner: &str, key: &str, hash: u8) -> CallOptions {
    let idempotency_key = IdempotencyKey {
        namespace: namespace(owner),
        key: key.to_owned(),
        request_hash: [hash; 32],
    };
    CallOptions { idempotency_key: Some(idempotency_key), ..options() }
}

/// A statement with arguments.
pub fn statement(sql: &str, args: &[Value]) -> Statement {
    Statement::new(sql, args.iter().cloned())
}

/// A key.
pub fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

/// A namespace.
pub fn namespace(text: &str) -> Namespace {
    Namespace::new(text).expect("a namespace")
}

/// No condition.
pub fn no_condition() -> Condition {
    Condition::default()
}

/// Runs one statement in the namespace `app`.
pub async fn query(engine: &Arc<dyn Engine>, sql: &str, args: &[Value]) -> Result<StatementResult> {
    engine
        .query(&database("app"), statement(sql, args), options())
        .await
        .map(|written| written.value)
}

/// As [`query`], for what must work.
pub async fn query_ok(engine: &Arc<dyn Engine>, sql: &str) -> StatementResult {
    query(engine, sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {:?}: {error}", error.code))
}

/// As [`query`], for what must be refused.
pub async fn query_refused(engine: &Arc<dyn Engine>, sql: &str) -> Error {
    match query(engine, sql, &[]).await {
        Ok(result) => panic!("{sql}: gave {result:?}"),
        Err(error) => error,
    }
}

/// Runs statements without arguments as one transaction in the namespace `app`.
pub async fn transaction(
    engine: &Arc<dyn Engine>,
    statements: &[&str],
) -> Result<Vec<StatementResult>> {
    let statements = statements.iter().map(|sql| Statement::from(*sql)).collect();
    engine.transaction(&database("app"), statements, options()).await.map(|written| written.value)
}

/// The only value of a result.
pub fn single_value(result: &StatementResult) -> Value {
    match result.rows.as_slice() {
        [Row { values }] if values.len() == 1 => values[0].clone(),
        rows => panic!("one value was expected, there is {rows:?}"),
    }
}

/// The integer that a query in the namespace `app` gives.
pub async fn query_integer(engine: &Arc<dyn Engine>, sql: &str) -> i64 {
    single_value(&query_ok(engine, sql).await)
        .as_integer()
        .unwrap_or_else(|| panic!("{sql}: no integer"))
}

/// Checks a code, and that the message is one for people.
pub fn assert_code(error: &Error, code: Code, what: &str) {
    assert_eq!(error.code, code, "{what}: {error}");
    assert!(error.message.len() > 8, "{what}: {error}");
}

/// The value, which must be one that was written now.
pub fn expect_new_write<T>(written: WriteOutcome<T>) -> T {
    assert!(!written.replayed, "an old answer was given");
    written.value
}
