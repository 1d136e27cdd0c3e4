//! Lesson 10: what a caller without a credential may cost.

use crate::fake_auth::{NONCE, WALLET};
use crate::http_client::{Answer, Http, request};
use crate::setup::{Running, start, start_with};
use debros_gateway::GatewayConfig;
use serde_json::json;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

const HOUR: Duration = Duration::from_secs(3600);

/// Nothing comes back during a test.
fn slow(config: &mut GatewayConfig) {
    config.limits.sign_in_period = HOUR;
    config.limits.wallet_period = HOUR;
}

fn wallet(number: usize) -> String {
    format!("0x{number:040x}")
}

fn challenge(number: usize) -> String {
    json!({"wallet": wallet(number)}).to_string()
}

async fn ask(gateway: &Running, headers: &[(&str, &str)], number: usize) -> Answer {
    gateway.request("POST", "/v1/auth/challenge", headers, challenge(number)).await
}

/// A connection from another address of this machine: all of 127.0.0.0/8 is.
async fn from(address: [u8; 4], gateway: &Running) -> Http<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    Http::over(socket.connect(gateway.address()).await.unwrap())
}

/// Acceptance: 10,000 challenges from one address are limited, and others are served.
#[tokio::test]
async fn lesson_10_ten_thousand_challenges_of_one_address_are_limited_and_others_served() {
    let gateway = start_with(slow).await;
    let mut connection = gateway.connect().await;
    let mut passed = 0;
    for number in 0..10_000 {
        let body = challenge(number);
        let answer = connection.request("POST", "/v1/auth/challenge", &[], body.as_bytes()).await;
        match answer.status {
            200 => passed += 1,
            _ => {
                let message = answer.assert_error(429, "rate_limited");
                assert!(message.contains("from this address"), "{message}");
                let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                assert!((1..=3600).contains(&wait), "{wait}");
            }
        }
    }
    assert_eq!(passed, 30);
    assert_eq!(gateway.node.seen.lock().unwrap().len(), 30, "the node hears nothing of the others");
    if cfg!(target_os = "linux") {
        let mut other = from([127, 0, 0, 9], &gateway).await;
        let answer =
            other.request("POST", "/v1/auth/challenge", &[], challenge(1).as_bytes()).await;
        assert_eq!(answer.status, 200);
    }
    // What needs a credential is not limited by this.
    assert_eq!(gateway.get("/v1/storage/list").await.status, 200);
}

#[tokio::test]
async fn lesson_10_all_public_auth_routes_share_the_limit() {
    let gateway = start_with(|config| {
        slow(config);
        config.limits.sign_in_burst = 6.try_into().unwrap();
    })
    .await;
    let paths = ["challenge", "verify", "register", "refresh", "logout", "api-key"];
    for path in paths {
        let answer = gateway.request("POST", &format!("/v1/auth/{path}"), &[], "{}").await;
        assert!(matches!(answer.status, 400 | 401), "{path}: {}", answer.status);
    }
    for path in paths {
        let answer = gateway.request("POST", &format!("/v1/auth/{path}"), &[], "{}").await;
        answer.assert_error(429, "rate_limited");
    }
}

#[tokio::test]
async fn lesson_10_one_wallet_is_limited_for_each_address_and_its_owner_is_not_locked_out() {
    let gateway = start_with(|config| {
        slow(config);
        config.limits.sign_in_burst = 1000.try_into().unwrap();
    })
    .await;
    let checksummed = "0x52908400098527886E0F7030069857D2E4169EE7";
    for (round, form) in
        [WALLET, checksummed, &WALLET[2..]].into_iter().cycle().take(10).enumerate()
    {
        let (path, body) = match round % 2 {
            0 => ("challenge", json!({"wallet": form})),
            _ => ("verify", json!({"wallet": form, "nonce": NONCE, "signature": "0x11"})),
        };
        let answer =
            gateway.request("POST", &format!("/v1/auth/{path}"), &[], body.to_string()).await;
        assert_eq!(answer.status, 200);
    }
    let body = json!({"wallet": WALLET, "nonce": NONCE, "signature": "0x11"}).to_string();
    for path in ["verify", "register", "api-key"] {
        let answer = gateway.request("POST", &format!("/v1/auth/{path}"), &[], &body).await;
        assert!(answer.assert_error(429, "rate_limited").contains("for this wallet"));
    }
    assert_eq!(ask(&gateway, &[], 1).await.status, 200, "another wallet");
    if cfg!(target_os = "linux") {
        let mut owner = from([127, 0, 0, 9], &gateway).await;
        let answer = owner.request("POST", "/v1/auth/verify", &[], body.as_bytes()).await;
        assert_eq!(answer.status, 200, "knowing a wallet's address must not lock its owner out");
    }
}

