//! The JSON of answers, for programs beside the gateway that write the same JSON: `network-cli
//! --format json`.
//!
//! Each answer is made from the node's message, so that the meaning of a field, the form of a time
//! and the nulls are defined once.

pub use crate::auth::keys::{CreateKeyAnswer, KeysAnswer};
pub use crate::auth::who_am_i::WhoAmIAnswer;
pub use crate::database::SchemaAnswer;
pub use crate::health::CheckAnswer;
pub use crate::members::{MembersAnswer, SetMemberAnswer};
pub use crate::namespaces::{DeleteNamespaceAnswer, NamespaceAnswer, NamespacesAnswer};
pub use crate::network::{NodeAnswer, PeerAnswer};
pub use crate::storage::ListAnswer;
