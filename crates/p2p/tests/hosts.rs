//! Hosts: listening, connecting, limits on connections, what peers know of each other, shutdown.

mod support;

use debros_p2p::{Host, HostStartError, Keypair, Multiaddr, PeerId};
use debros_proto::Code;
use futures::StreamExt as _;
use futures::future::join_all;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::raw::{RawPeer, Security};
use support::{
    LONG, QUIC, Shared, TCP, TestNode, address, assert_serves, client, config, connect, get, node,
    node_with, put, subscribe, until, value_of,
};

fn soon() -> Instant {
    Instant::now() + LONG
}

#[tokio::test(flavor = "multi_thread")]
async fn listen_addresses_are_the_bound_ones_with_the_peer_id() {
    let (host, _) = node_with(|config| config.listen.push(QUIC.parse().unwrap())).await;
    let addresses = host.listen_addresses();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in &addresses {
        let text = address.to_string();
        assert!(
            text.ends_with(&format!("/p2p/{}", host.peer_id())) && !text.contains("/0/"),
            "{text}"
        );
        // With and without the peer id.
        for address in
            [address.clone(), address.iter().take_while(|part| part.tag() != "p2p").collect()]
        {
            let client = client().await;
            assert_eq!(client.connect(address, LONG).await.unwrap(), host.peer_id());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_interface_is_bound_as_the_interfaces_there_are() {
    let (host, _) =
        node_with(|config| config.listen = vec!["/ip4/0.0.0.0/tcp/0".parse().unwrap()]).await;
    let picked =
        debros_p2p::peer_info::best_local_address(&host.listen_addresses()).cloned().unwrap();
    assert!(picked.to_string().starts_with("/ip4/127.0.0.1/tcp/"), "{picked}");
    client().await.connect(picked, LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_offer_only_noise_or_only_tls_can_connect() {
    let (host, _) = node().await;
    for security in [Security::Noise, Security::Tls] {
        let mut peer =
            RawPeer::connect_as(&host, &Keypair::generate_ed25519(), security).await.unwrap();
        let mut stream = peer.open().await;
        stream.request(5, get("k")).await;
        assert_eq!(stream.receive().await.unwrap().id, 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_know_who_is_connected_and_who_was() {
    let (host, _) = node().await;
    let (client, channel) = connect(&host).await;
    channel.call(get("k"), LONG).await.unwrap();
    assert_eq!((host.connected_peers(), client.connected_peers()), (1, 1));
    until("identify and ping", || {
        host.peers().iter().all(|peer| peer.agent == "debros/test" && peer.rtt.is_some())
            && client.peers().iter().all(|peer| peer.agent == "debros/test" && peer.rtt.is_some())
    })
    .await;
    let known = client.peers().remove(0);
    assert_eq!(known.id, host.peer_id());
    assert!(known.connected && known.last_seen_ms > 0);
    assert!(!known.addresses.is_empty());
    client.shutdown(soon()).await;
    until("the node sees it leave", || host.connected_peers() == 0).await;
    let gone = host.peers().remove(0);
    assert!(!gone.connected && gone.rtt.is_none() && gone.id == client.peer_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_peer_is_not_dialled_again() {
    let (host, _) = node_with(|config| config.limits.connections_per_peer = 1).await;
    let client = client().await;
    for _ in 0..5 {
        assert_eq!(client.connect(address(&host), LONG).await.unwrap(), host.peer_id());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_peer_id_is_a_clear_error() {
    let (host, _) = node().await;
    let other = PeerId::random();
    let wrong: Multiaddr = host.listen_addresses()[0]
        .to_string()
        .replace(&host.peer_id().to_string(), &other.to_string())
        .parse()
        .unwrap();
    let error = client().await.connect(wrong, LONG).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(
        error.message.contains(&other.to_string())
            && error.message.contains(&host.peer_id().to_string()),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_can_not_be_dialled_are_clear_errors() {
    let (host, _) = node().await;
    let client = client().await;
    // Bound and not listened on: no other program gets the port meanwhile, and none answers there.
    let unheard = tokio::net::TcpSocket::new_v4().unwrap();
    unheard.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refused = unheard.local_addr().unwrap().port();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let own = support::address(&host);
    for (host, address, code, says) in [
        (&client, format!("/ip4/127.0.0.1/tcp/{refused}"), Code::Unavailable, "connection refused"),
        (&client, format!("/ip4/127.0.0.1/tcp/{silent_port}"), Code::Unavailable, "within"),
        (
            &client,
            "/ip4/127.0.0.1/udp/1".into(),
            Code::InvalidArgument,
            "no address that can be dialled",
        ),
        (&client, "/ip4/127.0.0.1".into(), Code::InvalidArgument, "no address that can be dialled"),
        (
            &client,
            "/ip4/127.0.0.1/tcp/1/ws".into(),
            Code::InvalidArgument,
            "no address that can be dialled",
        ),
        (&client, "/memory/1".into(), Code::InvalidArgument, "no address that can be dialled"),
        (&client, String::new(), Code::InvalidArgument, "no address that can be dialled"),
        (&host, own.to_string(), Code::InvalidArgument, "this host itself"),
        (
            &host,
            own.iter().take(2).collect::<Multiaddr>().to_string(),
            Code::InvalidArgument,
            "this host itself",
        ),
    ] {
        let parsed: Multiaddr = address.parse().unwrap();
        let error = host.connect(parsed, Duration::from_millis(1500)).await.unwrap_err();
        assert_eq!(error.code, code, "{address}: {error}");
        assert!(error.message.contains(says), "{address}: {error}");
    }
    assert_serves(&host).await;
}

/// Lesson 31: a node whose port was taken said that it had started.
#[tokio::test(flavor = "multi_thread")]
async fn lesson_31_a_port_in_use_is_an_error_that_names_it() {
    let (host, _) = node_with(|config| config.listen.push(QUIC.parse().unwrap())).await;
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut taken: Vec<Multiaddr> = host
        .listen_addresses()
        .iter()
        .map(|address| address.iter().take_while(|part| part.tag() != "p2p").collect())
        .collect();
    taken.push(
        format!("/ip4/127.0.0.1/tcp/{}", plain.local_addr().unwrap().port()).parse().unwrap(),
    );
    taken.push(
        format!("/ip4/127.0.0.1/udp/{}/quic-v1", datagrams.local_addr().unwrap().port())
            .parse()
            .unwrap(),
    );
    for address in taken {
        let mut second = config(&[TCP]);
        second.listen.push(address.clone());
        match Host::start(second, Some(Arc::new(Shared(Arc::default())))).await {
            Err(error @ HostStartError::InUse { .. }) => {
                assert!(error.to_string().contains(&address.to_string()), "{error}")
            }
            other => panic!("{address}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_can_not_be_listened_on_are_errors_that_name_them() {
    for address in
        ["/dns4/example.org/tcp/1", "/ip4/127.0.0.1/udp/1", "/memory/1", "/ip4/192.0.2.1/tcp/0"]
    {
        let error = Host::start(config(&[address]), None).await.unwrap_err();
        assert!(error.to_string().contains(address), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_are_refused_and_room_comes_back() {
    let (host, _) = node_with(|config| config.max_connections = 2).await;
    let (first, first_channel) = connect(&host).await;
    let (_second, second_channel) = connect(&host).await;
    for _ in 0..20 {
        RawPeer::connect_as(&host, &Keypair::generate_ed25519(), Security::Noise)
            .await
            .err()
            .expect("refused");
    }
    assert_eq!(host.connected_peers(), 2);
    for channel in [&first_channel, &second_channel] {
        assert_eq!(value_of(channel.call(get("fine"), LONG).await.unwrap()), "fine");
    }
    first.shutdown(soon()).await;
    until("room", || host.connected_peers() == 1).await;
    assert_serves(&host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_gets_only_so_many_connections() {
    let (host, _) = node_with(|config| config.limits.connections_per_peer = 3).await;
    let key = Keypair::generate_ed25519();
    let connections =
        join_all((0..10).map(|_| RawPeer::connect_as(&host, &key, Security::Noise))).await;
    assert_eq!(connections.iter().filter(|connection| connection.is_ok()).count(), 3);
    assert_serves(&host).await;
    assert!(connections.into_iter().flatten().all(|connection| !connection.gone.is_cancelled()));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_never_shake_hands_leave_room_for_others() {
    use tokio::net::TcpSocket;
    let (host, _) = node_with(|config| config.limits.pending_connections = 20).await;
    let port = address(&host).iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let mut held = Vec::new();
    for _ in 0..100 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        held.push(socket.connect(([127, 0, 0, 1], port.unwrap()).into()).await.unwrap());
    }
    assert_serves(&host).await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_running_calls_end_and_refuses_new_ones() {
    let (host, node) = node().await;
    let (client, channel) = connect(&host).await;
    let call = |request| {
        let channel = channel.clone();
        tokio::spawn(async move { channel.call(request, LONG).await })
    };
    let running: Vec<_> = (0..10).map(|_| call(put("wait", "x"))).collect();
    let (_, mut events) = channel.open(subscribe("silent"), LONG).await.unwrap();
    node.until_waiting(10).await;

    let stopping = tokio::spawn({
        let host = host.clone();
        async move { host.shutdown(soon()).await }
    });
    // The subscription's end shows that the shutdown has begun.
    assert_eq!(events.next().await.unwrap().unwrap_err().code, Code::Unavailable);
    let error = channel.call(put("late", "x"), LONG).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error}");
    assert!(
        client.open(host.peer_id()).await.is_err() || channel.call(get("x"), LONG).await.is_err()
    );
    assert!(!stopping.is_finished());

    node.release.cancel();
    for call in running {
        call.await.unwrap().unwrap();
    }
    stopping.await.unwrap();
    channel.closed().await;
    assert_eq!(
        client.connect(address_without_listen(&host, &client), LONG).await.unwrap_err().code,
        Code::Unavailable
    );
    assert!(host.listen_addresses().is_empty());
    assert_eq!(
        host.connect(support::address(&support::node().await.0), LONG).await.unwrap_err().code,
        Code::Unavailable
    );
    host.shutdown(soon()).await;
}

/// Where the client reached a node that does not listen any more.
fn address_without_listen(host: &Host, client: &Host) -> Multiaddr {
    let known = client.peers().into_iter().find(|peer| peer.id == host.peer_id()).unwrap();
    known.addresses[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_writes_every_answer_to_its_end() {
    let (host, node) = node().await;
    let (_client, channel) = connect(&host).await;
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(get("wait"), LONG).await }
    });
    node.until_waiting(1).await;
    let large: Vec<_> = (0..4)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { channel.call(get(format!("size {}", 8 << 20)), LONG).await })
        })
        .collect();
    // Begins while answers are on their way.
    value_of(channel.call(get("sync"), LONG).await.unwrap());
    let stopping = tokio::spawn(async move { host.shutdown(soon()).await });
    node.release.cancel();
    waiting.await.unwrap().unwrap();
    for call in large {
        match call.await.unwrap() {
            Ok(answer) => assert_eq!(value_of(answer).len(), 8 << 20),
            // Asked after the shutdown had begun.
            Err(error) => assert!(error.message.contains("stopping"), "{error}"),
        }
    }
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_does_not_wait_past_its_deadline() {
    let (host, node) = node().await;
    let (_client, channel) = connect(&host).await;
    let write = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(put("wait", "x"), LONG).await }
    });
    node.until_waiting(1).await;
    host.shutdown(Instant::now() + Duration::from_millis(50)).await;
    assert_eq!(write.await.unwrap().unwrap_err().code, Code::UnknownOutcome);
    node.dropped.reaches(1).await;
    channel.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_host_breaks_its_connections() {
    let node = Arc::new(TestNode::default());
    let host = Host::start(config(&[TCP]), Some(Arc::new(Shared(node.clone())))).await.unwrap();
    let (client, channel) = connect(&host).await;
    let clone = host.clone();
    drop(host);
    assert_eq!(value_of(channel.call(get("k"), LONG).await.unwrap()), "k");
    drop(clone);
    channel.closed().await;
    until("the client sees it", || client.connected_peers() == 0).await;
}

/// A machine that loses its power says nothing: who waits for it must learn it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_went_without_a_word_is_noticed() {
    let (host, _) = node().await;
    let (through, cut) = support::proxy(&host, "127.0.0.1").await;
    let mut quick = config(&[]);
    quick.limits.ping_interval = Duration::from_millis(50);
    quick.limits.ping_timeout = Duration::from_secs(2);
    quick.limits.failed_pings = 1;
    let client = Host::start(quick, None).await.unwrap();
    let channel = client.open(client.connect(through, LONG).await.unwrap()).await.unwrap();
    assert_eq!(value_of(channel.call(get("k"), LONG).await.unwrap()), "k");
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(get("wait"), LONG * 10).await }
    });
    cut.cancel();
    channel.closed().await;
    assert_eq!(waiting.await.unwrap().unwrap_err().code, Code::Unavailable);
}
