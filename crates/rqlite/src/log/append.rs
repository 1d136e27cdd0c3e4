//! Appending, so that its outcome is known whenever it can be.

use super::{RqliteLog, number, text, unexpected};
use crate::client::{ClientError, ReadLevel, Statement, forwarding_timeout};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// The most bytes that the bodies of one [`append`](RqliteLog::append) have together. rqlite holds
/// an entry of its log in memory several times, and a follower has to receive it within the time
/// after which it would look for another leader.
pub const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The longest wait for one answer: a leader that hangs is not waited for, the next one is asked.
const ATTEMPT: Duration = Duration::from_secs(2);
/// What is waited in addition, for what has to be written by a majority on slow disks.
const ATTEMPT_PER_MIB: Duration = Duration::from_millis(500);
const SHORTEST_PAUSE_MS: u64 = 20;
const LONGEST_PAUSE_MS: u64 = 50;

/// Writes the batch as a whole under two conditions: the term is still the writer's, and the number
/// before the first one is the log's last. A repetition of what was written does not meet the second
/// one, and is recognised afterwards, which is rare.
///
/// The document is an array of the bodies alone, as numbers follow each other: SQLite takes each
/// text as it is, without parsing arrays in an array.
///
/// So short because rqlite compresses an entry of its log, with the slowest gzip there is, when the
/// text of its SQL has 150 bytes. The bodies need none of it.
const APPEND: &str = "INSERT INTO log SELECT ?2+key,?1,value FROM json_each(?3)\
WHERE(SELECT term FROM leader)=?1 AND ifnull((SELECT max(entry)FROM log),?2-1)=?2-1";
const COMPRESSED_FROM: usize = 150;
const _: () = assert!(APPEND.len() < COMPRESSED_FROM, "appends would be compressed");

/// An entry to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// Its number: one more than that of the entry before.
    pub entry: u64,
    /// What it holds. rqlite neither compresses nor encrypts it.
    pub body: Bytes,
}

/// Why a batch is not known to be in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another node claimed a later term. No entry of the batch is in the log, nor will be.
    #[error("another node leads now; nothing was appended")]
    Deposed,
    /// The term is the caller's, and its numbers do not fit the log: one is taken by another entry,
    /// or one is left out before them. Nothing was appended. The caller has to read the log to its
    /// end before it numbers more.
    #[error("the numbers do not fit the log: {0}")]
    Misnumbered(String),
    /// The cluster took no attempt until the deadline. No entry of the batch is in the log, nor
    /// will be by this call.
    #[error("the log takes nothing: {0}")]
    Unavailable(String),
    /// The batch may be in the log, or come to be there. The very same call can be made again. For
    /// anything else the caller has to claim a new term, which ends what may still be under way, and
    /// to read the log to its end.
    #[error("whether it was appended is unknown: {0}")]
    Unknown(String),
    /// The bodies are larger than [`MAX_BATCH_BYTES`] together.
    #[error("the batch is larger than {MAX_BATCH_BYTES} bytes")]
    TooLarge,
}

/// What one attempt showed.
enum Attempt {
    Appended,
    /// A condition did not hold when Raft's order came to the statement.
    Refused,
    NotSent(String),
    Unknown(String),
}

