//! Which addresses are one caller.

use std::net::{IpAddr, Ipv6Addr};

/// Bits of an IPv6 address that name one caller: a household or a rented machine has all of the
/// rest.
const IPV6_PREFIX: u32 = 64;

/// The network that counts as one caller: an IPv4 address, or the /64 of an IPv6 address. An IPv4
/// address that is mapped into IPv6 is that IPv4 address, and a loopback address stays one.
pub fn caller_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // Its /64 belongs to no one caller.
        loopback if loopback.is_loopback() => loopback,
        IpAddr::V6(v6) => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> IPV6_PREFIX << IPV6_PREFIX))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::caller_network;

    #[test]
    fn an_ipv6_network_is_one_caller_and_a_mapped_address_its_ipv4_one() {
        let network = |address: &str| caller_network(address.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(network("192.0.2.1"), "192.0.2.1");
        assert_eq!(
            (network("::1"), network("::ffff:127.0.0.1")),
            ("::1".to_owned(), "127.0.0.1".to_owned())
        );
    }
}
