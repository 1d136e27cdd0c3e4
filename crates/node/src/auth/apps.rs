//! Registering an application in the name of a wallet.

use super::auth_db::{SqlCondition, has_changed_row, statement_if};
use super::membership::namespace_forbidden;
use super::{AuthService, PublicRequest, audit};
use debros_auth::role::{self, Permission};
use debros_auth::{Role, Scopes, random, secret};
use debros_proto::rpc::{self, App};
use debros_proto::{Error, Result};

/// Bytes in an application's name.
const MAX_NAME_BYTES: usize = 256;

impl AuthService {
    /// Registers an application with the public key of the wallet that proves itself.
    pub(super) async fn register_app(
        &self,
        request: rpc::RegisterAppRequest,
        public: &PublicRequest<'_>,
    ) -> Result<App> {
        if request.name.len() > MAX_NAME_BYTES || request.name.contains('\0') {
            return Err(Error::invalid(format!(
                "the name takes at most {MAX_NAME_BYTES} bytes of text without NUL"
            )));
        }
        let proven = self.verify_proof(request.proof, public).await?;
        let (wallet, namespace) = (proven.wallet(), proven.namespace());
        let registered = async {
            let role = self.role_on_entry(&proven).await?;
            role::require_permission(role, Scopes::default(), Permission::AppsWrite)?;
            let now = self.auth_db.clock.now_ms();
            let app_id = secret::new_id("app", random::bytes()?);
            let name = if request.name.is_empty() { app_id.clone() } else { request.name };
            let app = App {
                app_id,
                name,
                public_key: proven.signer.public_key_hex(),
                namespace: namespace.to_string(),
                created_at: now,
                updated_at: now,
                wallet: wallet.to_string(),
            };
            let mut statements = vec![proven.insert_nonce_statement()];
            statements.extend(self.auth_db.claim_statements(wallet, namespace, now));
            let place = statements.len();
            statements.push(statement_if(
                "INSERT INTO apps (app_id, namespace, name, public_key, created_at, updated_at, wallet) \
                 SELECT ?, ?, ?, ?, ?, ?, ? WHERE",
                [
                    app.app_id.as_str().into(),
                    app.namespace.as_str().into(),
                    app.name.as_str().into(),
                    app.public_key.as_str().into(),
                    now.into(),
                    now.into(),
                    app.wallet.as_str().into(),
                ],
                self.auth_db.has_role_condition(wallet, namespace, Role::Writer),
            ));
            let kept = SqlCondition::new("EXISTS (SELECT 1 FROM apps WHERE app_id = ?)", [app.app_id.as_str().into()]);
            statements.push(audit::insert_event_if("app_registered", namespace, &app.wallet, &app.app_id, now, kept));
            let results = self.run_proof_transaction(statements).await?;
            if has_changed_row(&results, place) { Ok(app) } else { Err(namespace_forbidden(namespace)) }
        }
        .await;
        if let Err(error) = &registered {
            self.count_refusal(namespace, error);
        }
        registered
    }
}
