//! Which namespaces there are, and what they hold.

use super::format;
use crate::embedded::EmbeddedEngine;
use crate::embedded::authorizer::StatementRights;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::error_mapping;
use crate::embedded::kv;
use crate::embedded::size_accounting::QuotaOf;
use crate::embedded::sql_write_options::JOB_BYTES;
use crate::{CallOptions, NamespaceFilter, NamespaceInfo};
use debros_proto::{Code, Error, Namespace, Result};
use rusqlite::OptionalExtension as _;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long rows are counted, unless endless queries of others keep the namespace's threads.
const COUNT_TIME: Duration = Duration::from_secs(2);

const WRITTEN_DOWN: &str =
    "/*debros*/ SELECT name FROM namespaces WHERE name > ?1 AND name >= ?2 ORDER BY name LIMIT ?3";
const CREATED_AT: &str = "/*debros*/ SELECT created_at FROM namespaces WHERE name = ?1";

/// What is asked of a namespace's own file.
#[derive(Debug, Default)]
struct FileDetails {
    created_at: Option<i64>,
    free_bytes: u64,
    tables: u64,
    rows: u64,
    broken_off: bool,
}

impl EmbeddedEngine {
    /// The namespaces there are, in order of name.
    pub(in crate::embedded) async fn list_namespaces(
        &self,
        filter: NamespaceFilter,
        options: CallOptions,
    ) -> Result<Vec<Namespace>> {
        self.databases.check_open()?;
        let databases = std::sync::Arc::clone(&self.databases);
        self.databases
            .system
            .read(options.caller, JOB_BYTES, options.deadline, move |conn| {
                let mut names = databases.list_namespaces().map_err(|error| {
                    tracing::error!(%error, "the folder of the namespaces cannot be read");
                    Error::internal("the namespaces cannot be listed; the node's log has more")
                })?;
                // In order, the names that begin with a prefix come one after another, from the
                // prefix itself on.
                let after = filter.after.as_ref().map_or("", Namespace::as_str);
                names.retain(|name| {
                    name.as_str() > after && name.as_str().starts_with(&filter.prefix)
                });
                add_registered(conn, &filter, after, &mut names)
                    .map_err(error_mapping::map_sqlite_error)?;
                add_with_values(conn, &filter, after, &mut names)
                    .map_err(error_mapping::map_sqlite_error)?;
                Ok(names.into_iter().take(filter.limit).collect())
            })
            .await
    }

    /// What a namespace holds.
    pub(in crate::embedded) async fn describe_namespace(
        &self,
        namespace: &Namespace,
        options: CallOptions,
    ) -> Result<NamespaceInfo> {
        self.databases.check_not_deleting(namespace)?;
        let owner = namespace.clone();
        let written_down = self
            .databases
            .system
            .read_or_try_briefly(options.caller, JOB_BYTES, options.deadline, move |conn, _| {
                conn.prepare_internal(CREATED_AT)
                    .and_then(|mut find| {
                        find.query_row([owner.as_str()], |row| row.get(0)).optional()
                    })
                    .map_err(error_mapping::map_sqlite_error)
            })
            .await?;
        let looked = if self.databases.has_database(namespace) {
            self.read_file_details(namespace, &options).await
        } else {
            Ok(FileDetails::default())
        };
        // A list of all namespaces, or the deletion of this one, must not fail for its file.
        let (in_file, problem) = match looked {
            Ok(in_file) => (in_file, None),
            Err(error) => {
                self.databases.check_not_deleting(namespace)?;
                (FileDetails { broken_off: true, ..FileDetails::default() }, Some(error.message))
            }
        };
        let created_at: [Option<i64>; 2] = [written_down, in_file.created_at];
        let (usage, quotas) = self.databases.shared.sizes.quotas(namespace);
        // What its owner's other namespaces leave may be less than its own quota.
        let max_bytes = quotas.into_iter().flatten().map(|quota| match quota.of {
            QuotaOf::Namespace => quota.max,
            QuotaOf::Owner => usage.total().saturating_add(quota.left()),
        });
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(NamespaceInfo {
            namespace: namespace.clone(),
            created_at: created_at.into_iter().flatten().min(),
            sql_bytes: usage.file,
            free_bytes: in_file.free_bytes,
            tables: in_file.tables,
            rows: in_file.rows,
            rows_are_exact: !in_file.broken_off,
            kv_keys: count(usage.system.pairs),
            kv_bytes: count(usage.system.pair_bytes),
            taken_bytes: usage.total(),
            max_bytes: max_bytes.min(),
            problem,
        })
    }

