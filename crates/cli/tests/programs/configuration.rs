//! Files, variables and flags of the real programs.

use crate::support::{Node, PATIENCE, Program, text_of, without_surroundings};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn node(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_network-node"));
    without_surroundings(&mut command);
    command.current_dir(folder);
    command
}

fn printed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/printed").join(name)
}

fn configs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name)
}

fn refused(mut command: Command) -> String {
    let output: Output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text_of(&output));
    assert!(output.stdout.is_empty(), "{}", text_of(&output));
    text_of(&output)
}

/// The line that a node logs when it is ready.
fn wait_ready(program: &mut Program) -> String {
    loop {
        if let Some(line) = program.output().lines().find(|line| line.contains(" ready peer_id=")) {
            return line.to_owned();
        }
        assert!(program.is_running(), "{}", program.output());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Where tests listen, so that they run beside each other and beside a node of the person who runs
/// them.
const LISTEN: (&str, &str) = ("DEBROS_NODE_LISTEN_ADDRESSES", "/ip4/127.0.0.1/tcp/0");

/// The source document's files start a node as they stand. Only where it listens is set from
/// outside.
#[test]
fn the_printed_files_start_a_node_and_say_what_is_in_effect() {
    for (name, lines) in [("bootstrap.yaml", 2), ("node.yaml", 4)] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = node(folder.path());
        command.arg("--config").arg(printed(name)).env(LISTEN.0, LISTEN.1);
        let mut program = Program::start(&mut command);
        let ready = wait_ready(&mut program);
        assert!(ready.contains("gateway=\"off\""), "{ready}");
        let warnings = program.output().lines().filter(|line| line.contains(" WARN ")).count();
        assert_eq!(warnings, lines, "{}", program.output());
        program.signal("TERM");
        assert!(program.wait(PATIENCE).unwrap().success());
    }
}

/// Two nodes from the printed files share `./data/db`, as the files say: the second one says what
/// to change.
#[test]
fn a_second_node_from_the_printed_files_is_told_which_setting_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = node(folder.path());
    first.arg("--config").arg(printed("bootstrap.yaml")).env(LISTEN.0, LISTEN.1);
    let mut first = Program::start(&mut first);
    wait_ready(&mut first);
    let mut second = node(folder.path());
    second.arg("--config").arg(printed("node.yaml")).env(LISTEN.0, LISTEN.1);
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text_of(&output));
    let text = text_of(&output);
    for part in
        ["in use", "database.data_dir is ./data/db", "node.yaml:9", "DEBROS_DATABASE_DATA_DIR"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn our_own_files_are_accepted_without_a_notice() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["bootstrap.yaml", "node.yaml", "node2.yaml", "node3.yaml"] {
        let output = node(folder.path())
            .arg("--config")
            .arg(configs(name))
            .arg("--print-config")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text_of(&output));
        let sources = debros_cli::config::ConfigSources {
            file: Some(debros_cli::config::ConfigFile::read(&configs(name), true).unwrap()),
            ..Default::default()
        };
        let settings = debros_cli::config::NodeSettings::load(&sources, None).unwrap();
        assert!(settings.notices().is_empty(), "{name}: {:?}", settings.notices());
    }
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_network-gateway"));
    without_surroundings(&mut gateway);
    let output = gateway
        .arg("--config")
        .arg(configs("gateway.yaml"))
        .arg("--print-config")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
}

/// The reference is written from the table: `UPDATE_REFERENCE=1 cargo test -p debros-cli` writes it
/// again.
#[test]
fn the_reference_in_configs_is_that_of_the_programs() {
    let path = configs("README.md");
    let expected = debros_cli::config::render_reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        found, expected,
        "configs/README.md is not that of the program: run this with UPDATE_REFERENCE=1"
    );
}

