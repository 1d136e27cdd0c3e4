//! HTTPS.

use crate::fake_node::FakeNode;
use crate::http_client::Http;
use crate::setup::config;
use debros_gateway::{Gateway, GatewayConfig, TlsFiles};
use rustls::pki_types::{CertificateDer, ServerName};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

fn make_files(folder: &Path) -> (TlsFiles, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificate: folder.join("cert.pem"), private_key: folder.join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.private_key, made.key_pair.serialize_pem()).unwrap();
    (files, made.cert.der().clone())
}

fn connector(trusted: CertificateDer<'static>, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsConnector {
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
        let stream = connector(certificate.clone(), &[version]).connect(name, socket).await.unwrap();
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

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (files, first) = make_files(folder.path());
    let gateway = Gateway::start(with_files(files.clone()), FakeNode::new().client(), None).await.unwrap();
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
    assert_eq!(open.request("GET", "/health", &[], b"").await.status, 200, "what is open goes on");
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
        let refusal = Gateway::start(with_files(files), FakeNode::new().client(), None).await.unwrap_err().to_string();
        assert!(refusal.contains(named), "{refusal}");
        assert!(!refusal.contains("PRIVATE KEY"), "{refusal}");
    }
}
