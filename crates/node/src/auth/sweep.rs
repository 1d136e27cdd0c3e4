//! Deleting what has expired, and writing down what was counted.

use super::Auth;
use debros_proto::Result;
use debros_proto::rpc::Statement;

/// Rows that one statement deletes at most, so that other writes come between.
const STEP: u64 = 1000;
/// Another node's clock may be behind: a used nonce stays known for so long after it has expired here.
const NONCE_MARGIN_MS: i64 = 60 * 60 * 1000;
/// A session that was ended is forgotten then, with its refresh tokens.
const ENDED_SESSION_MS: i64 = 24 * 60 * 60 * 1000;
/// Audit events are kept for so long,
const AUDIT_MS: i64 = 90 * 24 * 60 * 60 * 1000;
/// and at most so many of them.
const AUDIT_ROWS: i64 = 100_000;

impl Auth {
    /// Deletes what has expired. Returns how many rows went.
    pub(crate) async fn sweep(&self) -> Result<u64> {
        self.limits.tidy();
        let mut swept = 0;
        loop {
            let mut statements = self.expired();
            statements.push(self.signing.sweep(self.store.clock.now_ms()));
            let results = self.store.write(statements).await?;
            let rows = results.iter().filter_map(|result| result.rows_affected);
            swept += rows.clone().sum::<u64>();
            if rows.max().unwrap_or(0) < STEP {
                return Ok(swept);
            }
        }
    }

    fn expired(&self) -> Vec<Statement> {
        let now = self.store.clock.now_ms();
        let delete = |table: &str, id: &str, which: &str, arg: i64| {
            let sql =
                format!("DELETE FROM {table} WHERE {id} IN (SELECT {id} FROM {table} WHERE {which} LIMIT {STEP})");
            Statement::new(sql, [arg.into()])
        };
        vec![
            delete("used_nonces", "hash", "expires_at <= ?", now - NONCE_MARGIN_MS),
            delete("refresh_tokens", "hash", "expires_at <= ?", now),
            delete(
                "refresh_tokens",
                "hash",
                "session IN (SELECT id FROM sessions WHERE revoked_at <= ?)",
                now - ENDED_SESSION_MS,
            ),
            delete("sessions", "id", "expires_at <= ?", now),
            delete("audit_events", "id", "at <= ?", now - AUDIT_MS),
            delete(
                "audit_events",
                "id",
                "id <= (SELECT id FROM audit_events ORDER BY id DESC LIMIT 1 OFFSET ?)",
                AUDIT_ROWS,
            ),
        ]
    }

    /// Writes down when keys and sessions were used last, and what was refused.
    pub(crate) async fn flush(&self) -> Result<()> {
        self.credentials.flush().await?;
        let refused = self.refusals.take(self.store.clock.now_ms());
        if !refused.is_empty() {
            self.store.write(refused).await?;
        }
        Ok(())
    }
}
