//! Key-value pairs, in the system's database.

use super::conn::SqliteConnection;
use super::counted_rows::delete_counted_rows;
use super::size_accounting::SystemUsage;
use super::writer_conn::WriterConnection;
use super::{error_mapping, usage_ledger};
use crate::KeyPage;
use bytes::Bytes;
use debros_proto::rpc::{Condition, Entry};
use debros_proto::{Code, Error, Key, Namespace, Result, now_ms};
use rusqlite::OptionalExtension;

// `/*debros*/` at the start of a text marks a statement of the engine's own. `INTERNAL_SQL_MARK` in
// `conn.rs` says what for.

const STORED: &str = "/*debros*/ SELECT rowid, version, expires_at, octet_length(value) FROM kv WHERE ns = ?1 AND key = ?2";
const INSERT: &str =
    "/*debros*/ INSERT INTO kv (ns, key, value, version, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)";
const UPDATE: &str =
    "/*debros*/ UPDATE kv SET value = ?2, version = ?3, expires_at = ?4 WHERE rowid = ?1";
const DELETE: &str = "/*debros*/ DELETE FROM kv WHERE rowid = ?1";
const GET: &str = "/*debros*/ SELECT value, version, expires_at FROM kv WHERE ns = ?1 AND key = ?2";
const EXISTS: &str = "/*debros*/ SELECT expires_at FROM kv WHERE ns = ?1 AND key = ?2";
const LIST: &str =
    "/*debros*/ SELECT key FROM kv WHERE ns = ?1 AND key >= ?2 AND (expires_at IS NULL OR expires_at > ?3)
    ORDER BY key LIMIT ?4";
const LIST_TO: &str = "/*debros*/ SELECT key FROM kv WHERE ns = ?1 AND key >= ?2 AND key < ?5
    AND (expires_at IS NULL OR expires_at > ?3) ORDER BY key LIMIT ?4";
const EXPIRED: &str = "/*debros*/ SELECT rowid, ns, octet_length(key), octet_length(value) FROM kv
    WHERE expires_at <= ?1 LIMIT 1000";

const NEWEST: &str = "/*debros*/ SELECT coalesce(max(version), 0) FROM kv WHERE ns = ?1";
const ALL: &str = "/*debros*/ SELECT rowid, ns, octet_length(key), octet_length(value) FROM kv WHERE ns = ?1 LIMIT 1000";
const NEXT_NAMESPACE: &str =
    "/*debros*/ SELECT ns FROM kv WHERE ns > ?1 AND ns >= ?2 ORDER BY ns LIMIT 1";

/// What to store.
pub(super) struct PairWrite {
    pub(super) namespace: Namespace,
    pub(super) key: Key,
    pub(super) value: Bytes,
    pub(super) condition: Condition,
    pub(super) ttl_seconds: Option<u64>,
}

/// Stores a value and returns its version.
pub(super) fn put(conn: &WriterConnection, put: &PairWrite) -> Result<u64> {
    let now = now_ms();
    conn.reserve_use.check_write(false)?;
    let (ns, key) = (put.namespace.as_str(), put.key.as_str());
    let stored = find_stored(conn, ns, key)?;
    check_condition(&put.condition, stored.and_then(|stored| stored.live_version(now)))?;
    // A row that has expired still holds the last version that its readers saw.
    let version = next_version(conn, now, stored.map_or(0, |stored| stored.version));
    let expires_at = put.ttl_seconds.map(|seconds| {
        now.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
    });
    // The one writer of the table knows whether the row is there: an UPSERT would look for it a
    // second time.
    let (value, version_column) = (&put.value[..], as_column(version));
    let mut change = usage_ledger::pair_usage(ns, key.len(), value.len());
    if let Some(stored) = stored {
        change += -stored.usage(ns, key);
    }
    // Before the statement: one that is refused for the quota changes nothing that would have to be
    // undone.
    note_usage(conn, &put.namespace, change)?;
    match stored {
        Some(row) => conn.prepare_internal(UPDATE).and_then(|mut statement| {
            statement.execute((row.rowid, value, version_column, expires_at))
        }),
        None => conn.prepare_internal(INSERT).and_then(|mut statement| {
            statement.execute((ns, key, value, version_column, expires_at))
        }),
    }
    .map_err(error_mapping::map_sqlite_error)?;
    Ok(version)
}