/// Lesson 30: flags and files that did nothing. What a process really uses comes from flag,
/// variable, file, default.
#[test]
fn lesson_30_print_config_shows_the_values_and_where_each_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("n.yaml"),
        "node:\n  id: from-file\n  data_dir: ./file\n  max_connections: 7\n",
    )
    .unwrap();
    let mut command = node(folder.path());
    command.args([
        "--config",
        "n.yaml",
        "--data-dir",
        "./flag",
        "--adv-addr",
        "10.0.0.1",
        "--print-config",
    ]);
    command
        .env("DEBROS_NODE_DATA_DIR", "./env")
        .env("DEBROS_NODE_MAX_CONNECTIONS", "9")
        .env("LOG_LEVEL", "debug");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
    assert!(std::fs::read_dir(folder.path()).unwrap().count() == 1, "printing makes no folders");
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let with = |text: &str| {
        std::fs::write(folder.path().join("n.yaml"), text).unwrap();
        let mut command = node(folder.path());
        command.args(["--config", "n.yaml"]);
        refused(command)
    };
    assert!(
        with("node:\n  idd: x\n")
            .contains("n.yaml:2: node.idd is not a setting; did you mean node.id?")
    );
    assert!(with("node:\n  disable_anonrc: false\n").contains("Anyone is not in this version"));
    assert!(with("node: [").contains("n.yaml:1: is not YAML"));
    assert!(with("\u{0}\u{1}\u{2}").contains("n.yaml:1"));
    std::fs::write(folder.path().join("n.yaml"), [0xff, 0xfe, b'a']).unwrap();
    let mut command = node(folder.path());
    command.args(["--config", "n.yaml"]);
    assert!(refused(command).contains("n.yaml: cannot be read"));
    std::fs::write(folder.path().join("n.yaml"), vec![b'#'; 2 << 20]).unwrap();
    let mut command = node(folder.path());
    command.args(["--config", "n.yaml"]);
    assert!(refused(command).contains("at most"));
    for (arguments, expected) in [
        (&["--config", "missing.yaml"][..], "missing.yaml: cannot be read"),
        (
            &["--disable-anonrc=false"],
            "flag --disable-anonrc: node.disable_anonrc: false cannot be used yet",
        ),
        (&["--p2p-port", "99999"], "--p2p-port: \"99999\" is out of range"),
        (
            &["--gateway-addr", "8080"],
            "gateway.listen_addr: \"8080\" is not an address to listen on",
        ),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let mut command = node(folder.path());
        command.args(arguments);
        let said = refused(command);
        assert!(said.contains(expected), "{expected} in\n{said}");
    }
    assert!(!folder.path().join("data").exists());
}

/// Lesson 31: a node that could not start said that it had, and went on. It ends with exit code 1
/// and says what to do.
#[test]
fn lesson_31_a_node_that_can_not_start_ends_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let in_use = |arguments: &[&str]| {
        let output =
            node(folder.path()).env("HOME", folder.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text_of(&output));
        assert!(!text_of(&output).contains(" ready "), "{}", text_of(&output));
        text_of(&output)
    };
    let port = port.to_string();
    let said = in_use(&["--dev", "--gateway-addr", "127.0.0.1:0", "--p2p-port", &port]);
    assert!(said.contains(&port) && said.contains("make dev P2P_PORT="), "{said}");
    let address = format!("127.0.0.1:{port}");
    let said = in_use(&["--dev", "--p2p-port", "0", "--gateway-addr", &address]);
    assert!(said.contains(&address) && said.contains("make dev GATEWAY_PORT="), "{said}");
    let said = in_use(&["--data-dir", "/proc/no-such-folder", "--p2p-port", "0"]);
    assert!(said.contains("/proc/no-such-folder") && said.contains("--data-dir"), "{said}");
}

#[test]
fn the_log_goes_to_its_file_too_as_json_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = node(folder.path());
    command.env("DEBROS_LOGGING_FORMAT", "json").env("DEBROS_LOGGING_OUTPUT_FILE", "node.log");
    command.env(LISTEN.0, LISTEN.1);
    let mut program = Program::start(&mut command);
    while !program.output().contains("\"ready\"") {
        assert!(program.is_running(), "{}", program.output());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    program.signal("INT");
    assert!(program.wait(PATIENCE).unwrap().success());
    let log = std::fs::read_to_string(folder.path().join("node.log")).unwrap();
    let messages: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        messages.iter().any(|line| line["message"] == "ready" && line["peer_id"].is_string()),
        "{log}"
    );
    assert!(messages.iter().any(|line| line["message"] == "the node has stopped"), "{log}");
}

/// A data folder that somebody made with the usual mode left the databases readable by everybody on
/// the machine.
#[test]
fn folders_with_data_are_closed_to_other_users_also_when_they_were_open() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let folders = ["", "db", "db/ns", "db/tmp", "backups"].map(|name| data.join(name));
    for path in &folders {
        std::fs::create_dir_all(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let node = Node::start(&data);
    for path in &folders {
        let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", path.display());
    }
    let said = node.program.output();
    assert_eq!(
        said.matches("closed to them now").count(),
        folders.len(),
        "one line for each: {said}"
    );
    node.stop();
    let again = Node::start(&data);
    assert!(!again.program.output().contains("closed to them"), "{}", again.program.output());
    again.stop();
}
