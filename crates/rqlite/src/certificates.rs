//! What members of a cluster share with rqlite, all of it made from the cluster key.
//!
//! The authority is a function of the key: two nodes that know the key make the same one, byte by
//! byte, without asking each other. Every node signs a certificate for itself. Who does not know
//! the key can neither make a certificate nor find one that he is believed.

use debros_proto::durable_file::{self, FileReaders};
use debros_proto::hex;
use hkdf::Hkdf;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, SerialNumber,
    date_time_ymd,
};
use sha2::Sha256;
use std::io;
use std::path::{Path, PathBuf};

/// The name that every node's certificate carries, and that every node asks for: the address of a
/// node may change, and says nothing about whether it is a member.
pub const SERVER_NAME: &str = "rqlite.debros";

/// Files and name for mutual TLS on rqlite's Raft port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftTls {
    /// The node's certificate, PEM.
    pub certificate: PathBuf,
    /// The node's private key, PEM.
    pub key: PathBuf,
    /// The certificate of the authority that both sides must be signed by, PEM.
    pub authority: PathBuf,
    /// The name to expect in the other side's certificate; `None` expects the dialled address.
    pub server_name: Option<String>,
}

/// Why no certificates were made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A name or address cannot stand in a certificate.
    #[error("make a certificate for the Raft port: {0}")]
    Make(#[from] rcgen::Error),
    /// A file cannot be written.
    #[error("write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Writes the authority's certificate, and a new key and certificate of this node, into `folder`.
/// `names` are further host names and IP addresses that the certificate is for, beside
/// [`SERVER_NAME`].
///
/// # Errors
/// For a name that is none, and for files that cannot be written.
pub fn write(
    cluster_key: &[u8; 32],
    names: &[String],
    folder: &Path,
) -> Result<RaftTls, CertificateError> {
    let (authority, authority_key) = authority(cluster_key)?;
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut all_names = vec![SERVER_NAME.to_owned()];
    all_names.extend_from_slice(names);
    let mut params = CertificateParams::new(all_names)?;
    params.distinguished_name = named("DeBros node");
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    lasting(&mut params);
    let certificate = params.signed_by(&key, &authority, &authority_key)?;

    let put = |name: &str, content: String| {
        let path = folder.join(name);
        match durable_file::replace(&path, content.as_bytes(), FileReaders::Owner) {
            Ok(()) => Ok(path),
            Err(source) => Err(CertificateError::Write { path, source }),
        }
    };
    Ok(RaftTls {
        authority: put("raft-authority.pem", authority.pem())?,
        key: put("raft-key.pem", key.serialize_pem())?,
        certificate: put("raft-certificate.pem", certificate.pem())?,
        server_name: Some(SERVER_NAME.to_owned()),
    })
}

/// The password that the rqlited of each member knows the others by; see
/// [`RqlitedConfig::join_password`](crate::RqlitedConfig::join_password).
pub fn join_password(cluster_key: &[u8; 32]) -> String {
    hex::encode(&derive(cluster_key, b"debros rqlite join password 1"))
}

/// The certificate of the cluster's authority, PEM: the same on every node.
///
/// # Errors
/// When the certificate cannot be encoded.
pub fn authority_pem(cluster_key: &[u8; 32]) -> Result<String, CertificateError> {
    Ok(authority(cluster_key)?.0.pem())
}

fn authority(cluster_key: &[u8; 32]) -> Result<(Certificate, KeyPair), rcgen::Error> {
    let seed = derive(cluster_key, b"debros rqlite raft authority 1");
    let key = ed25519_from_seed(&seed)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named("DeBros cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    // Whatever is chosen here by chance or by the clock would make two nodes' authorities differ.
    params.serial_number = Some(SerialNumber::from(1));
    lasting(&mut params);
    // Signatures of Ed25519 have no randomness in them either.
    let certificate = params.self_signed(&key)?;
    Ok((certificate, key))
}

/// The key lives as long as the cluster key, which is what is changed when somebody must go. A date
/// would only be one more way to stop a cluster; clocks that are wrong must not.
fn lasting(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn ed25519_from_seed(seed: &[u8; 32]) -> Result<KeyPair, rcgen::Error> {
    // PKCS #8 (RFC 8410) of a key that is its seed alone.
    let mut der = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    der.extend_from_slice(seed);
    let pem = rcgen_pem(&der);
    KeyPair::from_pem(&pem)
}

/// The key as PEM: the only form that `rcgen` reads without a type of another crate.
fn rcgen_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    // 48 bytes are 64 characters: one line.
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

fn derive(cluster_key: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let mut derived = [0; 32];
    let expanded = Hkdf::<Sha256>::new(None, cluster_key).expand(purpose, &mut derived);
    debug_assert!(expanded.is_ok(), "32 bytes are far below HKDF's limit");
    derived
}

#[cfg(test)]
mod tests {
    use super::{authority_pem, join_password, write};
    use debros_proto::durable_file::exposed_mode;
    use std::fs;

    #[test]
    fn two_nodes_make_the_same_authority_and_another_key_makes_another() {
        let mine = authority_pem(&[7; 32]).unwrap();
        assert_eq!(mine, authority_pem(&[7; 32]).unwrap());
        assert_ne!(mine, authority_pem(&[8; 32]).unwrap());
        assert_eq!(join_password(&[7; 32]), join_password(&[7; 32]));
        assert_ne!(join_password(&[7; 32]), join_password(&[8; 32]));
    }

    #[test]
    fn files_are_their_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let tls = write(&[7; 32], &["10.0.0.1".to_owned()], dir.path()).unwrap();
        for file in [&tls.certificate, &tls.key, &tls.authority] {
            assert_eq!(exposed_mode(&fs::metadata(file).unwrap()), None, "{}", file.display());
        }
        assert_eq!(fs::read_to_string(&tls.authority).unwrap(), authority_pem(&[7; 32]).unwrap());
    }
}
