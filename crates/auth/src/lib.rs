//! Identities and what they allow: wallets and their signatures, sign-in challenges, access tokens,
//! secrets, roles.
//!
//! - [`wallet`]: Ethereum addresses, and private keys for programs that own one.
//! - [`challenge`]: the text that a wallet signs to sign in (EIP-4361), made and checked without
//!   storage.
//! - [`signature`]: from an EIP-191 signature to the wallet that made it.
//! - [`token`]: access tokens (JWT, EdDSA), the keys that sign them, and their public halves
//!   (JWKS).
//! - [`secret`]: API keys and refresh tokens: their forms, and the hashes that are stored in their
//!   place.
//! - [`role`]: the rights of a role and its scopes.
//! - `keystore` (feature): Ethereum keystore V3 files.
//! - [`random`]: bytes from the operating system, the only thing here that is not a function of its
//!   arguments.
//!
//! No clock, no storage, no network, no environment: every function that needs the time takes `now`
//! (milliseconds since the Unix epoch, as [`debros_proto::now_ms`] returns it), so every expiry is
//! tested without waiting. What must happen once (a nonce used, a refresh token rotated) is the
//! caller's task, in one transaction of its database.

pub mod challenge;
#[cfg(feature = "keystore")]
pub mod keystore;
pub mod private_key;
pub mod random;
pub mod role;
pub mod secret;
pub mod signature;
pub mod token;
pub mod wallet;

pub use private_key::PrivateKey;
pub use role::{Permission, Role, Scopes};
pub use wallet::Wallet;
