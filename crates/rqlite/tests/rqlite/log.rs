//! The log on one node.

use super::common::{AnswerThief, LONG, alone, entry, soon};
use debros_rqlite::{
    AppendError, ClientError, Leadership, MAX_BATCH_BYTES, ReadError, ReadLevel, RqliteLog,
    Rqlited, Statement,
};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

async fn log() -> (TempDir, Rqlited, RqliteLog) {
    let folder = tempfile::tempdir().unwrap();
    let node = alone(folder.path()).await;
    let log = RqliteLog::new(node.client());
    log.create_tables().await.unwrap();
    log.create_tables().await.unwrap();
    (folder, node, log)
}

async fn numbers(log: &RqliteLog, after: u64) -> Vec<u64> {
    let entries = log.read(after, usize::MAX, ReadLevel::Strong).await.unwrap();
    entries.iter().map(|entry| entry.entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_read_as_it_was() {
    let (_folder, node, log) = log().await;
    assert_eq!(log.last_entry(ReadLevel::Strong).await, Ok(0));
    assert_eq!(log.log_bytes().await, Ok(0));
    assert_eq!(log.read(0, 1000, ReadLevel::None).await, Ok(vec![]));
    let term = log.claim("a", 0).await.unwrap().unwrap();
    assert_eq!(term, 1);
    // Bytes of every value, nothing, and what SQL and JSON would trip over.
    let bodies: [Vec<u8>; 4] =
        [(0..=255).collect(), vec![], b"x'00'\"\\'; DROP TABLE log".to_vec(), vec![9; 300_000]];
    let batch: Vec<_> = bodies.iter().zip(1..).map(|(b, n)| entry(n, b.clone())).collect();
    log.append(term, &batch[..1], soon()).await.unwrap();
    log.append(term, &batch[1..], soon()).await.unwrap();
    log.append(term, &[], soon()).await.unwrap();
    for level in [ReadLevel::None, ReadLevel::Weak, ReadLevel::Strong] {
        let read = log.read(0, usize::MAX, level).await.unwrap();
        let read: Vec<_> = read.iter().map(|e| (e.entry, e.term, e.body.to_vec())).collect();
        let expected: Vec<_> = bodies.iter().zip(1..).map(|(b, n)| (n, 1, b.clone())).collect();
        assert_eq!(read, expected);
    }
    assert_eq!(log.last_entry(ReadLevel::Weak).await, Ok(4));
    assert!(log.log_bytes().await.unwrap() >= 400_000);
    node.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_ends_at_its_limit_and_has_one_entry_at_least() {
    let (_folder, node, log) = log().await;
    let term = log.claim("a", 0).await.unwrap().unwrap();
    let batch: Vec<_> = (1..=20).map(|n| entry(n, vec![1; 3000])).collect();
    log.append(term, &batch, soon()).await.unwrap();
    let count = |after, bytes| {
        let log = log.clone();
        async move { log.read(after, bytes, ReadLevel::None).await.unwrap().len() }
    };
    assert_eq!(count(0, 0).await, 1);
    assert_eq!(count(0, 3000).await, 2, "the one that reaches over the limit is the last");
    assert_eq!(count(0, 2999).await, 1);
    assert_eq!(count(0, 29_000).await, 10);
    assert_eq!(count(15, 1_000_000).await, 5);
    assert_eq!(count(20, 1_000_000).await, 0);
    assert_eq!(count(99, 1_000_000).await, 0);
    // More rows than one read looks at, in order all the same.
    let mut next = 21;
    for _ in 0..4 {
        let batch: Vec<_> = (next..next + 400).map(|n| entry(n, vec![])).collect();
        log.append(term, &batch, soon()).await.unwrap();
        next += 400;
    }
    let mut after = 0;
    let mut reads = 0;
    while after < next - 1 {
        let read = numbers(&log, after).await;
        assert_eq!(read.first(), Some(&(after + 1)));
        after = *read.last().unwrap();
        reads += 1;
    }
    assert_eq!(reads, 2);
    node.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_earlier_leader_comes_after_a_claim() {
    let (_folder, node, log) = log().await;
    assert_eq!(log.claim("a", 0).await, Ok(Some(1)));
    log.append(1, &[entry(1, "a1")], soon()).await.unwrap();
    assert_eq!(log.claim("b", 0).await, Ok(None), "it knew an old term");
    assert_eq!(log.claim("b", 1).await, Ok(Some(2)));
    assert_eq!(log.claim("b", 1).await, Ok(Some(2)), "the same claim again is the same claim");
    assert_eq!(log.claim("a", 1).await, Ok(None), "another's is not");
    let leadership = log.leadership(ReadLevel::Strong).await.unwrap();
    assert_eq!(leadership, Leadership { term: 2, node: "b".to_owned() });
    let late = log.append(1, &[entry(2, "a2"), entry(3, "a3")], soon()).await;
    assert_eq!(late, Err(AppendError::Deposed));
    assert_eq!(numbers(&log, 0).await, [1]);
    log.append(2, &[entry(2, "b2")], soon()).await.unwrap();
    // What came before the claim is in the log, and whoever repeats it is told so.
    assert_eq!(log.append(1, &[entry(1, "a1")], soon()).await, Ok(()));
    // The number is another's entry: ours is not there.
    assert_eq!(log.append(1, &[entry(2, "b2")], soon()).await, Err(AppendError::Deposed));
    node.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_answers_were_lost_leaves_one_entry() {
    let (_folder, node, log) = log().await;
    let thief = AnswerThief::before(node.client().address()).await;
    let through = RqliteLog::new(node.client().through(thief.address));
    thief.lose(2);
    assert!(matches!(log_claim_unknown(&through).await, ClientError::Unknown(_)));
    assert!(matches!(log_claim_unknown(&through).await, ClientError::Unknown(_)));
    assert_eq!(through.claim("a", 0).await, Ok(Some(1)), "it was made once");
    thief.lose(3);
    through.append(1, &[entry(1, "one"), entry(2, "two")], soon()).await.unwrap();
    assert_eq!(thief.left(), 0, "three answers were lost");
    let read = log.read(0, usize::MAX, ReadLevel::Strong).await.unwrap();
    let read: Vec<_> = read.iter().map(|e| (e.entry, e.body.as_ref())).collect();
    assert_eq!(read, [(1, &b"one"[..]), (2, &b"two"[..])]);

    // Its answer was lost, then the term: it is there, and is not called deposed.
    let batch = [entry(3, "three")];
    thief.lose(1);
    let racing = through.append(1, &batch, soon());
    let (appended, claimed) = tokio::join!(racing, async {
        // After the first attempt arrived.
        while log.last_entry(ReadLevel::Strong).await != Ok(3) {}
        log.claim("b", 1).await
    });
    assert_eq!(claimed, Ok(Some(2)));
    assert_eq!(appended, Ok(()));
    assert_eq!(numbers(&log, 0).await, [1, 2, 3]);
    node.stop(Duration::from_secs(10)).await;
}

async fn log_claim_unknown(log: &RqliteLog) -> ClientError {
    log.claim("a", 0).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_the_outcome_is_unknown_and_without_a_server_it_is_known() {
    let (_folder, node, log) = log().await;
    log.claim("a", 0).await.unwrap();
    let thief = AnswerThief::before(node.client().address()).await;
    let through = RqliteLog::new(node.client().through(thief.address));
    thief.lose(usize::MAX);
    let short = || Instant::now() + Duration::from_millis(300);
    let unknown = through.append(1, &[entry(1, "one")], short()).await;
    assert!(matches!(unknown, Err(AppendError::Unknown(_))), "{unknown:?}");
    assert_eq!(numbers(&log, 0).await, [1], "and here it was written");
    let nowhere = RqliteLog::new(node.client().through(crate::support::own_address()));
    let unavailable = nowhere.append(1, &[entry(2, "two")], short()).await;
    assert!(matches!(unavailable, Err(AppendError::Unavailable(_))), "{unavailable:?}");
    assert_eq!(numbers(&log, 0).await, [1]);
    node.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_do_not_fit_write_nothing() {
    let (_folder, node, log) = log().await;
    log.claim("a", 0).await.unwrap();
    log.append(1, &[entry(1, "one"), entry(2, "two")], soon()).await.unwrap();
    let batches = [
        // Taken by another entry, with a free number behind it.
        vec![entry(2, "other"), entry(3, "three")],
        // One left out.
        vec![entry(4, "four")],
        // No batch.
        vec![entry(3, "three"), entry(5, "five")],
        vec![entry(0, "zero")],
    ];
    for batch in batches {
        let refused = log.append(1, &batch, soon()).await;
        assert!(matches!(refused, Err(AppendError::Misnumbered(_))), "{refused:?}");
    }
    assert_eq!(numbers(&log, 0).await, [1, 2]);
    // The same once more is no mistake.
    log.append(1, &[entry(2, "two")], soon()).await.unwrap();
    log.append(1, &[entry(3, "three")], soon()).await.unwrap();
    assert_eq!(numbers(&log, 0).await, [1, 2, 3]);
    let large = log.append(1, &[entry(4, vec![0; MAX_BATCH_BYTES + 1])], soon()).await;
    assert_eq!(large, Err(AppendError::TooLarge));
    node.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_the_largest_size_is_taken() {
    let (_folder, node, log) = log().await;
    log.claim("a", 0).await.unwrap();
    let started = Instant::now();
    log.append(1, &[entry(1, vec![7; MAX_BATCH_BYTES])], soon()).await.unwrap();
    println!("{MAX_BATCH_BYTES} bytes in {:?}", started.elapsed());
    let read = log.read(0, usize::MAX, ReadLevel::None).await.unwrap();
    assert_eq!(read[0].body.len(), MAX_BATCH_BYTES);
    node.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trimmed_log_keeps_its_last_number() {
    let (_folder, node, log) = log().await;
    log.claim("a", 0).await.unwrap();
    let batch: Vec<_> = (1..=1200).map(|n| entry(n, "body")).collect();
    log.append(1, &batch, soon()).await.unwrap();
    assert_eq!(log.trim(0).await, Ok(0));
    assert_eq!(log.trim(700).await, Ok(700));
    assert_eq!(log.first_entry(ReadLevel::None).await, Ok(701));
    let trimmed = log.read(10, 1000, ReadLevel::None).await;
    assert_eq!(trimmed, Err(ReadError::Trimmed { first: 701 }));
    assert_eq!(log.read(700, 1, ReadLevel::None).await.unwrap()[0].entry, 701);
    assert_eq!(log.trim(u64::from(u32::MAX)).await, Ok(499), "all but the newest");
    assert_eq!(log.trim(u64::from(u32::MAX)).await, Ok(0));
    assert_eq!(log.last_entry(ReadLevel::Strong).await, Ok(1200));
    assert_eq!(numbers(&log, 1200).await, [0_u64; 0]);
    log.append(1, &[entry(1201, "next")], soon()).await.unwrap();
    assert_eq!(numbers(&log, 1199).await, [1200, 1201]);
    // The batch's own entries may have been deleted by the next leader: nobody knows.
    assert_eq!(log.claim("b", 1).await, Ok(Some(2)));
    let unknown = log.append(1, &[entry(1, "body")], soon()).await;
    assert!(matches!(unknown, Err(AppendError::Unknown(_))), "{unknown:?}");
    node.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_say_what_they_have_and_never_less() {
    let (_folder, node, log) = log().await;
    log.report_durable("b", 7).await.unwrap();
    log.report_durable("a", 5).await.unwrap();
    log.report_durable("b", 6).await.unwrap();
    assert_eq!(
        log.holders(ReadLevel::Weak).await,
        Ok(vec![("a".to_owned(), 5), ("b".to_owned(), 7)])
    );
    log.forget_holder("b").await.unwrap();
    log.report_durable("b", 2).await.unwrap();
    assert_eq!(
        log.holders(ReadLevel::Weak).await,
        Ok(vec![("a".to_owned(), 5), ("b".to_owned(), 2)])
    );
    node.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_fails_is_an_error_and_others_of_the_call_are_not_kept() {
    let (_folder, node, _log) = log().await;
    let client = node.client();
    let bad =
        ["CREATE TABLE t (x PRIMARY KEY)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"];
    let refused = client.execute(&bad.map(Statement::new), LONG).await;
    assert!(matches!(refused, Err(ClientError::Sql(_))), "{refused:?}");
    let read = client.query(&Statement::new("SELECT * FROM t"), ReadLevel::Strong, LONG).await;
    assert!(matches!(read, Err(ClientError::Sql(_))), "{read:?}");
    let stranger = debros_rqlite::RqliteClient::new(client.address(), "member", "guessed");
    let refused = stranger.query(&Statement::new("SELECT 1"), ReadLevel::None, LONG).await;
    assert!(matches!(refused, Err(ClientError::NotSent(_))), "{refused:?}");
    node.stop(Duration::from_secs(10)).await;
}

/// Not a check: what the parts cost.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure() {
    let (_folder, node, log) = log().await;
    super::cluster::measure(&node, &log).await;
    node.stop(Duration::from_secs(10)).await;
}
