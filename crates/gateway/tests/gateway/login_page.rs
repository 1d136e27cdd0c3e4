//! The sign-in page: what is served, to whom it is refused, and how it works in a real browser.
//!
//! The browser is Chromium: `chromium` on the PATH, or the program that the variable `CHROMIUM`
//! names. It is driven by playwright-core with Node.js 20 or later; the packages are pinned in
//! `tests/browser/package-lock.json` and installed under the target folder. Without Chromium that
//! part is skipped, and says so. `LOGIN_SCREENSHOTS=<folder>` keeps pictures of every state of the
//! page.

use crate::http_client::Answer;
use crate::setup::{Running, start};
use debros_auth::PrivateKey;
use debros_testkit::TestNode;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const INSTALL: &str = "install Node.js 20 or later with npm: this test drives a browser";

async fn login(gateway: &Running, query: &str) -> Answer {
    gateway.request("GET", &format!("/v1/auth/login{query}"), &[], "").await
}

#[track_caller]
fn assert_guarded(answer: &Answer) {
    let policy = answer.header("content-security-policy").unwrap();
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn the_page_and_its_files_come_from_the_program_alone() {
    let gateway = start().await;
    let page =
        login(&gateway, "?callback=http%3A%2F%2F127.0.0.1%3A8765%2Fcb&state=abc&namespace=my-app")
            .await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_guarded(&page);
    let text = String::from_utf8(page.body).unwrap();
    assert!(!text.contains("8765") && !text.contains("my-app"), "the same bytes for everyone");
    assert!(
        !text.contains("http://") && !text.contains("https://") && !text.contains("<script>"),
        "{text}"
    );
    assert!(!text.contains("style=") && !text.contains("onclick"), "{text}");
    for (file, content_type) in [
        ("page.css", "text/css; charset=utf-8"),
        ("page.js", "text/javascript; charset=utf-8"),
        ("wallets.js", "text/javascript; charset=utf-8"),
        ("gateway.js", "text/javascript; charset=utf-8"),
        ("failure.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = login(&gateway, &format!("/{file}")).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(content_type)),
            "{file}"
        );
        assert_guarded(&answer);
        let text = String::from_utf8(answer.body).unwrap();
        assert!(
            !text.contains("innerHTML") && !text.contains("eval(") && !text.contains("https://"),
            "{file}"
        );
    }
    login(&gateway, "/other.js").await.assert_error(404, "not_found");
    login(&gateway, "/..%2fpage.html").await.assert_error(404, "not_found");
}

/// Lesson 8: what a link held was printed into the page's script, and the key went wherever the
/// link said.
#[tokio::test]
async fn lesson_08_hostile_links_get_an_error_page_that_repeats_nothing() {
    let gateway = start().await;
    for hostile in [
        "?callback=https%3A%2F%2Fevil.example&state=a",
        "?callback=%27%3Balert(1)%2F%2F&state=a",
        "?callback=javascript%3Aalert(1)&state=a",
        "?callback=http%3A%2F%2F127.0.0.1%3A80%40evil.example%2F&state=a",
        "?callback=http%3A%2F%2F127.0.0.1%3A80%2F%0d%0aSet-Cookie%3Aevil%3D1&state=a",
        "?callback=http%3A%2F%2F127.0.0.1%3A80%2F",
        "?callback=http%3A%2F%2F127.0.0.1%3A80%2F&state=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "?callback=http%3A%2F%2F127.0.0.1%3A80%2F&callback=https%3A%2F%2Fevil.example&state=a",
        "?namespace=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E",
        "?namespace=evil.example",
        "?redirect=https%3A%2F%2Fevil.example",
        "?%3Cscript%3E=1",
    ] {
        let answer = login(&gateway, hostile).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (400, Some("text/html; charset=utf-8")),
            "{hostile}"
        );
        assert_guarded(&answer);
        assert!(answer.header("location").is_none() && answer.header("set-cookie").is_none());
        let text = String::from_utf8(answer.body).unwrap();
        assert!(
            !text.contains("evil") && !text.contains("alert(1)") && !text.contains("<script"),
            "{text}"
        );
        assert!(text.contains("role=\"alert\"") && !text.contains("{reason}"), "{text}");
    }
}

/// Lesson 9: a page that does not know where it is would have people sign for somewhere else.
#[tokio::test]
async fn lesson_09_the_page_is_not_served_under_a_foreign_name() {
    let gateway = start().await;
    let mut connection = gateway.connect().await;
    connection.send("GET /v1/auth/login HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    let answer = connection.answer(false).await.unwrap();
    assert_eq!(answer.status, 400);
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("GATEWAY_PUBLIC_URL") && !text.contains("evil"), "{text}");
}

/// Acceptance, and lesson 8: sign-in, refusals, changes, and hostile links, wallets and namespaces
/// in a real browser.
#[tokio::test(flavor = "multi_thread")]
async fn lesson_08_the_page_signs_in_and_withstands_attacks_in_chromium() {
    let Some(chromium) = chromium() else {
        skipped();
        return;
    };
    let folder = installed().await;
    let node = TestNode::start().await;
    let gateway = node
        .gateway_with(|config| {
            // One address and one wallet do here what many do elsewhere.
            config.limits.sign_in_burst = 10_000.try_into().unwrap();
            config.limits.wallet_burst = 10_000.try_into().unwrap();
        })
        .await;
    let slow = node
        .gateway_with(|config| {
            config.limits.sign_in_burst = 1.try_into().unwrap();
            config.limits.sign_in_period = Duration::from_secs(600);
        })
        .await;
    let keys =
        [1_u8, 2].map(|number| PrivateKey::from_bytes(&[number; 32]).unwrap().to_hex().to_string());
    let argument = json!({
        "chromium": chromium,
        "gateway": format!("http://{}", gateway.address()),
        "slow": format!("http://{}", slow.address()),
        "keys": keys,
        "screens": std::env::var_os("LOGIN_SCREENSHOTS").map(PathBuf::from),
    });
    let mut script = Command::new("node");
    script.arg("login.mjs").arg(argument.to_string()).current_dir(&folder).kill_on_drop(true);
    let output = script.output().await.expect(INSTALL);
    let (told, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{errors}");
    assert!(told.lines().count() >= 18, "{told}");
}

/// A test that is skipped must not look like one that passed.
#[allow(clippy::print_stderr)]
fn skipped() {
    eprintln!("skipped: no Chromium (install it, or set CHROMIUM=/path/to/chromium)");
}

fn chromium() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file())
}

/// The folder with the script and its packages. Installed again when the pinned versions change.
async fn installed() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("login-page");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["package.json", ".npmrc", "login.mjs", "wallet.mjs"] {
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
