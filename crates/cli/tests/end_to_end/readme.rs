//! What README shows works as it stands there.

use crate::support::wallet::Wallet;
use crate::support::{Node, text_of, without_surroundings};
use std::path::Path;
use std::process::Command;

#[test]
fn the_sign_in_works_as_the_readme_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md"))
            .unwrap();
    let (_, rest) = readme.split_once("## Sign in").unwrap();
    let (_, rest) = rest.split_once("```console\n").unwrap();
    let (commands, rest) = rest.split_once("```").unwrap();
    let (_, rest) = rest.split_once("```sh\n").unwrap();
    let (script, _) = rest.split_once("```").unwrap();
    std::fs::create_dir(folder.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(
        env!("CARGO_BIN_EXE_network-cli"),
        folder.path().join("bin/network-cli"),
    )
    .unwrap();
    // The commands: all but that which opens a browser. Who is asked for a password on a terminal
    // has it in the variable.
    let commands: Vec<String> = commands
        .lines()
        .filter(|line| !line.contains("# the wallet in the browser"))
        .map(|line| line.replace("0x…", &Wallet::numbered(1).address))
        .collect();
    assert_eq!(commands.len(), 5, "{commands:?}");
    let mut command = Command::new("sh");
    without_surroundings(&mut command);
    command
        .args(["-e", "-c", &commands.join("\n")])
        .env("DEBROS_KEYSTORE_PASSWORD", "a long password");
    command
        .env("DEBROS_BOOTSTRAP_PEERS", node.peer())
        .env("HOME", folder.path())
        .current_dir(folder.path());
    let output = command.output().unwrap();
    let said = text_of(&output);
    assert!(
        output.status.success() && said.contains("is reader now") && said.contains("my-app"),
        "{said}"
    );

    let mut command = Command::new("sh");
    without_surroundings(&mut command);
    command.args(["-e", "-c", script]).env("URL", format!("http://{}", node.address));
    let output = command.env("HOME", folder.path()).current_dir(folder.path()).output().unwrap();
    let said = text_of(&output);
    assert!(output.status.success(), "{said}");
    for part in [
        "\"authenticated\":true",
        "\"namespace\":\"my-site\"",
        "\"api_key\":\"ak_",
        "\"revoked\":1",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("\"error\""), "{said}");

    // What is secret lies where git does not look.
    let ignored =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.gitignore"))
            .unwrap();
    assert!(ignored.lines().any(|line| line == "/data"), "{ignored}");
    let mut left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.retain(|name| !["node", "bin", "data", ".debros"].iter().any(|known| name == known));
    assert!(left.is_empty(), "{left:?}");
}
