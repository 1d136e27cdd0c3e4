//! Who keeps a connection when all places are taken. Addresses beside 127.0.0.1 are this machine's
//! on Linux alone.
#![cfg(target_os = "linux")]

mod support;

use debros_p2p::{Host, HostConfig, Keypair};
use futures::future::join_all;
use support::raw::RawPeer;
use support::{LONG, assert_serves, connect, get, node_with, until, value_of};

async fn node_with_places(places: u32) -> Host {
    node_with(|config| config.max_connections = places).await.0
}

fn count_kept(peers: &[RawPeer]) -> usize {
    peers.iter().filter(|peer| !peer.gone.is_cancelled()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_of_one_address_leave_room_for_others() {
    let host = node_with_places(6).await;
    let mut crowd = Vec::new();
    for _ in 0..6 {
        crowd.push(RawPeer::connect_from(&host, "127.0.0.2").await.unwrap());
    }
    // A busy one is as good as an idle one: public calls prove nothing.
    crowd[0].open().await.request(1, get("never")).await;
    RawPeer::connect_from(&host, "127.0.0.2").await.err().expect("no place for more of the same");
    let others: Vec<_> = join_all((0..3).map(|_| connect(&host))).await;
    for (_, channel) in &others {
        assert_eq!(value_of(channel.call(get("served"), LONG).await.unwrap()), "served");
    }
    until("as many have left", || count_kept(&crowd) == 3).await;
    // Now both have half, and neither pushes the other out.
    RawPeer::connect_from(&host, "127.0.0.2").await.err().expect("refused");
    RawPeer::connect_from(&host, "127.0.0.1").await.err().expect("refused");
    assert_eq!(count_kept(&crowd), 3);
    assert!(others.iter().all(|(_, channel)| !channel.is_closed()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_shown_a_credential_keeps_its_place() {
    let host = node_with_places(6).await;
    let members: Vec<_> = join_all((0..3).map(|_| connect(&host))).await;
    for (_, channel) in &members {
        assert_eq!(value_of(channel.call(get("prove"), LONG).await.unwrap()), "proven");
    }
    let strangers: Vec<_> = join_all((0..3).map(|_| connect(&host))).await;
    let mut crowd = Vec::new();
    for _ in 0..3 {
        crowd.push(RawPeer::connect_from(&host, "127.0.0.2").await.unwrap());
    }
    until("strangers have left", || strangers.iter().all(|(_, channel)| channel.is_closed())).await;
    RawPeer::connect_from(&host, "127.0.0.2").await.err().expect("members stay");
    for (_, channel) in &members {
        assert_eq!(value_of(channel.call(get("still here"), LONG).await.unwrap()), "still here");
    }
    drop(crowd);
    until("room", || host.connected_peers() == 3).await;
    assert_serves(&host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_the_cluster_takes_no_place_and_has_one_where_there_is_none() {
    let host = node_with_places(2).await;
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id();
    host.set_reserved_peers([peer].into());
    let strangers: Vec<_> = join_all((0..2).map(|_| connect(&host))).await;
    RawPeer::connect_from(&host, "127.0.0.1").await.err().expect("no place for another one");
    let node = Host::start(HostConfig::client(keypair, "node"), None).await.unwrap();
    let address = host.listen_addresses().remove(0);
    node.connect(address, LONG).await.unwrap();
    let channel = node.open(host.peer_id()).await.unwrap();
    assert_eq!(value_of(channel.call(get("served"), LONG).await.unwrap()), "served");
    assert!(strangers.iter().all(|(_, channel)| !channel.is_closed()));
    // Its connection can be told from others and closed alone.
    let [connection] = host.connections(&peer)[..] else { panic!("one connection") };
    assert!(!connection.is_outbound && node.connections(&host.peer_id())[0].is_outbound);
    assert!(host.close_connection(connection.id).await);
    tokio::time::timeout(LONG, channel.closed()).await.unwrap();
    until("it is gone", || host.connections(&peer).is_empty()).await;
    assert!(node.open_on(host.peer_id(), connection.id).await.is_err());
}
