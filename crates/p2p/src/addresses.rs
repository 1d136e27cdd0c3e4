//! Which addresses this host can dial, said before the transports say it in their many ways.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Whether an address is a host, TCP or QUIC on it, and perhaps a peer id; or a name that stands
/// for such addresses.
pub(crate) fn can_be_dialled(address: &Multiaddr) -> bool {
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let plain = match parts.split_last() {
        Some((Protocol::P2p(_), before)) => before,
        _ => parts.as_slice(),
    };
    matches!(
        plain,
        [Protocol::Dnsaddr(_)]
            | [
                Protocol::Ip4(_)
                    | Protocol::Ip6(_)
                    | Protocol::Dns(_)
                    | Protocol::Dns4(_)
                    | Protocol::Dns6(_),
                Protocol::Tcp(1..)
            ]
            | [
                Protocol::Ip4(_)
                    | Protocol::Ip6(_)
                    | Protocol::Dns(_)
                    | Protocol::Dns4(_)
                    | Protocol::Dns6(_),
                Protocol::Udp(1..),
                Protocol::QuicV1
            ]
    )
}

/// What a host tells others of where it listens: the addresses that mean the same host elsewhere,
/// or all of them when there are none of those, as on a network of one machine.
pub fn advertised_addresses(listening: &[Multiaddr]) -> Vec<Multiaddr> {
    let means_the_same_elsewhere = |address: &&Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) => !(ip.is_loopback() || ip.is_unspecified() || ip.is_link_local()),
        Some(Protocol::Ip6(ip)) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local())
        }
        _ => true,
    };
    let elsewhere: Vec<Multiaddr> =
        listening.iter().filter(means_the_same_elsewhere).cloned().collect();
    if elsewhere.is_empty() { listening.to_vec() } else { elsewhere }
}

#[cfg(test)]
mod tests {
    use super::{advertised_addresses, can_be_dialled};
    use libp2p::{Multiaddr, PeerId};

    #[test]
    fn addresses_of_this_machine_alone_are_told_only_where_there_are_no_others() {
        let parse = |text: &str| text.parse::<Multiaddr>().unwrap();
        let own = ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip6/fe80::1/tcp/1"].map(parse);
        let lan = parse("/ip4/192.168.1.2/tcp/1");
        assert_eq!(advertised_addresses(&own), own);
        let both: Vec<Multiaddr> = own.iter().chain([&lan]).cloned().collect();
        assert_eq!(advertised_addresses(&both), [lan]);
    }

    #[test]
    fn hosts_and_names_with_tcp_or_quic_can_be_dialled() {
        let peer = PeerId::random();
        for good in [
            "/ip4/192.0.2.1/tcp/4001",
            "/ip6/::1/udp/4001/quic-v1",
            "/dns4/example.org/tcp/1",
            "/dnsaddr/example.org",
        ] {
            for address in [good.to_owned(), format!("{good}/p2p/{peer}")] {
                assert!(can_be_dialled(&address.parse::<Multiaddr>().unwrap()), "{address}");
            }
        }
        let relayed = format!("/ip4/192.0.2.1/tcp/4001/p2p/{peer}/p2p-circuit");
        for bad in [
            "",
            "/ip4/192.0.2.1",
            "/tcp/1",
            "/ip4/192.0.2.1/udp/1",
            "/ip4/192.0.2.1/tcp/0",
            "/ip4/192.0.2.1/tcp/1/ws",
            "/memory/1",
            "/ip4/127.0.0.1/udp/1/quic-v1/webtransport",
            "/unix/a",
            &relayed,
        ] {
            assert!(!can_be_dialled(&bad.parse::<Multiaddr>().unwrap()), "{bad}");
        }
    }
}