impl RqliteLog {
    /// Appends entries under a term, all or none of them, and waits until a majority has them. It is
    /// repeated until there is an answer or the deadline has come. One append at a time: the next
    /// one before the answer would be refused if it overtook.
    ///
    /// `Ok` also when the term ended meanwhile and the batch came before its end.
    ///
    /// # Errors
    /// See [`AppendError`]; each says what may be in the log.
    pub async fn append(
        &self,
        term: u64,
        entries: &[NewEntry],
        deadline: Instant,
    ) -> Result<(), AppendError> {
        let Some(first) = entries.first().map(|entry| entry.entry) else { return Ok(()) };
        if entries.iter().map(|entry| entry.body.len()).sum::<usize>() > MAX_BATCH_BYTES {
            return Err(AppendError::TooLarge);
        }
        if first == 0 || !entries.iter().zip(first..).all(|(entry, number)| entry.entry == number) {
            let problem = "a batch counts up by one, from 1 on";
            return Err(AppendError::Misnumbered(problem.to_owned()));
        }
        let document = document(entries);
        let mut may_be_there = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let attempt = self.attempt(term, first, &document, entries.len(), left).await;
            let reason = match attempt {
                Attempt::Appended => return Ok(()),
                Attempt::Refused => match self.after_refusal(term, entries, deadline).await {
                    Ok(outcome) => return outcome,
                    Err(error) => {
                        let reason = error.to_string();
                        may_be_there = Some(reason.clone());
                        reason
                    }
                },
                Attempt::NotSent(reason) => reason,
                Attempt::Unknown(reason) => {
                    may_be_there = Some(reason.clone());
                    reason
                }
            };
            tracing::debug!(term, first, reason, "an append is repeated");
            if Instant::now() + pause_before_next() >= deadline {
                return Err(match may_be_there {
                    Some(reason) => AppendError::Unknown(reason),
                    None => AppendError::Unavailable(reason),
                });
            }
            tokio::time::sleep(pause_before_next()).await;
        }
    }

    async fn attempt(
        &self,
        term: u64,
        first: u64,
        document: &str,
        count: usize,
        left: Duration,
    ) -> Attempt {
        let size = u32::try_from(document.len() >> 20).unwrap_or(u32::MAX);
        let timeout = left.min(ATTEMPT + ATTEMPT_PER_MIB * size);
        let path = format!("/db/execute?timeout={}", forwarding_timeout(timeout));
        let statement = [(APPEND, term, first, document)];
        match self.client.run(&path, &statement, 1, timeout).await {
            Ok(results) => {
                let written = results.first().map_or(0, |result| result.rows_affected);
                if written == count as u64 { Attempt::Appended } else { Attempt::Refused }
            }
            Err(ClientError::NotSent(reason)) => Attempt::NotSent(reason),
            // SQLite has no reason to refuse it but one that passes: after a start a node may not
            // have the tables yet.
            Err(ClientError::Unknown(reason) | ClientError::Sql(reason)) => {
                Attempt::Unknown(reason)
            }
        }
    }

    /// What became of a batch that was refused. The refusal has a place in Raft's order, and an
    /// attempt from before it may have had another answer, which was lost; those from after it are
    /// refused for the same reason.
    async fn after_refusal(
        &self,
        term: u64,
        entries: &[NewEntry],
        deadline: Instant,
    ) -> Result<Result<(), AppendError>, ClientError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(Ok(()));
        };
        // One statement: the rows and the term are of the same moment.
        let statement = Statement::new(
            "SELECT leader.term, bounds.first, bounds.last, log.entry, log.term, log.body \
             FROM leader CROSS JOIN (SELECT coalesce(min(entry), 0) AS first, coalesce(max(entry), 0) AS last FROM log) AS bounds \
             LEFT JOIN log ON log.entry BETWEEN ?1 AND ?2 WHERE leader.id = 1",
        )
        .bind(first.entry)
        .bind(last.entry);
        let left = deadline.saturating_duration_since(Instant::now());
        let result =
            self.client.query(&statement, ReadLevel::Strong, left.min(self.timeout)).await?;
        let row = result.values.first().ok_or_else(|| unexpected("there is no leader's row"))?;
        let (term_now, log_first, log_last) = (number(row, 0)?, number(row, 1)?, number(row, 2)?);
        let mut ours = 0;
        for row in result.values.iter().filter(|row| row.get(3).is_some_and(|v| !v.is_null())) {
            let entry = number(row, 3)?;
            let offset = usize::try_from(entry - first.entry).unwrap_or(usize::MAX);
            let same = entries.get(offset).is_some_and(|new| {
                text(row, 5).is_ok_and(|body| body == STANDARD.encode(&new.body))
            });
            ours += usize::from(same && number(row, 4)? == term);
        }
        let (first, last) = (first.entry, last.entry);
        Ok(if ours == entries.len() {
            Ok(())
        } else if term_now == term {
            Err(AppendError::Misnumbered(format!(
                "entries {first} to {last} for a log that holds {log_first} to {log_last}"
            )))
        } else if log_first > first {
            // What was there was deleted since; only the new leader knows whether it was ours.
            Err(AppendError::Unknown(format!("entry {first} was deleted by the next leader")))
        } else if ours == 0 {
            Err(AppendError::Deposed)
        } else {
            // One statement writes all or none, so this is not the work of this program.
            Err(AppendError::Unknown(format!("{ours} of {} entries are there", entries.len())))
        })
    }
}

/// An array of the bodies in Base64, which needs no escapes.
fn document(entries: &[NewEntry]) -> String {
    let length: usize = entries.iter().map(|entry| entry.body.len() / 3 * 4 + 7).sum();
    let mut document = String::with_capacity(length + 2);
    document.push('[');
    for (position, entry) in entries.iter().enumerate() {
        document.push_str(if position == 0 { "\"" } else { ",\"" });
        STANDARD.encode_string(&entry.body, &mut document);
        document.push('"');
    }
    document.push(']');
    document
}

/// Different for each, so that the nodes of a cluster do not all ask at the same moment.
fn pause_before_next() -> Duration {
    let span = LONGEST_PAUSE_MS - SHORTEST_PAUSE_MS;
    let random = getrandom::u64().unwrap_or_default() % (span + 1);
    Duration::from_millis(SHORTEST_PAUSE_MS + random)
}

#[cfg(test)]
mod tests {
    use super::{NewEntry, document, pause_before_next};
    use bytes::Bytes;

    #[test]
    fn a_document_is_json_of_the_bodies() {
        let entries = [&b"a\"\\"[..], &b""[..], &[0xff; 4][..]];
        let entries: Vec<_> = entries
            .iter()
            .zip(1..)
            .map(|(body, entry)| NewEntry { entry, body: Bytes::from(*body) })
            .collect();
        let read: Vec<String> = serde_json::from_str(&document(&entries)).unwrap();
        assert_eq!(read, ["YSJc", "", "/////w=="]);
    }

    #[test]
    fn a_pause_is_of_20_to_50_ms() {
        for _ in 0..100 {
            assert!((20..=50).contains(&pause_before_next().as_millis()));
        }
    }
}