    async fn read_file_details(
        &self,
        namespace: &Namespace,
        options: &CallOptions,
    ) -> Result<FileDetails> {
        let (database, tenant) = self.open_tenant(namespace).await?;
        let deadline = options.deadline;
        database
            .read_or_try_briefly(options.caller, JOB_BYTES, deadline, move |conn, brief_time| {
                let count_time = brief_time.unwrap_or(COUNT_TIME);
                let tables = tenant.committed_catalogue().tables()?;
                let prefix = tenant.namespace.prefix();
                conn.authorizer.set_rights(StatementRights::Internal);
                conn.authorizer.reset();
                let mut found = FileDetails {
                    created_at: format::created_at(&conn.db)
                        .map_err(error_mapping::map_sqlite_error)?,
                    free_bytes: free_bytes(conn).map_err(error_mapping::map_sqlite_error)?,
                    tables: tables.iter().filter(|table| table.kind != "view").count() as u64,
                    ..FileDetails::default()
                };
                conn.set_deadline(deadline.min(Instant::now() + count_time));
                for table in tables.iter().filter(|table| table.kind == "table") {
                    match count_rows(conn, &format!("{prefix}{}", table.name)) {
                        Ok(rows) => found.rows += rows,
                        Err(error) if error.code == Code::StatementTimeout => {
                            found.broken_off = true;
                            break;
                        }
                        // It was dropped meanwhile.
                        Err(error) if error.code == Code::Sql => {}
                        Err(error) => {
                            conn.clear_limits();
                            return Err(error);
                        }
                    }
                }
                conn.clear_limits();
                Ok(found)
            })
            .await
    }
}

/// Bytes of the pages that deleted rows and dropped tables left.
fn free_bytes(conn: &SqliteConnection) -> rusqlite::Result<u64> {
    let pages: u32 = conn
        .prepare_internal("/*debros*/ PRAGMA freelist_count")?
        .query_row([], |row| row.get(0))?;
    let each: u32 =
        conn.prepare_internal("/*debros*/ PRAGMA page_size")?.query_row([], |row| row.get(0))?;
    Ok(u64::from(pages) * u64::from(each))
}

fn count_rows(conn: &SqliteConnection, table: &str) -> Result<u64> {
    let sql = format!("SELECT count(*) FROM \"{}\"", table.replace('"', "\"\""));
    let rows: i64 = conn.db.query_row(&sql, [], |row| row.get(0)).map_err(|error| {
        // Compiling is broken off by the authorizer, which says nothing of the time.
        if conn.authorizer.has_timed_out() {
            return Error::new(Code::StatementTimeout, "the rows could not be counted in time");
        }
        error_mapping::map_sqlite_error(error)
    })?;
    Ok(u64::try_from(rows).unwrap_or(0))
}

fn add_registered(
    conn: &SqliteConnection,
    filter: &NamespaceFilter,
    after: &str,
    names: &mut BTreeSet<Namespace>,
) -> rusqlite::Result<()> {
    let mut find = conn.prepare_internal(WRITTEN_DOWN)?;
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let mut rows = find.query((after, &filter.prefix, limit))?;
    while let Some(row) = rows.next()? {
        add_matching(&row.get::<_, String>(0)?, filter, names);
    }
    Ok(())
}

/// One look into the index for each namespace, however many values it has.
fn add_with_values(
    conn: &SqliteConnection,
    filter: &NamespaceFilter,
    after: &str,
    names: &mut BTreeSet<Namespace>,
) -> rusqlite::Result<()> {
    let mut after = after.to_owned();
    for _ in 0..filter.limit {
        let Some(name) = kv::next_namespace(conn, &after, &filter.prefix)? else { break };
        if !name.starts_with(&filter.prefix) {
            break;
        }
        add_matching(&name, filter, names);
        after = name;
    }
    Ok(())
}

fn add_matching(name: &str, filter: &NamespaceFilter, names: &mut BTreeSet<Namespace>) {
    if name.starts_with(&filter.prefix)
        && let Ok(namespace) = Namespace::new(name)
    {
        names.insert(namespace);
    }
}
