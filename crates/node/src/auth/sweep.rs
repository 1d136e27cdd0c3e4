//! Deleting what has expired, and writing down what was counted.

use super::AuthService;
use super::auth_db::RowColumns as _;
use debros_proto::Result;
use debros_proto::rpc::Statement;

/// Rows that one statement deletes at most, so that other writes come between.
const MAX_ROWS_PER_DELETE: u64 = 1000;
/// Namespaces over their share that one round trims.
const MAX_CROWDED: usize = 100;
/// Another node's clock may be behind: a used nonce stays known for so long after it has expired
/// here.
const NONCE_MARGIN_MS: i64 = 60 * 60 * 1000;
/// A session that was ended or has expired is deleted then, with its refresh tokens: until then an
/// error says which of the two it was.
const ENDED_SESSION_MS: i64 = 24 * 60 * 60 * 1000;
/// Audit events are kept for so long,
const AUDIT_MS: i64 = 90 * 24 * 60 * 60 * 1000;
/// at most so many of them,
const AUDIT_ROWS: i64 = 100_000;
/// and of one namespace so many: a namespace with many events displaces only its own.
const AUDIT_ROWS_EACH: i64 = 10_000;
/// Revoked API keys are listed for so long,
const REVOKED_KEY_MS: i64 = 90 * 24 * 60 * 60 * 1000;
/// and the newest so many of a namespace.
const REVOKED_KEYS_EACH: i64 = 1000;

impl AuthService {
    /// Deletes what has expired. Returns how many rows went.
    pub(crate) async fn sweep(&self) -> Result<u64> {
        self.limits.prune();
        let mut swept = 0;
        loop {
            let mut statements = self.over_share_statements().await?;
            statements.extend(self.expired_statements());
            statements.push(self.signing.sweep_statement(self.auth_db.clock.now_ms()));
            let results = self.auth_db.run_transaction(statements).await?;
            let rows = results.iter().filter_map(|result| result.rows_affected);
            swept += rows.clone().sum::<u64>();
            if rows.max().unwrap_or(0) < MAX_ROWS_PER_DELETE {
                return Ok(swept);
            }
        }
    }

    /// What namespaces hold over their share. The search runs where no call waits for the writer.
    async fn over_share_statements(&self) -> Result<Vec<Statement>> {
        let shares = [
            ("audit_events", "1", "at DESC, id DESC", AUDIT_ROWS_EACH),
            ("api_keys", "revoked_at IS NOT NULL", "revoked_at DESC, id DESC", REVOKED_KEYS_EACH),
        ];
        let mut statements = Vec::new();
        for (table, which, newest_first, share) in shares {
            let find = format!(
                "SELECT namespace FROM {table} WHERE {which} GROUP BY namespace HAVING count(*) > ?"
            );
            let over = format!(
                "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE namespace = ? AND {which} \
                 ORDER BY {newest_first} LIMIT {MAX_ROWS_PER_DELETE} OFFSET ?)"
            );
            for row in self.auth_db.query_rows(Statement::new(find, [share.into()])).await? {
                statements.push(Statement::new(over.clone(), [row.text(0).into(), share.into()]));
                if statements.len() == MAX_CROWDED {
                    return Ok(statements);
                }
            }
        }
        Ok(statements)
    }

    fn expired_statements(&self) -> Vec<Statement> {
        let now = self.auth_db.clock.now_ms();
        let delete = |table: &str, id: &str, which: &str, arg: i64| {
            let sql = format!(
                "DELETE FROM {table} WHERE {id} IN (SELECT {id} FROM {table} WHERE {which} LIMIT {MAX_ROWS_PER_DELETE})"
            );
            Statement::new(sql, [arg.into()])
        };
        vec![
            delete("used_nonces", "hash", "expires_at <= ?", now - NONCE_MARGIN_MS),
            delete("refresh_tokens", "hash", "expires_at <= ?", now - ENDED_SESSION_MS),
            delete(
                "refresh_tokens",
                "hash",
                "session IN (SELECT id FROM sessions WHERE revoked_at <= ?)",
                now - ENDED_SESSION_MS,
            ),
            delete("sessions", "id", "expires_at <= ?", now - ENDED_SESSION_MS),
            delete("audit_events", "id", "at <= ?", now - AUDIT_MS),
            delete("api_keys", "id", "revoked_at <= ?", now - REVOKED_KEY_MS),
            delete(
                "audit_events",
                "id",
                "id <= (SELECT id FROM audit_events ORDER BY id DESC LIMIT 1 OFFSET ?)",
                AUDIT_ROWS,
            ),
        ]
    }

    /// Writes down when keys and sessions were used last, and what was refused.
    pub(crate) async fn flush_counts(&self) -> Result<()> {
        self.credentials.last_used.flush(&self.auth_db).await?;
        let refused = self.refusals.drain_statements(self.auth_db.clock.now_ms());
        if !refused.is_empty() {
            self.auth_db.run_transaction(refused).await?;
        }
        Ok(())
    }
}
