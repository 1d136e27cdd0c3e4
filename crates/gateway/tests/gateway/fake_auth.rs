//! The answers of the in-memory node about sign-in: fixed secrets, and a record of its requests.
//! Whether a proof is valid is tested against a real node, in `full_node.rs` and `sign_in_full.rs`.

use debros_proto::rpc::{self, request::Call, response::Result as Answer};
use debros_proto::{Code, Error};
use std::time::Duration;

/// A wallet.
pub(crate) const WALLET: &str = "0x52908400098527886e0f7030069857d2e4169ee7";
pub(crate) const NONCE: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
pub(crate) const REFRESH_TOKEN: &str = "rt_hidden";
pub(crate) const API_KEY: &str = "ak_hidden:one";
/// A signature that does not hold.
pub(crate) const BAD_SIGNATURE: &str = "0xbad";

/// The access token of a namespace.
pub(crate) fn access_token(namespace: &str) -> String {
    format!("ey.good.{namespace}")
}

/// Public calls; `None` for all others.
pub(crate) fn public(call: &Call) -> Option<Result<Answer, Error>> {
    Some(match call.clone() {
        Call::Challenge(challenge) => Ok(Answer::Challenge(rpc::ChallengeResponse {
            message: format!("{} {} {}", challenge.domain, challenge.uri, challenge.chain_id),
            wallet: challenge.wallet.to_lowercase(),
            namespace: challenge.namespace,
            nonce: NONCE.into(),
            purpose: challenge.purpose,
            issued_at: 1000,
            expires_at: 301_000,
        })),
        Call::SignIn(sign_in) => {
            checked(sign_in.proof).map(|proof| Answer::Session(session(&proof.namespace)))
        }
        Call::RegisterApp(register) => checked(register.proof).map(|proof| {
            let app = rpc::App {
                app_id: "app_1".into(),
                name: register.name,
                namespace: proof.namespace,
                wallet: proof.wallet.to_lowercase(),
                ..Default::default()
            };
            Answer::App(rpc::AppResponse { app: Some(app) })
        }),
        Call::CreateApiKeyByProof(create) => checked(create.proof)
            .map(|proof| made(proof.namespace, create.name, create.role, create.scopes)),
        Call::Refresh(refresh) if refresh.refresh_token != REFRESH_TOKEN => {
            Err(refused("the refresh token is not valid"))
        }
        Call::Refresh(refresh) if !matches!(refresh.namespace.as_str(), "" | "one") => {
            Err(Error::new(
                Code::NamespaceMismatch,
                "namespace mismatch: the token is of another namespace",
            ))
        }
        Call::Refresh(_) => Ok(Answer::Session(session("one"))),
        Call::Logout(logout) if !logout.all && !matches!(logout.namespace.as_str(), "" | "one") => {
            Err(Error::new(
                Code::NamespaceMismatch,
                "namespace mismatch: the token is of another namespace",
            ))
        }
        Call::Logout(logout) if !logout.all => {
            Ok(Answer::Logout(rpc::LogoutResponse { revoked: 1 }))
        }
        Call::Jwks(_) => {
            let key = rpc::SigningKey {
                kid: "k1".into(),
                public_key: vec![7; 32].into(),
                ..Default::default()
            };
            Ok(Answer::Jwks(rpc::JwksResponse { keys: vec![key] }))
        }
        _ => return None,
    })
}

