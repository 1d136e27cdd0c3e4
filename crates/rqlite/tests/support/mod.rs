//! A real rqlited, and addresses for it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The project's rqlited, which is fetched where it is not there yet.
pub(crate) fn program() -> PathBuf {
    static FETCHED: OnceLock<PathBuf> = OnceLock::new();
    let fetched = FETCHED.get_or_init(|| {
        if std::env::var_os("RUST_LOG").is_some() {
            let _ = tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .with_test_writer()
                .try_init();
        }
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let program = project.join(".tools/rqlited");
        if !program.exists() {
            let status = Command::new(project.join("scripts/fetch-rqlited")).status().unwrap();
            assert!(status.success(), "scripts/fetch-rqlited");
        }
        program
    });
    fetched.clone()
}

/// An address that nothing else is given. A port of 127.0.0.1 that is free now may be another
/// test's, or a connection's, when it is used: each call takes one of the loopback network's sixteen
/// million addresses, at random.
pub(crate) fn own_address() -> SocketAddr {
    let [a, b, c, ..] = RandomState::new().build_hasher().finish().to_be_bytes();
    let ip = IpAddr::from(Ipv4Addr::new(127, a | 1, b, c));
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}