/// Counts a change of what the namespace has. Only the writer of the system's file has a ledger; on
/// another file nothing is counted here, and there is no quota.
fn note_usage(conn: &WriterConnection, namespace: &Namespace, change: SystemUsage) -> Result<()> {
    conn.ledger.as_ref().map_or(Ok(()), |ledger| {
        ledger.record_change(namespace, change, conn.reserve_use.has_reserve())
    })
}

/// Deletes a key; false when there was none.
pub(super) fn delete(
    conn: &WriterConnection,
    namespace: &Namespace,
    key: &Key,
    condition: &Condition,
) -> Result<bool> {
    let (ns, key) = (namespace.as_str(), key.as_str());
    let stored = find_stored(conn, ns, key)?;
    let current = stored.and_then(|stored| stored.live_version(now_ms()));
    check_condition(condition, current)?;
    let Some(stored) = stored else { return Ok(false) };
    // The row is the only record of its version, and a later one must differ.
    conn.last_version.set(conn.last_version.get().max(stored.version));
    conn.prepare_internal(DELETE)
        .and_then(|mut statement| statement.execute([stored.rowid]))
        .map_err(error_mapping::map_sqlite_error)?;
    note_usage(conn, namespace, -stored.usage(ns, key))?;
    Ok(current.is_some())
}

/// The value of a key.
pub(super) fn get(
    conn: &SqliteConnection,
    namespace: &Namespace,
    key: &Key,
) -> rusqlite::Result<Option<Entry>> {
    let now = now_ms();
    let mut statement = conn.prepare_internal(GET)?;
    let mut rows = statement.query((namespace.as_str(), key.as_str()))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let expires_at: Option<i64> = row.get(2)?;
    if expires_at.is_some_and(|at| at <= now) {
        return Ok(None);
    }
    let value = Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?);
    Ok(Some(Entry { value, version: as_version(row.get(1)?), expires_at }))
}

/// Whether a key exists.
pub(super) fn exists(
    conn: &SqliteConnection,
    namespace: &Namespace,
    key: &Key,
) -> rusqlite::Result<bool> {
    let expires_at: Option<Option<i64>> = conn
        .prepare_internal(EXISTS)?
        .query_row((namespace.as_str(), key.as_str()), |row| row.get(0))
        .optional()?;
    Ok(expires_at.is_some_and(|at| at.is_none_or(|at| at > now_ms())))
}

