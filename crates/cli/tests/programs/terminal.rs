//! What is asked on a terminal, where somebody can answer.

use crate::support::person::Person;
use crate::support::terminal::OnTerminal;
use crate::support::{Node, PATIENCE, without_surroundings};
use nix::pty::openpty;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn a_command_that_needs_a_credential_offers_the_sign_in_in_the_browser() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data/node1"));
    let person = Person::new(folder.path(), &node.peer());
    for no in ["n\n", "no\n", "what?\n", "\u{4}"] {
        let mut command = OnTerminal::start(&person, &["storage", "list"]);
        command.shows("Sign in with a wallet in the browser now? [Y/n]");
        command.types(no);
        assert_eq!(command.code(), Some(3), "{no:?}");
        command.shows("DEBROS_API_KEY");
    }
    for yes in ["\n", "y\n", "Yes\n"] {
        let mut command = OnTerminal::start(&person, &["storage", "list", "-n", "shop"]);
        command.shows("[Y/n]");
        command.types(yes);
        command.shows(&format!("http://{}/v1/auth/login?callback=", node.address));
        command.shows("&namespace=shop");
    }
}

/// Who answers at once is not shown either: the terminal is silent before the question stands
/// there, and between the two questions. It takes nothing more when the program starts, so that the
/// question waits for the end of the silence's test.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_is_silent_before_it_asks_for_a_password() {
    const NONBLOCK_AND_NOCTTY: i32 = 0o4400;
    let folder = tempfile::tempdir().unwrap();
    let pty = openpty(None, None).unwrap();
    let side = format!("/proc/self/fd/{}", pty.slave.as_raw_fd());
    let mut filler =
        OpenOptions::new().write(true).custom_flags(NONBLOCK_AND_NOCTTY).open(side).unwrap();
    while filler.write(&[b'.'; 256]).is_ok() {}
    // The keys of a terminal reach the program that it controls.
    let mut command = Command::new("setsid");
    without_surroundings(&mut command);
    command.args([
        "--ctty",
        env!("CARGO_BIN_EXE_network-cli"),
        "auth",
        "wallet",
        "new",
        "--keystore",
        "wallet.json",
    ]);
    command.env("HOME", folder.path()).current_dir(folder.path());
    let mut terminal = OnTerminal::spawn_unread(command, pty);
    let started = Instant::now();
    while terminal.echoes() {
        assert!(
            started.elapsed() < PATIENCE,
            "the question is written while the terminal shows what is typed"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    terminal.read();
    terminal.shows("Password to protect");
    terminal.types("a secret\na secret\n");
    assert_eq!(terminal.code(), Some(0), "{}", terminal.screen());
    assert!(
        terminal.screen().contains("The same again: ") && !terminal.screen().contains("secret"),
        "{}",
        terminal.screen()
    );
    assert!(terminal.echoes(), "the terminal is as it was");
    assert!(folder.path().join("wallet.json").exists());
}
