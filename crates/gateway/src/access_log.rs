//! The line that a served request leaves in the log at level debug.

use crate::gateway_state::GatewayState;
use crate::query_params::QueryParams;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use debros_proto::Namespace;
use http::Request;
use serde::Deserialize;

/// The namespace that a request is for: that of the gateway's own credential, if it is lent; else
/// the one that the credential names; else that of the query. Empty if there is none. It is not
/// verified and serves the log alone.
pub(crate) fn request_namespace<B>(request: &Request<B>, shared: &GatewayState) -> String {
    let mut query = QueryParams::parse(request.uri().query()).unwrap_or_default();
    let token = query.take("token");
    let found = match shared.credentials.resolve_websocket(
        request.headers(),
        token.as_deref(),
        &shared.cors,
    ) {
        Ok((caller, _)) => match caller.lent_access {
            Some(access) => Some(access.namespace),
            None => namespace_in_credential(&caller.credential),
        },
        Err(_) => None,
    };
    let found = found.or_else(|| Namespace::new(&query.take("namespace")?).ok());
    found.map(|namespace| namespace.to_string()).unwrap_or_default()
}

/// The contents of an API key, or of an access token's claims.
fn namespace_in_credential(credential: &str) -> Option<Namespace> {
    #[derive(Deserialize)]
    struct UnverifiedClaims {
        namespace: String,
    }
    if let Some((_, namespace)) = credential.split_once(':') {
        return Namespace::new(namespace).ok();
    }
    let payload = URL_SAFE_NO_PAD.decode(credential.split('.').nth(1)?).ok()?;
    let claims: UnverifiedClaims = serde_json::from_slice(&payload).ok()?;
    Namespace::new(&claims.namespace).ok()
}

#[cfg(test)]
mod tests {
    use super::namespace_in_credential;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    #[test]
    fn keys_and_tokens_name_their_namespace() {
        let named = |credential: &str| {
            namespace_in_credential(credential).map(|namespace| namespace.to_string())
        };
        let token = |payload: &str| format!("ey.{}.x", URL_SAFE_NO_PAD.encode(payload));
        assert_eq!(named("ak_00:shop").as_deref(), Some("shop"));
        assert_eq!(named(&token(r#"{"sub":"x","namespace":"shop"}"#)).as_deref(), Some("shop"));
        for other in
            ["op_00", "", "ey.a.b", "ak_00:a b\n", &token(r#"{"namespace":"A\nB"}"#), &token("{}")]
        {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
