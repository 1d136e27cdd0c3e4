//! `network-node --dev`, as `make dev` starts it.

use crate::support::{Node, PATIENCE, Program, text_of, without_surroundings};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

struct Dev {
    program: Program,
    url: String,
    wallet: String,
    key: String,
}

impl Dev {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_network-node"));
        without_surroundings(&mut command);
        command.args(["--dev", "--p2p-port", "0", "--gateway-addr", "127.0.0.1:0"]);
        command.current_dir(folder).env("HOME", folder.join("home"));
        std::fs::create_dir_all(folder.join("home")).unwrap();
        let mut program = Program::start(&mut command);
        while !program.output().contains("Ctrl-C stops it") {
            assert!(program.is_running(), "{}", program.output());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let word_after = |label: &str| {
            let text = program.output();
            let line =
                text.lines().find(|line| line.trim_start().starts_with(label)).unwrap().to_owned();
            line.trim_start()[label.len()..].split_whitespace().next().unwrap().to_owned()
        };
        let (url, wallet, key) =
            (word_after("gateway "), word_after("wallet "), word_after("API key "));
        Self { program, url, wallet, key }
    }

    /// The commands that it prints, as they are pasted.
    fn commands(&self) -> Vec<String> {
        let output = self.program.output();
        let (_, rest) = output.split_once("In another terminal").unwrap();
        rest.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect()
    }

    fn stop(mut self) {
        self.program.signal("INT");
        assert!(self.program.wait(PATIENCE).unwrap().success());
    }
}

fn shell(folder: &Path, line: &str) -> Output {
    let mut command = Command::new("sh");
    without_surroundings(&mut command);
    command
        .args(["-c", line])
        .current_dir(folder)
        .env("HOME", folder.join("home"))
        .output()
        .unwrap()
}

#[test]
fn the_three_printed_commands_work_when_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    let commands = dev.commands();
    assert_eq!(commands.len(), 3, "{commands:?}");
    let answers: Vec<Output> = commands.iter().map(|line| shell(folder.path(), line)).collect();
    for (line, answer) in commands.iter().zip(&answers) {
        assert!(answer.status.success(), "{line}\n{}", text_of(answer));
    }
    assert!(text_of(&answers[0]).ends_with("Hello, network!"), "{}", text_of(&answers[0]));
    let sum: serde_json::Value = serde_json::from_slice(&answers[1].stdout).unwrap();
    assert_eq!(sum["rows"], serde_json::json!([[42]]));
    assert_eq!(answers[2].stdout, b"Hello, network!");
    dev.stop();
}

/// Nothing in the first minutes needs a browser wallet: one is made, signed in, and kept.
#[test]
fn a_development_wallet_is_made_signed_in_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let first = Dev::start(folder.path());
    let wallet = first.wallet.clone();
    assert!(wallet.starts_with("0x") && wallet.len() == 42, "{wallet}");
    let file = folder.path().join("data/dev/dev-wallet.key");
    let secret = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let cli = env!("CARGO_BIN_EXE_network-cli");
    let json = |line: &str| -> serde_json::Value {
        let output = shell(folder.path(), &format!("{cli} -f json {line}"));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{line}: {}", text_of(&output)))
    };
    let who = json("auth whoami");
    assert_eq!(
        (&who["wallet"], &who["namespace"]),
        (&wallet.as_str().into(), &"default".into()),
        "{who}"
    );
    let stored = json("auth wallets")["items"].take();
    assert_eq!(
        (stored.as_array().unwrap().len(), &stored[0]["has_session"]),
        (1, &true.into()),
        "{stored}"
    );
    assert_eq!(stored[0]["gateway_url"], first.url.as_str());
    let told = std::fs::read_to_string(folder.path().join("data/dev/gateway.url")).unwrap();
    assert_eq!(told.trim(), first.url);
    let output = first.program.output();
    assert!(
        !output.contains(secret.trim()) && !output.contains("rt_") && !output.contains("eyJ"),
        "{output}"
    );
    first.stop();
    assert!(!folder.path().join("data/dev/gateway.url").exists());
    let second = Dev::start(folder.path());
    assert_eq!(second.wallet, wallet);
    assert_eq!(json("auth wallets")["items"].as_array().unwrap().len(), 1);
    second.stop();
}

#[test]
fn only_development_makes_a_wallet() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    assert!(
        node.data_dir.join("operator.key").exists()
            && !node.data_dir.join("dev-wallet.key").exists()
    );
    let output = node.program.output();
    assert!(!output.contains("wallet"), "{output}");
}

#[test]
fn the_key_is_kept_and_replaced_only_when_it_is_not_valid_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let first = Dev::start(folder.path());
    assert!(first.url.starts_with("http://127.0.0.1:"));
    let key = first.key.clone();
    first.stop();
    let second = Dev::start(folder.path());
    assert_eq!(second.key, key);
    let cli = env!("CARGO_BIN_EXE_network-cli");
    let listed = shell(folder.path(), &format!("{cli} -f json auth keys list"));
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let keys = &listed["items"];
    assert_eq!(keys.as_array().unwrap().len(), 1, "{keys}");
    let revoked = shell(
        folder.path(),
        &format!("{cli} auth keys revoke {}", keys[0]["id"].as_str().unwrap()),
    );
    assert!(revoked.status.success(), "{}", text_of(&revoked));
    let refused = shell(folder.path(), &format!("{cli} storage list"));
    assert_eq!(refused.status.code(), Some(3), "{}", text_of(&refused));
    second.stop();
    let third = Dev::start(folder.path());
    assert_ne!(third.key, key);
    let listed = shell(folder.path(), &format!("{cli} storage list"));
    assert!(listed.status.success(), "{}", text_of(&listed));
    third.stop();
}

#[test]
fn what_is_for_development_stays_on_this_machine_unless_somebody_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let command = |listen: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_network-node"));
        without_surroundings(&mut command);
        command.args(["--dev", "--p2p-port", "0", "--gateway-addr", listen]);
        command.current_dir(folder.path()).env("HOME", folder.path());
        command
    };
    for listen in ["0.0.0.0:0", ":0", "[::]:0"] {
        let mut program = Program::start(&mut command(listen));
        assert_eq!(program.wait(PATIENCE).unwrap().code(), Some(2), "{listen}");
        let said = program.output();
        assert!(said.contains("--insecure-public") && said.contains("--gateway-addr"), "{said}");
    }
    // The flag is known. A server that others reach is not started in a test.
    let output =
        command("0.0.0.0:0").args(["--insecure-public", "--print-config"]).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
}
