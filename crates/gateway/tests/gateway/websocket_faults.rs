//! Frames that break RFC 6455: a close frame with the right code, and everything is freed.

use crate::pubsub::handshake;
use crate::setup::{Running, start, until};
use crate::websocket_client::{message, send, subscribe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const MASK: [u8; 4] = [1, 2, 3, 4];

/// A subscribed socket that sends any bytes.
async fn raw(gateway: &Running) -> TcpStream {
    let mut connection = gateway.connect().await;
    let answer = connection.request("GET", "/v1/pubsub/ws?topic=t", &handshake(), b"").await;
    assert_eq!(answer.status, 101);
    // The value for this key in RFC 6455, section 1.3.
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    connection.into_stream()
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The next frame from the gateway, which must be a short one: its first byte and payload.
async fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    assert!(head[1] < 126, "short and not masked");
    let mut payload = vec![0; head[1].into()];
    stream.read_exact(&mut payload).await.unwrap();
    (head[0], payload)
}

async fn refused(bytes: &[u8], code: u16) {
    let gateway = start().await;
    let mut stream = raw(&gateway).await;
    stream.write_all(bytes).await.unwrap();
    let (first, payload) = read_frame(&mut stream).await;
    assert_eq!((first, &payload[..2]), (0x88, &code.to_be_bytes()[..]), "{bytes:02x?}");
    until("it has left", || gateway.node.subscribers("one", "t") == 0).await;
    drop(stream);
    let mut next = subscribe(gateway.address(), "t").await;
    send(&mut next, "x").await;
    assert_eq!(message(&mut next).await, b"x");
}

#[tokio::test]
async fn unknown_opcodes_are_refused() {
    refused(&frame(0x83, b"x"), 1002).await;
    refused(&frame(0x8b, b"x"), 1002).await;
}

#[tokio::test]
async fn reserved_bits_are_refused() {
    refused(&frame(0xc2, b"x"), 1002).await;
}

#[tokio::test]
async fn frames_without_a_mask_are_refused() {
    refused(&[0x82, 1, b'x'], 1002).await;
}

#[tokio::test]
async fn control_frames_have_their_rules() {
    refused(&frame(0x09, b"in pieces"), 1002).await;
    refused(&frame(0x89, &[b'x'; 126]), 1002).await;
}

#[tokio::test]
async fn a_continuation_of_nothing_is_refused() {
    refused(&frame(0x80, b"x"), 1002).await;
    refused(&[frame(0x02, b"a"), frame(0x82, b"b")].concat(), 1002).await;
}

#[tokio::test]
async fn text_must_be_utf_8() {
    refused(&frame(0x81, b"\xff\xfe"), 1007).await;
}

#[tokio::test]
async fn an_announced_length_over_the_limit_is_refused_before_it_comes() {
    let mut head = vec![0x82, 0x80 | 127];
    head.extend_from_slice(&(1_u64 << 40).to_be_bytes());
    head.extend_from_slice(&MASK);
    refused(&head, 1009).await;
    refused(&frame(0x82, &vec![0; (1 << 20) + 1]), 1009).await;
    let pieces = [frame(0x02, &vec![0; 600 << 10]), frame(0x80, &vec![0; 600 << 10])].concat();
    refused(&pieces, 1009).await;
}

#[tokio::test]
async fn fragments_are_put_together_and_pings_between_them_answered() {
    let gateway = start().await;
    let mut stream = raw(&gateway).await;
    stream.write_all(&frame(0x01, "gr\u{fc}".as_bytes()[..3].into())).await.unwrap();
    stream.write_all(&frame(0x89, b"ping")).await.unwrap();
    assert_eq!(read_frame(&mut stream).await, (0x8a, b"ping".to_vec()));
    stream.write_all(&frame(0x80, &"gr\u{fc}n".as_bytes()[3..])).await.unwrap();
    assert_eq!(read_frame(&mut stream).await, (0x82, "gr\u{fc}n".as_bytes().to_vec()));
    stream.write_all(&frame(0x88, &1000_u16.to_be_bytes())).await.unwrap();
    assert_eq!(read_frame(&mut stream).await, (0x88, 1000_u16.to_be_bytes().to_vec()));
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "and the connection ends");
}

#[tokio::test]
async fn half_a_frame_holds_nobody_else() {
    let gateway = start().await;
    let mut half = raw(&gateway).await;
    half.write_all(&frame(0x82, b"never whole")[..8]).await.unwrap();
    let mut other = subscribe(gateway.address(), "t").await;
    send(&mut other, "x").await;
    assert_eq!(message(&mut other).await, b"x");
    assert_eq!(read_frame(&mut half).await, (0x82, b"x".to_vec()), "it still hears");
    drop(half);
    until("it has left", || gateway.node.subscribers("one", "t") == 1).await;
}
