//! What RFC 9110, 9112 and 6455 ask of requests and answers, on the wire.

use crate::http_client::Answer;
use crate::setup::{KEY, Running, start};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends a request as it stands and reads its answer.
async fn raw(gateway: &Running, request: &str) -> Answer {
    let mut connection = gateway.connect().await;
    connection.send(request).await;
    connection.answer(request.starts_with("HEAD")).await.expect("an answer")
}

/// All bytes that come for a request that closes its connection.
async fn bytes(gateway: &Running, request: &str) -> String {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    String::from_utf8_lossy(&all).to_ascii_lowercase()
}

#[tokio::test]
async fn a_request_names_one_host() {
    let gateway = start().await;
    for bad in ["", "Host: a\r\nHost: a\r\n", "Host: a/b\r\n", "Host: u@a\r\n", "Host: a,b\r\n"] {
        let answer = raw(&gateway, &format!("GET /health HTTP/1.1\r\n{bad}\r\n")).await;
        answer.assert_error(400, "malformed");
        assert_eq!(answer.header("connection"), Some("close"), "{bad:?}");
    }
    for good in ["Host: a\r\n", "Host: [::1]:8080\r\n", "Host:\r\n", "host: a.example:80\r\n"] {
        assert_eq!(
            raw(&gateway, &format!("GET /health HTTP/1.1\r\n{good}\r\n")).await.status,
            200,
            "{good:?}"
        );
    }
    assert_eq!(
        raw(&gateway, "GET /health HTTP/1.0\r\n\r\n").await.status,
        200,
        "HTTP/1.0 has no such header"
    );
    let absolute = "GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(raw(&gateway, absolute).await.status, 200);
}

/// The name of the machine is no protection when the request can name two: the one in the target
/// counts.
#[tokio::test]
async fn an_open_gateway_looks_at_the_host_of_the_target() {
    let gateway = crate::setup::start_with(|config| {
        config.require_auth = false;
        config.operator_credential = Some("op_good".into());
    })
    .await;
    let evil = "GET http://evil.example/v1/storage/list HTTP/1.1\r\nHost: localhost\r\n\r\n";
    raw(&gateway, evil).await.assert_error(403, "forbidden");
    let good = "GET http://localhost/v1/storage/list HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert_eq!(raw(&gateway, good).await.status, 200);
}

#[tokio::test]
async fn a_body_has_one_length_and_one_coding() {
    let gateway = start().await;
    let put = |more: &str, body: &str| {
        format!(
            "PUT /v1/storage?key=k HTTP/1.1\r\nHost: a\r\n{}: {}\r\n{more}\r\n{body}",
            KEY.0, KEY.1
        )
    };
    let chunks = "2\r\nab\r\n0\r\n\r\n";
    for (more, status, code) in [
        ("Transfer-Encoding: gzip, chunked\r\n", 501, "unimplemented"),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501, "unimplemented"),
        ("Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n", 415, "unsupported_media_type"),
        ("Transfer-Encoding: chunked\r\nExpect: 200-maybe\r\n", 417, "invalid_argument"),
    ] {
        raw(&gateway, &put(more, chunks)).await.assert_error(status, code);
    }
    for path in ["/v1/storage?key=k", "/v1/storage/put?key=k"] {
        let method = if path.contains("put") { "POST" } else { "PUT" };
        for encoding in ["gzip", "br", "identity, gzip", "deflate"] {
            let headers = [KEY, ("Content-Encoding", encoding)];
            let answer = gateway.request(method, path, &headers, "v").await;
            answer.assert_error(415, "unsupported_media_type");
        }
    }
    let json = [KEY, ("Content-Encoding", "gzip")];
    gateway
        .request("POST", "/v1/pubsub/publish", &json, "{}")
        .await
        .assert_error(415, "unsupported_media_type");
    assert!(gateway.node.value("one", "k").is_none(), "nothing was kept");
    // A program in front may read the other of two lengths.
    for both in [
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let answer = raw(&gateway, &put(both, chunks)).await;
        let is_last = answer.header("connection") == Some("close");
        assert!(is_last && matches!(answer.status, 201 | 400), "{both:?} {answer:?}");
    }
    let plain = [KEY, ("Content-Encoding", "identity"), ("Expect", "100-continue")];
    assert_eq!(gateway.request("PUT", "/v1/storage?key=k", &plain, "v").await.status, 201);
}

#[tokio::test]
async fn answers_without_a_body_have_no_length() {
    let gateway = start().await;
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k", "value").await.status, 201);
    let with = |line: &str, more: &str| {
        format!(
            "{line} HTTP/1.1\r\nHost: a\r\n{}: {}\r\n{more}Connection: close\r\n\r\n",
            KEY.0, KEY.1
        )
    };
    for (line, more, status) in [
        ("GET /v1/storage?key=k", "If-None-Match: *\r\n", "304"),
        ("HEAD /v1/storage?key=k", "If-None-Match: *\r\n", "304"),
        ("OPTIONS /v1/storage", "", "204"),
        ("OPTIONS *", "", "204"),
    ] {
        let answer = bytes(&gateway, &with(line, more)).await;
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{line}: {answer}");
        assert!(
            !answer.contains("content-length") && !answer.contains("transfer-encoding"),
            "{line}: {answer}"
        );
        assert!(answer.ends_with("\r\n\r\n"), "{line}: {answer}");
    }
    let head = bytes(&gateway, &with("HEAD /v1/storage?key=k", "")).await;
    assert!(head.contains("content-length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn another_version_of_websocket_is_told_ours() {
    let gateway = start().await;
    for version in ["Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 14\r\n", ""] {
        let answer = raw(
            &gateway,
            &format!(
                "GET /v1/pubsub/ws?topic=t HTTP/1.1\r\nHost: a\r\n{}: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{version}\r\n",
                KEY.0, KEY.1
            ),
        )
        .await;
        answer.assert_error(426, "invalid_argument");
        assert_eq!(
            (answer.header("sec-websocket-version"), answer.header("upgrade")),
            (Some("13"), Some("websocket"))
        );
    }
}

/// What strangers wrote goes out as what it is, and a browser runs none of it.
#[tokio::test]
async fn no_answer_is_guessed_to_be_a_page() {
    let gateway = start().await;
    let page = "<html><script>alert(1)</script>";
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k", page).await.status, 201);
    for path in [
        "/v1/storage?key=k",
        "/v1/storage/get?key=k",
        "/v1/storage/list",
        "/no/such",
        "/docs/",
        "/health",
    ] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    for (method, path) in [
        ("GET", "/v1/storage?key=k"),
        ("GET", "/v1/storage/get?key=k"),
        ("POST", "/v1/storage/get?key=k"),
    ] {
        let value = gateway.call(method, path, "").await;
        assert_eq!(value.header("content-type"), Some("application/octet-stream"), "{path}");
        assert_eq!(
            value.header("content-security-policy"),
            Some("default-src 'none'; sandbox"),
            "{path}"
        );
    }
}
