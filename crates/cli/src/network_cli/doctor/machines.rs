//! Which nodes are on different machines, by the addresses that they tell of themselves.

use debros_client::rpc::ClusterNode;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Whether a node's Raft port can be reached on its own machine alone.
pub(super) fn has_loopback_raft(node: &ClusterNode) -> bool {
    raft_ip(node).is_some_and(|ip| ip.is_loopback())
}

/// Whether two nodes surely are on different machines: both have addresses that other machines
/// know, and none in common.
pub(super) fn is_elsewhere(one: &ClusterNode, other: &ClusterNode) -> bool {
    let (ones, others) = (public_ips(one), public_ips(other));
    !ones.is_empty() && !others.is_empty() && ones.is_disjoint(&others)
}

fn public_ips(node: &ClusterNode) -> BTreeSet<IpAddr> {
    let mut ips: BTreeSet<IpAddr> =
        node.addresses.iter().filter_map(|address| multiaddr_ip(address)).collect();
    ips.extend(raft_ip(node));
    ips.retain(|ip| !ip.is_loopback() && !ip.is_unspecified());
    ips
}

fn raft_ip(node: &ClusterNode) -> Option<IpAddr> {
    node.raft_address.parse().ok().map(|address: SocketAddr| address.ip())
}

/// The address of `/ip4/<address>/…` and `/ip6/<address>/…`.
fn multiaddr_ip(address: &str) -> Option<IpAddr> {
    let mut parts = address.split('/').skip(1);
    matches!(parts.next(), Some("ip4" | "ip6")).then(|| parts.next()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::{has_loopback_raft, is_elsewhere};
    use debros_client::rpc::ClusterNode;

    fn node(addresses: &[&str], raft: &str) -> ClusterNode {
        let addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
        ClusterNode { addresses, raft_address: raft.into(), ..Default::default() }
    }

    #[test]
    fn nodes_are_elsewhere_when_they_share_no_address_that_others_know() {
        let here = node(&["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"], "127.0.0.1:7001");
        let there = node(&["/ip4/10.0.0.2/udp/1/quic-v1"], "10.0.0.2:7001");
        let unknown = node(&["/dns4/a.example/tcp/1"], "127.0.0.1:7002");
        assert!(is_elsewhere(&here, &there) && !is_elsewhere(&here, &here));
        assert!(!is_elsewhere(&here, &unknown));
        assert!(has_loopback_raft(&here) && !has_loopback_raft(&there));
        assert!(!has_loopback_raft(&node(&[], "")));
    }
}
