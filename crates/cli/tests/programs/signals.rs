//! What SIGHUP, SIGUSR1 and SIGUSR2 do to the services, and what their logs report.

use crate::support::cli::Cli;
use crate::support::http::Http;
use crate::support::{Gateway, Node, PATIENCE, Program, without_surroundings};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Waits until something holds; the failure shows the program's output.
fn until(program: &mut Program, what: &str, holds: impl Fn(&str) -> bool) {
    let started = Instant::now();
    while !holds(&program.output()) {
        assert!(program.is_running(), "the program ended: {}", program.output());
        assert!(started.elapsed() < PATIENCE, "{what}: {}", program.output());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn a_hang_up_opens_the_log_file_again_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (log, moved) = (folder.path().join("node.log"), folder.path().join("node.log.1"));
    let data_dir = folder.path().join("node");
    let mut command = Node::command(&data_dir);
    let mut node = Node::start_by(command.env("DEBROS_LOGGING_OUTPUT_FILE", &log), &data_dir);
    // The node serves a moment before it says so.
    until(&mut node.program, "it is ready", |_| text_of(&log).contains(" ready "));
    std::fs::rename(&log, &moved).unwrap();
    node.program.signal("HUP");
    until(&mut node.program, "the log file is there again", |_| {
        text_of(&log).contains("the log file is open again")
    });
    assert!(text_of(&moved).contains("ready") && !text_of(&moved).contains("open again"));

    // What cannot be opened is logged, and what was open goes on.
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    node.program.signal("HUP");
    until(&mut node.program, "it is logged", |output| {
        output.contains("goes on in the file that was open")
    });
    // No reader of a pipe is waited for.
    std::fs::remove_dir(&log).unwrap();
    assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
    node.program.signal("HUP");
    until(&mut node.program, "the pipe is logged", |output| output.contains("it is a named pipe"));
    assert!(!node.program.output().contains("os error"), "{}", node.program.output());
    for signal in ["USR1", "USR2", "USR1"] {
        node.program.signal(signal);
    }
    let http = node.http("shop");
    http.put_value("k", "v").await.ok();
    assert_eq!(http.get_value("k").await.ok().text(), "v");
    node.stop();
    let mut command = Node::command(&data_dir);
    let refused = command.env("DEBROS_LOGGING_OUTPUT_FILE", &log).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("it is a named pipe"), "{told}");
}

#[test]
fn a_separate_gateway_is_not_ended_by_a_hang_up_either() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("gateway.log");
    let node = Node::start(&folder.path().join("node"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_network-gateway"));
    without_surroundings(&mut command);
    command
        .args(["--addr", "127.0.0.1:0", "--bootstrap-peers", &node.peer()])
        .env("GATEWAY_LOG_OUTPUT_FILE", &log);
    let mut gateway = Gateway::start_by(&mut command);
    std::fs::remove_file(&log).unwrap();
    for signal in ["USR1", "USR2", "HUP"] {
        gateway.program.signal(signal);
    }
    until(&mut gateway.program, "the log file is there again", |_| {
        text_of(&log).contains("the log file is open again")
    });
    gateway.program.signal("TERM");
    assert!(gateway.program.wait(PATIENCE).expect("it ends").success());
}

/// Both ends of a terminal. No program that is started meanwhile keeps them open.
#[cfg(target_os = "linux")]
fn terminal() -> (nix::pty::PtyMaster, std::fs::File) {
    use nix::fcntl::OFlag;
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::pty::posix_openpt(OFlag::O_RDWR | flags).unwrap();
    nix::pty::grantpt(&master).unwrap();
    nix::pty::unlockpt(&master).unwrap();
    let name = nix::pty::ptsname_r(&master).unwrap();
    let slave = std::fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(flags.bits())
        .open(name)
        .unwrap();
    (master, slave)
}

/// Somebody closes the window in which a node runs: nothing is lost, and no line for the terminal
/// that is gone is in the way.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_that_is_gone_is_an_orderly_stop() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("node.log");
    let node = Node::command(&folder.path().join("node"));
    let (master, slave) = terminal();
    // As a shell's window does it: a session with the terminal as its own. Under nohup the tests
    // ignore the signal, and would pass that on.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", "setsid", "--ctty"]);
    command.arg(node.get_program()).args(node.get_args());
    for (name, value) in node.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("DEBROS_LOGGING_OUTPUT_FILE", &log);
    let end = || Stdio::from(slave.try_clone().unwrap());
    command.stdin(end()).stdout(end()).stderr(end());
    let mut child = command.spawn().expect("env of coreutils, setsid of util-linux");
    drop((command, slave));
    let started = Instant::now();
    while !text_of(&log).contains(" ready ") {
        assert!(started.elapsed() < PATIENCE, "{}", text_of(&log));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(master);
    let status = child.wait().unwrap();
    let told = text_of(&log);
    assert!(status.success(), "{status}: {told}");
    assert!(
        told.contains("the terminal is gone") && told.contains("the node has stopped"),
        "{told}"
    );
}

#[tokio::test]
async fn the_log_tells_of_changes_and_at_debug_of_each_served_call() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("node");
    let mut node = Node::start_by(Node::command(&data_dir).env("LOG_LEVEL", "debug"), &data_dir);
    let key = node.api_key("shop");
    let http = Http::new(node.address, &key);
    http.put_value("k", "v").await.ok();
    http.get_value("none").await.fails(404, "not_found");
    let cli = Cli::new(&node, &key, folder.path());
    cli.bytes(&["storage", "exists", "k"], b"");
    let made = cli.json(&["auth", "keys", "create", "--name", "ci"]);
    cli.bytes(&["auth", "keys", "revoke", made["id"].as_str().unwrap()], b"");
    let mut backup = Command::new(env!("CARGO_BIN_EXE_network-cli"));
    without_surroundings(&mut backup);
    let backup = backup
        .args(["db", "backup"])
        .env("HOME", folder.path())
        .env("DEBROS_NODE_DATA_DIR", &data_dir);
    assert!(backup.output().unwrap().status.success());

    let is_told = |output: &str, parts: &[&str]| {
        output.lines().any(|line| parts.iter().all(|part| line.contains(part)))
    };
    for parts in [
        &[
            "DEBUG",
            "answered",
            "method=PUT",
            "route=\"/v1/storage\"",
            "status=201",
            "ms=",
            "request_id=",
            "shop",
        ][..],
        &["DEBUG", "answered", "method=GET", "route=\"/v1/storage\"", "status=404", "shop"],
        &[
            "DEBUG",
            "answered",
            "call=\"exists\"",
            "status=\"ok\"",
            "ms=",
            "namespace=\"shop\"",
            "peer=",
        ],
        &["INFO", "an API key was made", "namespace=\"shop\"", "role=\"admin\""],
        &["INFO", "an API key was revoked", made["id"].as_str().unwrap()],
        &["INFO", "a backup was made and verified", "by=\"operator\""],
    ] {
        until(&mut node.program, &format!("{parts:?}"), |output| is_told(output, parts));
    }
    let output = node.program.output();
    for secret in [key.as_str(), made["api_key"].as_str().unwrap()] {
        assert!(!output.contains(secret.split(':').next().unwrap()), "a key stands in the log");
    }
    node.stop();
}