/// Calls of a caller that is known, in its namespace; `None` for all others.
pub(crate) fn known(call: &Call, namespace: &str) -> Option<Result<Answer, Error>> {
    Some(match call.clone() {
        Call::Logout(_) => Ok(Answer::Logout(rpc::LogoutResponse { revoked: 3 })),
        Call::Token(_) => Ok(Answer::Session(rpc::SessionResponse {
            refresh_token: String::new(),
            ..session(namespace)
        })),
        Call::CreateApiKey(create) => {
            Ok(made(namespace.to_owned(), create.name, create.role, create.scopes))
        }
        Call::ListApiKeys(_) => {
            Ok(Answer::ListApiKeys(rpc::ListApiKeysResponse { keys: vec![key(namespace)] }))
        }
        Call::RevokeApiKey(revoke) if revoke.id == "key_1" => {
            Ok(Answer::RevokeApiKey(rpc::RevokeApiKeyResponse { revoked: true }))
        }
        Call::RevokeApiKey(_) => Err(Error::new(Code::NotFound, "there is no such key")),
        Call::ListMembers(_) => Ok(Answer::ListMembers(rpc::ListMembersResponse {
            members: vec![rpc::Member { granted_by: String::new(), ..member(WALLET, "owner") }],
        })),
        Call::SetMember(set) => Ok(Answer::Member(rpc::MemberResponse {
            member: Some(member(&set.wallet.to_lowercase(), &set.role)),
        })),
        Call::ListNamespaces(_) => Ok(Answer::ListNamespaces(rpc::ListNamespacesResponse {
            namespaces: vec![described(namespace), described("two")],
            more: true,
            // After those that were left out.
            next: "two-and-a-half".into(),
        })),
        Call::GetNamespace(_) => {
            Ok(Answer::Namespace(rpc::NamespaceResponse { namespace: Some(described(namespace)) }))
        }
        Call::DeleteNamespace(delete) if delete.confirm == "busy" => {
            Err(Error::new(Code::Conflict, "a backup is running")
                .retry_after(Duration::from_millis(1500)))
        }
        Call::DeleteNamespace(delete) if delete.confirm != namespace => {
            Err(Error::invalid("confirm it with its name"))
        }
        Call::DeleteNamespace(_) => Ok(Answer::DeleteNamespace(rpc::DeleteNamespaceResponse {
            deleted: Some(described(namespace)),
        })),
        Call::RemoveMember(_) => {
            Ok(Answer::RemoveMember(rpc::RemoveMemberResponse { removed: true }))
        }
        _ => return None,
    })
}

fn described(namespace: &str) -> rpc::NamespaceInfo {
    rpc::NamespaceInfo {
        name: namespace.to_owned(),
        role: "owner".into(),
        owner: WALLET.into(),
        created_at: 1000,
        sql_bytes: 4096,
        tables: 2,
        rows: 3,
        rows_are_exact: true,
        keys: 4,
        key_bytes: 5,
        keys_are_exact: true,
        max_bytes: Some(8192),
        taken_bytes: 5000,
        free_bytes: 1024,
        problem: "the database is damaged".into(),
    }
}

fn checked(proof: Option<rpc::Proof>) -> Result<rpc::Proof, Error> {
    proof
        .filter(|proof| proof.signature != BAD_SIGNATURE)
        .ok_or_else(|| refused("the signature is another wallet's"))
}

fn refused(why: &str) -> Error {
    Error::new(Code::Unauthenticated, why)
}

fn session(namespace: &str) -> rpc::SessionResponse {
    rpc::SessionResponse {
        access_token: access_token(namespace),
        access_expires_at: debros_proto::now_ms() + 900_000,
        refresh_token: REFRESH_TOKEN.into(),
        refresh_expires_at: debros_proto::now_ms() + 2_592_000_000,
        subject: WALLET.into(),
        namespace: namespace.to_owned(),
        role: "owner".into(),
    }
}

fn key(namespace: &str) -> rpc::ApiKey {
    rpc::ApiKey {
        id: "key_1".into(),
        prefix: "ak_hid".into(),
        namespace: namespace.to_owned(),
        role: "writer".into(),
        created_at: 1000,
        wallet: WALLET.into(),
        ..Default::default()
    }
}

fn made(namespace: String, name: String, role: String, scopes: Vec<String>) -> Answer {
    let role = if role.is_empty() { "writer".into() } else { role };
    let info = rpc::ApiKey { name, role, scopes, ..key(&namespace) };
    Answer::CreateApiKey(rpc::CreateApiKeyResponse { api_key: API_KEY.into(), info: Some(info) })
}

fn member(wallet: &str, role: &str) -> rpc::Member {
    rpc::Member {
        wallet: wallet.to_owned(),
        role: role.to_owned(),
        granted_by: WALLET.into(),
        created_at: 1000,
    }
}
