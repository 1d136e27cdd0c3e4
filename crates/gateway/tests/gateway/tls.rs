//! HTTPS.

use crate::fake_node::FakeNode;
use crate::http_client::Http;
use crate::pubsub::handshake;
use crate::setup::config;
use debros_gateway::{Gateway, GatewayConfig, TlsFiles};
use rustls::pki_types::{CertificateDer, ServerName};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) fn make_files(folder: &Path) -> (TlsFiles, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files =
        TlsFiles { certificate: folder.join("cert.pem"), private_key: folder.join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.private_key, made.key_pair.serialize_pem()).unwrap();
    (files, made.cert.der().clone())
}

pub(crate) fn connector(
    trusted: CertificateDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(client))
}

fn with_files(files: TlsFiles) -> GatewayConfig {
    config(|config| config.tls = Some(files))
}

#[tokio::test]
async fn https_is_served_and_plain_http_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (files, certificate) = make_files(folder.path());
    let gateway = Gateway::start(with_files(files), FakeNode::new().client(), None).await.unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let socket = TcpStream::connect(gateway.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream =
            connector(certificate.clone(), &[version]).connect(name, socket).await.unwrap();
        let mut connection = Http::over(stream);
        assert_eq!(connection.request("GET", "/health", &[], b"").await.status, 200);
    }
    let mut plain = Http::connect(gateway.address()).await;
    plain.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut rest = Vec::new();
    use tokio::io::AsyncReadExt as _;
    let _ = plain.into_stream().read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP"), "no answer in the clear");
}

/// What TLS adds to each pong was taken for the beginning of a message, which then never ended.
#[tokio::test]
async fn a_websocket_over_tls_that_only_pings_stays_open() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let folder = tempfile::tempdir().unwrap();
    let (files, certificate) = make_files(folder.path());
    let mut config = with_files(files);
    config.limits.write_timeout = Duration::from_millis(200);
    let gateway = Gateway::start(config, FakeNode::new().client(), None).await.unwrap();
    let socket = TcpStream::connect(gateway.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream =
        connector(certificate, &[&rustls::version::TLS13]).connect(name, socket).await.unwrap();
    let mut connection = Http::over(stream);
    assert_eq!(
        connection.request("GET", "/v1/pubsub/ws?topic=t", &handshake(), b"").await.status,
        101
    );
    let mut stream = connection.into_stream();
    let mut pong = [0; 3];
    for _ in 0..400 {
        // A record each; the head is longer than it must be.
        stream.write_all(&[0x89, 0x80 | 126, 0, 1, 0, 0, 0, 0, b'p']).await.unwrap();
        stream.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [0x8a, 1, b'p']);
    }
    // More than the time that a message has to become whole: nothing is half.
    tokio::time::sleep(Duration::from_secs(1)).await;
    stream.write_all(&[0x89, 0x81, 0, 0, 0, 0, b'p']).await.unwrap();
    stream.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [0x8a, 1, b'p']);
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (files, first) = make_files(folder.path());
    let gateway =
        Gateway::start(with_files(files.clone()), FakeNode::new().client(), None).await.unwrap();
    let connect = async |trusted: &CertificateDer<'static>| {
        let socket = TcpStream::connect(gateway.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        connector(trusted.clone(), &[&rustls::version::TLS13]).connect(name, socket).await
    };
    let mut open = Http::over(connect(&first).await.unwrap());
    assert_eq!(open.request("GET", "/health", &[], b"").await.status, 200);

    // Half a renewal changes nothing.
    std::fs::write(&files.certificate, "nothing").unwrap();
    assert!(gateway.reload_certificate().unwrap_err().to_string().contains("cert.pem"));
    assert!(connect(&first).await.is_ok());

    let (_, second) = make_files(folder.path());
    assert!(gateway.reload_certificate().unwrap());
    assert!(connect(&first).await.is_err());
    let mut renewed = Http::over(connect(&second).await.unwrap());
    assert_eq!(renewed.request("GET", "/health", &[], b"").await.status, 200);
    assert_eq!(
        open.request("GET", "/health", &[], b"").await.status,
        200,
        "open connections continue"
    );
    let plain = Gateway::start(config(|_| {}), FakeNode::new().client(), None).await.unwrap();
    assert!(!plain.reload_certificate().unwrap());
}

#[tokio::test]
async fn files_that_can_not_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = make_files(folder.path());
    let (other, _) = {
        let second = folder.path().join("second");
        std::fs::create_dir(&second).unwrap();
        make_files(&second)
    };
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let missing = folder.path().join("missing.pem");
    let cases = [
        (TlsFiles { certificate: missing.clone(), ..files.clone() }, "missing.pem"),
        (TlsFiles { private_key: missing, ..files.clone() }, "missing.pem"),
        (TlsFiles { certificate: empty.clone(), ..files.clone() }, "empty.pem"),
        (TlsFiles { private_key: empty, ..files.clone() }, "empty.pem"),
        (TlsFiles { private_key: other.private_key, ..files.clone() }, "cert.pem"),
    ];
    for (files, named) in cases {
        let refusal = Gateway::start(with_files(files), FakeNode::new().client(), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(refusal.contains(named), "{refusal}");
        assert!(!refusal.contains("PRIVATE KEY"), "{refusal}");
    }
}
