//! Attacks on the node's places: holding those that others need.

use super::attacker::{Attacker, PATIENCE, connect_from, open_many};
use anyhow::{Context as _, Result};
use debros_p2p::{Host, HostConfig, Keypair, Multiaddr};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A gateway takes 10,000 connections by default.
pub(crate) const CONNECTIONS: usize = 10_100;
pub(crate) const WEBSOCKETS: usize = 9_999;
/// The node that is attacked takes 50 connections.
const IDENTITIES: usize = 60;

/// Connections of one address that send nothing.
pub(crate) async fn connect_and_send_nothing(attacker: Attacker) -> Result<()> {
    let number = attacker.scale_count(CONNECTIONS);
    open_many(number, async || match attacker.connect().await {
        Ok(stream) => {
            attacker.tally.count("connections open");
            let one = attacker.clone();
            attacker.spawn(async move { one.hold_socket(&stream).await });
        }
        Err(_) => attacker.tally.count("connections refused"),
    })
    .await;
    Ok(())
}

/// WebSockets of one key that send nothing.
pub(crate) async fn open_websockets(attacker: Attacker) -> Result<()> {
    let number = attacker.scale_count(WEBSOCKETS);
    open_many(number, async || {
        if let Some(socket) = attacker.websocket().await {
            let one = attacker.clone();
            attacker.spawn(async move { one.hold_socket(socket.get_ref()).await });
        }
    })
    .await;
    Ok(())
}

/// Identities of libp2p, all from one address, that connect and call nothing.
pub(crate) async fn connect_identities(attacker: Attacker) -> Result<()> {
    let relay = start_relay(&attacker).await?;
    for _ in 0..IDENTITIES {
        let host =
            Host::start(HostConfig::client(Keypair::generate_ed25519(), "bench/attack"), None)
                .await?;
        match host.connect(relay.clone(), PATIENCE).await {
            Ok(peer) => {
                attacker.tally.count("peers connected");
                let tally = attacker.tally.clone();
                attacker.spawn(async move {
                    while host.peers().iter().any(|known| known.id == peer && known.connected) {
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    }
                    tally.count("ended by the node");
                });
            }
            Err(error) => attacker.tally.count(format!("peers refused: {:?}", error.code)),
        }
    }
    Ok(())
}

/// A relay to the node: it forwards a dialled connection from the attacker's address, which a
/// libp2p host cannot choose. Returns the address to dial.
async fn start_relay(attacker: &Attacker) -> Result<Multiaddr> {
    let node = socket_address(&attacker.peer).context("the node's address is not /ip4/…/tcp/…")?;
    let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = relay.local_addr()?.port();
    let source = attacker.source;
    attacker.spawn(async move {
        let mut ways = JoinSet::new();
        while let Ok((mut inside, _)) = relay.accept().await {
            ways.spawn(async move {
                if let Ok(mut outside) = connect_from(source, node).await {
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                }
            });
        }
    });
    let peer = attacker.peer.iter().last().context("the node's address is empty")?;
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse()?;
    Ok(address.with(peer))
}

/// The IP address and TCP port in a multiaddr.
fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let text = address.to_string();
    let mut parts = text.split('/').skip(1);
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()?) {
        ("ip4", ip, "tcp", port) => {
            Some(SocketAddr::new(IpAddr::V4(ip.parse().ok()?), port.parse().ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::socket_address;

    #[test]
    fn the_socket_address_stands_in_the_multiaddr() {
        let read = |text: &str| socket_address(&text.parse().unwrap());
        assert_eq!(read("/ip4/127.0.0.1/tcp/4001"), Some("127.0.0.1:4001".parse().unwrap()));
        assert_eq!(read("/ip4/127.0.0.1/udp/4001/quic-v1"), None);
    }
}
