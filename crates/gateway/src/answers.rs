//! The JSON of answers, for programs beside the gateway that write the same: `network-cli --format
//! json`.
//!
//! Each is made from the node's message, so that what a field means, how a time reads and what is
//! null is said once.

pub use crate::auth::keys::{CreateKeyAnswer, KeysAnswer};
pub use crate::auth::who_am_i::WhoAmIAnswer;
pub use crate::database::SchemaAnswer;
pub use crate::health::CheckAnswer;
pub use crate::members::{MembersAnswer, SetMemberAnswer};
pub use crate::namespaces::{DeleteNamespaceAnswer, NamespaceAnswer, NamespacesAnswer};
pub use crate::network::{NodeAnswer, PeerAnswer};
pub use crate::storage::ListAnswer;
