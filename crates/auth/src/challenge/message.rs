//! The text of a challenge (EIP-4361, "Sign-In with Ethereum").

use super::SignInTerms;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The text to sign. Times in milliseconds; `None` when they are outside of the years 0 to 9999.
///
/// Nothing in it can hold a line break or be mistaken for another line: [`SignInTerms`] checks its
/// parts, the rest is made here.
pub(super) fn sign_in_text(
    terms: &SignInTerms,
    nonce: &str,
    issued_at: i64,
    expires_at: i64,
) -> Option<String> {
    Some(format!(
        "{domain} wants you to sign in with your Ethereum account:\n\
         {address}\n\
         \n\
         Sign in to the namespace {namespace} on DeBros Network.\n\
         \n\
         URI: {uri}\n\
         Version: 1\n\
         Chain ID: {chain_id}\n\
         Nonce: {nonce}\n\
         Issued At: {issued}\n\
         Expiration Time: {expires}",
        domain = terms.domain(),
        address = terms.wallet().checksummed(),
        namespace = terms.namespace(),
        uri = terms.uri(),
        chain_id = terms.chain_id(),
        issued = rfc3339(issued_at)?,
        expires = rfc3339(expires_at)?,
    ))
}

fn rfc3339(ms: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).ok()?.format(&Rfc3339).ok()
}
