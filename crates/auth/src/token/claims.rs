//! The claims of a token.

use super::{ISSUER, LIFETIME_MS, MAX_AHEAD_MS};
use debros_proto::Namespace;
use serde::{Deserialize, Serialize};

/// The claims of a token, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The wallet (lower case), or the API key's id.
    pub subject: String,
    /// The namespace in which the token is valid.
    pub namespace: Namespace,
    /// What the token stands for, and whose end it shares.
    pub credential: TokenCredential,
    /// The token's own id.
    pub id: String,
    /// Milliseconds since the Unix epoch, at a whole second.
    pub issued_at: i64,
    /// Milliseconds since the Unix epoch, at a whole second. From then on the token is no longer
    /// valid.
    pub expires_at: i64,
}

/// What a token stands for. When that is revoked, the token ends as well: the role is looked up,
/// not written in the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenCredential {
    /// A session of a wallet: the id of its family of refresh tokens.
    Session(String),
    /// An API key: its id.
    Key(String),
}

impl Claims {
    /// Claims of a token issued at `now` (milliseconds since the Unix epoch), valid for
    /// [`LIFETIME_MS`] less what `now` is past its whole second.
    pub fn new(
        subject: String,
        namespace: Namespace,
        credential: TokenCredential,
        id: String,
        now: i64,
    ) -> Self {
        let issued_at = now.div_euclid(1000) * 1000;
        Self { subject, namespace, credential, id, issued_at, expires_at: issued_at + LIFETIME_MS }
    }
}

/// The claims as the token has them. Times in seconds, as RFC 7519 has them.
#[derive(Serialize, Deserialize)]
pub(super) struct JwtClaims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl From<&Claims> for JwtClaims {
    fn from(claims: &Claims) -> Self {
        let (sid, key) = match &claims.credential {
            TokenCredential::Session(id) => (Some(id.clone()), None),
            TokenCredential::Key(id) => (None, Some(id.clone())),
        };
        let iat = claims.issued_at.div_euclid(1000);
        Self {
            iss: ISSUER.to_owned(),
            aud: ISSUER.to_owned(),
            sub: claims.subject.clone(),
            iat,
            nbf: iat,
            exp: claims.expires_at.div_euclid(1000),
            jti: claims.id.clone(),
            namespace: claims.namespace.to_string(),
            sid,
            key,
        }
    }
}

impl JwtClaims {
    /// The claims, if they are complete and not from the future at `now` (milliseconds). They may
    /// have expired.
    pub(super) fn into_claims(self, now: i64) -> Option<Claims> {
        let [issued_at, not_before, expires_at] =
            [self.iat, self.nbf, self.exp].map(|time| time.saturating_mul(1000));
        let latest = now.saturating_add(MAX_AHEAD_MS);
        let has_begun = issued_at <= latest && not_before <= latest;
        let ours = self.iss == ISSUER
            && self.aud == ISSUER
            && !self.sub.is_empty()
            && !self.jti.is_empty();
        let credential = match (self.sid, self.key) {
            (Some(sid), None) => TokenCredential::Session(sid),
            (None, Some(key)) => TokenCredential::Key(key),
            _ => return None,
        };
        let namespace = Namespace::new(&self.namespace).ok()?;
        (has_begun && ours).then_some(Claims {
            subject: self.sub,
            namespace,
            credential,
            id: self.jti,
            issued_at,
            expires_at,
        })
    }
}
