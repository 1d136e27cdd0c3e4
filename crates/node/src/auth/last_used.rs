//! When keys and sessions were used last.

use super::auth_db::AuthDb;
use crate::caller::CredentialSource;
use debros_proto::limits::MAX_TRANSACTION_STATEMENTS;
use debros_proto::rpc::Statement;
use debros_proto::{Result, lock};
use std::collections::HashMap;
use std::sync::Mutex;

/// When each key and session was used last, until the next [`flush`](LastUsedTimes::flush): writing
/// it with every request would turn every read into a write.
#[derive(Default)]
pub(super) struct LastUsedTimes(Mutex<HashMap<UsedCredential, i64>>);

#[derive(PartialEq, Eq, Hash)]
enum UsedCredential {
    Key(String),
    Session(String),
}

impl LastUsedTimes {
    /// A credential was used. The operator's has no row.
    pub(super) fn record(&self, source: &CredentialSource, now_ms: i64) {
        let used = match source {
            CredentialSource::Operator | CredentialSource::Lent => return,
            CredentialSource::Session { id } => UsedCredential::Session(id.clone()),
            CredentialSource::Key { id } => UsedCredential::Key(id.clone()),
        };
        lock(&self.0).insert(used, now_ms);
    }

    /// Writes the times down.
    pub(super) async fn flush(&self, auth_db: &AuthDb) -> Result<()> {
        let used = std::mem::take(&mut *lock(&self.0));
        let statements: Vec<Statement> = used
            .into_iter()
            .map(|(used, at)| {
                let (table, id) = match used {
                    UsedCredential::Key(id) => ("api_keys", id),
                    UsedCredential::Session(id) => ("sessions", id),
                };
                Statement::new(
                    format!("UPDATE {table} SET last_used = ? WHERE id = ?"),
                    [at.into(), id.into()],
                )
            })
            .collect();
        for some in statements.chunks(MAX_TRANSACTION_STATEMENTS) {
            auth_db.run_transaction(some.to_vec()).await?;
        }
        Ok(())
    }
}
