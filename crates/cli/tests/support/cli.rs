//! `network-cli` as a test runs it.

use super::{Node, Program, text_of, without_surroundings};
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The command line, for one node and one credential.
#[derive(Clone)]
pub struct Cli {
    peer: String,
    key: String,
    home: PathBuf,
}

impl Cli {
    pub fn new(node: &Node, key: &str, home: &Path) -> Self {
        Self { peer: node.peer(), key: key.to_owned(), home: home.to_owned() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_network-cli"));
        without_surroundings(&mut command);
        command
            .args(["--bootstrap", &self.peer])
            .args(args)
            .env("DEBROS_API_KEY", &self.key)
            .env("HOME", &self.home)
            .current_dir(&self.home);
        command
    }

    /// Runs a command with something on its standard input.
    pub fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run network-cli");
        let mut pipe = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        // Beside the reading: neither pipe may fill up while the other is waited for. One that the
        // program does not read breaks.
        let writing = std::thread::spawn(move || drop(pipe.write_all(&input)));
        let output = child.wait_with_output().expect("network-cli ends");
        writing.join().expect("no panic");
        output
    }

    /// Runs a command that must succeed, and returns what it wrote to standard output.
    pub fn bytes(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(args, input);
        assert!(output.status.success(), "{args:?}: {}", text_of(&output));
        output.stdout
    }

    /// The same as text.
    pub fn text(&self, args: &[&str]) -> String {
        String::from_utf8(self.bytes(args, b"")).expect("UTF-8")
    }

    /// The same in JSON's own words.
    pub fn json_text(&self, args: &[&str]) -> String {
        self.text(&[&["--format", "json"], args].concat())
    }

    /// The same as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.json_text(args);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// Starts a command that goes on.
    pub fn start(&self, args: &[&str]) -> Program {
        Program::start(&mut self.command(args))
    }
}
