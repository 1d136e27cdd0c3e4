//! How messages with secrets in them are shown: without the secrets. What is printed for a
//! developer ends up in logs.

use crate::rpc::{
    ClusterKeyMessage, CreateApiKeyResponse, CreateJoinTokenResponse, JoinClusterRequest,
    JoinTokenContent, LogoutRequest, Proof, RefreshRequest, Request, SessionResponse,
};
use std::fmt;

/// Stands in the place of a secret: whether there is one.
struct RedactedSecret(bool);

impl RedactedSecret {
    fn in_place_of(secret: impl AsRef<[u8]>) -> Self {
        Self(!secret.as_ref().is_empty())
    }
}

impl fmt::Debug for RedactedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "(hidden)" } else { "(none)" })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("credential", &RedactedSecret::in_place_of(&self.credential))
            .field("namespace", &self.namespace)
            .field("timeout_ms", &self.timeout_ms)
            .field("idempotency_key", &self.idempotency_key)
            .field("request_id", &self.request_id)
            .field("credit", &self.credit)
            .field("relayed", &self.relayed)
            .field("call", &self.call)
            .finish()
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The nonce too: with the signature it is what opens a session, and it is good for nothing
        // in a log.
        f.debug_struct("Proof")
            .field("wallet", &self.wallet)
            .field("namespace", &self.namespace)
            .field("nonce", &RedactedSecret::in_place_of(&self.nonce))
            .field("signature", &RedactedSecret::in_place_of(&self.signature))
            .field("domain", &self.domain)
            .field("uri", &self.uri)
            .field("chain_id", &self.chain_id)
            .finish()
    }
}

impl fmt::Debug for SessionResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionResponse")
            .field("access_token", &RedactedSecret::in_place_of(&self.access_token))
            .field("access_expires_at", &self.access_expires_at)
            .field("refresh_token", &RedactedSecret::in_place_of(&self.refresh_token))
            .field("refresh_expires_at", &self.refresh_expires_at)
            .field("subject", &self.subject)
            .field("namespace", &self.namespace)
            .field("role", &self.role)
            .finish()
    }
}

impl fmt::Debug for CreateApiKeyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateApiKeyResponse")
            .field("api_key", &RedactedSecret::in_place_of(&self.api_key))
            .field("info", &self.info)
            .finish()
    }
}

impl fmt::Debug for RefreshRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshRequest")
            .field("refresh_token", &RedactedSecret::in_place_of(&self.refresh_token))
            .field("namespace", &self.namespace)
            .finish()
    }
}

impl fmt::Debug for LogoutRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogoutRequest")
            .field("refresh_token", &RedactedSecret::in_place_of(&self.refresh_token))
            .field("all", &self.all)
            .finish()
    }
}

impl fmt::Debug for ClusterKeyMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKeyMessage")
            .field("key", &RedactedSecret::in_place_of(&self.key))
            .field("epoch", &self.epoch)
            .finish()
    }
}

impl fmt::Debug for JoinTokenContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTokenContent")
            .field("addresses", &self.addresses)
            .field("cluster_id", &self.cluster_id)
            .field("secret", &RedactedSecret::in_place_of(&self.secret))
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

impl fmt::Debug for JoinClusterRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinClusterRequest")
            .field("cluster_id", &self.cluster_id)
            .field("secret", &RedactedSecret::in_place_of(&self.secret))
            .field("name", &self.name)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CreateJoinTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateJoinTokenResponse")
            .field("token", &RedactedSecret::in_place_of(&self.token))
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::rpc::frame::Body;
    use crate::rpc::request::Call;
    use crate::rpc::{self, response};

    /// Lesson 11: keys stood where they were not needed.
    #[test]
    fn lesson_11_no_message_shows_a_secret() {
        let secret = || "5ecret".to_owned();
        let proof = || {
            Some(rpc::Proof {
                nonce: secret(),
                signature: secret(),
                wallet: "0xseen".into(),
                ..Default::default()
            })
        };
        let calls = [
            Call::SignIn(rpc::SignInRequest { proof: proof() }),
            Call::RegisterApp(rpc::RegisterAppRequest { proof: proof(), ..Default::default() }),
            Call::CreateApiKeyByProof(rpc::CreateApiKeyByProofRequest {
                proof: proof(),
                ..Default::default()
            }),
            Call::Refresh(rpc::RefreshRequest {
                refresh_token: secret(),
                namespace: "0xseen".into(),
            }),
            Call::Logout(rpc::LogoutRequest {
                refresh_token: secret(),
                all: true,
                namespace: String::new(),
            }),
        ];
        for call in calls {
            let logs_out = matches!(call, Call::Logout(_));
            let request =
                rpc::Request { credential: secret(), call: Some(call), ..Default::default() };
            // As a part of a larger message, as it would be printed.
            let shown = format!("{:?}", rpc::Frame { id: 1, body: Some(Body::Request(request)) });
            assert!(!shown.contains("5ecret") && shown.contains("(hidden)"), "{shown}");
            assert!(logs_out || shown.contains("0xseen"), "{shown}");
        }
        let session = rpc::SessionResponse {
            access_token: secret(),
            refresh_token: secret(),
            namespace: "0xseen".into(),
            ..Default::default()
        };
        let key = || Some(rpc::ClusterKeyMessage { key: secret().into_bytes().into(), epoch: 1 });
        let shown = [
            format!("{:?}", key()),
            format!("{:?}", rpc::CreateJoinTokenResponse { token: secret(), expires_at: 1 }),
            format!(
                "{:?}",
                rpc::JoinTokenContent {
                    secret: secret().into_bytes().into(),
                    ..Default::default()
                }
            ),
            format!(
                "{:?}",
                Call::JoinCluster(rpc::JoinClusterRequest {
                    secret: secret().into_bytes().into(),
                    ..Default::default()
                })
            ),
            format!("{:?}", Call::ReplaceClusterKey(rpc::ReplaceClusterKeyRequest { key: key() })),
        ];
        for shown in shown {
            assert!(!shown.contains(&format!("{:?}", secret().as_bytes())), "{shown}");
            assert!(!shown.contains("5ecret") && shown.contains("(hidden)"), "{shown}");
        }
        let info = Some(rpc::ApiKey { id: "0xseen".into(), ..Default::default() });
        let results = [
            response::Result::Session(session),
            response::Result::CreateApiKey(rpc::CreateApiKeyResponse { api_key: secret(), info }),
        ];
        for result in results {
            let shown = format!("{:#?}", rpc::Response { replayed: false, result: Some(result) });
            assert!(!shown.contains("5ecret") && shown.contains("0xseen"), "{shown}");
        }
        let shown = format!("{:?}", rpc::Request::default());
        assert!(shown.contains("credential: (none)"), "{shown}");
    }
}
