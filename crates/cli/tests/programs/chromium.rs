//! The whole sign-in with a real browser: `network-cli auth login` opens it, the wallet in it
//! signs, the command goes on.
//!
//! The browser is Chromium: `chromium` on the PATH, or the program that the variable `CHROMIUM`
//! names; it is driven by playwright-core with the wallet of the gateway's own tests. Without one
//! the test says that it was skipped.

use crate::support::person::Person;
use crate::support::terminal::OnTerminal;
use crate::support::wallet::Wallet;
use crate::support::{Node, PATIENCE, text_of};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped must not look like one that passed")]
fn the_command_line_signs_in_with_a_wallet_in_chromium() {
    let Some(chromium) = chromium() else {
        eprintln!("skipped: no Chromium (install it, or set CHROMIUM=/path/to/chromium)");
        return;
    };
    let scripts = installed();
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data/node1"));
    let person = Person::new(folder.path(), &node.peer());
    let wallet = Wallet::numbered(1);
    let told = folder.path().join("told");
    let screens = std::env::var("LOGIN_SCREENSHOTS").unwrap_or_default();
    let script = format!(
        "#!/bin/sh\ncd '{}' && exec node sign_in.mjs '{}' {} '{screens}' \"$1\" > '{}' 2>&1\n",
        scripts.display(),
        chromium.display(),
        wallet.key.to_hex().as_str(),
        told.display()
    );
    let browser = folder.path().join("browser");
    std::fs::write(&browser, script).unwrap();
    std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o755)).unwrap();

    let mut command = person.command(&["auth", "login", "--namespace", "my-app"]);
    command.env("BROWSER", &browser);
    let mut login = OnTerminal::spawn(command);
    let said = || std::fs::read_to_string(&told).unwrap_or_default();
    let ended = login.code();
    assert_eq!(ended, Some(0), "{}\n{}", login.screen(), said());
    let who = person.json(&["auth", "whoami"]);
    assert_eq!(
        (&who["wallet"], &who["namespace"]),
        (&wallet.address.as_str().into(), &"my-app".into()),
        "{who}"
    );
    person.text(&["storage", "put", "k", "v"]);
    assert_eq!(person.text(&["auth", "members", "list", "-f", "json"]).matches("owner").count(), 1);
    // The browser shows the last page and goes after the command.
    let started = std::time::Instant::now();
    while !said().contains("back: ") {
        assert!(started.elapsed() < PATIENCE, "{}", said());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    for expected in ["Signed in", "You can close this window", "back: no secret"] {
        assert!(said().contains(expected), "{expected} is not in {}", said());
    }
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

/// The folder with the scripts and their packages. Installed again when the pinned versions change.
fn installed() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let of_gateway = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/browser");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-login");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(tests.join("sign_in.mjs"), folder.join("sign_in.mjs")).unwrap();
    for name in ["package.json", ".npmrc", "wallet.mjs"] {
        std::fs::copy(of_gateway.join(name), folder.join(name)).unwrap();
    }
    let lock = std::fs::read(of_gateway.join("package-lock.json")).unwrap();
    // Written after a whole installation, so one that broke off is done again.
    let stamp = folder.join("installed-lock.json");
    if std::fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return folder;
    }
    std::fs::write(folder.join("package-lock.json"), &lock).unwrap();
    let output = Command::new("npm")
        .arg("ci")
        .current_dir(&folder)
        .output()
        .expect("npm, which this test needs");
    assert!(output.status.success(), "npm ci failed:\n{}", text_of(&output));
    std::fs::write(stamp, lock).unwrap();
    folder
}
