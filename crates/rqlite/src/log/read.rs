//! Reading the log.

use super::{RqliteLog, number, text, unexpected};
use crate::client::{ClientError, ReadLevel, Statement};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Rows that one read looks at.
const MAX_ROWS: u64 = 1024;

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub entry: u64,
    /// The term of the leader that appended it.
    pub term: u64,
    /// What it holds.
    pub body: Bytes,
}

/// Why there are no entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The entry after the given one was deleted: a copy of the files is needed.
    #[error("the log begins at entry {first}: what came before was deleted")]
    Trimmed {
        /// The first entry that is there.
        first: u64,
    },
    /// What the client says.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl RqliteLog {
    /// The entries after number `after`, in order and without gaps, as many as have `max_bytes` of
    /// bodies together, but one at least. Empty when there is none.
    ///
    /// # Errors
    /// [`ReadError::Trimmed`] when the entry after `after` is not there any more.
    pub async fn read(
        &self,
        after: u64,
        max_bytes: usize,
        level: ReadLevel,
    ) -> Result<Vec<Entry>, ReadError> {
        // Where the bodies reach the limit is found from their lengths, for which SQLite does not
        // read them.
        let statement = Statement::new(
            "SELECT entry, term, body FROM log WHERE entry > ?1 AND entry <= (\
               SELECT max(entry) FROM (\
                 SELECT entry, sum(size) OVER (ORDER BY entry) - size AS before FROM (\
                   SELECT entry, octet_length(body) AS size FROM log \
                   WHERE entry > ?1 ORDER BY entry LIMIT ?2)) \
               WHERE before < ?3) \
             ORDER BY entry",
        );
        // Four characters of Base64 are three bytes.
        let max_text = u64::try_from(max_bytes).unwrap_or(u64::MAX).clamp(1, 1 << 40) / 3 * 4 + 1;
        let statement = statement.bind(after).bind(MAX_ROWS).bind(max_text);
        let result = self.client.query(&statement, level, self.timeout).await?;
        let mut entries = Vec::with_capacity(result.values.len());
        for row in &result.values {
            let entry = number(row, 0)?;
            let expected = after + 1 + entries.len() as u64;
            if entry != expected {
                if entries.is_empty() {
                    return Err(ReadError::Trimmed { first: entry });
                }
                // One statement sees no deletion in between; should there be a hole all the same,
                // the next read says so.
                break;
            }
            entries.push(Entry { entry, term: number(row, 1)?, body: decode(text(row, 2)?)? });
        }
        Ok(entries)
    }

    /// The number of the newest entry; 0 when there never was one.
    ///
    /// # Errors
    /// What the client says.
    pub async fn last_entry(&self, level: ReadLevel) -> Result<u64, ClientError> {
        self.query_number("SELECT coalesce(max(entry), 0) FROM log", level).await
    }

    /// The term, and the number of the newest entry at the same moment.
    ///
    /// # Errors
    /// What the client says.
    pub async fn term_and_last_entry(&self, level: ReadLevel) -> Result<(u64, u64), ClientError> {
        let statement = Statement::new(
            "SELECT term, (SELECT coalesce(max(entry), 0) FROM log) FROM leader WHERE id = 1",
        );
        let result = self.client.query(&statement, level, self.timeout).await?;
        let row = result.values.first().ok_or_else(|| unexpected("there is no leader's row"))?;
        Ok((number(row, 0)?, number(row, 1)?))
    }

    /// The last entry, and the last one that any node has said to have on its disk, as they are at
    /// one moment; 0 when there is none.
    ///
    /// The second is the larger one only in a copy that lacks entries. rqlite applies an entry of
    /// Raft's log once: when its SQLite meets a full disk, it goes on without the content.
    ///
    /// # Errors
    /// What the client says.
    pub async fn last_and_durable(&self, level: ReadLevel) -> Result<(u64, u64), ClientError> {
        let statement = Statement::new(
            "SELECT coalesce((SELECT max(entry) FROM log), 0), \
             coalesce((SELECT max(durable) FROM holders), 0)",
        );
        let result = self.client.query(&statement, level, self.timeout).await?;
        let row = result.values.first().ok_or_else(|| unexpected("there is no row"))?;
        Ok((number(row, 0)?, number(row, 1)?))
    }

    /// The number of the oldest entry that is there; 0 when there is none.
    ///
    /// # Errors
    /// What the client says.
    pub async fn first_entry(&self, level: ReadLevel) -> Result<u64, ClientError> {
        self.query_number("SELECT coalesce(min(entry), 0) FROM log", level).await
    }

    /// The size of all bodies as rqlite holds them: a third more than their bytes. From the own
    /// node's copy.
    ///
    /// # Errors
    /// What the client says.
    pub async fn log_bytes(&self) -> Result<u64, ClientError> {
        let sql = "SELECT coalesce(sum(octet_length(body)), 0) FROM log";
        self.query_number(sql, ReadLevel::None).await
    }
}

pub(super) fn decode(body: &str) -> Result<Bytes, ClientError> {
    STANDARD.decode(body).map(Bytes::from).map_err(|_| unexpected("a body is no Base64"))
}
