//! What nodes of a cluster need besides: rqlited, and ports that stay theirs.

use super::text_of;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// The rqlited of this project, which is fetched where it is not there yet.
pub fn rqlited() -> PathBuf {
    static FETCHED: OnceLock<PathBuf> = OnceLock::new();
    let fetch = || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let output = Command::new(root.join("scripts/fetch-rqlited")).output().unwrap();
        assert!(output.status.success(), "{}", text_of(&output));
        root.join(".tools/rqlited").canonicalize().unwrap()
    };
    FETCHED.get_or_init(fetch).clone()
}

/// A port for a server that ends and wants it back: outside of the range from which the system
/// gives connections theirs, and given once by this process.
pub fn free_port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    if *next == 0 {
        // Far from those of another process, whose number may be the next one.
        *next = 10_000 + (std::process::id() % 499 * 40) as u16;
    }
    loop {
        *next += 1;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, *next)).is_ok() {
            return *next;
        }
    }
}
