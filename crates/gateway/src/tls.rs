//! HTTPS from two files, which can be read again while they are served.

use crate::config::{GatewayStartError, TlsFiles};
use debros_proto::regular_file;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// The listener's certificate.
pub(crate) struct ReloadableTls {
    files: TlsFiles,
    acceptor: RwLock<TlsAcceptor>,
}

impl ReloadableTls {
    /// Reads the files. They are small and this happens once, before anything is served.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, GatewayStartError> {
        Ok(Self { acceptor: RwLock::new(load_acceptor(&files)?), files })
    }

    /// Reads the files again. Open connections keep their certificate; if reading fails, new ones
    /// get the old certificate too.
    pub(crate) fn reload(&self) -> Result<(), GatewayStartError> {
        let fresh = load_acceptor(&self.files)?;
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// The acceptor for the next connection.
    pub(crate) fn current_acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn load_acceptor(files: &TlsFiles) -> Result<TlsAcceptor, GatewayStartError> {
    let (certificate, private_key) = (&files.certificate, &files.private_key);
    for path in [certificate, private_key] {
        regular_file::metadata(path)
            .map_err(|error| tls_error(path, "it cannot be read", &error))?;
    }
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| tls_error(certificate, "it cannot be read as PEM", &error))?;
    if chain.is_empty() {
        return Err(GatewayStartError::Tls {
            path: certificate.clone(),
            reason: "it holds no certificate".to_owned(),
        });
    }
    // The key's own bytes are in no error of this library.
    let key = PrivateKeyDer::from_pem_file(private_key)
        .map_err(|error| tls_error(private_key, "no private key can be read from it", &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| tls_error(certificate, "TLS cannot be set up", &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| tls_error(certificate, "it does not go with the private key", &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn tls_error(path: &Path, what: &str, error: &dyn fmt::Display) -> GatewayStartError {
    GatewayStartError::Tls { path: path.to_owned(), reason: format!("{what} ({error})") }
}
