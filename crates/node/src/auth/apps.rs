//! Registering an application in the name of a wallet.

use super::standing::not_yours;
use super::store::{Condition, changed, only_if};
use super::{Auth, Knock, audit};
use debros_auth::role::{self, Permission};
use debros_auth::{Role, Scopes, random, secret};
use debros_proto::rpc::{self, App};
use debros_proto::{Error, Result};

/// Bytes in an application's name.
const MAX_NAME_BYTES: usize = 256;

impl Auth {
    /// Registers an application with the public key of the wallet that proves itself.
    pub(super) async fn register(&self, request: rpc::RegisterAppRequest, knock: &Knock<'_>) -> Result<App> {
        if request.name.len() > MAX_NAME_BYTES || request.name.contains('\0') {
            return Err(Error::invalid(format!("the name takes at most {MAX_NAME_BYTES} bytes of text without NUL")));
        }
        let proven = self.prove(request.proof, knock).await?;
        let (wallet, namespace) = (proven.wallet(), proven.namespace());
        let registered = async {
            let role = self.entering(&proven).await?;
            role::require(role, Scopes::default(), Permission::AppsWrite)?;
            let now = self.store.clock.now_ms();
            let app_id = secret::id("app", random::bytes()?);
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
            let mut statements = vec![proven.use_nonce()];
            statements.extend(self.store.claim(wallet, namespace, now));
            let place = statements.len();
            statements.push(only_if(
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
                self.store.has_role(wallet, namespace, Role::Writer),
            ));
            let kept = Condition::new("EXISTS (SELECT 1 FROM apps WHERE app_id = ?)", [app.app_id.as_str().into()]);
            statements.push(audit::event_if("app_registered", namespace, &app.wallet, &app.app_id, now, kept));
            let results = self.open(statements).await?;
            if changed(&results, place) { Ok(app) } else { Err(not_yours(namespace)) }
        }
        .await;
        if let Err(error) = &registered {
            self.note_refusal(namespace, error);
        }
        registered
    }
}
