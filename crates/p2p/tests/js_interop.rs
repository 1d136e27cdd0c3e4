//! A plain js-libp2p host connects to a node, pings it, reads its identify record and makes a call.
//!
//! Needs Node.js 20 or later with npm. The packages are pinned in `tests/js/package-lock.json` and
//! installed under the target folder; the first run downloads them.

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::{address, node};
use tokio::process::Command;

const INSTALL: &str = "install Node.js 20 or later with npm: this test runs js-libp2p";

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_js_libp2p_host_connects_pings_identifies_and_calls() {
    let folder = installed().await;
    let (host, _) = node().await;
    let script = Command::new("node")
        .arg("interop.mjs")
        .arg(address(&host).to_string())
        .current_dir(&folder)
        .output();
    let output = script.await.expect(INSTALL);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&errors);

    assert_eq!(seen["peer"], host.peer_id().to_string());
    assert_eq!(seen["encryption"], "/noise");
    assert_eq!(seen["multiplexer"], "/yamux/1.0.0");
    assert_eq!(seen["pinged"], true);
    assert_eq!(seen["agent"], "debros/test");
    assert_eq!(seen["protocolVersion"], "debros/1.0.0");
    for protocol in ["/debros/rpc/1.0.0", "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"] {
        assert!(
            seen["protocols"].as_array().unwrap().iter().any(|known| known == protocol),
            "{seen}"
        );
    }
    let listens = seen["listens"].as_array().unwrap();
    let expected: debros_p2p::Multiaddr = address(&host).iter().take(2).collect();
    assert!(
        listens.iter().any(|listen| listen.as_str().unwrap().starts_with(&expected.to_string())),
        "{seen}"
    );
    assert_eq!(seen["answer"], serde_json::json!(ANSWER), "{seen}");
}

/// The length, the id 1, then response (field 3), get (65), entry (1), and in it the value, which
/// the node of these tests takes from the key.
const ANSWER: [u8; 14] = [13, 0x08, 1, 0x1a, 9, 0x8a, 0x04, 6, 0x0a, 4, 0x0a, 2, b'j', b's'];

/// The folder with the script and its packages. Installed again when the pinned versions change.
async fn installed() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("js-interop");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["package.json", ".npmrc", "interop.mjs", "node20.mjs"] {
        std::fs::copy(source.join(name), folder.join(name)).unwrap();
    }
    let lock = std::fs::read(source.join("package-lock.json")).unwrap();
    // Written after a whole installation, so one that broke off is done again.
    let stamp = folder.join("installed-lock.json");
    if std::fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return folder;
    }
    std::fs::write(folder.join("package-lock.json"), &lock).unwrap();
    let npm = Command::new("npm").arg("ci").current_dir(&folder).stdin(Stdio::null()).output();
    let output = npm.await.expect(INSTALL);
    assert!(output.status.success(), "npm ci failed:\n{}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(stamp, lock).unwrap();
    folder
}
