//! What can be wrong with the surroundings of a node: it does not start, and says what, where, and
//! what to do.

use crate::support::{Node, PATIENCE, Program, text_of};
use serde_json::json;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Starts a node that must refuse, and returns what it says.
#[track_caller]
fn refusal(command: &mut Command) -> String {
    let mut program = Program::start(command);
    let status =
        program.wait(PATIENCE).unwrap_or_else(|| panic!("it started:\n{}", program.output()));
    // The threads that read its output end a moment after it.
    let mut said = program.output();
    while said.is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(2));
        said = program.output();
    }
    assert!(!status.success(), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[track_caller]
fn assert_names(said: &str, what: &[&str]) {
    for word in what {
        assert!(said.to_lowercase().contains(&word.to_lowercase()), "no \"{word}\" in: {said}");
    }
}

#[test]
fn a_second_node_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("node");
    let mut first = Node::start(&data_dir);
    let said = refusal(&mut Node::command(&data_dir));
    assert_names(&said, &[data_dir.to_str().unwrap(), "another"]);
    assert!(first.program.is_running());
    // The first one's peer.info still leads to it.
    first.api_key("a");
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();

    let mut gateway = Node::command(&folder.path().join("gateway"));
    gateway.args(["--gateway-addr", &format!("127.0.0.1:{port}")]);
    assert_names(&refusal(&mut gateway), &[&format!("127.0.0.1:{port}"), "in use"]);

    let mut p2p = Node::command(&folder.path().join("p2p"));
    p2p.args(["--p2p-port", &port.to_string()]);
    assert_names(&refusal(&mut p2p), &[&port.to_string(), "in use"]);
}

#[test]
fn a_data_folder_that_can_not_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("node");
    assert_names(&refusal(&mut Node::command(&below)), &[below.to_str().unwrap()]);

    let data_dir = folder.path().join("read-only");
    std::fs::create_dir(&data_dir).unwrap();
    if let Some(mut command) = read_only(&data_dir) {
        assert_names(&refusal(&mut command), &[data_dir.to_str().unwrap()]);
    }
    // A folder that was used and is read-only now.
    let used = folder.path().join("used");
    Node::start(&used).stop();
    if let Some(mut command) = read_only(&used) {
        assert_names(&refusal(&mut command), &[used.to_str().unwrap()]);
    }
}

/// The command that starts a node on a folder made read-only. The superuser may write everywhere,
/// so for it the folder is mounted read-only, where the system allows that; `None` where it does
/// not.
fn read_only(folder: &Path) -> Option<Command> {
    for entry in std::iter::once(folder.to_owned()).chain(entries(folder)) {
        let mode = if entry.is_dir() { 0o500 } else { 0o400 };
        std::fs::set_permissions(entry, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let command = Node::command(folder);
    if std::fs::write(folder.join("probe"), "").is_err() {
        return Some(command);
    }
    std::fs::remove_file(folder.join("probe")).unwrap();
    let mount = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0""#;
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(folder);
        command
    };
    if !unshare(mount).output().is_ok_and(|output| output.status.success()) {
        #[allow(
            clippy::print_stderr,
            reason = "whoever runs the tests has to know what was not tested"
        )]
        {
            eprintln!("no read-only folder can be made here: that part is left out");
        }
        return None;
    }
    let mut mounted = unshare(&format!(r#"{mount} && exec "$@""#));
    mounted.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => mounted.env(name, value),
            None => mounted.env_remove(name),
        };
    }
    Some(mounted)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            found.extend(entries(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

/// The node's database files.
fn databases(data_dir: &Path) -> Vec<PathBuf> {
    let mut files = entries(&data_dir.join("db"));
    files.retain(|path| {
        path.is_file() && std::fs::read(path).unwrap().starts_with(b"SQLite format 3\0")
    });
    assert!(!files.is_empty());
    files
}

#[tokio::test]
async fn a_corrupted_database_file_is_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("node");
    let node = Node::start(&data_dir);
    let http = node.http("a");
    http.create("CREATE TABLE t (v TEXT)").await;
    http.query("INSERT INTO t VALUES ('x')", json!([])).await.ok();
    http.put_value("k", "v").await.ok();
    let key = node.api_key("a");
    node.stop();

    let mut refused = 0;
    for path in databases(&data_dir) {
        let sound = std::fs::read(&path).unwrap();
        let mut damaged = sound.clone();
        damaged[..100].fill(0xAB);
        std::fs::write(&path, &damaged).unwrap();
        let mut program = Program::start(&mut Node::command(&data_dir));
        if program.ends_or_listens() {
            let status = program.wait(PATIENCE).expect("it has ended");
            let said = program.output();
            assert!(!status.success());
            assert_names(&said, &[path.file_name().unwrap().to_str().unwrap(), "damaged"]);
            refused += 1;
        } else {
            // A namespace's own file hurts that namespace only, and is named where the operator
            // looks.
            drop(program);
            let node = Node::start(&data_dir);
            let http = crate::support::http::Http::new(node.address, &key);
            http.query("SELECT v FROM t", json!([])).await.fails(500, "database_corrupt");
            http.get_value("k").await.ok();
            node.http("b").query("SELECT 1", json!([])).await.ok();
            assert_names(&node.program.output(), &[path.file_name().unwrap().to_str().unwrap()]);
            node.stop();
        }
        assert!(std::fs::read(&path).unwrap() == damaged, "{} was changed", path.display());
        std::fs::write(&path, &sound).unwrap();
    }
    assert!(refused > 0, "a node without its own database started");
    let node = Node::start(&data_dir);
    assert_eq!(
        crate::support::http::Http::new(node.address, &key).get_value("k").await.ok().body,
        b"v"
    );
}

/// Lesson 34: a damaged identity was replaced by a new one without a word, and the node was lost to
/// everybody who knew it.
#[test]
fn lesson_34_a_corrupt_identity_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("node");
    let node = Node::start(&data_dir);
    let peer = node.peer();
    node.stop();
    let path = data_dir.join("identity.key");
    let sound = std::fs::read(&path).unwrap();
    let cut = &sound[..sound.len() / 2];
    let mut flipped = sound.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [b"".as_slice(), b"garbage", cut, &flipped] {
        std::fs::write(&path, damaged).unwrap();
        assert_names(&refusal(&mut Node::command(&data_dir)), &[path.to_str().unwrap()]);
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "the file was changed");
    }
    std::fs::write(&path, &sound).unwrap();
    let id = |peer: &str| peer.rsplit_once("/p2p/").unwrap().1.to_owned();
    assert_eq!(id(&Node::start(&data_dir).peer()), id(&peer), "the same identity as before");
}

#[test]
fn a_wrong_setting_is_named_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("node.yaml");
    std::fs::write(&config, "node:\n  type: bootstrap\n  max_conections: 5\n").unwrap();
    let mut command = Node::command(&folder.path().join("node"));
    let output = command.arg("--config").arg(&config).output().unwrap();
    assert!(!output.status.success());
    assert_names(&text_of(&output), &["max_conections", "node.yaml", "3"]);
    assert!(!folder.path().join("node").exists());
}
