//! What an open WebSocket costs that does nothing. A program of its own, because it measures the whole process.

use debros_gateway::Gateway;
use debros_testkit::TestNode;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// Sockets that are open before the measuring begins: what is made once is there then.
const WARM: usize = 100;
const SOCKETS: usize = 300;
/// Bytes of memory for each.
const AT_MOST: usize = 10 << 10;

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Opens WebSockets with the system's own sockets, which take no memory of this process.
fn open(address: SocketAddr, key: &str, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            let head = format!(
                "GET /v1/pubsub/ws?topic=idle HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = [0; 512];
            let length = stream.read(&mut answer).unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
            stream
        })
        .collect()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_websocket_costs_little() {
    let node = TestNode::start().await;
    let key = node.api_key("app").await;
    let gateway: Gateway = node.gateway().await;
    let address = gateway.address();
    let open_more = |count| {
        let key = key.clone();
        async move { tokio::task::spawn_blocking(move || open(address, &key, count)).await.unwrap() }
    };
    let _warm = open_more(WARM).await;
    let before = resident();
    let _sockets = open_more(SOCKETS).await;
    let each = resident().saturating_sub(before) / SOCKETS;
    println!("{each} bytes for each idle WebSocket");
    assert!(each <= AT_MOST, "{each} bytes for each idle WebSocket");
}
