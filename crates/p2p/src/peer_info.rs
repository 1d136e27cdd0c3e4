//! The file `peer.info`: one address, with the peer id, at which a client on this machine can dial
//! the node.

use debros_proto::durable_file::{self, FileReaders};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Writes the address, with "any interface" replaced by loopback, in one step: a reader sees the
/// old file or the new.
///
/// Nothing is written when it says that already, as after a restart on the same port: a full disk
/// takes nothing.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, address: &Multiaddr) -> io::Result<()> {
    let address = with_loopback(address);
    if read(path).is_ok_and(|known| known == address) {
        return Ok(());
    }
    durable_file::replace(path, format!("{address}\n").as_bytes(), FileReaders::Umask)
}

/// Reads the address.
///
/// # Errors
/// When the file is not there, or does not hold one address with a peer id.
pub fn read(path: &Path) -> io::Result<Multiaddr> {
    let text = debros_proto::regular_file::read_to_string(path)?;
    let bad = |reason: &str| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {reason}", path.display()))
    };
    let address: Multiaddr = text.trim().parse().map_err(|_| bad("this is not a multiaddr"))?;
    match address.iter().last() {
        Some(Protocol::P2p(_)) => Ok(address),
        _ => Err(bad("the address has no /p2p/<peer id> at its end")),
    }
}

/// The one of a host's addresses that is best to dial from this machine: loopback or any interface
/// before others, TCP before QUIC.
pub fn best_local_address(addresses: &[Multiaddr]) -> Option<&Multiaddr> {
    addresses.iter().min_by_key(|address| {
        let is_tcp = address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
        (!is_tcp, !is_local(address))
    })
}

fn is_local(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback() || ip.is_unspecified(),
        _ => false,
    }
}

fn with_loopback(address: &Multiaddr) -> Multiaddr {
    address
        .iter()
        .map(|part| match part {
            Protocol::Ip4(ip) if ip.is_unspecified() => Protocol::Ip4(Ipv4Addr::LOCALHOST),
            Protocol::Ip6(ip) if ip.is_unspecified() => Protocol::Ip6(Ipv6Addr::LOCALHOST),
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{best_local_address, read, write};
    use libp2p::{Multiaddr, PeerId};

    #[test]
    fn what_is_written_can_be_dialled_here_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer.info");
        let id = PeerId::random();
        for (written, expected) in [
            ("/ip4/0.0.0.0/tcp/4001", "/ip4/127.0.0.1/tcp/4001"),
            ("/ip6/::/udp/4001/quic-v1", "/ip6/::1/udp/4001/quic-v1"),
            ("/ip4/192.0.2.7/tcp/1", "/ip4/192.0.2.7/tcp/1"),
        ] {
            write(&path, &format!("{written}/p2p/{id}").parse().unwrap()).unwrap();
            assert_eq!(read(&path).unwrap().to_string(), format!("{expected}/p2p/{id}"));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn a_file_without_an_address_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer.info");
        for bad in ["", "hello", "/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001/p2p/xyz"] {
            std::fs::write(&path, bad).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains("peer.info"), "{bad}");
        }
        assert_eq!(
            read(&folder.path().join("none")).unwrap_err().kind(),
            std::io::ErrorKind::NotFound
        );
    }

    #[test]
    fn loopback_tcp_is_picked_first() {
        let parse = |text: &str| text.parse::<Multiaddr>().unwrap();
        let quic = parse("/ip4/127.0.0.1/udp/1/quic-v1");
        let lan = parse("/ip4/192.0.2.7/tcp/1");
        let loopback = parse("/ip4/127.0.0.1/tcp/1");
        assert_eq!(
            best_local_address(&[quic.clone(), lan.clone(), loopback.clone()]),
            Some(&loopback)
        );
        assert_eq!(best_local_address(&[quic.clone(), lan.clone()]), Some(&lan));
        assert_eq!(best_local_address(std::slice::from_ref(&quic)), Some(&quic));
        assert_eq!(best_local_address(&[]), None);
    }
}
