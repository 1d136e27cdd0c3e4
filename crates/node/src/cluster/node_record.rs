//! One node of the cluster, as the register has it.

use debros_p2p::{Multiaddr, PeerId};
use debros_proto::{Error, Result, rpc};
use std::fmt;
use std::str::FromStr;

/// Characters of a node's name.
const MAX_NAME_CHARS: usize = 128;
/// Addresses of one node.
const MAX_ADDRESSES: usize = 16;
/// Characters of the texts that a node says of itself.
const MAX_TEXT_CHARS: usize = 256;

/// What a node does with the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeRole {
    /// It votes, and holds the data.
    Voter,
    /// It holds the data.
    Replica,
    /// It passes calls on to those that hold the data.
    Relay,
}

impl NodeRole {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            NodeRole::Voter => "voter",
            NodeRole::Replica => "replica",
            NodeRole::Relay => "relay",
        }
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NodeRole {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [NodeRole::Voter, NodeRole::Replica, NodeRole::Relay]
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| {
                let shown = debros_proto::ids::excerpt(text);
                Error::invalid(format!("\"{shown}\" is no role of a node"))
            })
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeDescription {
    pub(crate) name: String,
    /// With the peer id.
    pub(crate) addresses: Vec<Multiaddr>,
    /// Empty: nowhere.
    pub(crate) raft_address: String,
    pub(crate) version: String,
}

/// One node of the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeRecord {
    pub(crate) peer_id: PeerId,
    pub(crate) description: NodeDescription,
    pub(crate) role: NodeRole,
    /// Milliseconds since the Unix epoch, as all times here.
    pub(crate) joined_at: i64,
    /// When it was removed, for good.
    pub(crate) removed_at: Option<i64>,
    pub(crate) updated_at: i64,
}

impl NodeDescription {
    /// Checks what another node says of itself.
    ///
    /// # Errors
    /// `invalid_argument`, saying what is wrong.
    pub(crate) fn parse(
        name: &str,
        addresses: &[String],
        raft_address: &str,
        version: &str,
    ) -> Result<Self> {
        check_name(name)?;
        if addresses.len() > MAX_ADDRESSES {
            return Err(Error::invalid(format!("a node has at most {MAX_ADDRESSES} addresses")));
        }
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                let shown = debros_proto::ids::excerpt(text);
                Error::invalid(format!("\"{shown}\" is no multiaddr"))
            })
        };
        for text in [raft_address, version] {
            if text.chars().count() > MAX_TEXT_CHARS || text.chars().any(char::is_control) {
                return Err(Error::invalid(format!(
                    "a node's Raft address and version have at most {MAX_TEXT_CHARS} characters, and no control characters"
                )));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            addresses: addresses.iter().map(parse).collect::<Result<_>>()?,
            raft_address: raft_address.to_owned(),
            version: version.to_owned(),
        })
    }

    pub(crate) fn address_texts(&self) -> Vec<String> {
        self.addresses.iter().map(ToString::to_string).collect()
    }
}

/// Checks the name of a node.
///
/// # Errors
/// `invalid_argument`.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.chars().count() <= MAX_NAME_CHARS
        && !name.chars().any(char::is_control);
    fits.then_some(()).ok_or_else(|| {
        Error::invalid(format!(
            "a node's name has 1 to {MAX_NAME_CHARS} characters, and no control characters"
        ))
    })
}

impl NodeRecord {
    pub(crate) fn is_removed(&self) -> bool {
        self.removed_at.is_some()
    }

    pub(crate) fn to_message(&self) -> rpc::ClusterNode {
        rpc::ClusterNode {
            peer_id: self.peer_id.to_string(),
            name: self.description.name.clone(),
            addresses: self.description.address_texts(),
            raft_address: self.description.raft_address.clone(),
            role: self.role.name().to_owned(),
            version: self.description.version.clone(),
            joined_at: self.joined_at,
            removed_at: self.removed_at.unwrap_or_default(),
            updated_at: self.updated_at,
        }
    }

    /// Checks what another node sent.
    ///
    /// # Errors
    /// `invalid_argument`, saying what is wrong.
    pub(crate) fn from_message(message: &rpc::ClusterNode) -> Result<Self> {
        let peer_id = message.peer_id.parse().map_err(|_| {
            let shown = debros_proto::ids::excerpt(&message.peer_id);
            Error::invalid(format!("\"{shown}\" is not a peer id"))
        })?;
        Ok(Self {
            peer_id,
            description: NodeDescription::parse(
                &message.name,
                &message.addresses,
                &message.raft_address,
                &message.version,
            )?,
            role: message.role.parse()?,
            joined_at: message.joined_at,
            removed_at: Some(message.removed_at).filter(|at| *at > 0),
            updated_at: message.updated_at,
        })
    }

    /// Whether this says something that another record of the same node does not. A removal is
    /// never taken back.
    pub(crate) fn is_newer_than(&self, other: &NodeRecord) -> bool {
        !other.is_removed() && (self.is_removed() || self.updated_at > other.updated_at)
    }
}

#[cfg(test)]
mod tests {
    use super::{NodeDescription, NodeRecord, NodeRole};
    use debros_p2p::PeerId;

    fn record(updated_at: i64, removed_at: Option<i64>) -> NodeRecord {
        let description =
            NodeDescription::parse("a", &["/ip4/192.0.2.1/tcp/4001".into()], "", "1").unwrap();
        let (peer_id, role) = (PeerId::random(), NodeRole::Replica);
        NodeRecord { peer_id, description, role, joined_at: 1, removed_at, updated_at }
    }

    #[test]
    fn a_record_survives_the_wire() {
        for record in [record(2, None), record(2, Some(3))] {
            assert_eq!(NodeRecord::from_message(&record.to_message()).unwrap(), record);
        }
    }

    #[test]
    fn a_removal_is_final() {
        let (old, new, removed) = (record(1, None), record(2, None), record(1, Some(1)));
        assert!(new.is_newer_than(&old) && !old.is_newer_than(&new) && !new.is_newer_than(&new));
        assert!(removed.is_newer_than(&new) && !new.is_newer_than(&removed));
    }

    #[test]
    fn what_a_node_says_of_itself_is_checked() {
        let long = "x".repeat(129);
        for (name, address) in
            [("", "/ip4/1.2.3.4"), ("a\n", "/ip4/1.2.3.4"), (&long, ""), ("a", "x")]
        {
            NodeDescription::parse(name, &[address.to_owned()], "", "").unwrap_err();
        }
        let many = vec!["/ip4/192.0.2.1/tcp/1".to_owned(); 17];
        NodeDescription::parse("a", &many, "", "").unwrap_err();
        NodeDescription::parse("a", &[], "x\u{1b}", "").unwrap_err();
    }
}