/// Lesson 10: X-Forwarded-For was believed from everyone, so that a caller could be anyone.
#[tokio::test]
async fn lesson_10_forwarded_addresses_are_believed_from_named_proxies_alone() {
    let one = |config: &mut GatewayConfig| {
        slow(config);
        config.limits.sign_in_burst = 1.try_into().unwrap();
    };
    let open = start_with(one).await;
    assert_eq!(ask(&open, &[("X-Forwarded-For", "203.0.113.1")], 1).await.status, 200);
    ask(&open, &[("X-Forwarded-For", "203.0.113.2")], 2).await.assert_error(429, "rate_limited");
    ask(&open, &[("Forwarded", "for=203.0.113.3")], 3).await.assert_error(429, "rate_limited");

    let behind = start_with(|config| {
        one(config);
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    assert_eq!(ask(&behind, &[("X-Forwarded-For", "203.0.113.1")], 1).await.status, 200);
    assert_eq!(ask(&behind, &[("X-Forwarded-For", "203.0.113.2")], 2).await.status, 200);
    let forged = [("X-Forwarded-For", "198.51.100.7, 203.0.113.2")];
    ask(&behind, &forged, 3).await.assert_error(429, "rate_limited");
    let both = [("X-Forwarded-For", "203.0.113.8"), ("Forwarded", "for=203.0.113.9")];
    ask(&behind, &both, 4).await.assert_error(400, "invalid_argument");
}

#[tokio::test]
async fn bodies_of_the_auth_routes_are_small() {
    let gateway = start().await;
    let large = format!("{{\"wallet\":\"{}\"}}", "a".repeat(70_000));
    for path in ["challenge", "verify", "refresh", "logout", "api-key"] {
        let answer = gateway.request("POST", &format!("/v1/auth/{path}"), &[], &large).await;
        answer.assert_error(413, "too_large");
    }
    let member = gateway.post("/v1/namespaces/one/members", &large).await;
    member.assert_error(413, "too_large");
    // Announced and never sent, in chunks without an end, and with heads of every size.
    let head = "POST /v1/auth/challenge HTTP/1.1\r\nHost: localhost\r\n";
    let mut announced = gateway.connect().await;
    announced
        .send(format!("{head}Content-Length: 999999999\r\nExpect: 100-continue\r\n\r\n"))
        .await;
    announced.answer(false).await.unwrap().assert_error(413, "too_large");
    let mut chunked = gateway.connect().await;
    chunked.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n")).await;
    for _ in 0..70 {
        chunked.try_send(format!("400\r\n{}\r\n", " ".repeat(1024))).await;
    }
    chunked.try_send("0\r\n\r\n").await;
    chunked.answer(false).await.unwrap().assert_error(413, "too_large");
    for flood in ["X: y\r\n".repeat(200), format!("X: {}\r\n", "y".repeat(100_000))] {
        let mut connection = gateway.connect().await;
        connection.try_send(format!("{head}{flood}\r\n")).await;
        if let Some(answer) = connection.answer(false).await {
            assert_eq!(answer.status, 431);
        }
    }
    assert_eq!(ask(&gateway, &[], 1).await.status, 200);
}

/// A flood of requests over one connection is answered in order, and the connection stays good.
#[tokio::test]
async fn a_refused_request_leaves_the_connection_usable() {
    let gateway = start_with(|config| {
        slow(config);
        config.limits.sign_in_burst = 1.try_into().unwrap();
    })
    .await;
    let mut connection = gateway.connect().await;
    for number in 0..20 {
        connection
            .send(request("POST", "/v1/auth/challenge", &[], challenge(number).as_bytes()))
            .await;
    }
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(connection.answer(false).await.expect("an answer").status);
    }
    assert_eq!((statuses[0], &statuses[1..]), (200, &[429; 19][..]));
}

/// A connection whose request's body is still to come cannot continue; it must not end silently.
#[tokio::test]
async fn a_refusal_before_the_body_has_come_says_that_the_connection_ends() {
    let gateway = start_with(|config| {
        slow(config);
        config.limits.sign_in_burst = 1.try_into().unwrap();
    })
    .await;
    assert_eq!(ask(&gateway, &[], 1).await.status, 200);
    for head in ["Content-Length: 20", "Content-Length: 999999999", "Transfer-Encoding: chunked"] {
        let mut connection = gateway.connect().await;
        connection
            .send(format!("POST /v1/auth/challenge HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n"))
            .await;
        let answer = connection.answer(false).await.unwrap();
        answer.assert_error(429, "rate_limited");
        assert_eq!(answer.header("connection"), Some("close"), "{head}");
    }
}
