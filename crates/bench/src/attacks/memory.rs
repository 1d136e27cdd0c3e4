//! Attacks on the node's memory: everything that a caller can make it keep.

use super::attacker::{Attacker, open_many};
use anyhow::{Context as _, Result};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper::{Request, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt as _;

/// The largest value that a key may have.
const VALUE: usize = 4 << 20;
/// The largest message of a WebSocket.
const MESSAGE: usize = 1 << 20;
/// The most that a ping may carry.
const PING: usize = 125;
/// Connections with half a head: 240 MB, if the node keeps all of them.
pub(crate) const HEADS: usize = 4000;

/// One WebSocket sends pings as fast as it can, and reads none of the pongs.
pub(crate) async fn ping_on_one_socket(attacker: Attacker) -> Result<()> {
    send_pings(attacker, 1).await
}

/// Fifty of them.
pub(crate) async fn ping_on_fifty_sockets(attacker: Attacker) -> Result<()> {
    send_pings(attacker, 50).await
}

async fn send_pings(attacker: Attacker, sockets: usize) -> Result<()> {
    let pings = client_frame(0x9, PING, PING).repeat(512);
    for _ in 0..sockets {
        let Some(socket) = attacker.websocket().await else { continue };
        let (one, pings) = (attacker.clone(), pings.clone());
        attacker.spawn(async move {
            let mut stream = socket.into_inner();
            while one.write_or_hold(&mut stream, &pings).await {
                one.tally.add("pings sent", 512);
            }
        });
    }
    Ok(())
}

/// Messages of 1 MiB that lack their last byte.
pub(crate) async fn leave_messages_unfinished(attacker: Attacker) -> Result<()> {
    let unfinished = client_frame(0x2, MESSAGE, MESSAGE - 1);
    open_many(500, async || {
        let Some(socket) = attacker.websocket().await else { return };
        let (one, unfinished) = (attacker.clone(), unfinished.clone());
        attacker.spawn(async move {
            let mut stream = socket.into_inner();
            if one.write_or_hold(&mut stream, &unfinished).await {
                one.tally.count("messages half-sent");
                one.hold_socket(&stream).await;
            }
        });
    })
    .await;
    Ok(())
}

/// A client's frame: `declared` bytes are promised and `sent` of them follow. The mask is 0.
fn client_frame(opcode: u8, declared: usize, sent: usize) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(declared) {
        Ok(short) if short < 126 => frame.push(0x80 | short),
        _ => {
            frame.push(0x80 | 127);
            frame.extend((declared as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(std::iter::repeat_n(b'x', sent));
    frame
}

/// An HTTP/2 connection that lets the node send nothing, and 250 GETs of a large value on it.
pub(crate) async fn read_nothing_over_http2(attacker: Attacker) -> Result<()> {
    attacker.put("large", &vec![b'x'; VALUE]).await?;
    let stream = attacker.connect().await?;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(TokioIo::new(stream))
        .await
        .context("begin HTTP/2")?;
    let ended = attacker.tally.clone();
    attacker.spawn(async move {
        let _ = connection.await;
        ended.count("ended by the node");
    });
    for _ in 0..250 {
        let request = Request::get(format!("http://{}/v1/storage?key=large", attacker.gateway))
            .header(header::AUTHORIZATION, format!("Bearer {}", attacker.key))
            .body(Empty::<bytes::Bytes>::new())?;
        if sender.ready().await.is_err() {
            break;
        }
        let answer = sender.send_request(request);
        let tally = attacker.tally.clone();
        attacker.spawn(async move {
            match answer.await {
                Ok(answer) => {
                    tally.count(format!("answers begun: {}", answer.status().as_u16()));
                    // The body is held, and never read.
                    std::future::pending::<()>().await;
                    drop(answer);
                }
                Err(_) => tally.count("answers that did not begin"),
            }
        });
    }
    attacker.spawn(async move {
        std::future::pending::<()>().await;
        drop(sender);
    });
    Ok(())
}

/// HTTP/1.1 connections with many GETs of a large value in one go, of which no answer is read.
pub(crate) async fn read_nothing_over_http1(attacker: Attacker) -> Result<()> {
    attacker.put("large", &vec![b'x'; VALUE]).await?;
    let requests =
        format!("{}\r\n", attacker.request_head("GET", "/v1/storage?key=large")).repeat(64);
    open_many(250, async || {
        let Ok(mut stream) = attacker.connect().await else {
            attacker.tally.count("connections refused");
            return;
        };
        let (one, requests) = (attacker.clone(), requests.clone());
        attacker.spawn(async move {
            if one.write_or_hold(&mut stream, requests.as_bytes()).await {
                one.tally.add("requests sent", 64);
                one.hold_socket(&stream).await;
            }
        });
    })
    .await;
    Ok(())
}

/// Bodies of 4 MiB that lack their last byte: half of them with a valid key, half with one that
/// does not exist.
pub(crate) async fn stall_bodies(attacker: Attacker) -> Result<()> {
    let unknown = Attacker { key: unknown_key(&attacker.key), ..attacker.clone() };
    for number in 0..200 {
        let caller = if number % 2 == 0 { &attacker } else { &unknown }.clone();
        let Ok(mut stream) = attacker.connect().await else {
            attacker.tally.count("connections refused");
            continue;
        };
        attacker.spawn(async move {
            let head = caller.request_head("PUT", &format!("/v1/storage?key=stalled-{number}"));
            let mut bytes = format!("{head}Content-Length: {VALUE}\r\n\r\n").into_bytes();
            bytes.resize(bytes.len() + VALUE - 1, b'x');
            if caller.write_or_hold(&mut stream, &bytes).await {
                drop(bytes);
                caller.tally.count("bodies half-sent");
                caller.hold_socket(&stream).await;
            }
        });
    }
    Ok(())
}

/// A key of the same form that does not exist: its last character is another one.
fn unknown_key(key: &str) -> String {
    let (rest, last) = key.split_at(key.len() - 1);
    format!("{rest}{}", if last == "A" { "B" } else { "A" })
}

/// Heads of nearly the 64 KiB that a gateway reads, without their end, of callers that have not
/// shown a credential.
pub(crate) async fn leave_heads_unfinished(attacker: Attacker) -> Result<()> {
    let head = format!(
        "GET /v1/storage?key=k HTTP/1.1\r\nHost: bench\r\nX-Filler: {}",
        "x".repeat(60 << 10)
    );
    open_many(attacker.scale_count(HEADS), async || {
        let Ok(mut stream) = attacker.connect().await else {
            attacker.tally.count("connections refused");
            return;
        };
        let (one, head) = (attacker.clone(), head.clone());
        attacker.spawn(async move {
            match stream.write_all(head.as_bytes()).await {
                Ok(()) => one.tally.count("heads half-sent"),
                Err(_) => one.tally.count("heads refused"),
            }
            one.hold_socket(&stream).await;
        });
    })
    .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{client_frame, unknown_key};

    #[test]
    fn frames_are_those_of_a_client() {
        assert_eq!(client_frame(0x9, 2, 2), [0x89, 0x82, 0, 0, 0, 0, b'x', b'x']);
        let unfinished = client_frame(0x2, 1 << 20, (1 << 20) - 1);
        assert_eq!(unfinished[..10], [0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(unfinished.len(), 14 + (1 << 20) - 1);
    }

    #[test]
    fn an_unknown_key_has_the_form_of_a_known_one() {
        assert_eq!(unknown_key("ak_abc"), "ak_abA");
        assert_eq!(unknown_key("ak_abA"), "ak_abB");
    }
}