/// Keys with a prefix, after a key, in byte order.
pub(super) fn list(
    conn: &SqliteConnection,
    namespace: &Namespace,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> rusqlite::Result<KeyPage> {
    // The first text after `after` is `after` with a NUL, which no key holds.
    let after = after.map(|after| format!("{after}\0"));
    let from = after.as_deref().map_or(prefix, |after| after.max(prefix));
    // One more than asked for shows whether more follow.
    let count = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let (ns, now) = (namespace.as_str(), now_ms());
    let read = |row: &rusqlite::Row<'_>| row.get(0);
    let mut keys: Vec<String> = match prefix_end(prefix) {
        Some(end) => conn
            .prepare_internal(LIST_TO)?
            .query_map((ns, from, now, count, end), read)?
            .collect::<Result<_, _>>()?,
        None => conn
            .prepare_internal(LIST)?
            .query_map((ns, from, now, count), read)?
            .collect::<Result<_, _>>()?,
    };
    let more = keys.len() > limit;
    keys.truncate(limit);
    Ok(KeyPage { keys, more })
}

/// Deletes up to 1,000 of a namespace's values. Returns how many.
pub(super) fn delete_chunk(conn: &WriterConnection, namespace: &Namespace) -> Result<usize> {
    // The rows are the only record of their versions, and later ones must differ.
    let newest = conn
        .prepare_internal(NEWEST)
        .and_then(|mut newest| newest.query_row([namespace.as_str()], |row| row.get(0)))
        .map_err(error_mapping::map_sqlite_error)?;
    conn.last_version.set(conn.last_version.get().max(as_version(newest)));
    delete_listed(conn, ALL, [namespace.as_str()])
}

/// Deletes the pairs that a statement lists. Returns how many.
fn delete_listed(
    conn: &WriterConnection,
    list: &'static str,
    of: impl rusqlite::Params,
) -> Result<usize> {
    delete_counted_rows(conn, list, of, DELETE, usage_ledger::pair_usage)
}

/// The first namespace after one name, and not before another, that has values.
pub(super) fn next_namespace(
    conn: &SqliteConnection,
    after: &str,
    from: &str,
) -> rusqlite::Result<Option<String>> {
    conn.prepare_internal(NEXT_NAMESPACE)?.query_row([after, from], |row| row.get(0)).optional()
}

/// Deletes up to 1,000 values that have expired. Returns how many.
pub(super) fn sweep_expired(conn: &WriterConnection, now_ms: i64) -> Result<usize> {
    delete_listed(conn, EXPIRED, [now_ms])
}

/// The first text that is greater than every text with this prefix. UTF-8 sorts by bytes as its
/// characters do by number, so it is the prefix with its last character one higher; the highest
/// character of all is taken off first.
fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        let next = match last {
            char::MAX => None,
            // The numbers between stand for no character.
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[derive(Clone, Copy)]
struct StoredPair {
    rowid: i64,
    version: u64,
    expires_at: Option<i64>,
    /// Bytes of the value.
    size: usize,
}

impl StoredPair {
    fn usage(self, ns: &str, key: &str) -> SystemUsage {
        usage_ledger::pair_usage(ns, key.len(), self.size)
    }

    /// The version, unless it has expired.
    fn live_version(self, now: i64) -> Option<u64> {
        self.expires_at.is_none_or(|at| at > now).then_some(self.version)
    }
}

fn find_stored(conn: &SqliteConnection, ns: &str, key: &str) -> Result<Option<StoredPair>> {
    conn.prepare_internal(STORED)
        .and_then(|mut statement| {
            let read = |row: &rusqlite::Row<'_>| {
                Ok(StoredPair {
                    rowid: row.get(0)?,
                    version: as_version(row.get(1)?),
                    expires_at: row.get(2)?,
                    size: usage_ledger::column_length(row, 3)?,
                })
            };
            statement.query_row((ns, key), read).optional()
        })
        .map_err(error_mapping::map_sqlite_error)
}

fn check_condition(condition: &Condition, current: Option<u64>) -> Result<()> {
    let refused = |why: &str| Err(Error::new(Code::PreconditionFailed, why));
    match (condition.if_exists, current) {
        (Some(true), None) => return refused("the key does not exist"),
        (Some(false), Some(_)) => return refused("the key exists already"),
        _ => {}
    }
    if condition.if_version.is_some() && condition.if_version != current {
        return refused("the key's version is another one than asked for");
    }
    if condition.if_not_version.is_some() && condition.if_not_version == current {
        return refused("the key's version is the one that it must not be");
    }
    Ok(())
}

/// Microseconds since the epoch, and more than any version given before: of this key, and of every
/// key while the program runs, so that a key which is deleted and put again gets a new one.
fn next_version(conn: &WriterConnection, now_ms: i64, before: u64) -> u64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_micros()).ok())
        .unwrap_or_else(|| as_version(now_ms.saturating_mul(1000)));
    let version = now.max(before + 1).max(conn.last_version.get() + 1);
    conn.last_version.set(version);
    version
}

/// Versions are microseconds, so they fit for another 290,000 years.
fn as_column(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

fn as_version(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::prefix_end;
    use proptest::prelude::{any, proptest};

    #[test]
    fn the_end_of_a_prefix_is_the_next_text() {
        assert_eq!(prefix_end("a_").as_deref(), Some("a`"));
        assert_eq!(prefix_end("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(prefix_end("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(prefix_end("\u{10ffff}"), None);
        assert_eq!(prefix_end(""), None);
    }

    proptest! {
        #[test]
        fn a_text_has_the_prefix_exactly_when_it_lies_between(prefix in any::<String>(), text in any::<String>(), extend in any::<bool>()) {
            let text = if extend { format!("{prefix}{text}") } else { text };
            let between = text >= prefix && prefix_end(&prefix).is_none_or(|end| text < end);
            assert_eq!(between, text.starts_with(&prefix));
        }
    }
}
