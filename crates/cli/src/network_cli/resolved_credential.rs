//! The credential that a command's calls use, once it was looked up.

/// A credential to call with.
#[derive(Debug)]
pub(super) struct ResolvedCredential {
    pub(super) secret: String,
    /// Whether it is a session's access token, which ends and can be renewed.
    pub(super) is_session: bool,
}

impl ResolvedCredential {
    pub(super) fn from_key(secret: String) -> Self {
        Self { secret, is_session: false }
    }

    pub(super) fn from_token(secret: String) -> Self {
        Self { secret, is_session: true }
    }
}
