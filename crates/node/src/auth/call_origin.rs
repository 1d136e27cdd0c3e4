//! What the limits of calls without a credential count.

use debros_p2p::{CallContext, PeerId, TrustLevel};
use debros_proto::network::caller_network;
use debros_proto::{Error, Result};
use std::net::{IpAddr, Ipv4Addr};

/// Where a call without a credential comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallOrigin {
    /// A gateway in this process, or one that holds the operator's credential: the address that it
    /// names is its user's. `None` when it names none: a caller in this process itself.
    User(Option<IpAddr>),
    /// Any other peer, with the address that it names for a user of its own. It may name any.
    Peer {
        /// The peer.
        peer: CountedPeer,
        /// The address that it names.
        named: Option<IpAddr>,
    },
}

/// What a peer counts as: where it comes from, because its id costs nothing. Programs of this
/// machine are many, and count by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CountedPeer {
    /// An IPv4 address or the /64 of an IPv6 one.
    Network(IpAddr),
    /// An id.
    Id(PeerId),
}

impl CallOrigin {
    /// The address to name for the caller where its call is passed on; `None`: a caller in this
    /// process itself. What a peer names is not passed on: it may name any. Programs of this machine
    /// are one caller elsewhere.
    pub(crate) fn relayed_address(self) -> Option<IpAddr> {
        match self {
            CallOrigin::User(user) => user,
            CallOrigin::Peer { peer: CountedPeer::Network(network), .. } => Some(network),
            CallOrigin::Peer { peer: CountedPeer::Id(_), .. } => {
                Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
            }
        }
    }

    /// Reads where a call comes from. `named` is the request's `caller_address`, empty when there
    /// is none.
    ///
    /// # Errors
    /// `invalid_argument` when that is no address.
    pub(crate) fn from_call(context: &CallContext, named: &str) -> Result<Self> {
        let named = if named.is_empty() {
            None
        } else {
            let address =
                named.parse().map_err(|_| Error::invalid("caller_address is not an IP address"))?;
            Some(caller_network(address))
        };
        let Some(peer) = context.peer else {
            return Ok(CallOrigin::User(named));
        };
        let trust = context.trust.as_ref();
        if named.is_some() && trust.is_some_and(|trust| trust.level() >= TrustLevel::Operator) {
            return Ok(CallOrigin::User(named));
        }
        let network =
            trust.and_then(|trust| trust.network()).filter(|network| !network.is_loopback());
        Ok(CallOrigin::Peer {
            peer: network.map_or(CountedPeer::Id(peer), CountedPeer::Network),
            named,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{CallOrigin, CountedPeer};
    use debros_p2p::{CallContext, PeerId, PeerTrust, TrustLevel};
    use std::sync::Arc;
    use std::time::Instant;

    fn peer_at(address: &str, level: TrustLevel) -> CallContext {
        let trust = PeerTrust::stranger(Some(address.parse().unwrap()));
        trust.raise_level(level);
        CallContext {
            connection: None,
            peer: Some(PeerId::random()),
            trust: Some(Arc::new(trust)),
            deadline: Instant::now(),
        }
    }

    fn user(address: &str) -> CallOrigin {
        CallOrigin::User(Some(address.parse().unwrap()))
    }

    #[test]
    fn only_a_gateway_of_the_operator_is_believed_about_its_users() {
        let inside =
            CallContext { peer: None, trust: None, connection: None, deadline: Instant::now() };
        assert_eq!(CallOrigin::from_call(&inside, "192.0.2.1").unwrap(), user("192.0.2.1"));
        assert_eq!(CallOrigin::from_call(&inside, "").unwrap(), CallOrigin::User(None));
        let proven = peer_at("198.51.100.1", TrustLevel::Operator);
        // A proxy on the gateway's machine, with all the users behind it.
        for gateway in [&inside, &proven] {
            assert_eq!(CallOrigin::from_call(gateway, "127.0.0.1").unwrap(), user("127.0.0.1"));
            assert_eq!(CallOrigin::from_call(gateway, "::1").unwrap(), user("::1"));
        }
        assert_eq!(
            CallOrigin::from_call(&proven, "2001:db8::1:2:3:4").unwrap(),
            user("2001:db8::")
        );
        let network = CountedPeer::Network("198.51.100.1".parse().unwrap());
        assert_eq!(
            CallOrigin::from_call(&proven, "").unwrap(),
            CallOrigin::Peer { peer: network, named: None }
        );
        for level in [TrustLevel::Stranger, TrustLevel::Member] {
            let named = Some("192.0.2.1".parse().unwrap());
            let origin =
                CallOrigin::from_call(&peer_at("198.51.100.1", level), "192.0.2.1").unwrap();
            assert_eq!(origin, CallOrigin::Peer { peer: network, named });
        }
        assert!(CallOrigin::from_call(&inside, "everywhere").is_err());
    }

    #[test]
    fn a_new_identity_is_no_new_caller_and_programs_of_one_machine_are_many() {
        let counted = |address: &str| match CallOrigin::from_call(
            &peer_at(address, TrustLevel::Stranger),
            "",
        )
        .unwrap()
        {
            CallOrigin::Peer { peer, .. } => peer,
            other => panic!("{other:?}"),
        };
        assert_eq!(counted("198.51.100.1"), counted("198.51.100.1"));
        assert_eq!(counted("2001:db8::1"), counted("2001:db8::2"));
        assert_ne!(counted("127.0.0.1"), counted("127.0.0.1"));
    }
}
