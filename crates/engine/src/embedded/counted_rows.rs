//! Deleting rows of the system's file that count for namespaces.

use super::error_mapping;
use super::size_accounting::SystemUsage;
use super::usage_ledger::{column_length, parse_namespace};
use super::writer_conn::WriterConnection;
use debros_proto::{Namespace, Result};
use std::collections::HashMap;

/// Bytes that are deleted in one commit, with one row more.
const AT_ONCE: usize = 8 << 20;

/// Deletes rows that `list` gives (rowid, namespace, bytes of the key and of the content), each
/// with `delete`: as many as one commit should hold, because what they had is overwritten. Returns
/// how many.
pub(super) fn delete_counted_rows(
    conn: &WriterConnection,
    list: &'static str,
    of: impl rusqlite::Params,
    delete: &'static str,
    counted: fn(&str, usize, usize) -> SystemUsage,
) -> Result<usize> {
    let mut gone = HashMap::<Namespace, SystemUsage>::new();
    let act = || {
        let mut listed = conn.prepare_internal(list)?;
        let mut rows = listed.query(of)?;
        let (mut rowids, mut bytes) = (Vec::new(), 0);
        while bytes < AT_ONCE
            && let Some(row) = rows.next()?
        {
            bytes += column_length(row, 3)?;
            let name = row.get_ref(1)?.as_str()?;
            if let Some(namespace) = parse_namespace(name) {
                *gone.entry(namespace).or_default() +=
                    -counted(name, column_length(row, 2)?, column_length(row, 3)?);
            }
            rowids.push(row.get::<_, i64>(0)?);
        }
        drop(rows);
        let mut delete = conn.prepare_internal(delete)?;
        rowids.iter().try_for_each(|rowid| delete.execute([rowid]).map(|_| ()))?;
        Ok(rowids.len())
    };
    let count = act().map_err(error_mapping::map_sqlite_error)?;
    if let Some(ledger) = &conn.ledger {
        for (namespace, change) in &gone {
            ledger.record_change(namespace, *change, true)?;
        }
    }
    Ok(count)
}
