//! What an open WebSocket costs that does nothing. A program of its own, because it measures the
//! whole process.

use debros_gateway::Gateway;
use debros_testkit::TestNode;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// Sockets that are open before the measuring begins: what is made once is there then.
const WARM: usize = 100;
const SOCKETS: usize = 300;
/// Bytes of a message.
const MESSAGE: usize = 256 << 10;
/// Bytes of memory for each.
const AT_MOST: usize = 10 << 10;

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Sends a message of its own topic over each socket and reads it there.
fn use_once(streams: &mut [TcpStream]) {
    let mut frame = vec![0x82, 0x80 | 127];
    frame.extend((MESSAGE as u64).to_be_bytes());
    frame.extend([0; 4]);
    frame.resize(frame.len() + MESSAGE, 7);
    for stream in streams {
        stream.write_all(&frame).unwrap();
        let mut read = 0;
        let mut bytes = vec![0; 64 << 10];
        while read < MESSAGE {
            let length = stream.read(&mut bytes).unwrap();
            assert!(length > 0, "it is open");
            read += length;
        }
    }
}

/// Opens WebSockets with the system's own sockets, which take no memory of this process.
fn open(address: SocketAddr, key: &str, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            let head = format!(
                "GET /v1/pubsub/ws?topic=idle{number} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nUpgrade: websocket\r\n\
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
    let mut warm = open_more(WARM).await;
    let before = resident();
    let mut sockets = open_more(SOCKETS).await;
    let each = resident().saturating_sub(before) / SOCKETS;
    assert!(each <= AT_MOST, "{each} bytes for each idle WebSocket");

    // The same when they have been used: what a large message took is given back.
    let used = tokio::task::spawn_blocking(move || {
        use_once(&mut warm);
        let before = resident();
        use_once(&mut sockets);
        resident().saturating_sub(before) / SOCKETS
    });
    let each = used.await.unwrap();
    // A buffer that is kept has the whole message. The allocator keeps some megabytes for all of
    // them, by chance.
    assert!(each <= MESSAGE / 2, "{each} bytes are left of each message");
}
